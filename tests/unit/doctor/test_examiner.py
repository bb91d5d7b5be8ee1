"""What is asked of a host, and what becomes of the answers; `tests/integration` asks real ones."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import cast

import pytest

from fleetmem.connect.link import Link, ProbeAnswer
from fleetmem.doctor.examiner import Examiner
from fleetmem.doctor.hosts import Examination, ReachFlags
from fleetmem.errors import HostError, Kind, Stage
from fleetmem.model import Host
from fleetmem.probe.script import ProbeKind, Processes

HOST = Host("web01", "web01.example.com")
ACCESS = ReachFlags("web01", "web01.example.com", 22, "u", Path("k"), Path("kh"), "web01", "", runs_by_sudo=False)
FACTS = "F kernel 5.15\nF awk awk\nF sees_init yes\nF unix_seconds 1000000\nEND 1 0 0"
SAMPLE = "M 1000 500 0 0\nK 0 boot\nP 1 0 100 50 50 40 0 init\nEND 1 0 1"
OLD = "E not a request of protocol 1\nEND 1 2 0"


class Script:
    """A host that answers as it is told, in place of a connection to one.

    Attributes:
        asked: verb and kind of each request so far.
        is_closed: whether it was disconnected from.
    """

    def __init__(self, answer: Callable[[str], str | HostError]) -> None:
        self.asked: list[str] = []
        self.is_closed = False
        self._answer = answer

    async def ask(self, make_request: Callable[[int], bytes]) -> ProbeAnswer:
        """Returns a frame."""
        verb, _id, kind, *_which = make_request(1).decode().split()
        self.asked.append(f"{verb} {kind}")
        answer = self._answer(f"{verb} {kind}")
        if isinstance(answer, HostError):
            raise answer
        begin = "" if answer.startswith("BEGIN") else "BEGIN fleetmem/1 1\n"
        return ProbeAnswer(1_000_000.0, f"{begin}{answer}\n".encode())

    async def close(self) -> None:
        """Notes it."""
        self.is_closed = True


def examine(script: Script) -> Examination:
    """Returns what comes of a host."""
    examiner = Examiner(lambda _host: cast("Link", script), lambda _host: ACCESS, ProbeKind.STATUS, Processes.USER, 2)
    examination = asyncio.run(examiner.examine(HOST))
    assert script.is_closed
    return examination


def costing(seconds: float, *, asking: float = 0.25, processes: int = 4) -> Callable[[str], str]:
    """Returns the answers of a host that uses so much CPU for a sample, and so much to tell how much it was."""
    used = 10.0

    def answer(request: str) -> str:
        nonlocal used
        if request == "facts host":
            return FACTS
        if request == "sample status":
            used += seconds
            return SAMPLE
        rows = "".join(f"C {pid} {1_000_000_000 * used / processes:.0f} 0 0 0 0\n" for pid in range(processes))
        used += asking
        return f"{rows}END 1 0 0"

    return answer


def failing(**failures: HostError | str) -> Callable[[str], str | HostError]:
    """Returns the answers of a host that fails at some requests, named by their kind."""
    well = costing(0.5)
    return lambda request: failures.get(request.split()[1]) or well(request)


def error(kind: Kind, stage: Stage = Stage.COMMAND) -> HostError:
    """Returns a failure."""
    return HostError(stage, kind, "it says so")


def test_a_host_that_is_well() -> None:
    """All is known, after six samples over one connection."""
    script = Script(costing(0.5))
    found = examine(script)
    assert (found.kind, found.error, found.processes, found.has_anon) == (ProbeKind.STATUS, None, 1, True)
    assert found.facts
    assert found.facts.kernel == "5.15"
    assert found.memory
    assert found.memory.total_bytes == 1_024_000
    assert found.clock
    assert found.clock.unix_seconds == 1_000_000
    assert found.sample_seconds is not None
    assert found.round_trip_seconds is not None
    assert script.asked.count("sample status") == 6


def test_what_asking_costs_is_not_what_a_sample_costs() -> None:
    """It is known from asking twice with nothing in between."""
    assert examine(Script(costing(0.5, asking=0.25))).cost_seconds == pytest.approx(0.5)
    assert examine(Script(costing(0.0, asking=0.25))).cost_seconds == pytest.approx(0)


def test_a_cost_that_is_not_all_of_it() -> None:
    """Where the kernel does not tell whose child is whose, it is not known."""
    assert examine(Script(costing(0.5, processes=1))).cost_seconds is None


def test_a_host_that_cannot_be_reached() -> None:
    """It is asked once."""
    failure = error(Kind.AUTH_FAILED, Stage.LOGIN)
    script = Script(failing(host=failure))
    assert examine(script) == Examination(ACCESS, ProbeKind.STATUS, error=failure)
    assert script.asked == ["facts host"]


def test_the_other_kind_is_tried() -> None:
    """What was wrong with the wanted one stays known."""
    failure = error(Kind.COMMAND_FAILED)
    ps = "M 1000 - - -\nK - -\nP 1 0 100 50 - - - init\nEND 1 0 1"
    found = examine(Script(failing(status=failure, ps=ps)))
    assert (found.kind, found.error) == (ProbeKind.PS, failure)


def test_neither_kind_works() -> None:
    """The wanted kind's failure is told; facts stay known."""
    script = Script(failing(status=error(Kind.COMMAND_MISSING), ps=error(Kind.COMMAND_FAILED)))
    found = examine(script)
    assert found.kind is None
    assert found.error
    assert found.error.kind is Kind.COMMAND_MISSING
    assert found.facts
    assert "facts cost" not in script.asked


def test_a_sample_that_is_nonsense() -> None:
    """As one that failed."""
    found = examine(Script(failing(status="END 1 0 5", ps="END 1 0 5")))
    assert found.error
    assert found.error.kind is Kind.BAD_FRAME


def test_an_old_probe() -> None:
    """It is sampled all the same."""
    found = examine(Script(failing(host=OLD, cost=OLD)))
    assert (found.kind, found.has_old_probe, found.facts, found.cost_seconds) == (ProbeKind.STATUS, True, None, None)


@pytest.mark.parametrize(
    ("sample", "is_old"),
    [
        (SAMPLE, True),
        (
            "BEGIN fleetmem/2 1 0\nM 1000 500 0 0 0\nK 0 boot\nS - - - -\nU 5.00\n"
            "N 0 1 0 25 0 0 100 50 50 40 0 4 0 init\nEND 1 0 1 50 100 1",
            False,
        ),
    ],
)
def test_a_probe_of_an_earlier_version(sample: str, *, is_old: bool) -> None:
    """Its answers say so."""
    found = examine(Script(failing(status=sample)))
    assert (found.kind, found.has_old_probe, found.processes) == (ProbeKind.STATUS, is_old, 1)


def test_facts_that_are_nonsense() -> None:
    """Not of an old probe, but of none."""
    found = examine(Script(failing(host="nonsense\nEND 1 0 0")))
    assert found.error
    assert (found.kind, found.error.kind) == (None, Kind.BAD_FRAME)


def test_a_host_that_goes_away_while_it_is_measured() -> None:
    """What is known already stays."""
    found = examine(Script(failing(cost=error(Kind.DISCONNECTED))))
    assert (found.kind, found.processes, found.cost_seconds) == (ProbeKind.STATUS, 1, None)
