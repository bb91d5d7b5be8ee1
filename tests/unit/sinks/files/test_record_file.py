import errno
import os
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import SinkError
from fleetmem.sinks.files.archive import Compression, Rotation
from fleetmem.sinks.files.record_file import RecordFile

_HEADER = b"a,b\n"
_NOON = 1_704_110_400.0  # 2024-01-01 12:00:00 UTC


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file that is not there yet, in a folder that is."""
    folder = tmp_path / "data"
    folder.mkdir()
    return folder / "m.csv"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Sets the time."""

    def set_to(unix_seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: unix_seconds)

    set_to(_NOON)
    return set_to


def open_file(path: Path, header: bytes = _HEADER, **rotation: object) -> RecordFile:
    """Returns a file with these settings."""
    return RecordFile(path, header, Rotation(**rotation))  # type: ignore[arg-type]


def contents(path: Path) -> dict[str, bytes]:
    """Returns all files beside a path."""
    return {found.name: found.read_bytes() for found in sorted(path.parent.iterdir())}


def write_all(path: Path, *texts: bytes, header: bytes = _HEADER, **rotation: object) -> None:
    """Writes these texts to a file, one after the other, and closes it."""
    file = open_file(path, header, **rotation)
    for text in texts:
        file.write(text)
    file.archive.wait(20)
    file.close()


