"""Hosts as flags, configuration and the ssh configuration resolve them: everything that a login needs to know.

Strongest first: the inventory's own values of a host, flags and configuration, the ssh configuration, ssh's defaults.
The ssh configuration follows the rules of ssh_config(5).
"""

import logging
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

from fleetmem.connect.openssh.config_file import HostDirectives, Setting, SshConfig
from fleetmem.connect.openssh.directives import OTHERS
from fleetmem.connect.openssh.values import Values
from fleetmem.connect.ssh_settings import (
    CONNECT_SECONDS,
    KEEPALIVE_SECONDS,
    HostKeyPolicy,
    JumpSpec,
    ReachSettings,
    SshSettings,
    parse_jumps,
)
from fleetmem.connect.target import Access, Identities, KeyOrigin, Target, Trust, entry_name
from fleetmem.errors import ConfigError, UsageError
from fleetmem.model import Host

log = logging.getLogger(__name__)

_KEEPALIVE_COUNT = 3
_SSH_FOLDER = Path("~/.ssh")
# The names that ssh tries; those of FIDO keys are of use with an agent that has them.
USUAL_KEY_PATHS = tuple(_SSH_FOLDER / f"id_{kind}" for kind in ("ed25519", "ecdsa", "rsa", "ed25519_sk", "ecdsa_sk"))
USUAL_KNOWN_HOSTS_PATHS = (_SSH_FOLDER / "known_hosts", _SSH_FOLDER / "known_hosts2")
_SYSTEM_KNOWN_HOSTS = (Path("/etc/ssh/ssh_known_hosts"), Path("/etc/ssh/ssh_known_hosts2"))


class Targets:
    """Resolves hosts."""

    def __init__(self, settings: ReachSettings) -> None:
        """Reads the ssh configuration.

        Raises:
            ConfigError: it cannot be read.
        """
        self._settings = settings
        self._config = SshConfig(settings.config_paths)
        self._routes: dict[tuple[JumpSpec, ...], tuple[Target, ...]] = {}
        self._resolving: list[str] = []
        self._shared: dict[Access, Access] = {}
        self._resolved: dict[tuple[Host, SshSettings], Target] = {}
        self._told: set[str] = set()

    def resolve_all(self, hosts: Iterable[Host], ssh_of: Callable[[Host], SshSettings]) -> dict[Host, Target]:
        """Returns hosts as they are to be reached; those of the last time cost nothing.

        Args:
            hosts: what their inventory says.
            ssh_of: what flags and configuration say of a host.

        Raises:
            UsageError: what is said of one makes no sense; the message says where it is said.
        """
        found: dict[tuple[Host, SshSettings], Target] = {}
        for host in hosts:
            ssh = ssh_of(host)
            found[host, ssh] = self._resolved.get((host, ssh)) or self.resolve(host, ssh)
        self._resolved = found
        return {host: target for (host, _ssh), target in found.items()}

    def resolve(self, host: Host, ssh: SshSettings) -> Target:
        """Returns a host as it is to be reached.

        Args:
            host: what its inventory says.
            ssh: what flags and configuration say of it.

        Raises:
            UsageError: what is said of it makes no sense; the message says where it is said.
        """
        answer = self._ask(host.address, host.user or ssh.user, host.port or ssh.port)
        try:
            jumps = parse_jumps(host.jump) if host.jump else ssh.jumps
        except UsageError as error:
            raise UsageError(f"host {host.name}: {error}") from error
        if jumps and host.jump_key_paths:
            jumps = (*jumps[:-1], jumps[-1]._replace(key_paths=tuple(map(Path, host.jump_key_paths))))
        route, proxy_command = self._way(answer, jumps)
        own_paths = tuple(map(Path, host.key_paths))
        identities = _identities(Values(answer), own_paths or ssh.key_paths, is_inventory=bool(own_paths))
        return self._target(answer, ssh, route, proxy_command, identities)

    def _ask(self, name: str, user: str | None, port: int | None) -> HostDirectives:
        answer = self._config.ask(name, user, port)
        for setting in answer:
            if setting.keyword in OTHERS:
                self._tell_ignored(setting)
        return answer

    def _tell_ignored(self, setting: Setting) -> None:
        """Warns about a setting that would matter, once for the whole fleet."""
        if setting.keyword in self._told:
            return
        self._told.add(setting.keyword)
        if setting.arguments[0].lower() != OTHERS[setting.keyword]:
            log.warning("ssh configuration %s: %s is not honoured", setting.place, setting.name)

    def _way(self, answer: HostDirectives, jumps: tuple[JumpSpec, ...] | None) -> tuple[tuple[Target, ...], str | None]:
        """Returns the jump hosts and the ProxyCommand on the way to a host; one of both at most."""
        values = Values(answer)
        if jumps is None:
            if command := values.command("proxycommand"):
                return (), command
            jumps = values.jumps()
        port = values.port()
        for place, spec in enumerate(jumps):  # `Host *` with `ProxyJump bastion` holds for the bastion, too
            if answer.host in self._resolving and spec.host == answer.host and spec.port in (None, port):
                jumps = jumps[:place]
                break
        route = self._route(jumps)
        for place, jump in enumerate(route):
            if jump.server == (answer.user, answer.address, port):
                return route[:place], None
        return route, None

    def _route(self, jumps: tuple[JumpSpec, ...]) -> tuple[Target, ...]:
        """Returns jump hosts, each resolved once.

        The first one is reached as the ssh configuration says; the others are reached through the one before.
        """
        if jumps not in self._routes:
            route: tuple[Target, ...] = ()
            for place, jump in enumerate(jumps):
                target = self._resolve_jump(jump, route if place else None)
                route = (*target.jumps, target)
            self._routes[jumps] = route
        return self._routes[jumps]

    def _resolve_jump(self, jump: JumpSpec, before: tuple[Target, ...] | None) -> Target:
        """Returns a jump host, behind those before it where these are given.

        As with ssh, it does not use port and jump hosts of the hosts behind it. Unlike ssh, it uses their user and
        keys, where the ssh configuration has no others for it.
        """
        if jump.host in self._resolving:
            raise ConfigError(f"jump hosts go round in a circle: {' -> '.join([*self._resolving, jump.host])}")
        self._resolving.append(jump.host)
        try:
            ssh = self._settings.ssh
            answer = self._ask(jump.host, jump.user, jump.port)
            if not answer.get("user") and ssh.user and not jump.user:
                answer = self._ask(jump.host, ssh.user, jump.port)
            route, proxy_command = self._way(answer, None) if before is None else (before, None)
            key_paths = jump.key_paths or (() if answer.get("identityfile") else ssh.key_paths)
            identities = _identities(Values(answer), key_paths)
            target = self._target(answer, ssh, route, proxy_command, identities)
            return replace(target, written=str(jump))
        finally:
            self._resolving.pop()

    def _target(
        self,
        answer: HostDirectives,
        ssh: SshSettings,
        route: tuple[Target, ...],
        proxy_command: str | None,
        identities: Identities,
    ) -> Target:
        values = Values(answer)
        access = _access(values, ssh, identities)
        alias, address, port = values.text("hostkeyalias"), answer.address, values.port()
        if not ssh.host_key_policy:
            self._tell_lax(answer.get("stricthostkeychecking"))
        return Target(
            alias=answer.host,
            address=address,
            port=port,
            user=answer.user,
            known_as=alias.lower() if alias else entry_name(address, port),
            certified_as=alias or address.lower(),
            jumps=route,
            proxy_command=proxy_command,
            access=self._shared.setdefault(access, access),
            written=answer.host,
        )

    def _tell_lax(self, checking: Setting | None) -> None:
        if checking and checking.arguments[0].lower() in ("no", "off") and checking.keyword not in self._told:
            self._told.add(checking.keyword)
            log.warning(
                "ssh configuration %s: %s %s is taken as accept-new: changed keys are refused all the same; "
                "--host-keys insecure checks nothing",
                *(checking.place, checking.name, checking.arguments[0]),
            )


