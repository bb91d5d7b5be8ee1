"""Questions to Graphite: its functions, and the paths of fleetmem's series. Pure.

Functions of graphite-web 1.1 (graphite.readthedocs.io, "Functions"). Through StatsD a series that has ended may stay at
0 for ever; without, it has no points any more. Neither is to be seen.
"""

from collections.abc import Callable, Sequence

from fleetmem.model import HOST_MEASURES, Measure, measures_of_sum
from fleetmem.sinks.formats import carbon_plain
from fleetmem.sinks.naming import LABELS, place
from fleetmem.sinks.pages.exposition import OTHER
from fleetmem.telemetry.counters import COLLECTOR_COUNTERS, SINK_COUNTERS

PATH_MARK = "@path@"
"""Stands for what is before a family in a path: fleetmem's prefix, behind that of StatsD."""

_LATE_STEPS = 3
"""Steps of the archive that a point may be late before its series counts as ended."""

_PRESELECTED = 500

_MEASURES = {
    "process": {*Measure, "procs"},  # which `other` has
    "command": measures_of_sum(tuple(Measure)),
    "host": HOST_MEASURES,
    "collector": COLLECTOR_COUNTERS,
    "sink": SINK_COUNTERS,
}


class Expression(str):
    """A path or a call of a function: what Graphite calls a target."""

    __slots__ = ()


def call(function: str, *arguments: Expression | str | int) -> Expression:
    """Returns a call of one of Graphite's functions; text that is no expression is quoted.

    Graphite knows no escapes in quoted text.
    """
    texts = [f'"{each}"' if type(each) is str else str(each) for each in arguments]
    return Expression(f"{function}({', '.join(texts)})")


def keep_names(function: str, series: Expression, *arguments: Expression | str | int) -> Expression:
    """Returns a call of a function that gives new names, with the names as they were.

    They are what the next function groups by, and taking a path out of a long name costs Graphite more than the rest.
    """
    changed = call(function, series, *arguments)
    return call("aliasSub", changed, rf"^{function}\(([^,]*).*\)$", r"\1")


# --- series by series ---

Shape = Callable[[Expression], Expression]


def living(series: Expression) -> Expression:
    """Returns those series that were more than 0 at some time: others have ended before."""
    return call("maximumAbove", call("removeEmptySeries", series), 0)  # an empty one has no maximum to compare


def fresh(series: Expression) -> Expression:
    """Returns series whose newest point is there, also when it is late; that of a series that has ended is not.

    In the newest step of the archive some hosts have their point already, and others not yet: sums need this.
    """
    return keep_names("keepLastValue", series, _LATE_STEPS)


def current(series: Expression) -> Expression:
    """Returns the series that live, up to their newest point."""
    return fresh(living(series))


def without_other(series: Expression) -> Expression:
    """Returns series without the sums called `other`, which are no processes: no real command has that name."""
    return call("exclude", series, rf"\.{OTHER}\.(0\.)?[a-z_]+$")


def current_of_many(series: Expression) -> Expression:
    """Returns the same of the biggest ones: far more than are shown, and far less work with ten thousand processes."""
    return current(call("highestMax", series, _PRESELECTED))


def above_lowest(series: Expression) -> Expression:
    """Returns how far series are above their lowest point."""
    return keep_names("offsetToZero", series)


def growth(series: Expression) -> Expression:
    """Returns the same of what lives. What is new has not grown yet, and what has ended is not at its lowest."""
    return fresh(above_lowest(keep_names("removeBelowValue", living(series), 1)))


def negative(series: Expression) -> Expression:
    """Returns series times -1."""
    return keep_names("scale", series, -1)


def less_than(number: int, series: Expression) -> Expression:
    """Returns how much series are less than a number."""
    return keep_names("offset", negative(series), number)


def peaks(series: Expression) -> Expression:
    """Returns series that keep their peaks where there are more points than pixels."""
    return keep_names("consolidateBy", series, "max")


# --- some of them ---


def highest(series: Expression, number: int) -> Expression:
    """Returns the series with the highest peaks, in their order."""
    return peaks(call("highestMax", series, number))


def highest_now(series: Expression, number: int) -> Expression:
    """Returns the series that are highest in the end, in their order; one that has ended counts as 0."""
    return call("highestCurrent", keep_names("transformNull", series, 0), number)


def rows(series: Expression, number: int) -> Expression:
    """Returns the same, without these zeros."""
    return peaks(keep_names("removeBelowValue", highest_now(series, number), 1))


def lowest_now(series: Expression, number: int) -> Expression:
    """Returns the series that are lowest in the end, in their order."""
    return call("lowestCurrent", fresh(call("removeEmptySeries", series)), number)  # an empty one counts as lowest


# --- under other names, or as one ---


def named(series: Expression, name: str) -> Expression:
    """Returns a series under this name."""
    return call("alias", series, name)


def named_by(series: Expression, *nodes: Expression) -> Expression:
    """Returns series called by components of their path."""
    return call("aliasByNode", series, *nodes)


def total(series: Expression) -> Expression:
    """Returns the sum of series."""
    return call("sumSeries", series)


def difference(series: Expression, less: Expression) -> Expression:
    """Returns one series less another."""
    return call("diffSeries", series, less)


def per_second(totals: Expression) -> Expression:
    """Returns how fast totals grow; a restart, which sets them back, is left out."""
    return call("perSecond", totals)


def grown(totals: Expression) -> Expression:
    """Returns by how much totals have grown since the left edge of the graph."""
    return call("integral", call("nonNegativeDerivative", totals))


