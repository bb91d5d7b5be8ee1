"""What a host tells of itself beside samples, and what the probe costs it. The format is on top of `probe.sh`."""

from dataclasses import dataclass

from fleetmem.errors import HostError, Kind, Stage
from fleetmem.probe.parse import take_end

_TICK_SECONDS = 0.01
"""USER_HZ, in which the kernel counts CPU for everyone to read, is 100 wherever Linux runs today (time(7))."""

_MAX_DIGITS = 18  # so it is below 2^63: CPU of 31 years in nanoseconds
_TEXT_CHARACTERS = 1000  # of a fact: a path, or the options of a mount
_MAX_LINES = 1000  # there are a dozen facts, and a probe is five processes


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What `facts host` says; None where the host does not know.

    Attributes:
        login_shell: path.
        awk: path of awk; a busybox that has it built in says `awk`.
        awk_kind: mawk, gawk or busybox.
        kernel: release.
        system: ID of os-release(5), `debian`.
        uid: that the probe runs with.
        sees_init: whether the memory of process 1 can be read; it cannot where hidepid (proc(5)) is in the way.
        has_pressure: whether the kernel tells how long processes wait for memory (PSI).
        proc_options: that /proc is mounted with.
        unix_seconds: the host's clock, whole seconds.
    """

    login_shell: str | None
    awk: str | None
    awk_kind: str | None
    kernel: str | None
    system: str | None
    uid: int | None
    sees_init: bool
    has_pressure: bool
    proc_options: tuple[str, ...] | None
    unix_seconds: int | None


@dataclass(frozen=True, slots=True)
class ProbeCpu:
    """What `facts cost` says: the CPU that the probe has used since it was started."""

    processes: int
    seconds: float


def parse_host_facts(frame: bytes) -> HostFacts:
    """Returns what the answer to `facts host` means.

    Raises:
        HostError: (bad_frame) it is none; (command_failed) the probe is from before there were facts.
    """
    known: dict[str, str] = {}
    for line in _rows(frame):
        tag, _, rest = line.partition(" ")
        name, _, text = rest.partition(" ")
        if tag != "F" or not name or name in known:
            raise _bad_frame(line)
        known[name] = text[:_TEXT_CHARACTERS]
    options = known.get("proc")
    return HostFacts(
        login_shell=known.get("shell"),
        awk=known.get("awk"),
        awk_kind=known.get("awk_kind"),
        kernel=known.get("kernel"),
        system=known["system"].strip("\"'") if "system" in known else None,
        uid=_optional_number(known, "uid"),
        sees_init=known.get("sees_init") == "yes",
        has_pressure="pressure" in known,
        proc_options=tuple(options.split(",")) if options else None,
        unix_seconds=_optional_number(known, "unix_seconds"),
    )


def parse_cpu(frame: bytes) -> ProbeCpu:
    """Returns what the answer to `facts cost` means.

    Time of children that have ended is known in ticks only, and is 0 where a sample starts no process.

    Raises:
        HostError: (bad_frame) it is none; (command_failed) the probe is from before there were facts.
    """
    seconds, rows = 0.0, _rows(frame)
    for line in rows:
        words = line.split(" ")
        if len(words) != 7 or words[0] != "C":
            raise _bad_frame(line)
        nanoseconds, *ticks = words[2], *(_number(word) for word in words[3:])
        own_seconds = sum(ticks[:2]) * _TICK_SECONDS if nanoseconds == "-" else _number(nanoseconds) / 1e9
        seconds += own_seconds + sum(ticks[2:]) * _TICK_SECONDS
    return ProbeCpu(len(rows), seconds)


def _rows(frame: bytes) -> list[str]:
    """Returns what is between BEGIN and END."""
    if frame.count(b"\n") > _MAX_LINES:
        raise HostError(Stage.PARSE, Kind.BAD_FRAME, f"facts have more than {_MAX_LINES} lines")
    lines = frame.split(b"\n")
    try:
        take_end(lines)
    except (ValueError, IndexError) as error:
        raise HostError(Stage.PARSE, Kind.BAD_FRAME, f"facts are not of protocol 1: {error}") from error
    return [line.decode("utf-8", "replace") for line in lines[1:]]


def _optional_number(known: dict[str, str], name: str) -> int | None:
    return _number(known[name]) if name in known else None


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > _MAX_DIGITS:
        raise _bad_frame(text)
    return int(text)


def _bad_frame(text: str) -> HostError:
    return HostError(Stage.PARSE, Kind.BAD_FRAME, f"facts are not of protocol 1: {text[:80]!r}")
