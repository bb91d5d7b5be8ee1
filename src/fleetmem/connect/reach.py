"""What all links share: keys, known hosts, limits on handshakes, the ssh configuration, the jump host."""

import asyncio
import ipaddress
import random
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncssh

from fleetmem.connect.backoff import backoff_for
from fleetmem.connect.host_keys import HostKeys, Verifier
from fleetmem.connect.keys import AskPassphrase, load_default_keys, load_keys
from fleetmem.connect.settings import HostKeyPolicy, SshSettings
from fleetmem.connect.translate import within
from fleetmem.errors import ConfigError, HostError, Stage, UsageError
from fleetmem.model import Host

# AES-GCM first: one call into OpenSSL per packet, where chacha20-poly1305 sets up four contexts in Python.
_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
_KEEPALIVE_SECONDS = 15  # 3 unanswered ones end a connection whose host went away without a word


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
    """

    alias: str
    address: str
    port: int
    user: str
    has_proxy: bool
    has_identity: bool
    has_ciphers: bool


class Reach:
    """Knows how to get at hosts. One for a whole fleet."""

    def __init__(self, settings: SshSettings, ask_passphrase: AskPassphrase) -> None:
        """Reads keys and known hosts.

        Raises:
            UsageError: a key, or the ssh configuration, cannot be used.
        """
        self.settings = settings
        self.host_keys = HostKeys(settings.known_hosts_path, settings.host_key_policy)
        self.connect_slots = asyncio.Semaphore(settings.max_connects)
        self.handshake_slots = asyncio.Semaphore(settings.max_handshakes)
        self._config = [str(settings.config_path.expanduser())] if settings.config_path else None
        self._keys: Sequence[asyncssh.SSHKeyPair] = (
            load_keys(settings.key_paths, ask_passphrase) if settings.key_paths else load_default_keys()
        )
        self._targets: dict[Host, Target] = {}
        self._jump: asyncssh.SSHClientConnection | None = None
        self._jump_target = self._resolve_jump(settings.jump) if settings.jump else None
        self._jump_lock = asyncio.Lock()
        self._jump_error: HostError | None = None
        self._jump_not_before = 0.0

    def target(self, host: Host) -> Target:
        """Returns a host as the ssh configuration resolves it; without one, as it is.

        Raises:
            ConfigError: the ssh configuration cannot be read.
        """
        if host not in self._targets:
            self._targets[host] = self._resolve(host.address, host.user, host.port)
        return self._targets[host]

    def _resolve(self, alias: str, user: str | None, port: int | None) -> Target:
        explicit: dict[str, Any] = {}
        if user or self.settings.user:
            explicit["username"] = user or self.settings.user
        if port or self.settings.port:
            explicit["port"] = port or self.settings.port
        try:
            options = asyncssh.SSHClientConnectionOptions(
                host=alias, config=self._config, client_keys=None, known_hosts=None, **explicit
            )
        except (OSError, ValueError) as error:
            raise ConfigError(f"ssh configuration {self.settings.config_path}: {error}") from error
        return Target(
            alias=alias,
            address=options.host,
            port=options.port,
            user=options.username,
            has_proxy=bool(options.tunnel or options.proxy_command),
            has_identity=bool(options.config.get("IdentityFile") or options.config.get("IdentityAgent")),
            has_ciphers=bool(options.config.get("Ciphers")),
        )

    def has_own_transport(self, target: Target) -> bool:
        """Whether we make the TCP connection ourselves, with its own time limit."""
        return not self.settings.jump and not target.has_proxy

    async def open_socket(self, target: Target) -> socket.socket:
        """Returns a connected socket.

        Raises:
            HostError: the name does not resolve, or nothing answers, within the limit of both together.
        """
        limit_seconds, started = self.settings.connect_timeout_seconds, time.monotonic()
        addresses = await within(limit_seconds, Stage.RESOLVE, _look_up(target.address, target.port))
        used_seconds = time.monotonic() - started
        connecting = _connect(addresses, limit_seconds - used_seconds)
        return await within(limit_seconds, Stage.CONNECT, connecting, used_seconds=used_seconds)

    async def log_in(
        self,
        target: Target,
        *,
        sock: socket.socket | None = None,
        tunnel: asyncssh.SSHClientConnection | None = None,
        client_factory: Callable[[], asyncssh.SSHClient] | None = None,
    ) -> asyncssh.SSHClientConnection:
        """Returns an authenticated connection, over a socket or a jump host where one is given."""
        options: dict[str, Any] = {
            "host": target.alias,
            "port": target.port,
            "username": target.user,
            "config": self._config,
            "known_hosts": None if self.settings.host_key_policy is HostKeyPolicy.INSECURE else self.host_keys.match,
            "client_factory": client_factory,
            "login_timeout": 0,  # ours is around it, with stages told apart
            "keepalive_interval": _KEEPALIVE_SECONDS,
        }
        if self.settings.key_paths:
            options |= {"client_keys": self._keys, "agent_path": None}
        elif self._keys and not target.has_identity:
            options |= {"client_keys": self._keys}
        if not target.has_ciphers:
            options["encryption_algs"] = _CIPHERS
        if sock:
            options["sock"] = sock
        if tunnel:
            options["tunnel"] = tunnel
        return await asyncssh.connect(**options)

    async def jump_connection(self) -> asyncssh.SSHClientConnection | None:
        """Returns the one connection to the jump host, made on first use; None where `-J` names none.

        Raises:
            HostError: the jump host failed; for a while the same error for every host behind it, without a new attempt.
        """
        if not self._jump_target:
            return None
        async with self._jump_lock:
            if self._jump is None or self._jump.is_closed():
                if self._jump_error and time.monotonic() < self._jump_not_before:
                    raise self._jump_error
                try:
                    self._jump = await self._connect_jump(self._jump_target)
                except HostError as error:
                    message = f"jump host {self.settings.jump}: {error.message}"
                    self._jump_error = HostError(error.stage, error.kind, message)
                    wait_seconds = backoff_for(error.kind).wait_seconds(1, random.random)
                    self._jump_not_before = time.monotonic() + wait_seconds
                    raise self._jump_error from error
            return self._jump

    async def _connect_jump(self, target: Target) -> asyncssh.SSHClientConnection:
        verifier = Verifier(self.host_keys)
        sock = await self.open_socket(target)
        try:
            work = self.log_in(target, sock=sock, client_factory=lambda: verifier)
            return await within(self.settings.login_timeout_seconds, Stage.LOGIN, work)
        except HostError as error:
            sock.close()
            raise verifier.refusal or error from error

    def _resolve_jump(self, jump: str) -> Target:
        user, _at, address = jump.rpartition("@")
        host, colon, port = address.rpartition(":")
        if not address or (colon and not (host and port.isdigit())):
            raise UsageError(f"jump host {jump!r}: expected [user@]host[:port]")
        return self._resolve(host if colon else address, user or None, int(port) if colon else None)

    async def close(self) -> None:
        """Closes the jump host's connection."""
        if self._jump:
            self._jump.close()


async def _look_up(address: str, port: int) -> list[tuple[Any, ...]]:
    """Returns the addresses of a name as `getaddrinfo` does, without a thread where it is an IP address already."""
    try:
        ipaddress.ip_address(address.partition("%")[0])  # a zone follows the percent sign
    except ValueError:
        return list(
            await asyncio.get_running_loop().getaddrinfo(
                address, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP
            )
        )
    return list(socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST))


async def _connect(addresses: list[tuple[Any, ...]], seconds: float) -> socket.socket:
    """Returns a connected socket. Addresses are tried in turn, each with its share of the time left."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + seconds
    for tried, (family, kind, protocol, _name, address) in enumerate(addresses):
        sock = socket.socket(family, kind, protocol)
        sock.setblocking(False)
        left = len(addresses) - tried
        try:
            async with asyncio.timeout((deadline - loop.time()) / left if left > 1 else None):
                await loop.sock_connect(sock, address)
        except BaseException as error:
            sock.close()
            if left == 1 or not isinstance(error, OSError):  # TimeoutError is an OSError
                raise
        else:
            return sock
    raise OSError("the name resolves to no address")
