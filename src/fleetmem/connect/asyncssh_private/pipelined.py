"""A login that waits for no answer that it need not wait for: its round trips, and what goes together.

    1  TCP
    2  versions, the host's KEXINIT
    3  KEXINIT, ECDH ──> the host's key and signature: from here on it is known who the host is
    4  NEWKEYS, service request, signed public key, channel ──> service, login, channel
    5  exec with the first request ──> frame

RFC 4253 and 4252 let a client go on without an answer where the answer can only be yes or the end. asyncssh waits for
each one. It asks for `none` first, and whether a key would do before it signs: ten round trips instead of five.
Decision 0009 has what was left out, and why.
"""

import asyncio
from collections.abc import Callable
from functools import lru_cache, partial
from operator import attrgetter
from typing import Any

from asyncssh.connection import SSHConnection
from asyncssh.constants import (
    MSG_CHANNEL_OPEN,
    MSG_CHANNEL_OPEN_CONFIRMATION,
    MSG_DISCONNECT,
    MSG_EXT_INFO,
    MSG_IGNORE,
    MSG_KEXINIT,
    MSG_SERVICE_ACCEPT,
    MSG_USERAUTH_BANNER,
    MSG_USERAUTH_FAILURE,
)
from asyncssh.packet import Boolean, SSHPacket, String

from fleetmem.connect.connector import Gate, LoginRequest
from fleetmem.connect.guard import Guard, run_guarded
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.key_ring import Offer
from fleetmem.connect.openssh.algorithms import supported
from fleetmem.connect.ssh import asyncssh

_TIMER_SECONDS = 0.002  # what a timer may be early by: it knows milliseconds
_PUBLIC_KEY = b"publickey"
_NONE = b"none"
_OPENSSH = b"SSH-2.0-OpenSSH_"
_LONGEST_LINE_BYTES = 8192
_COOKIE_BYTES = 16

# What a host's farewell may be taken for. Anything else that it says of itself is no verdict of ours: `host key not
# verifiable`, say.
_VERDICTS: dict[int, Callable[[str], asyncssh.DisconnectError]] = {
    asyncssh.DISC_NO_MORE_AUTH_METHODS_AVAILABLE: asyncssh.PermissionDenied,
    asyncssh.DISC_ILLEGAL_USER_NAME: asyncssh.IllegalUserName,
    asyncssh.DISC_KEY_EXCHANGE_FAILED: asyncssh.KeyExchangeFailed,
}

_NO_OPTIONS: Any = None


def _do_nothing() -> bool:
    return False


def send_no_decoys(connection: SSHConnection) -> None:
    """Keeps asyncssh from sending an empty packet ahead of each other one, which is half of all packets.

    They are against an attack on CBC that other ciphers do not know (RFC 4251, 9.3.1); OpenSSH sends none.
    """
    if not connection._enc_alg_cs.endswith(b"-cbc") and not connection._enc_alg_sc.endswith(b"-cbc"):
        connection.__dict__["send_packet"] = partial(_send_packet, connection, type(connection).send_packet)


def _send_packet(connection: SSHConnection, send: Any, type_: int, *args: Any, **kwargs: Any) -> None:
    if type_ != MSG_IGNORE:
        send(connection, type_, *args, **kwargs)


def _known_algorithms(kind: str) -> Any:
    """Returns all algorithms that asyncssh has of a kind, also those that are not offered; none of other kinds."""
    known = supported()
    kinds = {"key exchange": known.key_exchanges, "encryption": known.ciphers, "MAC": known.macs}
    return kinds[kind][0] if kind in kinds else ()


@lru_cache(maxsize=64)
def _shared(names: tuple[bytes, ...]) -> list[bytes]:
    """Returns the same list for the same names."""
    return list(names)


