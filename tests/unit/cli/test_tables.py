"""Tables fit the screen: columns go before names are cut, and nothing else is ever cut."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.cli.screen import Screen
from fleetmem.cli.tables import Totals, biggest_lines
from fleetmem.cli.wrapping import width_of
from fleetmem.model import ProcessMemory
from unit.builders import command, command_names, process

_GIB = 1024**3


def _rows(host: str, name: str) -> list[tuple[str, ProcessMemory]]:
    row = process(4_194_304, name, 1023 * _GIB, 1023 * _GIB)._replace(anon_bytes=1023 * _GIB, uid=4_294_967_294)
    return [(host, row), ("db", process(1, "sh"))]


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
@pytest.mark.parametrize("host", ["web01", "worker03843.eu-west-1.compute.internal.example.com", "漢" * 40])
def test_a_table_fits(columns: int, host: str) -> None:
    """Pid and sizes are whole on every screen."""
    lines = biggest_lines(_rows(host, "a-command-with-a-rather-long-name"), Totals(), Screen(columns))
    assert all(width_of(line) <= columns for line in lines)
    assert "4194304" in lines[1]
    assert "1023 GiB" in lines[1]
    assert ("…" in lines[1]) is (columns < (200 if len(host) > 20 else 120))


def test_width_is_used() -> None:
    """What there is no room for at 60 columns appears with more."""
    titles = [biggest_lines(_rows("web01", "nginx"), Totals(), Screen(columns))[0].split() for columns in (60, 80, 120)]
    assert titles[0] == ["HOST", "PID", "COMMAND", "RSS", "SWAP", "VSZ", "MEM%"]
    assert titles[1] == ["HOST", "PID", "USER", "COMMAND", "RSS", "SWAP", "VSZ", "MEM%"]
    assert titles[2] == ["HOST", "PID", "USER", "COMMAND", "RSS", "SWAP", "PEAK", "ANON", "VSZ", "MEM%"]


@given(st.lists(st.tuples(command_names(), command_names()), min_size=1, max_size=5), st.integers(60, 200))
def test_no_name_breaks_a_line(names: list[tuple[str, str]], columns: int) -> None:
    """One line a row, whatever hosts and processes are called."""
    rows = [(host, process(1, name)) for host, name in names]
    lines = biggest_lines(rows, Totals(), Screen(columns))
    assert all(width_of(line) <= columns and line.isprintable() for line in lines)
    assert lines[len(rows) + 1].startswith(f"{len(rows)} of 0 processes")


def test_only_the_header_is_coloured() -> None:
    """And nothing without colours."""
    totals = replace(Totals(), hosts=1)
    plain = biggest_lines([("web01", command())], totals, Screen(80))
    coloured = biggest_lines([("web01", command())], totals, Screen(80, 24, has_colour=True))
    assert coloured[0] == f"\x1b[1m{plain[0]}\x1b[0m"
    assert coloured[1:] == plain[1:]
