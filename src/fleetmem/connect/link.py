"""One host: its SSH connection, the probe that runs at the other end, and when to try again.

    closed ──ask──> connect ──> login ──> probe running ──ask──> frame
      ^                │           │            │
      └──── backoff <──┴───────────┴────────────┘  (dropped, refused, flooded)

Never more than one sample in flight: while a host still works on a request that timed out, it gets no other one.
"""

import asyncio
import random
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple, Protocol

from fleetmem.connect.backoff import MENDED_BY_HAND, Backoff, NotTriedError, backoff_for
from fleetmem.connect.first_output import FirstOutput
from fleetmem.connect.guard import Flood
from fleetmem.connect.host_words import one_line
from fleetmem.connect.reach import Reach
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.translate import lost, translate, within
from fleetmem.errors import Cause, HostError, Kind, Stage
from fleetmem.model import Host

_STDERR_KEPT_BYTES = 500
_SILENT_SHARE = 0.75  # of the time limit, after which input ends for what is silent, where nothing is asked afterwards
_GREETING_MAX_BYTES = 1024 * 1024  # more than that before a frame is no greeting
_OTHER_SECONDS = 1.0  # the probe may yet come, where something complained of the request
_LAST_WORDS_SECONDS = 0.25  # the same, once the input has ended
_CLOSE_SECONDS = 1.0
_WAY_SECONDS = 15.0  # between two looks whether a host that does not answer can be reached at all
_EOF_SECONDS = 1.0
"""How long the end of a channel may come after the end of its output: the exit status comes between the two."""
_STUCK = backoff_for(HostError(Stage.COMMAND, Kind.COMMAND_TIMEOUT, ""))
_TRIES = 3
"""How many times a sample is asked for, all within its time, where the probe breaks off."""


class FrameSource(Protocol):
    """Cuts answers out of a byte stream (see `probe.frame.FrameReader`)."""

    def expect(self, request_id: int) -> None:
        """Starts over, for the answer to this request."""

    def feed(self, data: bytes) -> bytes | None:
        """Takes bytes; returns the whole answer once it is there. Raises HostError on a flood."""

    def unfinished(self) -> str:
        """Returns what came and is no answer, as printable text."""

    @property
    def is_in_frame(self) -> bool:
        """Whether an answer has begun and not ended."""

    @property
    def broke_off(self) -> HostError | None:
        """Why the host gave the request up and waits for another one; None where it did not."""


class ProbeRequest(NamedTuple):
    """What asks the probe for a frame: its id, and the line."""

    id: int
    line: bytes


class ProbeStart(NamedTuple):
    """What starts the probe: the command, and what that reads before the first request."""

    command: str
    first_input: bytes = b""


class ProbeAnswer(NamedTuple):
    """A frame, and when it was asked for by our clock."""

    asked_unix_seconds: float
    frame: bytes


