"""What a page of metrics says of fleetmem itself: its counters, its build, and its processes."""

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from fleetmem.model import CollectorStats, DeclaredCounter
from fleetmem.runtime.usage import ProcessState, state_of
from fleetmem.sinks.pages.exposition import COLLECTOR_FAMILY, metric_name
from fleetmem.sinks.pages.http_request import Refusal

if TYPE_CHECKING:
    from fleetmem.sinks.pages.web_guard import WebGuardFiles

_BUILD_INFO = "build_info"
_WEB_CONFIG = "web_config_last_reload_successful"
_REFUSED = "web_requests_refused_total"

# Names and meanings are those of Prometheus' client libraries; the values come from /proc without /proc/stat, which the
# systemd units hide, and of all processes.
_PROCESS_METRICS = {
    "process_cpu_seconds_total": ("counter", "Total user and system CPU time spent in seconds."),
    "process_resident_memory_bytes": ("gauge", "Resident memory size in bytes."),
    "process_virtual_memory_bytes": ("gauge", "Virtual memory size in bytes."),
    "process_start_time_seconds": ("gauge", "Start time of the process since unix epoch in seconds."),
    "process_open_fds": ("gauge", "Number of open file descriptors."),
    "process_max_fds": ("gauge", "Maximum number of open file descriptors."),
}
"""In the order of the fields of `ProcessState`."""


class OwnMetrics(Collector):
    """What there is to say at one moment, for prometheus_client to write. Never changes.

    Args:
        prefix: of metric names.
        declared: what each counter is, by name.
        build: labels of `build_info`; none where there are none.
        guard: who is let in to the page; None for everybody.
        stats: the counters; None before the first cycle.
    """

    def __init__(
        self,
        prefix: str,
        declared: Mapping[str, DeclaredCounter],
        build: Mapping[str, str],
        guard: "WebGuardFiles | None",
        stats: CollectorStats | None,
    ) -> None:
        self._metrics = [
            *(_counters(prefix, declared, stats) if stats else ()),
            *_build_info(prefix, build),
            *(_web_access(prefix, guard) if guard else ()),
            *_processes(stats.worker_pids if stats else ()),
        ]
        self.series = sum(len(metric.samples) for metric in self._metrics)

    def text(self) -> bytes:
        """Returns them in the text format."""
        registry = CollectorRegistry()
        registry.register(self)
        return generate_latest(registry)

    def collect(self) -> Iterator[Metric]:
        """Yields each metric with its samples."""
        yield from self._metrics


def _counters(prefix: str, declared: Mapping[str, DeclaredCounter], stats: CollectorStats) -> list[Metric]:
    """Returns a metric per measure, with the collector, and the sink that it is about, as labels.

    What has a name with a label has its own name, too: an old one. A sum of such counters has no name, as PromQL adds
    them up.
    """
    labelled = {each.labelled.name for each in declared.values() if each.labelled}
    metrics: dict[str, Metric] = {}
    for counter in stats.counters:
        is_sum = not counter.sink and counter.measure in labelled
        of, labels = declared[counter.measure], {"collector": stats.collector}
        labels |= {"sink": counter.sink} if counter.sink else {}
        if of.labelled:
            name, label, value = of.labelled
            metric = _metric(metrics, prefix, declared[name], _by_label(declared[name], label))
            metric.add_sample(_family(prefix, name), labels | {label: value}, counter.value)
        if not is_sum:
            meaning = f"{_old_name(of)}{of.meaning}"
            metric = _metric(metrics, prefix, of, meaning)
            metric.add_sample(_family(prefix, counter.measure), labels, counter.value)
    return list(metrics.values())


def _family(prefix: str, measure: str) -> str:
    return metric_name(prefix, f"{COLLECTOR_FAMILY}{measure}")


def _by_label(of: DeclaredCounter, label: str) -> str:
    return f"{of.meaning.removesuffix('.')}, by {label}."


def _old_name(of: DeclaredCounter) -> str:
    if not of.labelled:
        return ""
    name, label, value = of.labelled
    return f'Old name, which goes with the next release: use {COLLECTOR_FAMILY}{name}{{{label}="{value}"}}. '


def _metric(metrics: dict[str, Metric], prefix: str, of: DeclaredCounter, meaning: str) -> Metric:
    name = _family(prefix, of.name)
    if name not in metrics:
        metrics[name] = Metric(name.removesuffix("_total"), meaning, of.kind)
    return metrics[name]


def _build_info(prefix: str, build: Mapping[str, str]) -> Iterator[Metric]:
    if build:
        name = metric_name(prefix, _BUILD_INFO)
        metric = Metric(name, "1; the labels are the versions of fleetmem and of what it runs on.", "gauge")
        metric.add_sample(name, dict(build), 1)
        yield metric


def _web_access(prefix: str, guard: "WebGuardFiles") -> Iterator[Metric]:
    name = metric_name(prefix, _WEB_CONFIG)
    meaning = "1 when what the files of prometheus.web_config say is in force, 0 when an earlier state of them is."
    metric = Metric(name, meaning, "gauge")
    metric.add_sample(name, {}, int(guard.is_latest))
    yield metric
    name = metric_name(prefix, _REFUSED)
    meaning = "Clients of this page that were refused, by reason."
    metric = Metric(name.removesuffix("_total"), meaning, "counter")
    for reason in Refusal:
        metric.add_sample(name, {"reason": reason.value}, guard.refused[reason])
    yield metric


def _processes(worker_pids: Iterable[int | None]) -> list[Metric]:
    """Returns the standard metrics of this process, and those of its workers with a label; none without /proc."""
    metrics = [Metric(name.removesuffix("_total"), text, kind) for name, (kind, text) in _PROCESS_METRICS.items()]
    states: list[tuple[dict[str, str], ProcessState | None]] = [({}, _state("self"))]
    states += [({"worker": str(number)}, _state(pid)) for number, pid in enumerate(worker_pids, 1)]
    for labels, state in states:
        for metric, name, value in zip(metrics, _PROCESS_METRICS, state or (), strict=False):
            metric.add_sample(name, labels, value)
    return [metric for metric in metrics if metric.samples]


def _state(process: int | str | None) -> ProcessState | None:
    try:
        return None if process is None else state_of(process)
    except OSError:  # a worker that has just ended; macOS
        return None
