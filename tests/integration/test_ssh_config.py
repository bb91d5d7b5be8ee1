"""The ssh configuration: read as `ssh -G` reads it, and obeyed."""

import subprocess
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.ssh_settings import LoginLimits, ReachSettings, SshSettings
from fleetmem.connect.target import Target
from fleetmem.model import Host

from . import servers
from .servers import Cli, Sshd, find_tool, wait_for

# --- against ssh -----------------------------------------------------------------------------------------------------

_HOSTS = ("web01", "db1", "Db1", "10.0.0.7")
_FAMILIES = {0: "any", 2: "inet", 10: "inet6"}


def ask_ssh(config: Path, host: str, user: str | None, port: int | None) -> dict[str, list[str]] | None:
    """Returns what `ssh -G` says, by keyword; None where it refuses the file."""
    flags = [*(["-l", user] if user else []), *(["-p", str(port)] if port else [])]
    done = subprocess.run(
        [find_tool("ssh"), "-G", "-F", str(config), *flags, host],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=10,
        check=False,
    )
    if done.returncode:
        return None
    said: dict[str, list[str]] = {}
    for line in done.stdout.splitlines():
        keyword, _, value = line.partition(" ")
        said.setdefault(keyword, []).append(value)
    return said


def resolve(config: Path, host: str, user: str | None, port: int | None) -> Target:
    """Returns a host as fleetmem resolves it."""
    ssh = SshSettings(user=user, port=port)
    return Targets(ReachSettings(ssh, LoginLimits(), (config,))).resolve(Host(host, host), ssh)


def as_ssh_says(target: Target) -> dict[str, list[str]]:
    """Returns a target in the words of `ssh -G`, as far as both say it in the same words."""
    access = target.access
    return {
        "hostname": [target.address],
        "port": [str(target.port)],
        "user": [target.user],
        "addressfamily": [_FAMILIES[access.family]],
        "serveraliveinterval": [f"{access.keepalive_seconds:.0f}"],
        "serveralivecountmax": [str(access.keepalive_count)],
        "compression": ["yes" if access.is_compressed else "no"],
        "tcpkeepalive": ["yes" if access.has_tcp_keepalive else "no"],
        "identitiesonly": ["yes" if access.identities.is_only else "no"],
        "userknownhostsfile": [" ".join(map(str, access.trust.paths))],
        "connecttimeout": [f"{access.connect_timeout_seconds:.0f}"],
    }


_DEFAULTS = "ServerAliveInterval 15\nConnectTimeout 5\nUserKnownHostsFile /dev/null\n"
"""Where our defaults are not ssh's, at the end of each file."""

_WORDS = st.sampled_from(["web01", "db*", "*", "?eb01", "!db1", "!web01", "*.example.com", "10.*", '"db1"', "Db1"])
_SETTINGS = st.sampled_from(
    [
        "User deploy",
        "User = root",
        "Port 2222",
        "Port=2200 # comment",
        "HostName %h.example.com",
        "HostName 10.0.0.7",
        "HostName a%%b",
        "AddressFamily inet",
        "ServerAliveInterval 1m",
        "ServerAliveInterval 20",
        "ServerAliveCountMax 2",
        "Compression yes",
        "TCPKeepAlive no",
        "IdentitiesOnly yes",
        "IdentityFile /a/%h",
        "IdentityFile '/b c'",
        "CertificateFile /c",
        "UserKnownHostsFile /x '/y z'",
        "ConnectTimeout 7",
        "ProxyJump bastion",
        "ProxyJump none",
        "ProxyCommand nc %h %p # x",
        "VisualHostKey yes",
    ]
)
_BLOCKS = st.one_of(
    st.lists(_WORDS, min_size=1, max_size=3).map(lambda words: f"Host {' '.join(words)}"),
    st.sampled_from(
        [
            "Match all",
            "Match host web01",
            "Match host *.example.com",
            "Match !host db1,Db1",
            "Match originalhost db* user deploy",
            "Match user root,deploy",
            "Match final host 10.*",
            "Match final",
            "Match canonical",
            'Match exec "test %n = web01"',
            'Match host web* exec "test %h = web01"',
        ]
    ),
)
_FILES = st.lists(st.one_of(_SETTINGS, _SETTINGS, _BLOCKS), max_size=14).map("\n".join)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    text=_FILES,
    host=st.sampled_from(_HOSTS),
    user=st.sampled_from([None, None, "root"]),
    port=st.sampled_from([None, None, 22]),
)
@example(text="Host db*\nUser a\nMatch user a\nPort 2222", host="db1", user=None, port=None)
@example(text="Host db*\nUser a\nMatch final host 10.*", host="Db1", user=None, port=None)
@example(text="Host web01\nHostName 10.0.0.7\nHost 10.*\nPort 2222\nMatch final", host="web01", user=None, port=None)
@example(
    text="Match final host *.example.com\nPort 2222\nHost *\nHostName %h.example.com", host="db1", user=None, port=22
)
def test_hosts_resolve_as_with_ssh(tmp_path: Path, text: str, host: str, user: str | None, port: int | None) -> None:
    """Whatever blocks and settings come in whatever order: user, address, port and the rest are those of `ssh -G`."""
    config = tmp_path / "config"
    config.write_text(f"{text}\nMatch all\n{_DEFAULTS}")
    said = ask_ssh(config, host, user, port)
    assert said is not None
    target = resolve(config, host, user, port)
    ours = as_ssh_says(target)
    assert {keyword: said.get(keyword, ["no"]) for keyword in ours} == ours
    files = said.get("identityfile", [])
    named = [str(path) for path in target.access.identities.paths]
    assert named == [path.replace("%h", target.address) for path in files] or files[0].startswith("~/.ssh/id_")
    jumps = [] if said.get("proxyjump") in (None, ["none"]) else said["proxyjump"]
    if (
        jumps and resolve(config, "bastion", None, None).server != target.server
    ):  # through itself, it is reached directly
        assert [str(each) for each in target.jumps] == jumps
    else:
        assert target.jumps == ()
    command = said.get("proxycommand")
    assert target.proxy_command == (
        command[0].replace("%h", target.address).replace("%p", str(target.port)) if command else None
    )


