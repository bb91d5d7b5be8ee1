from pathlib import Path

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.listing import Means
from fleetmem.inventory.ssh_config import read
from fleetmem.model import Host


def _names(path: Path | str) -> list[str]:
    return [host.name for host in read(str(path), Means()).hosts]


def test_names_without_wildcards(tmp_path: Path) -> None:
    """Each once, in the order of the file, however the line is written; patterns and negations are no hosts."""
    path = tmp_path / "config"
    path.write_text(
        "# Host commented\n"
        "Host web01 web02 *.example.com !web03\n"
        "  HostName 10.0.0.1\n"
        "host=db1\n"
        '\tHOST  "db2" web01 # a comment\n'
        "Host *\n"
        "  User ubuntu\n"
        "Match host web01\n"
        "  Port 2222\n"
        "HostKeyAlias x\n"
    )
    assert read(str(path), Means()).hosts == [Host(name, name) for name in ("web01", "web02", "db1", "db2")]


def test_includes_are_followed(home: Path, tmp_path: Path) -> None:
    """Relative to ~/.ssh as in ssh_config(5), with globs; files that are not there are none."""
    folder = home / ".ssh" / "conf.d"
    folder.mkdir(parents=True)
    (folder / "a.conf").write_text("Host a\n")
    (folder / "b.conf").write_text(f"Host b\nMatch all\nInclude {tmp_path}/c nowhere/*\n")
    (tmp_path / "c").write_text("Host c\n")
    (home / ".ssh" / "config").write_text("Include conf.d/*.conf\nHost last\n")
    assert _names("") == _names("~/.ssh/config") == ["a", "b", "c", "last"]


def test_an_include_for_some_hosts_brings_no_others(tmp_path: Path) -> None:
    """Below `Host a` it holds for a alone, however it is indented."""
    (tmp_path / "more").write_text("Host more\n")
    path = tmp_path / "config"
    for line in ("Host a", "Match user x"):
        path.write_text(f"{line}\nInclude {tmp_path}/more\nHost b\n")
        assert "more" not in _names(path)
    path.write_text(f"Host a *\nInclude {tmp_path}/more\n")
    assert _names(path) == ["a", "more"]


def test_an_endless_include(tmp_path: Path) -> None:
    """As deep as OpenSSH follows."""
    path = tmp_path / "config"
    path.write_text(f"Include {path}\nHost a\n")
    with pytest.raises(InventoryError, match="more than 16 levels deep"):
        _names(path)


@pytest.mark.parametrize("text", ["a;b", "$(x)", "db/primary", "münchen", "x" * 300, '"a b"'])
def test_what_is_no_name(tmp_path: Path, text: str) -> None:
    """A name that ssh would not take either is left out, and told with its line."""
    path = tmp_path / "config"
    path.write_text(f"Host good01\nHost {text}\n")
    listing = read(str(path), Means())
    assert [host.name for host in listing.hosts] == ["good01"]
    assert listing.left_out[0].startswith(f"{path}, line 2 (")


def test_a_quotation_without_its_end(tmp_path: Path) -> None:
    """The whole file is one that ssh does not take."""
    path = tmp_path / "config"
    path.write_text('Host good01\nHost "a\n')
    with pytest.raises(InventoryError, match="config, line 2"):
        _names(path)
