from fleetmem.runtime import stop_budget as budget
from fleetmem.sinks.queue.pace import CATCH_UP_SECONDS

_LOOP_SECONDS = 0.1  # for the event loop to get from one step to the next


def test_an_orderly_stop_comes_before_the_last_resort() -> None:
    """Each way from SIGTERM to the end of the process fits, with a moment for the event loop."""
    sinks = budget.DRAIN_SECONDS + budget.CLOSE_SECONDS
    memory = budget.MEMORY_DRAIN_SECONDS + budget.MEMORY_CLOSE_SECONDS
    for way in (sinks, memory, budget.DISCONNECT_SECONDS, budget.WORKERS_END_SECONDS):
        assert way + _LOOP_SECONDS <= budget.LAST_RESORT_SECONDS + 1e-9
    assert budget.LAST_RESORT_SECONDS < budget.PROMISED_SECONDS


def test_steps_have_the_time_that_they_take() -> None:
    """A backlog for StatsD is cleared while sinks drain, also a worker's; what closes a file waits for its archive."""
    assert CATCH_UP_SECONDS + _LOOP_SECONDS <= budget.DRAIN_SECONDS
    assert budget.DRAIN_SECONDS + _LOOP_SECONDS <= budget.WORKERS_END_SECONDS
    assert budget.ARCHIVE_SECONDS + _LOOP_SECONDS <= budget.CLOSE_SECONDS + 1e-9
    assert budget.WORKERS_STOP_SECONDS < budget.DRAIN_SECONDS