def percent_of_time(seconds: Expression) -> Expression:
    """Returns how fast a total of seconds grows, in percent of the time. More than all of it is a host that came back.

    Through StatsD its total was 0 while it was away.
    """
    return call("removeAboveValue", call("scale", per_second(seconds), 100), 100)


def grown_by_step(totals: Expression) -> Expression:
    """Returns by how much totals have grown since the point before; several points in one add up."""
    return call("consolidateBy", call("nonNegativeDerivative", totals), "sum")


# --- fleetmem's series ---


class Paths:
    """The paths of fleetmem's series in Graphite."""

    def path(self, family: str, *values: str) -> str:
        """Returns the path of a family, or of one of its members, without a measure and without a dot at the end."""
        return carbon_plain(PATH_MARK, place(family, *values)).head.removesuffix(".")

    def node(self, label: str, family: str = "process") -> Expression:
        """Returns the mark of the component of a path that holds a label's value, as `aliasByNode` wants it."""
        return Expression(f"@node:{1 + LABELS[family].index(label)}@")

    def measure_node(self, owner: str) -> Expression:
        """Returns the mark of the component that holds a measure of the collector, or of one of its sinks."""
        return Expression(f"@node:{2 if owner == 'collector' else 3}@")

    def commands(self, host: str) -> str:
        """Returns the path of a host's commands, at whatever level of detail."""
        either = place("command", host, "*")._replace(family="{process,command}")
        return carbon_plain(PATH_MARK, either).head.removesuffix(".")

    def host(self, measure: str, host: str) -> Expression:
        """Returns the series of hosts."""
        return self._series("host", measure, host)

    def collector(self, *measures: str) -> Expression:
        """Returns the series of the collector that is chosen, the measures in any order."""
        return Expression(f"{self.path('collector', '$collector')}.{_one_of('collector', measures)}")

    def sink(self, *measures: str) -> Expression:
        """Returns the series of all its sinks."""
        return Expression(f"{self.path('collector', '$collector', '*')}.{_one_of('sink', measures)}")

    def _series(self, family: str, measure: str, *values: str) -> Expression:
        return Expression(f"{self.path(family, *values)}.{_one_of(family, [measure])}")

    # --- whatever the level of detail ---

    def by(
        self, labels: Sequence[str], measure: str, host: str, command: str = "*", shape: Shape = current
    ) -> Expression:
        """Returns sums of a measure over processes, one per value of the labels, which it is called by.

        From the series of commands where there are any, else from those of processes: `--detail` decides which.

        Args:
            labels: that sums are made by.
            measure: that is added up.
            host: a host or a pattern.
            command: likewise.
            shape: what becomes of each series before.
        """
        levels = [shape(level) for level in self._levels(measure, host, command)]
        nodes = [self.node(label) for label in labels]
        return call("fallbackSeries", *(call("groupByNodes", level, "sum", *nodes) for level in levels))

    def each(
        self,
        labels: Sequence[str],
        measure: str,
        host: str,
        command: str = "*",
        pid: str = "*",
        shape: Shape = current,
    ) -> Expression:
        """Returns the processes, called by labels, the pid the last; where there are none, commands, with pid `*`.

        Where all commands are asked for, `other` is left out: it is no process.
        """
        levels = self._levels(measure, host, command, pid)
        commands, processes = (shape(without_other(level) if command == "*" else level) for level in levels)
        *coarse, last = (self.node(label) for label in labels)
        pidless = call("alias", commands, "*")
        if coarse:
            pidless = call("aliasSub", call("aliasByNode", commands, *coarse), "^(.+)$", r"\1.*")
        return call("fallbackSeries", call("aliasByNode", processes, *coarse, last), pidless)

    def processes(self, host: str, command: str) -> Expression:
        """Returns how many processes a command has: as it says where it does, else those that have memory."""
        _commands, processes = self._levels("rss_bytes", host, command)
        alive = call("isNonNull", call("removeBelowValue", current(processes), 1))
        said, other = (total(current(level)) for level in self._levels("procs", host, command))
        counted = call("removeBelowValue", total(alive), 1)  # isNonNull says 0 for no points, too
        return call("fallbackSeries", said, call("fallbackSeries", other, counted))

    def _levels(self, measure: str, host: str, command: str, pid: str = "*") -> tuple[Expression, Expression]:
        process = self._series("process", measure, host, command, pid)
        return self._series("command", measure, host, command), process

    # --- hosts ---

    def in_use(self, host: str) -> Expression:
        """Returns the memory in use of each host, in bytes, called by the host."""
        all_, available = (fresh(self.host(f"mem_{what}_bytes", host)) for what in ("total", "available"))
        return call("groupByNodes", call("group", all_, negative(available)), "sum", self.node("host"))

    def in_use_percent(self, host: str) -> Expression:
        """Returns the same in percent of the host's memory."""
        all_, available = (fresh(self.host(f"mem_{what}_bytes", host)) for what in ("total", "available"))
        share = keep_names("asPercent", available, all_, self.node("host"))
        known = call("removeEmptySeries", share)  # Linux before 3.14 does not say what is available
        return named_by(less_than(100, known), self.node("host"))

    def sum(self, measure: str, host: str) -> Expression:
        """Returns the sum of a measure over hosts."""
        return total(fresh(self.host(measure, host)))


def _one_of(family: str, measures: Sequence[str]) -> str:
    unknown = set(measures) - set(_MEASURES[family])
    if unknown:
        raise ValueError(f"{family} has no {sorted(unknown)}")
    return measures[0] if len(measures) == 1 else f"{{{','.join(measures)}}}"
