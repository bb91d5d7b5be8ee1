"""How long a regular expression may take at most, from its structure. Pure.

Python's engine tries one way after the other. Each repeat of a character has as many ways as the text is
long. Two in a row have half the square of that, and a repeat of a repeat has two to the power of it. A repeat that is
followed by a character that it cannot match itself has one way only: `[a-z]+-` ends where the dash is.
"""

import re
from collections.abc import Sequence
from math import comb, inf
from re import ASCII, IGNORECASE, MULTILINE, Pattern, _parser  # type: ignore[attr-defined]
from typing import Any, NamedTuple

TEXT_CHARACTERS = 255
"""The longest text that the bound is for: names of processes are cut there."""

MAX_STEPS = 2_000_000
"""What is done in the event loop's own thread: 0.05 s at worst, for each name once."""

_LATIN = tuple(map(chr, range(256)))
# Four numbers stand for all other characters: digits, other letters, blanks, and the rest.
_DIGITS, _LETTERS, _BLANKS, _REST = range(256, 260)
_OTHERS = frozenset([_DIGITS, _LETTERS, _BLANKS, _REST])
_ALL = frozenset(range(256)) | _OTHERS
_FEW = 8
_RUN_STEPS = TEXT_CHARACTERS // 8  # of a repeated character: the engine counts a run in an eighth of a step each
_CATEGORIES = {
    "CATEGORY_DIGIT": (r"\d", frozenset([_DIGITS])),
    "CATEGORY_NOT_DIGIT": (r"\D", frozenset([_LETTERS, _BLANKS, _REST])),
    "CATEGORY_SPACE": (r"\s", frozenset([_BLANKS])),
    "CATEGORY_NOT_SPACE": (r"\S", frozenset([_DIGITS, _LETTERS, _REST])),
    "CATEGORY_WORD": (r"\w", frozenset([_DIGITS, _LETTERS])),
    "CATEGORY_NOT_WORD": (r"\W", frozenset([_BLANKS, _REST])),
}
_CHARACTERS = {"LITERAL", "NOT_LITERAL", "ANY", "IN", "CATEGORY", "RANGE"}
_REPEATS = {"MAX_REPEAT", "MIN_REPEAT"}

_Node = tuple[Any, Any]


class _Cost(NamedTuple):
    """What it takes to go through all ways in which a part matches at one place.

    Attributes:
        steps: in all.
        factor: how many ways there are, times the ways to place so many ends in the text, one behind the other.
        ends: see above.
    """

    steps: float = 1.0
    factor: float = 1.0
    ends: int = 0

    @property
    def ways(self) -> float:
        """How many ways there are."""
        return self.factor * comb(TEXT_CHARACTERS + self.ends, self.ends) if self.ends < _FEW else inf


_NOTHING = _Cost(0.0)


def steps_of(pattern: Pattern[str]) -> float:
    """Returns the most steps that a search in a text of TEXT_CHARACTERS takes; infinite where nothing can be said."""
    try:
        nodes = list(_parser.parse(pattern.pattern, pattern.flags))
        anchors = ("AT_BEGINNING_STRING",) if "m" in _flags_of(pattern) else ("AT_BEGINNING_STRING", "AT_BEGINNING")
        is_anchored = bool(nodes) and _name(nodes[0]) == "AT" and str(nodes[0][1]) in anchors
        return _Structure(pattern).sequence(nodes, _Cost(ends=0 if is_anchored else 1), is_last=True).steps
    except Exception:  # noqa: BLE001 - a construct of a newer Python: nothing is known of it
        return inf


def _name(node: _Node) -> str:
    return str(node[0])


def _flags_of(pattern: Pattern[str]) -> str:
    """Returns the letters of all flags that hold somewhere in a pattern, and perhaps others."""
    whole = {IGNORECASE: "i", MULTILINE: "m", ASCII: "a"}
    letters = "".join(letter for flag, letter in whole.items() if pattern.flags & flag)
    return letters + "".join(re.findall(r"\(\?([a-zA-Z]+)", pattern.pattern))


