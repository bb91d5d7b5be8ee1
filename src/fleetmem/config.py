"""Configuration: flags over environment over a TOML file over defaults, checked, as one frozen object.

Environment variables are `FLEETMEM_<SECTION>__<KEY>`, as in `FLEETMEM_SSH__USER=ubuntu`.
"""

import ipaddress
import re
import tomllib
from collections.abc import Set
from contextvars import ContextVar
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from fleetmem.connect.settings import HostKeyPolicy, LoginLimits, ReachSettings, SshSettings, parse_jumps
from fleetmem.errors import ConfigError, reason_of
from fleetmem.inventory.inventory import Shard
from fleetmem.inventory.listing import READ_TIMEOUT_SECONDS, AnsibleReader
from fleetmem.model import Detail
from fleetmem.probe.script import ProbeKind, Processes
from fleetmem.runtime import bounded_file
from fleetmem.runtime.pattern import Pattern, compiled
from fleetmem.safe_text import redact_setting
from fleetmem.shape.budget import reserved_series
from fleetmem.shape.limits import Filter, Group, Limits, TopBy
from fleetmem.sinks.files.archive import Compression
from fleetmem.sinks.formats import Dialect
from fleetmem.sinks.naming import check_prefix, check_tags
from fleetmem.sinks.queue.pace import STEADY_DATAGRAMS_PER_SECOND
from fleetmem.sinks.records import RecordFormat
from fleetmem.sinks.series import Retire
from fleetmem.units import parse_size

DEFAULT_PATHS = (Path("~/.config/fleetmem/config.toml"), Path("/etc/fleetmem/config.toml"))
_ENV_PREFIX = "FLEETMEM_"
_SSH_CONFIGS = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))
_STATSD_PORT = 8125
_PROMETHEUS_PORT = 9877
_HEALTH_PORT = 9878
AUTO = "auto"


_T = TypeVar("_T", bound=BaseModel)


class _Section(BaseModel):
    """A table of the file. What stands below a field is its meaning, which `fleetmem config sample` reads from here."""

    # Not use_attribute_docstrings: to read all of them, which one command needs, was a twentieth of every start.
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def _check_home(path: Path) -> Path:
    try:
        path.expanduser()
    except RuntimeError as error:  # ~somebody without a home
        raise ValueError(f"{path}: {error}") from error
    return path


def _split(value: object) -> object:
    """Returns the parts of a comma-separated text, as environment variables hold lists."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _split_lines(value: object) -> object:
    """Returns the lines of a text, as an environment variable holds several inventories: there are commas in them."""
    return [line.strip() for line in value.splitlines() if line.strip()] if isinstance(value, str) else value


def _split_all(value: object) -> object:
    """Returns the parts of several comma-separated texts, as a flag gives them that can be repeated."""
    parts = [_split(part) for part in value] if isinstance(value, list | tuple) else [_split(value)]
    if not all(isinstance(part, list) for part in parts):
        return value
    return list(dict.fromkeys(word for part in parts if isinstance(part, list) for word in part))


def _check_pattern(text: str) -> str:
    try:
        compiled(text)
    except (re.error, OverflowError, RecursionError) as error:  # the latter two: a{99999999999}, ten thousand brackets
        raise ValueError(f"not a regular expression: {error}") from error
    return text


def _check_user_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    for text in patterns:
        if re.fullmatch(r"\^?[A-Za-z_][A-Za-z_-]*\$?", text):
            raise ValueError(f"{text!r} matches no user id: hosts send numbers, 0 for root")
    return patterns


def _check_jumps(text: str | None) -> str | None:
    if text is not None:
        parse_jumps(text)
    return text


_Path = Annotated[Path, AfterValidator(_check_home)]
_Pattern = Annotated[str, AfterValidator(_check_pattern)]
_Patterns = Annotated[tuple[_Pattern, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)]
_UserPatterns = Annotated[_Patterns, AfterValidator(_check_user_patterns)]
_Size = Annotated[int, BeforeValidator(lambda value: parse_size(value) if isinstance(value, str) else value)]


class Inventory(_Section):
    """Which hosts."""

    hosts: Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = ()
    """[user@]host[:port], ranges as web[01-50], files as @hosts.txt"""
    sources: Annotated[tuple[str, ...], BeforeValidator(_split_lines)] = Field(
        default=(), examples=[["ansible:/etc/ansible/hosts", "ec2:region=eu-west-1,tag:Role=web"]]
    )
    """more hosts, as KIND:ARGUMENT: hosts, ssh, ansible, ec2, terraform, file_sd, http_sd, json, command"""
    limit: str | None = Field(default=None, examples=["web:&eu:!old"])
    """only those hosts of all inventories that the pattern matches: Ansible's patterns, and label=value"""
    shard: str | None = Field(default=None, examples=["0/3"])
    """of those only the share of one of several collectors, as NUMBER/COUNT: 0/3, 1/3 and 2/3 have all hosts once"""
    tags: Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(check_tags)] = Field(
        default=(), examples=[["role", "env"]]
    )
    """labels of hosts that become tags, where names have tags: StatsD's dialects, graphite.tags, Prometheus"""
    ansible_labels: Annotated[tuple[str, ...], BeforeValidator(_split)] = Field(default=(), examples=[["role", "env"]])
    """variables of Ansible that become labels; the others are not taken, as they may hold secrets"""
    ansible_reader: AnsibleReader = AnsibleReader.AUTO
    """auto has Ansible read its inventories where it is installed, builtin never, ansible always"""
    refresh_seconds: float = Field(default=60.0, ge=0)
    """for `run`: time between two readings of what can change; 0 reads at the start only"""
    timeout_seconds: float = Field(default=READ_TIMEOUT_SECONDS, gt=0)
    """for one inventory to be read"""

    @field_validator("shard")
    @classmethod
    def _check_shard(cls, value: str | None) -> str | None:
        if value is not None:
            split_shard(value)
        return value


