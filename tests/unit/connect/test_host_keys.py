import asyncio
import fcntl
import multiprocessing
import stat
import subprocess
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect.host_keys import HostKeys, fingerprint
from fleetmem.connect.ssh_settings import HostKeyPolicy, SshSettings
from fleetmem.connect.target import Target
from fleetmem.errors import ConfigError, HostError, Kind, Stage
from unit.connect.targets import known_in, resolve

_ACCEPT_NEW, _STRICT, _INSECURE = HostKeyPolicy
_KEYS = [asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2)]
_ECDSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256").convert_to_public()
_SALTED = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg="  # sshd(8): 192.168.1.61


def _line(name: str, key: asyncssh.SSHKey = _KEYS[0]) -> str:
    return f"{name} {' '.join(key.export_public_key().decode().split()[:2])}\n"


def _verify(known: HostKeys, target: Target, key: asyncssh.SSHKey) -> None:
    """Does what a login does with the key that a host shows."""
    if not known.is_known(target, key):
        asyncio.run(known.decide(target, key))


def _refusal(target: Target, key: asyncssh.SSHKey = _KEYS[0], known: HostKeys | None = None) -> HostError | None:
    """Returns why a key is refused, by who knows what the files say; None where it is taken."""
    try:
        _verify(known or HostKeys(), target, key)
    except HostError as error:
        return error
    return None


