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
        help_="Hosts to sample: web[01-50].example.com, user@host:port, @FILE for a list. Repeatable.",
        panel=_HOSTS,
        metavar="HOST,...",
    ),
    "inventory": _flag(
        list[str],
        "inventory.sources",
        "--inventory",
        help_="Read hosts from an inventory: ansible:FILE, ec2:region=REGION. `fleetmem hosts --help` lists the kinds. "
        "Repeatable.",
        panel=_HOSTS,
        metavar="[KIND:]SOURCE",
    ),
    "limit": _flag(
        str,
        "inventory.limit",
        "-l",
        "--limit",
        help_="Keep only these hosts: web:&eu:!old, *.example.com, ~REGEX, LABEL=VALUE.",
        panel=_HOSTS,
        metavar="PATTERN",
    ),
    "shard": _flag(
        str,
        "inventory.shard",
        "--shard",
        help_="Sample one share of the hosts, so several collectors divide them: 0/3, 1/3, 2/3.",
        panel=_HOSTS,
        metavar="INDEX/COUNT",
    ),
    "inventory_ignore": _flag(
        list[str],
        "inventory.ignore",
        "--inventory-ignore",
        help_="Ignore the inventories' users, keys or jump hosts: -u, -k, -J decide. Repeatable.",
        panel=_HOSTS,
        metavar="user,key,jump",
    ),
    "user": _flag(
        str,
        "ssh.user",
        "-u",
        "--user",
        help_="Login name. (default ssh configuration, then yours)",
        panel=_SSH,
        metavar="NAME",
    ),
    "key": _flag(
        list[Path],
        "ssh.key",
        "-k",
        "--key",
        help_="Private key file. Repeatable. (default SSH agent, then ~/.ssh)",
        panel=_SSH,
        metavar="FILE",
    ),
    "port": _flag(int, "ssh.port", "-p", "--port", help_="TCP port. (default 22)", panel=_SSH, metavar="PORT"),
    "jump": _flag(
        str,
        "ssh.jump",
        "-J",
        "--jump",
        help_="Connect through these jump hosts, in this order: user@bastion:port. (default ProxyJump of the ssh "
        "configuration)",
        panel=_SSH,
        metavar="HOST,...",
    ),
    "ssh_config": _flag(
        Path,
        "ssh.config_file",
        "-F",
        "--ssh-config",
        help_="ssh configuration to read; `none` reads none. (default ~/.ssh/config)",
        panel=_SSH,
        metavar="FILE",
    ),
    "host_keys": _flag(
        HostKeyPolicy,
        "ssh.host_keys",
        "--host-keys",
        help_="accept-new trusts a host on first contact and remembers its key; strict refuses unknown keys; insecure "
        "checks none. (default accept-new)",
        panel=_SSH,
        metavar="POLICY",
    ),
    "known_hosts": _flag(
        Path,
        "ssh.known_hosts",
        "--known-hosts",
        help_="known_hosts file to check against. (default ~/.ssh/known_hosts)",
        panel=_SSH,
        metavar="FILE",
    ),
    "concurrency": _flag(
        int,
        "ssh.concurrency",
        "--concurrency",
        help_="Number of logins at the same time. (default {})",
        panel=_SSH,
        metavar="NUMBER",
    ),
    "connect_timeout": _flag(
        float,
        "ssh.connect_timeout_seconds",
        "--connect-timeout",
        help_="Time limit for connecting, and again for logging in. (default 5)",
        panel=_SSH,
        metavar="SECONDS",
    ),
    "command_timeout": _flag(
        float,
        "ssh.command_timeout_seconds",
        "--command-timeout",
        help_="Time limit for one sample. (default {})",
        panel=_SSH,
        metavar="SECONDS",
    ),
    "sudo": _flag(
        bool,
        "probe.sudo",
        "--sudo",
        help_="Run the probe as root with `sudo -n`, for hosts that hide processes (hidepid).",
        panel=_SSH,
    ),
    "probe": _flag(
        ProbeKind,
        "probe.kind",
        "--probe",
        help_="How to read processes: status reads /proc, ps runs ps(1). (default {})",
        panel=_SHAPE,
        metavar="status|ps",
    ),
    "protocol": _flag(
        int,
        "probe.protocol",
        "--protocol",
        help_="What the probe speaks: 1 sends all rows each time, 2 those that changed (a preview). (default {})",
        panel=_SHAPE,
        metavar="1|2",
    ),
    "detail": _flag(
        list[str],
        "shape.detail",
        "--detail",
        help_="Keep a series per process, per command, or both: process,command. (default {})",
        panel=_SHAPE,
        metavar="LEVEL,...",
    ),
    "include": _flag(
        list[str],
        "shape.include_commands",
        "--include",
        help_="Keep only commands that match; the rest is summed into `other`. Repeatable.",
        panel=_SHAPE,
        metavar="REGEX",
    ),
    "exclude": _flag(
        list[str],
        "shape.exclude_commands",
        "--exclude",
        help_="Sum commands that match into `other`. Repeatable.",
        panel=_SHAPE,
        metavar="REGEX",
    ),
    "top": _flag(
        int,
        "shape.top",
        "--top",
        help_="Keep the N largest of each host; the rest is summed into `other`, so totals still match.",
        panel=_SHAPE,
        metavar="N",
    ),
    "top_by": _flag(
        TopBy,
        "shape.top_by",
        "--top-by",
        help_="What --top ranks by: rss, swap or growth; growth needs `run`. (default {})",
        panel=_SHAPE,
        metavar="MEASURE",
    ),
    "min_rss": _flag(
        str,
        "shape.min_rss",
        "--min-rss",
        help_="Sum smaller processes into `other`: 64k, 10MiB.",
        panel=_SHAPE,
        metavar="SIZE",
    ),
    "statsd": _flag(
        list[str],
        "statsd.server",
        "-g",
        "--statsd",
        "--graphite-host",  # the name of the first days; not shown in the help
        help_="StatsD server. UDP and port 8125 unless you say more: tcp://HOST, unix:///PATH. With several servers, "
        "each host always reports to the same one. Repeatable.",
        panel=_SINKS,
        metavar="HOST[:PORT]",
    ),
    "graphite": _flag(
        str,
        "graphite.server",
        "--graphite",
        help_="Graphite's carbon server, over TCP. (default port 2003)",
        panel=_SINKS,
        metavar="HOST[:PORT]",
    ),
    "prometheus": _flag(
        str,
        "prometheus.listen",
        "--prometheus",
        help_="Serve /metrics for Prometheus; only `run` does. TLS and passwords: prometheus.web_config. "
        "(default host 127.0.0.1)",
        panel=_SINKS,
        metavar="[HOST:]PORT",
    ),
    "health": _flag(
        str,
        "run.health_listen",
        "--health",
        help_="Serve /healthz and /readyz; only `run` does. (default host 127.0.0.1)",
        panel=_SINKS,
        metavar="[HOST:]PORT",
    ),
    "prefix": _flag(
        str,
        "prefix",
        "--prefix",
        help_="First part of every metric name. (default {})",
        panel=_SINKS,
        metavar="PREFIX",
    ),
    "interval": _flag(
        float,
        "run.interval_seconds",
        "--interval",
        help_="Time between two samples of a host; for `run`. (default {})",
        panel=_SINKS,
        metavar="SECONDS",
    ),
}
"""Flag by flag; `--help` follows this table."""

