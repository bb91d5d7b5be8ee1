"""What the configuration says of each host: its sections, and the overrides whose pattern matches it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from fleetmem.config import Override, Probe, Settings
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


def settings_by_host(settings: Settings, hosts: Sequence[Host], *, is_refresh: bool) -> dict[Host, HostSettings]:
    """Returns what holds for each host; those of which the same holds share it.

    Args:
        settings: the configuration.
        hosts: all of them.
        is_refresh: whether only the hosts have changed. A pattern that then names what is no longer there matches
            nothing: the others are not held up by the last host of a group that is gone.

    Raises:
        ConfigError: the pattern of an override cannot be read, or names a host, group or label that there is not.
    """
    matching: dict[str, tuple[int, ...]] = {}
    for number, override in enumerate(settings.overrides):
        for host in _select(override, number, hosts, is_refresh=is_refresh):
            matching[host.name] = (*matching.get(host.name, ()), number)
    made = {numbers: _merge(settings, numbers) for numbers in {(), *matching.values()}}
    return {host: made[matching.get(host.name, ())] for host in hosts}


def _select(override: Override, number: int, hosts: Sequence[Host], *, is_refresh: bool) -> list[Host]:
    try:
        return select(override.match, hosts, Pattern)
    except InventoryError as error:
        message = f"configuration: overrides.{number}.match: {error}"
        if not is_refresh:
            raise ConfigError(message) from error
        log.warning("%s; it matches no host now", message)
        return []


def _merge(settings: Settings, numbers: tuple[int, ...]) -> HostSettings:
    ssh, probe = settings.ssh, settings.probe
    for override in (settings.overrides[number] for number in numbers):
        ssh, probe = override.over(ssh), override.over(probe)
    return HostSettings(ssh.settings(), probe)
