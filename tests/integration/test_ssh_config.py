"""The ssh configuration: read as `ssh -G` reads it, and obeyed."""

import subprocess
from pathlib import Path

from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from fleetmem.connect.settings import LoginLimits, ReachSettings, SshSettings
from fleetmem.connect.target import Target
from fleetmem.connect.targets import Targets
from fleetmem.model import Host

from .servers import find_tool

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
    jump = said.get("proxyjump")
    assert [str(each) for each in target.jumps] == (jump if jump and jump != ["none"] else [])
    command = said.get("proxycommand")
    assert target.proxy_command == (
        command[0].replace("%h", target.address).replace("%p", str(target.port)) if command else None
    )