def _identities(values: Values, told: tuple[Path, ...], *, is_inventory: bool = False) -> Identities:
    """Returns the keys that were named, or else those of the ssh configuration, or else the usual ones."""
    named = KeyOrigin.CONFIGURED if values.has("identityfile") else KeyOrigin.USUAL
    return Identities(
        paths=tuple(path.expanduser() for path in told) or values.paths("identityfile", USUAL_KEY_PATHS),
        certificate_paths=values.paths("certificatefile", ()),
        agent_path=values.agent_path(),
        origin=KeyOrigin.INVENTORY if is_inventory else KeyOrigin.TOLD if told else named,
        is_only=bool(told) or bool(values.boolean("identitiesonly")),
    )


def _trust(values: Values, ssh: SshSettings) -> Trust:
    told = ssh.known_hosts_path
    return Trust(
        policy=ssh.host_key_policy or values.policy() or HostKeyPolicy.ACCEPT_NEW,
        paths=(told.expanduser(),) if told else values.paths("userknownhostsfile", USUAL_KNOWN_HOSTS_PATHS),
        system_paths=values.paths("globalknownhostsfile", _SYSTEM_KNOWN_HOSTS),
        revoked_paths=values.paths("revokedhostkeys", ()),
    )


def _access(values: Values, ssh: SshSettings, identities: Identities) -> Access:
    connect_seconds = values.seconds("connecttimeout") or CONNECT_SECONDS
    keepalive_seconds = ssh.keepalive_seconds
    if keepalive_seconds is None:
        keepalive_seconds = values.seconds("serveraliveinterval")
    is_compressed = values.boolean("compression") if ssh.is_compressed is None else ssh.is_compressed
    rekey_bytes, rekey_seconds = values.rekey_limit()
    return Access(
        identities=identities,
        trust=_trust(values, ssh),
        algorithms=values.algorithms(),
        family=values.family(),
        bind_address=values.text("bindaddress"),
        bind_interface=values.text("bindinterface"),
        connect_timeout_seconds=ssh.connect_timeout_seconds or connect_seconds,
        login_timeout_seconds=ssh.login_timeout_seconds or connect_seconds,
        command_timeout_seconds=ssh.command_timeout_seconds,
        keepalive_seconds=KEEPALIVE_SECONDS if keepalive_seconds is None else keepalive_seconds,
        keepalive_count=values.number("serveralivecountmax") or _KEEPALIVE_COUNT,
        is_compressed=bool(is_compressed),
        has_tcp_keepalive=values.boolean("tcpkeepalive") is not False,
        rekey_bytes=rekey_bytes,
        rekey_seconds=rekey_seconds,
        has_gssapi=bool(values.boolean("gssapiauthentication")),
        has_gssapi_exchange=bool(values.boolean("gssapikeyexchange")),
    )
