import json
import os
import re
import tomllib
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem import config
from fleetmem.cli.config import sample_toml, to_toml
from fleetmem.config import Server, Settings, find_path, load, loading, split_address, split_server
from fleetmem.connect.ssh_settings import JumpSpec, SshSettings
from fleetmem.errors import ConfigError
from fleetmem.model import Detail
from fleetmem.runtime.pattern import Pattern
from fleetmem.safe_text import redact_setting
from fleetmem.shape.limits import CommandGroup, Filter, Limits, TopBy
from fleetmem.sinks.naming import FleetNames
from fleetmem.sinks.series import Retire

_FILTERED = ("commands", "users", "hosts")


def _write(folder: Path, text: str) -> Path:
    path = folder / "config.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_defaults() -> None:
    """Without file, environment and flags everything has a value, and nothing is sent anywhere."""
    settings = load(None, {})
    assert (settings.prefix, settings.inventory.hosts, settings.run.interval_seconds) == ("fleetmem", (), 10.0)
    assert (settings.statsd.servers(), settings.graphite.address()) == ([], None)
    assert settings.shape.limits() == Limits(frozenset([Detail.PROCESS]))


def test_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Flags over environment over file over defaults, key by key."""
    lines = ["[ssh]", 'user = "file"', "port = 1", "concurrency = 1", "[shape]", "top = 1", 'detail = "command"']
    path = _write(tmp_path, "\n".join(lines))
    monkeypatch.setenv("FLEETMEM_SSH__USER", "environment")
    monkeypatch.setenv("FLEETMEM_SSH__PORT", "2")
    monkeypatch.setenv("FLEETMEM_SHAPE__TOP", "2")
    settings = load(path, {"ssh": {"user": "flag"}, "shape": {"top": 3}})
    assert (settings.ssh.user, settings.ssh.port, settings.ssh.concurrency) == ("flag", 2, 1)
    assert settings.shape == config.Shape(top=3, detail=(Detail.COMMAND,))
    assert settings.ssh.host_keys is None


def test_lists_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list is written as flags take it: hosts with their ranges, keys with commas in between."""
    monkeypatch.setenv("FLEETMEM_INVENTORY__HOSTS", "web[1,2],@hosts")
    monkeypatch.setenv("FLEETMEM_SSH__KEY", "a.pem, b.pem")
    settings = load(None, {})
    assert settings.inventory.hosts == ("web[1,2],@hosts",)
    assert settings.ssh.key == (Path("a.pem"), Path("b.pem"))


@pytest.mark.parametrize(
    "given",
    [
        "process,command",
        "command, process",
        ["process", "command"],
        ["process,command"],
        ["command", "process,command"],
    ],
)
def test_both_levels_of_detail(given: object) -> None:
    """As a text, as a list, or as a flag that is given twice: each level once."""
    assert load(None, {"shape": {"detail": given}}).shape.limits().details == set(Detail)


def test_measures_in_any_order() -> None:
    """What is asked for is sent in one order, each once; by default it is what it always was."""
    settings = load(None, {"shape": {"measures": ["swap_bytes,rss_bytes", "swap_bytes"]}})
    assert settings.shape.limits().measures == ("rss_bytes", "swap_bytes")
    assert load(None, {}).shape.limits().measures == ("rss_bytes", "vsz_bytes", "mem_percent")


def test_patterns_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """A text is one regular expression: a comma in it is a part of it."""
    monkeypatch.setenv("FLEETMEM_SHAPE__INCLUDE_COMMANDS", "^a{1,2}$")
    assert load(None, {}).shape.include_commands == ("^a{1,2}$",)


