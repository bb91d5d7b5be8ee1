"""What `--help` prints: plain text that fits the terminal, with one option a paragraph.

Everything is read from the command itself, so the man page, which is made by the same functions, says the same.
"""

import inspect
import re
import sys
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import typer.core

from fleetmem.cli.screen import Screen, Style, screen_of
from fleetmem.cli.wrapping import width_of, wrap, wrap_command

_WIDEST = 110
"""Longer lines are hard to read."""

_SIDE_BY_SIDE = 76
"""With fewer columns, what an option does stands below it."""

_NAMES_WIDTH = 34
_OPTIONS = "Options"
_OLD_NAMES = {"--graphite-host"}  # of --statsd
_ROW = re.compile(r"(\d+)\s+(.*)")
"""An exit status and what it means."""

_ROW_WIDTH = 4
_HELP = "Print this help."


class HelpfulCommand(typer.core.TyperCommand):
    """A command whose help is a page of ours."""

    def get_help(self, ctx: Any) -> str:
        """Returns the page."""
        return help_page(self, ctx, screen_of(sys.stdout))


class HelpfulGroup(typer.core.TyperGroup):
    """A group of commands whose help is a page of ours."""

    def get_help(self, ctx: Any) -> str:
        """Returns the page."""
        return help_page(self, ctx, screen_of(sys.stdout))


def help_page(command: Any, context: Any, screen: Screen) -> str:
    """Returns what a command says of itself: usage, text, commands, and options under the titles of their panels."""
    columns = min(screen.columns, _WIDEST)
    title = "Usage: "
    usage = " ".join(command.collect_usage_pieces(context))
    lines = wrap(f"{context.command_path} {usage}", columns, " " * len(title))
    lines[0] = screen.paint(title.strip(), Style.STRONG) + lines[0][len(title) - 1 :]
    for is_example, text in paragraphs(command.help or ""):
        lines += _example_lines(text, columns) if is_example else ["", *wrap(text, columns)]
    commands = [(name, summary_of(each)) for name, each in commands_of(command)]
    sections = [("Commands", commands), *option_sections(command, context)]
    for heading, rows in sections:
        if rows:
            lines += ["", screen.paint(f"{heading}:", Style.STRONG), *_rows(rows, columns, screen)]
    if command.epilog:
        lines += ["", *wrap(command.epilog, columns)]
    return "\n".join(lines)


def commands_of(group: Any) -> list[tuple[str, Any]]:
    """Returns the commands of a group that are shown, by name; none where it is no group."""
    return [(name, command) for name, command in getattr(group, "commands", {}).items() if not command.hidden]


def summary_of(command: Any) -> str:
    """Returns the first paragraph of what a command says of itself."""
    return next((text for is_example, text in paragraphs(command.help or "") if not is_example), "")


def paragraphs(text: str) -> Iterator[tuple[bool, str]]:
    """Yields paragraphs: prose on one line, and examples, which are indented in the source, with their lines.

    Examples follow each other without a blank line between.
    """
    blocks = ((line.startswith("  "), line.strip()) for line in inspect.cleandoc(text).partition("\f")[0].split("\n"))
    prose: list[str] = []
    examples: list[str] = []
    for is_example, line in blocks:
        if line and examples and not is_example:
            yield True, "\n".join(examples)
            examples = []
        if prose and (not line or is_example):
            yield False, " ".join(prose)
            prose = []
        if line:
            (examples if is_example else prose).append(line)
    if prose:
        yield False, " ".join(prose)
    if examples:
        yield True, "\n".join(examples)


def option_sections(command: Any, context: Any) -> list[tuple[str, list[tuple[str, str]]]]:
    """Returns the options with their meanings, by the title that they stand under; the command's own come last."""
    options = [each for each in command.get_params(context) if not each.hidden]
    titles = list(dict.fromkeys(_title(option) for option in options))
    titles.sort(key=lambda title: title == _OPTIONS)
    by_title = {
        title: [(names_of(option), meaning_of(option)) for option in group]
        for title, group in groupby(sorted(options, key=lambda option: titles.index(_title(option))), _title)
    }
    return [(title, by_title[title]) for title in titles]


def _title(option: Any) -> str:
    return getattr(option, "rich_help_panel", None) or _OPTIONS


def names_of(option: Any) -> str:
    """Returns how an option is written: `-i, --hosts HOST,...`."""
    shown = [name for name in option.opts if name not in _OLD_NAMES]
    names = ", ".join(sorted(shown, key=lambda name: name.startswith("--")))
    is_flag = getattr(option, "is_flag", False) or getattr(option, "count", False)
    return names if is_flag else f"{names} {option.metavar or option.name.upper()}"


def meaning_of(option: Any) -> str:
    """Returns what an option does, with its default where it has one that is not said yet."""
    text = _HELP if option.name == "help" else " ".join((option.help or "").split())
    if getattr(option, "required", False):
        return f"{text} (required)"
    is_flag = getattr(option, "is_flag", False) or getattr(option, "count", False)
    default, shown = option.default, getattr(option, "show_default", False)
    if isinstance(shown, str):
        return f"{text} (default {shown})"
    if not shown or is_flag or default is None or callable(default):
        return text
    return f"{text} (default {default})"


def _rows(rows: list[tuple[str, str]], columns: int, screen: Screen) -> Iterator[str]:
    """Yields names with their meanings, in two columns where there is room."""
    width = min(_NAMES_WIDTH, max(width_of(names) for names, _meaning in rows)) + 4
    for names, meaning in rows:
        shown = f"  {screen.paint(names, Style.STRONG)}"
        if columns < _SIDE_BY_SIDE and not all(width_of(names) < 12 for names, _ in rows):
            yield shown
            yield from wrap(meaning, columns, " " * 6)
        elif width_of(names) + 4 > width:
            yield shown
            yield from wrap(meaning, columns, " " * width)
        else:
            first, *others = wrap(meaning, columns, " " * width)
            yield f"{shown}{first[width_of(names) + 2 :]}"
            yield from others


def _example_lines(text: str, columns: int) -> Iterator[str]:
    """Yields command lines and exit statuses. A command that is too long takes several lines, and can be copied."""
    for line in text.split("\n"):
        if line.startswith("#"):
            yield from wrap(line[1:].strip(), columns, "  # ", "  # ")
        elif row := _ROW.match(line):
            yield from wrap(row[2], columns, f"  {row[1]:<{_ROW_WIDTH}}")
        else:
            yield from wrap_command(line, columns, "  ", "      ")