def _is_known(path: Path, name: str, port: int = 22, key: asyncssh.SSHKey = _KEYS[0]) -> bool:
    return _refusal(known_in(path, _STRICT, name, port), key) is None


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where known hosts are; nothing is there yet, not even the folder."""
    return tmp_path / "ssh" / "known_hosts"


@pytest.fixture
def file(path: Path) -> Path:
    """The same with its folder."""
    path.parent.mkdir()
    return path


def test_accept_new_records(path: Path) -> None:
    """An unknown key is taken, remembered, and written for the next run, in a folder only for us."""
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)
    _verify(known, target, _KEYS[0])
    assert known.known(target).keys == [_KEYS[0]]
    assert path.read_text() == _line("web01")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert _is_known(path, "web01")


def test_what_was_recorded_is_known_from_then_on(path: Path) -> None:
    """A connection asks again at each new key exchange; the same key is right again, another one is not."""
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)
    for _ in range(3):
        _verify(known, target, _KEYS[0])
    assert path.read_text() == _line("web01")
    error = _refusal(target, _KEYS[1], known)
    assert error
    assert error.kind is Kind.HOST_KEY_CHANGED


def test_ssh_keygen_finds_what_is_recorded(path: Path) -> None:
    """The file is one that ssh can use: `ssh-keygen -F` finds each name and shows its key."""
    known = HostKeys()
    for name, port in (("web01", 22), ("web02", 2222), ("2001:db8::1", 22), ("2001:db8::2", 2222)):
        _verify(known, known_in(path, _ACCEPT_NEW, name, port), _KEYS[0])
        shown = name if port == 22 else f"[{name}]:{port}"
        found = subprocess.run(
            ["ssh-keygen", "-F", shown, "-f", path, "-l"], capture_output=True, text=True, check=True
        )
        assert _KEYS[0].get_fingerprint() in found.stdout


@pytest.mark.parametrize("port", [22, 2222])
def test_a_key_holds_for_its_port(path: Path, port: int) -> None:
    """It is recorded under `[host]:port`, plain for port 22."""
    _verify(HostKeys(), known_in(path, _ACCEPT_NEW, "web01", port), _KEYS[0])
    assert path.read_text() == _line("web01" if port == 22 else "[web01]:2222")
    assert _is_known(path, "web01", port)
    assert _is_known(path, "web01", 2200) is (port == 22)


def test_a_key_without_a_port_is_good_for_every_port(file: Path) -> None:
    """As with ssh, a line without port vouches for a host on another port; another key there is new, not changed."""
    file.write_text(_line("web01"))
    assert _is_known(file, "web01", 2222)
    error = _refusal(known_in(file, _STRICT, "web01", 2222), _KEYS[1])
    assert error
    assert error.kind is Kind.HOST_KEY_UNKNOWN
    assert not _refusal(known_in(file, _ACCEPT_NEW, "web01", 2222), _KEYS[1])
    assert file.read_text() == _line("web01") + _line("[web01]:2222", _KEYS[1])


def test_names_are_lower_case(file: Path) -> None:
    """Names of hosts have no case."""
    file.write_text(_line("Web01"))
    assert _is_known(file, "WEB01")


@pytest.mark.parametrize("policy", [_ACCEPT_NEW, _STRICT])
@pytest.mark.parametrize(("name", "port"), [("web01", 22), ("[web01]:2222", 2222)])
def test_a_changed_key_is_refused(file: Path, policy: HostKeyPolicy, name: str, port: int) -> None:
    """The message has both fingerprints, file and line, and a command that removes it; and that command does."""
    before = _line("other") + _line(name) + _line(name, _ECDSA)
    file.write_text(before)
    error = _refusal(known_in(file, policy, "web01", port), _KEYS[1])
    assert error
    assert (error.stage, error.kind) == (Stage.LOGIN, Kind.HOST_KEY_CHANGED)
    assert f"host key is {fingerprint(_KEYS[1])}, but {file} line 2 has {fingerprint(_KEYS[0])}" in error.message
    assert f"{file} line 3 has {fingerprint(_ECDSA)} for {name}" in error.message
    assert file.read_text() == before
    command = error.message.partition("remove it: ")[2]
    subprocess.run(["/bin/sh", "-c", command], check=True, capture_output=True)
    assert file.read_text() == _line("other")
    assert not _refusal(known_in(file, _ACCEPT_NEW, "web01", port), _KEYS[1])


def test_a_pattern_has_no_command_to_remove_it(file: Path) -> None:
    """ssh-keygen removes no lines with patterns: whoever wrote it has to see to it."""
    file.write_text(_line("web*"))
    error = _refusal(known_in(file, _STRICT), _KEYS[1])
    assert error
    assert f"{file} line 1 has" in error.message
    assert "edit that line" in error.message


def test_a_line_that_was_removed_is_no_longer_known(file: Path) -> None:
    """Whoever repairs the file need not restart anything: before a key is refused, the file is looked at again."""
    file.write_text(_line("web01"))
    known, target = HostKeys(), known_in(file, _ACCEPT_NEW)
    assert _refusal(target, _KEYS[1], known)
    subprocess.run(["ssh-keygen", "-R", "web01", "-f", file], check=True, capture_output=True)
    assert not _refusal(target, _KEYS[1], known)
    assert file.read_text() == _line("web01", _KEYS[1])


def test_a_key_that_was_added_is_known(file: Path) -> None:
    """Before a key is refused as unknown, likewise."""
    known, target = HostKeys(), known_in(file, _STRICT)
    assert _refusal(target, _KEYS[0], known)
    file.write_text(_line("web01"))
    assert not _refusal(target, _KEYS[0], known)


def test_strict_refuses_unknown_keys(path: Path) -> None:
    """The message has the fingerprint to compare and the file where it is missing; nothing is written."""
    error = _refusal(known_in(path, _STRICT, "web01", 2222))
    assert error
    assert error.kind is Kind.HOST_KEY_UNKNOWN
    assert f"{fingerprint(_KEYS[0])} of [web01]:2222 is not in {path}" in error.message
    assert not path.exists()


def test_insecure_takes_everything(file: Path) -> None:
    """Neither an unknown, nor a changed, nor a revoked key is refused, and none recorded."""
    text = _line("web01") + "@revoked * " + _line("", _ECDSA).strip() + "\n"
    file.write_text(text)
    known = HostKeys()
    for key in (_KEYS[1], _ECDSA):
        assert not _refusal(known_in(file, _INSECURE), key, known)
        assert not _refusal(known_in(file, _INSECURE, "web02"), key, known)
    assert file.read_text() == text


def test_the_address_does_not_matter(file: Path) -> None:
    """Addresses get reused: a key known for an address says nothing about a name, nor the other way round."""
    file.write_text(_line("10.0.0.1"))
    assert not _is_known(file, "web01")
    assert _is_known(file, "10.0.0.1")


def test_patterns_and_hashed_names(file: Path) -> None:
    """Files that ssh wrote work: comments, patterns, hashed names, several names a line, brackets that are none."""
    lines = ["# ours\n", "\n", _line("web*,!web9"), _line("a,b", _KEYS[1]), _line(_SALTED, _ECDSA)]
    lines += [_line("[db?]:2222", _KEYS[1]), _line("web9", _ECDSA).rstrip() + " with a comment\n"]
    file.write_text("".join(lines))
    assert _is_known(file, "web01")
    assert not _is_known(file, "web9")
    assert _is_known(file, "web9", key=_ECDSA)
    assert _is_known(file, "b", key=_KEYS[1])
    assert _is_known(file, "192.168.1.61", key=_ECDSA)
    assert _is_known(file, "db1", 2222, _KEYS[1])
    assert not _is_known(file, "d", 2222, _KEYS[1])


def test_a_hashed_file_of_ssh(file: Path) -> None:
    """`ssh-keygen -H` hashes a file; its hosts are known as before, and a changed one is removed by our command."""
    names = ["web01", "[web01]:2222", "2001:db8::1"]
    file.write_text("".join(map(_line, names)))
    subprocess.run(["ssh-keygen", "-H", "-f", file], check=True, capture_output=True)
    assert "web01" not in file.read_text()
    for name, port in (("web01", 22), ("web01", 2222), ("2001:db8::1", 22)):
        assert _is_known(file, name, port)
    assert not _is_known(file, "web02")
    error = _refusal(known_in(file, _ACCEPT_NEW, "web01", 2222), _KEYS[1])
    assert error
    assert f"{file} line 2 has" in error.message
    subprocess.run(["/bin/sh", "-c", error.message.partition("remove it: ")[2]], check=True, capture_output=True)
    assert [_is_known(file, "web01", port, _KEYS[1]) for port in (22, 2222)] == [False, False]
    assert len(file.read_text().splitlines()) == 2


@pytest.mark.parametrize("policy", [_ACCEPT_NEW, _STRICT])
@pytest.mark.parametrize("known_as", ["", "web01", "web*"])
def test_a_revoked_key_is_refused(file: Path, policy: HostKeyPolicy, known_as: str) -> None:
    """Also where it is known; the message says which line revokes it, and what to make of it."""
    lines = [_line(known_as)] if known_as else []
    file.write_text("".join([*lines, f"@revoked * {_line('').strip()}\n"]))
    error = _refusal(known_in(file, policy))
    assert error
    assert error.kind is Kind.HOST_KEY_CHANGED
    place = f"{file} line {len(lines) + 1} revokes {fingerprint(_KEYS[0])}"
    assert error.message == f"the host showed a key that may be in the wrong hands: {place}; nothing was sent to it"
    assert not _refusal(known_in(file, _ACCEPT_NEW), _KEYS[1]) or known_as


def test_keys_that_the_ssh_configuration_revokes(tmp_path: Path, file: Path) -> None:
    """RevokedHostKeys: one key a line; a list that only ssh can read, or none at all, is an error."""
    revoked, config = tmp_path / "revoked", tmp_path / "config"
    revoked.write_text(f"# stolen\n{_line('').strip()} db1\n")
    config.write_text(f"RevokedHostKeys {revoked}\n")
    target = resolve("web01", SshSettings(known_hosts_path=file), config=config)
    known = HostKeys()
    known.prepare(target.access.trust)
    error = _refusal(target, _KEYS[0], known)
    assert error
    assert f"{revoked} line 2 revokes" in error.message
    assert not _refusal(target, _KEYS[1], known)
    subprocess.run(["ssh-keygen", "-q", "-k", "-f", revoked, revoked], check=True, capture_output=True)
    with pytest.raises(ConfigError, match="revocation list is not read here"):
        HostKeys().prepare(target.access.trust)
    revoked.unlink()
    with pytest.raises(ConfigError, match="no such file"):
        HostKeys().prepare(target.access.trust)


def test_authorities(file: Path) -> None:
    """`@cert-authority` lines say who may sign; certificates are asked for where there is one, and not elsewhere."""
    file.write_text(f"@cert-authority *.example.com {_line('').strip()}\n" + _line("db1.example.com", _ECDSA))
    known = HostKeys()
    certified = known_in(file, _STRICT, "web1.example.com", 2222)
    assert known.known(certified).authorities == [_KEYS[0]]
    assert known.known(certified).algorithms(certified)[0].endswith("-cert-v01@openssh.com")
    other = known_in(file, _STRICT, "web1.example.org")
    assert known.known(other).authorities == []
    assert not any("-cert-" in name for name in known.known(other).algorithms(other))
    assert _refusal(other)
    both = known_in(file, _STRICT, "db1.example.com")
    algorithms = known.known(both).algorithms(both)
    plain = [name for name in algorithms if "-cert-" not in name]
    assert algorithms[0].endswith("-cert-v01@openssh.com")
    assert plain[0] == "ecdsa-sha2-nistp256", "the kind of key that is known comes first"
    assert "ssh-ed25519" in plain, "and the others after it: a host that has no other shows that it has changed"


def test_a_bad_line_is_skipped(file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Lines that nobody can read do not take the others with them; the log says which ones."""
    bad = b"web02 ssh-ed25519 nonsense!\n\xff\xfe\n@odd web03 ssh-ed25519 AAAA\n|1|x ssh-ed25519 AAAA\n"
    file.write_bytes(_line("web01").encode() + bad + b"web04 ssh-ed25519 AAAA\n" + _line("web05").encode())
    assert _is_known(file, "web01")
    assert _is_known(file, "web05")
    for line, message in zip([2, 3, 4, 5] * 2, caplog.messages, strict=True):
        assert message.startswith(f"known hosts {file} line {line} is skipped: ")
    caplog.clear()
    assert not _is_known(file, "web04")
    assert caplog.messages[-1].startswith("known hosts: a key is skipped: "), "it looks well until it is needed"