class _HostSsh(_Section):
    """How to reach a host: what may differ from host to host."""

    user: str | None = Field(default=None, examples=["ubuntu"])
    """login name; by default the ssh configuration's, then yours"""
    port: int | None = Field(default=None, ge=1, le=65535, examples=[2222])
    """TCP port; by default the ssh configuration's, then 22"""
    key: Annotated[tuple[_Path, ...], BeforeValidator(_split)] = ()
    """private keys; by default the ssh configuration's, the agent's, then those in ~/.ssh"""
    jump: Annotated[str | None, AfterValidator(_check_jumps)] = Field(
        default=None, examples=["ubuntu@bastion.example.com"]
    )
    """jump hosts as [user@]host[:port],...; one connection to each carries all; none for none; by default ProxyJump"""
    known_hosts: _Path | None = Field(default=None, examples=["~/.ssh/known_hosts"])
    """host keys are checked against this file; by default UserKnownHostsFile, then ~/.ssh/known_hosts"""
    host_keys: HostKeyPolicy | None = Field(default=None, examples=["accept-new"])
    """accept-new records unknown keys, strict refuses them, insecure checks none; by default StrictHostKeyChecking's"""
    connect_timeout_seconds: float | None = Field(default=None, gt=0, examples=[5.0])
    """for the TCP connection; by default ConnectTimeout, then 5"""
    login_timeout_seconds: float | None = Field(default=None, gt=0, examples=[5.0])
    """for key exchange and authentication; by default ConnectTimeout, then 5"""
    command_timeout_seconds: float = Field(default=5.0, gt=0)
    """for one sample"""
    keepalive_seconds: float | None = Field(default=None, ge=0, examples=[15.0])
    """a silent connection is asked so often whether it lives; 0 never; by default ServerAliveInterval, then 15"""
    compression: bool | None = Field(default=None, examples=[False])
    """compress what is sent: less traffic, more CPU on both sides; by default Compression, then false"""

    def settings(self) -> SshSettings:
        """Returns the plain values that `connect` takes, for a host that nothing else is said of."""
        return SshSettings(
            user=self.user,
            port=self.port,
            key_paths=self.key,
            jumps=parse_jumps(self.jump) if self.jump else None,
            known_hosts_path=self.known_hosts,
            host_key_policy=self.host_keys,
            connect_timeout_seconds=self.connect_timeout_seconds,
            login_timeout_seconds=self.login_timeout_seconds,
            command_timeout_seconds=self.command_timeout_seconds,
            keepalive_seconds=self.keepalive_seconds,
            is_compressed=self.compression,
        )