def test_settings_of_shape(tmp_path: Path) -> None:
    """The section becomes the plain values of `shape`, each in its place."""
    lines = ["[shape]", "top = 3", "top_by = 'swap'", "min_rss = '2k'", "max_series_per_host = 15", "max_series = 99"]
    lines += [f"{side}_{what} = '{side[0]}{what[0]}.'" for side in ("include", "exclude") for what in _FILTERED]
    lines += ["[[shape.groups]]", "match = '(?P<x>.)'", "name = '{x}'", "[[shape.groups]]", "match = 'b'", "name = 'b'"]
    shape = load(_write(tmp_path, "\n".join(lines)), {}).shape
    limits = shape.limits()
    assert (limits.top, limits.top_by, limits.min_rss_bytes) == (3, TopBy.SWAP, 2048)
    for what, patterns in zip(_FILTERED, (limits.commands, limits.users, limits.hosts), strict=True):
        assert patterns == Filter((Pattern(f"i{what[0]}."),), (Pattern(f"e{what[0]}."),))
    assert limits.groups == (CommandGroup(Pattern("(?P<x>.)"), "{x}"), CommandGroup(Pattern("b"), "b"))
    assert shape.without_budget() == shape.model_copy(update={"max_series_per_host": 0, "max_series": 0})


def test_two_loads_are_equal() -> None:
    """The same sources give equal settings: a reload can tell what changed."""
    assert load(None, {"prefix": "a"}) == load(None, {"prefix": "a"})
    assert load(None, {"prefix": "a"}) != load(None, {"prefix": "b"})


