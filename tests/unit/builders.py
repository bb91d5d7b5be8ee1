"""Short ways to make the nouns of `model`, and Hypothesis strategies for them."""

from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from fleetmem.config import load
from fleetmem.engine.channel import Orders
from fleetmem.errors import Kind, Stage
from fleetmem.model import CommandMemory, Detail, Failure, Host, HostMemory, ProcessMemory, Sample, Shaped, Snapshot
from fleetmem.sampling.sampler import SamplerSpec
from fleetmem.sampling.schedule import Grid
from fleetmem.shape.limits import Limits
from fleetmem.shape.shaper import Shaper
from fleetmem.units import percent_of
from fleetmem.wiring.fleet_spec import FleetSpec

Run = Callable[[Coroutine[Any, Any, None]], None]
"""Runs a coroutine to its end."""

TOTAL_BYTES = 8 * 1024**3
TAKEN_UNIX_SECONDS = 1_700_000_000.25
SLOT_UNIX_SECONDS = 1_700_000_000.125
WEB = Host("web01", "10.0.0.1")
MEMORY = HostMemory(
    total_bytes=TOTAL_BYTES,
    available_bytes=3 * 1024**3,
    swap_total_bytes=1024**3,
    swap_free_bytes=1024**2,
    oom_kills_total=2,
    boot_id="boot",
)


def process(pid: int = 1, command: str = "nginx", rss_bytes: int = 4096, vsz_bytes: int = 8192) -> ProcessMemory:
    """Returns a process with a mem_percent that fits."""
    return ProcessMemory(
        pid=pid,
        uid=0,
        command=command,
        rss_bytes=rss_bytes,
        vsz_bytes=vsz_bytes,
        mem_percent=percent_of(rss_bytes, TOTAL_BYTES),
        peak_rss_bytes=rss_bytes,
        anon_bytes=None,
        swap_bytes=0,
    )


def snapshot(*processes: ProcessMemory, memory: HostMemory = MEMORY) -> Snapshot:
    """Returns a snapshot of these processes."""
    return Snapshot(memory, processes)


def sample(
    *processes: ProcessMemory, limits: Limits | None = None, host: Host = WEB, memory: HostMemory = MEMORY
) -> Sample:
    """Returns a good outcome, shaped by these limits."""
    shaped = Shaper(host, limits or Limits()).shape(snapshot(*processes, memory=memory), TAKEN_UNIX_SECONDS)
    return Sample(
        host,
        TAKEN_UNIX_SECONDS,
        collect_seconds=0.125,
        received_bytes=500,
        shaped=shaped,
        slot_unix_seconds=SLOT_UNIX_SECONDS,
    )


def failure(
    kind: Kind = Kind.UNREACHABLE, message: str = "no route to host", stage: Stage = Stage.CONNECT, host: Host = WEB
) -> Failure:
    """Returns a bad outcome."""
    return Failure(host, 1_700_000_000.25, 0.5, stage, kind, message, slot_unix_seconds=SLOT_UNIX_SECONDS)


def command(name: str = "nginx", procs: int = 2, rss_bytes: int = 8192) -> CommandMemory:
    """Returns a command's sum."""
    return CommandMemory(name, procs, rss_bytes, rss_bytes * 2, percent_of(rss_bytes, TOTAL_BYTES))


def shaped(processes: Sequence[ProcessMemory] = ()) -> Shaped:
    """Returns what no limits leave of these processes."""
    return Shaper(WEB, Limits()).shape(snapshot(*processes), TAKEN_UNIX_SECONDS)


def others(shaped: Shaped) -> list[CommandMemory]:
    """Returns the sums of what has no row of its own, of each level that has one."""
    return [other for other in (shaped.other_processes, shaped.other_commands) if other]


def command_names() -> st.SearchStrategy[str]:
    """Any name that a kernel can hold: bytes without NUL, decoded as the parser decodes them."""
    nasty = st.sampled_from(["a.b", "a-b", "a_b", "a b", "", "other", "é", "x" * 40, "x" * 41, "kworker/0:1", "\n"])
    raw = st.binary(max_size=20).map(lambda name: name.replace(b"\0", b"").decode("utf-8", "surrogateescape"))
    return nasty | raw


def processes(max_size: int = 12) -> st.SearchStrategy[tuple[ProcessMemory, ...]]:
    """Processes of one host, each pid once."""
    sizes = st.integers(0, 2**40)
    one = st.builds(process, st.integers(1, 4_000_000), command_names(), sizes, sizes)
    return st.lists(one, max_size=max_size, unique_by=lambda row: row.pid).map(tuple)


def all_limits() -> st.SearchStrategy[Limits]:
    """Any limits."""
    return st.builds(
        Limits,
        detail=st.sampled_from([*Detail, frozenset(Detail)]),
        top=st.none() | st.integers(1, 15),
        min_rss_bytes=st.just(0) | st.integers(0, 2**40),
    )


def orders() -> Orders:
    """Returns those of a worker that has one host, and a passphrase."""
    settings = load(None, {})
    fleet = FleetSpec(settings, (WEB,), (WEB.name,), settings.ssh.reach(), 0)
    return Orders(SamplerSpec(fleet, Grid(10.0, {WEB: 0.5})), True, {Path("key"): "horse"}, {"fleetmem": 20})


def is_running(pid: int) -> bool:
    """Returns whether a process runs; one that has ended and is not waited for does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
