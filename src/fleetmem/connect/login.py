"""Logins: from a socket, or a jump host's connection, to an authenticated SSH connection."""

import os
from typing import Any

from fleetmem.connect.breaker import Attempt
from fleetmem.connect.client import Client
from fleetmem.connect.connector import Connector, LoginRequest, OnBegun
from fleetmem.connect.guard import ALLOWANCE_SECONDS
from fleetmem.connect.host_keys import AskAgainError, HostKeys, Known
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.key_ring import KeyRing, Offer
from fleetmem.connect.openssh.config_file import local_user
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.connect.target import Target
from fleetmem.connect.translate import within
from fleetmem.connect.way import Way
from fleetmem.errors import HostError, Kind, Stage

_COMPRESSION = ["zlib@openssh.com", "zlib", "none"]
_NO_COMPRESSION = ["none"]  # a host may choose any that is offered: 200 KB become 200 MB


class Login:
    """Logs in, with the keys and known hosts of a fleet."""

    def __init__(self, host_keys: HostKeys, keys: KeyRing, connector: Connector) -> None:
        self._host_keys = host_keys
        self._keys = keys
        self._connector = connector
        self._accepted_late: dict[Target, asyncssh.SSHKey] = {}
        # asyncssh looks the name up for each login, and gives up where there is none, or no file can be opened for it.
        os.environ.setdefault("LOGNAME", local_user())

    async def public_keys(self, target: Target) -> frozenset[bytes]:
        """Returns the keys and certificates that a login would offer now."""
        return await self._keys.public_keys(target)

    async def connect(
        self, target: Target, way: Way, attempt: Attempt | None = None, on_begun: OnBegun | None = None
    ) -> asyncssh.SSHClientConnection:
        """Returns an authenticated connection. The way to the host is closed with it, or at once where there is none.

        Args:
            target: who to log in to.
            way: leads there.
            attempt: asked before the first key is offered; None for jump hosts, which have waits of their own.
            on_begun: called with the connection before the login: a channel that it asks for then goes with the login.

        Raises:
            HostError: the host is not the one that is known, does not let us in, or took too long.
        """
        offer = await self._keys.offer(target)
        known = self._host_keys.known(target)
        words = HostWords()
        accepted = self._accepted_late.pop(target, None)
        client = Client(target, self._host_keys, offer, words, attempt, self._connector, way.close, accepted)
        request = LoginRequest(
            options=_options(target, known) | {"client_factory": lambda: client},
            algorithms=target.access.algorithms,
            offer=offer,
            words=words,
            gate=client,
            via=way.via,
            # A jump host's bytes are those of all hosts behind it.
            allowance_seconds=None if attempt is None else ALLOWANCE_SECONDS,
            on_begun=on_begun,
        )
        limit_seconds = target.access.login_timeout_seconds + way.open_seconds
        try:
            connecting = self._connector.connect(request)
            connection = await within(limit_seconds, Stage.LOGIN, connecting, take_limit=client.take_limit)
        except HostError as error:
            try:
                # Bare: what is explained may be that error, which must not be its own cause.
                error = await self._decide_late(client, target) or self._explain(error, target, client, offer, words)
                raise (await way.explain(error)).bare() from error
            finally:
                way.abandon()
        except BaseException:
            way.abandon()
            raise
        self._keys.note_accepted(target, offer)
        client.forget_login()
        return connection

    async def _decide_late(self, client: Client, target: Target) -> HostError | None:
        """Decides about a key that the connection could not wait for; returns what to say of that, None for nothing."""
        error = await client.decide_afterwards()
        if client.accepted and isinstance(error, AskAgainError):
            self._accepted_late[target] = client.accepted
        return error

    def _explain(self, error: HostError, target: Target, client: Client, offer: Offer, words: HostWords) -> HostError:
        """Returns the refusal behind what asyncssh made of it."""
        if client.refusal:
            return client.refusal
        if away := offer.blame_agent(error, target.access.login_timeout_seconds):
            return away
        if error.kind is Kind.HOST_KEY_UNKNOWN and "revoked" in error.message:  # a certificate's key, or its authority
            return self._host_keys.revoked(target)
        if error.kind is Kind.AUTH_FAILED:
            error = offer.refused(words)
        return words.explain(error)


def _options(target: Target, known: Known) -> dict[str, Any]:
    """Returns asyncssh's options: all of them, so that it reads no configuration and no key by itself."""
    access, algorithms = target.access, target.access.algorithms
    is_insecure = access.trust.policy is HostKeyPolicy.INSECURE
    options: dict[str, Any] = {
        "host": target.address,
        "port": target.port,
        "username": target.user,
        "config": None,
        # Revoked keys go to asyncssh only for certificates, whose keys it does not ask about.
        "known_hosts": None
        if is_insecure
        else (known.keys, known.authorities, known.revoked if known.authorities else [], [], [], [], []),
        "host_key_alias": target.certified_as,
        "server_host_key_algs": known.algorithms(target),
        "encryption_algs": algorithms.ciphers,
        "mac_algs": algorithms.macs,
        "kex_algs": algorithms.key_exchanges,
        "signature_algs": algorithms.signatures,
        "compression_algs": _COMPRESSION if access.is_compressed else _NO_COMPRESSION,
        "client_keys": None,  # none but those that the client is asked for
        "agent_path": None,
        "host_based_auth": False,
        "kbdint_auth": False,
        "password_auth": False,
        "gss_auth": access.has_gssapi,
        "gss_kex": access.has_gssapi_exchange,
        "login_timeout": 0,  # ours is around it, with stages told apart
        "connect_timeout": None,
        "keepalive_interval": access.keepalive_seconds,
        "keepalive_count_max": access.keepalive_count,
        "tcp_keepalive": access.has_tcp_keepalive,
    }
    if access.rekey_bytes:
        options["rekey_bytes"] = access.rekey_bytes
    if access.rekey_seconds:
        options["rekey_seconds"] = access.rekey_seconds
    return options
