"""The flags that commands share. Each sets one key of the configuration; a flag that is not given leaves it alone."""

import getpass
import inspect
import sys
from collections.abc import Callable, Mapping
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer

from fleetmem import config
from fleetmem.cli.logs import Verbosity
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.probe.script import ProbeKind
from fleetmem.shape.limits import TopBy


class _Flag(NamedTuple):
    """A parameter of a command: its type, how typer shows it, and the key of the configuration that it sets."""

    annotation: Any
    key: str


def _default_of(key: str) -> str:
    """Returns the default of a key, as people write it."""
    section, _dot, name = key.rpartition(".")
    owner = type(config.Settings.model_fields[section].default) if section else config.Settings
    value = owner.model_fields[name].default
    return f"{value:g}" if isinstance(value, float) else ",".join(value) if isinstance(value, tuple) else str(value)


def _flag(type_: Any, key: str, *names: str, help_: str, panel: str, metavar: str | None = None) -> _Flag:
    """Returns a flag; `{}` in its help is what the key is where nothing sets it."""
    option = typer.Option(
        *names,
        help=help_.replace("{}", _default_of(key)),
        rich_help_panel=panel,
        metavar=metavar,
        show_default=False,
    )
    return _Flag(Annotated[type_ | None, option], key)


_HOSTS, _SSH, _SHAPE, _SINKS = "Which hosts", "How to reach them", "What to keep", "Where to send it"