_DOCTOR = "What to check"

DOCTOR_FLAGS = {
    "graphite_url": _flag(
        str,
        "doctor.graphite_url",
        "--graphite-url",
        help_="Address of graphite-web. The doctor reads back there what it has sent.",
        panel=_DOCTOR,
        metavar="URL",
    ),
    "statsd_management": _flag(
        str,
        "doctor.statsd_management",
        "--statsd-management",
        help_="Management port of a StatsD that runs on Node; `none` asks none. (default {} on each server)",
        panel=_DOCTOR,
        metavar="[HOST:]PORT",
    ),
}
"""Flags that only `fleetmem doctor` has."""

RUN_FLAGS = {
    "workers": _flag(
        str,
        "run.workers",
        "--workers",
        help_="Processes that share the hosts. auto: one for every 2,500 hosts, at most one for each CPU. (default {})",
        panel="How it runs",
        metavar="NUMBER|auto",
    ),
}
"""Flags that only `fleetmem run` has."""

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "-c",
        "--config",
        help="Configuration file, TOML. (default $FLEETMEM_CONFIG, ~/.config/fleetmem/config.toml, /etc/fleetmem/...)",
        metavar="FILE",
        show_default=False,
    ),
]
Verbose = Annotated[
    int,
    typer.Option("-v", "--verbose", count=True, help="Log more; -vv adds the details of SSH.", show_default=False),
]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print only errors on stderr.", show_default=False)]


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
    """Shared flags of a command that may have no use for the configuration, or reads it in its own way.

    Attributes:
        flags: what they say, by section and key.
        read: reads the configuration.
        config_path: its file, None where there is none.
    """

    flags: Mapping[str, Any]
    read: Callable[[], Given]
    config_path: Path | None = None


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

            command(given=given_of(Unread(flags, read, config_file or config.find_path())), **values)

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


with_flags = with_some_flags(*_FLAGS)
"""Gives a command the shared flags, with the configuration not read yet."""

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
