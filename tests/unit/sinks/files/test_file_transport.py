import asyncio
import csv
import gc
import gzip
import io
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from fleetmem.errors import SinkError
from fleetmem.model import CollectorStats, Counter
from fleetmem.sinks.files import file_transport as files
from fleetmem.sinks.files.archive import Compression, RotatedFiles, Rotation
from fleetmem.sinks.files.file_transport import FileTransport
from fleetmem.sinks.files.record_file import RecordFile
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.queue.runner import Options, QueuedSink
from fleetmem.sinks.records import RecordEncoding, RecordFormat
from unit.builders import WEB, failure, process, sample

_NAMES = FleetNames("fleetmem", [WEB.name])
_STATS = CollectorStats("ops1", 1_700_000_000.0, (Counter("", "hosts_up", 3), Counter("file", "failing", 0)))

# Writes numbered lines, and says of each batch that it is in the file; compression takes its time, so that it is hit.
_WRITER = """
import asyncio, os, sys, time
from pathlib import Path
from fleetmem.sinks.files.archive import Compression, Rotation
from fleetmem.sinks.files.file_transport import FileTransport

os.fsync = lambda _file: time.sleep(0.02)

async def main(path, first):
    rotation = Rotation(max_bytes=5_000, compression=Compression.GZIP)
    transport = FileTransport(Path(path), b"", rotation)
    number = first
    while True:
        lines = [b'{"number":%d,"filler":"%s"}\\n' % (number + n, b"x" * (n * 37 % 400)) for n in range(20)]
        await transport.send(b"".join(lines), 0)
        number += 20
        print(number, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


class StuckDisk:
    """Holds up the writing thread until it is told to go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.goes_on = threading.Event()
        self.threads: set[int] = set()
        write = RecordFile.write

        def wait_and_write(file: RecordFile, text: bytes) -> None:
            self.threads.add(threading.get_ident())
            self.goes_on.wait(20)
            write(file, text)

        monkeypatch.setattr(RecordFile, "write", wait_and_write)


def use(path: Path, test: Callable[[FileTransport], Awaitable[None]], header: bytes = b"") -> None:
    """Runs a test with a transport, and closes that."""

    async def main() -> None:
        transport = FileTransport(path, header)
        try:
            await test(transport)
        finally:
            await transport.close()

    asyncio.run(main())


def test_text_is_in_the_file_when_it_was_sent(tmp_path: Path) -> None:
    """Not in a buffer of this process: a kill loses nothing that was counted as sent."""
    path = tmp_path / "m.csv"

    async def test(transport: FileTransport) -> None:
        assert transport.address == str(path)
        await transport.send(b"1,2\n", 0)
        assert path.read_bytes() == b"a,b\n1,2\n"
        await transport.send(b"3,4\n", 0)
        await transport.flush()
        assert (transport.bytes_total, transport.datagrams_total, transport.unconfirmed()) == (8, 0, [])

    use(path, test, b"a,b\n")
    assert path.read_bytes() == b"a,b\n1,2\n3,4\n"


def test_the_event_loop_does_not_wait_for_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Writing happens in another thread."""
    disk = StuckDisk(monkeypatch)

    async def test(transport: FileTransport) -> None:
        sending = asyncio.create_task(transport.send(b"1\n", 0))
        while not disk.threads:  # noqa: ASYNC110 - that this goes on is the test
            await asyncio.sleep(0)
        disk.goes_on.set()
        await sending
        assert threading.get_ident() not in disk.threads

    use(tmp_path / "m", test)


def test_a_disk_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said; what it wrote in the end is not written again, and what came meanwhile follows."""
    monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 0.02)
    disk = StuckDisk(monkeypatch)

    async def test(transport: FileTransport) -> None:
        for _try in range(2):
            with pytest.raises(SinkError, match=r"m: the disk has not answered for 0\.02 s"):
                await transport.send(b"1\n", 0)
        with pytest.raises(SinkError, match="not answered"):
            await transport.flush()
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 20)
        disk.goes_on.set()
        await transport.flush()
        await transport.send(b"1\n2\n", 0)
        await transport.send(b"1\n", 0)
        assert transport.bytes_total == 6

    use(tmp_path / "m", test)
    assert (tmp_path / "m").read_bytes() == b"1\n2\n1\n"