def test_variables_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that only begins like ours is no key."""
    monkeypatch.setenv("FLEETMEM_TOOLS", "/somewhere")
    assert load(None, {}) is not None


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("prefix = 'a-b'", "prefix", "prefix 'a-b': letters, digits and _"),
        ("prefx = 'a'", "prefx", "no such key; do you mean prefix? `fleetmem config sample` shows all"),
        ("[nope]\nx = 1", "nope", "no such key"),
        ("[ssh]\nusr = 'x'", "ssh.usr", "no such key"),
        ("ssh = 'x'", "ssh", "should be a table"),
        ("[ssh]\nport = 70000", "ssh.port", "less than or equal to 65535 (given: 70000)"),
        ("[ssh]\nport = ''", "ssh.port", "valid integer"),
        ("[ssh]\nhost_keys = 'yes'", "ssh.host_keys", "'accept-new', 'strict' or 'insecure' (given: 'yes')"),
        ("[ssh]\nkey = 7", "ssh.key", "should be a list"),
        ("[ssh]\nconcurrency = 0", "ssh.concurrency", "greater than or equal to 1"),
        ("[ssh]\nconnect_timeout_seconds = 0", "ssh.connect_timeout_seconds", "greater than 0"),
        ("[ssh]\nlogin_timeout_seconds = -1", "ssh.login_timeout_seconds", "greater than 0"),
        ("[ssh]\ncommand_timeout_seconds = 'x'", "ssh.command_timeout_seconds", "valid number"),
        ("[inventory]\nhosts = 7", "inventory.hosts", "should be a list"),
        ("[ssh]\nkey = '~nosuchuser/key'", "ssh.key.0", "home directory"),
        ("[probe]\nkind = 'top'", "probe.kind", "'status' or 'ps'"),
        ("[probe]\nprocesses = 'some'", "probe.processes", "'user' or 'all'"),
        ("[shape]\ntop = 0", "shape.top", "greater than or equal to 1"),
        ("[shape]\ntop_by = 'vsz'", "shape.top_by", "'rss', 'swap' or 'growth'"),
        ("[shape]\ndetail = 'all'", "shape.detail.0", "'process' or 'command'"),
        ("[shape]\ndetail = ['process', 'host']", "shape.detail.1", "'process' or 'command'"),
        ("[shape]\ndetail = []", "shape.detail", "at least 1 item"),
        ("[shape]\ndetail = 7", "shape.detail", "should be a list"),
        ("[shape]\nmeasures = ['swap']", "shape.measures.0", "'swap_bytes'"),
        ("[shape]\nmeasures = []", "shape.measures", "at least 1 item"),
        ("[shape]\nmeasures = 'rss_bytes'\nmax_series_per_host = 12", "shape.max_series_per_host", "13 or more"),
        ("[shape]\ninclude_commands = ['a', '(']", "shape.include_commands.1", "not a regular expression: missing )"),
        ("[shape]\nexclude_commands = '['", "shape.exclude_commands.0", "not a regular expression: unterminated"),
        ("[shape]\ninclude_users = ['*']", "shape.include_users.0", "not a regular expression: nothing to repeat"),
        ("[shape]\ninclude_users = ['a{99999999999}']", "shape.include_users.0", "repetition number is too large"),
        ("[shape]\ninclude_users = ['root']", "shape.include_users", "'root' matches no user id"),
        ("[prometheus]\nlisten = ':9877'", "prometheus.listen", "0.0.0.0:PORT is all addresses"),
        ("[prometheus]\nlisten = 70000", "prometheus.listen", "is not PORT or HOST:PORT"),
        ("[shape]\nexclude_users = [0]", "shape.exclude_users.0", "valid string"),
        ("[shape]\ninclude_hosts = ['(']", "shape.include_hosts.0", "not a regular expression"),
        ("[shape]\nexclude_hosts = ['(']", "shape.exclude_hosts.0", "not a regular expression"),
        ("[[shape.groups]]\nmatch = '('\nname = 'a'", "shape.groups.0.match", "not a regular expression"),
        ("[[shape.groups]]\nmatch = 'a'", "shape.groups.0.name", "field required"),
        ("[[shape.groups]]\nmatch = 'a'\nname = ''", "shape.groups.0.name", "at least 1 character"),
        ("[shape]\ngroups = 'a'", "shape.groups", "input should be a list"),
        ("[[shape.groups]]\nname = 'a'", "shape.groups.0.match", "field required"),
        ("[[shape.groups]]\nmatch = 'a'\nname = 'a'\nx = 1", "shape.groups.0.x", "no such key"),
        (
            "[[shape.groups]]\nmatch = 'a'\nname = 'a'\n[[shape.groups]]\nmatch = '(?P<x>a)'\nname = 'a{y}'",
            "shape.groups.1.name",
            "'a{y}' has {y}; captures in '(?P<x>a)': {x}",
        ),
        (
            "[shape]\nmax_series_per_host = 14",
            "shape.max_series_per_host",
            "a host has 15 series of its own and of `other`: 15 or more, 0 for no limit (given: 14)",
        ),
        (
            "[shape]\nmax_series_per_host = 18\ndetail = 'process,command'",
            "shape.max_series_per_host",
            "a host has 19 series",
        ),
        ("[shape]\nmax_series_per_host = -1", "shape.max_series_per_host", "greater than or equal to 0"),
        ("[shape]\nmax_series = -1", "shape.max_series", "greater than or equal to 0"),
        ("[shape]\nmin_rss = 'ten'", "shape.min_rss", "not a size: 'ten'"),
        ("[shape]\nmin_rss = -1", "shape.min_rss", "greater than or equal to 0"),
        ("[statsd]\nserver = 'a b'", "statsd.server", "'a b' is not HOST or HOST:PORT"),
        ("[statsd]\nretire = 'soon'", "statsd.retire", "'zero' or 'none'"),
        ("[statsd]\nserver = 'http://a'", "statsd.server", "'http://a' is not HOST"),
        ("[statsd]\nserver = 'unix://a'", "statsd.server", "begins with /"),
        ("[statsd]\nserver = ['a', 'udp://a:8125']", "statsd.server", "there twice"),
        ("[statsd]\ndialect = 'librato'", "statsd.dialect", "'plain', 'dogstatsd', 'influx' or 'graphite'"),
        ("[graphite]\nprotocol = 'udp'", "graphite.protocol", "'line' or 'pickle'"),
        ("[graphite]\nspool_max_size = 'big'", "graphite.spool_max_size", "not a size"),
        ("[graphite]\nserver = 'a:0'", "graphite.server", "port 0 is not between 1 and 65535"),
        ("[run]\ninterval_seconds = 0.01", "run.interval_seconds", "greater than or equal to 0.1"),
        ("[run]\ninterval_seconds = inf", "run.interval_seconds", "finite number"),
        ("[run]\ninterval_seconds = nan", "run.interval_seconds", "finite number"),
    ],
)
def test_an_error_names_its_key(tmp_path: Path, text: str, key: str, message: str) -> None:
    """Where it is wrong, file and line; what is wrong, and what was given."""
    path = _write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load(path, {})
    head, line = str(caught.value).split("\n")
    assert head == "configuration:"
    place, _, rest = line.partition(": ")
    assert re.fullmatch(rf"  {path}, line [1-9]", place)
    assert rest.startswith(f"{key}: ")
    assert message in rest


def test_all_errors_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever mends a configuration sees everything that is wrong."""
    monkeypatch.setenv("FLEETMEM_SSH__PORT", "x")
    with pytest.raises(ConfigError) as caught:
        load(None, {"shape": {"top": 0}})
    head, *lines = str(caught.value).split("\n")
    assert head == "configuration:"
    assert [line.split(":")[:2] for line in lines] == [["  FLEETMEM_SSH__PORT", " ssh.port"], ["  flags", " shape.top"]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"x =", "1: invalid value; text needs quotation marks"),
        (b"a = 1\nuser = ubuntu", "2: invalid value .*text needs quotation marks"),
        (b"tags = True", "1: invalid value .*true and false are lower case"),
        (b"[ssh\nport = 1", "1: expected ']' .*; a ] is missing"),
        (b"\nport 22", "2: expected '=' .*write key = value"),
        (b"port: 22", "1: expected '=' .*write key = value"),
        (b"a = [1,\n2\n\n", "2: unclosed array; a ] is missing"),
        (b'a = "^x\\.y"', r"1: unescaped '\\' .*single quotes"),
        (b'a = "x\nb = 1', "1: illegal character .*quotation mark"),
        (b"a = 'x\nb = 1", "a quotation mark"),
        (b"[a]\nb = { c = 1, }", r"2: .*key part.*no comma before }"),
        (b"a = 1 b = 2", "1: expected newline .*one key on each line"),
        (b"[a]\n[a]\n", "2: a is there twice, first in line 1; put the keys of both under one"),
        (b"[ssh]\nport = 1\nuser = 'x'\nport = 2\n", "4: ssh.port is there twice, first in line 2; remove one"),
        (b"a = 'x'\nb = '\xff'", "2: byte 0xff is not UTF-8; save the file as UTF-8"),
        ("a = 1".encode("utf-16"), "1: byte 0xff is not UTF-8; save the file as UTF-8"),
    ],
)
def test_a_file_that_is_no_toml(tmp_path: Path, content: bytes, message: str) -> None:
    """The file is named, with the line, the reason and what to do."""
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=f"{path}, line {message}" if message[0].isdigit() else message):
        load(path, {})


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("[statd]\nserver = 'a'", "do you mean statsd?"),
        ("[inventory]\nuser = 'a'", "it belongs to [ssh]."),
        ("top = 3", "it belongs to [shape]."),
        ("[ssh]\nlogin-timeout-seconds = 3", "do you mean login_timeout_seconds?"),
        ("[[overrides]]\nmtach = 'a'\nmatch = 'b'", "do you mean match?"),
        ("[[shape.groups]]\nnames = 'a'\nname = 'b'\nmatch = 'b'", "do you mean name?"),
        ("xyzzy = 3", "`fleetmem config sample` shows all"),
    ],
)
def test_an_unknown_key(tmp_path: Path, text: str, fix: str) -> None:
    """What may have been meant: a key of that section, or the section that has such a key."""
    with pytest.raises(ConfigError) as caught:
        load(_write(tmp_path, text), {})
    assert f": no such key; {fix}" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[ssh]\nport = 'x'", "write a number without a unit"),
        ("[run]\ninterval_seconds = [1]", "write a number without a unit"),
        ("[probe]\nsudo = 'perhaps'", "write true or false"),
        ("[ssh]\nuser = 5", "(given: 5); write it in quotation marks"),
        ("[[ssh]]\nport = 1", "should be a table (given: [{'port': 1}]); write [ssh] and its keys below"),
        ("ssh = 1", "or FLEETMEM_SSH__KEY in the environment"),
        ("[overrides]\nmatch = 'a'", "write [[overrides]]"),
        ("overrides = ['a']", "write [[overrides]]"),
        ("[shape.groups]\nmatch = 'a'", "write [[shape.groups]]"),
        ("[[overrides]]\nuser = 'a'", "overrides.0.match: field required; add match = ..."),
        ("[sinks.statsd]\nserver = 'a'", "the section of the built-in sink is [statsd]"),
    ],
)
def test_what_to_write_instead(tmp_path: Path, text: str, words: str) -> None:
    """It stands behind what is wrong."""
    with pytest.raises(ConfigError) as caught:
        load(_write(tmp_path, text), {})
    assert words in str(caught.value)