class ProbeChannel(asyncssh.SSHClientSession[bytes]):
    """The channel that the probe runs in: one request out, one frame back.

    Args:
        reader: cuts frames out of what comes.
        first: the first request, which goes out with the command.
        first_input: what the command reads before it.
        runs_by_sudo: whether the command starts the probe by sudo.

    Attributes:
        first: the first request, until it is asked for.
        asked_at: when the request was sent (monotonic seconds) that the host has not answered yet, None when it has.
        ended: why no more requests can be sent; None while they can.
        ended_at: since when (monotonic seconds).
        ended_busy_seconds: how long the host had been at work on a request then, 0 when it was idle.
        is_left_at_work: whether it ended without the host's saying that it is through with the request.
        is_input_over: whether the input has ended: the probe answers what it was asked, and ends.
    """

    def __init__(
        self, reader: FrameSource, first: ProbeRequest, *, first_input: bytes = b"", runs_by_sudo: bool = False
    ) -> None:
        self._reader = reader
        self.first: ProbeRequest | None = first
        self._first_input = first_input
        self._runs_by_sudo = runs_by_sudo
        self._channel: asyncssh.SSHClientChannel[bytes] | None = None
        self._answer: asyncio.Future[bytes] | None = None
        self.asked_at: float | None = None
        self._asked_unix_seconds = 0.0
        self._idle: asyncio.Event | None = None  # where somebody waits for it
        self._stderr = b""
        self._exit_status: int | None = None
        self._exit_signal = ""
        self._first_output: FirstOutput | None = FirstOutput(first.line)  # until the probe has answered
        self._concluding: asyncio.TimerHandle | None = None
        self._is_output_over = False
        self.is_input_over = False
        self.is_left_at_work = False
        self.ended: HostError | None = None
        self.ended_at = 0.0
        self.ended_busy_seconds = 0.0

    @property
    def is_spent(self) -> bool:
        """Whether the probe has answered all that it was asked, and ends, as its input has ended."""
        return self.is_input_over and self._first_output is None and self.asked_at is None

    async def ask(self, request: ProbeRequest) -> ProbeAnswer:
        """Returns the frame that answers a request, which is sent now unless it is the first one.

        Raises:
            HostError: the channel ended, or the host sent nonsense; or, where the channel has not `ended`, the probe
                broke off and may be asked again.
            TimeoutError: `give_up` was called.
        """
        if request is not self.first:
            if self._is_output_over:
                self._end_after_eof()
            if self.ended:
                raise self.ended.bare()
            self._expect(request)
            self._write(request.line)
        self.first = None
        if self._answer is None:
            raise RuntimeError("asked before the channel was open")
        try:
            return ProbeAnswer(self._asked_unix_seconds, await self._answer)
        finally:
            self._answer = None  # thousands would keep their last frame

    def _expect(self, request: ProbeRequest) -> None:
        self._reader.expect(request.id)
        self._answer = asyncio.get_running_loop().create_future()
        self._answer.add_done_callback(_look_at)
        self.asked_at, self._asked_unix_seconds = time.monotonic(), time.time()

    def _write(self, data: bytes) -> None:
        if self._channel:
            with suppress(BrokenPipeError):  # it is closing already: `connection_lost` will say why
                self._channel.write(data)

    def end_silence(self) -> None:
        """Ends the input where nothing has come: a shell that reads all of it before it runs anything has then to.

        The probe finishes what it was asked for, and keeps the channel open for as long as that takes.
        """
        if self.is_input_over or self.ended or not self._channel:
            return
        if self._first_output and not self._first_output.has_stdout:
            self.is_input_over = True
            self._channel.write_eof()

    def overdue(self, seconds: float) -> HostError:
        """Returns what to say of a host that has not answered within its time."""
        if self._first_output and self._first_output.has_stdout and not self._reader.is_in_frame:
            if self._first_output.stdout_bytes > _GREETING_MAX_BYTES:
                message = f"sent {self._first_output.stdout_bytes} bytes without beginning a frame"
                return HostError(Stage.COMMAND, Kind.BAD_FRAME, message)
            return self._first_output.error(f" within {seconds:g} s")
        said = one_line(self._stderr) if self._first_output else ""
        error = translate(TimeoutError(), Stage.COMMAND, seconds)
        return error.with_message(f"{error.message}; the host said: {said}", Cause.HOST_SAID) if said else error

    def give_up(self) -> None:
        """Ends the wait for an answer with TimeoutError; the host is still at work."""
        if self._answer and not self._answer.done():
            self._answer.set_exception(TimeoutError())

    async def until_idle(self) -> None:
        """Waits until the host has answered the last request, or the channel has ended."""
        if self.asked_at is not None:
            self._idle = self._idle or asyncio.Event()
            await self._idle.wait()

    # asyncssh calls the methods below.

    def connection_made(self, chan: asyncssh.SSHClientChannel[bytes]) -> None:
        """The channel is open, and the command goes out, with the first request behind it."""
        self._channel = chan
        if self.first:
            self._expect(self.first)

    def session_started(self) -> None:
        """The host has taken the command. A forced command does not see what was asked for: it gets it here."""
        self._write(self._first_input + (self.first.line if self.first else b""))

    def data_received(self, data: bytes, datatype: asyncssh.DataType) -> None:
        """The host printed something."""
        if self.ended:
            return
        has_news = self._first_output is not None and self._first_output.add(data, is_stderr=datatype is not None)
        if datatype is not None:
            self._stderr = (self._stderr + data)[-_STDERR_KEPT_BYTES:]
            if has_news:
                self._look_for_others()
            return
        try:
            frame = self._reader.feed(data)
        except HostError as error:
            self._end(error.bare())  # a flood's frames hold half a megabyte of it
            return
        except Exception as bug:  # noqa: BLE001 - asyncssh would tell of a lost connection: whoever asks gets the bug
            self._end(HostError(Stage.COMMAND, Kind.INTERNAL, f"a bug in fleetmem: {type(bug).__name__}"), bug)
            return
        if has_news and frame is None:  # a flood has none after its first 2,000 bytes: it is not searched for ever
            self._look_for_others()
        if frame is not None:
            self._first_output = None
            self._settle()
            if self._answer and not self._answer.done():
                self._answer.set_result(frame)
        elif self._reader.broke_off is not None:
            self._settle()
            if self._answer and not self._answer.done():
                self._answer.set_exception(self._reader.broke_off)

    def eof_received(self) -> bool:
        """The host prints no more. Some hosts leave it at that: then the channel has ended all the same."""
        self._is_output_over = True
        asyncio.get_running_loop().call_later(_EOF_SECONDS, self._end_after_eof)
        return True  # else asyncssh would close the channel at once, whether the host is at work or not

    def _end_after_eof(self) -> None:
        if not self.ended:
            self.is_left_at_work = self.asked_at is not None
            self._end(self._why_ended(EOFError("the host ended the output of the probe and keeps the connection")))

    def _look_for_others(self) -> None:
        """Looks whether something else than the probe is there; the wait for an answer is then a short one."""
        if not self._first_output or self._concluding or self._reader.is_in_frame:
            return
        if self._first_output.is_terminal:
            self._conclude()
        elif self._first_output.is_other:
            seconds = _LAST_WORDS_SECONDS if self.is_input_over else _OTHER_SECONDS
            self._concluding = asyncio.get_running_loop().call_later(seconds, self._conclude)

    def _conclude(self) -> None:
        if self._first_output and not self._reader.is_in_frame:
            self._end(self._first_output.error())

    def exit_signal_received(self, signal: str, core_dumped: bool, msg: str, lang: str) -> None:
        """A signal ended the probe, or what ran instead of it."""
        self._exit_signal = signal

    def exit_status_received(self, status: int) -> None:
        """The probe, or what ran instead of it, ended."""
        self._exit_status = status

    def connection_lost(self, exc: Exception | None) -> None:
        """The channel is closed."""
        self._end(self._why_ended(exc))

    def _why_ended(self, exc: Exception | None) -> HostError:
        if isinstance(exc, Flood):
            return translate(exc, Stage.COMMAND, 0)
        said = one_line(self._stderr) or self._reader.unfinished()
        if self._exit_signal:
            message = f"the host ended the probe with signal {self._exit_signal}" + (f": {said}" if said else "")
            return HostError(Stage.COMMAND, Kind.COMMAND_FAILED, message, Cause.KILLED)
        if self._reader.is_in_frame:
            return HostError(Stage.COMMAND, Kind.BAD_FRAME, "the answer broke off in the middle of a frame")
        if self._exit_status is not None:
            kind = self._kind_of_end(self._exit_status)
            if self._first_output and self._is_other(self._first_output, kind):
                return self._first_output.error(f" and ended with status {self._exit_status}")
            message = f"the probe ended with status {self._exit_status}" + (f": {said}" if said else "")
            return HostError(Stage.COMMAND, kind, message)
        if self.is_input_over and self._first_output and not said:  # it may have hung up, too
            message = "no answer from the probe, which ended without a word once its input had ended"
            return HostError(Stage.COMMAND, Kind.COMMAND_TIMEOUT, message)
        message = lost(exc.reason if isinstance(exc, asyncssh.DisconnectError) else str(exc or ""))
        if said and self._first_output:
            return HostError(Stage.COMMAND, Kind.DISCONNECTED, f"{message}; the host said: {said}", Cause.HOST_SAID)
        return HostError(Stage.COMMAND, Kind.DISCONNECTED, message)

    def _is_other(self, output: FirstOutput, kind: Kind) -> bool:
        """Whether what ended was something else than the probe, as far as its words tell."""
        return output.is_other or (kind is Kind.COMMAND_FAILED and output.has_stdout and not self._stderr)

    def _kind_of_end(self, status: int) -> Kind:
        if status in (126, 127):
            return Kind.COMMAND_MISSING
        if (
            self._runs_by_sudo and status == 1 and self._stderr
        ):  # sudo(8), "Exit value"; its words may be in any language
            return Kind.SUDO_REFUSED
        return Kind.COMMAND_FAILED

    def _end(self, error: HostError, bug: Exception | None = None) -> None:
        if self.ended:
            return
        self.ended, self.ended_at = error, time.monotonic()
        self.ended_busy_seconds = self.ended_at - self.asked_at if self.asked_at else 0.0
        if self._concluding:
            self._concluding.cancel()
        self._settle()
        if self._answer and not self._answer.done():
            self._answer.set_exception(bug or error.bare())
        if self._channel:
            self._channel.close()

    def _settle(self) -> None:
        self.asked_at = None
        if self._idle:
            self._idle.set()
            self._idle = None


