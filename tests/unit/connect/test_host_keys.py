import fcntl
import multiprocessing
import stat
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect import host_keys
from fleetmem.connect.host_keys import HostKeys, Verifier, fingerprint
from fleetmem.connect.settings import HostKeyPolicy
from fleetmem.errors import HostError, Kind, Stage

_KEYS = [asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2)]
_ECDSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256").convert_to_public()


def _line(name: str, key: asyncssh.SSHKey = _KEYS[0]) -> str:
    return f"{name} {key.export_public_key().decode().strip()}\n"


def _is_known(known: HostKeys, host: str, port: int | None, key: asyncssh.SSHKey = _KEYS[0]) -> bool:
    return key in known.match(host, "10.0.0.1", port)[0]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where known hosts are; nothing is there yet."""
    return tmp_path / "ssh" / "known_hosts"


def test_accept_new_records(path: Path) -> None:
    """An unknown key is taken, remembered, and written for the next run, in a folder only for us."""
    known = HostKeys(path, HostKeyPolicy.ACCEPT_NEW)
    known.verify("web01", 22, _KEYS[0])
    assert _is_known(known, "web01", 22)
    assert path.read_text() == _line("web01")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert _is_known(HostKeys(path, HostKeyPolicy.STRICT), "web01", None)


@pytest.mark.parametrize("port", [22, 2222])
def test_another_port_is_another_host(path: Path, port: int) -> None:
    """A key is recorded under `[host]:port`, plain for port 22, and holds for that port alone."""
    known = HostKeys(path, HostKeyPolicy.ACCEPT_NEW)
    known.verify("web01", port, _KEYS[0])
    assert path.read_text() == _line("web01" if port == 22 else "[web01]:2222")
    assert [_is_known(known, "web01", other) for other in (22, 2222)] == [port == 22, port == 2222]


def test_an_ipv6_address(path: Path) -> None:
    """IPv6 addresses are written as ssh writes them and found again."""
    known = HostKeys(path, HostKeyPolicy.ACCEPT_NEW)
    known.verify("2001:db8::1", 22, _KEYS[0])
    known.verify("2001:db8::1", 2222, _KEYS[1])
    assert path.read_text() == _line("2001:db8::1") + _line("[2001:db8::1]:2222", _KEYS[1])
    again = HostKeys(path, HostKeyPolicy.STRICT)
    assert _is_known(again, "2001:db8::1", 22)
    assert _is_known(again, "2001:db8::1", 2222, _KEYS[1])


@pytest.mark.parametrize("policy", [HostKeyPolicy.ACCEPT_NEW, HostKeyPolicy.STRICT])
def test_a_changed_key_is_refused(path: Path, policy: HostKeyPolicy) -> None:
    """Both fingerprints are in the message, and the file stays as it was."""
    path.parent.mkdir()
    path.write_text(_line("web01") + _line("web01", _ECDSA))
    with pytest.raises(HostError) as caught:
        HostKeys(path, policy).verify("web01", 22, _KEYS[1])
    error = caught.value
    assert (error.stage, error.kind) == (Stage.LOGIN, Kind.HOST_KEY_CHANGED)
    for key in (*_KEYS, _ECDSA):
        assert fingerprint(key) in error.message
    assert str(path) in error.message
    assert path.read_text() == _line("web01") + _line("web01", _ECDSA)


def test_a_key_recorded_meanwhile_is_known(path: Path) -> None:
    """A connection that began without a known key asks again in each key exchange; the answer stays the same."""
    known = HostKeys(path, HostKeyPolicy.ACCEPT_NEW)
    for _ in range(2):
        known.verify("web01", 22, _KEYS[0])
    assert path.read_text() == _line("web01")


def test_strict_refuses_unknown_keys(path: Path) -> None:
    """The message has the fingerprint to compare and the file where it is missing; nothing is written."""
    with pytest.raises(HostError, match="is not in ") as caught:
        HostKeys(path, HostKeyPolicy.STRICT).verify("web01", 2222, _KEYS[0])
    assert caught.value.kind is Kind.HOST_KEY_UNKNOWN
    assert f"{fingerprint(_KEYS[0])} of [web01]:2222 is not in {path}" in caught.value.message
    assert not path.exists()


def test_insecure_takes_everything(path: Path) -> None:
    """Neither an unknown nor a changed key is refused, and none recorded."""
    path.parent.mkdir()
    path.write_text(_line("web01"))
    known = HostKeys(path, HostKeyPolicy.INSECURE)
    known.verify("web01", 22, _KEYS[1])
    known.verify("web02", 22, _KEYS[1])
    assert path.read_text() == _line("web01")


def test_the_address_does_not_matter(path: Path) -> None:
    """Addresses get reused: a key known for an address says nothing about a name, nor the other way round."""
    path.parent.mkdir()
    path.write_text(_line("10.0.0.1"))
    known = HostKeys(path, HostKeyPolicy.STRICT)
    assert not _is_known(known, "web01", 22)
    assert _is_known(known, "10.0.0.1", 22)


def test_patterns_and_hashed_names(path: Path) -> None:
    """Files that ssh wrote work: comments, patterns, hashed names, more than one name a line."""
    path.parent.mkdir()
    salted = "|1|F1E1KeoE/eEWhi10WpGv4OdiO6Y=|3988QV0VE8wmZL7suNrYQLITLCg="  # sshd(8): 192.168.1.61
    lines = ["# ours\n", "\n", _line("web*,!web9"), _line("a,b", _KEYS[1]), _line(salted, _ECDSA)]
    path.write_text("".join(lines))
    known = HostKeys(path, HostKeyPolicy.STRICT)
    assert _is_known(known, "web01", 22)
    assert not _is_known(known, "web9", 22)
    assert _is_known(known, "b", 22, _KEYS[1])
    assert _is_known(known, "192.168.1.61", 22, _ECDSA)


def test_a_bad_line_is_skipped(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line that nobody can read does not take the others with it; the log says which one."""
    path.parent.mkdir()
    path.write_bytes(_line("web01").encode() + b"web02 ssh-ed25519 nonsense\n\xff\xfe\n" + _line("web03").encode())
    known = HostKeys(path, HostKeyPolicy.STRICT)
    assert _is_known(known, "web01", 22)
    assert _is_known(known, "web03", 22)
    (message,) = caplog.messages  # asyncssh leaves out a key that it cannot read by itself
    assert message.startswith(f"known hosts {path} line 3 is skipped: ")


