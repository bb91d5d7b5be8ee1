import asyncio
import base64
import errno
import fcntl
import hmac
import os
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect.backoff import OwnError
from fleetmem.connect.host_keys import AskAgainError, HostKeys, key_text
from fleetmem.connect.openssh import hashed_names, known_hosts
from fleetmem.connect.openssh.known_hosts import KnownHostsFile
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.connect.target import Target
from fleetmem.errors import HostError, Kind
from unit.connect.targets import known_in

_ACCEPT_NEW, _STRICT, _INSECURE = HostKeyPolicy
_KEY, _OTHER = (asyncssh.generate_private_key("ssh-ed25519").convert_to_public() for _ in range(2))
_RSA = asyncssh.generate_private_key("ecdsa-sha2-nistp256").convert_to_public()


def _hashed(name: str, key: asyncssh.SSHKey | None = None, marker: str = "") -> str:
    salt = os.urandom(20)
    digest = hmac.digest(salt, name.encode(), "sha1")
    text = key_text(key) if key else f"ssh-ed25519 {base64.b64encode(os.urandom(51)).decode()}"
    return f"{marker}|1|{base64.b64encode(salt).decode()}|{base64.b64encode(digest).decode()} {text}\n"


def _many(*lines: str) -> str:
    """Returns a file of more hashed lines than are searched at once, with these in the middle."""
    return "".join([*(_hashed(f"old{number}") for number in range(1000)), *lines, _hashed("last")])


def _refusal(known: HostKeys, target: Target, key: asyncssh.SSHKey) -> HostError | None:
    async def decide() -> HostError | None:
        try:
            if not known.is_known(target, key):
                await known.decide(target, key)
        except HostError as error:
            return error
        return None

    return asyncio.run(decide())


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "known_hosts"


