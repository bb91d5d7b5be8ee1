"""What a fleet is built from: its inventory, read, and the configuration. No key is read, nothing is connected."""

from dataclasses import dataclass, replace
from pathlib import Path

from fleetmem.config import Settings, split_shard
from fleetmem.connect.ssh_settings import ReachSettings
from fleetmem.errors import ConfigError
from fleetmem.inventory.inventory import Inventory
from fleetmem.inventory.listing import Means
from fleetmem.inventory.programs import Programs
from fleetmem.inventory.sources import parse_sources
from fleetmem.model import Host
from fleetmem.rendezvous import shard_of
from fleetmem.sinks.memory import MemorySpec
from fleetmem.sinks.naming import FleetNames, make_tags
from fleetmem.wiring.host_settings import OverrideMatches, match_overrides

_NO_MATCHES = OverrideMatches()


@dataclass(frozen=True, slots=True)
class FleetSpec:
    """What a fleet is built from: plain and picklable.

    Attributes:
        settings: the configuration.
        hosts: the fleet's.
        host_names: theirs, and those of all hosts that others sample: so names get the same hashes everywhere.
        reach: how to get at the hosts.
        max_series: see `shape.max_series`; of a worker, its part.
        senders: processes that send to the same StatsD servers.
        identity: of the collector, for its state folder; None for one that remembers nothing.
        state: where names of series are kept; known once that is prepared.
        matches: which hosts the overrides match.
    """

    settings: Settings
    hosts: tuple[Host, ...]
    host_names: tuple[str, ...]
    reach: ReachSettings
    max_series: int
    senders: int = 1
    identity: str | None = None
    state: MemorySpec | None = None
    matches: OverrideMatches = _NO_MATCHES

    def shares(self, workers: int) -> "list[FleetSpec]":
        """Returns the parts of so many worker processes: hosts, and what is limited for the whole fleet.

        Hosts go by another key than with `inventory.shard`: two workers of shard 0/2 would have all and none.
        """
        hosts: list[list[Host]] = [[] for _ in range(workers)]
        for host in self.hosts:
            hosts[shard_of(f"worker {host.name}", workers)].append(host)
        settings, reach = self.settings.for_worker(), replace(self.reach, limits=self.reach.limits.share(workers))
        return [
            FleetSpec(
                settings,
                tuple(its_hosts),
                self.host_names,
                reach,
                max_series=self.max_series * len(its_hosts) // len(self.hosts),
                senders=workers,
                state=self.state._replace(process=number, processes=workers + 1) if self.state else None,
                matches=self.matches.of_hosts(its_hosts),
            )
            for number, its_hosts in enumerate(hosts, 1)
        ]


def read_inventory(settings: Settings, before: Inventory | None = None) -> Inventory:
    """Returns the inventory that a configuration describes, read; that may take `inventory.timeout_seconds`.

    Args:
        settings: the configuration.
        before: the inventory that this one takes the place of; its counters go on.

    Raises:
        UsageError: it cannot be read, or is empty.
    """
    given = settings.inventory
    programs = before.means.programs if before else Programs()  # a stop ends them all
    means = Means(given.timeout_seconds, given.ansible_labels, given.ansible_reader, frozenset(given.ignore), programs)
    shard = split_shard(given.shard) if given.shard else None
    inventory = Inventory(parse_sources(given.hosts, given.sources), given.limit, means, before, shard)
    inventory.read()
    return inventory


def fleet_spec(settings: Settings, inventory: Inventory, identity: str | None = None) -> FleetSpec:
    """Returns what the fleet of a configuration and its inventory is built from.

    Raises:
        ConfigError: several ssh configurations name hosts, and none is chosen.
    """
    reach, names = _reach_settings(settings, inventory), tuple(inventory.host_names)
    hosts, max_series = tuple(inventory.hosts), settings.shape.max_series
    matches = match_overrides(settings, inventory.all_hosts)
    return FleetSpec(settings, hosts, names, reach, max_series, identity=identity, matches=matches)


def _reach_settings(settings: Settings, inventory: Inventory) -> ReachSettings:
    """Returns how to reach hosts: an ssh configuration that names them also says how, unless another one is given."""
    paths = {source.argument for source in inventory.sources if source.kind == "ssh" and source.argument}
    paths |= inventory.ssh_configs
    reach = settings.ssh.reach()
    if settings.ssh.config_file or not paths:
        return reach
    if len(paths) > 1:
        raise ConfigError(f"configuration: ssh.config_file (-F) must say which one is used: {', '.join(sorted(paths))}")
    path = paths.pop()
    return replace(reach, config_paths=() if path == "none" else (Path(path),))


def fleet_names(spec: FleetSpec, before: FleetNames | None = None) -> FleetNames:
    """Returns the names of a fleet's hosts in metrics; those given by `before`, whose place they take, stay."""
    tags = {host.name: make_tags(host.labels, spec.settings.inventory.tags) for host in spec.hosts}
    return FleetNames(spec.settings.prefix, spec.host_names, before, tags, tags.keys())
