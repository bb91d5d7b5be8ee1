"""Questions to Prometheus: PromQL over the families that fleetmem exposes. Pure."""

from collections.abc import Callable, Sequence

from fleetmem.model import Detail
from fleetmem.sinks.pages.exposition import COLLECTOR_FAMILY, FAMILIES, OTHER, metric_name
from fleetmem.telemetry.counters import ALL_COUNTERS

_FAMILIES = {*FAMILIES, *(f"{COLLECTOR_FAMILY}{name}" for name in ALL_COUNTERS)}

METRIC_MARK = "@metric@"
"""Stands for fleetmem's prefix, as it is in names of metrics."""

HOST = 'host="$host"'
HOSTS = 'host=~"$hosts"'
COMMAND = 'command="$command"'
PID = 'pid=~"$pid"'
NAMED = f'command!="{OTHER}"'
"""All but the sums of what has no series of its own: no real command has that label."""

COLLECTOR = 'collector="$collector"'

AT_END = " @ end()"


View = Callable[[str], str]


def samples(selector: str) -> str:
    """Returns the samples as they are."""
    return selector


def growth(selector: str) -> str:
    """Returns how far samples are above the lowest ones in the time range. What is new has not grown yet."""
    return f"({selector} - min_over_time({selector}[$__range] @ end()))"


def growth_at_end(selector: str) -> str:
    """Returns the same at the end of the time range."""
    return f"({selector}{AT_END} - min_over_time({selector}[$__range] @ end()))"


class Metrics:
    """The names of fleetmem's families in Prometheus."""

    def select(self, family: str, *matchers: str) -> str:
        """Returns the samples of a family whose labels match."""
        if family not in _FAMILIES:
            raise ValueError(f"no family is called {family}")
        return f"{metric_name(METRIC_MARK, family)}{{{','.join(matchers)}}}"

    def any_level(self, measure: str, *matchers: str) -> str:
        """Returns the samples of processes and those of commands."""
        families = "|".join(metric_name(METRIC_MARK, f"{level}_{measure}") for level in Detail)
        return "{" + ",".join([f'__name__=~"{families}"', *matchers]) + "}"

    def collector(self, measure: str) -> str:
        """Returns a measure of the collector that is chosen, or of its sinks."""
        return self.select(f"{COLLECTOR_FAMILY}{measure}", COLLECTOR)

    def by(self, labels: Sequence[str], measure: str, *matchers: str, view: View = samples) -> str:
        """Returns sums of a measure over processes, one per value of the labels.

        From the samples of commands where a host has any, else from those of processes: `--detail` decides which.

        Args:
            labels: that sums are made by.
            measure: that is added up.
            matchers: of labels.
            view: what is seen of each series.
        """
        commands, processes = self._levels(measure, matchers, view)
        return f"sum by ({', '.join(labels)}) ({commands} or ({processes} unless on (host) {commands}))"

    def each(self, labels: Sequence[str], measure: str, *matchers: str, pid: str = "", view: View = samples) -> str:
        """Returns the processes, by the labels; of a host that has none, its commands, with `*` as their pid.

        Where all commands are asked for, `other` is left out: it is no process.
        """
        if COMMAND not in matchers:
            matchers = (*matchers, NAMED)
        commands, processes = self._levels(measure, matchers, view, pid)
        pidless = f'label_replace({commands} unless on (host) {processes}, "pid", "*", "", "")'
        return f"sum by ({', '.join(labels)}) ({processes} or {pidless})"

    def _levels(self, measure: str, matchers: Sequence[str], view: View, pid: str = "") -> tuple[str, str]:
        process = self.select(f"process_{measure}", *matchers, *([pid] if pid else []))
        return view(self.select(f"command_{measure}", *matchers)), view(process)

    def processes(self, *matchers: str) -> str:
        """Returns how many processes a command has, those without series of their own left out."""
        commands = self.select("command_procs", *matchers)
        processes = self.select("process_rss_bytes", *matchers, 'pid!="0"')
        return f"sum({commands}) or count({processes})"

    def in_use(self, *matchers: str) -> str:
        """Returns the memory in use of each host, in bytes."""
        total, available = (self.select(f"host_mem_{what}_bytes", *matchers) for what in ("total", "available"))
        return f"sum by (host) ({total} - {available})"

    def growth_in_use(self, *matchers: str, at: str = "") -> str:
        """Returns how far each host's memory in use is above its lowest point: available below its highest one."""
        available = self.select("host_mem_available_bytes", *matchers)
        return f"sum by (host) (max_over_time({available}[$__range] @ end()) - {available}{at})"

    def in_use_percent(self, *matchers: str) -> str:
        """Returns the same in percent of the host's memory."""
        total, available = (self.select(f"host_mem_{what}_bytes", *matchers) for what in ("total", "available"))
        return f"sum by (host) (100 - 100 * {available} / {total})"

    def sum(self, family: str, *matchers: str) -> str:
        """Returns the sum of a family."""
        return f"sum({self.select(family, *matchers)})"


def highest(expression: str, number: int) -> str:
    """Returns the series with the highest peaks in the time range."""
    return f"{expression} and topk({number}, max_over_time(({expression})[$__range:$__interval] @ end()))"


def highest_now(expression: str, number: int) -> str:
    """Returns the series that are highest."""
    return f"topk({number}, {expression})"


def highest_at_end(expression: str, at_end: str, number: int) -> str:
    """Returns the series that are highest in the end, by what they are then."""
    return f"{expression} and topk({number}, {at_end})"


def rows(expression: str, number: int) -> list[str]:
    """Returns the series that are highest: their newest values, their peaks, and how they have changed."""
    newest = highest_now(expression, number)
    window = f"({expression})[$__range:$__interval]"
    return [newest, f"max_over_time({window}) and {newest}", f"delta({window}) and {newest}"]


def per_second(totals: str, *labels: str) -> str:
    """Returns how fast totals grow, added up by labels."""
    return f"sum by ({', '.join(labels)}) (rate({totals}[$__rate_interval]))"


def grown(totals: str) -> str:
    """Returns by how much totals have grown in the time range."""
    return f"sum(increase({totals}[$__range]))"


def percent_of_time(seconds: str) -> str:
    """Returns how fast a total of seconds grows, in percent of the time."""
    return f"100 * sum(rate({seconds}[$__rate_interval]))"


def grown_by_step(totals: str) -> str:
    """Returns by how much totals have grown in each step of the graph; in a short one, since the scrape before."""
    return f"sum(increase({totals}[$__rate_interval]))"
