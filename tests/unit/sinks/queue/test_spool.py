import asyncio
import logging
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fleetmem.errors import SinkError
from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item
from fleetmem.sinks.queue.disk import DiskQueue
from fleetmem.sinks.queue.spool import Spool

DAY_SECONDS = 86400.0
MEBIBYTE = 2**20


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the spool is."""
    return tmp_path / "folder" / "carbon.spool"


@pytest.fixture
def spool(path: Path) -> Iterator[Spool]:
    """A spool that is large enough."""
    with closing(Spool(path, 64 * MEBIBYTE, DAY_SECONDS)) as spool:
        yield spool


def _item(number: int, size: int = 10, unix_seconds: float = 1_700_000_000.0) -> Item:
    return Item(b"%d:" % number + b"x" * size, 3, unix_seconds)


def _all(spool: Spool) -> list[Item]:
    return [item for _key, item in spool.first(2**40)]


def _disk_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.parent.iterdir())


def _counts(spool: Spool) -> tuple[int, int, float | None]:
    return spool.points, spool.text_bytes, spool.oldest_unix_seconds


# --- a queue ---------------------------------------------------------------------------------------------------------


def test_first_in_first_out(spool: Spool) -> None:
    """Items come back as they were, oldest first, until they are removed."""
    items = [_item(number, unix_seconds=100 + number) for number in range(4)]
    assert spool.append(items[:2]) == 0
    assert spool.append(items[2:]) == 0
    assert _all(spool) == items
    keys = [key for key, _item in spool.first(2**40)]
    assert keys == sorted(set(keys))
    spool.remove(keys[1])
    assert _all(spool) == items[2:]
    assert _counts(spool) == (6, 24, 102.0)
    spool.remove(keys[3])
    assert _all(spool) == []
    assert _counts(spool) == (0, 0, None)


def test_as_much_as_asked_for(spool: Spool) -> None:
    """`first` returns what has so many bytes, and one at least."""
    spool.append([_item(number, 98) for number in range(5)])
    assert [len(spool.first(size)) for size in (0, 100, 199, 200, 299, 300)] == [1, 1, 1, 2, 2, 3]


def test_keys_are_not_used_again(spool: Spool) -> None:
    """A key that was removed does not remove what came later."""
    spool.append([_item(1)])
    ((key, _),) = spool.first(1)
    spool.remove(key)
    spool.append([_item(2)])
    spool.remove(key)
    assert _all(spool) == [_item(2)]


def test_a_restart(path: Path) -> None:
    """All of it is there again, counted, and the queue goes on."""
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        spool.append([_item(number, unix_seconds=number) for number in range(3)])
        counts = _counts(spool)
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        assert _counts(spool) == counts == (9, 36, 0.0)
        spool.append([_item(3)])
        assert _all(spool) == [*(_item(number, unix_seconds=number) for number in range(3)), _item(3)]


def test_what_is_too_old_goes(path: Path) -> None:
    """Wherever in the queue it is; how many points that were is returned."""
    with closing(Spool(path, MEBIBYTE, 60)) as spool:
        spool.append([_item(number, unix_seconds=seconds) for number, seconds in enumerate((100, 50, 120))])
        assert spool.expire(110) == 0
        assert spool.expire(110.5) == 3
        assert spool.oldest_unix_seconds == 100
        assert spool.expire(170) == 3
        assert _all(spool) == [_item(2, unix_seconds=120)]
        assert spool.expire(1e9) == 3
        assert spool.expire(1e9) == 0
        assert _counts(spool) == (0, 0, None)


def test_only_the_owner_may_read(path: Path, spool: Spool) -> None:
    """Folder, file and what SQLite puts beside it."""
    spool.append([_item(1)])
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "carbon.spool": 0o600,
        "carbon.spool-wal": 0o600,
    }
    assert path.parent.stat().st_mode & 0o777 == 0o700


_batches = st.lists(
    st.tuples(st.integers(1, 40), st.sampled_from([0, 50, 3000, 4000, 9000, 14_000]), st.integers(0, 30)), max_size=30
)


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(_batches, st.integers(256 * 1024, 2 * MEBIBYTE))
def test_it_is_a_bounded_queue(
    tmp_path_factory: pytest.TempPathFactory, batches: list[tuple[int, int, int]], max_bytes: int
) -> None:
    """Appended and removed at will: it has what a list would have, but for the oldest, which were counted."""
    path = tmp_path_factory.mktemp("spool") / "spool"
    expected: list[Item] = []
    number = 0
    with closing(Spool(path, max_bytes, DAY_SECONDS)) as spool:
        for count, size, taken in batches:
            items = [_item(number + index, size) for index in range(count)]
            number += count
            expected += items
            dropped = spool.append(items)
            expected = expected[dropped // 3 :]
            assert _all(spool) == expected
            for key, _ in spool.first(2**40)[:taken][-1:]:
                spool.remove(key)
            expected = expected[taken:]
            assert _counts(spool)[:2] == (3 * len(expected), sum(len(item.text) for item in expected))
            assert not dropped or spool.text_bytes <= max_bytes
            assert _disk_bytes(path) <= 1.3 * max_bytes + MEBIBYTE


@pytest.mark.slow
@pytest.mark.parametrize(("size", "count"), [(14_000, 50), (2_500, 50), (5, 1000), (100_000, 5)])
def test_the_file_is_bounded(path: Path, size: int, count: int) -> None:
    """At any time, and most of it is used: five times what fits, large and small, the newest of it stays."""
    max_bytes = 4 * MEBIBYTE
    with closing(Spool(path, max_bytes, DAY_SECONDS)) as spool:
        dropped = batches = 0
        while dropped < 5 * max_bytes / max(size, 50) * 3:
            dropped += spool.append([_item(batches, size)] * count)
            batches += 1
            assert path.stat().st_size <= max_bytes + 256 * 1024  # room is made first, then filled
            assert _disk_bytes(path) <= 1.3 * max_bytes + MEBIBYTE
        assert dropped + spool.points == batches * count * 3
        assert spool.text_bytes + spool.points // 3 * 30 > 0.5 * max_bytes
        assert _all(spool)[-1] == _item(batches - 1, size)


def test_more_at_once_than_fits(path: Path) -> None:
    """The newest of it are taken, the rest and all before are dropped; one that never fits is dropped alone."""
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        spool.append([_item(0)])
        items = [_item(number, 10_000) for number in range(300)]
        dropped = spool.append(items)
        assert dropped + spool.points == 301 * 3
        assert 60 < len(_all(spool)) < 105
        assert _all(spool) == items[-spool.points // 3 :]
        counts = _counts(spool)
        assert spool.append([_item(0, 2 * MEBIBYTE)]) == 3
        assert _counts(spool) == counts
        assert _disk_bytes(path) <= 2.3 * MEBIBYTE


def test_an_empty_spool_is_small(path: Path, spool: Spool) -> None:
    """What an outage took of the disk is given back after it."""
    for _ in range(10):
        spool.append([_item(1, 14_000)] * 50)
    assert _disk_bytes(path) > 7_000_000
    spool.remove(spool.first(2**40)[-1][0])
    assert _disk_bytes(path) < 100_000
    spool.append([_item(2)])
    assert _all(spool) == [_item(2)]


# --- what goes wrong -------------------------------------------------------------------------------------------------


def test_another_process_has_it(path: Path, spool: Spool) -> None:
    """Two would send everything twice: the second is told, and can have it when the first has ended."""
    spool.append([_item(1)])
    open_it = (
        "import sys, pathlib; from fleetmem.sinks.queue.spool import Spool; Spool(pathlib.Path(sys.argv[1]), 10**6, 60)"
    )
    for _ in range(2):
        done = subprocess.run([sys.executable, "-c", open_it, str(path)], capture_output=True, text=True, check=False)
        expected = f"spool {path}: database is locked; another fleetmem uses it; stop that, or give each a spool"
        assert expected in done.stderr
    with pytest.raises(SinkError, match="another fleetmem uses it"):
        Spool(path, MEBIBYTE, DAY_SECONDS)
    assert _all(spool) == [_item(1)]
    spool.close()
    subprocess.run([sys.executable, "-c", open_it, str(path)], check=True)


_APPEND_FOR_EVER = """
import itertools, sys, pathlib
from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item
from fleetmem.sinks.queue.disk import DiskQueue
from fleetmem.sinks.queue.spool import Spool
spool = Spool(pathlib.Path(sys.argv[1]), 2**30, 1e9)
first = spool.points
for number in itertools.count(first, 3):
    spool.append([Item(b"%d " % n + b"x" * 5000 + b"\\n", 1, 1.0 + n) for n in range(number, number + 3)])
    print(number + 3, flush=True)