class Ssh(_HostSsh):
    """How to reach them."""

    config_file: _Path | None = Field(default=None, examples=["~/.ssh/config"])
    """ssh client configuration, or none; by default ~/.ssh/config, then /etc/ssh/ssh_config"""
    concurrency: int = Field(default=64, ge=1)
    """logins at the same time, over all hosts"""
    handshakes_per_second: float = Field(default=150.0, ge=0)
    """logins begun in a second, over all hosts; 0 is no limit"""
    jump_handshakes: int = Field(default=8, ge=1)
    """logins at the same time through one jump host; behind it may be one sshd, which lets 10 wait (MaxStartups)"""
    jump_handshakes_per_second: float = Field(default=50.0, ge=0)
    """logins begun in a second through one jump host; 0 is no limit"""
    most_refusals: int = Field(default=5, ge=0)
    """hosts that may refuse a user and keys while none lets them in; then only one is tried at a time; 0 is no limit"""

    def reach(self) -> ReachSettings:
        """Returns the plain values that `connect` takes, for a fleet."""
        limits = LoginLimits(
            max_handshakes=self.concurrency,
            handshakes_per_second=self.handshakes_per_second,
            jump_handshakes=self.jump_handshakes,
            jump_handshakes_per_second=self.jump_handshakes_per_second,
            most_refusals=self.most_refusals,
        )
        return ReachSettings(self.settings(), limits, self._config_paths())

    def _config_paths(self) -> tuple[Path, ...]:
        """Returns the files that ssh would read (ssh_config(5), FILES)."""
        if self.config_file is None:
            return tuple(path for path in _SSH_CONFIGS if path.expanduser().is_file())
        return () if str(self.config_file) == "none" else (self.config_file,)


class Probe(_Section):
    """What runs on the hosts."""

    kind: ProbeKind = ProbeKind.STATUS
    """status reads /proc, ps runs ps (for hosts without a readable /proc)"""
    sudo: bool = False
    """run it as root by sudo -n, where hosts hide processes (hidepid); see `fleetmem probe --sudoers USER`"""
    processes: Processes = Processes.USER
    """user leaves out kernel threads and zombies, which own no memory; all keeps them"""


class Override(_HostSsh):
    """What is different for some hosts: the keys of [ssh] that are about a host, and those of [probe]."""

    match: str = Field(min_length=1)
    kind: ProbeKind | None = None
    sudo: bool | None = None
    processes: Processes | None = None

    def without(self, keys: Set[str]) -> Self:
        """Returns the same without some keys."""
        kept = self.model_fields_set - keys
        return type(self)(**{name: getattr(self, name) for name in kept})

    def over(self, section: _T) -> _T:
        """Returns a section with the keys that are different."""
        fields = self.model_fields_set & type(section).model_fields.keys()
        return section.model_copy(update={name: getattr(self, name) for name in fields})


class ShapeGroup(_Section):
    """A rule that gives many processes one name."""

    match: _Pattern
    name: str = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str, info: ValidationInfo) -> str:
        if "match" in info.data:  # else that is wrong, and told
            Group(Pattern(info.data["match"]), value)
        return value


