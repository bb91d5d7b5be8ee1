"""Hosts as the ssh configuration resolves them."""

from dataclasses import dataclass
from typing import Any

import asyncssh

from fleetmem.connect.settings import SshSettings
from fleetmem.errors import ConfigError, UsageError
from fleetmem.model import Host


@dataclass(frozen=True, slots=True)
class Target:
    """A host as the ssh configuration resolves it.

    Attributes:
        alias: the name it was asked for by; the configuration and known_hosts are looked up under it.
        address: what to connect to.
        port: TCP port.
        user: login name.
        has_proxy: whether the configuration reaches it by ProxyJump or ProxyCommand.
        has_identity: whether the configuration names its keys.
        has_ciphers: whether the configuration names its ciphers.
        has_compression: whether the configuration says that what is sent may be compressed.
    """

    alias: str
    address: str
    port: int
    user: str
    has_proxy: bool
    has_identity: bool
    has_ciphers: bool
    has_compression: bool


class Targets:
    """Resolves hosts, each once.

    Attributes:
        config_paths: the ssh configuration as asyncssh takes it.
    """

    def __init__(self, settings: SshSettings) -> None:
        self.config_paths = [str(settings.config_path.expanduser())] if settings.config_path else None
        self._settings = settings
        self._targets: dict[Host, Target] = {}

    def of(self, host: Host) -> Target:
        """Returns a host as the ssh configuration resolves it; without one, as it is.

        Raises:
            ConfigError: the ssh configuration cannot be read.
        """
        if host not in self._targets:
            self._targets[host] = self._resolve(host.address, host.user, host.port)
        return self._targets[host]

    def of_jump(self, jump: str) -> Target:
        """Returns the jump host that `[user@]host[:port]` says.

        Raises:
            UsageError: it says none.
        """
        user, _at, address = jump.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not address or (colon and not (host and port.isdigit())):
            raise UsageError(f"jump host {jump!r}: expected [user@]host[:port]")
        return self._resolve(host if colon else address, user or None, int(port) if colon else None)

    def _resolve(self, alias: str, user: str | None, port: int | None) -> Target:
        explicit: dict[str, Any] = {}
        if user or self._settings.user:
            explicit["username"] = user or self._settings.user
        if port or self._settings.port:
            explicit["port"] = port or self._settings.port
        try:
            options = asyncssh.SSHClientConnectionOptions(
                host=alias, config=self.config_paths, client_keys=None, known_hosts=None, **explicit
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"ssh configuration {self._settings.config_path}: {error}") from error
        return Target(
            alias=alias,
            address=options.host,
            port=options.port,
            user=options.username,
            has_proxy=bool(options.tunnel or options.proxy_command),
            has_identity=bool(options.config.get("IdentityFile") or options.config.get("IdentityAgent")),
            has_ciphers=bool(options.config.get("Ciphers")),
            has_compression=bool(options.config.get("Compression")),
        )