"""


@pytest.mark.slow
def test_a_kill_at_any_moment(path: Path) -> None:
    """A process that appends is killed, five times over: each time what it took is there, whole, in order, once."""
    for batches in (1, 5, 20, 50, 100):
        command = [sys.executable, "-c", _APPEND_FOR_EVER, str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for _ in range(batches):
                taken = int(process.stdout.readline())
            process.send_signal(signal.SIGKILL)
            rest = process.stdout.read().split()
            taken = int(rest[-1]) if rest else taken
        with closing(Spool(path, 2**30, 1e9)) as spool:
            texts = [item.text for item in _all(spool)]
        assert texts == [b"%d " % number + b"x" * 5000 + b"\n" for number in range(len(texts))]
        assert len(texts) in (taken, taken + 3)


_FILL = """
import pathlib, sys
from fleetmem.errors import SinkError
from fleetmem.sinks.queue.backlog import Backlog, Bounds, Item
from fleetmem.sinks.queue.disk import DiskQueue
from fleetmem.sinks.queue.spool import Spool

def fill(spool):
    number = spool.points
    while True:
        counts = spool.points, spool.text_bytes, spool.oldest_unix_seconds
        try:
            spool.append([Item(b"%d " % n + b"x" * 10_000 + b"\\n", 1, 1.0 + n) for n in range(number, number + 3)])
        except SinkError as error:
            assert counts == (spool.points, spool.text_bytes, spool.oldest_unix_seconds)
            return str(error)
        number += 3