def test_files_of_other_systems(tmp_path: Path) -> None:
    """A byte order mark and line ends of Windows change nothing."""
    path = tmp_path / "config.toml"
    path.write_bytes(b"\xef\xbb\xbfprefix = 'a'\r\n[ssh]\r\nport = 23\r\n")
    assert (load(path, {}).prefix, load(path, {}).ssh.port) == ("a", 23)


def test_a_missing_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was asked for has to be there."""
    with pytest.raises(ConfigError, match=r"configuration .*nowhere: no such file or directory"):
        load(tmp_path / "nowhere", {})
    monkeypatch.setenv("FLEETMEM_CONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"nowhere \(FLEETMEM_CONFIG\): no such file"):
        load(find_path(), {})


def test_find_path(home: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The user's file comes before the system's; without both there is none."""
    system = tmp_path / "system.toml"
    monkeypatch.setattr(loading, "DEFAULT_PATHS", (Path("~/.config/fleetmem/config.toml"), system))
    assert find_path() is None
    system.write_text("")
    assert find_path() == system
    users = home / ".config" / "fleetmem" / "config.toml"
    users.parent.mkdir(parents=True)
    users.write_text("")
    assert find_path() == users


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("graphite", ("graphite", 8125)),
        ("graphite.example.com:9125", ("graphite.example.com", 9125)),
        ("10.0.0.9", ("10.0.0.9", 8125)),
        ("10.0.0.9:1", ("10.0.0.9", 1)),
        ("::1", ("::1", 8125)),
        ("2001:db8::9", ("2001:db8::9", 8125)),
        ("fe80::1%eth0", ("fe80::1%eth0", 8125)),
        ("[::1]", ("::1", 8125)),
        ("[::1]:65535", ("::1", 65535)),
    ],
)
def test_split_address(text: str, address: tuple[str, int]) -> None:
    """A host, with a port or without; IPv6 in brackets where a port follows."""
    assert split_address(text, 8125) == address


