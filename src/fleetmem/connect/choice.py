"""Which connector there is to be: one for the process, chosen when it starts."""

import logging
from functools import lru_cache

from fleetmem.connect.asyncssh_private.self_check import find_fault
from fleetmem.connect.connector import Connector
from fleetmem.connect.plain import PlainConnector
from fleetmem.connect.ssh import asyncssh

log = logging.getLogger(__name__)


@lru_cache(maxsize=1)
def best_connector() -> Connector:
    """Returns the connector that goes with the asyncssh that is here; warns where that is not the usual one."""
    fault = find_fault()
    if fault is None:
        from fleetmem.connect.asyncssh_private.pipelined import PipelinedConnector  # here: it may not be importable

        return PipelinedConnector()
    log.warning(
        "asyncssh %s is not as fleetmem knows it (%s): hosts are sampled over plain connections, "
        "which cost more round trips, CPU and memory; install asyncssh>=2.22,<2.25",
        *(asyncssh.__version__, fault),
    )
    return PlainConnector()
