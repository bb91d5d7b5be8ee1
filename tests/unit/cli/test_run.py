import io
from pathlib import Path

import pytest

from fleetmem.cli.output import OutputFormat, make_writer
from fleetmem.cli.run import _FullDiskGuard
from unit.builders import failure


class _FullDisk(io.StringIO):
    def write(self, _text: str) -> int:
        raise OSError(28, "no space left on device")

    def flush(self) -> None:
        raise OSError(28, "no space left on device")


def test_a_full_disk_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    """Collection goes on without the file, and says so a single time."""
    guard = _FullDiskGuard(make_writer(OutputFormat.JSONL, _FullDisk(), 0), Path("out"))
    guard.write(failure())
    guard.write(failure())
    guard.finish()
    assert caplog.messages == ["output is not written, collection goes on: no space left on device"]
    assert caplog.records[0].__dict__["path"] == "out"


def test_outcomes_reach_the_writer() -> None:
    """While there is room every outcome is written and flushed."""
    file = io.StringIO()
    guard = _FullDiskGuard(make_writer(OutputFormat.JSONL, file, 0), Path("out"))
    guard.write(failure())
    guard.finish()
    assert file.getvalue().count("\n") == 1
