from pathlib import Path

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.hosts_file import read_hosts_file
from fleetmem.inventory.inventory import Inventory
from fleetmem.inventory.sources import parse_sources
from fleetmem.model import Host


def resolve(specs: list[str]) -> list[Host]:
    """Returns the hosts of what `-i` says."""
    return Inventory(parse_sources(specs, [])).read()


def _names(*specs: str) -> list[str]:
    return [host.name for host in resolve(list(specs))]


def _write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_hosts_file(tmp_path: Path) -> None:
    """Lines hold one or more specifications; comments and empty lines hold none."""
    path = _write(tmp_path / "hosts", "# all\n\nweb[1-2], db1:2222 # two kinds\n  u@x\ty  \n#z\r\nlast")
    assert [host.name for host in read_hosts_file(path)] == ["web1", "web2", "db1:2222", "x", "y", "last"]


def test_hosts_files_and_hosts_mix(tmp_path: Path) -> None:
    """@file may stand anywhere in a list, more than once, and duplicates fold across files."""
    first, second = _write(tmp_path / "1", "a\nb\n"), _write(tmp_path / "2", "b\nc\n")
    assert _names(f"z,@{first}", f"@{second},y") == ["z", "a", "b", "c", "y"]


def test_hosts_file_in_home(home: Path) -> None:
    """A tilde means home."""
    _write(home / "hosts", "u@a")
    assert resolve(["@~/hosts"]) == [Host("a", "a", user="u")]


def test_missing_hosts_file(tmp_path: Path) -> None:
    """The message names the file and the system's reason."""
    with pytest.raises(InventoryError, match=r"hosts file .*nowhere: no such file or directory"):
        resolve([f"@{tmp_path}/nowhere"])


def test_a_folder_is_no_hosts_file(tmp_path: Path) -> None:
    """Any reason of the system is told."""
    with pytest.raises(InventoryError, match="is a directory"):
        resolve([f"@{tmp_path}"])


def test_a_binary_hosts_file(tmp_path: Path) -> None:
    """A file that is not text is refused before it is taken apart."""
    path = tmp_path / "hosts"
    path.write_bytes(b"web1\n\xff\xfe")
    with pytest.raises(InventoryError, match=r"not text \(.* at byte 5\)"):
        list(read_hosts_file(path))


@pytest.mark.parametrize("bad", ["web[3-1]", "@other", "a:x"])
def test_an_error_in_a_hosts_file_has_its_line(tmp_path: Path, bad: str) -> None:
    """The message names file and line; files do not include files."""
    path = _write(tmp_path / "hosts", f"# one\nweb1\nweb2,{bad}\n")
    with pytest.raises(InventoryError, match=f"hosts file {path}, line 3: host "):
        list(read_hosts_file(path))
