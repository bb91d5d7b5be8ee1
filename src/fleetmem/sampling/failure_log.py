"""What is logged of hosts that fail: each change once."""

import logging
from collections.abc import Iterable

from fleetmem.errors import Kind, Stage
from fleetmem.model import Failure, Host, Outcome

log = logging.getLogger(__name__)


class FailureLog:
    """Logs what changes: a host's failure once until its kind changes, and its recovery."""

    def __init__(self) -> None:
        self._failing: dict[Host, tuple[Stage, Kind]] = {}
        self._failures: dict[Host, int] = {}

    def add(self, outcome: Outcome) -> None:
        """Takes the outcome of a host."""
        host = outcome.host
        if isinstance(outcome, Failure):
            self._failures[host] = self._failures.get(host, 0) + 1
            if self._failing.get(host) != (outcome.stage, outcome.kind):
                self._failing[host] = outcome.stage, outcome.kind
                facts = {"host": host.name, "stage": str(outcome.stage), "kind": str(outcome.kind)}
                log.warning("%s", outcome.message, extra=facts)
        elif self._failing.pop(host, None):
            log.info("answers again after %d failed cycles", self._failures.pop(host), extra={"host": host.name})

    def keep(self, hosts: Iterable[Host]) -> None:
        """Forgets all other hosts."""
        hosts = set(hosts)
        self._failing = {host: what for host, what in self._failing.items() if host in hosts}
        self._failures = {host: count for host, count in self._failures.items() if host in hosts}