def test_a_disk_that_refuses_late(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was not written in the end is tried again."""
    monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 0.02)
    disk = StuckDisk(monkeypatch)

    async def test(transport: FileTransport) -> None:
        with pytest.raises(SinkError, match="not answered"):
            await transport.send(b"1\n", 0)
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 20)
        disk.goes_on.set()
        with pytest.raises(SinkError, match="there is no folder"):
            await transport.send(b"1\n", 0)
        (tmp_path / "new").mkdir()
        await transport.send(b"1\n2\n", 0)

    use(tmp_path / "new" / "m", test)
    assert (tmp_path / "new" / "m").read_bytes() == b"1\n2\n"


def test_a_send_that_is_cancelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The thread goes on; its text is not written a second time, nor cut."""
    disk = StuckDisk(monkeypatch)

    async def test(transport: FileTransport) -> None:
        sending = asyncio.create_task(transport.send(b"1\n", 0))
        while not disk.threads:  # noqa: ASYNC110 - a thread tells no event loop
            await asyncio.sleep(0)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        disk.goes_on.set()
        await transport.send(b"1\n2\n", 0)

    use(tmp_path / "m", test)
    assert (tmp_path / "m").read_bytes() == b"1\n2\n"


def test_closing_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that does not answer does not hold up the end."""
    monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr(files, "CLOSE_SECONDS", 0.01)
    disk = StuckDisk(monkeypatch)

    async def main() -> None:
        transport = FileTransport(tmp_path / "m")
        with pytest.raises(SinkError, match="not answered"):
            await transport.send(b"1\n", 0)
        try:
            async with asyncio.timeout(10):
                await transport.close()
        finally:
            disk.goes_on.set()

    asyncio.run(main())


def test_a_bug_in_the_thread_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not taken for a disk that fails, not even when it comes late."""
    errors = [ValueError("ours")]

    def fail(_file: RecordFile, _text: bytes) -> None:
        if errors:
            raise errors.pop()

    monkeypatch.setattr(RecordFile, "write", fail)
    disk = StuckDisk(monkeypatch)

    async def test(transport: FileTransport) -> None:
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 0.01)
        with pytest.raises(SinkError, match="not answered"):
            await transport.send(b"1\n", 0)
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 20)
        disk.goes_on.set()
        with pytest.raises(ValueError, match="ours"):
            await transport.send(b"1\n", 0)
        await transport.send(b"1\n", 0)

    use(tmp_path / "m", test)


def test_a_disk_that_refuses_when_nobody_asks_any_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """At the end that is said once, and not by asyncio with a traceback."""
    disk = StuckDisk(monkeypatch)

    async def main() -> None:
        transport = FileTransport(tmp_path / "nowhere" / "m")
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 0.01)
        with pytest.raises(SinkError, match="not answered"):
            await transport.send(b"1\n", 0)
        disk.goes_on.set()
        await transport.close()
        del transport
        gc.collect()

    asyncio.run(main())
    assert "never retrieved" not in caplog.text


def test_a_text_written_late_is_remembered_while_the_disk_is_asked_to_store_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two calls in a row that are not waited for to the end: still nothing is written twice."""
    write, flush = StuckDisk(monkeypatch), threading.Event()
    monkeypatch.setattr(RecordFile, "flush", lambda _file: flush.wait(20))

    async def test(transport: FileTransport) -> None:
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 0.05)
        with pytest.raises(SinkError, match="not answered"):
            await transport.send(b"1\n", 0)
        write.goes_on.set()
        with pytest.raises(SinkError, match="not answered"):
            await transport.flush()
        flush.set()
        monkeypatch.setattr(files, "_TIMEOUT_SECONDS", 20)
        await transport.send(b"1\n2\n", 0)

    use(tmp_path / "m", test)
    assert (tmp_path / "m").read_bytes() == b"1\n2\n"


def deliver(path: Path, format_: RecordFormat, rotation: Rotation | None = None) -> QueuedSink:
    """Sends a sample, a failure and counters through a sink to a file; returns the sink."""

    async def main() -> QueuedSink:
        encoding = RecordEncoding(format_)
        transport = FileTransport(path, encoding.header, rotation)
        sink = QueuedSink("file", encoding, transport, _NAMES, Options(max_late_seconds=None))
        running = asyncio.create_task(sink.run())
        sink.put(sample(process(7, "nginx", 4096), process(8, "café")))
        sink.put(failure())
        sink.put_stats(_STATS)
        await sink.drain()
        running.cancel()
        await sink.close()
        return sink

    return asyncio.run(main())


def test_json_lines_through_a_sink(tmp_path: Path) -> None:
    """What `collect --format jsonl` prints, and the collector's own counters."""
    sink = deliver(tmp_path / "m.jsonl", RecordFormat.JSONL)
    first, second, third = map(json.loads, (tmp_path / "m.jsonl").read_text().splitlines())
    assert [row["command"] for row in first["processes"]] == ["nginx", "café"]
    assert second["error"]["kind"] == "unreachable"
    assert third["counters"] == {"hosts_up": 3, "file.failing": 0}
    stats = sink.stats()
    assert (stats.points_sent_total, stats.points_dropped_total) == (3, 0)
    assert stats.sent_bytes_total == (tmp_path / "m.jsonl").stat().st_size


