"""`[run]`: how `fleetmem run` works."""

import re
from typing import Annotated

from pydantic import (
    BeforeValidator,
    Field,
)

from fleetmem.config.fields import HomePath, Section
from fleetmem.config.network import HEALTH_PORT, Listen, listen_address
from fleetmem.model import INTERVAL_SECONDS

AUTO = "auto"


def _check_workers(value: object) -> object:
    if value == AUTO:
        return value
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,2}", str(value)):
        raise ValueError(f"not a number from 1 to 999, nor {AUTO}")
    return int(str(value))


class Run(Section):
    """For `fleetmem run`."""

    interval_seconds: float = Field(default=INTERVAL_SECONDS, ge=0.1)
    """time between two samples of a host; make it the StatsD flush interval and the finest whisper step"""
    workers: Annotated[int | str, BeforeValidator(_check_workers)] = Field(default=1, examples=[AUTO])
    """processes that sample, each its share of the hosts; auto: one for 2,500 hosts, as far as there are CPUs"""
    state_dir: HomePath | None = Field(default=None, examples=["/var/lib/fleetmem"])
    """what is remembered across restarts, in a folder per collector; none for nothing; by default where the spool is"""
    health_listen: Listen = Field(default=None, examples=["127.0.0.1:9878"])
    """PORT (of 127.0.0.1) or HOST:PORT for /healthz and /readyz; Prometheus's address has them, too"""
    http_names: tuple[str, ...] = Field(default=(), examples=[("metrics.example.com",)])
    """names of these pages and Prometheus's, beside addresses and this machine's name; none: all, except on loopback"""

    def health_address(self) -> tuple[str, int] | None:
        """Returns address and port of the health pages, None where there are to be none of their own."""
        return listen_address(self.health_listen, HEALTH_PORT) if self.health_listen else None
