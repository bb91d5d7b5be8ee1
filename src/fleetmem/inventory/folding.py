"""Many host names in few words: `web[012-019,024]`. Pure.

What it returns is what `-i` and `--limit` take: expanding it gives the same names, see `spec` and `patterns`.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from fleetmem.inventory.spec import MAX_EXPANSION

_NUMBER = re.compile(r"[0-9]+")
# What ranges can be written for: a host name or an IPv4 address, perhaps with a port, which has to stay as it is.
_FOLDABLE = re.compile(r"([A-Za-z0-9._-]+)((?::[0-9]+)?)")
_RANGE_DIGITS = 9
_MOST_IN_ONE = MAX_EXPANSION // 2
_SHOWN_CHARACTERS = 300

Around = tuple[str, str]
"""What stands before and behind the number in which names differ."""


class Folded(NamedTuple):
    """Some names in one word.

    Attributes:
        text: a name, or names with ranges.
        hosts: how many names are in it.
    """

    text: str
    hosts: int


def natural_key(name: str) -> list[tuple[str, int, str]]:
    """Returns by what names are sorted as people count: web2 before web10. Numbers may be of any length."""
    texts = _NUMBER.split(name)
    numbers = [number.lstrip("0") for number in _NUMBER.findall(name)]
    keys = [(text, len(number), number) for text, number in zip(texts, [*numbers, ""], strict=True)]
    return [*keys, (name, 0, "")]


def natural_order(names: Iterable[str]) -> list[str]:
    """Returns names in the order in which people count."""
    return sorted(names, key=natural_key)


def fold(names: Iterable[str]) -> list[Folded]:
    """Returns names folded, in natural order; each counts once. A name with an unusual sign stays as it is."""
    names = natural_order(set(names))
    places = {name: list(_places(name)) for name in names}
    sizes = Counter(around for candidates in places.values() for around, _number in candidates)
    groups: dict[Around | str, list[str]] = defaultdict(list)
    for name in names:
        around, number = max(places[name], key=lambda place: sizes[place[0]], default=(name, ""))
        groups[around].append(number)
    return [folded for around, numbers in groups.items() for folded in _words(around, numbers)]


def folded_text(names: Iterable[str], characters: int = _SHOWN_CHARACTERS) -> str:
    """Returns names folded on one line, `web[1-3],db`; where they are too many, the first, and how many more."""
    words = fold(names)
    shown, length = 0, 0
    for word in words:
        length += len(word.text) + 1
        if shown and length > characters:
            break
        shown += 1
    text = ",".join(word.text for word in words[:shown])
    rest = sum(word.hosts for word in words[shown:])
    return f"{text} and {rest} more" if rest else text


def _places(name: str) -> Iterator[tuple[Around, str]]:
    """Yields each number of a name that ranges can be written for, with what stands around it."""
    match = _FOLDABLE.fullmatch(name)
    if match:
        for number in _NUMBER.finditer(match[1]):
            yield (name[: number.start()], name[number.end() :]), number[0]


def _words(around: Around | str, numbers: list[str]) -> Iterator[Folded]:
    if isinstance(around, str):
        yield Folded(around, 1)
        return
    before, behind = around
    for start in range(0, len(numbers), _MOST_IN_ONE):
        part = numbers[start : start + _MOST_IN_ONE]
        inner = part[0] if len(part) == 1 else f"[{','.join(_ranges(part))}]"
        yield Folded(f"{before}{inner}{behind}", len(part))


def _ranges(numbers: list[str]) -> Iterator[str]:
    """Yields `012-019` and `024`: a range counts with as many digits as its first number, where that begins with 0."""
    left = dict.fromkeys(sorted(numbers, key=lambda number: (len(number.lstrip("0")), number.lstrip("0"), number)))
    while left:
        first = last = next(iter(left))
        del left[first]
        width = len(first) if first.startswith("0") else 0
        while len(last) <= _RANGE_DIGITS and (following := str(int(last) + 1).zfill(width)) in left:
            if len(following) > _RANGE_DIGITS:
                break
            last = following
            del left[last]
        yield first if first == last else f"{first}-{last}"