class PipelinedConnection(asyncssh.SSHClientConnection):
    """asyncssh's connection, in more of a hurry.

    Args:
        options: see asyncssh.
        request: the login.
    """

    def __init__(self, options: asyncssh.SSHClientConnectionOptions, request: LoginRequest) -> None:
        super().__init__(asyncio.get_running_loop(), options, wait="auth")
        self._offer: Offer | None = request.offer
        self._words: HostWords | None = request.words
        self._algorithms = request.algorithms
        self._gate: Gate | None = request.gate
        self._key: Any = None
        self._is_at_the_last = False
        self._is_accept_due = False
        self._ahead: list[Any] = []
        self._heard_at = 0.0
        if not self._gss_auth:  # whether a host takes GSSAPI, only its answer to `none` tells
            self._auth_methods = [_PUBLIC_KEY]

    def forget_login(self) -> None:
        """Lets go of what the login needed."""
        self._offer = self._key = self._words = self._gate = None
        self._ahead = []

    def lighten(self) -> None:
        """Lets go of what the login and the start of a channel needed: more than a third of a connection's 24 KB.

        It makes again what a new key exchange needs, except the algorithms: all connections share these. There
        can be no other channel after this.
        """
        self._options = _NO_OPTIONS
        self._kex_algs = _shared(tuple(self._kex_algs))
        self._enc_algs = _shared(tuple(self._enc_algs))
        self._mac_algs = _shared(tuple(self._mac_algs))
        self._cmp_algs = _shared(tuple(self._cmp_algs))
        self._sig_algs = _shared(tuple(self._sig_algs))
        if self._kex_complete:  # a host may want new keys as soon as the login is over
            self._client_kexinit = self._server_kexinit = b""
        self._server_sig_algs = set()
        for channel in self._channels.values():
            channel._command = None  # 5 KB, another one for each host

    def take_apart(self) -> None:
        """Cuts what leads from this to itself once it has ended: else it stays until the garbage collector has a look.

        That is seldom, with so much that stays: hundreds of broken logins, 15 to 30 KB each, wait for it.
        """
        waiter, self._waiter = self._waiter, None
        if waiter and waiter.done() and not waiter.cancelled() and (error := waiter.exception()):
            error.with_traceback(None)  # its frames have the options, and these the waiter
        self._recv_handler = _do_nothing
        self.__dict__.pop("send_packet", None)

    def is_stuffed(self, size_bytes: int) -> bool:
        """Whether it is at work on a packet in a task, and has so many bytes to go on with."""
        handlers = (self._recv_pkthdr, self._recv_packet, self._recv_version)
        return len(self._inpbuf) >= size_bytes and self._recv_handler not in handlers

    session_keys = property(attrgetter("_recv_encryption"), doc="What packets are decrypted with.")

    def _recv_version(self) -> bool:
        """Keeps what is no version: sshd says there that it has too many connections, or does not want ours."""
        end = self._inpbuf.find(b"\n", 0, _LONGEST_LINE_BYTES)
        line = bytes(self._inpbuf[: max(0, end)])
        if self._words and line and not line.startswith((b"SSH-2.0-", b"SSH-1.99-")):
            self._words.add_greeting(line)
        return super()._recv_version()

    def connection_lost(self, exc: Exception | None = None) -> None:
        """Keeps a line that the host began in place of its version, and never ended."""
        if self._words and not self._server_version:
            self._words.add_greeting(bytes(self._inpbuf[:_LONGEST_LINE_BYTES]))
        super().connection_lost(exc)

    def _choose_alg(self, alg_type: str, local_algs: Any, remote_algs: Any) -> bytes:
        """Notes what the host offers where nothing of it will do."""
        try:
            return super()._choose_alg(alg_type, local_algs, remote_algs)
        except asyncssh.KeyExchangeFailed:
            if self._words:
                self._words.note_mismatch(alg_type, remote_algs, _known_algorithms(alg_type))
            raise

    def _validate_host_key(self, host: str, addr: str, port: int, key_data: bytes) -> asyncssh.SSHKey:
        """Refuses a key or certificate that the ssh configuration does not want, before it is recorded."""
        if objection := self._algorithms.objection(key_data):
            raise ValueError(objection)
        return super()._validate_host_key(host, addr, port, key_data)

    def _process_kexinit(self, pkttype: int, pktid: int, packet: SSHPacket) -> Any:
        """Notes the kinds of host keys that the host has."""
        if self._words:
            copied = SSHPacket(packet.get_full_payload()[1:])
            copied.get_bytes(_COOKIE_BYTES)
            copied.get_namelist()
            wanted = self._server_host_key_algs or ()
            self._words.note_host_keys(wanted, copied.get_namelist(), supported().public_keys)
        return super()._process_kexinit(pkttype, pktid, packet)

    def _process_userauth_failure(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Notes the ways in that the host lists, and a key that it accepted without letting us in."""
        if self._words:
            copied = SSHPacket(packet.get_full_payload()[1:])
            self._words.methods = tuple(name.decode("ascii", "replace") for name in copied.get_namelist())
            if copied.get_boolean() and self._offer:
                self._words.accepted += self._offer.note_accepted()
        super()._process_userauth_failure(pkttype, pktid, packet)

    def _process_userauth_banner(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Keeps the banner, whatever its encoding: asyncssh ends the connection for one that is not UTF-8."""
        if self._words:
            self._words.add_banner(packet.get_string())

    def _process_disconnect(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Ends the connection with what the host says in farewell, whatever its encoding."""
        code, reason = packet.get_uint32(), packet.get_string().decode("utf-8", "replace")
        if self._words:
            self._words.reason = reason
        verdict = _VERDICTS.get(code)
        self._force_close(verdict(reason) if verdict else asyncssh.DisconnectError(code, reason))

    def send_newkeys(self, k: bytes, h: bytes) -> None:
        """Goes over to the ciphers agreed on."""
        send_no_decoys(self)
        super().send_newkeys(k, h)

    def _reset_keepalive_timer(self) -> None:
        """Notes that the host was heard of. The timer is let go on: setting it again for each packet costs more."""
        self._heard_at = self._loop.time()

    def _keepalive_timer_callback(self) -> None:
        """Asks whether the host lives, once nothing was heard of it for the interval; else waits for what is left."""
        left_seconds = self._heard_at + self._keepalive_interval - self._loop.time()
        if left_seconds > _TIMER_SECONDS:
            self._keepalive_timer = self._loop.call_later(left_seconds, self._keepalive_timer_callback)
        else:
            super()._keepalive_timer_callback()

    def _process_ext_info(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Begins to authenticate without waiting for the service: no host refuses it (RFC 4253, 10).

        Not before these extensions are here, which say how our key may sign; they come right behind the host's keys.
        """
        super()._process_ext_info(pkttype, pktid, packet)
        if self._next_service:
            accept = SSHPacket(String(self._next_service))
            super()._process_service_accept(MSG_SERVICE_ACCEPT, pktid, accept)
            self._is_accept_due = True

    def _process_service_accept(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Takes the service's answer, where it has not been taken for granted."""
        if not self._is_accept_due:
            super()._process_service_accept(pkttype, pktid, packet)
        self._is_accept_due = False

    async def public_key_auth_requested(self) -> Any:
        """Returns the next key. Behind the last one comes `none`, which ssh asks for first: it hardly ever does."""
        if self._is_at_the_last:
            return None
        self._key = await super().public_key_auth_requested()
        if self._key is None and not self._gss_auth:
            self._is_at_the_last = True
            self._auth_methods.append(_NONE)
        return self._key

    def try_next_auth(self, *, next_method: bool = False) -> None:
        """Begins, or goes on after a refusal: the host has thrown away what was sent behind that request."""
        if self._gate and self._gate.is_undecided:
            self.create_task(self._begin_decided(self._gate))
            return
        self._deferred_packets, self._ahead = [*self._ahead, *self._deferred_packets], []
        super().try_next_auth(next_method=next_method)

    async def _begin_decided(self, gate: Gate) -> None:
        """Begins to log in once the host's key has been decided about; where it is refused, the connection ends."""
        await gate.decide()
        self.try_next_auth()

    def _process_channel_open_confirmation(self, pkttype: int, pktid: int, packet: SSHPacket) -> None:
        """Takes a channel that takes no bytes for one that is refused: asyncssh up to 2.23 would cut data for ever."""
        copied = SSHPacket(packet.get_full_payload()[1:])
        ours, _theirs, _window, size = (copied.get_uint32() for _ in range(4))
        channel = self._channels.get(ours)
        if channel and size <= (b"dropbear" in self._server_version):  # with compression, asyncssh takes one off there
            reason = f"its channel takes packets of at most {size} bytes"
            channel.process_open_failure(asyncssh.OPEN_CONNECT_FAILED, reason, "")
        else:
            super()._process_channel_open_confirmation(pkttype, pktid, packet)

    async def send_userauth_request(self, method: bytes, *args: bytes, key: Any = None, trivial: bool = True) -> None:
        """Sends a request; one that would ask whether a key will do is signed right away where that disturbs nobody."""
        is_query = method == _PUBLIC_KEY and args[0] == Boolean(False)
        if is_query and self._offer and self._offer.signs_unasked:
            try:
                signed = (Boolean(True), *args[1:])
                await super().send_userauth_request(method, *signed, key=self._key, trivial=False)
            except ValueError:  # an agent that does not; it says why to the offer
                self.try_next_auth()
                return
            will_do = self._offer.is_likely
        else:
            await super().send_userauth_request(method, *args, key=key, trivial=trivial)
            will_do = method == _PUBLIC_KEY and not is_query
        if will_do:
            self._send_ahead()

    def _send_ahead(self) -> None:
        """Sends the request for a channel right behind the one that will let us in (RFC 4252, 5.1).

        A host that refuses calls it an error in its log, and others than OpenSSH may hang up. Compression that begins
        with the login would find it uncompressed.
        """
        if not self._server_version.startswith(_OPENSSH) or self._cmp_alg_cs != _NONE:
            return
        self._ahead = [packet for packet in self._deferred_packets if packet[0] == MSG_CHANNEL_OPEN]
        self._auth_complete = True
        try:
            self._send_deferred_packets()
        finally:
            self._auth_complete = False

    _packet_handlers = asyncssh.SSHClientConnection._packet_handlers | {
        MSG_CHANNEL_OPEN_CONFIRMATION: _process_channel_open_confirmation,
        MSG_DISCONNECT: _process_disconnect,
        MSG_EXT_INFO: _process_ext_info,
        MSG_KEXINIT: _process_kexinit,
        MSG_SERVICE_ACCEPT: _process_service_accept,
        MSG_USERAUTH_BANNER: _process_userauth_banner,
        MSG_USERAUTH_FAILURE: _process_userauth_failure,
    }


class PipelinedConnector:
    """Makes such connections.

    It does what `asyncssh.connect` does, without what that does for others: a look-up of the name, files, a thread.
    """

    waits_for_decisions = True

    async def connect(self, request: LoginRequest) -> asyncssh.SSHClientConnection:
        """See `Connector`; `on_begun` is called before the login: a channel that it asks for goes with it."""
        loop = asyncio.get_running_loop()
        options = asyncssh.SSHClientConnectionOptions(loop=loop, **request.options)
        options.waiter = logged_in = loop.create_future()
        connection = PipelinedConnection(options, request)
        try:
            guard = Guard(connection, request.allowance_seconds, connection)
            await run_guarded(guard, request.via, (request.options["host"], request.options["port"]))
            if request.on_begun:
                request.on_begun(connection)
            await logged_in
        except BaseException:
            logged_in.cancel()
            if connection.get_extra_info("peername") is not None:  # otherwise there is nothing yet
                connection.abort()
                await connection.wait_closed()
            raise
        connection.forget_login()
        return connection

    def lighten(self, connection: asyncssh.SSHClientConnection) -> None:
        """See `PipelinedConnection`."""
        if isinstance(connection, PipelinedConnection):
            connection.lighten()

    def take_apart(self, connection: asyncssh.SSHClientConnection) -> None:
        """See `PipelinedConnection`."""
        if isinstance(connection, PipelinedConnection):
            connection.take_apart()
