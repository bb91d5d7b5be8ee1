"""fleetmem: which process, on which host, is using the memory, now and over time.

Agentless: it logs in over SSH, in parallel, reads the process table and ships RSS, VSZ and memory percent of every
process to StatsD and Graphite. The main path is `collector.py`; the folders follow the data flow.

From Python: `await fleetmem.collect(...)` is one cycle, `fleetmem.Fleet(...)` one after the other. See `fleetmem.api`.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fleetmem.api import Cycle, Fleet, collect
    from fleetmem.errors import FleetmemError
    from fleetmem.model import Failure, Host, Outcome, Sample

__all__ = ["Cycle", "Failure", "Fleet", "FleetmemError", "Host", "Outcome", "Sample", "collect"]


def __getattr__(name: str) -> Any:
    """Returns a public name. It is imported only then: a command that needs none of them does without."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from fleetmem import api

    return getattr(api, name)
