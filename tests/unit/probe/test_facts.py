"""Facts about a host: what their frames mean."""

import pytest

from fleetmem.errors import HostError, Kind
from fleetmem.probe.facts import HostFacts, ProbeCpu, parse_cpu, parse_host_facts
from fleetmem.probe.script import FactsKind, facts_request

UBUNTU = b"""BEGIN fleetmem/1 7
F shell /bin/bash
F awk /usr/bin/awk
F awk_kind mawk
F kernel 4.15.0-213-generic
F system "ubuntu"
F uid 1000
F sees_init no
F proc rw,nosuid,nodev,noexec,relatime,hidepid=2
F unix_seconds 1700000000
END 7 0 0
"""


def _frame(*rows: str, status: int = 0) -> bytes:
    return "\n".join(["BEGIN fleetmem/1 1", *rows, f"END 1 {status} 0", ""]).encode()


def test_requests() -> None:
    """One line, as the head of probe.sh describes it."""
    assert facts_request(3, FactsKind.HOST) == b"facts 3 host\n"
    assert facts_request(4, FactsKind.COST) == b"facts 4 cost\n"


def test_facts_of_a_host() -> None:
    """Each line is one fact; one that is not there is unknown."""
    assert parse_host_facts(UBUNTU) == HostFacts(
        login_shell="/bin/bash",
        awk="/usr/bin/awk",
        awk_kind="mawk",
        kernel="4.15.0-213-generic",
        system="ubuntu",
        uid=1000,
        sees_init=False,
        has_pressure=False,
        proc_options=("rw", "nosuid", "nodev", "noexec", "relatime", "hidepid=2"),
        unix_seconds=1_700_000_000,
    )


def test_a_host_that_says_nothing() -> None:
    """Without any fact, all are unknown."""
    nothing = HostFacts(None, None, None, None, None, None, False, False, None, None)
    assert parse_host_facts(_frame()) == nothing


def test_facts_that_nobody_knows_yet() -> None:
    """A probe that is newer, of a forced command, may tell more."""
    assert parse_host_facts(_frame("F moon full", "F uid 5")).uid == 5


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (["C 10 1500000 9 9 0 0", "C 11 500000 9 9 0 0"], ProbeCpu(2, 0.002)),
        (["C 10 1000000000 9 9 3 2"], ProbeCpu(1, 1.05)),
        (["C 10 - 7 3 1 1"], ProbeCpu(1, 0.12)),
        ([], ProbeCpu(0, 0.0)),
    ],
    ids=["nanoseconds", "children in ticks", "all in ticks", "unknown"],
)
def test_cpu(rows: list[str], expected: ProbeCpu) -> None:
    """Nanoseconds count, where there are none ticks do; those of ended children are known in ticks only."""
    cpu = parse_cpu(_frame(*rows))
    assert cpu.processes == expected.processes
    assert cpu.seconds == pytest.approx(expected.seconds)


@pytest.mark.parametrize(
    "row",
    ["", "F", "F ", "P 1 0 1 1 - - - x", "F uid 5\nF uid 6", "F uid -1", "F uid five", f"F uid {'1' * 21}", "F uid ٣"],
)
def test_facts_that_are_none(row: str) -> None:
    """What is not of the protocol is a failure, never a fact."""
    with pytest.raises(HostError, match="facts are not of protocol 1") as caught:
        parse_host_facts(_frame(row))
    assert caught.value.kind is Kind.BAD_FRAME


@pytest.mark.parametrize(
    "row", ["", "C 1 2 3 4 5", "C 1 2 3 4 5 6 7", "F 1 2 3 4 5 6", "C 1 2 3 x 5 6", "C 1 -2 3 4 5 6"]
)
def test_cpu_that_is_none(row: str) -> None:
    """Likewise."""
    with pytest.raises(HostError, match="facts are not of protocol 1"):
        parse_cpu(_frame(row))


@pytest.mark.parametrize("frame", [b"", b"\n", b"BEGIN fleetmem/1 1\nEND 1 x 0\n"])
def test_frames_that_are_none(frame: bytes) -> None:
    """Likewise where the end is missing."""
    with pytest.raises(HostError, match="facts are not of protocol 1"):
        parse_host_facts(frame)


def test_a_probe_from_before_there_were_facts() -> None:
    """It says that this is no request: a failure of the command, which costs no connection."""
    with pytest.raises(HostError, match="not a request") as caught:
        parse_host_facts(_frame("E not a request of protocol 1", status=2))
    assert caught.value.kind is Kind.COMMAND_FAILED


def test_facts_are_cut() -> None:
    """What a host says of itself goes into findings: each text is bounded, whatever it sends."""
    facts = parse_host_facts(_frame("F kernel " + "6" * 1_000_000, "F proc " + "rw," * 100_000))
    assert facts.kernel == "6" * 1000
    assert sum(map(len, facts.proc_options or ())) <= 1000


@pytest.mark.parametrize("digits", ["9" * 19, "9" * 20, "1" + "0" * 4000])
def test_numbers_that_nothing_counts_to(digits: str) -> None:
    """A number beyond 2^63 is refused."""
    with pytest.raises(HostError) as caught:
        parse_host_facts(_frame(f"F unix_seconds {digits}"))
    assert caught.value.kind is Kind.BAD_FRAME
