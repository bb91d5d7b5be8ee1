"""paramiko and a pool of threads: connections are kept, a command over each of them in every cycle.

One of the programs that `peers.py` measures. The key is loaded once, every host has one client.
"""

from concurrent.futures import ThreadPoolExecutor

import paramiko

from ps_rows import FORMS, arguments


def main() -> None:
    """Connects to all hosts, runs the command on them as many times as asked, prints what they say."""
    given = arguments(__doc__)
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