def test_a_file_without_a_newline_at_its_end(file: Path) -> None:
    """The new line does not become part of the last one, and the numbers of lines stay right."""
    file.write_text(_line("web01").rstrip("\n"))
    known = HostKeys()
    _verify(known, known_in(file, _ACCEPT_NEW, "web02"), _KEYS[1])
    assert file.read_text() == _line("web01") + _line("web02", _KEYS[1])
    error = _refusal(known_in(file, _ACCEPT_NEW, "web02"), _ECDSA, known)
    assert error
    assert f"{file} line 2 has" in error.message


def test_a_file_that_cannot_be_written_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The keys hold for this run; one warning says that they are not recorded."""
    (tmp_path / "file").write_text("")
    path, known = tmp_path / "file" / "known_hosts", HostKeys()
    _verify(known, known_in(path, _ACCEPT_NEW, "web01"), _KEYS[0])
    _verify(known, known_in(path, _ACCEPT_NEW, "web02"), _KEYS[0])
    _verify(known, known_in(path, _ACCEPT_NEW, "web02"), _KEYS[0])
    error = _refusal(known_in(path, _ACCEPT_NEW, "web01"), _KEYS[1], known)
    assert error
    assert "what was seen before has" in error.message
    assert sum(message.startswith("new host keys are not recorded: ") for message in caplog.messages) == 1


def test_a_file_that_cannot_be_read_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder where the file should be is told, and is no crash."""
    HostKeys().prepare(known_in(tmp_path, _STRICT).access.trust)
    assert caplog.messages == [f"known hosts {tmp_path} cannot be read: is a directory"]


