"""`fleetmem config`: show, check, sample."""

from collections.abc import Iterator, Mapping

import typer
from pydantic import BaseModel

from fleetmem.cli.help_page import HelpfulCommand, HelpfulGroup
from fleetmem.cli.options import Given, ask_passphrase, with_settings
from fleetmem.cli.output import print_data
from fleetmem.cli.plugin_text import plugin_samples, plugin_sections
from fleetmem.cli.toml_text import meanings_of, toml_value
from fleetmem.config import Settings, Shape
from fleetmem.errors import reason_of
from fleetmem.runtime.pattern import TEXT_LIMIT_SECONDS, Pattern
from fleetmem.safe_text import printable
from fleetmem.wiring.state_files import identity_of, state_folder

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


@app.command(cls=HelpfulCommand)
@with_settings
def check(given: Given) -> None:
    """Check the configuration, its hosts and its keys, without connecting to anything.

    Exit status: 0 all is well, 2 something is wrong.

    Example:
      fleetmem config check -c fleetmem.toml
    """
    from fleetmem.wiring.fleet import build_fleet  # here: the other commands need no SSH

    fleet = build_fleet(given.settings.for_one_cycle(), ask_passphrase)
    print_data(f"ok: {len(fleet.hosts)} hosts, {_sink_count(given.settings)} sinks\n{_state(given)}")
    print_data("".join(_pattern_lines(given.settings.shape)))


@app.command(cls=HelpfulCommand)
def sample() -> None:
    """Print a configuration file with every key, its default and its meaning.

    Example:
      fleetmem config sample > fleetmem.toml
    """
    print_data(sample_toml())


def _state(given: Given) -> str:
    """Returns a line about the state folder of `fleetmem run`: one that is configured, or one that is of no use."""
    try:
        folder = state_folder(given.settings, identity_of(given.config_path, given.settings))
        if folder is None:
            return "state: none; series that end while fleetmem is restarted may stay in StatsD\n"
        folder.check()
    except OSError as error:
        return f"state: {reason_of(error)}; series that end while fleetmem is restarted may stay in StatsD\n"
    return f"state: {folder.path}, can be written\n" if given.settings.run.state_dir else ""


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
