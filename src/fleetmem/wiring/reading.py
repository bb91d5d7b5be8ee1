"""Readings beside the event loop: a disk, a program or a name server that hangs holds up no host that is sampled."""

import logging
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from fleetmem.connect.keys import AskPassphrase
from fleetmem.errors import FleetmemError, UsageError, reason_of
from fleetmem.runtime.side_thread import call_aside
from fleetmem.wiring.fleet import FleetParts, Prepared, prepare
from fleetmem.wiring.fleet_spec import FleetSpec

log = logging.getLogger(__name__)

READ_SECONDS = 30.0
"""Limit of one reading. Each file has a limit of its own, which is shorter and names the file."""

PREPARING = "keys, known hosts, ssh configuration and outputs"
"""What `prepare_aside` reads, and the name of the thread that does it."""

_HOST_SECONDS = 0.2  # more for each host: `Match exec` runs a program for it

_T = TypeVar("_T")


async def read_aside(
    work: Callable[[], _T],
    what: str,
    limit_seconds: float | None = None,
    discard: Callable[[_T], None] | None = None,
) -> _T:
    """Returns the result of a reading that blocks, while the event loop goes on.

    Args:
        work: the reading.
        what: is read, for messages.
        limit_seconds: how long the caller waits; None is `READ_SECONDS`.
        discard: closes a result that comes too late.

    Raises:
        UsageError: the reading takes longer than the limit, no thread can be started for it, or it meets a bug. The bug
            is logged with its traceback: who reads again keeps what there is.
    """
    try:
        return await call_aside(work, name=what, limit_seconds=limit_seconds or READ_SECONDS, discard=discard)
    except TimeoutError as error:
        raise UsageError(str(error)) from error
    except OSError as error:
        raise UsageError(f"{what}: {reason_of(error)}") from error
    except FleetmemError:
        raise
    except Exception as error:
        log.exception("%s: a bug in fleetmem", what)
        raise UsageError(f"{what}: a bug in fleetmem: {type(error).__name__}: {error}") from error


async def prepare_aside(spec: FleetSpec, ask_passphrase: AskPassphrase, current: FleetParts) -> Prepared:
    """Returns what a fleet takes from files and ports, for `assemble`; it is read while the event loop goes on.

    Raises:
        UsageError: something cannot be used, or the reading takes too long.
        SinkError: the spool of a sink cannot be used.
    """
    limit_seconds = READ_SECONDS + _HOST_SECONDS * len(spec.hosts)
    return await read_aside(partial(prepare, spec, ask_passphrase, current), PREPARING, limit_seconds, Prepared.close)