class Shape(_Section):
    """What is worth storing. Whatever is left out is added up in `other`."""

    detail: Annotated[tuple[Detail, ...], BeforeValidator(_split_all), Field(min_length=1)] = (Detail.PROCESS,)
    """process: a series per process; command: one per command and host; or both"""
    top: int | None = Field(default=None, ge=1, examples=[20])
    """keep that many per host and level of detail"""
    top_by: TopBy = TopBy.RSS
    """what is large: rss; swap; growth, RSS less its average over ten minutes"""
    min_rss: _Size = Field(default=0, ge=0)
    """leave out what is smaller (64k, 10MiB)"""
    include_commands: _Patterns = Field(default=(), examples=[("^postgres", "^nginx$")])
    """leave out all but these; regular expressions, found anywhere in the kernel's name of a process (15 bytes)"""
    exclude_commands: _Patterns = Field(default=(), examples=[("^systemd", "^sshd")])
    """leave out these commands, also where they are included"""
    include_users: _UserPatterns = Field(default=(), examples=[("^0$", "^1[0-9]{3}$")])
    """leave out all but these; regular expressions on the user id in decimal: hosts send numbers, not names"""
    exclude_users: _UserPatterns = Field(default=(), examples=[("^0$",)])
    """leave out these users"""
    include_hosts: _Patterns = Field(default=(), examples=[("^db",)])
    """leave out the processes of all other hosts; regular expressions on the name in the inventory"""
    exclude_hosts: _Patterns = Field(default=(), examples=[("^test",)])
    """leave out the processes of these hosts"""
    groups: tuple[ShapeGroup, ...] = Field(
        default=(),
        examples=[({"match": "^postgres", "name": "postgres"}, {"match": "^(?P<app>[a-z]+)-[0-9]+", "name": "{app}"})],
    )
    """names for processes, also as [[shape.groups]]; the first rule whose regular expression is found in the command"""
    max_series_per_host: int = Field(default=10_000, ge=0)
    """for `run`: series of a host, also those that ended within the hour; 0 is no limit"""
    max_series: int = Field(default=0, ge=0)
    """for `run`: the same for all hosts together; 0 is no limit"""

    @field_validator("max_series_per_host")
    @classmethod
    def _check_max_series_per_host(cls, value: int, info: ValidationInfo) -> int:
        least = reserved_series(info.data.get("detail", ()))
        if 0 < value < least:
            raise ValueError(f"a host has {least} series of its own and of `other`: {least} or more, 0 for no limit")
        return value

    def limits(self) -> Limits:
        """Returns the plain values that `shape` takes."""
        return Limits(
            detail=frozenset(self.detail),
            top=self.top,
            min_rss_bytes=self.min_rss,
            top_by=self.top_by,
            commands=_filter(self.include_commands, self.exclude_commands),
            users=_filter(self.include_users, self.exclude_users),
            hosts=_filter(self.include_hosts, self.exclude_hosts),
            groups=tuple(Group(Pattern(group.match), group.name) for group in self.groups),
        )

    def without_budget(self) -> Self:
        """Returns the same for a single cycle: a budget is about series over time."""
        return self.model_copy(update={"max_series_per_host": 0, "max_series": 0})


def _filter(include: tuple[str, ...], exclude: tuple[str, ...]) -> Filter:
    return Filter(tuple(map(Pattern, include)), tuple(map(Pattern, exclude)))


class Server(NamedTuple):
    """Where a server listens.

    Attributes:
        scheme: udp, tcp or unix.
        host: name or address; the path of the socket for unix.
        port: 0 for unix.
    """

    scheme: str
    host: str
    port: int


