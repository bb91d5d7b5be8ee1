import asyncio
import json
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

import pytest

from fleetmem.sinks import memory as memory_module
from fleetmem.sinks.memory import FORMAT, MemorySpec, SeriesMemory, next_run, read_series
from fleetmem.state.folder import HeldError, StateFolder
from fleetmem.state.journal import DamagedError, Journal, pack, read_packed, unpack

_KEY = "udp://127.0.0.1:8125"


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that others keep busy may take its time here."""
    monkeypatch.setattr(memory_module, "MEMORY_DRAIN_SECONDS", 20.0)
    monkeypatch.setattr(memory_module, "MEMORY_CLOSE_SECONDS", 20.0)


class Names:
    """A sink that has these lines of these hosts."""

    def __init__(self, **lines: bytes) -> None:
        self.lines = lines

    def owners(self) -> Iterable[str]:
        """Returns the hosts."""
        return list(self.lines)

    def series_of(self, owner: str) -> bytes:
        """Returns a host's lines."""
        return self.lines.get(owner, b"")


def _spec(folder: Path, run: int = 1, process: int = 0) -> MemorySpec:
    return MemorySpec(folder / "state", run, process)


def _found(folder: Path) -> dict[str, set[bytes]]:
    """Returns what the next start would know, by host."""
    return {host: set(unpack(packed).split()) for (_key, host), packed in read_series(folder / "state").items()}


def _use(memory: SeriesMemory, use: Callable[[SeriesMemory], Awaitable[None]]) -> None:
    """Runs a memory while it is used, and closes it."""

    async def main() -> None:
        running = asyncio.create_task(memory.run())
        async with asyncio.timeout(30):
            await use(memory)
            await memory.drain()
        running.cancel()
        await memory.close()

    asyncio.run(main())


async def _nothing(_memory: SeriesMemory) -> None:
    await asyncio.sleep(0)


def test_names_outlive_a_restart(tmp_path: Path) -> None:
    """What lives at the end is known at the next start, as zeros; what has begun and ended since is counted in."""

    async def use(memory: SeriesMemory) -> None:
        sink = Names(web01=b"a:1|g\nb:2|g\n", db1=b"c:3.5|g\n")
        memory.attach(_KEY, sink)
        await memory.drain()
        memory.note(_KEY, "web01", b"d:7|g\n", b"a:0|g\n")
        memory.note(_KEY, "db1", b"", b"c:0|g\n")

    _use(SeriesMemory(_spec(tmp_path)), use)
    assert _found(tmp_path) == {"web01": {b"b:0|g", b"d:0|g"}}
    again = SeriesMemory(_spec(tmp_path, run=2))
    assert again.owners(_KEY) == ["web01"]
    assert set(again.recall(_KEY, "web01").split()) == {b"b:0|g", b"d:0|g"}
    assert again.recall(_KEY, "web01") == b"", "once"


def test_a_host_that_is_not_sampled_yet_is_still_known(tmp_path: Path) -> None:
    """Two starts in a row, with a host that is down all the time: what it had is known at the third."""
    _use(SeriesMemory(_spec(tmp_path)), lambda memory: _attached(memory, Names(web01=b"a:1|g\n")))
    for run in (2, 3):
        _use(SeriesMemory(_spec(tmp_path, run=run)), _nothing)
        assert _found(tmp_path) == {"web01": {b"a:0|g"}}
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["series-3-0.log"]


async def _attached(memory: SeriesMemory, sink: Names) -> None:
    memory.attach(_KEY, sink)


def test_a_kill_costs_little(tmp_path: Path) -> None:
    """A file whose end was not written is read up to there, without a word."""

    async def use(memory: SeriesMemory) -> None:
        memory.attach(_KEY, Names(web01=b"a:1|g\n", db1=b"c:3|g\n"))

    _use(SeriesMemory(_spec(tmp_path)), use)
    (path,) = (tmp_path / "state").glob("series-*")
    whole = path.read_bytes()
    for cut in range(1, 12):
        path.write_bytes(whole[:-cut])
        assert _found(tmp_path) == {"web01": {b"a:0|g"}}
    assert path.exists()


@pytest.mark.parametrize("damage", [b"garbage", b"", b"fleetmem series 99\n", b"\0" * 4096, os.urandom(3000)])
def test_a_damaged_file_is_set_aside(tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture) -> None:
    """Another version, another kind, no file of ours: it is renamed and reported, and a new one is written."""
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / "series-1-0.log").write_bytes(damage)
    with caplog.at_level(logging.ERROR):
        _use(SeriesMemory(_spec(tmp_path, run=2)), lambda memory: _attached(memory, Names(web01=b"a:1|g\n")))
    assert "cannot be used" in caplog.text
    assert len(list(folder.glob("series-1-0.log.damaged-*"))) == 1
    assert _found(tmp_path) == {"web01": {b"a:0|g"}}


