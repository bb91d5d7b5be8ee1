"""fleetmem from Python: one cycle, or one after the other. It needs no terminal, no signal and no configuration file.

cycle = await fleetmem.collect("web[01-50]", user="ubuntu")

async with fleetmem.Fleet("@hosts.txt", user="ubuntu", interval=10) as fleet:
async for cycle in fleet.cycles():
for sample in cycle.samples:
print(sample.host.name, sample.shaped.memory.available_bytes)
"""

import asyncio
import math
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from fleetmem.config import Settings, load
from fleetmem.errors import FleetmemError, SinkError
from fleetmem.model import Failure, Host, Outcome, Sample
from fleetmem.runtime.event_loop import raise_file_limit
from fleetmem.sampling.once import sample_once
from fleetmem.sampling.sampler import Sampler
from fleetmem.sampling.schedule import Grid
from fleetmem.wiring.fleet import FleetParts, assemble, prepare
from fleetmem.wiring.fleet_spec import fleet_spec, read_inventory
from fleetmem.wiring.reading import READ_SECONDS, read_aside

__all__ = ["Cycle", "Failure", "Fleet", "FleetmemError", "Host", "Outcome", "Sample", "collect"]

_KEPT_CYCLES = 8
_POLLS_IN_AN_INTERVAL = 20
_LONGEST_POLL_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class Cycle:
    """One round over all hosts.

    Attributes:
        begun_unix_seconds: the begin of its interval; of `collect`, when it was called.
        outcomes: one for each host that has one, in the order in which they came.
        missed: hosts whose slot was missed: they have no outcome in this cycle.
        problems: what is wrong with the sinks.
    """

    begun_unix_seconds: float
    outcomes: tuple[Outcome, ...]
    missed: int = 0
    problems: tuple[SinkError, ...] = ()

    @property
    def samples(self) -> list[Sample]:
        """Of the hosts that answered."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Sample)]

    @property
    def failures(self) -> list[Failure]:
        """Of the hosts that did not answer."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Failure)]


