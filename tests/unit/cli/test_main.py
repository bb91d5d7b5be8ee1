"""The command line as a user meets it: exit statuses, messages, help. No host is reached."""

import gc
import json
import os
import re
import socket
import subprocess
import sys
import tomllib
from collections.abc import Coroutine, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import asyncssh
import pytest
import typer

from fleetmem.cli import main, make_app
from fleetmem.config import load
from fleetmem.probe import script


class Ended(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> "Run":
    """Runs a command line in this process."""
    return Run(monkeypatch, capsys)


class Run:
    """Calls `main` as the shell does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.setenv("COLUMNS", "200")
        monkeypatch.setenv("NO_COLOR", "1")

    def __call__(self, *arguments: str) -> Ended:
        """Returns status and output."""
        self._monkeypatch.setattr(sys, "argv", ["fleetmem", *arguments])
        status = 0
        try:
            main()
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else 1
        return Ended(status, *self._capsys.readouterr())


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    for name, child in getattr(command, "commands", {}).items():
        yield from _commands(child, (*path, name))


_ALL_COMMANDS = list(_commands(typer.main.get_command(make_app())))


def test_there_are_commands() -> None:
    """The commands of the contract that exist so far."""
    assert {("collect",), ("run",), ("hosts",), ("probe",), ("config", "show"), ("config", "sample")} <= set(
        _ALL_COMMANDS
    )


@pytest.mark.parametrize("path", _ALL_COMMANDS, ids=" ".join)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help(run: Run, path: tuple[str, ...], flag: str) -> None:
    """Every command explains itself, on stdout and with status 0."""
    ended = run(*path, flag)
    assert (ended.status, ended.err) == (0, "")
    assert "Usage:" in ended.out
    assert " ".join(path) in ended.out


def test_version(run: Run) -> None:
    """The version is one line."""
    assert run("--version") == Ended(0, f"fleetmem {version('fleetmem')}\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("collect", "no hosts: give -i HOST,HOST or -i @FILE"),
        ("collect -i web[3-1]", "runs backwards"),
        ("collect -i a,u@a", "listed with two users"),
        ("collect -i a --top-by growth", "--top-by growth needs `run`: one sample shows no growth"),
        ("collect -i @nowhere", "hosts file nowhere: no such file"),
        ("collect -i a -c nowhere.toml", "configuration nowhere.toml: no such file"),
        ("collect -i a -k nowhere.pem", "key nowhere.pem: no such file"),
        ("collect -i a -F nowhere", "ssh configuration nowhere"),
        ("collect -i a -J u@", "jump host 'u@': expected"),
        ("collect -i a -J h:ssh", "jump host 'h:ssh': expected"),
        ("collect -i a -p 0", "ssh.port: input should be greater"),
        ("collect -i a -p ssh", "Invalid value for '-p'"),
        ("collect -i a -g a:b", "statsd.server: 'a:b' is not HOST"),
        ("collect -i a --graphite a:0", "graphite.server: 'a:0': port 0"),
        ("collect -i a --min-rss ten", "shape.min_rss: not a size"),
        ("collect -i a --top 0", "shape.top: input should be greater"),
        ("collect -i a --detail host", "shape.detail.0: input should be 'process' or 'command'"),
        ("collect -i a --top-by pid", "Invalid value for '--top-by'"),
        ("collect -i a --include (", "shape.include_commands.0: not a regular expression"),
        ("collect -i a --exclude [", "shape.exclude_commands.0: not a regular expression"),
        ("collect -i a --prefix 1a", "prefix: prefix '1a'"),
        ("run -i a -g b --health :1", "run.health_listen: ':1' is not PORT or HOST:PORT"),
        ("collect -i a --interval 0", "run.interval_seconds: input should be greater"),
        ("collect -i a --concurrency 0", "ssh.concurrency: input should be greater"),
        ("collect -i a --connect-timeout 0", "ssh.connect_timeout_seconds: input should be greater"),
        ("collect -i a --host-keys maybe", "Invalid value for '--host-keys'"),
        ("collect -i a --format xml", "Invalid value for '--format'"),
        ("collect -i a --rows 0", "Invalid value for '--rows'"),
        ("collect --nope", "No such option"),
        ("nope", "No such command 'nope'"),
        ("run -i a", "run would send nothing: give a StatsD server"),
        ("run -i a -g b --format table", "run writes jsonl or csv"),
        ("config check", "no hosts"),
        ("config show --top x", "Invalid value for '--top'"),
        ("probe --authorized-keys nowhere.pub", "nowhere.pub: "),
    ],
)
def test_usage_errors(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: str, message: str) -> None:
    """Status 2, one message that says what is wrong, nothing on stdout and no traceback."""
    monkeypatch.chdir(tmp_path)
    ended = run(*arguments.split())
    assert (ended.status, ended.out) == (2, "")
    assert message in re.sub(r"\s+│?\s*│?\s*", " ", ended.err)
    assert "Traceback" not in ended.err


@pytest.mark.slow
@pytest.mark.parametrize("arguments", [["collect"], ["hosts", "-i", "a:b"], ["collect", "--nope"], ["nope"]])
def test_usage_errors_of_the_module(arguments: list[str]) -> None:
    """`python -m fleetmem` is the same command, in a process of its own."""
    ended = subprocess.run(
        [sys.executable, "-m", "fleetmem", *arguments], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.slow
def test_a_reader_that_leaves() -> None:
    """`fleetmem ... | head` ends without a traceback."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    with open(write_end, "wb") as closed_pipe:  # noqa: PTH123
        ended = subprocess.run(
            [sys.executable, "-m", "fleetmem", "config", "sample"],
            stdout=closed_pipe,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    assert ended.stderr == b""


@pytest.mark.slow
def test_an_encrypted_key_without_a_terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can type a passphrase: told at once, with the way out."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "key"), passphrase="sesame")  # noqa: S106
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False, raising=False)
    ended = run("config", "check", "-i", "a", "-k", str(tmp_path / "key"))
    assert ended.status == 2
    assert "is encrypted and nobody is there to type its passphrase: load it with ssh-add" in ended.err


@pytest.mark.slow
def test_a_passphrase_is_asked_for_on_the_terminal(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a terminal the passphrase is asked for by the key's name."""
    key = asyncssh.generate_private_key("ssh-ed25519")
    key.write_private_key(str(tmp_path / "key"), passphrase="sesame")  # noqa: S106
    asked: list[str] = []

    def type_it(prompt: str, **_options: object) -> str:
        asked.append(prompt)
        return "sesame"

    monkeypatch.setattr(sys.stdin, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", type_it)
    assert run("config", "check", "-i", "a", "-k", str(tmp_path / "key")).status == 0
    assert asked == [f"Passphrase for {tmp_path / 'key'}: "]


@pytest.mark.parametrize(
    ("flags", "key", "value"),
    [
        ("-i a,b -i c", "inventory.hosts", ["a,b", "c"]),
        ("-u ubuntu", "ssh.user", "ubuntu"),
        ("--user ubuntu", "ssh.user", "ubuntu"),
        ("-k a -k b", "ssh.key", ["a", "b"]),
        ("-p 22", "ssh.port", 22),
        ("-J bastion", "ssh.jump", "bastion"),
        ("-F file", "ssh.config_file", "file"),
        ("--host-keys strict", "ssh.host_keys", "strict"),
        ("--concurrency 7", "ssh.concurrency", 7),
        ("--connect-timeout 2.5", "ssh.connect_timeout_seconds", 2.5),
        ("--connect-timeout 2.5", "ssh.login_timeout_seconds", 2.5),
        ("--command-timeout 2.5", "ssh.command_timeout_seconds", 2.5),
        ("--probe ps", "probe.kind", "ps"),
        ("--detail command", "shape.detail", ["command"]),
        ("--detail process,command", "shape.detail", ["process", "command"]),
        ("--detail command --detail process", "shape.detail", ["command", "process"]),
        ("--top-by swap", "shape.top_by", "swap"),
        ("--include ^a{1,2}$ --include b", "shape.include_commands", ["^a{1,2}$", "b"]),
        ("--exclude a --exclude b,c", "shape.exclude_commands", ["a", "b,c"]),
        ("--top 5", "shape.top", 5),
        ("--min-rss 10MiB", "shape.min_rss", 10 * 1024**2),
        ("-g h", "statsd.server", ["h"]),
        ("--statsd h:1", "statsd.server", ["h:1"]),
        ("--graphite-host h", "statsd.server", ["h"]),
        ("--graphite h", "graphite.server", "h"),
        ("--health 9878", "run.health_listen", "9878"),
        ("--prefix p", "prefix", "p"),
        ("--interval 30", "run.interval_seconds", 30.0),
    ],
)
def test_every_flag_sets_its_key(run: Run, flags: str, key: str, value: object) -> None:
    """A flag changes the one key that it is for, and `config show` tells so."""
    ended = run("config", "show", *flags.split())
    assert ended.status == 0
    place: Any = tomllib.loads(ended.out)
    for part in key.split("."):
        place = place[part]
    assert place == value


def test_flags_over_environment_over_file(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line puts all sources together, the usual file included."""
    usual = tmp_path / "home" / ".config" / "fleetmem" / "config.toml"
    usual.parent.mkdir(parents=True)
    usual.write_text('prefix = "file"\n[ssh]\nuser = "file"\nport = 1\n')
    monkeypatch.setenv("FLEETMEM_SSH__PORT", "2")
    shown = tomllib.loads(run("config", "show", "-u", "flag").out)
    assert (shown["prefix"], shown["ssh"]["user"], shown["ssh"]["port"]) == ("file", "flag", 2)
    given = tmp_path / "given.toml"
    given.write_text("")
    assert tomllib.loads(run("config", "show", "-c", str(given)).out)["prefix"] == "fleetmem"


@pytest.mark.slow
def test_config_sample(run: Run) -> None:
    """The sample is what the function gives, as it is."""
    ended = run("config", "sample")
    assert ended.out.startswith("# fleetmem configuration.")
    assert ended.status == 0
    assert load(None, tomllib.loads(ended.out)) is not None


def test_config_check(run: Run) -> None:
    """A good configuration is told in one line."""
    assert run("config", "check", "-i", "a,b", "-g", "h", "--graphite", "h") == Ended(0, "ok: 2 hosts, 2 sinks\n", "")


def test_config_check_for_programs(run: Run, tmp_path: Path) -> None:
    """The result is JSON also where something is wrong; no secret is in it."""
    (tmp_path / "key").write_text("no key", encoding="utf-8")
    assert json.loads(run("config", "check", "-i", "a", "--format", "json").out) == {
        "ok": True,
        "file": None,
        "errors": [],
        "warnings": [],
    }
    ended = run("config", "check", "-i", "a", "-g", "http://me:sesame@h", "--format", "json")
    (error,) = json.loads(ended.out)["errors"]
    assert (ended.status, ended.err, error["key"], error["origin"]) == (2, "", "statsd.server", "flags")
    assert "http://***@h" in error["message"]
    assert "sesame" not in ended.out
    ended = run("config", "check", "-i", "a", "-k", str(tmp_path / "key"), "--format", "json")
    (error,) = json.loads(ended.out)["errors"]
    assert (ended.status, error["key"]) == (2, None)
    assert str(tmp_path / "key") in error["message"]


def test_config_check_says_how_patterns_run(run: Run) -> None:
    """A line for each; what may take long is in a process of its own."""
    ended = run("config", "check", "-i", "a", "-g", "h", "--include", "^nginx", "--exclude", "(a+)+$")
    assert [line for line in ended.out.splitlines() if line.startswith("pattern")] == [
        "pattern '^nginx': runs in the collector",
        "pattern '(a+)+$': may take long on some names, so it runs in a process of its own, "
        "0.05 s of CPU for each new name",
    ]


def test_config_check_counts_every_sink(run: Run) -> None:
    """Those that only `run` has are there, too."""
    ended = run("config", "check", "-i", "a", "-g", "tcp://h", "-g", "h", "--prometheus", "9877")
    assert ended == Ended(0, "ok: 1 hosts, 3 sinks\n", "")


@pytest.mark.slow
@pytest.mark.parametrize("command", ["config sample", "config show", "config check -i a", "hosts -i a", "probe"])
def test_a_full_disk_under_stdout(command: str) -> None:
    """One line and status 4, not a traceback."""
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "fleetmem", *command.split()],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (4, "fleetmem: output: no space left on device\n")


def test_hosts(run: Run) -> None:
    """The inventory as it resolves, one host a line."""
    ended = run("hosts", "-i", "web[01-02],u@db:2222", "-u", "me")
    assert ended == Ended(
        0, "HOST     CONNECTS TO\nweb01    me@web01 port 22\nweb02    me@web02 port 22\ndb:2222  u@db port 2222\n", ""
    )


def test_hosts_as_json_lines(run: Run) -> None:
    """For scripts: address, port, user and the name in metrics."""
    (line,) = run("hosts", "-i", "u@[::1]:2222", "--format", "jsonl").out.splitlines()
    assert json.loads(line) == {
        "host": "[::1]:2222",
        "address": "::1",
        "port": 2222,
        "user": "u",
        "metric": "fleetmem.host.___1__2222.",
    }


def test_hosts_through_the_ssh_configuration(run: Run, tmp_path: Path) -> None:
    """An alias of the ssh configuration resolves as ssh would."""
    path = tmp_path / "config"
    path.write_text("Host web\n  HostName 10.0.0.5\n  User deploy\n  Port 2200\n")
    assert "web   deploy@10.0.0.5 port 2200" in run("hosts", "-i", "web", "-F", str(path)).out


def test_probe(run: Run, tmp_path: Path) -> None:
    """The script to read, the command as it is sent, and a line for authorized_keys."""
    assert run("probe").out == script.source()
    assert run("probe", "--command").out == script.command() + "\n"
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA me\n")
    assert (
        run("probe", "--authorized-keys", str(public)).out
        == script.authorized_keys_line("ssh-ed25519 AAAA me", command=script.command()) + "\n"
    )


def test_probe_for_sudo_and_for_addresses(run: Run, tmp_path: Path) -> None:
    """What sudo is to allow, the command that it allows, and a key that is good from some addresses for that."""
    assert run("probe", "--sudoers", "fleetmem").out == script.sudoers("fleetmem")
    assert run("probe", "--command", "--sudo").out == script.root_command() + "\n"
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA me\n")
    line = run("probe", "--authorized-keys", str(public), "--sudo", "--from", "192.0.2.1,192.0.2.2").out
    assert line.startswith('restrict,from="192.0.2.1,192.0.2.2",command="exec env LC_ALL=C sudo -n ')


@pytest.mark.parametrize("words", [("--sudoers", "a b"), ("--authorized-keys", "KEY", "--from", 'x",command="id')])
def test_probe_prints_nothing_for_a_mistake(run: Run, tmp_path: Path, words: tuple[str, ...]) -> None:
    """Output may be on its way into a file that decides who may do what."""
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA me\n")
    ended = run("probe", *(str(public) if word == "KEY" else word for word in words))
    assert (ended.status, ended.out) == (2, "")
    assert "fleetmem: " in ended.err


_BASTION = 'restrict,port-forwarding,permitlisten="none:1",{}command="/bin/false" ssh-ed25519 AAAA me\n'


@pytest.mark.parametrize(
    ("words", "opened"),
    [
        ("-i web[1-2],u@[2001:db8::1]:2222", "web1:22 web2:22 [2001:db8::1]:2222"),
        ("-i web[1-3] -l web2 -p 2200 -J ops@gate:2222", "web2:2200"),
        ("-i alias,10.0.0.5 -F CONFIG", "10.0.0.5:2200 10.0.0.5:22"),
        ("--permit-open *:22,db:5022", "*:22 db:5022"),
    ],
)
def test_probe_for_a_bastion(run: Run, tmp_path: Path, words: str, opened: str) -> None:
    """What hosts resolve to is what the bastion is asked for; what is said by hand goes as it is."""
    public, config = tmp_path / "key.pub", tmp_path / "config"
    public.write_text("ssh-ed25519 AAAA me\n")
    config.write_text("Host alias\n  HostName 10.0.0.5\n  Port 2200\n")
    more = [str(config) if word == "CONFIG" else word for word in words.split()]
    ended = run("probe", "--authorized-keys", str(public), "--bastion", *more)
    permitted = "".join(f'permitopen="{target}",' for target in opened.split())
    assert ended == (0, _BASTION.format(permitted), "")


def test_probe_for_several_bastions(run: Run, tmp_path: Path) -> None:
    """Each has a line that names it; the first of a chain passes on to the second alone; who needs none is told."""
    public, config = tmp_path / "key.pub", tmp_path / "config"
    public.write_text("ssh-ed25519 AAAA me\n")
    config.write_text("Host web*\n  ProxyJump ops@outer,ops@inner:2222\nHost db\n  ProxyJump ops@outer\n")
    ended = run("probe", "--authorized-keys", str(public), "--bastion", "-i", "web[1-2],db,near", "-F", str(config))
    lines = {
        "ops@outer:22": 'permitopen="inner:2222",permitopen="db:22",',
        "ops@inner:2222": 'permitopen="web1:22",permitopen="web2:22",',
    }
    expected = "".join(f"# For {bastion}\n{_BASTION.format(opened)}" for bastion, opened in lines.items())
    assert ended == (0, expected, "note: not behind a jump host, and left out: near\n")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ("--authorized-keys KEY -i web", "add --bastion"),
        ("--authorized-keys KEY --permit-open web:22", "add --bastion"),
        ("--bastion -i web", "needs --authorized-keys"),
        ("--authorized-keys KEY --bastion --sudo -i web", "no --sudo"),
        ("--authorized-keys KEY --bastion -i web --permit-open web:22", "give one of them"),
        ("--authorized-keys KEY --bastion --permit-open *.example.com:22", "is not HOST:PORT"),
        ("--authorized-keys KEY --bastion --permit-open web", "is not HOST:PORT"),
    ],
)
def test_probe_for_a_bastion_prints_nothing_for_a_mistake(run: Run, tmp_path: Path, words: str, reason: str) -> None:
    """Nor does it leave out what was said."""
    public = tmp_path / "key.pub"
    public.write_text("ssh-ed25519 AAAA me\n")
    ended = run("probe", *(str(public) if word == "KEY" else word for word in words.split()))
    assert (ended.status, ended.out) == (2, "")
    assert reason in ended.err


def test_a_private_key_is_not_printed(run: Run, tmp_path: Path) -> None:
    """The private key given by mistake does not end up anywhere."""
    private = tmp_path / "key"
    private.write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nsecret\n")
    ended = run("probe", "--authorized-keys", str(private))
    assert ended.status == 2
    assert "secret" not in ended.out + ended.err
    assert "not a public key" in ended.err


@pytest.fixture
def closed_port() -> int:
    """A port of this machine that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert isinstance(port, int)
    return port


def test_no_host_answers(run: Run, closed_port: int) -> None:
    """Status 3; the failure is told with its kind, its reason and what to try."""
    ended = run("collect", "-i", f"127.0.0.1:{closed_port}")
    assert (ended.status, ended.out) == (3, "")
    assert "1 of 1 hosts failed:" in ended.err
    assert "unreachable: connection refused\n      try: is the host up" in ended.err
    assert ended.err.splitlines()[-1].startswith("0 of 1 hosts answered, 0 processes, 0 B received, ")


def test_quiet_prints_what_no_table_has(run: Run, closed_port: int) -> None:
    """With -q, failures are errors when nobody answers: nothing else would show them."""
    ended = run("collect", "-q", "-i", f"127.0.0.1:{closed_port}")
    assert ended.status == 3
    assert "unreachable: connection refused" in ended.err
    assert "0 of 1 hosts" not in ended.err


def test_quiet_says_nothing(run: Run, closed_port: int) -> None:
    """With -q the status alone tells, and JSON lines hold the failure."""
    ended = run("collect", "-q", "-i", f"127.0.0.1:{closed_port}", "--format", "jsonl")
    assert (ended.status, ended.err) == (3, "")
    assert json.loads(ended.out)["error"]["kind"] == "unreachable"


def test_output_that_cannot_be_written(run: Run, tmp_path: Path) -> None:
    """Status 4, before any host is reached."""
    ended = run("collect", "-i", "127.0.0.1", "-o", str(tmp_path / "nowhere" / "out"))
    assert (ended.status, ended.out) == (4, "")
    assert "no such file or directory" in ended.err


def test_output_file(run: Run, tmp_path: Path, closed_port: int) -> None:
    """With -o the data is in the file, as JSON lines where no format is given."""
    path = tmp_path / "out"
    assert run("collect", "-q", "-i", f"127.0.0.1:{closed_port}", "-o", str(path)) == Ended(3, "", "")
    assert json.loads(path.read_text())["ok"] is False


def test_interrupted(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with the status that shells expect and no traceback."""

    def interrupt(*_arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("fleetmem.cli.hosts.read_inventory", interrupt)
    ended = run("hosts", "-i", "a")
    assert ended.status == 130
    assert "Traceback" not in ended.err


def test_dashboards_are_written_for_these_names(run: Run, tmp_path: Path) -> None:
    """One file per dashboard, whose names are printed; files that are there are replaced."""
    folder = tmp_path / "new" / "dashboards"
    for flags, start in (
        ((), "stats.gauges.fleetmem.host."),
        (("--prefix", "prod.mem", "--statsd-prefix", "stats.mem"), "stats.mem.prod.mem.host."),
        (("--statsd-prefix", ""), "(fleetmem.host."),
        (("--datasource", "prometheus"), "sum(fleetmem_up{"),
    ):
        ended = run("dashboards", "-o", str(folder), *flags)
        names = ["fleet.json", "host.json", "process.json", "collector.json"]
        assert (ended.status, ended.out.splitlines()) == (0, [str(folder / name) for name in names]), ended.err
        assert sorted(path.name for path in folder.iterdir()) == sorted(names)
        assert start in (folder / "fleet.json").read_text()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (("--prefix", "a b"), "--prefix: prefix 'a b': letters"),
        (("--statsd-prefix", "a b"), "StatsD prefix 'a b': expected parts joined by dots"),
        (("--statsd-prefix", "x", "--datasource", "prometheus"), "--statsd-prefix: there is none in prometheus"),
        (("-o", "/dev/null/x"), "/dev/null/x: not a directory"),
    ],
)
def test_dashboards_that_cannot_be_written(run: Run, tmp_path: Path, flags: tuple[str, ...], told: str) -> None:
    """What is wrong is said in one line."""
    ended = run("dashboards", "-o", str(tmp_path), *flags)
    assert (ended.status, ended.out) == (2, "")
    assert told in ended.err
    assert not list(tmp_path.glob("*.json"))


def test_run_keeps_its_collections_short(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 10,000 hosts a full garbage collection takes a second otherwise, and all of them wait."""
    callbacks: list[object] = []
    monkeypatch.setattr(gc, "callbacks", callbacks)
    assert run("run", "-i", "a").status == 2
    assert [type(callback).__module__ for callback in callbacks] == ["fleetmem.runtime.garbage"]


@pytest.mark.parametrize("output", [(), ("-o", "-")])
def test_run_keeps_no_fleet(output: tuple[str, ...], run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The daemon's first one would stay beside those of its reloads: a KB for each host."""
    kept: list[str] = []

    def look(running: Coroutine[Any, Any, None]) -> None:
        running.close()
        kept.extend(type(value).__name__ for value in sys._getframe(1).f_locals.values())

    monkeypatch.setattr("fleetmem.cli.run.run_async", look)
    monkeypatch.setattr(gc, "callbacks", [])
    assert run("run", "-i", "a", "-g", "127.0.0.1", *output).status == 0
    assert "Daemon" in kept
    assert "Fleet" not in kept


def test_config_check_says_where_the_state_is(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder that is configured, and in any case why it can not be written."""
    (tmp_path / "file").write_text("")
    cases = {
        str(tmp_path / "state"): rf"state: {tmp_path}/state/\w+-[0-9a-f]{{8}}, can be written\n",
        "none": "state: none; series that end while fleetmem is restarted may stay in StatsD\n",
        str(tmp_path / "file"): f"state: {tmp_path}/file is no folder; series that end .* may stay in StatsD\n",
    }
    for folder, line in cases.items():
        monkeypatch.setenv("FLEETMEM_RUN__STATE_DIR", folder)
        ended = run("config", "check", "-i", "a", "-g", "h")
        assert ended.status == 0
        assert re.fullmatch(f"ok: 1 hosts, 1 sinks\n{line}", ended.out)
    assert not (tmp_path / "state").exists(), "nothing is made"
