"""A secret in any place of the configuration is shown nowhere."""

from collections.abc import Iterator
from contextlib import suppress
from itertools import product

import pytest
from pydantic import BaseModel

from fleetmem import cli
from fleetmem.config import Settings

pytestmark = pytest.mark.slow

SECRET = "hunter2"  # noqa: S105 - the one that is planted
FORMS = (
    f"https://ops:{SECRET}@sd.invalid/hosts",
    f"https://{SECRET}@sd.invalid",
    f"https://sd.invalid/hosts?access_token={SECRET}",
    f"http_sd:https://ops:{SECRET}@sd.invalid/hosts",
    f"tcp://ops:{SECRET}@sd.invalid:8125",
    f"ops:{SECRET}@host.invalid",
    f"ops:{SECRET}@host.invalid:99999",
    f"/nowhere/list-hosts --password {SECRET}",
)
COMMANDS = (f"command:/nowhere/list-hosts -p {SECRET}", f"command:/nowhere/list-hosts '{SECRET}")


def keys(model: type[BaseModel] = Settings, sections: tuple[str, ...] = ()) -> Iterator[str]:
    """Yields every key that there is, as `section.key`."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from keys(field.annotation, (*sections, name))
        else:
            yield ".".join((*sections, name))


def shown(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], *words: str) -> str:
    """Returns all that a command prints; where it fails, what `main` makes of the error."""
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", ["fleetmem", *words])
        with suppress(SystemExit):
            cli.main()
    return "".join(capfd.readouterr())


def test_there_are_keys() -> None:
    """The walk finds all sections."""
    assert {"prefix", "inventory.sources", "ssh.jump", "graphite.server", "shape.groups"} <= set(keys())


@pytest.mark.parametrize("key", list(keys()))
def test_config_show_tells_no_secret(
    key: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Whichever key is given it, taken or refused."""
    for form in (*FORMS, *(COMMANDS if key == "inventory.sources" else ())):
        monkeypatch.setenv(f"FLEETMEM_{key.replace('.', '__').upper()}", form)
        text = shown(monkeypatch, capfd, "config", "show")
        assert text
        assert SECRET not in text, form


@pytest.mark.parametrize(
    ("key", "form"),
    [
        *product(("inventory.hosts", "inventory.sources", "inventory.limit", "ssh.user", "ssh.jump", "ssh.key"), FORMS),
        *product(("inventory.sources",), COMMANDS),
    ],
)
def test_no_command_tells_a_secret(
    key: str, form: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Not in what a command prints, not in its errors, not with -vv."""
    monkeypatch.setenv(f"FLEETMEM_{key.replace('.', '__').upper()}", form)
    if key != "inventory.hosts":
        monkeypatch.setenv("FLEETMEM_INVENTORY__HOSTS", "host.invalid")
    for words in (("config", "check"), ("hosts",), ("collect", "-vv"), ("collect", "--format", "jsonl")):
        assert SECRET not in shown(monkeypatch, capfd, *words), words


def test_a_kind_that_is_misspelt_tells_no_secret(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """What stands behind it is no part of the message."""
    monkeypatch.setenv("FLEETMEM_INVENTORY__SOURCES", f"comand:/nowhere/list-hosts -p {SECRET}")
    text = shown(monkeypatch, capfd, "hosts")
    assert "inventory 'comand:...' is neither file nor URL" in text
    assert SECRET not in text
