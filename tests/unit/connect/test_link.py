"""A link against a host that is a script: what it is asked, how often it is tried, and what its ends are called."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from fleetmem.connect import link as link_module
from fleetmem.connect.backoff import NotTriedError
from fleetmem.connect.first_output import FirstOutput
from fleetmem.connect.link import Link, ProbeAnswer, ProbeChannel, ProbeRequest
from fleetmem.connect.ssh_settings import SshSettings
from fleetmem.errors import Cause, HostError, Kind, Stage
from fleetmem.model import Host
from fleetmem.probe.frame import FrameReader
from unit.connect.targets import resolve

_HOST = Host("web01", "127.0.0.1")
_STDERR: Any = 1  # asyncssh's type of data for it
_FRAME = b"BEGIN fleetmem/1 %d\nEND %d ok 0\n"


def _request(number: int) -> bytes:
    return b"sample %d status user\n" % number


class _Script:
    """A host: what it does with each request, one after the other; the last one again for ever."""

    def __init__(self, *steps: str) -> None:
        self.steps = list(steps)
        self.requests: list[int] = []
        self.session: Any = None
        self.is_closed = self.is_input_over = False

    def write(self, data: bytes) -> None:
        """Takes a request."""
        number = int(data.split()[1])
        self.requests.append(number)
        step, _, rest = (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0]).partition(" ")
        match step:
            case "answer":
                self.session.data_received(_FRAME % (number, number), None)
            case "again":
                self.session.data_received(b"\nAGAIN fleetmem/1 %s\n" % rest.encode(), None)
            case "end":
                self.session.exit_status_received(int(rest))
                self.session.connection_lost(None)
            case "hang":
                pass

    def write_eof(self) -> None:
        """Sees the end of the input."""
        self.is_input_over = True

    def close(self) -> None:
        """Sees the channel closed."""
        self.is_closed = True


class _Connection:
    """To a host that is a script."""

    def __init__(self, script: _Script) -> None:
        self.script = script
        self.is_closed = False

    async def create_session(self, make: Callable[[], Any], command: str, *, encoding: None) -> None:
        """Opens the channel."""
        self.script.session = make()
        self.script.session.connection_made(self.script)
        # The command has the first request in it; the session writes it again, for a forced command.
        self.script.session.session_started()

    def close(self) -> None:
        """Closes it."""
        self.is_closed = True

    abort = close

    async def wait_closed(self) -> None:
        """Does not take long."""


class _Reach:
    """Leads to a script for each connection, or fails.

    Attributes:
        tries: logins that were tried.
        error: why they fail.
        keys_now: that a login would offer.
    """

    def __init__(self, scripts: list[_Script], command_seconds: float) -> None:
        self._scripts = scripts
        self._target = resolve("127.0.0.1", SshSettings(command_timeout_seconds=command_seconds))
        self.tries = 0
        self.error: HostError | None = None
        self.way_error: HostError | None = None
        self.keys_now = frozenset({b"key"})

    def target(self, _host: Host) -> Any:
        """Returns how the host is reached."""
        return self._target

    @asynccontextmanager
    async def login(self, _target: Any, on_begun: Callable[[Any], None]) -> AsyncIterator[Any]:
        """Logs in."""
        self.tries += 1
        if self.error:
            raise self.error
        connection = _Connection(self._scripts.pop(0))
        on_begun(connection)
        yield connection

    def lighten(self, _connection: Any) -> None:
        """Has nothing to let go of."""

    async def try_way(self, _target: Any) -> None:
        """Looks whether the host is there."""
        if self.way_error:
            raise self.way_error

    async def keys(self, _target: Any) -> frozenset[bytes]:
        """Returns keys."""
        return self.keys_now

    async def has_other_keys(self, _target: Any, refused: frozenset[bytes]) -> bool:
        """Whether keys have changed."""
        return self.keys_now != refused


class _Scene:
    """A link, its hosts, and the time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *scripts: _Script, command_seconds: float = 5.0) -> None:
        self.skipped_seconds = 0.0
        clock = SimpleNamespace(monotonic=lambda: time.monotonic() + self.skipped_seconds, time=time.time)
        monkeypatch.setattr(link_module, "time", clock)
        self.reach = _Reach(list(scripts), command_seconds)
        self.link = Link(_HOST, self.reach, "probe", FrameReader)  # type: ignore[arg-type]

    async def ask(self) -> ProbeAnswer:
        """Asks for a frame."""
        return await self.link.ask(_request)

    async def failure(self) -> HostError:
        """Asks for a frame, in vain."""
        with pytest.raises(HostError) as caught:
            await self.ask()
        return caught.value


