"""`fleetmem config`: show, check, sample, schema."""

import json
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Annotated

import typer
from pydantic import BaseModel

from fleetmem.cli.help_page import HelpfulCommand, HelpfulGroup
from fleetmem.cli.messages import print_message
from fleetmem.cli.options import Given, Unread, ask_passphrase, with_flags, with_settings
from fleetmem.cli.output import print_data
from fleetmem.cli.plugin_text import plugin_samples, plugin_sections
from fleetmem.cli.toml_text import meanings_of, toml_value
from fleetmem.config import InvalidSettingsError, Problem, Settings, Shape
from fleetmem.config.loading import read_file
from fleetmem.config.problems import placed
from fleetmem.errors import UsageError, reason_of
from fleetmem.runtime.elsewhere import for_another_machine
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.runtime.pattern import TEXT_LIMIT_SECONDS, Pattern
from fleetmem.safe_text import printable, redact
from fleetmem.wiring.state_files import identity_of, state_folder

_FORGETS = "series that end while fleetmem is restarted may stay in StatsD"
_ASIDE = "may take long on some names, so it runs in a process of its own"

app = typer.Typer(cls=HelpfulGroup, no_args_is_help=True, help="Show, check or begin a configuration.")


@app.command(cls=HelpfulCommand)
@with_settings
def show(given: Given) -> None:
    """Print the configuration in force: flags win over FLEETMEM_* variables, those over the file, that over defaults.

    Example:
      fleetmem config show -c fleetmem.toml --interval 30
    """
    print_data(to_toml(given.settings))


class CheckFormat(StrEnum):
    """How the result of a check is printed."""

    TEXT = "text"
    JSON = "json"


@app.command(cls=HelpfulCommand)
@with_flags
def check(
    given: Unread,
    is_offline: Annotated[
        bool, typer.Option("--offline", help="Read only the file and the inventories beside it: no keys, no network.")
    ] = False,
    format_: Annotated[
        CheckFormat, typer.Option("--format", help="text, or json for programs.", metavar="text|json")
    ] = CheckFormat.TEXT,
) -> None:
    """Check the configuration, its hosts and its keys, without connecting to anything.

    Exit status: 0 all is well, 2 something is wrong.

    Examples:
      fleetmem config check -c fleetmem.toml
      # in CI, where there are no keys
      fleetmem config check --offline -c fleetmem.toml --format json
    """
    look = _check_offline if is_offline else _check_all
    warnings: list[Problem] = []
    errors: Sequence[Problem] = ()
    if format_ is CheckFormat.TEXT:
        try:
            print_data(look(given, warnings))
        finally:
            for warning in warnings if is_offline else ():  # what is left of the whole check is in its text
                print_message(f"note: {warning}")
        return
    try:
        look(given, warnings)
    except InvalidSettingsError as error:
        errors = error.problems
    except UsageError as error:
        errors = [Problem(None, str(error))]
    file = str(given.config_path) if given.config_path else None
    result = {"ok": not errors, "file": file, "errors": _plain(errors), "warnings": _plain(warnings)}
    print_data(json.dumps(result, indent=2) + "\n")
    if errors:
        raise typer.Exit(ExitStatus.USAGE)


def _plain(problems: Sequence[Problem]) -> list[dict[str, object]]:
    return [
        {
            "key": problem.key,
            "file": problem.file,
            "line": problem.line,
            "origin": problem.origin,
            "message": printable(redact(problem.message)),
            "try": problem.fix or None,
        }
        for problem in problems
    ]


def _check_all(unread: Unread, warnings: list[Problem]) -> str:
    """Returns what is said of a configuration that is right; adds what does not end a start. Raises UsageError."""
    from fleetmem.wiring.fleet import build_fleet  # here: the other commands need no SSH
    from fleetmem.wiring.outputs import web_guard

    given = unread.read()
    fleet = build_fleet(given.settings.for_one_cycle(), ask_passphrase)
    web_guard(given.settings.prometheus)
    state, is_usable = _state(given)
    if not is_usable:
        warnings.append(Problem("run.state_dir", state))
    head = f"ok: {len(fleet.hosts)} hosts, {_sink_count(given.settings)} sinks\n{_file_line(unread)}"
    state_line = f"state: {state}\n" if state else ""
    return f"{head}{state_line}{''.join(_pattern_lines(given.settings.shape))}"


