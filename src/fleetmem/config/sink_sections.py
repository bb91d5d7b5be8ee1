"""`[statsd]`, `[graphite]`, `[prometheus]` and `[file]`: where to send it."""

from enum import StrEnum
from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
    field_validator,
)

from fleetmem.config.fields import HomePath, Section, Size, split_all
from fleetmem.config.network import PROMETHEUS_PORT, Listen, Server, listen_address, split_address, split_server
from fleetmem.sinks.files.archive import Compression
from fleetmem.sinks.formats import Dialect
from fleetmem.sinks.queue.pace import STEADY_DATAGRAMS_PER_SECOND
from fleetmem.sinks.records import RecordFormat
from fleetmem.sinks.series import Retire


class Statsd(Section):
    """StatsD."""

    server: Annotated[tuple[str, ...], BeforeValidator(split_all)] = Field(
        default=(), examples=[["graphite.example.com"]]
    )
    """HOST[:PORT] for UDP, tcp://HOST[:PORT], unix:///PATH; with several, each host always reports to the same one"""
    dialect: Dialect = Dialect.PLAIN
    """plain has host, command and pid in the name; dogstatsd, influx (Telegraf) and graphite have them as tags"""
    retire: Retire = Retire.ZERO
    """zero sends a 0 in three cycles when a process is gone (several servers repeat the last value); none does not"""
    datagrams_per_second: float = Field(default=STEADY_DATAGRAMS_PER_SECOND, gt=0)
    """steady pace; raise it for a server with a large receive buffer. Backlogs and higher loads go faster anyway"""

    @field_validator("server")
    @classmethod
    def _check_servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        servers = [split_server(text) for text in value]
        if len(set(servers)) < len(servers):
            raise ValueError("a server is there twice")
        return value

    def servers(self) -> list[Server]:
        """Returns the servers, none where nothing is to be sent."""
        return [split_server(text) for text in self.server]


class CarbonProtocol(StrEnum):
    """How carbon takes points."""

    LINE = "line"
    PICKLE = "pickle"


_CARBON_PORTS = {CarbonProtocol.LINE: 2003, CarbonProtocol.PICKLE: 2004}


class Graphite(Section):
    """Carbon over TCP, with the sample's own time. What it does not take waits on disk (in run)."""

    server: str | None = Field(default=None, examples=["graphite.example.com"])
    """HOST or HOST:PORT; nothing is sent where it is not set. Default port 2003, 2004 for pickle"""
    protocol: CarbonProtocol = CarbonProtocol.LINE
    """line, or pickle, which costs carbon less"""
    tags: bool = False
    """host, command and pid as Graphite's tags instead of parts of the name; better with detail command"""
    spool: bool = True
    """whether points wait on disk while carbon is away; in memory otherwise"""
    spool_dir: HomePath | None = Field(default=None, examples=["/var/lib/fleetmem"])
    """where; by default $STATE_DIRECTORY, $XDG_STATE_HOME/fleetmem or ~/.local/state/fleetmem"""
    spool_max_size: Size = Field(default=1024**3, gt=0)
    """the oldest points are dropped, and counted, beyond that size"""
    spool_max_age_seconds: float = Field(default=86_400.0, gt=0)
    """the oldest points are dropped, and counted, beyond that age"""

    @field_validator("server")
    @classmethod
    def _check_server(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value, _CARBON_PORTS[CarbonProtocol.LINE])
        return value

    def address(self) -> tuple[str, int] | None:
        """Returns host and port, None where there is no server."""
        return split_address(self.server, _CARBON_PORTS[self.protocol]) if self.server else None


class Prometheus(Section):
    """A page for Prometheus to scrape (in run)."""

    listen: Listen = Field(default=None, examples=["127.0.0.1:9877"])
    """PORT (of 127.0.0.1) or HOST:PORT, 0.0.0.0:PORT for all addresses; without web_config everybody may read it"""
    web_config: HomePath | None = Field(default=None, examples=["/etc/fleetmem/web.yml"])
    """TLS and passwords of that address: a web configuration as Prometheus' exporters have it"""

    def address(self) -> tuple[str, int] | None:
        """Returns address and port to listen on, None where there is to be no page."""
        return listen_address(self.listen, PROMETHEUS_PORT) if self.listen else None


class File(Section):
    """Every outcome, and the collector's own counters, in a file."""

    path: HomePath | None = Field(default=None, examples=["/var/log/fleetmem/memory.jsonl"])
    """nothing is written where it is not set"""
    format: RecordFormat = RecordFormat.JSONL
    """jsonl, one object per host, or csv, one row per process"""
    rotate_size: Size = Field(default=100 * 1024**2, ge=0)
    """begin a new file at that size; 0 never"""
    rotate_seconds: float = Field(default=86_400.0, ge=0)
    """begin a new file at each multiple of this time (UTC); 0 never"""
    keep: int = Field(default=14, ge=0)
    """old files to keep; 0 keeps all"""
    compress: Compression = Compression.GZIP
    """what becomes of old files: gzip, zstd (needs fleetmem[zstd]) or none"""