def _run(main: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(limited())


def test_one_connection_for_all_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first request goes with the command, each has the next number, and each answer is its own."""
    host = _Script("answer")
    scene = _Scene(monkeypatch, host)

    async def main() -> None:
        for number in (1, 2, 3):
            assert (await scene.ask()).frame == _FRAME % (number, number)
        assert (host.requests, scene.reach.tries, scene.link.connects_total) == ([1, 2, 3], 1, 1)
        await scene.link.close()

    _run(main())


def test_a_host_at_work_gets_no_second_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its time is over, and it is left alone until it has answered; then it is asked over the same connection."""
    host = _Script("hang", "answer")
    scene = _Scene(monkeypatch, host, command_seconds=0.05)

    async def main() -> None:
        assert (await scene.failure()).kind is Kind.COMMAND_TIMEOUT
        still = await scene.failure()
        assert still.kind is Kind.COMMAND_TIMEOUT
        assert "still at work on the sample asked for" in still.message
        assert host.requests == [1]
        host.session.data_received(_FRAME % (1, 1), None)
        assert (await scene.ask()).frame == _FRAME % (2, 2)
        assert (host.requests, scene.reach.tries) == ([1, 2], 1)

    _run(main())


def test_a_host_that_is_cut_off_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where it cannot be reached any more, that is what is said of it."""
    scene = _Scene(monkeypatch, _Script("hang"), command_seconds=0.05)

    async def main() -> None:
        await scene.failure()
        scene.reach.way_error = HostError(Stage.CONNECT, Kind.UNREACHABLE, "no route to host")
        assert (await scene.failure()).kind is Kind.UNREACHABLE

    _run(main())


@pytest.mark.parametrize(("status", "tries", "kind"), [(2, 3, Kind.COMMAND_FAILED), (127, 1, Kind.COMMAND_MISSING)])
def test_a_probe_that_breaks_off(monkeypatch: pytest.MonkeyPatch, status: int, tries: int, kind: Kind) -> None:
    """It is asked three times at most, once where it lacks awk, and the connection stays."""
    host = _Script(f"again {status}")
    scene = _Scene(monkeypatch, host)

    async def main() -> None:
        assert (await scene.failure()).kind is kind
        assert len(host.requests) == tries
        host.steps = ["again 2", "answer"]
        await scene.ask()
        assert scene.reach.tries == 1

    _run(main())


def test_a_failed_login_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same failure until its wait is over, without another login; then one, and it counts from anew."""
    scene = _Scene(monkeypatch, _Script("answer"))
    scene.reach.error = HostError(Stage.CONNECT, Kind.UNREACHABLE, "no route")

    async def main() -> None:
        assert (await scene.failure()).wait_seconds is None
        again = await scene.failure()
        assert (again.kind, scene.reach.tries) == (Kind.UNREACHABLE, 1)
        assert 0 < (again.wait_seconds or 0) <= 15 * 1.25
        scene.skipped_seconds += 15 * 1.25
        scene.reach.error = None
        await scene.ask()
        assert (scene.reach.tries, scene.link.connects_total) == (2, 2)

    _run(main())


def test_what_a_person_mends_ends_the_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other keys at once; a reload, too; one that nobody can mend waits all the same."""
    scene = _Scene(monkeypatch)
    scene.reach.error = HostError(Stage.LOGIN, Kind.AUTH_FAILED, "refused")

    async def main() -> None:
        for _ in range(2):
            await scene.failure()
        assert scene.reach.tries == 1
        scene.reach.keys_now = frozenset({b"other"})
        await scene.failure()
        assert scene.reach.tries == 2
        scene.link.forgive()
        scene.reach.error = HostError(Stage.CONNECT, Kind.UNREACHABLE, "no route")
        await scene.failure()
        assert scene.reach.tries == 3
        scene.link.forgive()
        await scene.failure()
        assert scene.reach.tries == 3

    _run(main())


def test_a_host_that_was_not_tried_has_no_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reason is another one's, and so is its wait."""
    scene = _Scene(monkeypatch, _Script("answer"))
    scene.reach.error = NotTriedError(Stage.CONNECT, Kind.UNREACHABLE, "jump host j: away")

    async def main() -> None:
        await scene.failure()
        assert scene.link.connects_total == 0
        scene.reach.error = None
        await scene.ask()

    _run(main())


def test_a_probe_that_ended_is_started_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that drops between two samples costs one of them, and a wait of a second."""
    first, second = _Script("answer"), _Script("answer")
    scene = _Scene(monkeypatch, first, second)

    async def main() -> None:
        await scene.ask()
        first.session.connection_lost(None)
        assert (await scene.failure()).kind is Kind.DISCONNECTED
        assert scene.reach.tries == 1
        scene.skipped_seconds += 1.25
        await scene.ask()
        assert (second.requests, scene.reach.tries) == ([2], 2)

    _run(main())


# --- the channel -----------------------------------------------------------------------------------------------------


def _channel(*, runs_by_sudo: bool = False) -> tuple[ProbeChannel, _Script]:
    """Returns a channel that is open and has sent its first request, to a host that does nothing by itself."""
    host = _Script("hang")
    channel = ProbeChannel(FrameReader(), ProbeRequest(1, _request(1)), runs_by_sudo=runs_by_sudo)
    host.session = channel
    channel.connection_made(host)  # type: ignore[arg-type]
    channel.session_started()
    return channel, host


@pytest.mark.parametrize(
    ("status", "stderr", "runs_by_sudo", "kind"),
    [
        (126, b"", False, Kind.COMMAND_MISSING),
        (127, b"sh: awk: not found", False, Kind.COMMAND_MISSING),
        (1, b"sudo: a password is required", True, Kind.SUDO_REFUSED),
        (1, b"This account is not available.", False, Kind.COMMAND_FAILED),
        (3, b"", True, Kind.COMMAND_FAILED),
    ],
)
def test_how_a_status_is_called(status: int, stderr: bytes, runs_by_sudo: bool, kind: Kind) -> None:
    """By the status, and by whether sudo had something to say; its words are in the message."""

    async def main() -> None:
        channel, host = _channel(runs_by_sudo=runs_by_sudo)
        if stderr:
            channel.data_received(stderr, _STDERR)
        channel.exit_status_received(status)
        channel.connection_lost(None)
        assert channel.ended
        assert channel.ended.kind is kind
        assert channel.ended.message.startswith(f"the probe ended with status {status}")
        assert channel.ended.message.endswith(stderr.decode())
        assert host.is_closed

    _run(main())


def test_other_ends() -> None:
    """A signal, a frame that breaks off, a connection that drops: each has its kind."""

    async def main() -> None:
        killed, _host = _channel()
        killed.exit_signal_received("KILL", False, "", "")
        killed.connection_lost(None)
        assert killed.ended
        assert (killed.ended.kind, killed.ended.cause) == (Kind.COMMAND_FAILED, Cause.KILLED)
        half, _host = _channel()
        half.data_received(b"BEGIN fleetmem/1 1\nP 1 0 ", None)
        half.connection_lost(None)
        assert half.ended
        assert half.ended.kind is Kind.BAD_FRAME
        lost, _host = _channel()
        lost.connection_lost(None)
        assert lost.ended
        assert lost.ended.kind is Kind.DISCONNECTED

    _run(main())


def test_a_flood_ends_it() -> None:
    """Who waits is told, the channel is closed, and whoever asks again hears the same."""

    async def main() -> None:
        channel, host = _channel()
        asked = asyncio.create_task(channel.ask(channel.first or ProbeRequest(1, b"")))
        await asyncio.sleep(0)
        channel.data_received(b"BEGIN fleetmem/1 1\n" + bytes(9 * 1024 * 1024), None)
        for asking in (asked, channel.ask(ProbeRequest(2, _request(2)))):
            with pytest.raises(HostError) as caught:
                await asking
            assert caught.value.kind is Kind.BAD_FRAME
        assert (host.is_closed, host.requests) == (True, [1])

    _run(main())


def test_a_bug_in_the_reader_surfaces() -> None:
    """It is not told as the host's fault to whoever waits for the answer."""

    class Broken(FrameReader):
        def feed(self, data: bytes) -> bytes | None:
            raise ZeroDivisionError

    async def main() -> None:
        channel = ProbeChannel(Broken(), ProbeRequest(1, _request(1)))
        channel.connection_made(_Script("hang"))  # type: ignore[arg-type]
        asked = asyncio.create_task(channel.ask(channel.first or ProbeRequest(1, b"")))
        await asyncio.sleep(0)
        channel.data_received(b"x", None)
        with pytest.raises(ZeroDivisionError):
            await asked
        assert channel.ended
        assert channel.ended.kind is Kind.INTERNAL

    _run(main())


def test_an_answer_is_not_searched_for_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even the first one, which comes whole with the login: the search took a twelfth of what a login costs."""
    searched: list[FirstOutput] = []

    def is_other(output: FirstOutput) -> bool:
        searched.append(output)
        return False

    monkeypatch.setattr(FirstOutput, "is_other", property(is_other))

    async def main() -> None:
        answers, _host = _channel()
        answers.data_received(_FRAME % (1, 1), None)
        assert not searched
        greets, _host = _channel()
        greets.data_received(b"Welcome\n", None)
        assert len(searched) == 1

    _run(main())


def test_the_end_of_the_input() -> None:
    """It comes for a host that has said nothing, and only for that; after its answer the probe there is spent."""

    async def main() -> None:
        talks, host = _channel()
        talks.data_received(b"Welcome\n", None)
        talks.end_silence()
        assert not host.is_input_over
        silent, host = _channel()
        silent.end_silence()
        assert host.is_input_over
        assert not silent.is_spent
        silent.data_received(_FRAME % (1, 1), None)
        assert silent.is_spent

    _run(main())


def test_an_output_that_ends_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host may still be at work: it is noted, for a longer wait."""
    monkeypatch.setattr(link_module, "_EOF_SECONDS", 0.01)

    async def main() -> None:
        busy, _host = _channel()
        idle, _other = _channel()
        idle.data_received(_FRAME % (1, 1), None)
        for channel in (busy, idle):
            assert channel.eof_received()
        while not (busy.ended and idle.ended):  # noqa: ASYNC110 - nothing tells
            await asyncio.sleep(0.01)
        assert (busy.is_left_at_work, idle.is_left_at_work) == (True, False)

    _run(main())