@pytest.mark.parametrize(
    "text", ["", ":1", "a:", "10.0.0.9:", "a:b", "a:b:c", "1:2:3", "a b", "http://a", "[::1]:", "[]", "a:1:2", "::1 "]
)
def test_split_address_refuses(text: str) -> None:
    """What is no address is quoted."""
    with pytest.raises(ValueError, match=re.escape(f"{text!r} is not HOST or HOST:PORT")):
        split_address(text, 8125)


@pytest.mark.parametrize("text", ["a:0", "a:65536", "[::1]:0"])
def test_split_address_refuses_ports(text: str) -> None:
    """Ports go from 1 to 65535."""
    with pytest.raises(ValueError, match="is not between 1 and 65535"):
        split_address(text, 8125)


def test_settings_of_ssh(home: Path) -> None:
    """The section becomes the plain values of `connect`; ~/.ssh/config counts where it exists."""
    ssh = config.Ssh(user="u", port=2, key=(Path("k"),), jump="j,u@[::1]:3", concurrency=3, connect_timeout_seconds=1.5)
    reach = ssh.reach()
    assert (reach.ssh.user, reach.ssh.port, reach.ssh.key_paths) == ("u", 2, (Path("k"),))
    assert reach.ssh.jumps == (JumpSpec(None, "j", None), JumpSpec("u", "::1", 3))
    assert (reach.limits.max_handshakes, reach.ssh.connect_timeout_seconds, reach.config_paths) == (3, 1.5, ())
    (home / ".ssh").mkdir()
    (home / ".ssh" / "config").write_text("")
    assert ssh.reach().config_paths == (Path("~/.ssh/config"),)
    assert ssh.model_copy(update={"config_file": Path("x")}).reach().config_paths == (Path("x"),)
    assert ssh.model_copy(update={"config_file": Path("none")}).reach().config_paths == ()