def test_csv_through_a_sink(tmp_path: Path) -> None:
    """One table, with one header."""
    deliver(tmp_path / "m.csv", RecordFormat.CSV)
    deliver(tmp_path / "m.csv", RecordFormat.CSV)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "m.csv").read_bytes().decode("utf-8"), newline="")))
    shown = [row["command"] or row["error_kind"] or row["measure"] for row in rows]
    assert shown == ["nginx", "café", "unreachable", "hosts_up", "file.failing"] * 2


def test_a_folder_that_comes_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Collection goes on meanwhile, and nothing is lost."""
    monkeypatch.setattr("fleetmem.sinks.queue.runner._FIRST_RETRY_SECONDS", 0.01)
    path = tmp_path / "new" / "m.jsonl"

    async def main() -> None:
        sink = QueuedSink(
            "file", RecordEncoding(RecordFormat.JSONL), FileTransport(path), _NAMES, Options(max_late_seconds=None)
        )
        running = asyncio.create_task(sink.run())
        sink.put(failure(message="first"))
        while sink.problem is None:  # noqa: ASYNC110 - a sink tells nobody
            await asyncio.sleep(0.001)
        assert "there is no folder" in str(sink.problem)
        sink.put(failure(message="second"))
        path.parent.mkdir()
        await sink.drain()
        running.cancel()
        await sink.close()

    asyncio.run(main())
    messages = [json.loads(line)["error"]["message"] for line in path.read_text().splitlines()]
    assert messages == ["first", "second"]


@pytest.mark.slow
def test_a_process_that_is_killed_again_and_again(tmp_path: Path) -> None:
    """No line is lost that was said to be written, none is there twice, none is cut, and all files can be read."""
    path = tmp_path / "data" / "m.jsonl"
    path.parent.mkdir()
    numbers: list[int] = []
    unfinished = 0
    for life in range(1, 7):
        child = subprocess.Popen([sys.executable, "-c", _WRITER, str(path), str(len(numbers))], stdout=subprocess.PIPE)
        assert child.stdout
        for _ in range(life * 7):
            assert child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().splitlines(keepends=True) if line.endswith(b"\n")]
        child.wait()
        child.stdout.close()
        unfinished += len(list(path.parent.glob("*.tmp")))
        numbers = start_and_read(path)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= max(said, default=0)
    assert unfinished, "no kill has hit a compression: the test does not test that"


def start_and_read(path: Path) -> list[int]:
    """Starts with a file as the next process does; returns the numbers in it and in those rotated before, in order."""

    async def main() -> None:
        transport = FileTransport(path, b"", Rotation(max_bytes=5_000, compression=Compression.GZIP))
        await transport.send(b'{"start":1}\n', 0)
        await asyncio.to_thread(transport._file.archive.wait, 20)
        await transport.close()

    asyncio.run(main())
    rotated = [found.path for found in RotatedFiles(path, Rotation()).files()]
    assert {found.suffix for found in rotated} == {".gz"}
    assert sorted(path.parent.iterdir()) == sorted([*rotated, path])
    lines = b"".join([*(gzip.decompress(found.read_bytes()) for found in rotated), path.read_bytes()]).splitlines()
    return [record["number"] for record in map(json.loads, lines) if "number" in record]
