import gzip
import importlib.util
import os
import threading
import time
from io import BytesIO
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import UsageError
from fleetmem.sinks.files import archive
from fleetmem.sinks.files.archive import Compression, RotatedFiles, Rotation

_NOON = 1_704_110_400.0  # 2024-01-01 12:00:00 UTC
_TEXT = b'{"host":"web01"}\n' * 10_000


def names(folder: Path) -> list[str]:
    """Returns what is in a folder."""
    return sorted(path.name for path in folder.iterdir() if path.is_file())


def unpacked(path: Path) -> bytes:
    """Returns what a rotated file holds."""
    data = path.read_bytes()
    match path.suffix:
        case ".gz":
            return gzip.decompress(data)
        case ".zst":
            return zstandard.ZstdDecompressor().stream_reader(BytesIO(data)).read()
    return data


def tidy(path: Path, rotation: Rotation) -> RotatedFiles:
    """Does what is to be done with the rotated files beside a path."""
    files = RotatedFiles(path, rotation)
    files.tidy_soon()
    files.wait(20)
    return files


@pytest.mark.parametrize(
    ("name", "first", "second"),
    [
        ("memory.jsonl", "memory-20240101T120000Z.jsonl", "memory-20240101T120000Z-1.jsonl"),
        ("memory", "memory-20240101T120000Z", "memory-20240101T120000Z-1"),
        ("a[b.c].csv", "a[b.c]-20240101T120000Z.csv", "a[b.c]-20240101T120000Z-1.csv"),
    ],
)
def test_names(tmp_path: Path, name: str, first: str, second: str) -> None:
    """The time in UTC, and a number for those of one second, compressed ones included."""
    files = RotatedFiles(tmp_path / name, Rotation())
    assert files.free_path(_NOON).name == first
    (tmp_path / f"{first}.gz").touch()
    assert files.free_path(_NOON + 0.9).name == second
    (tmp_path / second).touch()
    (tmp_path / f"x{second}").touch()
    assert [rotated.path.name for rotated in files.files()] == [f"{first}.gz", second]


def test_numbers_are_in_order(tmp_path: Path) -> None:
    """The tenth file of a second is later than the second one."""
    files = RotatedFiles(tmp_path / "m", Rotation())
    made = []
    for _ in range(12):
        made.append(files.free_path(_NOON))
        made[-1].touch()
    assert [rotated.path for rotated in files.files()] == made


@pytest.mark.parametrize("compression", [Compression.GZIP, Compression.ZSTD])
def test_compression(tmp_path: Path, compression: Compression) -> None:
    """All of it comes back, by any program that reads the format; who may read it stays the same."""
    path = tmp_path / "m-20240101T120000Z.jsonl"
    path.write_bytes(_TEXT)
    path.chmod(0o640)
    tidy(tmp_path / "m.jsonl", Rotation(compression=compression))
    (packed,) = tmp_path.glob("m-*")
    assert packed.name == f"m-20240101T120000Z.jsonl{compression.suffix}"
    assert unpacked(packed) == _TEXT
    assert packed.stat().st_mode & 0o777 == 0o640
    assert packed.stat().st_size < len(_TEXT) / 10


def test_what_is_kept(tmp_path: Path) -> None:
    """The last ones, compressed or not; nothing but rotated files is touched."""
    for day in range(1, 6):
        name = f"m-2024010{day}T000000Z.csv" + (".gz" if day % 2 else "")
        (tmp_path / name).write_bytes(gzip.compress(b"x"))
    for other in ("m.csv", "m-2024.csv", "m-20240101T000000Z.csv.bak", "mm-20240101T000000Z.csv", "m-20240101T000000Z"):
        (tmp_path / other).touch()
    others = {"m.csv", "m-2024.csv", "m-20240101T000000Z.csv.bak", "mm-20240101T000000Z.csv", "m-20240101T000000Z"}
    tidy(tmp_path / "m.csv", Rotation(keep=2))
    assert set(names(tmp_path)) == others | {"m-20240104T000000Z.csv", "m-20240105T000000Z.csv.gz"}


def test_nothing_to_do_without_settings(tmp_path: Path) -> None:
    """No compression, no limit: rotated files stay as they are."""
    (tmp_path / "m-20240101T000000Z.csv").touch()
    tidy(tmp_path / "m.csv", Rotation())
    assert names(tmp_path) == ["m-20240101T000000Z.csv"]


def test_what_a_killed_process_left(tmp_path: Path) -> None:
    """Half a compressed file goes and is made again; an original whose compressed file is whole goes."""
    begun, done = "m-20240101T000000Z.csv", "m-20240102T000000Z.csv"
    (tmp_path / begun).write_bytes(b"begun\n")
    (tmp_path / f"{begun}.gz.tmp").write_bytes(b"\x1f\x8b")
    (tmp_path / done).write_bytes(b"done\n")
    (tmp_path / f"{done}.gz").write_bytes(gzip.compress(b"done\n"))
    (tmp_path / "m-20240103T000000Z.csv.gz.tmp").write_bytes(b"of an original that somebody deleted")
    tidy(tmp_path / "m.csv", Rotation(compression=Compression.GZIP))
    assert names(tmp_path) == [f"{begun}.gz", f"{done}.gz"]
    assert [unpacked(tmp_path / name) for name in names(tmp_path)] == [b"begun\n", b"done\n"]


