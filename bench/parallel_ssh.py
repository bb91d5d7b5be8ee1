"""parallel-ssh: its client keeps the connections, a command over each of them in every cycle.

One of the programs that `peers.py` measures. The client is the package's default one, with libssh2 and gevent.
"""

from pssh.clients import ParallelSSHClient

from ps_rows import FORMS, arguments


def main() -> None:
    """Runs the command on all hosts as many times as asked, prints what they say."""
    given = arguments(__doc__)
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