def check(spool, first=0):
    found = spool.first(2**40)
    numbers = [int(item.text.split()[0]) for _key, item in found]
    assert numbers == list(range(first, first + len(found))), numbers
    assert len(found) == spool.points > 10
    return found
"""

_FULL_TMPFS = (
    _FILL
    + """
folder = pathlib.Path(sys.argv[1])
spool = Spool(folder / "spool", 2**30, 1e9)
filler = folder / "filler"
filler.write_bytes(b"x" * 2**20)
error = fill(spool)
assert error == f"spool {folder}/spool: database or disk is full; free some space, or make the spool smaller", error
found = check(spool)
try:
    spool.remove(found[4][0])
except SinkError:
    rest = spool.first(2**40)  # what was sent is not sent again, even when that cannot be written down
else:
    rest = spool.first(2**40)
assert rest == found[5:]
filler.unlink()
spool.remove(found[4][0])
check(spool, 5)
spool.append([Item(b"%d " % (found[-1][0] + 9), 1, 1.0)])
spool.close()
again = Spool(folder / "spool", 2**30, 1e9)
assert again.first(2**40)[:-1] == found[5:]
print("done")
"""
)


def test_a_disk_that_is_full(tmp_path: Path) -> None:
    """On a file system of 4 MiB: the error says what to do, nothing of the append is taken, the rest stays."""
    unshare = shutil.which("unshare")
    inside = 'mount -t tmpfs -o size=4m none "$1" 2>/dev/null || exit 77; exec "$2" -c "$3" "$1"'
    command = [str(unshare), "--user", "--map-root-user", "--mount", "sh", "-c", inside, "-", str(tmp_path)]
    if not unshare or subprocess.run([*command[:4], "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine lets users make no namespaces of their own")
    done = subprocess.run([*command, sys.executable, _FULL_TMPFS], capture_output=True, text=True, check=False)
    if done.returncode == 77:
        pytest.skip("this machine lets no tmpfs be mounted in a namespace")
    assert (done.stdout, done.stderr) == ("done\n", "")


_LIMITED_FILE = (
    _FILL
    + """
