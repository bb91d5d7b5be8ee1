from pathlib import Path

import pytest

from fleetmem.sinks import installed
from fleetmem.sinks.installed import PluginError
from fleetmem.sinks.plugin import SecretFile
from fleetmem.wiring.outputs import BUILT_IN


@pytest.mark.parametrize("name", ["statsd", "file", "statsd_2", "former", "Top", "a-b", "a.b", "", "1st", "x" * 25])
def test_names_that_no_plug_in_may_have(name: str) -> None:
    """They are those of other sinks, or no part of a metric's name."""
    with pytest.raises(PluginError, match="cannot be a plug-in's name"):
        installed.load(name)


def test_two_packages_with_one_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither is taken: the error names both."""
    for package in ("one", "two"):
        info = tmp_path / f"{package}-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(f"[fleetmem.sinks]\nmine = {package}:KIND\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(PluginError, match=r"several packages offer it: one:KIND of one 1\.0, two:KIND of two 1\.0"):
        installed.load("mine")
    assert "mine" in installed.names()


def test_a_secret_file(tmp_path: Path) -> None:
    """It is shown as its path; another content is another secret, which a reload takes."""
    path = tmp_path / "token"
    path.write_text("s3cret\n")
    secret = SecretFile.read(str(path))
    assert secret.value == "s3cret"
    assert str(secret) == str(path)
    assert "s3cret" not in repr(secret)
    assert SecretFile.read(secret) is secret
    path.write_text("0ther\n")
    assert SecretFile.read(path) != secret
    assert len({SecretFile.read(path), SecretFile.read(path), secret}) == 2


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such file"), (b"", "the file is empty"), (b"\xff\xfe", "not UTF-8")]
)
def test_a_secret_that_cannot_be_read(content: bytes | None, message: str, tmp_path: Path) -> None:
    """The error says why, and nothing of what is in the file."""
    path = tmp_path / "token"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match=message):
        SecretFile.read(path)
    with pytest.raises(ValueError, match="not the path of a file"):
        SecretFile.read(5)  # type: ignore[arg-type]


def test_the_names_of_built_in_sinks_are_those_of_their_kinds() -> None:
    """Their names are refused to plug-ins, and stand where nothing but names has to be imported."""
    assert set(BUILT_IN) == installed.BUILT_IN_NAMES