@contextmanager
def largest_file(size_bytes: int) -> Iterator[None]:
    """A disk on which files cannot grow beyond that: the kernel writes what fits, and then refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file(path: Path) -> None:
    """The header once, then the lines."""
    write_all(path, b"1,2\n", b"3,4\n5,6\n")
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,4\n5,6\n"}


def test_a_restart_goes_on_in_the_file(path: Path) -> None:
    """Without a second header."""
    write_all(path, b"1,2\n")
    write_all(path, b"3,4\n")
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,4\n"}


def test_rotation_by_size(path: Path, clock: Callable[[float], None]) -> None:
    """No file is larger than it may be; each has its header, and whole lines."""
    del clock
    write_all(path, b"1,2\n3,4\n5,6\n", b"7,8\n", max_bytes=12)
    assert contents(path) == {
        "m-20240101T120000Z.csv": b"a,b\n1,2\n3,4\n",
        "m.csv": b"a,b\n5,6\n7,8\n",
    }


def test_a_line_longer_than_a_file_may_be(path: Path, clock: Callable[[float], None]) -> None:
    """It has a file of its own, and is not cut."""
    del clock
    write_all(path, b"1\n" + b"x" * 50 + b"\n2\n", max_bytes=8)
    assert list(contents(path).values()) == [b"a,b\n" + b"x" * 50 + b"\n", b"a,b\n1\n", b"a,b\n2\n"]


def test_rotation_by_time(path: Path, clock: Callable[[float], None]) -> None:
    """At full hours, with the first line that comes after."""
    file = open_file(path, every_seconds=3600)
    clock(_NOON + 3599)
    file.write(b"1,2\n")
    clock(_NOON + 3600)
    file.write(b"3,4\n")
    clock(_NOON + 3601)
    file.write(b"5,6\n")
    file.close()
    assert contents(path) == {"m-20240101T130000Z.csv": b"a,b\n1,2\n", "m.csv": b"a,b\n3,4\n5,6\n"}


def test_rotation_by_time_across_a_restart(path: Path, clock: Callable[[float], None]) -> None:
    """A file of yesterday is not gone on with today."""
    write_all(path, b"1,2\n", every_seconds=3600)
    os.utime(path, (_NOON - 1, _NOON - 1))
    clock(_NOON)
    write_all(path, b"3,4\n", every_seconds=3600)
    os.utime(path, (_NOON, _NOON))
    write_all(path, b"5,6\n", every_seconds=3600)
    assert contents(path) == {"m-20240101T120000Z.csv": b"a,b\n1,2\n", "m.csv": b"a,b\n3,4\n5,6\n"}


def test_a_file_without_lines_is_not_rotated(path: Path, clock: Callable[[float], None]) -> None:
    """Where nobody has written anything, there is nothing to keep."""
    path.write_bytes(_HEADER)
    os.utime(path, (_NOON - 1, _NOON - 1))
    clock(_NOON)
    write_all(path, b"1,2,3,4\n", every_seconds=3600, max_bytes=5)
    assert contents(path) == {"m.csv": b"a,b\n1,2,3,4\n"}


def test_a_rotation_by_time_that_failed_is_tried_again(
    path: Path, clock: Callable[[float], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the next line, not with the next period."""

    def fail(_path: Path, _target: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    file = open_file(path, every_seconds=3600)
    file.write(b"1,2\n")
    clock(_NOON + 3600)
    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", fail)
        file.write(b"3,4\n")
    file.write(b"5,6\n")
    file.close()
    assert contents(path) == {"m-20240101T130000Z.csv": b"a,b\n1,2\n3,4\n", "m.csv": b"a,b\n5,6\n"}


def test_rotated_files_are_compressed_and_few_are_kept(path: Path, clock: Callable[[float], None]) -> None:
    """Both settings do what they say."""
    del clock
    lines = [b"%d\n" % number for number in range(6)]
    write_all(path, *lines, max_bytes=6, keep=2, compression=Compression.GZIP)
    assert list(contents(path)) == ["m-20240101T120000Z-3.csv.gz", "m-20240101T120000Z-4.csv.gz", "m.csv"]


def test_what_a_killed_process_left_is_compressed_at_the_start(path: Path) -> None:
    """Not only with the next rotation, which may be a day away."""
    path.with_name("m-20240101T120000Z.csv").write_bytes(b"x")
    write_all(path, b"1\n", compression=Compression.GZIP)
    assert list(contents(path)) == ["m-20240101T120000Z.csv.gz", "m.csv"]


@pytest.mark.parametrize(
    ("before", "header", "after"),
    [
        (b"a,b\n1,2\n3,", _HEADER, b"a,b\n1,2\n5,6\n"),
        (b"a,b\n3,", _HEADER, b"a,b\n5,6\n"),
        (b"a,b\n" + b"1,2\n" * 50_000 + b"3," * 100_000, _HEADER, b"a,b\n" + b"1,2\n" * 50_000 + b"5,6\n"),
        (b"a,", _HEADER, b"a,b\n5,6\n"),
        (b"", _HEADER, b"a,b\n5,6\n"),
        (b"{}\n{", b"", b"{}\n5,6\n"),
        (b"", b"", b"5,6\n"),
    ],
)
def test_half_a_line_is_cut_off(path: Path, before: bytes, header: bytes, after: bytes) -> None:
    """What a killed process left is mended before anything is added."""
    path.write_bytes(before)
    write_all(path, b"5,6\n", header=header)
    assert contents(path) == {"m.csv": after}


@pytest.mark.parametrize(("before", "header"), [(b"a,b,c\n1,2,3\n", _HEADER), (b"b", _HEADER), (b"precious", b"")])
def test_what_is_not_ours_is_kept(
    path: Path, before: bytes, header: bytes, clock: Callable[[float], None], caplog: pytest.LogCaptureFixture
) -> None:
    """Other columns, or no lines at all: moved aside under a name that no rotation deletes."""
    del clock
    path.with_name("m.csv.aside-1704110400").write_bytes(b"the one before")
    path.write_bytes(before)
    write_all(path, b"5,6\n", header=header, keep=1, compression=Compression.GZIP)
    assert contents(path) == {
        "m.csv": header + b"5,6\n",
        "m.csv.aside-1704110400": b"the one before",
        "m.csv.aside-1704110400-1": before,
    }
    assert "m.csv: what is there is not ours, it is called m.csv.aside-1704110400-1 now" in caplog.text


def test_moved_away(path: Path) -> None:
    """Logrotate moves the file: the next line goes to a new one."""
    file = open_file(path)
    file.write(b"1,2\n")
    path.rename(path.with_name("m.csv.1"))
    file.write(b"3,4\n")
    path.unlink()
    file.write(b"5,6\n")
    path.rename(path.with_name("m.csv.2"))
    path.write_bytes(b"a,b\n7,8\n")
    file.write(b"9,0\n")
    file.close()
    assert contents(path) == {"m.csv": b"a,b\n7,8\n9,0\n", "m.csv.1": b"a,b\n1,2\n", "m.csv.2": b"a,b\n5,6\n"}


def test_emptied(path: Path) -> None:
    """Logrotate's copytruncate empties the file: it begins with a header again."""
    file = open_file(path)
    file.write(b"1,2\n")
    os.truncate(path, 0)
    file.write(b"3,4\n")
    file.close()
    assert contents(path) == {"m.csv": b"a,b\n3,4\n"}


def test_a_full_disk_leaves_no_half_line(path: Path) -> None:
    """The kernel wrote some of it: that is taken back, and all of it written when there is room."""
    file = open_file(path)
    file.write(b"1,2\n")
    with largest_file(10), pytest.raises(SinkError, match=r"m.csv: file too large"):
        file.write(b"3,4\n5,6\n")
    assert contents(path) == {"m.csv": b"a,b\n1,2\n"}
    file.write(b"3,4\n5,6\n7,8\n")
    file.close()
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,4\n5,6\n7,8\n"}


def test_a_full_disk_with_the_first_line(path: Path) -> None:
    """Then there is no header either, and later just one."""
    file = open_file(path)
    with largest_file(6), pytest.raises(SinkError):
        file.write(b"1,2\n")
    assert contents(path) == {"m.csv": b""}
    file.write(b"1,2\n")
    file.close()
    assert contents(path) == {"m.csv": b"a,b\n1,2\n"}


def test_lines_before_a_failure_are_not_written_twice(path: Path, clock: Callable[[float], None]) -> None:
    """The first of two files is done when the second one fails: the next try goes on from there."""
    del clock
    file = open_file(path, max_bytes=100)
    text = b"1" * 90 + b"\n" + b"2" * 80 + b"\n"
    with largest_file(95), pytest.raises(SinkError):
        file.write(text + b"3" * 50 + b"\n" + b"4" * 99 + b"\n")
    file.write(text + b"3" * 50 + b"\n" + b"4" * 99 + b"\n")
    file.write(text + b"3" * 50 + b"\n")
    file.close()
    written = b"".join(data.replace(_HEADER, b"") for data in contents(path).values())
    assert sorted(written.splitlines()) == [b"1" * 90] * 2 + [b"2" * 80] * 2 + [b"3" * 50] * 2 + [b"4" * 99]


def test_another_text_after_a_failure_is_written_whole(path: Path) -> None:
    """What was dropped meanwhile is not asked for again."""
    file = open_file(path)
    with largest_file(6), pytest.raises(SinkError):
        file.write(b"1,2\n")
    file.write(b"3,4\n")
    file.close()
    assert contents(path) == {"m.csv": b"a,b\n3,4\n"}


def test_half_a_line_that_cannot_be_taken_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When even that fails, it is cut off with the next try."""
    file = open_file(path)
    file.write(b"1,2\n")

    def fail(_file: int, _size: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as patched, largest_file(10):
        patched.setattr(os, "ftruncate", fail)
        with pytest.raises(SinkError):
            file.write(b"3,4\n")
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,"}
    file.write(b"3,4\n")
    file.close()
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,4\n"}


def test_a_folder_that_is_missing(path: Path) -> None:
    """The message says which to make; once it is there, it is used."""
    file = open_file(path.parent / "new" / "m.csv")
    with pytest.raises(SinkError, match=r"file .*m.csv: there is no folder .*/new; make it, writable"):
        file.write(b"1,2\n")
    (path.parent / "new").mkdir()
    file.write(b"1,2\n")
    file.close()
    assert (path.parent / "new" / "m.csv").read_bytes() == b"a,b\n1,2\n"


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.EACCES, "permission denied; let this user write to it"),
        (errno.ENOSPC, "no space left on device; free some"),
        (errno.EDQUOT, "disk quota exceeded; free some"),
        (errno.EROFS, "read-only file system"),
    ],
)
def test_advice(path: Path, monkeypatch: pytest.MonkeyPatch, number: int, advice: str) -> None:
    """What failed, why, and what to do."""

    def fail(*_args: object) -> int:
        raise OSError(number, os.strerror(number))

    file = open_file(path)
    monkeypatch.setattr(os, "write", fail)
    with pytest.raises(SinkError, match=f"file {path}: {advice}"):
        file.write(b"1,2\n")
    file.close()


def test_a_folder_in_place_of_the_file(path: Path) -> None:
    """It is none."""
    with pytest.raises(SinkError, match="it is a folder; give the path of a file"):
        open_file(path.parent).write(b"1\n")


def test_a_pipe_in_place_of_the_file(path: Path) -> None:
    """A pipe can neither be rotated nor mended, and must not be waited for."""
    os.mkfifo(path)
    with pytest.raises(SinkError, match=r"m.csv: not a regular file"):
        open_file(path).write(b"1\n")


def test_two_that_write_to_one_file(path: Path) -> None:
    """They would cut off each other's lines: the second one is told, and takes over when the first one has gone."""
    first, second = open_file(path), open_file(path)
    first.write(b"1,2\n")
    with pytest.raises(SinkError, match=r"m.csv: another fleetmem writes to it"):
        second.write(b"3,4\n")
    first.close()
    second.write(b"3,4\n")
    second.close()
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,4\n"}


def test_a_file_system_without_locks(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be written to all the same."""

    def fail(_file: int, _how: int) -> None:
        raise OSError(errno.EOPNOTSUPP, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", fail)
    write_all(path, b"1,2\n")
    assert contents(path) == {"m.csv": b"a,b\n1,2\n"}


def test_a_rotation_that_fails_loses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The file grows on, that is said once, and it is rotated when that is possible again."""
    file = open_file(path, max_bytes=8)
    with monkeypatch.context() as patched:

        def fail(_path: Path, _target: Path) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

        patched.setattr(Path, "rename", fail)
        file.write(b"1,2\n3,4\n5,6\n")
    assert contents(path) == {"m.csv": b"a,b\n1,2\n3,4\n5,6\n"}
    assert caplog.text.count("not rotated, it grows on: permission denied; is its folder writable?") == 1
    file.write(b"7,8\n")
    file.close()
    assert path.read_bytes() == b"a,b\n7,8\n"


def test_flush(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is asked to store it, and its refusal is told."""
    file = open_file(path)
    file.flush()
    file.write(b"1,2\n")
    file.flush()

    def fail(_file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(SinkError, match="input/output error"):
        file.flush()
    file.close()


_LINES = st.lists(st.binary(max_size=30).map(lambda line: line.replace(b"\n", b"")), max_size=6)


@given(st.lists(_LINES, max_size=8), st.integers(5, 60))
def test_no_line_is_lost_or_cut(
    tmp_path_factory: pytest.TempPathFactory, batches: list[list[bytes]], max_bytes: int
) -> None:
    """Whatever the sizes: all lines, once, in order, and no file larger than it may be unless it is one line."""
    path = tmp_path_factory.mktemp("lines") / "m.csv"
    texts = [b"".join(line + b"\n" for line in batch) for batch in batches]
    file = open_file(path, max_bytes=max_bytes)
    for text in texts:
        file.write(text)
    files = [
        found.read_bytes() for found in (*(rotated.path for rotated in file.archive.files()), path) if found.exists()
    ]
    file.close()
    assert b"".join(data.removeprefix(_HEADER) for data in files) == b"".join(texts)
    for data in filter(None, files):
        assert data.startswith(_HEADER)
        assert len(data) <= max_bytes or data.count(b"\n") == 2
