"""The inventory of a fleet: read at the start, and again while it runs, when each part that fails keeps its last hosts.

sources ──read side by side──> listings ──unite──> hosts ──limit, shard──> the fleet
"""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import NamedTuple

from fleetmem.errors import InventoryError, reason_of
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.patterns import select
from fleetmem.inventory.side_by_side import Call
from fleetmem.inventory.sources import NAMES, Source
from fleetmem.inventory.union import shared_addresses, unite
from fleetmem.model import Host
from fleetmem.rendezvous import shard_of
from fleetmem.runtime.pattern import Pattern

log = logging.getLogger(__name__)

LEAST_SHARE = 0.1
"""An inventory that has less than this of its hosts left, with one reading, is taken for broken."""


class Shard(NamedTuple):
    """The part of a fleet that is one collector's, of several that share it out with nothing to agree on.

    Attributes:
        number: which one, 0 for the first.
        shards: how many there are. Where it changes, only the share of a shard that comes or goes moves.
    """

    number: int
    shards: int


class InventoryStats(NamedTuple):
    """Values of counters; `telemetry.counters` says what each means."""

    inventory_hosts: int = 0
    inventory_failures_total: int = 0
    inventory_stale: int = 0
    inventory_entries_left_out: int = 0


class Inventory:
    """The hosts of some sources. Blocks while it reads: call it from a thread of its own where that matters.

    Args:
        sources: in order.
        limit: pattern of the hosts that are wanted, None for all.
        means: what sources are read with.
        before: an inventory that this one takes the place of; its counters go on.
        shard: of these hosts those that are ours, None for all.

    Attributes:
        sources: in order.
        means: what reading them needs.
        hosts: of the last reading.
        all_hosts: of the last reading, with those that the limit leaves out and other shards have.
        left_out: entries of the last reading that are no hosts: where each one stands, and why.
        host_names: of the last reading, with those of other shards: names need the same hashes in all collectors.
    """

    def __init__(
        self,
        sources: Iterable[Source],
        limit: str | None = None,
        means: Means | None = None,
        before: "Inventory | None" = None,
        shard: Shard | None = None,
    ) -> None:
        self.sources = tuple(sources)
        self.hosts: list[Host] = []
        self.all_hosts: list[Host] = []
        self.host_names: list[str] = []
        self._limit = limit
        self._shard = shard
        self.means = means or Means()
        self._listings: dict[Source, Listing] = {}
        self._problems: dict[object, str] = {}
        self._logged: set[str] = set()
        self.left_out: tuple[str, ...] = ()
        self._calls: dict[Source, Call[Listing]] = {}
        self._failures_total = before.stats.inventory_failures_total if before else 0

    @property
    def can_change(self) -> bool:
        """Whether reading it again may give other hosts."""
        return any(source.can_change for source in self.sources)

    @property
    def typed(self) -> set[str]:
        """Names of hosts that are named one by one, with `-i`."""
        return {host.name for source, found in self._listings.items() if source.kind == NAMES for host in found.hosts}

    @property
    def ssh_configs(self) -> set[str]:
        """The ssh configurations by which hosts are to be reached, where an inventory names one."""
        return {listing.ssh_config for listing in self._listings.values() if listing.ssh_config}

    @property
    def stats(self) -> InventoryStats:
        """Counters."""
        return InventoryStats(len(self.hosts), self._failures_total, len(self._problems), len(self.left_out))

    def read(self) -> list[Host]:
        """Returns the hosts of all sources.

        Raises:
            InventoryError: a source cannot be read, two contradict each other, the limit is wrong, or there is no host.
        """
        answers = self._read(self.sources)
        for answer in answers.values():
            if isinstance(answer, InventoryError):
                raise answer
        self._listings = {source: answer for source, answer in answers.items() if isinstance(answer, Listing)}
        self.hosts = self._choose(self._listings, is_refresh=False)
        return self.hosts

    def refresh(self) -> bool:
        """Reads again what can change; returns whether a host came, went or changed. Whatever fails is as it was."""
        answers = self._read([source for source in self.sources if source.can_change])
        for source, answer in answers.items():
            problem = self._problem_of(source, answer)
            self._note(source, problem)
            if problem is None and isinstance(answer, Listing):
                self._listings[source] = answer
        try:
            hosts = self._choose({source: self._listings[source] for source in self.sources}, is_refresh=True)
        except InventoryError as error:
            self._note(None, str(error))
            return False
        self._note(None, None)
        is_changed = _everything(hosts) != _everything(self.hosts)
        self.hosts = hosts
        return is_changed

    def close(self) -> None:
        """Ends programs that still run."""
        self.means.programs.kill()

    def _read(self, sources: Iterable[Source]) -> dict[Source, Listing | InventoryError]:
        """Reads sources side by side. One that still hangs from the time before is not asked again."""
        for source in sources:
            if source not in self._calls:
                self._calls[source] = Call(partial(source.read, self.means))
        until = time.monotonic() + self.means.timeout_seconds + _GRACE_SECONDS
        try:
            return {source: self._answer(source, until) for source in sources}
        except KeyboardInterrupt:  # a program in a group of its own knows nothing of it
            self.close()
            raise

    def _answer(self, source: Source, until: float) -> Listing | InventoryError:
        if not self._calls[source].wait(until):
            return InventoryError(f"{source}: no answer within {self.means.timeout_seconds:g} s")
        try:
            return self._calls.pop(source).result()
        except InventoryError as error:
            return error
        except OSError as error:  # no thread; what a source meets it tells as an InventoryError
            return InventoryError(f"{source}: {reason_of(error)}")

    def _problem_of(self, source: Source, answer: Listing | InventoryError) -> str | None:
        if isinstance(answer, InventoryError):
            return str(answer)
        left, before = (_good_hosts(source, listing) for listing in (answer, self._listings[source]))
        if left < before * LEAST_SHARE:
            return f"{source}: {left or 'none'} of {before} hosts is left; SIGHUP takes that as it is"
        return None

    def _choose(self, listings: Mapping[Source, Listing], *, is_refresh: bool) -> list[Host]:
        left_out = [line for listing in listings.values() for line in listing.left_out]
        named = ((str(source), listing.hosts) for source, listing in listings.items())
        hosts = unite(named, left_out, may_contradict=is_refresh)
        if not hosts:
            raise InventoryError(_no_hosts(listings, left_out))
        self.left_out = tuple(left_out)
        chosen = hosts if self._limit is None else select(self._limit, hosts, Pattern)
        if not chosen:
            raise InventoryError(f"limit {self._limit!r} matches none of {len(hosts)} hosts")
        share = self._share(chosen)
        self.host_names, self.all_hosts = [host.name for host in chosen], hosts
        self._log_lines(listings, [*left_out_lines(self.left_out, _LINES_LOGGED), *shared_addresses(chosen)])
        return share

    def _share(self, hosts: list[Host]) -> list[Host]:
        if self._shard is None:
            return hosts
        number, shards = self._shard
        share = [host for host in hosts if shard_of(host.name, shards) == number]
        if not share:
            raise InventoryError(f"shard {number}/{shards} has none of {len(hosts)} hosts: use fewer shards")
        return share

    def _note(self, source: Source | None, problem: str | None) -> None:
        """Logs what changes: a problem once until it is another one, and its end. Source None is all together."""
        if problem is not None:
            self._failures_total += 1
            if self._problems.get(source) != problem:
                log.warning("inventory: %s; the hosts that it had stay", problem)
            self._problems[source] = problem
        elif self._problems.pop(source, None):
            log.info("inventory: %s can be read again", source or "all")

    def _log_lines(self, listings: Mapping[Source, Listing], lines: Iterable[str]) -> None:
        """Logs what people should know of the inventories, each line once while it holds."""
        remarks = (f" {source}: {remark}" for source, listing in listings.items() for remark in listing.remarks)
        now = dict.fromkeys((*remarks, *(f": {line}" for line in lines)))
        for line in now:
            if line not in self._logged:
                log.warning("inventory%s", line)
        self._logged = set(now)