@pytest.fixture
def searches(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The names that were searched among all hashed lines, by search."""
    searched: list[list[str]] = []
    search = hashed_names.search

    async def note(names: list[str], hashed: list[str]) -> dict[str, list[int]]:
        searched.append(list(names))
        return await search(names, hashed)

    monkeypatch.setattr(known_hosts, "search", note)
    return searched


def test_a_key_is_found_by_itself(path: Path, searches: list[list[str]]) -> None:
    """Of many hashed lines only those with the key that the host shows are hashed; nothing is searched."""
    path.write_text(_many(_hashed("web01", _KEY), _hashed("web02", _KEY)))
    known = HostKeys()
    for name in ("web01", "web02"):
        assert known.is_known(known_in(path, _STRICT, name), _KEY)
    assert not known.is_known(known_in(path, _STRICT, "web03"), _KEY)
    assert not searches


def test_one_that_is_not_found_is_searched_for_once(path: Path, searches: list[list[str]]) -> None:
    """Changed is told from unknown by a search of all lines; its result holds until there are many more lines."""
    path.write_text(_many(_hashed("web01", _KEY)))
    known, changed, unknown = HostKeys(), known_in(path, _STRICT), known_in(path, _STRICT, "web02")
    for _ in range(3):
        error = _refusal(known, changed, _OTHER)
        assert error
        assert error.kind is Kind.HOST_KEY_CHANGED
        assert f"{path} line 1001 has" in error.message
        error = _refusal(known, unknown, _OTHER)
        assert error
        assert error.kind is Kind.HOST_KEY_UNKNOWN
    assert [name for names in searches for name in names] == ["web01", "web02"]
    with path.open("a") as file:
        file.write(_hashed("web02", _OTHER))
    assert not _refusal(known, unknown, _OTHER)
    assert len(searches) == 2


def test_many_are_searched_for_together(path: Path, searches: list[list[str]]) -> None:
    """Hosts that wait for a search share the next one."""
    path.write_text(_many(_hashed("web7", _KEY)))
    file = KnownHostsFile(path)

    async def run() -> None:
        await asyncio.gather(*(file.search(f"web{number}") for number in range(10)))

    asyncio.run(run())
    assert [len(file.find(f"web{number}")) for number in range(10)] == [0] * 7 + [1] + [0] * 2
    assert len(searches) <= 3


def test_markers_among_many_hashed_lines_always_count(path: Path, searches: list[list[str]]) -> None:
    """A revoked key is refused, and an authority known, without a search."""
    path.write_text(_many(_hashed("web01", _KEY, "@revoked "), _hashed("web01", _OTHER, "@cert-authority ")))
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)
    with pytest.raises(HostError, match="revokes"):
        known.is_known(target, _KEY)
    assert known.known(target).authorities == [_OTHER]
    assert not searches


def test_a_host_that_is_known_by_a_key_of_another_kind(path: Path) -> None:
    """The search finds it out; the host is to be asked again, for that kind, and is not said to have changed."""
    path.write_text(_many(_hashed("web01", _RSA)))
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)
    assert isinstance(_refusal(known, target, _KEY), AskAgainError)
    assert known.known(target).keys == [_RSA]
    assert known.is_known(target, _RSA)
    error = _refusal(known, target, _KEY)
    assert error
    assert error.kind is Kind.HOST_KEY_CHANGED
    assert not isinstance(error, AskAgainError)


def test_a_reload_keeps_what_was_searched(path: Path, searches: list[list[str]]) -> None:
    """The same file need not be searched again after it; one that was edited has to be."""
    path.write_text(_many())
    known, target = HostKeys(), known_in(path, _STRICT)
    assert _refusal(known, target, _KEY)
    again = HostKeys(known)
    again.prepare(target.access.trust)
    assert _refusal(again, target, _KEY)
    assert len(searches) == 1
    path.write_text(_many())
    edited = HostKeys(again)
    edited.prepare(target.access.trust)
    assert _refusal(edited, target, _KEY)
    assert len(searches) == 2


@pytest.mark.slow
def test_a_search_that_takes_too_long(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given up, and no host is said to be changed or unknown for it."""
    path.write_text(_many())
    monkeypatch.setattr(hashed_names, "_LIMIT_SECONDS", 0.3)
    monkeypatch.setattr(hashed_names, "_PROGRAM", "import time; time.sleep(60)")
    begun = time.monotonic()
    error = _refusal(HostKeys(), known_in(path, _ACCEPT_NEW), _KEY)
    assert isinstance(error, OwnError)
    assert "cannot be looked up: 1001 hashed names were not searched within 0 s" in error.message
    assert time.monotonic() - begun < 10


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.mark.slow
@pytest.mark.timing
def test_a_lock_that_somebody_keeps(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The host is taken after a moment, its key holds in memory, and is written once the lock is gone."""
    monkeypatch.setattr(known_hosts, "_PATIENCE_SECONDS", 0.2)
    monkeypatch.setattr(known_hosts, "_LOCK_SECONDS", 0.4)
    monkeypatch.setattr(known_hosts, "_AGAIN_SECONDS", 0.3)
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)

    async def refusal(key: asyncssh.SSHKey) -> str:
        with pytest.raises(HostError) as caught:
            await known.decide(target, key)
        return caught.value.message

    async def run() -> None:
        with _locked(path):
            begun = time.monotonic()
            await known.decide(target, _KEY)
            assert time.monotonic() - begun < 2
            assert known.is_known(target, _KEY)
            assert "what was seen before has" in await refusal(_OTHER)
            await asyncio.sleep(0.6)
        for _ in range(100):
            await asyncio.sleep(0.05)
            if "what was seen before" not in await refusal(_OTHER):
                break
        assert f"{path} line 1 has" in await refusal(_OTHER)

    asyncio.run(run())
    assert path.read_text() == f"web01 {key_text(_KEY)}\n"
    (message,) = [message for message in caplog.messages if "not recorded" in message]
    assert "another program has kept it locked for 0 s" in message


def test_a_key_that_another_collector_writes_while_ours_waits(path: Path) -> None:
    """Where a login looks meanwhile, the line is known, and is not written once more."""
    file = KnownHostsFile(path)

    async def run() -> None:
        with _locked(path):
            recording = [asyncio.create_task(file.record("one", key_text(_KEY)))]
            await asyncio.sleep(0)  # it waits for the lock
            recording.append(asyncio.create_task(file.record("two", key_text(_KEY))))
            await asyncio.sleep(0)
            with path.open("a") as theirs:
                theirs.write(f"two {key_text(_KEY)}\n")
            await file.refresh()
        for each in recording:
            await each
        await file.record("three", key_text(_KEY))  # is written last

    asyncio.run(run())
    assert [line.split()[0] for line in path.read_text().splitlines()] == ["two", "one", "three"]


def test_a_full_disk_leaves_no_half_line(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What fits of a line is taken back; the key holds in memory."""
    path.write_text(f"other {key_text(_OTHER)}\n")
    real_write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: real_write(descriptor, data[:10]))
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)
    assert not _refusal(known, target, _KEY)
    assert path.read_text() == f"other {key_text(_OTHER)}\n"
    assert known.is_known(target, _KEY)


