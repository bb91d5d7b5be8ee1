"""parallel-ssh: its client keeps the connections, a command over each of them in every cycle.

One of the programs that `peers.py` measures. The client is the package's default one, with libssh2 and gevent.
"""

import argparse
from pathlib import Path

from pssh.clients import ParallelSSHClient

from ps_rows import FORMS


def main() -> None:
    """Runs the command on all hosts as many times as asked, prints what they say."""
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
    client = ParallelSSHClient(
        hosts, user=given.user, port=given.port, pkey=given.key, allow_agent=False, pool_size=given.at_once, timeout=60
    )
    for _ in range(given.cycles):
        output = client.run_command(given.command)
        client.join(output)
        for host in output:
            print(FORMS[given.form](host.host, "\n".join(host.stdout)), end="")


if __name__ == "__main__":
    main()