def test_an_original_goes_also_when_nothing_is_compressed_any_more(tmp_path: Path) -> None:
    """A file is never there twice, whatever the configuration says now."""
    (tmp_path / "m-20240102T000000Z.csv").write_bytes(b"done\n")
    (tmp_path / "m-20240102T000000Z.csv.gz").write_bytes(gzip.compress(b"done\n"))
    tidy(tmp_path / "m.csv", Rotation(keep=5))
    assert names(tmp_path) == ["m-20240102T000000Z.csv.gz"]


def test_names_are_in_utc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the collector stands: no hour comes twice."""
    monkeypatch.setenv("TZ", "XYZ-9")
    time.tzset()
    try:
        assert RotatedFiles(tmp_path / "m", Rotation()).free_path(_NOON).name == "m-20240101T120000Z"
    finally:
        monkeypatch.undo()
        time.tzset()


def test_stopping_leaves_the_original(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end nothing is waited for: the file is compressed after the next start."""
    path = tmp_path / "m-20240101T000000Z.csv"
    path.write_bytes(_TEXT)
    has_begun, goes_on = threading.Event(), threading.Event()

    class SlowPacker:
        def __enter__(self) -> "SlowPacker":
            return self

        def __exit__(self, *_error: object) -> None:
            pass

        def write(self, data: bytes) -> int:
            has_begun.set()
            goes_on.wait(20)
            return len(data)

    monkeypatch.setattr(archive, "_packer", lambda *_args: SlowPacker())
    monkeypatch.setattr(archive, "_CHUNK_BYTES", 1000)
    monkeypatch.setattr(archive, "ARCHIVE_SECONDS", 0.01)
    files = RotatedFiles(tmp_path / "m.csv", Rotation(compression=Compression.GZIP, keep=1))
    files.tidy_soon()
    assert has_begun.wait(20)
    files.stop()
    goes_on.set()
    files.wait(20)
    files.tidy_soon()
    files.wait(20)
    assert names(tmp_path) == [path.name]
    assert path.read_bytes() == _TEXT


def test_a_second_rotation_while_the_first_is_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread does them all: what comes meanwhile is not forgotten."""
    goes_on = threading.Event()
    pack = RotatedFiles._pack

    def slow(self: RotatedFiles, path: Path) -> None:
        goes_on.wait(20)
        pack(self, path)

    monkeypatch.setattr(RotatedFiles, "_pack", slow)
    files = RotatedFiles(tmp_path / "m", Rotation(compression=Compression.GZIP))
    for day in (1, 2):
        (tmp_path / f"m-2024010{day}T000000Z").write_bytes(b"x")
        files.tidy_soon()
    goes_on.set()
    files.wait(20)
    assert names(tmp_path) == ["m-20240101T000000Z.gz", "m-20240102T000000Z.gz"]


def test_a_disk_that_is_too_full_to_compress(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The original stays, nothing half lies about, and the log says so."""
    (tmp_path / "m-20240101T000000Z").write_bytes(b"x")

    def fail(_file: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    tidy(tmp_path / "m", Rotation(compression=Compression.GZIP))
    assert names(tmp_path) == ["m-20240101T000000Z"]
    assert "m-20240101T000000Z: not compressed: no space left on device" in caplog.text


def test_a_folder_that_is_gone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is said, and the thread ends in order."""
    tidy(tmp_path / "nowhere" / "m", Rotation(keep=1))
    assert "rotated files are as they were: no such file or directory" in caplog.text


def test_zstd_without_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said at the start, with the command that mends it."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(UsageError, match=r"zstd needs a package: pip install 'fleetmem\[zstd\]'"):
        RotatedFiles(tmp_path / "m", Rotation(compression=Compression.ZSTD))
    RotatedFiles(tmp_path / "m", Rotation(compression=Compression.GZIP))


@pytest.mark.parametrize(
    ("last", "now", "is_time"),
    [
        (_NOON - 0.1, _NOON, True),
        (_NOON, _NOON + 3599.9, False),
        (_NOON, _NOON + 3600, True),
        (_NOON + 3600, _NOON, False),
    ],
)
def test_time_is_up_at_full_periods(last: float, now: float, *, is_time: bool) -> None:
    """At full hours, not an hour after the start; a clock that is set back rotates nothing."""
    assert Rotation(every_seconds=3600).is_time(last, now) is is_time
    assert not Rotation().is_time(last, now)


@given(st.floats(0, 2e9), st.floats(0, 1e6), st.sampled_from([60.0, 3600.0, 86400.0]))
def test_a_period_never_is_in_two_files_for_long(last: float, after: float, period: float) -> None:
    """Whenever more than a period has passed it is time."""
    if after >= period:
        assert Rotation(every_seconds=period).is_time(last, last + after)