def test_a_file_without_a_newline_at_its_end(path: Path) -> None:
    """The new line does not become part of the last one."""
    path.parent.mkdir()
    path.write_text(_line("web01").rstrip("\n"))
    HostKeys(path, HostKeyPolicy.ACCEPT_NEW).verify("web02", 22, _KEYS[1])
    assert path.read_text() == _line("web01") + _line("web02", _KEYS[1])


def test_a_file_that_cannot_be_written_only_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The keys hold for this run; one warning says that they are not recorded."""
    (tmp_path / "file").write_text("")
    known = HostKeys(tmp_path / "file" / "known_hosts", HostKeyPolicy.ACCEPT_NEW)
    known.verify("web01", 22, _KEYS[0])
    known.verify("web02", 22, _KEYS[0])
    assert _is_known(known, "web02", 22)
    with pytest.raises(HostError):
        known.verify("web01", 22, _KEYS[1])
    assert sum(message.startswith("new host keys are not recorded: ") for message in caplog.messages) == 1


def test_a_file_that_cannot_be_read_warns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A folder where the file should be is told, and is no crash."""
    HostKeys(tmp_path, HostKeyPolicy.STRICT)
    assert caplog.messages == [f"known hosts {tmp_path} cannot be read: is a directory"]


def test_the_system_wide_file_counts_too(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What the administrator knows is known; new keys go into the user's file."""
    system = tmp_path / "ssh_known_hosts"
    system.write_text(_line("web01"))
    monkeypatch.setattr(host_keys, "_SYSTEM_PATH", system)
    known = HostKeys(path, HostKeyPolicy.ACCEPT_NEW)
    assert _is_known(known, "web01", 22)
    known.verify("web02", 22, _KEYS[1])
    assert system.read_text() == _line("web01")
    assert path.read_text() == _line("web02", _KEYS[1])
    assert not caplog.records


def test_known_hosts_in_home(home: Path) -> None:
    """A tilde means home."""
    HostKeys(Path("~/known"), HostKeyPolicy.ACCEPT_NEW).verify("web01", 22, _KEYS[0])
    assert (home / "known").read_text() == _line("web01")


def test_the_file_is_locked_before_it_is_looked_at(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer may be in the middle of a line: whether the file ends with one is known only under the lock."""
    path.parent.mkdir()
    path.write_text("half a line")
    locks: list[int] = []

    def finish_the_line(_file: object, operation: int) -> None:
        locks.append(operation)
        with path.open("a") as other:
            other.write(" and the rest\n")

    monkeypatch.setattr(fcntl, "flock", finish_the_line)
    HostKeys(path, HostKeyPolicy.ACCEPT_NEW).verify("web01", 22, _KEYS[0])
    assert locks == [fcntl.LOCK_EX]
    assert path.read_text() == "half a line and the rest\n" + _line("web01")


def test_two_writers_keep_whole_lines(path: Path) -> None:
    """Two collectors that record at the same time lose no line and tear none."""
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_append_lines, args=(path, writer)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join(60)
        assert process.exitcode == 0
    lines = path.read_text().splitlines(keepends=True)
    assert sorted(lines) == sorted(_named_line(writer, number) for writer in range(2) for number in range(200))


def _named_line(writer: int, number: int) -> str:
    return f"w{writer}n{number} ssh-ed25519 {'A' * 60}\n"


def _append_lines(path: Path, writer: int) -> None:
    known = HostKeys(path, HostKeyPolicy.ACCEPT_NEW)
    for number in range(200):
        known._append(_named_line(writer, number).rstrip("\n"))


def test_verifier_keeps_the_refusal(path: Path) -> None:
    """What asyncssh gets is yes or no; what failed is kept for the message."""
    verifier = Verifier(HostKeys(path, HostKeyPolicy.STRICT))
    assert not verifier.validate_host_public_key("web01", "10.0.0.1", 22, _KEYS[0])
    assert verifier.refusal is not None
    assert verifier.refusal.kind is Kind.HOST_KEY_UNKNOWN
    accepting = Verifier(HostKeys(path, HostKeyPolicy.ACCEPT_NEW))
    assert accepting.validate_host_public_key("web01", "10.0.0.1", 22, _KEYS[0])
    assert accepting.refusal is None


def test_fingerprint_is_what_ssh_keygen_shows() -> None:
    """People compare it with `ssh-keygen -l`: algorithm and SHA256."""
    assert fingerprint(_KEYS[0]) == f"ssh-ed25519 {_KEYS[0].get_fingerprint()}"
    assert fingerprint(_ECDSA).startswith("ecdsa-sha2-nistp256 SHA256:")
