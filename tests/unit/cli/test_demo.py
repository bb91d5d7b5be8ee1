"""The demo's table and its page."""

import io
import re

import pytest

from fleetmem.cli.demo import growth_lines
from fleetmem.cli.live_page import LivePage
from fleetmem.cli.screen import Screen
from fleetmem.cli.wrapping import width_of
from fleetmem.lab.demo import Row
from unit.builders import process

_MIB = 1024**2
_ROWS = [
    Row("127.0.1.250", process(4_194_304, "come-and-go", 1023 * _MIB, 1023 * _MIB), 1023 * _MIB, "a"),
    Row("127.0.1.1", process(1, "steady", 20 * _MIB), 0, "b"),
]
_HISTORIES = {"a": [float(_MIB * value) for value in range(60)], "b": [20.0 * _MIB] * 30}


@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_names_and_pids_come_before_the_history(columns: int) -> None:
    """They are whole at 60 columns, where there is no room for more."""
    lines = growth_lines(_ROWS, _HISTORIES, 60, Screen(columns))
    assert all(width_of(line) <= columns for line in lines)
    assert re.match(r"127\.0\.1\.250 +4194304 +come-and-go +1023 MiB +\+1023 MiB ?", lines[1])
    assert ("IN GRAPHITE" in lines[0]) is (columns > 80)


def test_a_history_has_its_span_and_its_scale() -> None:
    """A minute at full width, a part of it where there is less room."""
    header, leaky, steady = growth_lines(_ROWS, _HISTORIES, 60, Screen(120))
    assert header.endswith("IN GRAPHITE, LAST 60 s")
    assert leaky.endswith("█ 30 MiB to 59 MiB")
    assert steady.endswith(" " + "▁" * 30 + " 20 MiB")
    header, leaky, _steady = growth_lines(_ROWS, _HISTORIES, 60, Screen(100, is_unicode=False))
    assert header.endswith("IN GRAPHITE, LAST 24 s")
    assert re.search(r" _\S{10}# 48 MiB to 59 MiB$", leaky)
    assert leaky.isascii()


def test_growth_is_marked_by_more_than_colour() -> None:
    """It has a plus; the colour is beside it."""
    _header, leaky, steady = growth_lines(_ROWS, {}, 60, Screen(80, 24, has_colour=True))
    assert leaky.startswith("\x1b[33m")
    assert "+1023 MiB" in leaky
    assert "\x1b" not in steady
    assert "+" not in steady


def test_a_page_is_drawn_in_one_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was there moves up; after a change of size all is cleared; no more lines than there is room for."""
    stream = io.StringIO()
    page = LivePage(stream)
    page.draw(["a", "b"], Screen(80, 3))
    page.draw(["c", "d", "e", "f"], Screen(80, 3))
    page.draw(["g"], Screen(60, 5))
    assert stream.getvalue() == (
        "\n\n\n\x1b[Ha\x1b[K\nb\x1b[K\x1b[J\x1b[Hc\x1b[K\nd\x1b[K\ne\x1b[K\x1b[J\x1b[2J\x1b[Hg\x1b[K\x1b[J"
    )
    monkeypatch.setattr("fleetmem.cli.live_page.screen_of", lambda _stream: Screen(60, 5))
    page.clear()
    assert stream.getvalue().endswith("g\x1b[K\x1b[J\x1b[H\x1b[J")
    nothing = io.StringIO()
    LivePage(nothing).clear()
    assert nothing.getvalue() == ""
