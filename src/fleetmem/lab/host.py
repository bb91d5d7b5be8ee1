"""A lab host: an SSH server that runs commands with /bin/sh, and processes whose memory moves.

`python -m fleetmem.lab.host DESCRIPTOR HOST_KEY AUTHORIZED_KEYS`, where the descriptor is a listening socket. A server
in Python and not sshd: that one wants a user and a directory that only root can make, and its package starts a
service.
"""

import asyncio
import os
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, PIPE
from contextlib import suppress
from pathlib import Path

from fleetmem.connect.ssh import asyncssh
from fleetmem.lab import workload

LISTENING = "listening"
"""Printed when logins are possible."""

_AWAY_SECONDS = 5.0
_WORKLOADS = ("steady", "leaky", "come-and-go")
_NO_COMMAND = b"a lab host runs commands, it has no terminal: ssh ... HOST COMMAND\n"


async def serve(listener: socket.socket, host_key: Path, authorized_keys: Path) -> None:
    """Serves logins and runs the workload until SIGTERM, SIGINT or SIGALRM."""
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run_workload(name)) for name in _WORKLOADS]
        server = await asyncssh.listen(
            sock=listener,
            server_host_keys=[str(host_key)],
            authorized_client_keys=str(authorized_keys),
            process_factory=run_command,
            encoding=None,
            allow_pty=False,
            line_editor=False,
        )
        print(LISTENING, flush=True)  # noqa: T201 - its log, which `up` reads
        await stopping.wait()
        server.close()
        for task in tasks:
            task.cancel()


async def run_command(process: asyncssh.SSHServerProcess[bytes]) -> None:
    """Runs a command as sshd does, with /bin/sh; its processes end with the channel."""
    if process.command is None:
        process.stderr.write(_NO_COMMAND)
        process.exit(1)
        return
    command = os.fsencode(process.command)
    child = await asyncio.create_subprocess_exec(
        "/bin/sh", "-c", command, stdin=PIPE, stdout=PIPE, stderr=PIPE, process_group=0
    )
    try:
        async with asyncio.TaskGroup() as group:
            closed = group.create_task(process.wait_closed())
            served = group.create_task(_serve(process, child))
            await asyncio.wait([closed, served], return_when=asyncio.FIRST_COMPLETED)
            served.cancel()
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)


async def _serve(process: asyncssh.SSHServerProcess[bytes], child: asyncio.subprocess.Process) -> None:
    await process.redirect(stdin=child.stdin, stdout=child.stdout, stderr=child.stderr)
    status = await child.wait()
    await process.stdout.drain()
    await process.stderr.drain()
    if status < 0:
        process.exit_with_signal(signal.Signals(-status).name.removeprefix("SIG"))
    else:
        process.exit(status)


async def run_workload(name: str) -> None:
    """Runs a workload, again and again if it ends."""
    while True:
        # -I -S: a bare interpreter is smaller and starts faster.
        argv = (sys.executable, "-I", "-S", str(workload.__file__), name)
        child = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=DEVNULL)
        try:
            await child.wait()
        finally:
            if child.returncode is None:
                child.kill()
        await asyncio.sleep(_AWAY_SECONDS)


def main(descriptor: str, host_key: str, authorized_keys: str) -> None:
    """Becomes a lab host."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text("lab-host", encoding="ascii")
    with socket.socket(fileno=int(descriptor)) as listener:
        asyncio.run(serve(listener, Path(host_key), Path(authorized_keys)))


if __name__ == "__main__":
    main(*sys.argv[1:])
