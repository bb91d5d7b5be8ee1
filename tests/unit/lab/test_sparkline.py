"""Sparklines."""

import pytest

from fleetmem.lab.sparkline import ASCII, sparkline


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ([], ""),
        ([0], "▁"),
        ([5, 5, 5], "▁▁▁"),
        ([0, 7], "▁█"),
        ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█"),
        ([1000, 1001, 1000], "▁▁▁"),
        ([7, 0, 0, 7], "▁▁█"),
    ],
)
def test_sparkline(values: list[float], line: str) -> None:
    """The lowest level at the minimum, the highest at the maximum; noise is flat; the last values are kept."""
    assert sparkline(values, columns=3 if line == "▁▁█" else 30) == line


def test_sparkline_without_unicode() -> None:
    """A terminal that is not UTF-8 gets plain characters."""
    assert sparkline([0, 100], 10, ASCII) == "_#"
