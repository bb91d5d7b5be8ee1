"""What `--help` looks like on screens of any width."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from fleetmem.cli import make_app
from fleetmem.cli.help_page import help_page, option_sections
from fleetmem.cli.screen import Screen


def _commands(command: Any, path: str = "fleetmem") -> Iterator[tuple[str, Any]]:
    yield path, command
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, f"{path} {name}")


_COMMANDS = dict(_commands(typer.main.get_command(make_app())))


def _context(path: str) -> Any:
    return _COMMANDS[path].context_class(_COMMANDS[path], info_name=path)


@pytest.mark.parametrize("path", _COMMANDS)
@pytest.mark.parametrize("columns", [60, 80, 120, 200])
def test_help_fits(path: str, columns: int) -> None:
    """No line is longer than the screen, and all widths say the same words."""
    page = help_page(_COMMANDS[path], _context(path), Screen(columns))
    assert max(map(len, page.splitlines())) <= columns
    wide = help_page(_COMMANDS[path], _context(path), Screen(1000))
    assert page.replace("\\\n", "").replace("# ", "").split() == wide.replace("\\\n", "").replace("# ", "").split()


@pytest.mark.parametrize("path", _COMMANDS)
def test_people_can_read_what_an_option_takes(path: str) -> None:
    """No types of Python, no ranges of mathematics; every option has a meaning, which ends as a sentence does."""
    for _title, options in option_sections(_COMMANDS[path], _context(path)):
        for names, meaning in options:
            assert not re.search(r"<|>|x>=|range|\blist\b", names)
            assert re.search(r"[.)]$", meaning), meaning


def test_old_names_are_not_shown() -> None:
    """They work, and nobody is to learn them."""
    page = help_page(_COMMANDS["fleetmem collect"], _context("fleetmem collect"), Screen())
    assert "--graphite-host" not in page
    assert "-g, --statsd HOST[:PORT]" in page


def test_colour_is_only_for_emphasis() -> None:
    """Without it, the same text."""
    command, context = _COMMANDS["fleetmem lab"], _context("fleetmem lab")
    coloured = help_page(command, context, Screen(80, 24, has_colour=True))
    assert "\x1b[1mUsage:\x1b[0m fleetmem lab" in coloured
    assert re.sub(r"\x1b\[\d*m", "", coloured) == help_page(command, context, Screen(80))