def test_the_system_wide_file_counts_too(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What the administrator knows is known; new keys go into the user's file."""
    system, config = tmp_path / "ssh_known_hosts", tmp_path / "config"
    system.write_text(_line("web01"))
    config.write_text(f"GlobalKnownHostsFile {system}\n")
    known, ssh = HostKeys(), SshSettings(known_hosts_path=path)
    _verify(known, resolve("web01", ssh, config=config), _KEYS[0])
    assert not path.exists()
    _verify(known, resolve("web02", ssh, config=config), _KEYS[1])
    assert system.read_text() == _line("web01")
    assert path.read_text() == _line("web02", _KEYS[1])
    assert not caplog.records


def test_known_hosts_in_home(home: Path) -> None:
    """A tilde means home."""
    _verify(HostKeys(), known_in(Path("~/known"), _ACCEPT_NEW), _KEYS[0])
    assert (home / "known").read_text() == _line("web01")


def test_another_collector_was_faster(file: Path) -> None:
    """What it has recorded since we read the file counts: the same key is not there twice, another one is refused."""
    known = HostKeys()
    known.prepare(known_in(file, _ACCEPT_NEW).access.trust)
    file.write_text(_line("web01") + _line("web02"))
    assert not _refusal(known_in(file, _ACCEPT_NEW, "web01"), _KEYS[0], known)
    error = _refusal(known_in(file, _ACCEPT_NEW, "web02"), _KEYS[1], known)
    assert error
    assert error.kind is Kind.HOST_KEY_CHANGED
    assert file.read_text() == _line("web01") + _line("web02")


def test_another_collector_is_just_being_faster(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is looked at once more under the lock: half a line is whole by then, and a key may be there."""
    file.write_text("half a line")
    locks: list[int] = []

    def write_meanwhile(_file: object, operation: int) -> None:
        locks.append(operation)
        with file.open("a") as other:
            other.write(" and the rest\n" + _line("web01"))

    monkeypatch.setattr(fcntl, "flock", write_meanwhile)
    assert not _refusal(known_in(file, _ACCEPT_NEW))
    assert locks == [fcntl.LOCK_EX | fcntl.LOCK_NB]
    assert file.read_text() == "half a line and the rest\n" + _line("web01")
    error = _refusal(known_in(file, _ACCEPT_NEW, "web02"), _KEYS[1])
    assert error is None
    file.write_text("")
    error = _refusal(known_in(file, _ACCEPT_NEW), _KEYS[1])
    assert error
    assert error.kind is Kind.HOST_KEY_CHANGED, "the other one saw another key"


@pytest.mark.slow
def test_two_writers_keep_whole_lines(path: Path) -> None:
    """Two collectors that record the same 200 hosts at the same time: each host has one line, and it is whole."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_record_all, args=(path,)) for _ in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    lines = path.read_text().splitlines()
    assert sorted(line.split()[0] for line in lines) == sorted(f"host{number}" for number in range(200))
    assert {" ".join(line.split()[1:]) for line in lines} == {_FIXED_KEY}


_FIXED_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl"  # of github.com


def _record_all(path: Path) -> None:
    known, key = HostKeys(), asyncssh.import_public_key(_FIXED_KEY)
    for number in range(200):
        _verify(known, known_in(path, _ACCEPT_NEW, f"host{number}"), key)


def test_fingerprint_is_what_ssh_keygen_shows() -> None:
    """People compare it with `ssh-keygen -l`: algorithm and SHA256."""
    assert fingerprint(_KEYS[0]) == f"ssh-ed25519 {_KEYS[0].get_fingerprint()}"
    assert fingerprint(_ECDSA).startswith("ecdsa-sha2-nistp256 SHA256:")