def test_a_file_on_a_full_device(caplog: pytest.LogCaptureFixture) -> None:
    """/dev/full takes nothing: the key holds, one warning says so."""
    known, target = HostKeys(), known_in(Path("/dev/full"), _ACCEPT_NEW)
    assert not _refusal(known, target, _KEY)
    assert known.is_known(target, _KEY)


@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "folder", "huge"])
def test_what_is_no_file(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A pipe, an endless or a huge file holds nobody up and takes no memory; keys hold for the run."""
    monkeypatch.setattr(known_hosts, "read_bytes", lambda _path: (_ for _ in ()).throw(OSError("it is endless")))
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "huge":
            path.touch()
            os.truncate(path, 1 << 40)
        case _:
            path.symlink_to(kind)
    known, target = HostKeys(), known_in(path, _ACCEPT_NEW)
    known.prepare(target.access.trust)
    assert not _refusal(known, target, _KEY)
    assert known.is_known(target, _KEY)
    assert _refusal(known, target, _OTHER)


def test_an_editor_replaces_the_file(path: Path) -> None:
    """Lines that are gone are no longer known, and the next key is appended to the new file."""
    path.write_text(f"web01 {key_text(_KEY)}\nweb02 {key_text(_KEY)}\n")
    known = HostKeys()
    assert _refusal(known, known_in(path, _ACCEPT_NEW), _OTHER)
    new = path.with_name("new")
    new.write_text(f"web02 {key_text(_KEY)}\n")
    new.rename(path)
    assert not _refusal(known, known_in(path, _ACCEPT_NEW), _OTHER)
    assert path.read_text() == f"web02 {key_text(_KEY)}\nweb01 {key_text(_OTHER)}\n"


def test_dev_null_remembers_nothing() -> None:
    """UserKnownHostsFile /dev/null: a host that is replaced while running is taken, as ssh does."""
    known, target = HostKeys(), known_in(Path(os.devnull), _ACCEPT_NEW)
    assert not _refusal(known, target, _KEY)
    assert not _refusal(known, target, _OTHER)
    error = _refusal(known, known_in(Path(os.devnull), _STRICT), _KEY)
    assert error
    assert error.kind is Kind.HOST_KEY_UNKNOWN


def test_a_disk_that_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A host whose key is known is taken without a look; of another one nothing is said but that."""
    path.write_text(f"web01 {key_text(_KEY)}\n")
    known, target = HostKeys(), known_in(path, _STRICT)
    assert known.is_known(target, _KEY)

    async def hang(*_args: object, **_kwargs: object) -> None:
        raise TimeoutError(errno.ETIMEDOUT, "known hosts: not done after 5 s")

    monkeypatch.setattr(known_hosts, "call_aside", hang)
    assert known.is_known(target, _KEY)
    error = _refusal(known, target, _OTHER)
    assert isinstance(error, OwnError)
    assert "cannot be looked up" in error.message


def test_hashes_that_ssh_does_not_know(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hash of another length or version is skipped and told; ssh-keygen's are read."""
    path.write_text(f"|1|YWJj|YWJj {key_text(_KEY)}\n|2|YWJj|YWJj {key_text(_KEY)}\nweb01 {key_text(_KEY)}\n")
    subprocess.run(["ssh-keygen", "-H", "-f", path], check=False, capture_output=True)
    assert HostKeys().is_known(known_in(path, _STRICT), _KEY)
    assert sum("is skipped" in message for message in caplog.messages) >= 1
