"""Plug-ins as kinds of sinks: their writers behind a queue and a thread of fleetmem's own."""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from functools import partial
from typing import Any

from fleetmem.errors import ConfigError, FleetmemError
from fleetmem.sinks import installed
from fleetmem.sinks.kind import Make, SinkContext, SinkKind, Spec
from fleetmem.sinks.plugin import SinkWriter, WriterKind
from fleetmem.sinks.queue.writer import WriterSink

log = logging.getLogger(__name__)


def kind_of(name: str) -> SinkKind[Any]:
    """Returns the kind of sinks that a plug-in offers.

    Raises:
        PluginError: it is not installed, or broken.
    """
    kind = installed.load(name)
    return SinkKind(kind.section, partial(_plan, name, kind))


def _plan(name: str, kind: WriterKind[Any], section: Any, _context: SinkContext) -> Mapping[Spec, Make]:
    return {(f"sinks.{name}", section): partial(_make, name, kind, section)}


def _make(name: str, kind: WriterKind[Any], section: Any, undo: ExitStack) -> WriterSink:
    """Returns the sink of a plug-in.

    Raises:
        ConfigError: the plug-in raises, whatever that is, or makes no writer.
    """
    try:
        writer = kind.make(section)
        if not isinstance(writer, SinkWriter):
            raise TypeError(f"makes a {type(writer).__name__}, which is no SinkWriter")
        undo.callback(_close, name, writer)
        return WriterSink(name, writer)
    except FleetmemError as error:
        raise ConfigError(f"configuration: sinks.{name}: {error}") from error
    except Exception as error:
        raise ConfigError(f"configuration: sinks.{name}: {type(error).__name__}: {error}") from error


def _close(name: str, writer: SinkWriter) -> None:
    """Closes a writer that no fleet has come to use."""
    try:
        writer.close()
    except Exception as error:  # noqa: BLE001 - whatever it raises, the configuration was not taken already
        log.warning("sinks.%s: cannot be closed: %s: %s", name, type(error).__name__, error)
