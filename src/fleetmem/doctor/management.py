"""Node StatsD's management port: what it is configured to do, and whether it has a gauge.

Its commands only read, except `delgauges`: the doctor uses that on its own gauges alone. Each piece of text that
arrives is taken for one command (lib/mgmt_server.js), so that the next one waits for the answer.
"""

import asyncio
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from fleetmem.errors import SinkError, reason_of
from fleetmem.sinks.transports.endpoints import host_port

_LIMIT_SECONDS = 3.0
_MAX_ANSWER_BYTES = 2**20
_DEFAULT_FLUSH_MS = 10_000.0
_DEFAULT_CARBON_PORT = "2003"
_TRUE = "true"


@dataclass(frozen=True, slots=True)
class StatsdConfig:
    """What a StatsD is configured to do.

    Attributes:
        flush_seconds: between two flushes.
        deletes_gauges: whether a gauge that is sent no more is forgotten.
        gauges_max_ttl: after how many flushes.
        prefix: of a gauge's name in Graphite, with the dot.
        suffix: of a gauge's name in Graphite, with the dot.
        carbon: where it flushes to, empty for nowhere.
    """

    flush_seconds: float
    deletes_gauges: bool
    gauges_max_ttl: int
    prefix: str
    suffix: str
    carbon: str


def parse_config(text: str) -> StatsdConfig:
    """Returns what the answer to `config` means: lines `key: value`, and `key > key: value` below an object. Pure.

    Raises:
        ValueError: it is not StatsD's.
    """
    values = dict(re.findall(r"^([\w >]+): (.*)$", text, re.MULTILINE))
    if not values.get("flushInterval", "").replace(".", "", 1).isdigit():
        raise ValueError("no flushInterval in it")
    deletes = values.get("deleteGauges", values.get("deleteIdleStats", ""))
    ttl = values.get("gaugesMaxTTL", "")
    suffix = values.get("graphite > globalSuffix", "")
    return StatsdConfig(
        flush_seconds=float(values["flushInterval"] or _DEFAULT_FLUSH_MS) / 1000,
        deletes_gauges=deletes == _TRUE,
        gauges_max_ttl=max(1, int(ttl)) if ttl.isdigit() else 1,
        prefix=_gauge_prefix(values),
        suffix=f".{suffix}" if suffix else "",
        carbon=_carbon(values),
    )


def _gauge_prefix(values: dict[str, str]) -> str:
    """Returns it as backends/graphite.js puts it together."""
    if values.get("graphite > legacyNamespace") != "false":
        return "stats.gauges."
    parts = values.get("graphite > globalPrefix", "stats"), values.get("graphite > prefixGauge", "gauges")
    return "".join(f"{part}." for part in parts if part)


def _carbon(values: dict[str, str]) -> str:
    backends = [value for key, value in values.items() if key.startswith("backends > ")]
    has_backend = any("graphite" in backend for backend in backends) or not any("backends" in key for key in values)
    host = values.get("graphiteHost", "")
    return f"{host}:{values.get('graphitePort', _DEFAULT_CARBON_PORT)}" if has_backend and host else ""


class Management:
    """The management port of a StatsD.

    Attributes:
        address: of the port.
    """

    def __init__(self, host: str, port: int) -> None:
        self.address = host_port(host, port)
        self._host = host
        self._port = port

    async def config(self) -> StatsdConfig:
        """Returns what it is configured to do.

        Raises:
            SinkError: nobody answers, or no StatsD.
        """
        answer = await self._ask("config")
        try:
            return parse_config(answer)
        except ValueError as error:
            raise SinkError(f"{self.address} answers, and is no management port of a Node StatsD: {error}") from error

    async def delete_gauges(self, names: Sequence[str]) -> set[str]:
        """Makes it forget gauges of ours; returns those that it had.

        Raises:
            SinkError: it does not answer.
        """
        answer = await self._ask(f"delgauges {' '.join(names)}")
        return set(re.findall(r"^deleted: (\S+)$", answer, re.MULTILINE))

    async def _ask(self, command: str) -> str:
        """Returns the whole answer: `quit`, sent when it has begun, ends the connection behind it."""
        answer = b""
        try:
            async with asyncio.timeout(_LIMIT_SECONDS):
                reader, writer = await asyncio.open_connection(self._host, self._port)
                try:
                    writer.write(f"{command}\n".encode())
                    answer = await reader.read(_MAX_ANSWER_BYTES)
                    writer.write(b"quit\n")
                    while len(answer) < _MAX_ANSWER_BYTES and (more := await reader.read(_MAX_ANSWER_BYTES)):
                        answer += more
                finally:
                    writer.close()
                    with suppress(OSError):
                        await writer.wait_closed()
        except TimeoutError as error:
            raise SinkError(f"{self.address}: no answer within {_LIMIT_SECONDS:g} s") from error
        except (OSError, UnicodeError) as error:
            raise SinkError(f"{self.address}: {reason_of(error)}") from error
        return answer.decode("utf-8", "replace")
