"""What is kept of a snapshot, as plain values: levels of detail, filters, groups, sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from string import Formatter
from typing import Any, Protocol

from fleetmem.model import PROCESS_MEASURES, Detail


class TopBy(StrEnum):
    """What makes a process big."""

    RSS = "rss"
    SWAP = "swap"
    GROWTH = "growth"


class Found(Protocol):
    """A match of a regular expression."""

    def groupdict(self, default: str, /) -> Mapping[str, Any]:
        """Returns its named groups, the default for those that took no part."""


class Searchable(Protocol):
    """A regular expression: `re.Pattern`, or one whose time is limited."""

    @property
    def pattern(self) -> str:
        """As it is written."""

    @property
    def groupindex(self) -> Mapping[str, int]:
        """Its named groups."""

    def search(self, text: str, /) -> Found | None:
        """Returns the first match."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Lets a text through where one of `include` finds something in it, or there is none, and no `exclude` does.

    A text that is not known (None) matches no pattern.
    """

    include: tuple[Searchable, ...] = ()
    exclude: tuple[Searchable, ...] = ()

    def keeps(self, text: str | None) -> bool:
        """Whether the text gets through."""
        if text is None:
            return not self.include
        is_included = not self.include or any(pattern.search(text) for pattern in self.include)
        return is_included and not any(pattern.search(text) for pattern in self.exclude)

    def __bool__(self) -> bool:
        """Whether there is anything to match."""
        return bool(self.include or self.exclude)


@dataclass(frozen=True, slots=True)
class CommandGroup:
    """Gives processes a name in place of their command's.

    Attributes:
        match: is searched for in the command.
        name: the name; `{capture}` is what the capture of that name holds, nothing where it took no part.
    """

    match: Searchable
    name: str

    def __post_init__(self) -> None:
        """Refuses a name that could not be made.

        Raises:
            ValueError: braces that do not match, or something else in them than a named capture.
        """
        for _text, capture, format_spec, conversion in Formatter().parse(self.name):
            if capture is not None and (format_spec or conversion or capture not in self.match.groupindex):
                known = ", ".join(f"{{{name}}}" for name in self.match.groupindex) or "none, (?P<capture>...) makes one"
                raise ValueError(f"{self.name!r} has {{{capture}}}; captures in {self.match.pattern!r}: {known}")

    def name_of(self, command: str) -> str | None:
        """Returns the name of a command, None where the rule does not match."""
        match = self.match.search(command)
        return self.name.format_map(match.groupdict("")) if match else None


@dataclass(frozen=True, slots=True)
class Limits:
    """What is kept of a snapshot.

    Attributes:
        detail: a row per process, one per command, or both.
        top: keep that many rows per host and level; None keeps all.
        min_rss_bytes: leave out what is smaller.
        top_by: what `top` ranks by.
        commands: by the kernel's name of a process, before groups.
        users: by user id as decimal text: a frame has no names.
        hosts: by name in the inventory; of a host that is left out, `other` is all there is.
        groups: the first that matches names a process.
        measures: the series that each process has.
    """

    detail: Detail | frozenset[Detail] = Detail.PROCESS
    top: int | None = None
    min_rss_bytes: int = 0
    top_by: TopBy = TopBy.RSS
    commands: Filter = Filter()
    users: Filter = Filter()
    hosts: Filter = Filter()
    groups: tuple[CommandGroup, ...] = ()
    measures: tuple[str, ...] = PROCESS_MEASURES

    @property
    def details(self) -> frozenset[Detail]:
        """The levels that there are."""
        return frozenset([self.detail]) if isinstance(self.detail, Detail) else self.detail

    @property
    def name_patterns(self) -> tuple[Searchable, ...]:
        """The regular expressions that the names of processes meet."""
        return (*self.commands.include, *self.commands.exclude, *(group.match for group in self.groups))