# --- at work ---------------------------------------------------------------------------------------------------------


def test_a_proxy_command(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """`ssh -W` in a ProxyCommand is the way to each host, through a shell; it ends with its connection."""
    config = tmp_path / "config"
    ssh = f"{find_tool('ssh')} -F none -i {sshd.key} -p {sshd.port} -o StrictHostKeyChecking=no -o LogLevel=ERROR"
    config.write_text(
        f"""Host 127.0.1.*
  ProxyCommand {ssh} -o UserKnownHostsFile=/dev/null -W %h:%p {servers.USER}@127.0.3.1 2>/dev/null # a shell reads it
  Port {sshd.port}
  IdentityFile {sshd.key}
"""
    )
    result = cli("collect", "-i", "127.0.1.[1-5]", "-F", config, *servers.PATIENT, "--format", "jsonl")
    assert result.status == 0, result.stderr
    assert sshd.logins_total == 5 + 5
    wait_for("no session is left", lambda: not sshd.probes())
    shown = cli("hosts", "-i", "127.0.1.1", "-F", config).stdout
    assert f"-W 127.0.1.1:{sshd.port} {servers.USER}@127.0.3.1" in shown


def test_a_proxy_command_that_fails(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """Its words and its status are in the message."""
    config = tmp_path / "config"
    config.write_text("ProxyCommand sh -c 'echo %h is not to be had >&2; exit 9'\n")
    options = ("-p", sshd.port, "-k", sshd.key, "-F", config, "--format", "jsonl")
    error = cli("collect", "-i", "127.0.1.1", *options).by_host()["127.0.1.1"]["error"]
    assert (error["stage"], error["kind"]) == ("connect", "unreachable")
    assert error["message"] == "ProxyCommand ended with status 9: 127.0.1.1 is not to be had"


def test_what_is_not_honoured_is_told_once_for_a_fleet(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """One line for a setting that would matter, with its place; none for what only concerns people's sessions."""
    config = tmp_path / "config"
    config.write_text(
        f"""ControlMaster auto
ControlPath ~/.ssh/%C
VisualHostKey yes
AddKeysToAgent yes
ForwardAgent yes
VerifyHostKeyDNS yes
IgnoreUnknown Frob*
Frobnicate on
Port {sshd.port}
"""
    )
    options = ("-k", sshd.key, "-F", config, *servers.PATIENT, "--format", "jsonl")
    result = cli("collect", "-i", "127.0.1.[1-5]", *options)
    assert result.status == 0, result.stderr
    warnings = [line for line in result.stderr.splitlines() if "ssh configuration" in line]
    assert [line.partition("ssh configuration ")[2] for line in warnings] == [
        f"{config} line 6: VerifyHostKeyDNS is not honoured",
    ]


def test_settings_of_the_connection(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """Cipher, key exchange, compression and source address are those of the configuration, by sshd's log."""
    config = tmp_path / "config"
    config.write_text(
        f"""Include {tmp_path}/more
Match host 127.0.1.1 exec "test %p = {sshd.port}"
  Ciphers aes256-ctr
  MACs hmac-sha2-512
  KexAlgorithms ecdh-sha2-nistp256
  BindAddress 127.0.0.77
  Compression yes
"""
    )
    (tmp_path / "more").write_text(f"Host 127.0.1.*\n Port {sshd.port}\n User {servers.USER}\n")
    with servers.sshd(
        tmp_path / "loud", options="LogLevel DEBUG1", public_keys=[sshd.key.with_suffix(".pub").read_text()]
    ) as loud:
        config.write_text(config.read_text().replace(str(sshd.port), str(loud.port)))
        (tmp_path / "more").write_text((tmp_path / "more").read_text().replace(str(sshd.port), str(loud.port)))
        result = cli("collect", "-i", "127.0.1.1", "-k", sshd.key, "-F", config, "--format", "jsonl")
        assert result.status == 0, result.stderr
        log = loud.log()
    assert "Connection from 127.0.0.77 port" in log
    assert "kex: algorithm: ecdh-sha2-nistp256" in log
    assert "kex: client->server cipher: aes256-ctr MAC: hmac-sha2-512 compression: zlib@openssh.com" in log


def test_a_configuration_that_ssh_would_refuse(tmp_path: Path, cli: Cli) -> None:
    """Status 2, with file and line, before any host is connected to."""
    config = tmp_path / "config"
    config.write_text("Host web01\n  Port many\n")
    result = cli("collect", "-i", "web01", "-F", config)
    assert result.status == 2
    assert result.stderr == f"fleetmem: ssh configuration {config} line 2: Port cannot be 'many'\n"
    assert cli("hosts", "-i", "db01", "-F", config).status == 0, "it holds for another host"
