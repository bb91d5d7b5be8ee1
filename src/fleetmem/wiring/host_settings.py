"""What the configuration says of each host: its sections, and the overrides whose pattern matches it."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from fleetmem.config import Probe, Settings
from fleetmem.connect.ssh_settings import SshSettings
from fleetmem.errors import ConfigError, InventoryError
from fleetmem.inventory.patterns import select
from fleetmem.model import Host
from fleetmem.runtime.pattern import Pattern

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class HostSettings:
    """What holds for a host."""

    ssh: SshSettings
    probe: Probe


class OverrideMatches(NamedTuple):
    """Which hosts the entries of `overrides` match.

    Attributes:
        numbers: of the entries that match a host, by its name; hosts without one are left out.
        problems: of patterns that name a host, group or label that there is not, or cannot be read.
    """

    numbers: Mapping[str, tuple[int, ...]] = {}
    problems: tuple[str, ...] = ()

    def of_hosts(self, hosts: Sequence[Host]) -> "OverrideMatches":
        """Returns the matches of some hosts, as a plain value; problems are for whoever knows all of them."""
        return OverrideMatches({host.name: self.numbers[host.name] for host in hosts if host.name in self.numbers})


def match_overrides(settings: Settings, hosts: Sequence[Host]) -> OverrideMatches:
    """Returns which hosts the overrides match.

    Args:
        settings: the configuration.
        hosts: the whole inventory, so that `db` is a group also where all of its hosts are in another shard.
    """
    numbers: dict[str, tuple[int, ...]] = {}
    problems = []
    for number, override in enumerate(settings.overrides):
        try:
            for host in select(override.match, hosts, Pattern):
                numbers[host.name] = (*numbers.get(host.name, ()), number)
        except InventoryError as error:
            problems.append(f"configuration: overrides.{number}.match: {error}")
    return OverrideMatches(numbers, tuple(problems))


def settings_by_host(
    settings: Settings, hosts: Sequence[Host], matches: OverrideMatches, *, is_refresh: bool
) -> dict[Host, HostSettings]:
    """Returns how each host is reached and asked; those that nothing is different for share one.

    Args:
        settings: the configuration.
        hosts: those of this process.
        matches: of the overrides.
        is_refresh: whether only the hosts have changed. A pattern that then names what is no longer there matches
            nothing: the others are not held up by the last host of a group that is gone.

    Raises:
        ConfigError: the pattern of an override cannot be read, or names a host, group or label that there is not.
    """
    if matches.problems and not is_refresh:
        raise ConfigError(matches.problems[0])
    for problem in matches.problems:
        log.warning("%s; it matches no host now", problem)
    made = {numbers: _merge(settings, numbers) for numbers in {(), *matches.numbers.values()}}
    return {host: made[matches.numbers.get(host.name, ())] for host in hosts}


def _merge(settings: Settings, numbers: tuple[int, ...]) -> HostSettings:
    ssh, probe = settings.ssh, settings.probe
    for override in (settings.overrides[number] for number in numbers):
        ssh, probe = override.over(ssh), override.over(probe)
    return HostSettings(ssh.settings(), probe)