def _look_at(future: asyncio.Future[Any]) -> None:
    """Keeps asyncio from complaining of an error that nobody waited for: whoever needs it gets it in another way."""
    if not future.cancelled():
        future.exception()


async def _open(connection: asyncssh.SSHClientConnection, channel: ProbeChannel, command: str) -> None:
    await connection.create_session(lambda: channel, command, encoding=None)


class _Opening:
    """A channel that is being opened with a command in it. It is begun before the login, so that it goes with it."""

    def __init__(self, channel: ProbeChannel, command: str) -> None:
        self._channel = channel
        self._command = command
        self._task: asyncio.Task[None] | None = None

    def begin(self, connection: asyncssh.SSHClientConnection) -> None:
        """Asks for it."""
        self._task = asyncio.create_task(_open(connection, self._channel, self._command))
        self._task.add_done_callback(_look_at)

    async def end(self) -> None:
        """Waits until it is open, and the command accepted."""
        if self._task is None:
            raise RuntimeError("waited for before it was begun")
        await self._task


class Link:
    """One host, connected on first use and kept connected.

    Args:
        host: which one.
        reach: what all links share: keys, known hosts, limits, jump hosts.
        command: starts the probe on the host; one that is not by sudo takes the first request as further words.
        make_reader: makes the reader for one channel.
        first_input: what the command reads before the first request.
        runs_by_sudo: whether the command starts the probe by sudo.
        older: starts the probe of an earlier version, where sudo refuses that one.

    Attributes:
        host: which one.
        target: how it is reached.
        reach: may be replaced by another one that has the same target for this host.
        connects_total: connections tried so far.
        is_last_visit: whether no slot comes after it: then the input of what is silent ends before the time is up.
            Where slots do come, it never does: hosts that hang up then may still be at work, and would get a second
            sample over another connection.
    """

    def __init__(
        self,
        host: Host,
        reach: Reach,
        command: str,
        make_reader: Callable[[], FrameSource],
        *,
        first_input: bytes = b"",
        runs_by_sudo: bool = False,
        older: ProbeStart | None = None,
    ) -> None:
        self.host = host
        self.target = reach.target(host)
        self.reach = reach
        self.connects_total = 0
        self.is_last_visit = False
        self._start = ProbeStart(command, first_input)
        self._other_start = older
        self._is_older = False
        self._make_reader = make_reader
        self._runs_by_sudo = runs_by_sudo
        self._connection: asyncssh.SSHClientConnection | None = None
        self._channel: ProbeChannel | None = None
        self._request_id = 0
        self._failures = 0
        self._last_error: HostError | None = None
        self._backoff: Backoff | None = None
        self._not_before = 0.0
        self._keys_refused: frozenset[bytes] | None = None
        self._way_checked_at = -_WAY_SECONDS
        self._way_error: HostError | None = None  # why it cannot be reached, while it is still at work
        self._is_slow = False  # whether the probe there needs most of its time for its first answer

    async def ask(
        self, make_request: Callable[[int], bytes], make_first: Callable[[int], bytes] | None = None
    ) -> ProbeAnswer:
        """Returns the frame that answers a request; connects first where needed.

        Args:
            make_request: makes the request line for a request id.
            make_first: the same for the first request of a connection, where that is another one.

        Raises:
            HostError: why there is none. After a failed connection the same error again, without a new attempt, until
                its backoff is over.
        """
        channel = await self._open_channel(make_first or make_request)
        timeout_seconds = self.target.access.command_timeout_seconds
        if channel.asked_at is not None and not channel.first:
            await self._outwait(channel, timeout_seconds)
            channel = await self._open_channel(make_first or make_request)  # that one may have ended meanwhile
        loop = asyncio.get_running_loop()
        limits = [loop.call_later(timeout_seconds, channel.give_up)]
        if self.is_last_visit and not self._is_slow:
            limits.append(loop.call_later(_SILENT_SHARE * timeout_seconds, channel.end_silence))
        try:
            answer = await self._ask_repeatedly(channel, make_request)
        except TimeoutError as error:
            raise channel.overdue(timeout_seconds) from error
        except HostError as error:
            if channel.ended:
                await self._fail_channel(channel, error)
            if error.kind is Kind.SUDO_REFUSED and self._other_start:
                self._start, self._other_start, self._is_older = self._other_start, self._start, not self._is_older
                if self._is_older:
                    self._not_before = 0.0
                    return await self.ask(make_request, make_first)
            raise
        finally:
            for limit in limits:
                limit.cancel()
        self._failures, self._way_error = 0, None
        if channel.is_input_over and channel.is_spent:
            await self._leave_spent()
        return answer

    async def _leave_spent(self) -> None:
        """Hangs up on what was the probe after all: another one is started next time, and given the time it needs."""
        self._is_slow = True
        await self.close()

    async def _ask_repeatedly(self, channel: ProbeChannel, make_request: Callable[[int], bytes]) -> ProbeAnswer:
        """Asks once more where the probe broke off, and a last time; never for a program that the host does not have.

        Raises:
            HostError: the channel ended, or the probe broke off each time.
        """
        tries = 0
        while True:
            tries += 1
            try:
                return await channel.ask(channel.first or self._next_request(make_request))
            except HostError as error:
                if tries == _TRIES or channel.ended or error.kind is Kind.COMMAND_MISSING:
                    raise

    def _next_request(self, make_request: Callable[[int], bytes]) -> ProbeRequest:
        self._request_id += 1
        return ProbeRequest(self._request_id, make_request(self._request_id))

    async def _outwait(self, channel: ProbeChannel, timeout_seconds: float) -> None:
        """Lets a host finish the sample that a reload left in flight, within what is left of its time.

        Raises:
            HostError: it is still at work.
        """
        asked_at = channel.asked_at or time.monotonic()
        with suppress(TimeoutError):
            async with asyncio.timeout(asked_at + timeout_seconds - time.monotonic()):
                await channel.until_idle()
        if channel.asked_at is not None:
            seconds = time.monotonic() - asked_at
            overdue = channel.overdue(timeout_seconds)
            if overdue.cause is Cause.OTHER_OUTPUT:
                raise overdue
            await self._check_way()
            raise HostError(
                Stage.COMMAND,
                Kind.COMMAND_TIMEOUT,
                f"still at work on the sample asked for {seconds:.0f} s ago; it gets no second one",
            )

    async def _check_way(self) -> None:
        """Looks whether a host that does not answer can be reached: one that is cut off looks like one that hangs.

        Nothing is started there: the connection is closed as soon as it is open. The one that waits for an answer
        stays: the host may be at work on it, and would get a second sample over another one.

        Raises:
            HostError: it cannot, or could not a moment ago.
        """
        if time.monotonic() >= self._way_checked_at + _WAY_SECONDS:
            self._way_checked_at, self._way_error = time.monotonic(), None
            try:
                await self.reach.try_way(self.target)
            except NotTriedError:
                raise
            except HostError as error:
                self._way_error = error.bare()
        if self._way_error:
            raise self._way_error.bare()

    async def _has_other_keys(self) -> bool:
        """Whether there are other keys to offer than those that the host refused: a person has done something."""
        error = self._last_error
        if error is None or error.kind is not Kind.AUTH_FAILED or self._keys_refused is None:
            return False
        return await self.reach.has_other_keys(self.target, self._keys_refused)

    async def _open_channel(self, make_first: Callable[[int], bytes]) -> ProbeChannel:
        """Returns the running probe's channel, after connecting where there is none."""
        if self._channel and self._channel.is_input_over and self._channel.is_spent:
            await self._leave_spent()
        if self._channel:
            if not self._channel.ended:
                return self._channel
            await self._fail_channel(self._channel, self._channel.ended)
        wait_seconds = self._not_before - time.monotonic()
        if self._last_error and wait_seconds > 0 and not await self._has_other_keys():
            last = self._last_error
            raise HostError(last.stage, last.kind, last.message, last.cause, wait_seconds=wait_seconds) from last
        try:
            self._channel = await self._connect(self._next_request(make_first))
        except NotTriedError:
            raise
        except HostError as error:
            self.connects_total += 1
            await self._fail(error, backoff_for(error), time.monotonic())
            if error.kind is Kind.AUTH_FAILED:
                self._keys_refused = await self.reach.keys(self.target)
            raise
        except asyncio.CancelledError:  # by a reload or stop: nobody else would close a connection that is half made
            connection, self._connection = self._connection, None
            if connection:
                connection.abort()
            raise
        self.connects_total += 1
        return self._channel

    async def _connect(self, first: ProbeRequest) -> ProbeChannel:
        """Returns a new channel with the probe started in it, and at work on the first request."""
        channel = ProbeChannel(
            self._make_reader(), first, first_input=self._start.first_input, runs_by_sudo=self._runs_by_sudo
        )
        # sudo compares the whole command with the one that it allows.
        command = self._start.command
        if not self._runs_by_sudo:
            command = f"{command} {first.line.decode().strip()}"
        opening = _Opening(channel, command)
        async with self.reach.login(self.target, opening.begin) as self._connection:
            # The probe's start is under the same limit: it costs both sides about as much as the handshake.
            await within(self.target.access.command_timeout_seconds, Stage.COMMAND, opening.end())
            self.reach.lighten(self._connection)
            return channel

    async def _fail_channel(self, channel: ProbeChannel, error: HostError) -> None:
        # A host that was stuck in a sample may be so still, without a connection: stay away longer, or it gets two.
        was_stuck = channel.ended_busy_seconds > self.target.access.command_timeout_seconds
        backoff = _STUCK if was_stuck or channel.is_left_at_work else backoff_for(error)
        way_error, self._way_error = self._way_error, None
        await self._fail(way_error or error, backoff, channel.ended_at)

    async def _fail(self, error: HostError, backoff: Backoff, at: float) -> None:
        """Closes what is open and notes when to try again, counted from when it happened (monotonic seconds)."""
        await self.close()
        # A drop and the refusals after it are two things: the first refusal waits no longer for the drop.
        self._failures = self._failures + 1 if backoff is self._backoff else 1
        self._last_error, self._backoff = error.bare(), backoff
        wait_seconds = backoff.wait_seconds(self._failures, random.random)
        self._not_before = at + wait_seconds

    def forgive(self) -> None:
        """Lets the next request try again at once what a person may have fixed: keys, host keys, the probe's line."""
        if self._last_error and self._last_error.kind in MENDED_BY_HAND:
            self._not_before = 0.0

    async def close(self) -> None:
        """Ends the connection, and with it the probe on the host."""
        connection, self._connection, self._channel = self._connection, None, None
        if connection is None:
            return
        connection.close()
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await connection.wait_closed()
        except TimeoutError:
            connection.abort()
