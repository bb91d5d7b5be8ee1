"""Points that wait on disk for their backend, across restarts.

An SQLite file: it survives a kill at any moment, reuses the space of what was removed, and can be looked into with the
`sqlite3` tool. All methods block; call them in a thread, one at a time. Properties are kept in memory.
"""

import errno
import logging
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from fleetmem.errors import SinkError, reason_of
from fleetmem.sinks.queue.backlog import Item
from fleetmem.units import format_size

log = logging.getLogger(__name__)

_APPLICATION_ID = 0x666C6D73  # "flms"
_FORMAT_VERSION = 1
_MAGIC = b"SQLite format 3\0"
_CREATE = f"""
BEGIN;
CREATE TABLE items (key INTEGER PRIMARY KEY, unix_seconds REAL, points INTEGER, text BLOB);
CREATE INDEX items_by_time ON items (unix_seconds);
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_FORMAT_VERSION};
COMMIT;
"""

_PAGE_BYTES = 4096
_ROW_BYTES = 64  # what SQLite adds to a text, more or less
_KEPT_WAL_PAGES = 64
_SHRINK_FROM_BYTES = 1024 * 1024

_T = TypeVar("_T")


class Spool:
    """A queue on disk.

    Opening it makes folder and file where there are none, for the owner alone to read. A file that is damaged is moved
    aside and a new one begun: only the newest damaged one is kept.

    Args:
        path: the file; SQLite puts one with `-wal` in its name beside it.
        max_bytes: how large the file may grow; beyond that the oldest items go.
        max_age_seconds: older points are of no use to the backend.
        opens_later: the file is opened with its first use; until then nothing is known of what waits in it.

    Attributes:
        points: how many wait.
        text_bytes: their size, without what the file adds.
        oldest_unix_seconds: time of the oldest, None when there are none.

    Raises:
        SinkError: the file cannot be used, another process does, or the disk is full. The message says what to do.
    """

    def __init__(self, path: Path, max_bytes: int, max_age_seconds: float, *, opens_later: bool = False) -> None:
        self.points = 0
        self.text_bytes = 0
        self.oldest_unix_seconds: float | None = None
        self._path = path
        self._max_bytes = max_bytes
        self._max_age_seconds = max_age_seconds
        self._next_key = 1
        self._removed_up_to = 0
        self._lost_points = 0
        self._connection = None if opens_later else self._open_or_begin()

    def append(self, items: Sequence[Item]) -> int:
        """Takes items, all or none of them; a MiB or so at once keeps the file beside the spool small.

        Returns:
            How many points were dropped to make room, oldest first, and with a file that turned out damaged.

        Raises:
            SinkError: none was taken: the disk is full, say.
        """
        dropped = self._change(lambda: self._append(items))
        lost, self._lost_points = self._lost_points, 0
        return dropped + lost

    def first(self, max_bytes: int) -> list[tuple[int, Item]]:
        """Returns the oldest items with their keys: as many as have `max_bytes` of text, at least one if there are any.

        Raises:
            SinkError: they cannot be read.
        """
        found: list[tuple[int, Item]] = []

        def read() -> None:
            size = 0
            query = "SELECT key, text, points, unix_seconds FROM items WHERE key > ? ORDER BY key"
            with closing(self._database.execute(query, (self._removed_up_to,))) as rows:
                for key, text, points, unix_seconds in rows:
                    size += len(text)
                    if found and size > max_bytes:
                        break
                    found.append((key, Item(text, points, unix_seconds)))

        self._guarded(read)
        return found

    def remove(self, up_to_key: int) -> None:
        """Removes the items up to one that `first` returned, for they were delivered.

        Raises:
            SinkError: that could not be written. `first` does not return them again, until the next start.
        """
        self._removed_up_to = max(self._removed_up_to, up_to_key)
        self._change(lambda: self._delete("key <= ?", self._removed_up_to))

    def expire(self, now_unix_seconds: float) -> int:
        """Removes what is too old, and returns how many points that were.

        Raises:
            SinkError: that could not be written.
        """
        before = now_unix_seconds - self._max_age_seconds
        if self.oldest_unix_seconds is None or self.oldest_unix_seconds >= before:
            return 0
        return self._change(lambda: self._delete("unix_seconds < ?", before))

    def close(self) -> None:
        """Closes the file; the items stay in it."""
        if self._connection is not None:
            with suppress(sqlite3.Error):  # what could not be tidied up is at the next start
                self._connection.close()

    # --- changes -----------------------------------------------------------------------------------------------------

    def _append(self, items: Sequence[Item]) -> int:
        start, kept_bytes = len(items), 0
        while start and kept_bytes + _file_bytes(items[start - 1]) <= self._max_bytes:
            start -= 1
            kept_bytes += _file_bytes(items[start])
        kept = items[start:]
        dropped = sum(item.points for item in items[:start]) + self._make_room(kept_bytes)
        rows = [(key, item.unix_seconds, item.points, item.text) for key, item in enumerate(kept, self._next_key)]
        self._database.executemany("INSERT INTO items VALUES (?, ?, ?, ?)", rows)
        self._next_key += len(rows)
        self.points += sum(item.points for item in kept)
        self.text_bytes += sum(len(item.text) for item in kept)
        return dropped + self._make_room(0)

    def _make_room(self, wanted_bytes: int) -> int:
        """Drops the oldest items until so much more fits, and returns how many points that were."""
        dropped = 0
        while (excess := self._used_bytes() + wanted_bytes - self._max_bytes) > 0:
            last_key = None
            with closing(self._database.execute("SELECT key, length(text) FROM items ORDER BY key")) as rows:
                for key, size in rows:
                    last_key = key
                    excess -= size + _ROW_BYTES
                    if excess <= 0:
                        break
            if last_key is None:
                break
            dropped += self._delete("key <= ?", last_key)
        return dropped

    def _used_bytes(self) -> int:
        return (self._number("PRAGMA page_count") - self._number("PRAGMA freelist_count")) * _PAGE_BYTES

    def _delete(self, condition: str, limit: float) -> int:
        (points, size), *_ = self._database.execute(
            f"SELECT coalesce(sum(points), 0), coalesce(sum(length(text)), 0) FROM items WHERE {condition}",  # noqa: S608
            (limit,),
        )
        self._database.execute(f"DELETE FROM items WHERE {condition}", (limit,))  # noqa: S608 - conditions are ours
        self.points -= points
        self.text_bytes -= size
        return int(points)

    def _change(self, change: Callable[[], int]) -> int:
        """Runs a change as a whole: all of it is stored, or the spool is as before."""

        def run() -> int:
            before = self.points, self.text_bytes, self._next_key
            self._database.execute("BEGIN IMMEDIATE")
            try:
                result = change()
                oldest = self._oldest()
                self._database.execute("COMMIT")
            except BaseException:
                self.points, self.text_bytes, self._next_key = before
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
            self.oldest_unix_seconds = oldest
            with suppress(sqlite3.OperationalError):  # a full disk: the change itself is stored
                self._shrink()
            return result

        return self._guarded(run)

    def _oldest(self) -> float | None:
        ((oldest,),) = self._database.execute("SELECT min(unix_seconds) FROM items")
        return None if oldest is None else float(oldest)

    def _shrink(self) -> None:
        """Gives back the space of a spool that was emptied."""
        if self.points or self._number("PRAGMA page_count") * _PAGE_BYTES < _SHRINK_FROM_BYTES:
            return
        self._database.execute("VACUUM")
        self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _number(self, query: str) -> int:
        ((number,),) = self._database.execute(query)
        return int(number)

    # --- the file ----------------------------------------------------------------------------------------------------

    def _guarded(self, work: Callable[[], _T]) -> _T:
        """Runs work on the file; when that turns out damaged, once more on a new one."""
        self._connection = self._connection or self._open_or_begin()
        with self._translated():
            try:
                return work()
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise
                self._database.close()
                self._lost_points += self.points
                self._put_aside(error)
            self._connection = self._open()
            return work()

    @property
    def _database(self) -> sqlite3.Connection:
        if self._connection is None:
            raise RuntimeError("used before it was opened")
        return self._connection

    def _open_or_begin(self) -> sqlite3.Connection:
        with self._translated():
            try:
                return self._open()
            except sqlite3.DatabaseError as error:
                if not _is_damaged(error):
                    raise
                self._put_aside(error)
            return self._open()

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with suppress(FileExistsError):
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        if not os.access(self._path, os.R_OK | os.W_OK):  # SQLite would open it for reading, and fail later
            raise PermissionError(errno.EACCES, "")
        database = sqlite3.connect(self._path, timeout=0, isolation_level=None, check_same_thread=False)
        try:
            self._set_up(database)
        except BaseException:
            database.close()
            raise
        return database

    def _set_up(self, database: sqlite3.Connection) -> None:
        for setting in (
            f"page_size = {_PAGE_BYTES}",
            "locking_mode = EXCLUSIVE",  # one process has it, and none shares memory with it
            "journal_mode = WAL",
            "synchronous = NORMAL",  # a crash of the machine may cost the last items, never the file
            f"wal_autocheckpoint = {_KEPT_WAL_PAGES}",
            f"journal_size_limit = {_KEPT_WAL_PAGES * _PAGE_BYTES}",
        ):
            database.execute(f"PRAGMA {setting}").fetchall()
        ((application_id,),) = database.execute("PRAGMA application_id")
        ((version,),) = database.execute("PRAGMA user_version")
        ((tables,),) = database.execute("SELECT count(*) FROM sqlite_schema")
        if not tables:
            database.executescript(_CREATE)
        elif (application_id, version) != (_APPLICATION_ID, _FORMAT_VERSION):
            raise self._failed(_NO_SPOOL)
        database.execute("BEGIN EXCLUSIVE")  # takes the lock, which is kept from now on
        database.execute("COMMIT")
        query = "SELECT count(*), sum(points), sum(length(text)), min(unix_seconds), max(key) FROM items"
        ((count, points, text_bytes, oldest, last_key),) = database.execute(query)
        self.points, self.text_bytes, self.oldest_unix_seconds = points or 0, text_bytes or 0, oldest
        self._next_key = max(self._next_key, (last_key or 0) + 1)
        if count:
            log.info("%s: %d points wait in it, %s", self._name, self.points, format_size(self.text_bytes))

    def _put_aside(self, error: sqlite3.Error) -> None:
        with self._path.open("rb") as file:
            start = file.read(len(_MAGIC))
        if start != _MAGIC and any(start):  # zeros are what a file system may leave of one after a power cut
            raise self._failed(_NO_SPOOL)
        aside = f"{self._path}.corrupt-{time.time():.0f}"
        for old in self._path.parent.glob(f"{self._path.name}.corrupt-*"):
            old.unlink()
        for suffix in ("", "-wal"):
            with suppress(FileNotFoundError):
                Path(f"{self._path}{suffix}").replace(f"{aside}{suffix}")
        log.error("%s is damaged (%s); it is %s now, and a new one was begun", self._name, error, aside)

    @property
    def _name(self) -> str:
        return f"spool {self._path}"

    def _failed(self, reason: str) -> SinkError:
        return SinkError(f"{self._name}: {reason}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            if not isinstance(error, sqlite3.OperationalError) and not _is_damaged(error):
                raise  # a bug of ours
            raise self._failed(f"{error}; {_ADVICE.get(_primary_code(error), _CHECK)}") from error
        except OSError as error:
            raise self._failed(f"{reason_of(error)}; {_CHECK}") from error


_NO_SPOOL = "it is not a spool of this version of fleetmem; move it away, or choose another path"
_CHECK = "check the path, its owner and its permissions"

_ADVICE = {
    sqlite3.SQLITE_FULL: "free some space, or make the spool smaller",
    sqlite3.SQLITE_IOERR: "look into the kernel's log for errors of the disk, and at quotas",
    sqlite3.SQLITE_BUSY: "another fleetmem uses it; stop that, or give each a spool of its own",
    sqlite3.SQLITE_READONLY: _CHECK,
    sqlite3.SQLITE_CANTOPEN: _CHECK,
}


def _primary_code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _is_damaged(error: sqlite3.Error) -> bool:
    return _primary_code(error) in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def _file_bytes(item: Item) -> int:
    """Returns about how much of the file it takes."""
    return len(item.text) + _ROW_BYTES
