"""Prints fleetmem's man page, fleetmem(1), made from what the commands themselves say with --help."""

import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import typer

from fleetmem.cli import make_app
from fleetmem.cli.help_page import option_sections, paragraphs, summary_of
from fleetmem.config import DEFAULT_PATHS, PATH_VARIABLE

_SHARED_BY = ("collect", "run")  # what both have is shown once
_SIGNS = {"\\": r"\e", "-": r"\-", "~": r"\(ti", "^": r"\(ha", "`": r"\(ga", "'": r"\(aq"}

Option = tuple[str, str]
"""How it is written, and what it does."""


def _escape(text: str) -> str:
    """Returns text that roff prints as it is: no sign becomes a prettier one, no line is taken for a request."""
    text = "".join(_SIGNS.get(sign, sign) for sign in text)
    return re.sub(r"^\.", r"\\&.", text, flags=re.MULTILINE)


def _paragraphs(help_: str) -> Iterator[str]:
    """Yields the paragraphs of a help text; examples as they are."""
    for is_example, text in paragraphs(help_):
        if is_example:
            yield "\n".join([".PP\n.nf", *(f"  {_escape(line)}" for line in text.split("\n")), ".fi"])
        else:
            yield ".PP\n" + _escape(text)


def _options(command: Any, path: str) -> list[Option]:
    context = command.context_class(command, info_name=path)
    return [option for _title, options in option_sections(command, context) for option in options]


def _list(options: list[Option]) -> Iterator[str]:
    for names, meaning in options:
        yield f".TP\n.B {_escape(names)}\n{_escape(meaning)}"


def _commands(group: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _commands(command, (*path, name))
        elif not command.hidden:
            yield " ".join((*path, name)), command


def man_page() -> str:
    """Returns the page."""
    group = typer.main.get_command(make_app())
    commands = dict(_commands(group))
    one, other = (_options(commands[name], name) for name in _SHARED_BY)
    shared = [option for option in one if option in other]
    day = datetime.now(UTC).strftime("%Y-%m-%d")
    parts = [
        f'.TH FLEETMEM 1 "{day}" "fleetmem {_escape(version("fleetmem"))}" "User Commands"',
        f".SH NAME\nfleetmem \\- {_escape(summary_of(group))}",
        ".SH SYNOPSIS\n.B fleetmem\nCOMMAND [OPTION]...",
        ".SH COMMANDS",
    ]
    for name, command in commands.items():
        own = _options(command, name)
        has_shared = set(shared) <= set(own)
        parts += [f".SS fleetmem {_escape(name)}", *_paragraphs(command.help or "")]
        parts += _list([option for option in own if not (has_shared and option in shared)])
        if has_shared:
            parts.append(".PP\nTakes the shared options, too.")
    parts += [".SH SHARED OPTIONS\nEach sets one key of the configuration.", *_list(shared)]
    parts += [".SH OTHER OPTIONS", *_list(_options(group, "fleetmem"))]
    variables = [
        ("FLEETMEM_SECTION__KEY", "Sets a key of the configuration; flags win."),
        (PATH_VARIABLE, "Names the configuration file; -c wins."),
        ("XDG_CONFIG_HOME", "The folder of the files that are looked for last; by default ~/.config."),
    ]
    parts += [".SH ENVIRONMENT", *_list(variables)]
    places = (*DEFAULT_PATHS, "$XDG_CONFIG_HOME/fleetmem/config.toml", "$XDG_CONFIG_HOME/fleetmem/fleetmem.toml")
    files = [(str(path), "The configuration; `fleetmem config sample` shows every key.") for path in places]
    parts += [".SH FILES", *_list(files), ".SH SEE ALSO\n.BR ssh (1),\n.BR ssh_config (5)"]
    return "\n".join(parts) + "\n"


if __name__ == "__main__":
    sys.stdout.write(man_page())