class _Structure:
    """Goes through the parts of one pattern."""

    def __init__(self, pattern: Pattern[str]) -> None:
        flags = _flags_of(pattern)
        self._folds_case, self._is_ascii = "i" in flags, "a" in flags

    def sequence(
        self,
        nodes: Sequence[_Node],
        before: _Cost = _NOTHING,
        after: Sequence[_Node] = (),
        *,
        is_last: bool = False,
    ) -> _Cost:
        """Returns the cost of parts behind each other, behind what came before and with what comes after."""
        steps, factor, ends = before
        for place, node in enumerate(nodes):
            ways = _Cost(0.0, factor, ends).ways
            rest = [*nodes[place + 1 :], *after]
            if is_last and not rest and _name(node) in _REPEATS and self._is_character(node[1][2]):
                steps += ways * (node[1][0] + 1)  # what it takes, it keeps: nothing follows
                continue
            cost = self.part(node, rest, is_last=is_last and not rest)
            steps += ways * cost.steps
            factor, ends = factor * cost.factor, ends + cost.ends
        return _Cost(steps, factor, ends)

    def part(self, node: _Node, rest: Sequence[_Node] = (), *, is_last: bool = False) -> _Cost:
        """Returns the cost of one part."""
        kind, value = _name(node), node[1]
        match kind:
            case "AT":
                return _Cost()
            case _ if kind in _CHARACTERS:
                return _Cost()
            case "SUBPATTERN":
                return self.sequence(value[3], after=rest, is_last=is_last)
            case "ATOMIC_GROUP":
                return _Cost(self.sequence(value).steps)
            case "ASSERT" | "ASSERT_NOT":
                return _Cost(self.sequence(value[1]).steps + 1)
            case "GROUPREF":
                return _Cost(TEXT_CHARACTERS)
            case "BRANCH":
                return self._branch(value[1])
            case "GROUPREF_EXISTS":
                return self._branch([value[1], value[2] or []])
            case "MAX_REPEAT" | "MIN_REPEAT":
                return self._repeat(int(value[0]), int(value[1]), value[2], rest)
            case "POSSESSIVE_REPEAT":
                return _Cost(self.sequence(value[2]).steps * (TEXT_CHARACTERS + 1))
        return _Cost(inf, inf)

    def _branch(self, branches: Sequence[Sequence[_Node]]) -> _Cost:
        costs = [self.sequence(list(branch)) for branch in branches]
        firsts = [self._first(list(branch)) for branch in branches]
        is_one = sum(map(len, firsts)) == len(frozenset[int]().union(*firsts))
        factors = [cost.factor for cost in costs]
        factor = max(factors) if is_one else sum(factors)
        return _Cost(sum(cost.steps for cost in costs) + len(costs), factor, max(cost.ends for cost in costs))

    def _repeat(self, least: int, most: int, body: Sequence[_Node], rest: Sequence[_Node]) -> _Cost:
        body = list(body)
        options = min(most, TEXT_CHARACTERS) - least
        if self._is_character(body):
            if options <= 0 or (rest and not self._first([body[0]]) & self._first(list(rest))):
                return _Cost(TEXT_CHARACTERS if options > 0 else least + 1)
            return _Cost(_RUN_STEPS, 1, 1) if options > _FEW else _Cost(least + options + 1, options + 1)
        cost = self.sequence(body)
        if cost.ways <= 1 and self._width(body):
            times = min(most, TEXT_CHARACTERS)
            return _Cost((cost.steps + 1) * (times + 1), 1, 1 if options > 0 else 0)
        times = min(most, TEXT_CHARACTERS + 1)
        if times > _FEW:
            return _Cost(inf, inf)
        steps = cost.steps * sum(_Cost(0.0, cost.factor**time, cost.ends * time).ways for time in range(times))
        return _Cost(steps + times, (cost.factor + 1) ** times, cost.ends * times)

    def _is_character(self, body: Sequence[_Node]) -> bool:
        return len(body) == 1 and _name(body[0]) in _CHARACTERS

    def _width(self, nodes: Sequence[_Node]) -> int:
        """Returns how many characters parts match at least."""
        subpattern = _parser.SubPattern(_parser.State(), list(nodes))
        return int(subpattern.getwidth()[0])

    def _first(self, nodes: Sequence[_Node]) -> frozenset[int]:
        """Returns the characters that parts can begin with; all of them where they may match nothing."""
        if not nodes:
            return _ALL
        kind, value = _name(nodes[0]), nodes[0][1]
        if kind in _CHARACTERS:
            return self._folded(self._set(nodes[0]))
        if kind == "SUBPATTERN":
            return self._first([*value[3], *nodes[1:]])
        if kind == "BRANCH":
            return frozenset[int]().union(*(self._first([*branch, *nodes[1:]]) for branch in value[1]))
        if kind in _REPEATS and value[0] > 0:
            return self._first(list(value[2])) if self._width(value[2]) else _ALL
        return _ALL

    def _set(self, node: _Node) -> frozenset[int]:
        kind, value = _name(node), node[1]
        match kind:
            case "LITERAL":
                return frozenset([value]) if value < len(_LATIN) else _OTHERS
            case "RANGE":
                low, high = value
                return frozenset(range(low, min(high, 255) + 1)) | (_OTHERS if high > 255 else frozenset())
            case "CATEGORY" if str(value) in _CATEGORIES:
                text, others = _CATEGORIES[str(value)]
                matches = re.compile(text).match
                known = _ALL if self._is_ascii else others
                return frozenset(ord(one) for one in _LATIN if matches(one)) | (known & _OTHERS)
            case "NOT_LITERAL":
                return _ALL - {value}
            case "IN":
                items = [item for item in value if _name(item) != "NEGATE"]
                found = frozenset[int]().union(*map(self._set, items))
                if len(items) == len(value):
                    return found
                # A single character of these classes is not all of them.
                whole = frozenset[int]().union(*(self._set(item) for item in items if _name(item) == "CATEGORY"))
                return (_ALL - found) | (_OTHERS - whole)
        return _ALL

    def _folded(self, codes: frozenset[int]) -> frozenset[int]:
        if not self._folds_case:
            return codes
        texts = [chr(code) for code in codes if code < len(_LATIN)]
        both = {ord(one) for text in texts for one in (text.lower(), text.upper()) if len(one) == 1}
        has_letters = any(text.isalpha() for text in texts)
        return codes | {code for code in both if code < len(_LATIN)} | (_OTHERS if has_letters else frozenset())
