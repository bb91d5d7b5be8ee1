"""Which of the measures that are asked for a host has. Pure.

A kernel tells peak, anonymous and swapped memory of all of its processes, or of none (Linux before 4.5, `ps`). A kernel
thread has no memory: each of its measures is 0.
"""

from collections.abc import Collection, Iterator, Sequence
from itertools import chain

from fleetmem.model import MORE_MEASURES, CommandMemory, ProcessMemory, Shaped

Row = ProcessMemory | CommandMemory


def value_of(row: Row, measure: str) -> float | None:
    """Returns a measure of a row, None where its kernel does not tell."""
    value: float | None = getattr(row, measure, None)
    return 0 if value is None and not row.vsz_bytes and _is_missing(row, measure) else value


def has_one_of(row: Row, measures: Collection[str]) -> bool:
    """Whether the kernel tells one of these measures."""
    return any(getattr(row, measure, None) is not None for measure in measures)


def is_lacking(row: Row, measures: Collection[str]) -> bool:
    """Whether the kernel does not tell one of these measures of a process, or of those that make a sum."""
    return bool(row.vsz_bytes) and any(_is_missing(row, measure) for measure in measures)


def lacking_of(shaped: Shaped) -> frozenset[str]:
    """Returns those of the measures asked for that some process has not. It looks at each row."""
    more = [measure for measure in shaped.measures if measure in MORE_MEASURES]
    rows = [row for row in chain(_sums_of(shaped), shaped.processes) if row.vsz_bytes] if more else []
    return frozenset(measure for measure in more if any(_is_missing(row, measure) for row in rows))


def has_more(measures: Sequence[str]) -> bool:
    """Whether there are measures among these that not every kernel tells."""
    return not set(measures).isdisjoint(MORE_MEASURES)


def known_measures(shaped: Shaped) -> tuple[str, ...]:
    """Returns the measures asked for that the host's first process has; without looking further."""
    if not has_more(shaped.measures):
        return shaped.measures
    rows = chain(shaped.processes, _sums_of(shaped))
    example = next((row for row in rows if row.vsz_bytes), None)
    if example is None:
        return shaped.measures
    return tuple(each for each in shaped.measures if each not in MORE_MEASURES or not _is_missing(example, each))


def _sums_of(shaped: Shaped) -> Iterator[Row]:
    return chain(shaped.commands, [row for row in (shaped.other_processes, shaped.other_commands) if row])


def _is_missing(row: Row, measure: str) -> bool:
    return hasattr(row, measure) and getattr(row, measure) is None
