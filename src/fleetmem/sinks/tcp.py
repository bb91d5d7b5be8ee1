"""A TCP connection to carbon's plaintext port."""

import asyncio

from fleetmem.errors import SinkError, reason_of

_SEND_TIMEOUT_SECONDS = 5.0


class CarbonTransport:
    """Sends lines of the plaintext protocol over one connection, made on first use and again after it broke.

    The protocol has no acknowledgement: what was written is not known to be stored.

    Attributes:
        bytes_total: written without an error.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = f"{host}:{port}" if ":" not in host else f"[{host}]:{port}"
        self.datagrams_total = 0
        self.bytes_total = 0
        self._host = host
        self._port = port
        self._writer: asyncio.StreamWriter | None = None

    async def send(self, text: bytes, backlog_bytes: int) -> None:
        """Sends lines.

        Raises:
            SinkError: no connection, or carbon took nothing for 5 s. Some of the text may have arrived.
        """
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_SECONDS):
                if self._writer is None:
                    _reader, self._writer = await asyncio.open_connection(self._host, self._port)
                self._writer.write(text)
                await self._writer.drain()
        except (OSError, UnicodeError) as error:
            await self.close()
            message = f"graphite {self.address}: {_reason(error)}; is carbon's plaintext port open there?"
            raise SinkError(message) from error
        self.bytes_total += len(text)

    async def flush(self) -> None:
        """Ends the connection in order, so that all that was written is on its way.

        Raises:
            SinkError: carbon broke it off.
        """
        if self._writer is None:
            return
        writer, self._writer = self._writer, None
        try:
            async with asyncio.timeout(_SEND_TIMEOUT_SECONDS):
                writer.close()
                await writer.wait_closed()
        except OSError as error:
            writer.transport.abort()
            raise SinkError(f"graphite {self.address}: connection broke: {_reason(error)}") from error

    def unconfirmed(self) -> list[bytes]:
        """Nothing is kept."""
        return []

    async def close(self) -> None:
        """Drops the connection, with what carbon has not taken: a stuck one would hold text and socket for ever."""
        if self._writer:
            self._writer.transport.abort()
            self._writer = None


def _reason(error: Exception) -> str:
    is_stuck = isinstance(error, TimeoutError) and error.errno is None  # asyncio's; ETIMEDOUT is the same class
    return f"took nothing for {_SEND_TIMEOUT_SECONDS:g} s" if is_stuck else reason_of(error)
