"""Which hosts of an inventory: Ansible's pattern language, and labels as a term of it. Pure.

From Ansible's "Patterns: targeting hosts and groups", with its order of evaluation: first the terms without a sign,
then `&`, then `!`, wherever they stand. `label=value` is ours, and so are host ranges as `-i` has them (`web[01-50]`).
"""

import difflib
import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import translate
from typing import Protocol

from fleetmem.errors import InventoryError
from fleetmem.inventory.spec import expand_ranges
from fleetmem.model import Host

# Subscripts are Ansible's: web[0], web[-1], web[1:3] (the last one included), web[1:], web[:3].
_SUBSCRIPT = re.compile(r"(.+)\[(?:(-?[0-9]+)|([0-9]*):([0-9]*))\]")
_WILDCARDS = re.compile(r"[*?\[]")
_HOST_RANGE = re.compile(r"\[(?:[0-9]+-[0-9]+|[^\[\]]*,[^\[\]]*)\]")
_COMMA = re.compile(r",(?![^\[\]]*\])")
# A colon in brackets belongs to a subscript or to an IPv6 address; one before digits alone belongs to a host's port.
_COLON = re.compile(r":(?![^\[\]]*\])(?![0-9]+(?:$|:))")
_NAMES_SHOWN = 3


class Matches(Protocol):
    """A regular expression: `re.Pattern`, or one whose time is limited."""

    def match(self, text: str, /) -> object | None:
        """Returns the match at the beginning."""


Compile = Callable[[str], Matches]
"""Makes a regular expression of a text."""


def select(pattern: str, hosts: Sequence[Host], compile_: Compile = re.compile) -> list[Host]:
    """Returns the hosts that a pattern means, in the order of its terms, each once.

    Args:
        pattern: terms, separated by commas, or by colons where there is no comma. A term is `all` or `*`, a group, a
            host, a host range (`web[01-50]`), or a glob on groups and hosts. Or `~` and a regular expression that
            matches from their begin, or `label=value` where both may be globs. It may have a subscript (`web[0]`,
            `web[-1]`, `web[1:3]`), in the order of the inventory. `&term` keeps only those, `!term` leaves those out.
        hosts: the inventory.
        compile_: for what people write.

    Raises:
        InventoryError: a term cannot be read, or names a group, host or label that there is not. A glob or a regular
            expression may match nothing; then, and where `&` and `!` leave nothing, the list is empty.
    """
    fleet = _Fleet(hosts, compile_)
    terms = _split(pattern, fleet)
    chosen: dict[str, Host] = {}
    for term in [term for term in terms if term[0] not in "&!"] or ["all"]:
        chosen |= fleet.match(term)
    for term in terms:
        if term[0] == "&":
            kept = fleet.match(term[1:])
            chosen = {name: host for name, host in chosen.items() if name in kept}
    for term in terms:
        if term[0] == "!":
            gone = fleet.match(term[1:])
            chosen = {name: host for name, host in chosen.items() if name not in gone}
    return list(chosen.values())


def check_syntax(pattern: str, compile_: Compile = re.compile) -> None:
    """Checks a pattern for hosts that are not known here: any name may be a host, a group or a label.

    Raises:
        InventoryError: a term cannot be read.
    """
    fleet = _Fleet((), compile_, is_open=True)
    for term in _split(pattern, fleet):
        fleet.match(term.lstrip("&!"))


def _split(pattern: str, fleet: "_Fleet") -> list[str]:
    """Returns the terms. As with Ansible, colons separate only where there is no comma, and not in an IPv6 address."""
    if pattern.strip() in fleet.hosts:
        return [pattern.strip()]
    separator = _COMMA if _COMMA.search(pattern) else _COLON
    terms = [term.strip() for term in separator.split(pattern) if term.strip()]
    if not terms or any(term in ("&", "!", "~") for term in terms):
        raise InventoryError(f"pattern {pattern!r}: a term is empty; a pattern looks like web:&eu:!old")
    for term in terms:
        if term.count("[") != term.count("]") and "~" not in term[:2]:
            raise InventoryError(f"pattern {term!r}: brackets do not match; a subscript looks like web[0] or web[1:3]")
    return terms