async def collect(
    hosts: str | Sequence[str] = (),
    *,
    user: str | None = None,
    key: str | Path | None = None,
    statsd: str | Sequence[str] = (),
    graphite: str | None = None,
    config: str | Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> Cycle:
    """Samples every host once, sends all of it to the sinks that are given, and disconnects.

    Args:
        hosts: as after `-i`: `user@host:port`, `web[01-50]`, `@hosts.txt`.
        user: login name.
        key: file of a private key.
        statsd: servers, as after `-g`.
        graphite: carbon's address, as after `--graphite`.
        config: TOML file; none is read where it is not given.
        settings: more of the configuration, nested as the file is: `{"shape": {"top": 20}}`.

    Raises:
        UsageError: hosts, keys or settings cannot be used.
    """
    given = _settings(hosts, user, key, statsd, graphite, None, config, settings)
    fleet = await _fleet(given.for_one_cycle())
    begun_unix_seconds, outcomes = time.time(), list[Outcome]()
    at_once = raise_file_limit(len(fleet.hosts), fleet.files)
    problems = await sample_once(fleet, at_once, _do_nothing, outcomes.append)
    return Cycle(begun_unix_seconds, tuple(outcomes), problems=tuple(problems))


class Fleet:
    """Hosts that are sampled every interval, from `async with` on until its end. The arguments are those of `collect`.

    Args:
        interval: seconds between two samples of a host.

    Attributes:
        skipped_cycles: those that nobody took in time. The newest few are kept.
    """

    def __init__(
        self,
        hosts: str | Sequence[str] = (),
        *,
        user: str | None = None,
        key: str | Path | None = None,
        statsd: str | Sequence[str] = (),
        graphite: str | None = None,
        interval: float | None = None,
        config: str | Path | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.skipped_cycles = 0
        self._settings = _settings(hosts, user, key, statsd, graphite, interval, config, settings)
        self._interval_seconds = self._settings.run.interval_seconds
        self._outcomes: dict[int, list[Outcome]] = defaultdict(list)
        self._next: int | None = None
        self._sampler: Sampler | None = None
        self._sampling: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Reads what hosts, keys and settings say, and begins to sample.

        Raises:
            UsageError: they cannot be used.
            SinkError: the spool of a sink cannot be used.
        """
        fleet = await _fleet(self._settings)
        raise_file_limit(len(fleet.hosts), fleet.files, "only {fits} hosts can be connected, the others will fail")
        self._sampler = Sampler(fleet, Grid.of(self._interval_seconds, fleet.hosts), self._add)
        self._sampling = asyncio.create_task(self._sampler.run())
        return self

    async def __aexit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Delivers what is queued, and disconnects: within 5 s."""
        if self._sampler and self._sampling:
            await self._sampler.stop()
            await self._sampling

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All of them; none before `async with`."""
        return self._sampler.fleet.hosts if self._sampler else ()

    async def cycles(self) -> AsyncIterator[Cycle]:
        """Yields each cycle once every host has its outcome in it, or its slot is over.

        Raises:
            RuntimeError: called outside of `async with`.
        """
        sampler, sampling = self._sampler, self._sampling
        if sampler is None or sampling is None:
            raise RuntimeError("cycles() is for the inside of `async with Fleet(...) as fleet`")
        if self._next is None:
            self._next = math.floor(time.time() / self._interval_seconds)
        wait_seconds = min(_LONGEST_POLL_SECONDS, self._interval_seconds / _POLLS_IN_AN_INTERVAL)
        while not sampling.done():
            if sampler.is_sampling and sampler.open_from > self._next:
                cycle = self._take(sampler)
                if cycle.outcomes or cycle.missed:  # the first one may have been nearly over
                    yield cycle
            else:
                await asyncio.wait([sampling], timeout=wait_seconds)
        await sampling  # a bug surfaces here

    def _add(self, outcome: Outcome) -> None:
        cycle = math.floor(outcome.slot_unix_seconds / self._interval_seconds + 1e-6)
        self._outcomes[cycle if self._next is None else max(cycle, self._next)].append(outcome)
        while len(self._outcomes) > _KEPT_CYCLES:
            oldest = min(self._outcomes)
            del self._outcomes[oldest]
            self.skipped_cycles += 1
            self._next = oldest + 1 if self._next is None else max(self._next, oldest + 1)

    def _take(self, sampler: Sampler) -> Cycle:
        number = self._next or 0
        self._next = number + 1
        missed = sum(stats.missed for stats in sampler.report(number).cycles.values())
        return Cycle(number * self._interval_seconds, tuple(self._outcomes.pop(number, ())), missed)


def _settings(
    hosts: str | Sequence[str],
    user: str | None,
    key: str | Path | None,
    statsd: str | Sequence[str],
    graphite: str | None,
    interval: float | None,
    config: str | Path | None,
    settings: Mapping[str, Any] | None,
) -> Settings:
    given: dict[tuple[str, str], Any] = {
        ("inventory", "hosts"): _listed(hosts),
        ("ssh", "user"): user,
        ("ssh", "key"): [key] if key else None,
        ("statsd", "server"): _listed(statsd),
        ("graphite", "server"): graphite,
        ("run", "interval_seconds"): interval,
    }
    nested = {name: dict(value) if isinstance(value, Mapping) else value for name, value in (settings or {}).items()}
    for (section, name), value in given.items():
        if value:
            nested.setdefault(section, {})[name] = value
    return load(Path(config) if config else None, nested)


def _listed(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else [*value]


async def _fleet(settings: Settings) -> FleetParts:
    """Returns the objects of a configuration; files and inventories are read beside the event loop."""
    seconds = settings.inventory.timeout_seconds + READ_SECONDS
    inventory = await read_aside(lambda: read_inventory(settings), "inventory", seconds)
    spec = fleet_spec(settings, inventory)
    return assemble(await read_aside(lambda: prepare(spec, _ask_nobody), "fleet", seconds), None, inventory)


def _ask_nobody(_path: Path) -> None:
    """Stands in for a person who types a passphrase."""


def _do_nothing(_host: Host) -> None:
    """Hears that a host's turn has come."""