_FLAGS = {
    "hosts": _flag(
        list[str],
        "inventory.hosts",
        *("-i", "--hosts"),
        help_="Hosts, comma-separated: user@host:port, web[01-50], @FILE. Repeatable.",
        panel=_HOSTS,
        metavar="HOST,...",
    ),
    "inventory": _flag(
        list[str],
        "inventory.sources",
        "--inventory",
        help_="More hosts: ansible:FILE, ec2:region=REGION, ...; see `fleetmem hosts --help`. Repeatable.",
        panel=_HOSTS,
        metavar="[KIND:]ARGUMENT",
    ),
    "limit": _flag(
        str,
        "inventory.limit",
        "-l",
        "--limit",
        help_="Of these only: web:&eu:!old, *.example.com, ~REGEX, LABEL=VALUE.",
        panel=_HOSTS,
        metavar="PATTERN",
    ),
    "shard": _flag(
        str,
        "inventory.shard",
        "--shard",
        help_="Of these the share of one of several collectors: 0/3, 1/3 or 2/3.",
        panel=_HOSTS,
        metavar="NUMBER/COUNT",
    ),
    "user": _flag(str, "ssh.user", "-u", "--user", help_="Login name.", panel=_SSH),
    "key": _flag(
        list[Path], "ssh.key", "-k", "--key", help_="Private key. Repeatable. (default agent, ~/.ssh)", panel=_SSH
    ),
    "port": _flag(int, "ssh.port", "-p", "--port", help_="TCP port. (default 22)", panel=_SSH),
    "jump": _flag(
        str,
        "ssh.jump",
        "-J",
        "--jump",
        help_="Jump hosts, one connection to each for all. (default ProxyJump)",
        panel=_SSH,
        metavar="[USER@]HOST[:PORT],...",
    ),
    "ssh_config": _flag(
        Path,
        "ssh.config_file",
        "-F",
        "--ssh-config",
        help_="ssh client configuration, or none. (default ~/.ssh/config)",
        panel=_SSH,
    ),
    "host_keys": _flag(
        HostKeyPolicy,
        "ssh.host_keys",
        "--host-keys",
        help_="What to do with unknown host keys. (default accept-new)",
        panel=_SSH,
    ),
    "known_hosts": _flag(
        Path, "ssh.known_hosts", "--known-hosts", help_="Where they are. (default ~/.ssh/known_hosts)", panel=_SSH
    ),
    "concurrency": _flag(int, "ssh.concurrency", "--concurrency", help_="Logins at once. (default {})", panel=_SSH),
    "connect_timeout": _flag(
        float,
        "ssh.connect_timeout_seconds",
        "--connect-timeout",
        help_="Limit of connect and of login. (default 5)",
        panel=_SSH,
        metavar="SECONDS",
    ),
    "command_timeout": _flag(
        float,
        "ssh.command_timeout_seconds",
        "--command-timeout",
        help_="Limit of one sample. (default {})",
        panel=_SSH,
        metavar="SECONDS",
    ),
    "probe": _flag(ProbeKind, "probe.kind", "--probe", help_="How to read processes. (default {})", panel=_SHAPE),
    "sudo": _flag(bool, "probe.sudo", "--sudo", help_="Run the probe as root, by sudo -n (hidepid).", panel=_SSH),
    "detail": _flag(
        list[str],
        "shape.detail",
        "--detail",
        help_="Series per process, command, or both: process,command. (default {})",
        panel=_SHAPE,
        metavar="process|command",
    ),
    "include": _flag(
        list[str],
        "shape.include_commands",
        "--include",
        help_="Leave out all but these commands. Repeatable.",
        panel=_SHAPE,
        metavar="REGEX",
    ),
    "exclude": _flag(
        list[str],
        "shape.exclude_commands",
        "--exclude",
        help_="Leave out these commands. Repeatable.",
        panel=_SHAPE,
        metavar="REGEX",
    ),
    "top": _flag(
        int,
        "shape.top",
        "--top",
        help_="Keep the N largest of each host; the rest becomes `other`.",
        panel=_SHAPE,
        metavar="N",
    ),
    "top_by": _flag(
        TopBy, "shape.top_by", "--top-by", help_="What is large; growth needs run. (default {})", panel=_SHAPE
    ),
    "min_rss": _flag(
        str, "shape.min_rss", "--min-rss", help_="Leave out smaller ones: 64k, 10MiB.", panel=_SHAPE, metavar="SIZE"
    ),
    "statsd": _flag(
        list[str],
        "statsd.server",
        "-g",
        "--statsd",
        "--graphite-host",
        help_="StatsD server, UDP; or tcp://HOST, unix:///PATH. Repeatable. [default port: 8125]",
        panel=_SINKS,
        metavar="HOST[:PORT]",
    ),
    "graphite": _flag(
        str,
        "graphite.server",
        "--graphite",
        help_="Carbon, TCP. [default port: 2003]",
        panel=_SINKS,
        metavar="HOST[:PORT]",
    ),
    "prometheus": _flag(
        str,
        "prometheus.listen",
        "--prometheus",
        help_="Serve /metrics there (for run). [default host: 127.0.0.1]",
        panel=_SINKS,
        metavar="[HOST:]PORT",
    ),
    "health": _flag(
        str,
        "run.health_listen",
        "--health",
        help_="Serve /healthz and /readyz there (for run). [default host: 127.0.0.1]",
        panel=_SINKS,
        metavar="[HOST:]PORT",
    ),
    "prefix": _flag(str, "prefix", "--prefix", help_="First part of metric names. (default {})", panel=_SINKS),
    "interval": _flag(
        float,
        "run.interval_seconds",
        "--interval",
        help_="Time between samples of a host (for run). (default {})",
        panel=_SINKS,
        metavar="SECONDS",
    ),
}
"""Flag by flag; `--help` follows this table."""

_DOCTOR = "What to look at"

DOCTOR_FLAGS = {
    "graphite_url": _flag(
        str,
        "doctor.graphite_url",
        "--graphite-url",
        help_="graphite-web: what was sent is read back from there.",
        panel=_DOCTOR,
        metavar="http://HOST[:PORT]",
    ),
    "statsd_management": _flag(
        str,
        "doctor.statsd_management",
        "--statsd-management",
        help_="Node StatsD's management port, none for none. (default {} of each server)",
        panel=_DOCTOR,
        metavar="[HOST:]PORT",
    ),
}
"""Likewise, for `fleetmem doctor` alone."""

