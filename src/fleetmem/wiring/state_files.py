"""The composition root's third part: the state folder of a configuration, and what is remembered there."""

import json
import logging
from pathlib import Path

from fleetmem.config import Settings
from fleetmem.errors import reason_of
from fleetmem.sinks.memory import MemorySpec, SeriesMemory, next_run
from fleetmem.state.folder import HeldError, StateFolder, default_base
from fleetmem.telemetry.selfstats import collector_id

log = logging.getLogger(__name__)

_FORGETS = "series that end while fleetmem is restarted may stay in StatsD"


def identity_of(path: Path | None, settings: Settings) -> str:
    """Returns what tells this collector from others on the machine: its configuration, or its hosts without one."""
    given = settings.inventory
    hosts = [] if path else [*given.hosts, *given.sources, given.limit or ""]
    return json.dumps([str(path.expanduser().resolve()) if path else "", *hosts])


def state_folder(settings: Settings, identity: str) -> StateFolder | None:
    """Returns the folder of a configuration, None where it is to have none.

    Raises:
        OSError: nobody knows where it should be.
    """
    wanted = settings.run.state_dir
    if str(wanted) == "none":
        return None
    base = wanted or settings.graphite.spool_dir or default_base()
    try:
        return StateFolder(base, collector_id(), f"{identity} {settings.inventory.shard or ''}")
    except RuntimeError as error:
        raise OSError(f"{base}: {error}; set run.state_dir") from error


def claim_memory(settings: Settings, identity: str, current: SeriesMemory | None) -> SeriesMemory | None:
    """Returns what remembers the series of the main process; the current one where the folder is the same.

    A folder that cannot be had costs what is remembered, nothing else. Blocks.
    """
    try:
        folder = state_folder(settings, identity)
    except OSError as error:
        log.warning("state: %s; %s", reason_of(error), _FORGETS)
        return None
    if folder is None:
        return None
    if current and current.spec.folder == folder.path:
        return current
    try:
        folder.claim()
    except HeldError as error:
        log.warning("state: %s; %s", error, _FORGETS)
        return None
    except OSError as error:
        log.warning("state: %s: %s; tried again while running", folder.path, reason_of(error))
    return SeriesMemory(MemorySpec(folder.path, next_run(folder.path)), folder)
