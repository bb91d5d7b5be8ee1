import socket
from pathlib import Path
from typing import Any

import asyncssh
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.connect.openssh.algorithms import rsa_bits
from fleetmem.connect.openssh.config_file import local_user
from fleetmem.connect.openssh.directives import HONOURED, NOT_NEEDED, OTHERS
from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.ssh_settings import (
    HostKeyPolicy,
    JumpSpec,
    LoginLimits,
    ReachSettings,
    SshSettings,
    parse_jumps,
)
from fleetmem.connect.target import KeyOrigin, Target
from fleetmem.errors import ConfigError, UsageError
from fleetmem.model import Host
from unit.connect.targets import resolve


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Where the ssh configuration is."""
    return tmp_path / "ssh_config"


def _resolve(config: Path, text: str, name: str = "web01", ssh: SshSettings | None = None, **host: Any) -> Target:
    config.write_text(text)
    return resolve(name, ssh or SshSettings(), config=config, **host)


# --- who is strongest ------------------------------------------------------------------------------------------------


def test_nothing_is_said(home: Path) -> None:
    """Without anything: the name as it is, port 22, ours the user, the usual keys and files, and the agent's socket."""
    target = resolve("Web01")
    access = target.access
    assert (target.alias, target.address, target.port, target.known_as) == ("Web01", "web01", 22, "web01")
    assert (target.jumps, target.proxy_command) == ((), None)
    assert [path.name for path in access.identities.paths[:3]] == ["id_ed25519", "id_ecdsa", "id_rsa"]
    assert (access.identities.origin, access.identities.is_only) == (KeyOrigin.USUAL, False)
    assert access.trust.paths[0] == home / ".ssh" / "known_hosts"
    assert access.trust.policy is HostKeyPolicy.ACCEPT_NEW
    assert (access.connect_timeout_seconds, access.login_timeout_seconds) == (5, 5)
    assert (access.keepalive_seconds, access.keepalive_count, access.is_compressed) == (15, 3, False)


_FILE = """
User file
Port 2022
IdentityFile /file
ConnectTimeout 7
ServerAliveInterval 8
Compression yes
StrictHostKeyChecking yes
UserKnownHostsFile /file_known
Host web*
  ProxyJump file
"""


def test_the_nearer_to_a_host_the_stronger(config: Path) -> None:
    """Its inventory, then flags and configuration, then the ssh configuration."""
    by_file = _resolve(config, _FILE)
    assert (by_file.user, by_file.port, by_file.access.identities.paths) == ("file", 2022, (Path("/file"),))
    assert (by_file.access.connect_timeout_seconds, by_file.access.keepalive_seconds) == (7, 8)
    assert (by_file.access.is_compressed, by_file.access.trust.policy) == (True, HostKeyPolicy.STRICT)
    assert by_file.access.trust.paths == (Path("/file_known"),)
    told = SshSettings(
        user="told",
        port=2,
        key_paths=(Path("/told"),),
        jumps=parse_jumps("told"),
        known_hosts_path=Path("/told_known"),
        host_key_policy=HostKeyPolicy.INSECURE,
        connect_timeout_seconds=1,
        login_timeout_seconds=2,
        keepalive_seconds=0,
        is_compressed=False,
    )
    by_flag = _resolve(config, _FILE, ssh=told)
    assert (by_flag.user, by_flag.port, by_flag.access.identities.paths) == ("told", 2, (Path("/told"),))
    assert [str(jump) for jump in by_flag.jumps] == ["told"]
    assert by_flag.access.trust.paths == (Path("/told_known"),)
    assert by_flag.access.trust.policy is HostKeyPolicy.INSECURE
    assert (by_flag.access.connect_timeout_seconds, by_flag.access.login_timeout_seconds) == (1, 2)
    assert (by_flag.access.keepalive_seconds, by_flag.access.is_compressed) == (0, False)
    host: dict[str, Any] = {"user": "inventory", "port": 3, "key_paths": ("/inventory",), "jump": "inventory"}
    by_inventory = _resolve(config, _FILE, ssh=told, **host)
    assert (by_inventory.user, by_inventory.port) == ("inventory", 3)
    assert by_inventory.access.identities.paths == (Path("/inventory"),)
    assert [str(jump) for jump in by_inventory.jumps] == ["inventory"]


