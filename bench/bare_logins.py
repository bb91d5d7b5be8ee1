"""The least that a cold fleet costs with asyncssh: log in to every host at once, and out again, and nothing else."""

import argparse
import asyncio

import asyncssh


async def log_in(host: str, given: argparse.Namespace, key: asyncssh.SSHKey) -> None:
    """Logs in to a host and out again; its key is not even checked."""
    connection = await asyncssh.connect(
        host, given.port, username=given.user, client_keys=[key], known_hosts=None, config=None, agent_path=None
    )
    connection.close()
    await connection.wait_closed()


async def main() -> None:
    """Logs in to all hosts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", required=True, type=lambda text: text.split(","))
    parser.add_argument("--user", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--port", required=True, type=int)
    given = parser.parse_args()
    key = asyncssh.read_private_key(given.key)
    async with asyncio.TaskGroup() as group:
        for host in given.hosts:
            group.create_task(log_in(host, given, key))


if __name__ == "__main__":
    asyncio.run(main())