def test_a_byte_that_is_wrong(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What stands before it counts, the file is set aside."""
    _use(SeriesMemory(_spec(tmp_path)), lambda memory: _attached(memory, Names(web01=b"a:1|g\n", db1=b"c:3|g\n")))
    (path,) = (tmp_path / "state").glob("series-*")
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)
    with caplog.at_level(logging.ERROR):
        assert _found(tmp_path) == {"web01": {b"a:0|g"}}
    assert "a checksum is wrong" in caplog.text
    assert not path.exists()


@pytest.mark.slow
def test_a_file_that_grows_is_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Births and deaths without end do not fill the disk, and no name is lost by that."""
    monkeypatch.setattr(memory_module, "_SMALL_BYTES", 4096)
    monkeypatch.setattr(memory_module, "_TICK_SECONDS", 0.001)
    monkeypatch.setattr(memory_module, "_CHANGES_SECONDS", 0.0)
    sink = Names(web01=b"a.0:1|g\n", **{f"h{number}": b"x:1|g\n" for number in range(20)})

    async def use(memory: SeriesMemory) -> None:
        memory.attach(_KEY, sink)
        for number in range(1, 400):
            old, new = (
                sink.lines["web01"],
                b"".join(b"%d.%d:1|g\n" % (number, os.getpid() * each) for each in range(20)),
            )
            sink.lines["web01"] = new
            memory.note(_KEY, "web01", new, old.replace(b":1|", b":0|"))
            await asyncio.sleep(0.002)

    _use(SeriesMemory(_spec(tmp_path)), use)
    (path,) = (tmp_path / "state").glob("series-*")
    assert path.stat().st_size < 40_000
    expected = set(sink.lines["web01"].replace(b":1|", b":0|").split())
    assert _found(tmp_path)["web01"] == expected
    assert len(_found(tmp_path)) == 21


def test_workers_have_files_of_their_own(tmp_path: Path) -> None:
    """Files of a run before are there until each process has its own: the number of workers makes no difference."""
    names_before = Names(web01=b"a:1|g\n", web02=b"b:1|g\n")
    _use(SeriesMemory(_spec(tmp_path, 1, 0)), lambda memory: _attached(memory, names_before))
    first, *workers = [SeriesMemory(MemorySpec(tmp_path / "state", 2, number, 3)) for number in range(3)]
    _use(first, _nothing)
    _use(workers[0], lambda memory: _attached(memory, Names(web01=b"a:1|g\n")))
    names = {path.name for path in (tmp_path / "state").iterdir()}
    assert "series-1-0.log" in names
    _use(workers[1], lambda memory: _attached(memory, Names(web02=b"c:1|g\n")))
    assert {path.name for path in (tmp_path / "state").iterdir()} == {f"series-2-{number}.log" for number in range(3)}
    assert _found(tmp_path) == {"web01": {b"a:0|g"}, "web02": {b"c:0|g"}}


@pytest.mark.slow
def test_a_disk_that_breaks_and_heals(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning; names are kept again once it is well, all of them."""
    monkeypatch.setattr(memory_module, "_RETRY_SECONDS", 0.05)
    (tmp_path / "state").write_text("no folder")

    async def use(memory: SeriesMemory) -> None:
        memory.attach(_KEY, Names(web01=b"a:1|g\n"))
        await asyncio.sleep(0.6)
        (tmp_path / "state").unlink()
        await asyncio.sleep(0.6)
        memory.note(_KEY, "web01", b"b:1|g\n", b"")

    with caplog.at_level(logging.WARNING):
        _use(SeriesMemory(_spec(tmp_path)), use)
    assert len([record for record in caplog.records if "may stay in StatsD" in record.message]) == 1
    assert "can be written again" in caplog.text
    assert _found(tmp_path) == {"web01": {b"a:0|g", b"b:0|g"}}


def test_a_folder_is_one_collectors(tmp_path: Path) -> None:
    """A second one with the same configuration does not get it; one with another has a folder of its own."""
    first, second = (StateFolder(tmp_path, "vm", "config") for _ in range(2))
    other = StateFolder(tmp_path, "vm", "another config")
    first.claim()
    with pytest.raises(HeldError, match="another fleetmem uses"):
        second.claim()
    other.claim()
    assert len({first.path, second.path, other.path}) == 2
    first.release()
    second.claim()
    for folder in (second, other):
        folder.release()


def test_runs_grow_also_where_the_clock_does_not(tmp_path: Path) -> None:
    """The newest file is the one of the highest run, whatever the clock said at its start."""
    folder = tmp_path / "state"
    folder.mkdir()
    assert next_run(folder) >= int(time.time()) - 1
    (folder / "series-99999999999-0.log").write_bytes(b"")
    assert next_run(folder) == 100_000_000_000
    assert next_run(tmp_path / "nowhere") > 0


def test_a_block_that_unpacks_to_too_much_is_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file fills the memory."""
    journal = Journal(tmp_path / "x", FORMAT)
    journal.append(json.dumps(["whole", "a", "b"]).encode() + b"\n" + b"0" * 100_000)
    journal.close()
    monkeypatch.setattr("fleetmem.state.journal.MAX_BLOCK_BYTES", 1000)
    with pytest.raises(DamagedError):
        [unpack(packed) for packed in read_packed(tmp_path / "x", FORMAT)]
    assert unpack(pack(b"x" * 500)) == b"x" * 500
