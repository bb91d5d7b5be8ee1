"""Hosts that misbehave: TCP servers that speak no SSH or stop half-way, and asyncssh servers behind a good login.

They live in a process of their own, which is this file run as a program: one command a line on its standard input, one
line of JSON as the answer. `HostileHosts` is the side of the tests.
"""

import asyncio
import json
import re
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import asyncssh

Process = asyncssh.SSHServerProcess[bytes]
SshBehaviour = Callable[[Process], Awaitable[None]]
TcpBehaviour = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]

_REQUEST = re.compile(rb"sample (\d+) (?:status|ps) (?:user|all)\n")


class HostileHosts:
    """Starts hosts that misbehave, each on an address of its own in 127.0.2.0/24.

    Attributes:
        key: a private key that those which speak SSH let in.
    """

    def __init__(self, process: subprocess.Popen[str], key: Path) -> None:
        self.key = key
        self._process = process

    def start(self, behaviour: str) -> str:
        """Starts a host that behaves like the function of that name below; returns its `address:port`."""
        return str(self._ask("start", behaviour))

    def counts(self, host: str) -> dict[str, int]:
        """Returns what a host counted: logins, requests, in_flight (now) and most_in_flight."""
        answer = self._ask("counts", host)
        assert isinstance(answer, dict)
        return {"logins": 0, "requests": 0, "in_flight": 0, "most_in_flight": 0} | answer

    def _ask(self, *words: str) -> object:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(" ".join(words) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


@contextmanager
def hostile_hosts(key: Path) -> Iterator[HostileHosts]:
    """Runs the program for hosts that misbehave.

    Args:
        key: a private key, with its public one beside it, that those which speak SSH let in.
    """
    command = [sys.executable, "-W", "ignore", __file__, str(key.with_suffix(".pub"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield HostileHosts(process, key)
        finally:
            process.kill()


def refused() -> str:
    """Returns an `address:port` where nothing listens."""
    with socket.create_server(("127.0.2.200", 0)) as server:
        return f"127.0.2.200:{server.getsockname()[1]}"


# --- frames ----------------------------------------------------------------------------------------------------------

MEMORY_KIB = 16_000_000


def frame(request_id: int, names: list[bytes], *, rss_kib: int = 1000) -> bytes:
    """Returns a frame as the probe makes it; process N is called names[N-1] and has rss_kib + N KiB."""
    rows = [
        b"P %d 0 %d %d %d - - %s" % (pid, 2 * rss_kib, rss_kib + pid, rss_kib + pid, name)
        for pid, name in enumerate(names, 1)
    ]
    head = [b"BEGIN fleetmem/1 %d" % request_id, b"M %d %d 0 0" % (MEMORY_KIB, MEMORY_KIB // 2), b"K 0 -"]
    return b"\n".join([*head, *rows, b"END %d 0 %d" % (request_id, len(rows)), b""])


async def requests(process: Process) -> AsyncIterator[int]:
    """Yields the id of each request as it comes."""
    async for line in process.stdin:
        match = _REQUEST.fullmatch(line)
        assert match, line
        count(process)["requests"] += 1
        yield int(match[1])


_counts: dict[str, Counter[str]] = {}


def count(process: Process) -> Counter[str]:
    """Returns what is counted for the host that a command runs on."""
    address, port = process.get_extra_info("sockname")[:2]
    return _counts.setdefault(f"{address}:{port}", Counter())


# --- what a host may do to us ----------------------------------------------------------------------------------------


async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A listener that takes connections and never says a word."""
    await _until_gone(reader, writer)


async def stop_in_key_exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An SSH server that sends its version and its half of the negotiation, and then nothing."""
    writer.write(_VERSION + _key_exchange_init())
    await _until_gone(reader, writer)


async def close_in_key_exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """The same, but it closes the connection there."""
    writer.write(_VERSION + _key_exchange_init())
    await reader.readuntil(b"\n")
    writer.close()
    await writer.wait_closed()


async def speak_http(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A web server where sshd was expected."""
    await reader.readuntil(b"\n")
    writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
    writer.close()
    await writer.wait_closed()


async def endless_banner(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Lines without end before SSH's version line, as RFC 4253 allows them."""
    await _send_without_end(writer, b"Welcome! \x1b[2J\r\n" * 4096)


async def endless_banner_line(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """One such line, which never ends."""
    await _send_without_end(writer, b"Welcome! " * 8192)


async def huge_first_packet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A first packet that is said to be 4 GiB long."""
    writer.write(_VERSION + b"\xff\xff\xff\xff")
    await _send_without_end(writer, bytes(65536))


async def bombard_key_exchange(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An SSH server that goes on with small packets to be ignored, instead of its half of the key exchange."""
    ignored = b"\x00\x00\x00\x0c\x06\x02" + bytes(10)
    writer.write(_VERSION + _key_exchange_init())
    await _send_without_end(writer, ignored * 4096)


async def _send_without_end(writer: asyncio.StreamWriter, data: bytes) -> None:
    with suppress(ConnectionError):
        while True:
            writer.write(data)
            await writer.drain()


_VERSION = b"SSH-2.0-OpenSSH_9.2\r\n"


def _key_exchange_init() -> bytes:
    """Returns a whole SSH_MSG_KEXINIT packet (RFC 4253, 6 and 7.1)."""
    lists = [
        b"curve25519-sha256",
        b"ssh-ed25519",
        *[b"aes128-ctr"] * 2,
        *[b"hmac-sha2-256"] * 2,
        *[b"none"] * 2,
        b"",
        b"",
    ]
    payload = b"\x14" + bytes(16) + b"".join(len(text).to_bytes(4, "big") + text for text in lists) + bytes(5)
    padding = 8 - (len(payload) + 5) % 8 + 8
    return (len(payload) + padding + 1).to_bytes(4, "big") + bytes([padding]) + payload + bytes(padding)


async def _until_gone(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while await reader.read(65536):
            continue
    except ConnectionError:
        return
    finally:
        writer.close()


async def never_answer(process: Process) -> None:
    """A probe that reads requests and prints nothing."""
    async for _request_id in requests(process):
        counts = count(process)
        counts["most_in_flight"] = counts["in_flight"] = counts["in_flight"] + 1


async def end_output_and_stay(process: Process) -> None:
    """A probe that answers once, ends its output, and goes on listening for as long as the connection is there."""
    async for request_id in requests(process):
        process.stdout.write(frame(request_id, [b"init"]))
        process.stdout.write_eof()
    await asyncio.Event().wait()  # also when the other side has ended its own


async def end_output_at_work(process: Process) -> None:
    """A probe that ends its output as soon as it is asked, and works on for as long as the connection is there."""
    async for _request_id in requests(process):
        counts = count(process)
        counts["most_in_flight"] = counts["in_flight"] = counts["in_flight"] + 1
        process.stdout.write_eof()
    await asyncio.Event().wait()


async def flood(process: Process) -> None:
    """A command that prints without end."""
    await _print_without_end(process, b"y\n" * 16384)


async def flood_in_frame(process: Process) -> None:
    """A frame that never ends."""
    async for request_id in requests(process):
        process.stdout.write(b"BEGIN fleetmem/1 %d\nM 16000000 - - -\nK 0 -\n" % request_id)
        await _print_without_end(process, b"P 1 0 100 100 - - - endless\n" * 1000)


async def _print_without_end(process: Process, text: bytes) -> None:
    try:
        while True:
            process.stdout.write(text)
            await process.stdout.drain()
    except (OSError, asyncssh.Error):
        process.close()


async def flood_stderr(process: Process) -> None:
    """A probe that complains without end."""
    async for _request_id in requests(process):
        with suppress(OSError, asyncssh.Error):
            while True:
                process.stderr.write(b"sh: something is wrong\n" * 1000)
                await process.stderr.drain()


async def ten_million_processes(process: Process) -> None:
    """A whole frame, sent as fast as it is taken, of 10 million processes."""
    async for request_id in requests(process):
        process.stdout.write(b"BEGIN fleetmem/1 %d\nM 16000000 - - -\nK 0 -\n" % request_id)
        try:
            for first in range(1, 10_000_001, 10_000):
                process.stdout.write(b"".join(b"P %d 0 1 1 - - - x\n" % pid for pid in range(first, first + 10_000)))
                await process.stdout.drain()
        except (OSError, asyncssh.Error):
            process.close()
            return
        process.stdout.write(b"END %d 0 10000000\n" % request_id)


async def all_rows_change(process: Process) -> None:
    """As many processes as a frame may hold, and each of them is another size each time."""
    async for request_id in requests(process):
        rows = b"".join(b"P %d 0 9 %d - - - x\n" % (pid, pid + request_id) for pid in range(1, 65_001))
        head = b"BEGIN fleetmem/1 %d\nM 16000000 - - -\nK 0 -\n" % request_id
        process.stdout.write(head + rows + b"END %d 0 65000\n" % request_id)


async def too_many_processes(process: Process) -> None:
    """A frame that is short enough, of 250,000 processes."""
    rows = b"".join(b"P %d 0 1 1 - - - x\n" % pid for pid in range(1, 250_001))
    async for request_id in requests(process):
        head = b"BEGIN fleetmem/1 %d\nM 16000000 - - -\nK 0 -\n" % request_id
        process.stdout.write(head + rows + b"END %d 0 250000\n" % request_id)


async def crafted_names(process: Process) -> None:
    """Names of processes that are to steer a terminal, or to forge lines of StatsD, carbon and CSV."""
    async for request_id in requests(process):
        process.stdout.write(
            frame(request_id, [name.replace(b"\\", b"\\\\").replace(b"\n", b"\\n") for name in CRAFTED])
        )


CRAFTED = [
    b"\x1b[2J\x1b]0;mine\x07",
    b"\x9b31m\xc2\x9b31m",
    b"a\nforged.up:7|g",
    b"a:1|g|#x:y,z=1",
    b"a 1 2\nforged 1 2",
    b"=1+cmd|'/C x'!A0",
    b"@SUM(A1)",
    b'a","b"\r\nc,d',
    b"\xe2\x80\xaegnp.exe",
    b"[red]markup[/red]",
    b'a;b=c{d="e"}',
]


async def last_words(process: Process) -> None:
    """A host that says in every way that SSH has what is to steer a terminal, and ends the connection."""
    async for _request_id in requests(process):
        connection = _connection(process)
        connection.send_packet(4, b"\x01", _string(b"debug " + _STEERING), _string(b""))
        process.stderr.write(b"stderr " + _STEERING)
        await process.stderr.drain()
        connection.send_packet(1, bytes(3) + b"\x02", _string(b"bye " + _STEERING), _string(b""))


_STEERING = "\x1b[2J\x1b]0;mine\x07\nfake line\x9b31m\u202e".encode()


# --- packets behind a good login -------------------------------------------------------------------------------------


def _connection(process: Process) -> Any:
    return process.channel.get_connection()


async def _bombard(process: Process, *words: bytes, is_deaf: bool = False) -> None:
    """Sends one packet again and again, as fast as they are taken.

    Args:
        process: says which connection.
        words: of the packet, its type first.
        is_deaf: whether what the other side answers is not read.
    """
    connection = _connection(process)
    transport = connection._transport
    if is_deaf:
        transport.pause_reading()
    number, payload = words[0][0], words[1:]
    while not transport.is_closing():
        for _ in range(200):
            connection.send_packet(number, *payload)
        await asyncio.sleep(0)
        while transport.get_write_buffer_size() > 1_000_000 and not transport.is_closing():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def _string(text: bytes) -> bytes:
    return len(text).to_bytes(4, "big") + text


async def bombard_with_ignored(process: Process) -> None:
    """SSH_MSG_IGNORE, the smallest packets there are."""
    await _bombard(process, b"\x02", _string(b""))


async def bombard_with_debug(process: Process) -> None:
    """SSH_MSG_DEBUG, to be shown to the user."""
    await _bombard(process, b"\x04", b"\x01", _string(b"\x1b[2J" * 10), _string(b""))


async def bombard_with_requests(process: Process) -> None:
    """SSH_MSG_GLOBAL_REQUEST, of which no answer is read."""
    await _bombard(process, b"\x50", _string(b"keepalive@openssh.com"), b"\x01", is_deaf=True)


async def bombard_with_channels(process: Process) -> None:
    """SSH_MSG_CHANNEL_OPEN for forwarded connections, of which no answer is read."""
    words = _string(b"forwarded-tcpip"), bytes(4), b"\x00\x10\x00\x00" * 2
    await _bombard(process, b"\x5a", *words, _string(b"127.0.0.1"), bytes(4), _string(b"x"), bytes(4), is_deaf=True)


async def bombard_with_bytes(process: Process) -> None:
    """Channel data of one byte each."""
    await _bombard(process, b"\x5e", bytes(4), _string(b"x"))


async def storm_of_keys(process: Process) -> None:
    """One key exchange after the other."""
    connection = _connection(process)
    while not connection.is_closed():
        connection._send_kexinit()
        connection._kexinit_sent = True
        while not connection._kex_complete and not connection.is_closed():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)
        count(process)["keys"] += 1


async def garbage(process: Process) -> None:
    """Bytes that are no packet."""
    _connection(process)._send(bytes(range(256)) * 4096)


async def huge_packet(process: Process) -> None:
    """A packet that is said to be 4 GiB long."""
    _connection(process)._send(b"\xff\xff\xff\xff" + bytes(1_000_000))


async def compressed_bomb(process: Process) -> None:
    """Packets of 200 KB that become 200 MB."""
    while not (connection := _connection(process)).is_closed():
        connection.send_packet(2, _string(bytes(200_000_000)))
        await asyncio.sleep(0.01)


async def banners_without_end(process: Process) -> None:
    """SSH_MSG_USERAUTH_BANNER again and again, instead of letting us in: see `_BannerServer`."""


async def cut_in_frame(process: Process) -> None:
    """A connection that ends in the middle of a frame."""
    async for request_id in requests(process):
        whole = frame(request_id, [b"init", b"sshd", b"bash"])
        process.stdout.write(whole[: whole.index(b"P 3")])
        await process.stdout.drain()
        process.channel.get_connection().close()
        return


async def stall_in_frame(process: Process) -> None:
    """A probe that stops in the middle of a frame and stays."""
    async for request_id in requests(process):
        whole = frame(request_id, [b"init", b"sshd", b"bash"])
        process.stdout.write(whole[: whole.index(b"P 3")])


async def count_wrong(process: Process) -> None:
    """A frame that lost a row on its way."""
    async for request_id in requests(process):
        whole = frame(request_id, [b"init", b"sshd", b"bash"])
        process.stdout.write(whole.replace(b"P 2 0", b"Q 2 0"))


async def break_off_twice(process: Process) -> None:
    """A probe whose awk breaks off in the middle of the first two frames."""
    async for request_id in requests(process):
        whole = frame(request_id, [b"request-%d" % request_id, b"sshd"])
        broken = whole[: whole.index(b"P 2") + 5] + b"\nAGAIN fleetmem/1 2\n"
        process.stdout.write(broken if request_id <= 2 else whole)


async def break_off_for_ever(process: Process) -> None:
    """A probe that answers every request, and no request too, by asking for another one."""
    async for _request_id in requests(process):
        process.stdout.write(b"\nAGAIN fleetmem/1 2\n" * 100)


async def break_off_without_awk(process: Process) -> None:
    """A probe on a host without awk."""
    async for _request_id in requests(process):
        process.stdout.write(b"\nAGAIN fleetmem/1 127\n")


async def no_shell(process: Process) -> None:
    """An account that may not run commands."""
    process.stdout.write(b"This account is currently not available.\n")
    process.exit(1)


async def command_missing(process: Process) -> None:
    """A login shell that finds no /bin/sh."""
    process.stderr.write(b"fish: Unknown command: /bin/sh\n")
    process.exit(127)


async def many_processes(process: Process) -> None:
    """A host with 20,000 processes."""
    async for request_id in requests(process):
        process.stdout.write(frame(request_id, [b"worker-%d" % (pid % 500) for pid in range(1, 20_001)]))


async def not_utf8(process: Process) -> None:
    """Process names that are not UTF-8: Latin-1, broken sequences, all bytes."""
    async for request_id in requests(process):
        process.stdout.write(frame(request_id, NOT_UTF8))


NOT_UTF8 = [b"caf\xe9", b"caf\xe8", b"\xff\xfe\xfd", b"\xed\xa0\x80", bytes(range(0x80, 0x8F)), b"plain"]


async def banner(process: Process) -> None:
    """A login shell that prints a message of the day, and text without a newline right before the probe starts."""
    process.stdout.write(
        b"Welcome to Example Linux!\nEND 1 0 0 processes today\n" + b"=" * 5000 + b"\nlast login: never "
    )
    process.stderr.write(b"bash: warning: setlocale: LC_ALL\n")
    await real_probe(process)


async def slow(process: Process) -> None:
    """A host that needs 6 s for each sample."""
    await _answer_late(process, lambda _request_id: 6)


async def slow_once(process: Process) -> None:
    """A host that needs 2 s for its first sample and no time for the others."""
    await _answer_late(process, lambda request_id: 2 if request_id == 1 else 0)


async def _answer_late(process: Process, seconds: Callable[[int], float]) -> None:
    """Works on all requests at once, and counts how many that are; its processes are named after the request."""
    counts = count(process)

    async def answer(request_id: int) -> None:
        await asyncio.sleep(seconds(request_id))
        process.stdout.write(frame(request_id, [b"request-%d" % request_id]))
        counts["in_flight"] -= 1

    async with asyncio.TaskGroup() as group:
        async for request_id in requests(process):
            counts["in_flight"] += 1
            counts["most_in_flight"] = max(counts["most_in_flight"], counts["in_flight"])
            group.create_task(answer(request_id))


async def real_probe(process: Process) -> None:
    """A host that runs what it is asked to."""
    await _run_under("sh", process)


async def wrong_key(process: Process) -> None:
    """A host that lets nobody in."""


def _shell(name: str) -> SshBehaviour:
    async def behave(process: Process) -> None:
        await _run_under(name, process)

    return behave


async def _run_under(shell: str, process: Process) -> None:
    """Runs the command by a login shell, as sshd does: `shell -c command`."""
    pipe = asyncio.subprocess.PIPE
    words = [*shell.split("+"), "-c", process.command or ""]
    child = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe, stderr=pipe)
    assert child.stdin
    assert child.stdout
    assert child.stderr

    async def pump(source: Any, target: Any) -> None:
        with suppress(OSError, asyncssh.Error):
            while data := await source.read(65536):
                target.write(data)
                await target.drain()

    asking = asyncio.create_task(pump(process.stdin, child.stdin))
    asking.add_done_callback(lambda _task: child.stdin.close() if child.stdin else None)
    await asyncio.gather(pump(child.stdout, process.stdout), pump(child.stderr, process.stderr))
    process.exit(await child.wait())


# --- the program -----------------------------------------------------------------------------------------------------

_TCP = (
    say_nothing,
    stop_in_key_exchange,
    close_in_key_exchange,
    speak_http,
    endless_banner,
    endless_banner_line,
    huge_first_packet,
    bombard_key_exchange,
)


class _Program:
    def __init__(self, public_key: Path) -> None:
        self._authorized_keys = public_key.read_text()
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self._started = 0
        self._servers: list[object] = []  # a server that nobody holds is closed

    async def run(self) -> None:
        """Obeys until standard input ends."""
        lines = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
        async for line in lines:
            verb, word = line.decode().split()
            answer: object = await self._start(word) if verb == "start" else dict(_counts.get(word, {}))
            print(json.dumps(answer), flush=True)  # noqa: T201 - a program's answer

    async def _start(self, name: str) -> str:
        self._started += 1
        address = f"127.0.2.{self._started}"
        for behave in _TCP:
            if behave.__name__ == name:
                server = await asyncio.start_server(behave, address, 0)
                self._servers.append(server)
                return f"{address}:{server.sockets[0].getsockname()[1]}"
        shell = name.removeprefix("shell:")
        listener = await asyncssh.listen(
            address,
            0,
            server_factory=_BannerServer if name == "banners_without_end" else _Server,
            compression_algs=["zlib@openssh.com"] if name == "compressed_bomb" else ["none"],
            server_host_keys=[self._host_key],
            authorized_client_keys=asyncssh.import_authorized_keys(
                "" if name == "wrong_key" else self._authorized_keys
            ),
            process_factory=_shell(shell) if shell != name else globals()[name],
            encoding=None,
        )
        self._servers.append(listener)
        return f"{address}:{listener.get_port()}"


class _Server(asyncssh.SSHServer):
    def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
        self._connection = conn

    def auth_completed(self) -> None:
        address, port = self._connection.get_extra_info("sockname")[:2]
        _counts.setdefault(f"{address}:{port}", Counter())["logins"] += 1

    def public_key_auth_supported(self) -> bool:
        return True


class _BannerServer(_Server):
    async def begin_auth(self, username: str) -> bool:
        while not self._connection.is_closed():
            self._connection.send_auth_banner("\x1b[2J" * 5000)
            await asyncio.sleep(0)
        return True


if __name__ == "__main__":
    asyncio.run(_Program(Path(sys.argv[1])).run())
