"""Whatever a path turns out to be, it is read within limits, or the error says what is wrong."""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fleetmem.runtime.bounded_file import read_bytes, read_text

_SOON_SECONDS = 0.2
_LONG_SECONDS = 30.0


@pytest.fixture
def pipe(tmp_path: Path) -> Path:
    """A named pipe that nobody has opened."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    return path


@pytest.fixture
def writers() -> Iterator[list[threading.Thread]]:
    """Threads that are joined after the test."""
    threads: list[threading.Thread] = []
    yield threads
    for thread in threads:
        thread.join(_LONG_SECONDS)


def _write(path: Path, portions: list[bytes], pause_seconds: float = 0.0) -> threading.Thread:
    def write() -> None:
        with path.open("wb", buffering=0) as file:
            for portion in portions:
                time.sleep(pause_seconds)
                file.write(portion)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_file(tmp_path: Path) -> None:
    """A file is returned as it is, over several portions too."""
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 10_000)
    assert read_bytes(path) == path.read_bytes()


def test_text_has_plain_line_ends(tmp_path: Path) -> None:
    """Line ends are as `Path.read_text` returns them."""
    path = tmp_path / "file"
    path.write_bytes("ä\r\nb\rc\n".encode())
    assert read_text(path) == path.read_text(encoding="utf-8") == "ä\nb\nc\n"


def test_text_that_is_none(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 raise, or are replaced where that is asked for."""
    path = tmp_path / "file"
    path.write_bytes(b"\xff")
    with pytest.raises(UnicodeDecodeError):
        read_text(path)
    assert read_text(path, errors="replace") == "\ufffd"


def test_empty_file(tmp_path: Path) -> None:
    """An empty file and /dev/null hold nothing."""
    (tmp_path / "file").touch()
    assert read_bytes(tmp_path / "file") == b""
    assert read_bytes(Path(os.devnull)) == b""


def test_size_at_the_limit(tmp_path: Path) -> None:
    """The limit itself is accepted, one byte more is not."""
    path = tmp_path / "file"
    path.write_bytes(b"x" * 100)
    assert len(read_bytes(path, limit_bytes=100)) == 100
    with pytest.raises(OSError, match="it holds more than 99 bytes"):
        read_bytes(path, limit_bytes=99)


def test_huge_file(tmp_path: Path) -> None:
    """A file of a tebibyte is refused before it is read."""
    path = tmp_path / "file"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError, match="it holds more than 64 MiB"):
        read_bytes(path)


def test_file_that_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that grows while it is read ends at the limit."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    read = os.read

    def read_and_grow(descriptor: int, size: int) -> bytes:
        with path.open("ab") as file:
            file.write(b"x" * 1000)
        return read(descriptor, size)

    monkeypatch.setattr(os, "read", read_and_grow)
    with pytest.raises(OSError, match="it holds more than 10000 bytes"):
        read_bytes(path, limit_bytes=10_000)


def test_endless_device() -> None:
    """A device without an end ends at the limit."""
    with pytest.raises(OSError, match="it holds more than 2 MiB"):
        read_bytes(Path("/dev/zero"), limit_bytes=2 << 20)


def test_pipe_without_writer(pipe: Path) -> None:
    """A named pipe that nobody writes to is given up after the limit."""
    with pytest.raises(TimeoutError, match=r"did not come within 0\.2 s: does anybody write to it"):
        read_bytes(pipe, limit_seconds=_SOON_SECONDS)


def test_pipe_whose_writer_says_nothing(pipe: Path) -> None:
    """A named pipe whose writer keeps it open is given up after the limit."""
    descriptor = os.open(pipe, os.O_RDWR)
    try:
        os.write(descriptor, b"web01\n")
        with pytest.raises(TimeoutError):
            read_bytes(pipe, limit_seconds=_SOON_SECONDS)
    finally:
        os.close(descriptor)


def test_pipe_that_drips(pipe: Path, writers: list[threading.Thread]) -> None:
    """The limit is one for all that comes: a byte now and then does not prolong it."""
    writers.append(_write_and_ignore(pipe))
    with pytest.raises(TimeoutError):
        read_bytes(pipe, limit_seconds=_SOON_SECONDS)


