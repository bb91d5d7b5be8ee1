"""A series as one line of text. Pure."""

from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ASCII = "_.-=+*%#"
"""For terminals that are not UTF-8."""

_FLAT = 0.1


def sparkline(values: Sequence[float], columns: int, levels: str = BLOCKS) -> str:
    """Returns the last values, a character each: the lowest level at their minimum, the highest at their maximum.

    Values that differ by less than a tenth look as flat as they are.
    """
    values = values[-columns:]
    if not values:
        return ""
    low, high = min(values), max(values)
    step = max(high - low, _FLAT * high) / (len(levels) - 1) or 1
    return "".join(levels[round((value - low) / step)] for value in values)