RUN_FLAGS = {
    "workers": _flag(
        str,
        "run.workers",
        "--workers",
        help_="Processes that share the hosts out. auto: one for 2,500 hosts, one for a CPU at most. (default {})",
        panel="How it runs",
        metavar="NUMBER|auto",
    ),
}
"""Likewise, for `fleetmem run` alone."""

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        help="TOML file. (default ~/.config/fleetmem/config.toml, /etc/fleetmem/config.toml)",
        show_default=False,
    ),
]
Verbose = Annotated[
    int, typer.Option("-v", "--verbose", count=True, help="More on stderr; -vv for SSH details.", show_default=False)
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Only errors on stderr.", show_default=False)]


class Given(NamedTuple):
    """What the shared flags said.

    Attributes:
        settings: the checked configuration.
        reload: reads it once more, with the same flags.
        verbosity: how much goes to stderr.
        config_path: the configuration file, None where there is none.
        flags: what the flags alone say, by section and key.
    """

    settings: config.Settings
    reload: Callable[[], config.Settings]
    verbosity: Verbosity
    config_path: Path | None = None
    flags: Mapping[str, Any] = {}


class Unread(NamedTuple):
    """Shared flags of a command that may have no use for the configuration.

    Attributes:
        flags: what they say, by section and key.
        read: reads the configuration.
    """

    flags: Mapping[str, Any]
    read: Callable[[], Given]


_Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def with_settings_and(more: Mapping[str, _Flag]) -> _Decorator:
    """Returns `with_settings` for a command that has more flags than the shared ones."""
    return _with_flags(_FLAGS | dict(more), lambda unread: unread.read())


def with_some_flags(*names: str) -> _Decorator:
    """Gives a command some of the shared flags; its `given` is what they say, with the configuration not read yet."""
    return _with_flags({name: _FLAGS[name] for name in names}, lambda unread: unread)


def _with_flags(table: Mapping[str, _Flag], given_of: Callable[[Unread], Given | Unread]) -> _Decorator:
    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def wrapper(config_file: Path | None, verbose: int, quiet: bool, **values: Any) -> None:
            flags = _nest({flag.key: values.pop(name) for name, flag in table.items()})

            def load() -> config.Settings:
                return config.load(config_file or config.find_path(), flags)

            def read() -> Given:
                verbosity = Verbosity.of(verbose, is_quiet=quiet)
                return Given(load(), load, verbosity, config_file or config.find_path(), flags)

            command(given=given_of(Unread(flags, read)), **values)

        own = [parameter for parameter in inspect.signature(command).parameters.values() if parameter.name != "given"]
        shared = {name: flag.annotation for name, flag in table.items()}
        shared |= {"config_file": ConfigFile, "verbose": Verbose, "quiet": Quiet}
        defaults = {"verbose": 0, "quiet": False}
        keyword = inspect.Parameter.KEYWORD_ONLY
        parameters = [
            inspect.Parameter(name, keyword, default=defaults.get(name), annotation=annotation)
            for name, annotation in shared.items()
        ]
        parameters += [parameter.replace(kind=keyword) for parameter in own]
        wrapper.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        wrapper.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        return wrapper

    return decorate


with_settings = with_settings_and({})
"""Gives a command the shared flags; it is called with `given` instead of them, and with its own parameters."""


def _nest(values: dict[str, Any]) -> dict[str, Any]:
    """Returns `{"ssh": {"user": "x"}}` for `{"ssh.user": "x", "ssh.port": None}`."""
    nested: dict[str, Any] = {}
    for key, value in values.items():
        if value is None or value == []:
            continue
        *sections, last = key.split(".")
        place = nested
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    if "connect_timeout_seconds" in nested.get("ssh", {}):
        nested["ssh"].setdefault("login_timeout_seconds", nested["ssh"]["connect_timeout_seconds"])
    return nested


def ask_passphrase(path: Path) -> str | None:
    """Asks for the passphrase of a key on the terminal; None where there is none."""
    if not sys.stdin.isatty():
        return None
    return getpass.getpass(f"Passphrase for {path}: ", stream=sys.stderr)
