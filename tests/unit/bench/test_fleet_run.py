from pathlib import Path

from fleet_run import GrowingFile, SimulatedFleet


def test_a_file_that_grows(tmp_path: Path) -> None:
    """Each line comes once, when it is whole."""
    path = tmp_path / "log"
    file = GrowingFile(path)
    assert list(file.lines()) == []
    with path.open("wb", buffering=0) as writer:
        writer.write(b"one\ntw")
        assert list(file.lines()) == [b"one"]
        writer.write(b"o\n\n")
        assert list(file.lines()) == [b"two", b""]
        assert list(file.lines()) == []
    file.close()


def test_a_file_that_is_rotated(tmp_path: Path) -> None:
    """What was written before it was moved away comes first, also when the new file is not there yet."""
    path = tmp_path / "memory.jsonl"
    file = GrowingFile(path)
    path.write_bytes(b"1\n2\n")
    assert list(file.lines()) == [b"1", b"2"]
    with path.open("ab") as writer:
        writer.write(b"3\n")
    path.rename(tmp_path / "old")
    assert list(file.lines()) == [b"3"]
    assert list(file.lines()) == []
    path.write_bytes(b"4\n")
    assert list(file.lines()) == [b"4"]
    path.rename(tmp_path / "older")
    path.write_bytes(b"5\n")
    assert list(file.lines()) == [b"5"]
    file.close()


def test_good_hosts() -> None:
    """All but the share that is faulty."""
    assert SimulatedFleet(1000, 10, 0.1, 0.05).good_hosts == 950
    assert SimulatedFleet(1000, 10, 0.1, 0).good_hosts == 1000