def test_what_is_not_set_is_left_to_the_ssh_configuration() -> None:
    """Neither a default of ours nor an empty value gets in its way; `none` does."""
    assert config.Ssh().settings() == SshSettings()
    assert config.Ssh(jump="none").settings().jumps == ()


def test_settings_cannot_be_changed() -> None:
    """One frozen object: what was checked stays as it was."""
    settings = load(None, {})
    with pytest.raises(ValueError, match="frozen"):
        settings.prefix = "x"
    with pytest.raises(ValueError, match="frozen"):
        settings.ssh.port = 1


def _keys(settings: Settings) -> set[str]:
    sections = settings.model_dump()
    return {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in sections.items()
        for key in (value if isinstance(value, dict) else [""])
    }


def _uncommented(*, with_examples: bool) -> dict[str, Any]:
    """Returns the sample's values, read as TOML after the # in front of each key is gone."""
    lines, note = [], ""
    for line in sample_toml().splitlines():
        is_key = re.match(r"#\w+ = ", line)
        if is_key and (with_examples or not note.endswith("(not set; an example)")):
            lines.append(line.removeprefix("#"))
        elif not is_key:
            lines.append(line)
        note = line
    return tomllib.loads("\n".join(lines))


@pytest.mark.slow
def test_the_sample_shows_the_defaults(tmp_path: Path) -> None:
    """Uncommented, the sample is the defaults; the examples of keys that are not set are valid too."""
    assert load(_write(tmp_path, sample_toml()), {}).model_dump() == load(None, {}).model_dump()
    assert load(None, _uncommented(with_examples=False)).model_dump() == load(None, {}).model_dump()
    assert load(None, _uncommented(with_examples=True)).ssh.port == 2222


@pytest.mark.slow
def test_the_sample_has_every_key_with_a_text() -> None:
    """No key is missing from the sample, and none is without its meaning."""
    values = _uncommented(with_examples=True)
    shown = {
        f"{name}.{key}" if isinstance(value, dict) else name
        for name, value in values.items()
        for key in (value if isinstance(value, dict) else [""])
    }
    assert shown == _keys(load(None, {}))
    lines = sample_toml().splitlines()
    for before, line in pairwise(lines):
        if re.match(r"#\w+ = ", line):
            assert re.match(r"# [^ ].{9}", before), line


_ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)
_TEXT = _ANY_TEXT.filter(lambda text: redact_setting(text) == text)  # no secrets: `config show` hides them
_SECONDS = st.floats(0.1, 1e6)
_FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "prefix": st.just("a.b_1"),
        "inventory": st.fixed_dictionaries({}, optional={"hosts": st.lists(_TEXT)}),
        "ssh": st.fixed_dictionaries(
            {},
            optional={
                "user": _TEXT,
                "port": st.integers(1, 65535),
                "key": st.lists(_TEXT.filter(lambda text: not text.startswith("~"))),
                "jump": st.sampled_from(["none", "bastion", "u@a,[::1]:22", "ssh://a:1"]),
                "host_keys": st.sampled_from(["strict", "insecure"]),
                "login_timeout_seconds": _SECONDS,
            },
        ),
        "shape": st.fixed_dictionaries(
            {},
            optional={
                "top": st.integers(1, 9),
                "min_rss": st.just("10k"),
                "detail": st.sampled_from(["command", "process,command", ["command", "process"]]),
                "top_by": st.sampled_from(["swap", "growth"]),
                "include_commands": st.lists(_TEXT.map(re.escape)),
                "exclude_hosts": st.lists(_TEXT.map(re.escape)),
                "groups": st.lists(
                    st.fixed_dictionaries(
                        {
                            "match": _TEXT.map(lambda text: f"(?P<a>{re.escape(text)})"),
                            "name": _TEXT.map(lambda text: text.replace("{", "{{").replace("}", "}}") + "{a}"),
                        }
                    )
                ),
                "max_series_per_host": st.sampled_from([0, 19, 10**6]),
            },
        ),
        "statsd": st.fixed_dictionaries({}, optional={"server": st.just("h:1"), "retire": st.just("none")}),
        "run": st.fixed_dictionaries({}, optional={"interval_seconds": _SECONDS}),
    },
)


