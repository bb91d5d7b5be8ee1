"""paramiko and a pool of threads: connections are kept, a command over each of them in every cycle.

One of the programs that `peers.py` measures. The key is loaded once, every host has one client.
"""

import argparse
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import paramiko

from ps_rows import FORMS


def main() -> None:
    """Connects to all hosts, runs the command on them as many times as asked, prints what they say."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", required=True, type=Path, help="a file, one on each line")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--user", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--cycles", type=int, default=1)
    parser.add_argument("--form", choices=FORMS, required=True)
    parser.add_argument("command")
    given = parser.parse_args()
    hosts = given.hosts.read_text(encoding="utf-8").split()
    key = paramiko.Ed25519Key.from_private_key_file(given.key)
    clients: dict[str, paramiko.SSHClient] = {}

    def connect(host: str) -> paramiko.SSHClient:
        client = paramiko.SSHClient()
        client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - fleetmem's `accept-new`
        client.connect(host, given.port, given.user, pkey=key, allow_agent=False, look_for_keys=False, timeout=60)
        return client

    def run(host: str) -> str:
        if host not in clients:
            clients[host] = connect(host)
        _stdin, stdout, _stderr = clients[host].exec_command(given.command)
        return FORMS[given.form](host, stdout.read().decode(errors="replace"))

    with ThreadPoolExecutor(given.at_once) as pool:
        for _ in range(given.cycles):
            for text in pool.map(run, hosts):
                print(text, end="")
    for client in clients.values():
        client.close()


if __name__ == "__main__":
    main()