def _good_hosts(source: Source, listing: Listing) -> int:
    """Returns how many hosts an inventory has that it does not contradict itself about."""
    return len(unite([(str(source), listing.hosts)], [], may_contradict=True)) if source.can_change else 0


def left_out_lines(left_out: Sequence[str], limit: int) -> list[str]:
    """Returns a line for each entry that is left out, up to a limit, and one for the rest."""
    lines = [f"left out: {reason}" for reason in left_out[:limit]]
    rest = len(left_out) - limit
    return [*lines, f"left out: {rest} more entries"] if rest > 0 else lines


def _no_hosts(listings: Mapping[Source, Listing], left_out: Sequence[str]) -> str:
    if not listings:
        return _NO_HOSTS
    reasons = left_out_lines(left_out, _REASONS_SHOWN)
    return "; ".join([f"no hosts in {', '.join(map(str, listings))}", *reasons])


_LINES_LOGGED = 100
_REASONS_SHOWN = 3
_GRACE_SECONDS = 2.0  # what has a limit of its own tells better what was too slow
_NO_HOSTS = (
    "no hosts: give -i HOST,HOST or -i @FILE or --inventory KIND:ARGUMENT, "
    "or set inventory.hosts or inventory.sources in the configuration"
)


def _everything(hosts: Iterable[Host]) -> list[object]:
    """Returns hosts with what equality leaves out."""
    return [(host, host.groups, dict(host.labels)) for host in hosts]