class _Fleet:
    """An inventory, by host and by group; an open one may have others, too."""

    def __init__(self, hosts: Sequence[Host], compile_: Compile = re.compile, *, is_open: bool = False) -> None:
        self._is_open = is_open
        self._compile_re = compile_
        self.hosts = {host.name: host for host in hosts}
        self.groups: dict[str, dict[str, Host]] = {"all": self.hosts, "ungrouped": {}}
        for host in hosts:
            for group in host.groups or {"ungrouped"}:
                self.groups.setdefault(group, {})[host.name] = host

    def match(self, term: str) -> dict[str, Host]:
        """Returns the hosts of a term without its sign, by name, in the order of the inventory."""
        if term.startswith("~"):
            return self._match_names(self._compile(term, term[1:]).match)
        if term in self.hosts or term in self.groups:  # before anything is read into brackets: [::1]:22
            return self._in_order({*self.groups.get(term, ()), term})
        subscript = _SUBSCRIPT.fullmatch(term)
        if subscript:
            return self._cut(term, subscript)
        if "=" in term:
            return self._match_label(term)
        if _HOST_RANGE.search(term) and not re.search(r"[*?]", term):
            return self._in_order(set(expand_ranges(term)))
        if _WILDCARDS.search(term):
            return self._match_names(self._compile(term, translate(term)).match)
        if self._is_open and not _COLON.search(term):
            return {}
        raise InventoryError(f"pattern: no host or group {term!r}{self._hint(term)}")

    def _cut(self, term: str, subscript: re.Match[str]) -> dict[str, Host]:
        base, index, first, last = subscript.groups()
        matched = list(self.match(base).items())
        if index is None:
            return dict(matched[int(first or 0) : int(last) + 1 if last else None])
        try:
            return dict([matched[int(index)]]) if matched else {}
        except IndexError:
            raise InventoryError(f"pattern: {term!r}: there are only {len(matched)} hosts in {base!r}") from None

    def _match_names(self, is_match: Callable[[str], object]) -> dict[str, Host]:
        names = {name for name in self.hosts if is_match(name)}
        return self._in_order(names.union(*(hosts for group, hosts in self.groups.items() if is_match(group))))

    def _match_label(self, term: str) -> dict[str, Host]:
        label, _, value = term.partition("=")
        is_label, is_value = self._compile(term, translate(label)).match, self._compile(term, translate(value)).match
        known = {name for host in self.hosts.values() for name in host.labels}
        if not _WILDCARDS.search(label) and label not in known and not self._is_open:
            raise InventoryError(f"pattern {term!r}: no host has a label {label!r}{_close(label, known)}")
        return {
            name: host
            for name, host in self.hosts.items()
            if any(is_label(key) and is_value(text) for key, text in host.labels.items())
        }

    def _in_order(self, names: set[str]) -> dict[str, Host]:
        return {name: host for name, host in self.hosts.items() if name in names}

    def _compile(self, term: str, text: str) -> Matches:
        try:
            return self._compile_re(text)
        except (re.error, OverflowError, RecursionError) as error:
            raise InventoryError(f"pattern {term!r}: not a regular expression: {error}") from error

    def _hint(self, term: str) -> str:
        if ":" in term:
            return "; where there is a comma in a pattern, colons do not separate terms: write commas only"
        return _close(term, [*self.groups, *self.hosts])


def _close(word: str, known: Iterable[str]) -> str:
    """Returns what may have been meant."""
    close = difflib.get_close_matches(word, known, _NAMES_SHOWN)
    return f"; do you mean {' or '.join(close)}?" if close else ""
