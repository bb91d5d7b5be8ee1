"""Logins: from a socket, or a jump host's connection, to an authenticated SSH connection."""

import socket
from collections.abc import Sequence
from typing import Any

import asyncssh

from fleetmem.connect.guard import ALLOWANCE_SECONDS, GuardedTunnel
from fleetmem.connect.host_keys import HostKeys, Verifier
from fleetmem.connect.settings import HostKeyPolicy, SshSettings
from fleetmem.connect.targets import Target
from fleetmem.connect.translate import within
from fleetmem.errors import HostError, Stage

# AES-GCM first: one call into OpenSSL per packet, where chacha20-poly1305 sets up four contexts in Python.
_CIPHERS = "^aes128-gcm@openssh.com,aes256-gcm@openssh.com"
_KEEPALIVE_SECONDS = 15  # 3 unanswered ones end a connection whose host went away without a word


class Login:
    """Logs in, with the keys and known hosts of a fleet."""

    def __init__(
        self,
        settings: SshSettings,
        host_keys: HostKeys,
        keys: Sequence[asyncssh.SSHKeyPair],
        config_paths: Sequence[str] | None,
    ) -> None:
        self._settings = settings
        self._host_keys = host_keys
        self._keys = keys
        self._config_paths = config_paths

    async def connect(
        self, target: Target, *, sock: socket.socket | None, tunnel: asyncssh.SSHClientConnection | None
    ) -> asyncssh.SSHClientConnection:
        """Returns an authenticated connection, over a socket or a jump host where one is given.

        Raises:
            HostError: the host is not the one that is known, does not let us in, or took too long.
        """
        verifier = Verifier(self._host_keys)
        options = self._options(target) | {"client_factory": lambda: verifier}
        if sock or tunnel:
            options["tunnel"] = GuardedTunnel(sock or tunnel, ALLOWANCE_SECONDS)
        try:
            return await within(self._settings.login_timeout_seconds, Stage.LOGIN, asyncssh.connect(**options))
        except BaseException as error:
            if sock:
                sock.close()
            if isinstance(error, HostError):
                raise verifier.refusal or error from error
            raise

    def _options(self, target: Target) -> dict[str, Any]:
        is_insecure = self._settings.host_key_policy is HostKeyPolicy.INSECURE
        options: dict[str, Any] = {
            "host": target.alias,
            "port": target.port,
            "username": target.user,
            "config": self._config_paths,
            "known_hosts": None if is_insecure else self._host_keys.match,
            "login_timeout": 0,  # ours is around it, with stages told apart
            "keepalive_interval": _KEEPALIVE_SECONDS,
        }
        if self._settings.key_paths:
            options |= {"client_keys": self._keys, "agent_path": None}
        elif self._keys and not target.has_identity:
            options |= {"client_keys": self._keys}
        if not target.has_compression:
            options["compression_algs"] = ["none"]  # a host may choose any that is offered: 200 KB become 200 MB
        if not target.has_ciphers:
            options["encryption_algs"] = _CIPHERS
        return options
