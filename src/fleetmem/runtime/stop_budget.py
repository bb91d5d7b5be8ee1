"""Where the 5 s go in which `run` stops: all times that must add up.

    SIGTERM ──> workers sample no more ──> sinks drain ──────────────> sinks close ──> end
                (comes out of the drain)   hosts are disconnected meanwhile            │ last resort: the process ends

`tests/unit/runtime/test_stop_budget.py` adds them up.
"""

PROMISED_SECONDS = 5.0
"""From SIGTERM to the end of the process, whatever hangs."""

LAST_RESORT_SECONDS = 4.9
"""From SIGTERM until the process is ended where an orderly stop has not come to its end."""

LAST_LINE_SECONDS = 0.5
"""For the alarm to end the process, where the thread of the last resort is already writing its line."""

WORKERS_STOP_SECONDS = 0.5
"""For workers to sample no more, so that sinks of the main process get all that they have sampled."""

WORKERS_END_SECONDS = 4.6
"""From the begin of the stop until workers that still run are killed."""

DRAIN_SECONDS = 4.2
"""For a sink to deliver what waits; a backlog for StatsD is cleared in `pace.CATCH_UP_SECONDS`."""

CLOSE_SECONDS = 0.6
"""For a sink to let go of what it has on disk, after it has drained."""

ARCHIVE_SECONDS = 0.5
"""Of these, for a rotated file that is being compressed."""

MEMORY_DRAIN_SECONDS = 2.0
"""For the names of series to be written, beside the sinks."""

MEMORY_CLOSE_SECONDS = 0.5
"""For what came last of them."""

DISCONNECT_SECONDS = 4.0
"""For all connections to end, beside the sinks."""
