"""Targets for the tests of what logs in to them."""

from pathlib import Path

from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.ssh_settings import HostKeyPolicy, LoginLimits, ReachSettings, SshSettings
from fleetmem.connect.target import Target
from fleetmem.model import Host

_NOTHING = SshSettings()


def resolve(
    name: str, ssh: SshSettings = _NOTHING, *, config: Path | None = None, **host: str | int | tuple[str, ...]
) -> Target:
    """Returns a host as it is resolved with an ssh configuration, or without one."""
    settings = ReachSettings(ssh, LoginLimits(), (config,) if config else ())
    return Targets(settings).resolve(Host(name, name, **host), ssh)  # type: ignore[arg-type]


def known_in(path: Path, policy: HostKeyPolicy, name: str = "web01", port: int = 22) -> Target:
    """Returns a host whose key is looked up in a file."""
    return resolve(name, SshSettings(port=port, known_hosts_path=path, host_key_policy=policy))