def test_keys_that_are_told_are_the_only_ones(config: Path) -> None:
    """What is named by hand has to be there, and no other key of the agent is offered; ssh's file is as with ssh."""
    told = resolve("web01", SshSettings(key_paths=(Path("~/k"),))).access.identities
    assert (told.origin, told.is_only, told.paths) == (KeyOrigin.TOLD, True, (Path.home() / "k",))
    named = _resolve(config, "IdentityFile /a/%h\nIdentityFile none\nCertificateFile /c\n").access.identities
    assert (named.origin, named.is_only, named.paths) == (KeyOrigin.CONFIGURED, False, (Path("/a/web01"),))
    assert named.certificate_paths == (Path("/c"),)
    assert _resolve(config, "IdentityFile none\n").access.identities.paths == ()
    assert _resolve(config, "IdentitiesOnly yes\n").access.identities.is_only


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("", "/env"),
        ("IdentityAgent SSH_AUTH_SOCK", "/env"),
        ("IdentityAgent none", None),
        ("IdentityAgent $OTHER_SOCK", "/other"),
        ("IdentityAgent $NOT_SET_SOCK", None),
        ("IdentityAgent ${OTHER_SOCK}.%h", "/other.web01"),
        ("IdentityAgent ~/agent", "HOME/agent"),
    ],
)
def test_agents(config: Path, line: str, path: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """IdentityAgent is a socket, the name of a variable, or none."""
    monkeypatch.setenv("SSH_AUTH_SOCK", "/env")
    monkeypatch.setenv("OTHER_SOCK", "/other")
    found = _resolve(config, line).access.identities.agent_path
    assert found == (path.replace("HOME", str(Path.home())) if path else None)


def test_a_name_of_its_own_in_known_hosts(config: Path) -> None:
    """The address, with its port where that is not 22; or HostKeyAlias, which has no port."""
    plain = _resolve(config, "HostName DB.example.com\nPort 2222\n")
    assert (plain.known_as, plain.certified_as) == ("[db.example.com]:2222", "db.example.com")
    alias = _resolve(config, "HostKeyAlias Alias\nPort 2222\n")
    assert (alias.known_as, alias.certified_as) == ("alias", "Alias")


def test_connections(config: Path) -> None:
    """Addresses, interfaces, times and sizes mean what ssh means by them."""
    text = """
AddressFamily inet6
BindAddress 10.0.0.1
BindInterface eth1
ServerAliveInterval 1m30s
ServerAliveCountMax 2
TCPKeepAlive no
RekeyLimit 2M 1h
GSSAPIAuthentication yes
"""
    access = _resolve(config, text).access
    assert (access.family, access.bind_address, access.bind_interface) == (socket.AF_INET6, "10.0.0.1", "eth1")
    assert (access.keepalive_seconds, access.keepalive_count, access.has_tcp_keepalive) == (90, 2, False)
    assert (access.rekey_bytes, access.rekey_seconds) == (2 * 1024**2, 3600)
    assert (access.has_gssapi, access.has_gssapi_exchange) == (True, False)
    assert _resolve(config, "RekeyLimit default none\n").access.rekey_bytes is None
    assert _resolve(config, "ServerAliveInterval 0\n").access.keepalive_seconds == 0


def test_algorithms(config: Path) -> None:
    """Lists replace, add, take away and put first; a list of which asyncssh knows nothing is an error."""
    usual = resolve("web01").access.algorithms
    assert usual.ciphers[:2] == ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com")
    assert len(usual.ciphers) == len(set(usual.ciphers))
    assert not usual.has_host_key_order
    text = """
Ciphers aes256-ctr,unknown-cipher,aes128-*
MACs -hmac-sha1*,umac-*
KexAlgorithms ^curve25519-sha256
HostKeyAlgorithms ssh-ed25519,rsa-sha2-512
PubkeyAcceptedKeyTypes +ssh-rsa
"""
    access = _resolve(config, text).access.algorithms
    assert access.ciphers[0] == "aes256-ctr"
    assert all(name.startswith("aes") for name in access.ciphers)
    assert access.macs
    assert not any(name.startswith(("hmac-sha1", "umac")) for name in access.macs)
    assert access.key_exchanges[0] == "curve25519-sha256"
    assert len(access.key_exchanges) == len(usual.key_exchanges)
    assert (access.host_keys, access.has_host_key_order) == (("ssh-ed25519", "rsa-sha2-512"), True)
    assert "ssh-rsa" in access.signatures
    with pytest.raises(ConfigError, match="line 1: Ciphers cannot be 'rot13'"):
        _resolve(config, "Ciphers rot13\n")


def test_host_keys_are_asked_for_in_the_order_of_ssh(config: Path) -> None:
    """Whatever the library prefers: what ssh asks for comes first; `^` is an order, `+` and `-` are none."""
    of_ssh = "ssh-ed25519 ecdsa-sha2-nistp256 ecdsa-sha2-nistp384 ecdsa-sha2-nistp521 sk-ssh-ed25519@openssh.com "
    of_ssh += "sk-ecdsa-sha2-nistp256@openssh.com rsa-sha2-512 rsa-sha2-256"  # ssh -G of OpenSSH 9.2
    ours = resolve("web01").access.algorithms.host_keys
    plain = [name for name in ours if "-cert-" not in name]
    certificates = [name for name in ours if "-cert-" in name]
    assert plain[:8] == of_ssh.split()
    assert certificates[:8] == [f"{name.removesuffix('@openssh.com')}-cert-v01@openssh.com" for name in of_ssh.split()]
    assert set(plain) > set(of_ssh.split()), "what only we know is asked for, too"
    for sign, has_order in (("^", True), ("+", False), ("-", False), ("", True)):
        algorithms = _resolve(config, f"HostKeyAlgorithms {sign}ssh-ed25519\n").access.algorithms
        assert algorithms.has_host_key_order is has_order


@pytest.mark.parametrize(
    "line",
    [
        "Port 0",
        "Port ssh",
        "ConnectTimeout soon",
        "ServerAliveCountMax x",
        "Compression maybe",
        "AddressFamily ipx",
        "StrictHostKeyChecking perhaps",
        "RekeyLimit 0",
        "RekeyLimit 1G later",
        "ProxyJump a,",
        "UserKnownHostsFile ~nosuchuser/x",
    ],
)
def test_values_without_a_meaning(config: Path, line: str) -> None:
    """The message names file, line and setting."""
    with pytest.raises(ConfigError) as caught:
        _resolve(config, f"\n{line}\n")
    assert f"ssh configuration {config} line 2: {line.split()[0]} cannot be " in str(caught.value)


# --- what is not honoured --------------------------------------------------------------------------------------------


def test_what_is_not_honoured_is_told_once(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Once for a setting and the whole fleet; what makes no difference here is not worth a word."""
    config.write_text("""
Host web*
  KnownHostsCommand /bin/true
  CanonicalizeHostname yes
  VerifyHostKeyDNS no
  ControlMaster auto
  AddKeysToAgent yes
  UseKeychain yes
  Protocol 2
  IgnoreUnknown Wobble*,Other
  Wobbler 1
Host db*
  KnownHostsCommand /bin/false
""")
    targets = Targets(ReachSettings(config_paths=(config,)))
    targets.resolve_all(
        [Host(f"{kind}{number}", f"{kind}{number}") for kind in ("web", "db") for number in range(5)],
        lambda _host: SshSettings(),
    )
    assert sorted(message.partition("ssh_config ")[2] for message in caplog.messages) == [
        "line 3: KnownHostsCommand is not honoured",
        "line 4: CanonicalizeHostname is not honoured",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Hots db*\n  User x\n", "line 1: bad configuration option Hots: ssh refuses it, too; `IgnoreUnknown Hots`"),
        ("Host other\n  Frobnicate 7\n", "line 2: bad configuration option Frobnicate"),
        ("Wobbler 1\nIgnoreUnknown Wobble*\n", "line 1: bad configuration option Wobbler"),
        ("HostName a b\n", "line 1: extra words behind HostName 'a': 'b'"),
        ("User a b # c\n", "line 1: extra words behind User 'a': 'b'"),
        ("User\n", "line 1: User has no value"),
    ],
)
def test_what_ssh_refuses_is_refused(config: Path, text: str, message: str) -> None:
    """Whichever host it is for: a typo in `Host` would give its settings to every host."""
    config.write_text(text)
    with pytest.raises(ConfigError) as caught:
        Targets(ReachSettings(config_paths=(config,)))
    assert f"ssh configuration {config} {message}" in str(caught.value)


def test_no_is_not_insecure(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    """StrictHostKeyChecking no is common, and seldom meant: changed keys are refused, and the log says so once."""
    config.write_text("StrictHostKeyChecking no\n")
    targets = Targets(ReachSettings(config_paths=(config,)))
    found = targets.resolve_all([Host("a", "a"), Host("b", "b")], lambda _host: SshSettings())
    assert {target.access.trust.policy for target in found.values()} == {HostKeyPolicy.ACCEPT_NEW}
    (message,) = caplog.messages
    assert "taken as accept-new: changed keys are refused all the same; --host-keys insecure checks nothing" in message
    caplog.clear()
    told = SshSettings(host_key_policy=HostKeyPolicy.STRICT)
    Targets(ReachSettings(config_paths=(config,))).resolve(Host("a", "a"), told)
    assert not caplog.messages


def test_each_setting_has_one_place() -> None:
    """Honoured, not needed, or told: nothing is in two of them."""
    assert not HONOURED & NOT_NEEDED
    assert not (HONOURED | NOT_NEEDED) & OTHERS.keys()


# --- the way ---------------------------------------------------------------------------------------------------------


def _route(target: Target) -> list[str]:
    return [str(jump) for jump in target.jumps]


def test_jump_hosts_in_a_row(config: Path) -> None:
    """The first is reached as the ssh configuration says; each has those before it, and its own user and port."""
    text = "Host b\n Port 2222\n User ops\nHost a\n ProxyJump front\nHost b\n ProxyJump never\n"
    target = _resolve(config, text, ssh=SshSettings(jumps=parse_jumps("u@a,b:33")))
    assert _route(target) == ["front", "u@a", "b:33"]
    front, a, b = target.jumps
    assert (front.jumps, a.jumps, b.jumps) == ((), (front,), (front, a))
    assert (a.user, a.port, b.user, b.port) == ("u", 22, "ops", 33)


def test_user_and_keys_of_a_jump_host(config: Path) -> None:
    """Those that are told, unless the ssh configuration has others for it; never the port, nor the hosts' own."""
    ssh = SshSettings(user="told", port=2, key_paths=(Path("/told"),), jumps=parse_jumps("a,b"))
    settings = ReachSettings(ssh, LoginLimits(), (config,))
    config.write_text("Host b\n User ops\n IdentityFile /ops\n")
    host = Host("web01", "web01", user="own", port=3, key_paths=("/own",))
    a, b = Targets(settings).resolve(host, ssh).jumps
    assert (a.user, a.port, a.access.identities.paths) == ("told", 22, (Path("/told"),))
    assert (b.user, b.port, b.access.identities.paths) == ("ops", 22, (Path("/ops"),))


@pytest.mark.parametrize("none", ["none", "None"])
def test_no_jump_host(config: Path, none: str) -> None:
    """`none` takes away what something weaker says."""
    assert _route(_resolve(config, "ProxyJump a\n", jump=none)) == []
    assert _route(_resolve(config, "ProxyJump a\n", ssh=SshSettings(jumps=parse_jumps(none)))) == []
    assert _route(_resolve(config, f"Host web01\n ProxyJump {none}\nHost *\n ProxyJump a\n")) == []


def test_a_jump_host_among_the_hosts(config: Path) -> None:
    """A host that is on the way itself is reached by what is left of the way; another port there is another host."""
    text = "Host *\n ProxyJump front\nHost front\n HostName 10.0.0.1\n"
    assert _route(_resolve(config, text)) == ["front"]
    assert _route(_resolve(config, text, "front")) == []
    assert _route(_resolve(config, text, "10.0.0.1")) == []
    assert _route(_resolve(config, text, "10.0.0.1", port=2222)) == ["front"]
    assert _route(_resolve(config, "", "b", ssh=SshSettings(jumps=parse_jumps("a,b,c")))) == ["a"]


def test_jump_hosts_in_a_circle(config: Path) -> None:
    """That is an error, which shows the circle."""
    with pytest.raises(ConfigError, match="jump hosts go round in a circle: a -> b -> a"):
        _resolve(config, "Host web*\n ProxyJump a\nHost a\n ProxyJump b\nHost b\n ProxyJump a\n")


def test_a_proxy_command(config: Path) -> None:
    """It is expanded, and a jump host that is told takes its place."""
    text = "ProxyCommand nc -x proxy:1080 %h %p # by %r\nHostName %h.example.com\n"
    assert _resolve(config, text, user="me").proxy_command == "nc -x proxy:1080 web01.example.com 22 # by me"
    told = _resolve(config, text, ssh=SshSettings(jumps=parse_jumps("a")))
    assert (_route(told), told.proxy_command) == (["a"], None)
    assert told.jumps[0].proxy_command == f"nc -x proxy:1080 a.example.com 22 # by {local_user()}", "as ssh would"
    assert _resolve(config, "ProxyCommand none\n").proxy_command is None


def test_what_an_inventory_says_wrong() -> None:
    """The message names the host."""
    with pytest.raises(UsageError, match=r"host web01: jump host 'a b': expected \[user@\]host\[:port\]"):
        resolve("web01", jump="a b")


@pytest.mark.parametrize(
    ("text", "jumps"),
    [
        ("bastion", [(None, "bastion", None)]),
        ("ops@bastion:2222", [("ops", "bastion", 2222)]),
        ("a,b@c , d:1", [(None, "a", None), ("b", "c", None), (None, "d", 1)]),
        ("[2001:db8::1]:22", [(None, "2001:db8::1", 22)]),
        ("u@[fe80::1%eth0]", [("u", "fe80::1%eth0", None)]),
        ("2001:db8::1", [(None, "2001:db8::1", None)]),
        ("ssh://ops@bastion:2222", [("ops", "bastion", 2222)]),
        ("user@domain@bastion", [("user@domain", "bastion", None)]),
        ("none", []),
    ],
)
def test_parse_jumps(text: str, jumps: list[tuple[str | None, str, int | None]]) -> None:
    """As `ssh -J` takes them."""
    assert parse_jumps(text) == tuple(JumpSpec(*jump) for jump in jumps)


@pytest.mark.parametrize(
    "text", ["", ",", "a,", "@a", "a:", "a:0", "a:65536", "a:b", "-oProxyCommand=x", "a b", "[::1", "ftp://a"]
)
def test_parse_jumps_refuses(text: str) -> None:
    """Nothing that looks like an option, either."""
    with pytest.raises(UsageError, match="expected"):
        parse_jumps(text)


@given(
    st.sampled_from([None, "u"]),
    st.sampled_from(["a", "a.example.com", "10.0.0.1", "::1"]),
    st.sampled_from([None, 22]),
)
def test_jumps_are_written_as_they_are_read(user: str | None, host: str, port: int | None) -> None:
    """What messages show can be typed."""
    spec = JumpSpec(user, host, port)
    assert parse_jumps(str(spec)) == (spec,)


def test_equal_hosts_share_and_are_resolved_once(config: Path) -> None:
    """10,000 hosts have one access where nothing is different, and cost nothing the second time."""
    targets = Targets(ReachSettings(config_paths=()))
    hosts = [Host(f"web{number}", f"web{number}") for number in range(50)]
    first = targets.resolve_all(hosts, lambda _host: SshSettings())
    assert len({id(target.access) for target in first.values()}) == 1
    again = targets.resolve_all([*hosts[:5], Host("new", "new")], lambda _host: SshSettings())
    assert all(again[host] is first[host] for host in hosts[:5])
    other = targets.resolve_all(hosts[:1], lambda _host: SshSettings(user="other"))
    assert other[hosts[0]].user == "other"


def test_sizes_and_signatures(config: Path) -> None:
    """What the ssh configuration wants of RSA keys and certificates; the settings of patched ssh are known."""
    text = "RequiredRSASize 2048\nCASignatureAlgorithms rsa-sha2-512,ssh-ed25519\n"
    algorithms = _resolve(config, text).access.algorithms
    assert algorithms.rsa_bits == 2048
    assert set(algorithms.ca_signatures or ()) == {"rsa-sha2-512", "ssh-ed25519"}
    assert (resolve("web01").access.algorithms.rsa_bits, resolve("web01").access.algorithms.ca_signatures) == (0, None)
    with pytest.raises(ConfigError, match="RequiredRSASize cannot be 'big'"):
        _resolve(config, "RequiredRSASize big\n")


def test_rsa_bits() -> None:
    """Of a key and of the key in a certificate; what is no RSA key, or nothing at all, has none."""
    key = asyncssh.generate_private_key("ssh-rsa", key_size=2048)
    certificate = key.generate_host_certificate(key, "host", principals=["host"])
    assert rsa_bits(key.public_data) == rsa_bits(certificate.public_data) == 2048
    assert rsa_bits(asyncssh.generate_private_key("ssh-ed25519").public_data) is None
    for nonsense in (b"", b"\0\0\0\7ssh-rsa", b"\xff" * 20):
        assert rsa_bits(nonsense) is None
