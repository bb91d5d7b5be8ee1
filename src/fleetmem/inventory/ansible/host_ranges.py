"""Host patterns of Ansible's inventories: `www[01:50:2].example.com:2222`. Pure."""

import re
import string

from fleetmem.errors import InventoryError
from fleetmem.inventory.spec import MAX_EXPANSION

_BRACKETED = re.compile(r"\[(.+)\]:([0-9]{1,5})")  # IPv6 addresses have a port so only
_WITH_PORT = re.compile(r"((?:[^:\[\]]|\[[^\]]*\])*):([0-9]{1,5})")
_RANGE = re.compile(r"\[([^\[\]:]*):([^\[\]:]+)(?::([0-9]+))?\]")


def expand(pattern: str) -> tuple[list[str], int | None]:
    """Returns the names of a pattern, and the port that it gives them.

    Raises:
        InventoryError: a range has no end, or runs backwards.
    """
    match = _BRACKETED.fullmatch(pattern) or _WITH_PORT.fullmatch(pattern)
    base, port = (match[1], int(match[2])) if match else (pattern, None)
    return _expand_ranges(base, pattern), port


def _expand_ranges(text: str, pattern: str) -> list[str]:
    match = _RANGE.search(text)
    if not match:
        return [text]
    head, tails = text[: match.start()], _expand_ranges(text[match.end() :], pattern)
    middles = _middles(match[1] or "0", match[2], int(match[3] or 1), pattern)
    if len(middles) * len(tails) > MAX_EXPANSION:
        raise InventoryError(f"host {pattern!r}: more than {MAX_EXPANSION} hosts")
    return [head + middle + tail for middle in middles for tail in tails]


def _middles(first: str, last: str, step: int, pattern: str) -> list[str]:
    letters = string.ascii_letters
    if step and len(first) == len(last) == 1 and letters.find(last) >= letters.find(first) >= 0:
        return list(letters[letters.index(first) : letters.index(last) + 1 : step])
    is_numeric = all(part.isascii() and part.isdigit() and len(part) <= 9 for part in (first, last))
    if not step or not is_numeric or int(first) > int(last) or int(last) - int(first) >= MAX_EXPANSION:
        raise InventoryError(f"host {pattern!r}: [{first}:{last}] is not a range; write [1:9], [01:50:2] or [a:f]")
    width = len(first) if first.startswith("0") and len(first) > 1 else 0
    return [str(number).zfill(width) for number in range(int(first), int(last) + 1, step)]
