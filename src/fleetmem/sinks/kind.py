"""Kinds of sinks: what a section of the configuration is, and which sinks are made of it.

Built-in kinds (`wiring.outputs.BUILT_IN`) and those of plug-ins (`plugin`) are values of one type, and are built by one
function, `wiring.outputs.build_sinks`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from fleetmem.sinks.naming import FleetNames
    from fleetmem.sinks.pages.http_server import Page
    from fleetmem.sinks.sink import Sink

SectionT = TypeVar("SectionT")

Spec = tuple[object, ...]
"""What a sink is made from; equal ones make the same sink."""

Make = Callable[[ExitStack], "Sink"]
"""Makes a sink, and gives the stack what closes each file and port that it opens."""


@dataclass(frozen=True, slots=True)
class SinkContext:
    """What sinks are made with, beside their section.

    Attributes:
        names: of the fleet.
        prefix: of metric names.
        tags: labels of hosts that become tags.
        interval_seconds: between two samples of a host.
        pages: what Prometheus's address shows beside the metrics.
        http_names: that pages may be reached by.
        ports_in_use: by pages of sinks that are there already.
        current: specs of the sinks that are there already.
        senders: processes that send to the same servers.
        is_refresh: whether only the hosts are others: the configuration is the same, and its files are not read again.
    """

    names: FleetNames
    prefix: str
    tags: tuple[str, ...]
    interval_seconds: float
    pages: Mapping[str, Page]
    http_names: tuple[str, ...]
    ports_in_use: Collection[object]
    current: Collection[Spec]
    senders: int = 1
    is_refresh: bool = False


@dataclass(frozen=True, slots=True)
class SinkKind(Generic[SectionT]):
    """A kind of sink.

    Attributes:
        section: the type of its section in the configuration: its keys, their types and defaults.
        plan: returns the sinks that a section asks for, none where it asks for nothing. Opens nothing: a sink whose
            spec is there already stays, and is not made again.
    """

    section: type[SectionT]
    plan: Callable[[SectionT, SinkContext], Mapping[Spec, Make]]
