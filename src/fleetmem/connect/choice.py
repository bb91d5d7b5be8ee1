"""Which connector there is to be: one for the process, chosen when it starts."""

import logging
from functools import lru_cache

from fleetmem.connect.asyncssh_private.self_check import find_fault
from fleetmem.connect.connector import Connector
from fleetmem.connect.plain import PlainConnector
from fleetmem.connect.ssh import asyncssh

log = logging.getLogger(__name__)


TRIED = "asyncssh>=2.22,<2.25"
"""The releases that fleetmem was tried with, as pip takes it."""


def fault_of_asyncssh() -> str | None:
    """Returns what of the asyncssh that is here is not as fleetmem knows it, with its version; None where all is."""
    fault = find_fault()
    return None if fault is None else f"asyncssh {asyncssh.__version__} is not as fleetmem knows it ({fault})"


@lru_cache(maxsize=1)
def best_connector() -> Connector:
    """Returns the connector that goes with the asyncssh that is here; warns where that is not the usual one."""
    fault = fault_of_asyncssh()
    if fault is None:
        from fleetmem.connect.asyncssh_private.pipelined import PipelinedConnector  # here: it may not be importable

        return PipelinedConnector()
    log.warning(
        "%s: hosts are sampled over plain connections, which cost more round trips, CPU and memory; install %s",
        *(fault, TRIED),
    )
    return PlainConnector()
