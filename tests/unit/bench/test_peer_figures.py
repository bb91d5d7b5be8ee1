import json
from dataclasses import replace
from math import nan

import pytest

from peer_figures import Cost, Figure, Size, comparisons, is_ahead_everywhere, markdown, missing
from ps_rows import json_line, labelled

_SIZE = Size(hosts=50, processes=150, round_trip_ms=20)
_OURS = Cost(
    wall_seconds=1.5,
    client_cpu_seconds=0.05,
    host_cpu_seconds=0.1,
    memory_bytes=50_000_000,
    wire_bytes=250_000,
    rows=152,
)
_THEIRS = replace(_OURS, client_cpu_seconds=0.2, host_cpu_seconds=0.4)


def _figures(theirs_cold: Cost | None = _THEIRS, theirs_warm: Cost | None = _THEIRS, problem: str = "") -> list[Figure]:
    return [Figure("fleetmem", _SIZE, _OURS, _OURS), Figure("peer", _SIZE, theirs_cold, theirs_warm, problem)]


def test_ahead_of_a_peer_that_takes_more() -> None:
    """Four comparisons: client and host, cold and warm."""
    assert is_ahead_everywhere(_figures())
    assert {(one.part, one.side, one.is_ahead) for one in comparisons(_figures())} == {
        ("cold", "client", True),
        ("cold", "host", True),
        ("warm", "client", True),
        ("warm", "host", True),
    }


@pytest.mark.parametrize("part", ["cold", "warm"])
@pytest.mark.parametrize("side", ["client", "host"])
def test_behind_in_one_of_four(part: str, side: str) -> None:
    """One is enough, and it is named with both figures in ms for each host."""
    better = (
        replace(_THEIRS, client_cpu_seconds=0.025) if side == "client" else replace(_THEIRS, host_cpu_seconds=0.025)
    )
    figures = _figures(theirs_cold=better) if part == "cold" else _figures(theirs_warm=better)
    assert not is_ahead_everywhere(figures)
    behind = [str(one) for one in comparisons(figures) if not one.is_ahead]
    ours_ms, ratio = ("1", "2.00") if side == "client" else ("2", "4.00")
    size = "50 hosts, 150 processes, 20 ms"
    assert behind == [f"{part}, {side} CPU, {size}: {ours_ms} ms a host, peer 0.5 ({ratio})"]


def test_what_is_not_known_of_simulated_hosts() -> None:
    """Their CPU and bytes are no figures: clients are compared, and the table has a dash."""
    figures = [
        replace(figure, cold=replace(figure.cold, host_cpu_seconds=nan, wire_bytes=nan), warm=None)
        for figure in _figures()
        if figure.cold
    ]
    assert [(one.part, one.side) for one in comparisons(figures)] == [("cold", "client")]
    assert [row.count("| - / - |") for row in markdown(figures).splitlines()[2:]] == [2, 2]


def test_the_same_is_not_ahead() -> None:
    """Not more than the peer is not less."""
    assert not is_ahead_everywhere(_figures(theirs_cold=_OURS))


def test_what_failed_is_told_and_not_compared() -> None:
    """A peer that did not manage is no point for anyone."""
    figures = _figures(theirs_warm=None, problem="not within 90 s")
    assert is_ahead_everywhere(figures)
    assert {one.part for one in comparisons(figures)} == {"cold"}
    assert missing(figures) == ["peer, 50 hosts, 150 processes, 20 ms: not within 90 s"]
    assert "| peer: not within 90 s | 1.50 / - | 4.00 / - |" in markdown(figures)


def test_without_figures_of_its_own_fleetmem_is_not_ahead() -> None:
    """Nor without anybody to compare with."""
    ours, theirs = _figures()
    assert not is_ahead_everywhere([replace(ours, warm=None, problem="exit status 1"), theirs])
    assert not is_ahead_everywhere([ours])


def test_sizes_are_not_mixed() -> None:
    """A peer is compared with fleetmem at the same size."""
    ours, theirs = _figures()
    assert comparisons([ours, replace(theirs, size=Size(500, 150, 20))]) == []


def test_the_table_has_each_host_s_share() -> None:
    """CPU and bytes are for each host, wall time and memory for all of them."""
    row = markdown(_figures()).splitlines()[2]
    cells = "1.50 / 1.50 | 1.00 / 1.00 | 2.00 / 2.00 | 50 / 50 | 5.00 / 5.00"
    assert row == f"| 50 | 150 | 20 | fleetmem | {cells} |"


def test_rows_of_ps_become_values_in_bytes() -> None:
    """KiB become bytes; a name keeps its spaces."""
    text = "      1  1024   2048  0.1 my worker\n"
    record = json.loads(json_line("127.0.1.1", text))
    assert record["processes"] == [
        {"pid": 1, "command": "my worker", "rss_bytes": 1_048_576, "vsz_bytes": 2_097_152, "mem_percent": 0.1}
    ]
    assert labelled("127.0.1.1", text) == f"127.0.1.1: {text}"