@pytest.mark.slow
@given(_FLAGS)
def test_what_show_prints_is_the_same_configuration(flags: dict[str, Any]) -> None:
    """`config show` gives a file that means what was in force, whatever is in its texts."""
    settings = load(None, flags)
    shown = load(None, tomllib.loads(to_toml(settings)))
    assert shown.model_dump() == settings.model_dump()
    assert json.loads(json.dumps(tomllib.loads(to_toml(settings)))) == tomllib.loads(to_toml(shown))


def test_show_leaves_out_what_is_not_set() -> None:
    """A key without a value has no line, an enumeration its word."""
    text = to_toml(load(None, {"statsd": {"retire": Retire.NONE}}))
    assert 'retire = "none"' in text
    assert "\nuser = " not in text
    assert "server" not in tomllib.loads(text)["graphite"]


@pytest.mark.parametrize(
    ("text", "server"),
    [
        ("h", Server("udp", "h", 8125)),
        ("udp://h:1", Server("udp", "h", 1)),
        ("tcp://[::1]", Server("tcp", "::1", 8125)),
        ("unix:///run/statsd.sock", Server("unix", "/run/statsd.sock", 0)),
    ],
)
def test_split_server(text: str, server: Server) -> None:
    """UDP unless it says otherwise."""
    assert split_server(text) == server


def test_several_servers() -> None:
    """A list in the file, comma-separated in the environment and in a flag, which can be repeated."""
    for value in (["a", "tcp://b"], "a,tcp://b", ["a,tcp://b"]):
        assert load(None, {"statsd": {"server": value}}).statsd.servers() == [
            Server("udp", "a", 8125),
            Server("tcp", "b", 8125),
        ]


def test_the_port_of_carbon_is_that_of_its_protocol() -> None:
    """2003 takes lines, 2004 pickles."""
    assert load(None, {"graphite": {"server": "h"}}).graphite.address() == ("h", 2003)
    assert load(None, {"graphite": {"server": "h", "protocol": "pickle"}}).graphite.address() == ("h", 2004)


def test_a_single_cycle_has_no_budget_and_no_spool() -> None:
    """Both are about time; everything else stays as it is."""
    settings = load(None, {"graphite": {"server": "h"}, "shape": {"top": 3}}).for_one_cycle()
    assert not settings.graphite.spool
    assert (settings.shape.max_series_per_host, settings.shape.top, settings.graphite.server) == (0, 3, "h")
    assert load(None, {"graphite": {"server": "h"}}).without_sinks().graphite.server is None


def test_inventories_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """One a line, as there are commas in them; tags are comma-separated as other lists are."""
    monkeypatch.setenv("FLEETMEM_INVENTORY__SOURCES", "ec2:region=a,region=b\n ansible:hosts.ini\n")
    monkeypatch.setenv("FLEETMEM_INVENTORY__TAGS", "role, env")
    monkeypatch.setenv("FLEETMEM_INVENTORY__LIMIT", "web,&eu")
    inventory = load(None, {}).inventory
    assert inventory.sources == ("ec2:region=a,region=b", "ansible:hosts.ini")
    assert inventory.tags == ("role", "env")
    assert inventory.limit == "web,&eu"


def test_labels_that_cannot_be_tags() -> None:
    """The message names the key."""
    with pytest.raises(ConfigError, match=r"inventory.tags: 'host': host is a tag of every series already"):
        load(None, {"inventory": {"tags": ["host"]}})