def _write_and_ignore(pipe: Path) -> threading.Thread:
    def write() -> None:
        try:
            with pipe.open("wb", buffering=0) as file:
                while True:
                    file.write(b"x")
                    time.sleep(0.01)
        except BrokenPipeError:
            pass

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def test_pipe_with_slow_writer(pipe: Path, writers: list[threading.Thread]) -> None:
    """A named pipe is read up to its end, however its writer pauses."""
    writers.append(_write(pipe, [b"web01\n", b"web02\n"], pause_seconds=0.1))
    assert read_bytes(pipe, limit_seconds=_LONG_SECONDS) == b"web01\nweb02\n"


def test_pipe_with_much(pipe: Path, writers: list[threading.Thread]) -> None:
    """More than a pipe holds comes through it."""
    writers.append(_write(pipe, [b"x" * 300_000]))
    assert len(read_bytes(pipe, limit_seconds=_LONG_SECONDS)) == 300_000


def test_pipe_whose_writer_writes_nothing(pipe: Path, writers: list[threading.Thread]) -> None:
    """A writer that comes and goes without a byte leaves an empty text."""
    writers.append(_write(pipe, []))
    assert read_bytes(pipe, limit_seconds=_LONG_SECONDS) == b""


@pytest.mark.parametrize("said", [b"", b"web01\n"])
def test_process_substitution(said: bytes) -> None:
    """A pipe without a name has ended when its writer has gone: no other one can come."""
    reading, writing = os.pipe()
    os.write(writing, said)
    os.close(writing)
    try:
        assert read_bytes(Path(f"/dev/fd/{reading}"), limit_seconds=_LONG_SECONDS) == said
    finally:
        os.close(reading)


@pytest.mark.parametrize("given", ["pipe", "file", "null"])
def test_standard_input(given: str, tmp_path: Path) -> None:
    """Standard input is read as /dev/stdin from a pipe, from a file and from nothing."""
    code = "from fleetmem.runtime.bounded_file import Path, read_text; print(read_text(Path('/dev/stdin')))"
    (tmp_path / "file").write_text("web01")
    line = {"pipe": 'echo web01 | "$@"', "file": f'"$@" < {tmp_path}/file', "null": '"$@" < /dev/null'}[given]
    arguments = ["bash", "-c", line, "-", sys.executable, "-c", code]
    done = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ("" if given == "null" else "web01")


def test_proc_file() -> None:
    """A file of /proc says that it holds 0 bytes, and is read all the same."""
    assert read_bytes(Path("/proc/self/status")).startswith(b"Name:")


def test_folder(tmp_path: Path) -> None:
    """A folder is no file."""
    with pytest.raises(IsADirectoryError, match="Is a directory"):
        read_bytes(tmp_path)


def test_socket(tmp_path: Path) -> None:
    """A socket is no file."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
        with pytest.raises(OSError, match="it is a socket, not a file"):
            read_bytes(tmp_path / "socket")


def test_loop_of_links(tmp_path: Path) -> None:
    """A symbolic link to itself is the system's error."""
    (tmp_path / "link").symlink_to(tmp_path / "link")
    with pytest.raises(OSError, match="symbolic links"):
        read_bytes(tmp_path / "link")


def test_missing_file(tmp_path: Path) -> None:
    """A file that is not there is the system's error."""
    with pytest.raises(FileNotFoundError):
        read_bytes(tmp_path / "none")


def test_file_of_somebody_else(tmp_path: Path) -> None:
    """A file without permission is the system's error."""
    path = tmp_path / "file"
    path.touch()
    path.chmod(0)
    if os.geteuid() == 0:
        pytest.skip("root may read everything")
    with pytest.raises(PermissionError):
        read_bytes(path)


def test_no_descriptor_stays_open(pipe: Path) -> None:
    """An error closes what was opened."""
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - a count
    for _ in range(3):
        with pytest.raises(TimeoutError):
            read_bytes(pipe, limit_seconds=0.01)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208 - a count