def _check_offline(unread: Unread, warnings: list[Problem]) -> str:
    """Returns the same of one that is right as far as its repository tells; adds what was not checked.

    Raises:
        UsageError: something is wrong.
    """
    from fleetmem.wiring.offline import check_offline

    path = unread.config_path
    with for_another_machine():
        settings = unread.read().settings
    report = check_offline(settings, path)
    text = read_file(path) if path and path.expanduser().is_file() else ""  # a pipe is read once
    warnings += placed(report.warnings, path, text, unread.flags)
    if errors := placed(report.errors, path, text, unread.flags):
        raise InvalidSettingsError(errors)
    head = f"ok: {len(report.hosts)} hosts, {_sink_count(settings)} sinks; not connected, no key read\n"
    return f"{head}{_file_line(unread)}"


@app.command(cls=HelpfulCommand)
def schema() -> None:
    """Print the JSON Schema of the configuration file: editors complete and check the file with it.

    Example:
      fleetmem config schema > fleetmem.schema.json
    """
    from fleetmem.cli.config_schema import settings_schema  # here: nobody else needs it

    print_data(json.dumps(settings_schema(), indent=2) + "\n")


def _file_line(unread: Unread) -> str:
    return f"file: {printable(str(unread.config_path))}\n" if unread.config_path else ""


@app.command(cls=HelpfulCommand)
def sample() -> None:
    """Print a configuration file with every key, its default and its meaning.

    Example:
      fleetmem config sample > fleetmem.toml
    """
    print_data(sample_toml())


def _state(given: Given) -> tuple[str, bool]:
    """Returns what there is to say about the state folder of `fleetmem run`, and whether it is of use."""
    try:
        folder = state_folder(given.settings, identity_of(given.config_path, given.settings))
        if folder is None:
            return f"none; {_FORGETS}", False
        folder.check()
    except OSError as error:
        return f"{reason_of(error)}; {_FORGETS}", False
    return f"{folder.path}, can be written" if given.settings.run.state_dir else "", True


def _pattern_lines(shape: Shape) -> Iterator[str]:
    """Yields a line for each regular expression, which says how it is run."""
    limits = shape.limits()
    for pattern in dict.fromkeys((*limits.name_patterns, *limits.hosts.include, *limits.hosts.exclude)):
        is_bounded = isinstance(pattern, Pattern) and pattern.is_bounded
        how = "runs in the collector" if is_bounded else f"{_ASIDE}, {TEXT_LIMIT_SECONDS:g} s of CPU for each new name"
        yield f"pattern {printable(repr(pattern.pattern))}: {how}\n"


def _sink_count(settings: Settings) -> int:
    others = settings.graphite.server, settings.prometheus.listen, settings.file.path
    return len(settings.statsd.servers()) + sum(other is not None for other in others) + len(settings.sinks)


def to_toml(settings: Settings) -> str:
    """Returns a configuration as TOML; keys without a value are left out."""
    return _render(settings, is_sample=False)


def sample_toml() -> str:
    """Returns every key with its default, or an example where there is none, commented out, and what it means."""
    head = "# fleetmem configuration. Every key is here with its default; remove the # in front to change one.\n"
    return head + _render(Settings.model_construct(), is_sample=True) + plugin_samples()


def _render(settings: BaseModel, *, is_sample: bool) -> str:
    lines: list[str] = []
    sections: list[str] = []
    meanings = meanings_of(type(settings)) if is_sample else {}
    for name, field in type(settings).model_fields.items():
        value = getattr(settings, name)
        if isinstance(value, BaseModel):
            title = f"# {type(value).__doc__}\n" if is_sample else ""
            sections.append(f"\n{title}[{name}]\n{_render(value, is_sample=is_sample)}")
        elif isinstance(value, Mapping):
            sections.append(f"\n# {meanings[name]} (docs/how-to/sinks.md)\n" if is_sample else plugin_sections(value))
        elif is_sample:
            is_set = value is not None and (value != () or not field.examples)
            shown = value if is_set else (field.examples or [""])[0]
            note = "" if is_set else " (not set; an example)"
            lines += [f"# {meanings[name]}{note}", f"#{name} = {toml_value(shown)}"]
        elif value is not None:
            lines.append(f"{name} = {toml_value(value)}")
    return "".join(f"{line}\n" for line in lines) + "".join(sections)