@pytest.mark.parametrize(
    ("text", "address"),
    [("8126", ("statsd", 8126)), ("9000", ("statsd", 9000)), ("other:1", ("other", 1)), ("other", ("other", 8126))],
)
def test_the_management_port_of_a_server(text: str, address: tuple[str, int]) -> None:
    """A port alone is one of the StatsD server."""
    assert load(None, {"doctor": {"statsd_management": text}}).doctor.management("statsd") == address


def test_no_management_port() -> None:
    """It can be left alone."""
    assert load(None, {"doctor": {"statsd_management": "none"}}).doctor.management("statsd") is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("statsd_management", "0", "is not PORT, HOST:PORT or none"),
        ("statsd_management", "a:b:c", "is not PORT, HOST:PORT or none"),
        ("graphite_url", "graphite", "is not http://HOST"),
        ("graphite_url", "http://a:b", "[Pp]ort"),
        ("new_series", 1001, "less than or equal to 1000"),
        ("wait_seconds", 0, "greater than 0"),
    ],
)
def test_settings_of_the_doctor_that_are_wrong(key: str, value: object, message: str) -> None:
    """Named by their key."""
    with pytest.raises(ConfigError, match=rf"doctor\.{key}: .*{message}"):
        load(None, {"doctor": {key: value}})


@pytest.mark.parametrize("text", ["3/3", "1", "a/b", "-1/3", "1/0", "0/3/4", ""])
def test_a_shard_is_one_of_several(text: str) -> None:
    """Anything else is told, with what it looks like."""
    with pytest.raises(ConfigError, match=r"inventory\.shard: .* is not NUMBER/COUNT; of three collectors"):
        load(None, {"inventory": {"shard": text}})


@pytest.mark.parametrize(("value", "expected"), [(1, 1), ("4", 4), ("auto", "auto"), (999, 999)])
def test_workers(value: object, expected: object) -> None:
    """A number, as flags and variables write it, too; or auto."""
    assert load(None, {"run": {"workers": value}}).run.workers == expected


@pytest.mark.parametrize("value", [0, -1, 1000, "x", "", True, 1.5])
def test_what_is_no_number_of_workers(value: object) -> None:
    """The message says what is one."""
    with pytest.raises(ConfigError, match=r"run\.workers: not a number from 1 to 999, nor auto"):
        load(None, {"run": {"workers": value}})


@pytest.mark.slow
def test_a_file_that_is_none_is_refused_in_time(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a device without an end."""
    os.mkfifo(tmp_path / "pipe")
    for path, message in ((tmp_path / "pipe", "did not come within"), (Path("/dev/zero"), "holds more than 4 MiB")):
        with pytest.raises(ConfigError, match=message):
            load(path, {})


_ACCOUNT = "0f8fad5b-d9cb-469f-a165-70867728950e.fleetmem"


@pytest.mark.parametrize(
    ("others", "is_legal"),
    [
        ({"graphite": {"server": "carbon.example.com"}}, True),
        ({"graphite": {"server": "carbon.example.com"}, "file": {"path": "/tmp/x"}}, True),
        ({}, False),
        ({"statsd": {"server": "statsd.example.com"}}, False),
        ({"graphite": {"server": "c"}, "statsd": {"server": "s"}}, False),
        ({"graphite": {"server": "c"}, "prometheus": {"listen": "9877"}}, False),
    ],
)
@pytest.mark.parametrize("prefix", [_ACCOUNT, "1a", "a-b.c"])
def test_a_prefix_for_a_hosted_graphite(others: dict[str, Any], prefix: str, is_legal: bool) -> None:
    """The key of an account stands in front of names, which other receivers would change: they are told apart."""
    if is_legal:
        assert load(None, {"prefix": prefix, **others}).prefix == prefix
        assert (
            FleetNames(prefix, ["web01.example.com"]).host("web01.example.com").host.labels[0][1] == "web01_example_com"
        )
    else:
        with pytest.raises(ConfigError, match="Where names go to Graphite alone"):
            load(None, {"prefix": prefix, **others})
