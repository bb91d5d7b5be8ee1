from dataclasses import replace
from typing import cast

import pytest
from typer.testing import CliRunner

from fleetmem.cli import main, make_app
from fleetmem.cli.collect import Tally
from fleetmem.cli.hints import HINTS
from fleetmem.connect.link import Link
from fleetmem.errors import Cause, Kind
from fleetmem.model import Host
from fleetmem.sinks.sink import SinkStats
from fleetmem.wiring.fleet import FleetParts
from unit.builders import failure, process, sample


def _failing(name: str, kind: Kind = Kind.UNREACHABLE, message: str = "no route") -> Tally:
    tally = Tally(1)
    tally.add(failure(kind, message, host=Host(name, name)))
    return tally


def test_a_tally_counts() -> None:
    """Hosts, processes and bytes of the cycle, and how many have their outcome."""
    tally = Tally(3)
    tally.add(sample(process(1), process(2)))
    tally.add(failure())
    assert (tally.samples, tally.processes, tally.received_bytes, tally.done) == (1, 2, 500, 2)


def test_equal_failures_are_folded(capsys: pytest.CaptureFixture[str]) -> None:
    """Fifty hosts with one trouble are one entry, the most frequent first; their names are folded."""
    tally = Tally(10)
    for number in range(7):
        tally.add(failure(host=Host(f"web{number}", "x")))
    tally.add(failure(Kind.AUTH_FAILED, "refused", host=Host("db", "x")))
    tally.print_failures()
    assert capsys.readouterr().err.splitlines() == [
        "",
        "8 of 10 hosts failed:",
        "  7 hosts: web[0-6]",
        "      unreachable: no route to host",
        f"      try: {HINTS[Kind.UNREACHABLE]}",
        "  1 host: db",
        "      auth_failed: refused",
        f"      try: {HINTS[Kind.AUTH_FAILED]}",
    ]


def test_numbers_do_not_split_what_is_one_failure(capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds and bytes differ from host to host; what happened is the same."""
    tally = Tally(3)
    for number, text in enumerate(("after 12 s, 100 bytes", "after 7.5 s, 99 bytes", "after 8 s, 1 bytes")):
        tally.add(failure(Kind.COMMAND_TIMEOUT, text, host=Host(f"web{number}", "x")))
    tally.print_failures()
    assert "  3 hosts: web[0-2]\n      command_timeout: after 12 s" in capsys.readouterr().err


@pytest.mark.parametrize("cause", list(Cause))
def test_what_there_is_evidence_for_is_advised(cause: Cause, capsys: pytest.CaptureFixture[str]) -> None:
    """The advice of a cause takes the place of that of the kind, which guesses."""
    tally = Tally(1)
    tally.add(replace(failure(Kind.AUTH_FAILED, "no"), cause=cause))
    tally.print_failures()
    assert ("wrong user" in capsys.readouterr().err) is (cause is Cause.HOST_SAID)


def test_no_failures_no_text(capsys: pytest.CaptureFixture[str]) -> None:
    """When all went well nothing is printed."""
    Tally(1).print_failures()
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_has_something_to_try(kind: Kind, capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever failed, the message says what to do."""
    _failing("web01", kind).print_failures()
    assert f"try: {HINTS[kind]}" in capsys.readouterr().err


def test_what_a_host_says_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The message of a failure may be a hostile host's own words."""
    _failing("web01", message="\x1b[2Jall fine\n0 failed\x9b").print_failures()
    text = capsys.readouterr().err
    assert all(line.isprintable() for line in text.split("\n"))
    assert r"\x1b[2Jall fine\x0a0 failed\x9b" in text


class _Sink:
    def __init__(self, datagrams: int, dropped: int) -> None:
        self.address = f"h:{datagrams}"
        self._stats = SinkStats(points_sent_total=10, points_dropped_late_total=dropped, datagrams_sent_total=datagrams)

    def stats(self) -> SinkStats:
        """Returns what it was given."""
        return self._stats


class _Collector:
    sinks = (_Sink(3, 0), _Sink(0, 7))


class _Fleet:
    collector = _Collector()


def test_the_summary() -> None:
    """One line: what came in, what went out, what did not."""
    tally = Tally(2)
    tally.add(sample(process(1)))
    summary = tally.summary(cast("FleetParts", _Fleet()))
    assert summary.startswith(
        "1 of 2 hosts answered, 1 processes, 500 B received, "
        "10 points in 3 datagrams to h:3, 10 points to h:0, 7 NOT delivered, "
    )
    assert summary.endswith(" s")


def test_status_70_after_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    """One host's failure is `internal`: the summary comes all the same, then where to look."""

    def make_link(_host: Host, **_: object) -> Link:
        raise KeyError("link")

    monkeypatch.setattr("fleetmem.wiring.fleet._make_link", make_link)
    result = CliRunner().invoke(make_app(["collect", "hosts"]), ["collect", "-i", "127.0.0.1:1"])
    assert result.exit_code == 70
    assert "internal: a bug in fleetmem: KeyError" in result.stderr
    assert "0 of 1 hosts answered" in result.stderr


def test_a_bug_anywhere_is_status_70(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its traceback is printed, as that is what a report needs."""

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("fleetmem.cli.make_app", lambda _names: fail)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
