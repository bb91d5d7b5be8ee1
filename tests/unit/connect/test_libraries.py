import ctypes.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fleetmem.connect import libraries

_VARIABLES = ("LD_LIBRARY_PATH", "LD_PRELOAD")


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file system whose loader has libc."""
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    for name in ("prefix", "base_prefix"):
        monkeypatch.setattr(sys, name, str(tmp_path / "python"))
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0libc.so.6\0/lib/libc.so.6\0")
    return tmp_path


def test_what_the_cache_has(root: Path) -> None:
    """It has what `ldconfig -p` would say."""
    names = libraries.loadable(root)
    assert names is not None
    assert b"libc." in names
    assert b"liboqs." not in names


@pytest.mark.parametrize("folder", ["lib64", "lib/aarch64-linux-gnu", "usr/lib", "usr/local/lib", "python/lib"])
def test_what_the_folders_have(root: Path, folder: str) -> None:
    """The loader looks there too, whatever its cache says."""
    library = root / folder / "liboqs.so.7"
    library.parent.mkdir(parents=True)
    library.touch()
    names = libraries.loadable(root)
    assert names is not None
    assert b"liboqs." in names


def test_another_loader(root: Path) -> None:
    """One without a cache may find anything."""
    (root / "etc/ld.so.cache").unlink()
    assert libraries.loadable(root) is None


def test_a_folder_that_may_not_be_listed(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loader can open what is in it."""
    (root / "usr/local/lib").mkdir(parents=True)
    listdir = os.listdir

    def refuse(path: Path) -> list[str]:
        if str(path).endswith("usr/local/lib"):
            raise PermissionError
        return listdir(path)

    monkeypatch.setattr(os, "listdir", refuse)
    assert libraries.loadable(root) is None


@pytest.mark.parametrize("variable", _VARIABLES)
def test_a_loader_that_is_told_where(root: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """It may find anything, too."""
    monkeypatch.setenv(variable, "/opt/lib")
    assert libraries.loadable(root) is None


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (b"\0libc.so.6\0libcurl.so.4", [None, None, "libc.so.1"]),
        (b"\0liboqs.so.7\0libc.so.6", ["liboqs.so.1", None, "libc.so.1"]),
        (None, ["liboqs.so.1", "libliboqs.so.1", "libc.so.1"]),
    ],
)
def test_searches_are_spared(monkeypatch: pytest.MonkeyPatch, names: bytes | None, found: list[str | None]) -> None:
    """Only for what is not there, and no longer than asked."""

    def search(name: str) -> str:
        return f"lib{name}.so.1"

    monkeypatch.setattr(ctypes.util, "find_library", search)
    monkeypatch.setattr(libraries, "loadable", lambda: names)
    with libraries.spared_searches():
        assert [ctypes.util.find_library(name) for name in ("oqs", "liboqs", "c")] == found
    assert ctypes.util.find_library is search


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "library", "algorithm"), [("kex", "liboqs", "sntrup761"), ("mac", "nettle", "umac")])
def test_algorithms_are_the_same(kind: str, library: str, algorithm: str) -> None:
    """What asyncssh has with these libraries, it has here."""
    program = f"from asyncssh.{kind} import get_{kind}_algs; print(get_{kind}_algs())"
    offered = [
        subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True).stdout
        for text in (program, f"import fleetmem.connect.ssh; {program}")
    ]
    assert offered[0] == offered[1]
    if algorithm not in offered[0]:
        pytest.skip(f"says nothing: {library} is not here")


@pytest.mark.parametrize(("options", "is_shown"), [([], False), (["-W", "default"], True)])
def test_deprecations_are_for_those_who_ask(options: list[str], is_shown: bool) -> None:
    """A key exchange of old hosts prints no warning, unless Python was told to show them."""
    program = "import fleetmem.connect.ssh; from asyncssh.kex_dh import _group14_p as p, DH; DH(2, p)"
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, check=True)
    assert ("deprecated" in done.stderr) is is_shown