class Statsd(_Section):
    """StatsD."""

    server: Annotated[tuple[str, ...], BeforeValidator(_split_all)] = Field(
        default=(), examples=[["graphite.example.com"]]
    )
    """HOST[:PORT] for UDP, tcp://HOST[:PORT], unix:///PATH; of several, each host always has the same one"""
    dialect: Dialect = Dialect.PLAIN
    """plain has host, command and pid in the name; dogstatsd, influx (Telegraf) and graphite have them as tags"""
    retire: Retire = Retire.ZERO
    """zero sends a 0 in three cycles when a process is gone (several servers repeat the last value); none does not"""
    datagrams_per_second: float = Field(default=STEADY_DATAGRAMS_PER_SECOND, gt=0)
    """steady pace; raise it for a server with a large receive buffer. Backlogs and higher loads go faster anyway"""

    @field_validator("server")
    @classmethod
    def _check_servers(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        servers = [split_server(text) for text in value]
        if len(set(servers)) < len(servers):
            raise ValueError("a server is there twice")
        return value

    def servers(self) -> list[Server]:
        """Returns the servers, none where nothing is to be sent."""
        return [split_server(text) for text in self.server]


class CarbonProtocol(StrEnum):
    """How carbon takes points."""

    LINE = "line"
    PICKLE = "pickle"


_CARBON_PORTS = {CarbonProtocol.LINE: 2003, CarbonProtocol.PICKLE: 2004}


class Graphite(_Section):
    """Carbon over TCP, with the sample's own time. What it does not take waits on disk (in run)."""

    server: str | None = Field(default=None, examples=["graphite.example.com"])
    """HOST or HOST:PORT; nothing is sent where it is not set. Default port 2003, 2004 for pickle"""
    protocol: CarbonProtocol = CarbonProtocol.LINE
    """line, or pickle, which costs carbon less"""
    tags: bool = False
    """host, command and pid as Graphite's tags instead of parts of the name; better with detail command"""
    spool: bool = True
    """whether points wait on disk while carbon is away; in memory otherwise"""
    spool_dir: _Path | None = Field(default=None, examples=["/var/lib/fleetmem"])
    """where; by default $STATE_DIRECTORY, $XDG_STATE_HOME/fleetmem or ~/.local/state/fleetmem"""
    spool_max_size: _Size = Field(default=1024**3, gt=0)
    """the oldest points are dropped, and counted, beyond that size"""
    spool_max_age_seconds: float = Field(default=86_400.0, gt=0)
    """and beyond that age"""

    @field_validator("server")
    @classmethod
    def _check_server(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value, _CARBON_PORTS[CarbonProtocol.LINE])
        return value

    def address(self) -> tuple[str, int] | None:
        """Returns host and port, None where there is no server."""
        return split_address(self.server, _CARBON_PORTS[self.protocol]) if self.server else None


def _check_listen(value: object) -> object:
    if value is None:
        return None
    text = str(value)
    try:
        _listen_address(text, _PROMETHEUS_PORT)
    except ValueError as error:
        raise ValueError(f"{text!r} is not PORT or HOST:PORT; 0.0.0.0:PORT is all addresses") from error
    return text


def _listen_address(text: str, default_port: int) -> tuple[str, int]:
    return split_address(f"127.0.0.1:{text}" if text.isdigit() else text, default_port)


_Listen = Annotated[str | None, BeforeValidator(_check_listen)]
"""Where pages are served: PORT, of 127.0.0.1, or HOST:PORT."""


class Prometheus(_Section):
    """A page for Prometheus to scrape (in run)."""

    listen: _Listen = Field(default=None, examples=["127.0.0.1:9877"])
    """PORT (of 127.0.0.1) or HOST:PORT, 0.0.0.0:PORT for all addresses; everyone who can connect reads the fleet"""

    def address(self) -> tuple[str, int] | None:
        """Returns address and port to listen on, None where there is to be no page."""
        return _listen_address(self.listen, _PROMETHEUS_PORT) if self.listen else None


class File(_Section):
    """Every outcome, and the collector's own counters, in a file."""

    path: _Path | None = Field(default=None, examples=["/var/log/fleetmem/memory.jsonl"])
    """nothing is written where it is not set"""
    format: RecordFormat = RecordFormat.JSONL
    """jsonl, one object per host, or csv, one row per process"""
    rotate_size: _Size = Field(default=100 * 1024**2, ge=0)
    """begin a new file at that size; 0 never"""
    rotate_seconds: float = Field(default=86_400.0, ge=0)
    """begin a new file at each multiple of it (UTC); 0 never"""
    keep: int = Field(default=14, ge=0)
    """how many old files stay; 0 all"""
    compress: Compression = Compression.GZIP
    """what becomes of old files: gzip, zstd (needs fleetmem[zstd]) or none"""


def _check_workers(value: object) -> object:
    if value == AUTO:
        return value
    if isinstance(value, bool) or not re.fullmatch(r"[1-9][0-9]{0,2}", str(value)):
        raise ValueError(f"not a number from 1 to 999, nor {AUTO}")
    return int(str(value))


class Run(_Section):
    """For `fleetmem run`."""

    interval_seconds: float = Field(default=10.0, ge=0.1)
    """time between two samples of a host; make it the StatsD flush interval and the finest whisper step"""
    workers: Annotated[int | str, BeforeValidator(_check_workers)] = Field(default=1, examples=[AUTO])
    """processes that sample, each its share of the hosts; auto: one for 2,500 hosts, as far as there are CPUs"""
    state_dir: _Path | None = Field(default=None, examples=["/var/lib/fleetmem"])
    """what is remembered across restarts, in a folder per collector; none for nothing; by default where the spool is"""
    health_listen: _Listen = Field(default=None, examples=["127.0.0.1:9878"])
    """PORT (of 127.0.0.1) or HOST:PORT for /healthz and /readyz; Prometheus's address has them, too"""
    http_names: tuple[str, ...] = Field(default=(), examples=[("metrics.example.com",)])
    """names of these pages and Prometheus's, beside addresses and this machine's name; none: all, except on loopback"""

    def health_address(self) -> tuple[str, int] | None:
        """Returns address and port of the health pages, None where there are to be none of their own."""
        return _listen_address(self.health_listen, _HEALTH_PORT) if self.health_listen else None


_MANAGEMENT_PORT = 8126


class Doctor(_Section):
    """For `fleetmem doctor`."""

    graphite_url: str | None = Field(default=None, examples=["http://graphite.example.com"])
    """graphite-web, where what was sent is read back; http://USER:PASSWORD@HOST where it asks for one"""
    statsd_management: str = str(_MANAGEMENT_PORT)
    """Node StatsD's management port: PORT of each StatsD server, or HOST:PORT; none asks none"""
    wait_seconds: float = Field(default=30.0, gt=0)
    """for a canary to arrive in Graphite; three intervals where those are longer"""
    new_series: int = Field(default=64, ge=0, le=1000)
    """sent at once to see how many files carbon makes, until all are made; each stays as a file. 0 sends none"""

    @field_validator("graphite_url")
    @classmethod
    def _check_graphite_url(cls, value: str | None) -> str | None:
        if value is not None:
            from fleetmem.sinks.graphite_web import (
                GraphiteWeb,  # here: Python's HTTP is a good part of a start without it
            )

            GraphiteWeb(value)
        return value

    @field_validator("statsd_management", mode="before")
    @classmethod
    def _check_statsd_management(cls, value: object) -> str:
        text = str(value)
        try:
            _management_address(text, "localhost")
        except ValueError as error:
            raise ValueError(f"{text!r} is not PORT, HOST:PORT or none") from error
        return text

    def management(self, statsd_host: str) -> tuple[str, int] | None:
        """Returns the management port of a StatsD server, None where it is not to be asked."""
        return _management_address(self.statsd_management, statsd_host)


def _management_address(text: str, statsd_host: str) -> tuple[str, int] | None:
    if text == "none":
        return None
    if text.isdigit():
        return statsd_host, split_address(f"x:{text}", 0)[1]
    return split_address(text, _MANAGEMENT_PORT)


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=_ENV_PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,  # lists are comma-separated there, not JSON
    )

    prefix: str = "fleetmem"
    """first part of every metric name; for Graphite alone it may hold - and begin with a digit (hosted Graphite)"""
    overrides: tuple[Override, ...] = Field(
        default=(), examples=[({"match": "db:&eu", "user": "admin", "jump": "bastion.example.com", "sudo": True},)]
    )
    """for hosts that `match`, also as [[overrides]]: keys of [ssh] and [probe]; later ones and flags are stronger"""
    inventory: Inventory = Inventory()
    ssh: Ssh = Ssh()
    probe: Probe = Probe()
    shape: Shape = Shape()
    statsd: Statsd = Statsd()
    graphite: Graphite = Graphite()
    prometheus: Prometheus = Prometheus()
    file: File = File()
    run: Run = Run()
    doctor: Doctor = Doctor()

    def for_one_cycle(self) -> Self:
        """Returns the same for a command that samples once: without budget, spool and pages, which are about time."""
        graphite = self.graphite.model_copy(update={"spool": False})
        changes = {"shape": self.shape.without_budget(), "graphite": graphite, **self._without_pages()}
        return self.model_copy(update=changes)

    def without_sinks(self) -> Self:
        """Returns the same with nowhere to send to."""
        nowhere = {"statsd": Statsd(), "graphite": Graphite(), "file": File(), **self._without_pages()}
        return self.model_copy(update=nowhere)

    def for_worker(self) -> Self:
        """Returns the same for a worker process, which has none of what there is once: pages, spool, files."""
        return self.model_copy(update={"graphite": Graphite(), "file": File(), **self._without_pages()})

    def _without_pages(self) -> dict[str, _Section]:
        return {"prometheus": Prometheus(), "run": self.run.model_copy(update={"health_listen": None})}

    @model_validator(mode="after")
    def _check_prefix(self) -> Self:
        others = self.statsd.server or self.prometheus.listen
        check_prefix(self.prefix, is_for_graphite=self.graphite.server is not None and not others)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources, strongest first: flags, environment, file."""
        return init_settings, env_settings, _FileSource(settings_cls)


_file_values: ContextVar[dict[str, Any]] = ContextVar("_file_values")


def split_shard(text: str) -> Shard:
    """Returns what `NUMBER/COUNT` says.

    Raises:
        ValueError: it is no share of anything.
    """
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"{text!r} is not NUMBER/COUNT; of three collectors the first has 0/3, the last 2/3")
    return Shard(int(match[1]), int(match[2]))


def split_server(text: str) -> Server:
    """Returns what `HOST[:PORT]`, `udp://HOST[:PORT]`, `tcp://HOST[:PORT]` or `unix:///PATH` says.

    Raises:
        ValueError: it is none of these.
    """
    scheme, sign, rest = text.partition("://")
    if not sign:
        return Server("udp", *split_address(text, _STATSD_PORT))
    if scheme == "unix":
        if not rest.startswith("/"):
            raise ValueError(f"{text!r}: the path of the socket begins with /, as in unix:///run/statsd.sock")
        return Server("unix", rest, 0)
    if scheme not in ("udp", "tcp"):
        raise ValueError(f"{text!r} is not HOST[:PORT], udp://HOST[:PORT], tcp://HOST[:PORT] or unix:///PATH")
    return Server(scheme, *split_address(rest, _STATSD_PORT))


def split_address(text: str, default_port: int) -> tuple[str, int]:
    """Returns host and port of `HOST`, `HOST:PORT`, `[IPV6]:PORT` or `IPV6`.

    Raises:
        ValueError: it is none.
    """
    match = re.fullmatch(r"\[([^\[\]]+)\](?::(\d+))?|([^\[\]:\s]+)(?::(\d+))?|([0-9A-Fa-f:.]+(?:%\w+)?)", text)
    if not match or (match[5] and not _is_ipv6(match[5])):
        raise ValueError(f"{text!r} is not HOST or HOST:PORT")
    host = match[1] or match[3] or match[5]
    port = int(match[2] or match[4] or default_port)
    if not 0 < port < 65536:
        raise ValueError(f"{text!r}: port {port} is not between 1 and 65535")
    return host, port


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True


def find_path() -> Path | None:
    """Returns the first of the usual configuration files that exists."""
    return next((path for path in map(Path.expanduser, DEFAULT_PATHS) if path.is_file()), None)


def load(path: Path | None, flags: dict[str, Any]) -> Settings:
    """Returns the configuration.

    Args:
        path: TOML file, None for none.
        flags: values given on the command line, nested as the sections are.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, a wrong value; the message names the key.
    """
    token = _file_values.set(_read_toml(path) if path else {})
    try:
        return _under_flags(Settings(**flags), flags)
    except ValidationError as error:
        raise ConfigError(_explain(error, path)) from error
    except SettingsError as error:
        raise ConfigError(f"environment: {error} ({error.__cause__})") from error
    finally:
        _file_values.reset(token)


def _under_flags(settings: Settings, flags: dict[str, Any]) -> Settings:
    """Returns a configuration whose overrides say nothing that a flag says: what is typed now is meant now."""
    keys = {*flags.get("ssh", {}), *flags.get("probe", {})}
    if not keys or not settings.overrides:
        return settings
    return settings.model_copy(update={"overrides": tuple(override.without(keys) for override in settings.overrides)})


class _FileSource(PydanticBaseSettingsSource):
    """What the configuration file says."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return _file_values.get({}).get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return _file_values.get({})


_LIMIT_BYTES = 4 << 20


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(bounded_file.read_text(path.expanduser(), _LIMIT_BYTES))
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        raise ConfigError(f"configuration {path}: {reason_of(error)}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"configuration {path}: {error}") from error


def _explain(error: ValidationError, path: Path | None) -> str:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            lines.append(f"{key}: no such key; `fleetmem config sample` shows all")
        else:
            message = problem["msg"].removeprefix("Value error, ").replace("valid tuple", "list")
            given = f" (given: {redact_setting(repr(problem['input']))})" if key else ""
            # What several keys have to do with has no key of its own: it begins with the one that it is about.
            lines.append(f"{key or message.split()[0]}: {message[0].lower()}{message[1:]}{given}")
    source = f"flags, {_ENV_PREFIX}* variables or {path}" if path else f"flags or {_ENV_PREFIX}* variables"
    return f"configuration ({source}):\n  " + "\n  ".join(lines)
