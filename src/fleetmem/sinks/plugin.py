"""A sink of one's own: the public protocol of plug-ins, which stays as it is. docs/how-to/sinks.md shows it in use.

A package names a `WriterKind` as an entry point of the group `fleetmem.sinks`. The entry point's name is that of the
sink, and of its section in the configuration: `[sinks.NAME]`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic

from fleetmem.errors import SinkError, reason_of
from fleetmem.model import (
    CollectorStats,
    CommandMemory,
    Counter,
    Failure,
    Host,
    HostMemory,
    Outcome,
    ProcessMemory,
    Sample,
    Shaped,
)
from fleetmem.runtime import bounded_file
from fleetmem.runtime.elsewhere import is_elsewhere
from fleetmem.sinks.kind import SectionT

__all__ = [
    "CollectorStats",
    "CommandMemory",
    "Counter",
    "Failure",
    "Host",
    "HostMemory",
    "Outcome",
    "ProcessMemory",
    "Sample",
    "SecretFile",
    "Shaped",
    "SinkError",
    "SinkWriter",
    "WriterKind",
]

_SECRET_LIMIT_BYTES = 64 * 1024


class SinkWriter(ABC):
    """Writes outcomes somewhere. fleetmem calls it in one thread of its own, so it may block.

    fleetmem owns the queue: it keeps what waits in bounds, tries again after a `SinkError`, and counts. Any other
    exception is a bug of the writer: it is logged and counted, what was to be written is given up, and neither hosts
    nor other sinks notice.

    Attributes:
        address: where to, for logs and `/healthz`; the sink's name where it is empty. Without secrets.
    """

    address: str = ""

    @abstractmethod
    def write(self, outcomes: Sequence[Outcome]) -> int:
        """Writes all of these outcomes, oldest first; returns how many bytes that were, 0 where nobody counts.

        Raises:
            SinkError: the backend is away, or refuses. The same outcomes come again later, with more of them perhaps.
        """

    def write_stats(self, stats: CollectorStats) -> int:
        """Writes the collector's own counters, once per interval of `run`; returns bytes. By default it writes none."""
        del stats
        return 0

    def close(self) -> None:  # noqa: B027 - many have nothing to close
        """Lets go of sockets and files, for good."""


@dataclass(frozen=True, slots=True)
class WriterKind(Generic[SectionT]):
    """What an entry point of the group `fleetmem.sinks` names.

    Attributes:
        section: a frozen dataclass whose values can be hashed: the keys of `[sinks.NAME]`, with their types and
            defaults. The text below a field is what `fleetmem config sample` says. Types are checked by pydantic, so
            `Annotated[int, pydantic.Field(gt=0)]` is one, too.
        make: makes the writer. It is called with each start and each reload that changes the section, and opens
            nothing that only one may have: the writer before it still works. Any exception means that the
            configuration is not taken.
    """

    section: type[SectionT]
    make: Callable[[SectionT], SinkWriter]


class SecretFile:
    """A secret that stands in a file. As a key of a section it is the path of that file, and shown as that.

    The file is read with the configuration, so a reload takes a new secret.

    Attributes:
        path: of the file.
        value: its content, without white space around it.
    """

    __slots__ = ("path", "value")

    def __init__(self, path: Path, value: str) -> None:
        self.path = path
        self.value = value

    @classmethod
    def read(cls, path: "str | Path | SecretFile") -> "SecretFile":
        """Returns the secret in a file; an empty one where the configuration is for another machine.

        Raises:
            ValueError: the file cannot be read, or is empty.
        """
        if isinstance(path, SecretFile):
            return path
        if not isinstance(path, str | Path):
            raise ValueError("not the path of a file")
        if is_elsewhere():
            return cls(Path(path), "")
        try:
            found = Path(path).expanduser()
            value = bounded_file.read_text(found, _SECRET_LIMIT_BYTES).strip()
        except UnicodeDecodeError:
            raise ValueError(f"{path}: not UTF-8") from None  # whose message has bytes of the secret
        except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
            raise ValueError(f"{path}: {reason_of(error)}") from error
        if not value:
            raise ValueError(f"{path}: the file is empty")
        return cls(Path(path), value)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"SecretFile({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SecretFile) and (self.path, self.value) == (other.path, other.value)

    def __hash__(self) -> int:
        return hash((self.path, self.value))

    @classmethod
    def __get_pydantic_core_schema__(cls, _source: Any, _handler: Any) -> Any:
        """Lets pydantic, which checks sections, read it from a path."""
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(cls.read)

    @classmethod
    def __get_pydantic_json_schema__(cls, _schema: Any, _handler: Any) -> dict[str, str]:
        """Says what `fleetmem config schema` prints of it."""
        return {"type": "string"}
