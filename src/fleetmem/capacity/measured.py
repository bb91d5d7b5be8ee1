"""What things cost, measured: each figure with the page that has all of it, and the command that repeats it.

Figures are of one core of the machine that the pages describe. Yours is another one: repeat what matters.
"""

from typing import NamedTuple


class Measured(NamedTuple):
    """A measured figure.

    Attributes:
        value: in `unit`.
        unit: of the value.
        meaning: what it is.
        page: of the documentation, below `docs/`.
        command: that measures it.
    """

    value: float
    unit: str
    meaning: str
    page: str
    command: str

    @property
    def text(self) -> str:
        """The value as people read it."""
        if self.unit == _SECONDS:
            return f"{self.value * 1e6:g} us of CPU"
        return f"{self.value:,.10g} bytes" if self.unit == _BYTES else f"{self.value:g} {self.unit}"


_SECONDS, _BYTES = "s of CPU", "bytes"
_CURVES = "reference/benchmarks.md#10000-hosts", 'make bench-scale SCALE="--curves --cycles 3 --faulty 0"'
_PEERS = "reference/benchmarks.md#beside-what-people-use-instead", "make bench-peers"
_BYTES_OF_HOSTS = "how-to/capacity.md#bytes-from-hosts", "fleetmem lab simulate --hosts 100 --churn 0.1"
_SINKS = "how-to/capacity.md#what-the-figures-come-from", "python bench/sink_costs.py"

COLLECTOR_CORES = Measured(0.055, "cores", "run, before the first host", *_CURVES)
SAMPLE_SECONDS = Measured(0.24e-3, _SECONDS, "a sample: SSH, event loop, the host's own series", *_CURVES)
PROCESS_SECONDS = Measured(0.8e-6, _SECONDS, "each process in a sample, to StatsD", *_CURVES)
COLLECTOR_BYTES = Measured(74e6, _BYTES, "memory of run, before the first host", *_CURVES)
HOST_BYTES = Measured(29e3, _BYTES, "memory for a host: its connection above all", *_CURVES)
PROCESS_BYTES = Measured(170.0, _BYTES, "memory for each process of a host", *_CURVES)

FRAME_BYTES = Measured(300.0, _BYTES, "an answer without its processes, as SSH carries it", *_PEERS)
ROW_BYTES = Measured(36.0, _BYTES, "each process in an answer of protocol 1", *_PEERS)
CHANGED_BYTES = Measured(3.8, _BYTES, "each process in an answer with changes, a tenth of them", *_BYTES_OF_HOSTS)
ALL_BYTES = Measured(61.0, _BYTES, "each process in an answer of protocol 2 with everything", *_BYTES_OF_HOSTS)
HOST_SAMPLE_SECONDS = Measured(0.3e-3, _SECONDS, "a sample, on the host", *_PEERS)
HOST_PROCESS_SECONDS = Measured(13e-6, _SECONDS, "each process in a sample, on the host", *_PEERS)

GRAPHITE_PROCESS_SECONDS = Measured(0.6e-6, _SECONDS, "each process, as lines for carbon", *_SINKS)
JSON_PROCESS_SECONDS = Measured(1.8e-6, _SECONDS, "each process, as JSON", *_SINKS)
CSV_PROCESS_SECONDS = Measured(5.1e-6, _SECONDS, "each process, as CSV", *_SINKS)
PAGE_PROCESS_SECONDS = Measured(1.2e-6, _SECONDS, "each process on Prometheus' page, at each scrape", *_SINKS)
PAGE_PROCESS_BYTES = Measured(620.0, _BYTES, "memory for each process that Prometheus' page shows", *_SINKS)

ALL = (
    COLLECTOR_CORES,
    SAMPLE_SECONDS,
    PROCESS_SECONDS,
    COLLECTOR_BYTES,
    HOST_BYTES,
    PROCESS_BYTES,
    FRAME_BYTES,
    ROW_BYTES,
    CHANGED_BYTES,
    ALL_BYTES,
    HOST_SAMPLE_SECONDS,
    HOST_PROCESS_SECONDS,
    GRAPHITE_PROCESS_SECONDS,
    JSON_PROCESS_SECONDS,
    CSV_PROCESS_SECONDS,
    PAGE_PROCESS_SECONDS,
    PAGE_PROCESS_BYTES,
)
"""In the order of the document that lists them."""


def markdown_table() -> str:
    """Returns all figures, for the documentation."""
    rows = [f"| {each.meaning} | {each.text} | [`{each.command}`](../{each.page}) |" for each in ALL]
    return "\n".join(["| what | value | measured by |", "|---|---|---|", *rows])