import resource
path = pathlib.Path(sys.argv[1])
spool = Spool(path, 2**30, 1e9)
resource.setrlimit(resource.RLIMIT_FSIZE, (700_000, resource.RLIM_INFINITY))
error = fill(spool)
assert error == f"spool {path}: disk I/O error; look into the kernel's log for errors of the disk, and at quotas", error
found = check(spool)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
spool.append([Item(b"%d " % len(found), 1, 1.0)])
assert spool.first(2**40)[:-1] == found
check(spool)
print("done")
"""
)


def test_a_file_that_may_not_grow(path: Path) -> None:
    """A quota, here a limit of the process: the same, and it goes on when there is room."""
    done = subprocess.run([sys.executable, "-c", _LIMITED_FILE, str(path)], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("done\n", "")


def _scribble(path: Path, start: int) -> None:
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(start)
        file.write(b"\xa5" * (size - start))


def _aside(path: Path) -> list[Path]:
    return sorted(path.parent.glob(f"{path.name}.corrupt-*[0-9]"))


@pytest.mark.parametrize("damage", ["pages", "zeros", "cut"])
def test_a_damaged_file_is_put_aside(path: Path, damage: str, caplog: pytest.LogCaptureFixture) -> None:
    """At the start: it is kept under another name, logged, and a new one begun."""
    with closing(Spool(path, 64 * MEBIBYTE, DAY_SECONDS)) as spool:
        spool.append([_item(number, 5000) for number in range(100)])
    if damage == "pages":
        _scribble(path, 4096)
    elif damage == "zeros":
        path.write_bytes(bytes(path.stat().st_size))
    else:
        os.truncate(path, 20_000)
    damaged = path.read_bytes()
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        assert _counts(spool) == (0, 0, None)
        spool.append([_item(1)])
        assert _all(spool) == [_item(1)]
    (aside,) = _aside(path)
    assert aside.read_bytes() == damaged
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert f"spool {path} is damaged" in record.getMessage()
    assert f"it is {aside} now" in record.getMessage()


def test_a_damaged_file_of_a_process_that_was_killed(path: Path, tmp_path: Path) -> None:
    """What SQLite had not yet moved into the file must not end up in the new one."""
    copy = tmp_path / "copy"
    with closing(Spool(path, 64 * MEBIBYTE, DAY_SECONDS)) as spool:
        for _ in range(5):
            spool.append([_item(1, 14_000)] * 50)
        for suffix in ("", "-wal"):
            shutil.copy(f"{path}{suffix}", f"{copy}{suffix}")
    _scribble(copy, 4096)
    with closing(Spool(copy, MEBIBYTE, DAY_SECONDS)) as spool:
        assert _all(spool) == []
        spool.append([_item(2)])
    with closing(Spool(copy, MEBIBYTE, DAY_SECONDS)) as spool:
        assert _all(spool) == [_item(2)]
    assert len(_aside(copy)) == 1


@pytest.mark.parametrize("use", ["first", "append", "remove", "expire"])
def test_a_file_that_is_damaged_later(path: Path, use: str, caplog: pytest.LogCaptureFixture) -> None:
    """While it is used: the same, and the points that it had are counted as dropped by the next append."""
    with closing(Spool(path, 64 * MEBIBYTE, DAY_SECONDS)) as spool:
        for number in range(10):
            spool.append([_item(number, 14_000)] * 50)
    with closing(Spool(path, 64 * MEBIBYTE, DAY_SECONDS)) as spool:
        _scribble(path, 4096)
        spool._database.execute("PRAGMA cache_size = 0")
        spool._database.execute("PRAGMA shrink_memory")
        dropped = 0
        if use == "first":
            assert spool.first(2**40) == []
        elif use == "append":
            dropped += spool.append([_item(1)] * 5)
        elif use == "remove":
            spool.remove(400)
        else:
            assert spool.expire(2e9) == 0
        assert dropped + spool.append([_item(2)]) == 1500
        assert _all(spool)[-1] == _item(2)
        assert spool.points == len(_all(spool)) * 3
    assert len(_aside(path)) == 1
    assert "is damaged" in caplog.text


def test_only_the_newest_damaged_file_is_kept(path: Path) -> None:
    """A disk that fails must not fill up with them."""
    for _ in range(2):
        with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
            spool.append([_item(1)])
        path.write_bytes(bytes(8192))
        old = path.with_name(f"{path.name}.corrupt-1")
        old.touch()
    Spool(path, MEBIBYTE, DAY_SECONDS).close()
    assert len(_aside(path)) == 1
    assert not old.exists()


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    """Somebody's notes, somebody's database, a spool of a later version: an error, and nothing is touched."""
    notes, database, later = tmp_path / "notes", tmp_path / "database", tmp_path / "later"
    notes.write_text("Dear diary, today I have configured fleetmem, and I think that I mistyped a path.\n" * 10)
    with closing(sqlite3.connect(database)) as other:
        other.execute("CREATE TABLE customers (name TEXT)")
    Spool(later, MEBIBYTE, DAY_SECONDS).close()
    with closing(sqlite3.connect(later)) as other:
        other.execute("PRAGMA user_version = 2")
    for path in (notes, database, later):
        before = path.read_bytes()
        with pytest.raises(SinkError, match=f"spool {path}: it is not a spool of this version of fleetmem; move it"):
            Spool(path, MEBIBYTE, DAY_SECONDS)
        # SQLite writes the journal mode into what it can read.
        assert path.read_bytes()[100:] == before[100:]
        assert not _aside(path)


def test_a_path_that_cannot_be(tmp_path: Path) -> None:
    """A folder in its place, a file for a folder: what to check."""
    with pytest.raises(SinkError, match=f"spool {tmp_path}: unable to open database file; check the path, its owner"):
        Spool(tmp_path, MEBIBYTE, DAY_SECONDS)
    (tmp_path / "file").touch()
    with pytest.raises(
        SinkError, match=r"(not a directory|file exists); check the path, its owner and its permissions"
    ):
        Spool(tmp_path / "file" / "spool", MEBIBYTE, DAY_SECONDS)


@pytest.mark.parametrize("mode", [0o400, 0o000])
def test_a_file_that_may_not_be_written(path: Path, mode: int) -> None:
    """It is told with what to check, and stays."""
    if os.getuid() == 0:
        pytest.skip("root may write to every file")
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        spool.append([_item(1)])
    path.chmod(mode)
    with pytest.raises(SinkError, match="check the path, its owner and its permissions"):
        Spool(path, MEBIBYTE, DAY_SECONDS)
    path.chmod(0o600)
    path.parent.chmod(0o500)
    try:
        with pytest.raises(SinkError, match="check the path, its owner and its permissions"):
            Spool(path, MEBIBYTE, DAY_SECONDS)
    finally:
        path.parent.chmod(0o700)
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        assert _all(spool) == [_item(1)]


def test_it_says_what_waits(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """After a restart, once."""
    caplog.set_level(logging.INFO)
    with closing(Spool(path, MEBIBYTE, DAY_SECONDS)) as spool:
        spool.append([_item(1, 2046)] * 2)
    assert not caplog.records
    Spool(path, MEBIBYTE, DAY_SECONDS).close()
    assert caplog.messages == [f"spool {path}: 6 points wait in it, 4.0 KiB"]


def test_a_bug_changes_nothing(spool: Spool) -> None:
    """An exception in the middle of an append surfaces as what it is, and leaves the spool as before it, usable."""
    spool.append([_item(1)])
    wrong: Any = object()
    with pytest.raises(sqlite3.Error, match="not supported"):
        spool.append([_item(2), Item(b"text", 1, wrong)])
    assert (_counts(spool), _all(spool)) == ((3, 12, 1.7e9), [_item(1)])
    spool.append([_item(3)])
    assert _all(spool) == [_item(1), _item(3)]


def test_a_stop_while_the_disk_is_at_work_loses_nothing(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a disk that is slow refuses after all is still in memory."""
    spool, asked, refuse = Spool(path, MEBIBYTE, DAY_SECONDS), threading.Event(), threading.Event()

    def fail_late(_items: Sequence[Item]) -> int:
        asked.set()
        refuse.wait(10)
        raise SinkError("disk full")

    async def main() -> None:
        monkeypatch.setattr(spool, "append", fail_late)
        disk, backlog = DiskQueue(spool, "x:1"), Backlog(Bounds())
        backlog.put(Item(b"a\n", 1, 1.0), 0.0)
        task = asyncio.create_task(disk.take_over(backlog))
        await asyncio.to_thread(asked.wait, 10)
        task.cancel()
        refuse.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert backlog.points == 1
        await disk.close()

    asyncio.run(main())
