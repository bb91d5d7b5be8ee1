import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from fleetmem.connect import keys as keys_module
from fleetmem.connect.backoff import OwnError
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.key_ring import Experience, KeyRing, Offer
from fleetmem.connect.ssh_settings import SshSettings
from fleetmem.connect.target import Target
from fleetmem.errors import Cause, UsageError
from unit.connect.targets import resolve


def _make(path: Path, passphrase: str = "") -> Path:
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", passphrase, "-C", path.name, "-f", str(path)]
    subprocess.run(command, check=True, capture_output=True)
    return path


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Eight keys."""
    return [_make(tmp_path / f"key{number}") for number in range(8)]


@pytest.fixture
def agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An ssh-agent without keys, as SSH_AUTH_SOCK."""
    path = tmp_path / "agent"
    with subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.PIPE) as process:
        assert process.stdout
        process.stdout.readline()  # it says where it listens
        monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
        yield path
        process.terminate()


def _add(*paths: Path) -> None:
    for path in paths:
        subprocess.run(["ssh-add", "-q", str(path)], check=True, stdin=subprocess.DEVNULL)


def _nobody(_path: Path) -> str | None:
    return None


def _offered(ring: KeyRing, target: Target) -> list[str]:
    """Returns the keys that a login offers, by name, up to the last."""
    ring.prepare(target.access.identities)

    async def offer_all() -> Offer:
        offer = await ring.offer(target)
        while offer.next():
            continue
        return offer

    return [candidate.name for candidate in asyncio.run(offer_all()).offered]


def _names(*paths: Path) -> list[str]:
    return list(map(str, paths))


def _config(tmp_path: Path, *lines: str) -> Target:
    path = tmp_path / "config"
    path.write_text("".join(f"{line}\n" for line in lines))
    return resolve("web01", config=path)


def test_told_keys_in_order(keys: list[Path]) -> None:
    """-k twice: these, and nothing else."""
    target = resolve("web01", SshSettings(key_paths=(keys[1], keys[0])))
    assert _offered(KeyRing(_nobody), target) == _names(keys[1], keys[0])


def test_the_order_of_ssh(agent: Path, keys: list[Path], tmp_path: Path) -> None:
    """Named keys that the agent has, its others, named keys that it has not."""
    _add(keys[0], keys[1])
    target = _config(tmp_path, f"IdentityFile {keys[2]}", f"IdentityFile {keys[1]}")
    assert _offered(KeyRing(_nobody), target) == ["key1 (agent)", "key0 (agent)", str(keys[2])]
    only = _config(tmp_path, f"IdentityFile {keys[2]}", f"IdentityFile {keys[1]}", "IdentitiesOnly yes")
    assert _offered(KeyRing(_nobody), only) == _names(keys[2], keys[1])


def test_six_at_most(agent: Path, keys: list[Path]) -> None:
    """Of eight keys six are offered; sshd would hang up."""
    _add(*keys)
    assert len(_offered(KeyRing(_nobody), resolve("web01"))) == 6


def test_certificates_come_first(agent: Path, keys: list[Path], tmp_path: Path) -> None:
    """From a file of their own, for a key of a file or of the agent."""
    _add(keys[0])
    authority = asyncssh.generate_private_key("ssh-ed25519")
    for key in keys[:2]:
        certificate = authority.generate_user_certificate(asyncssh.read_private_key(str(key)), "id")
        certificate.write_certificate(str(tmp_path / f"{key.name}.cert"))
    lines = [f"IdentityFile {key}" for key in keys[:3]] + [
        f"CertificateFile {tmp_path}/{key.name}.cert" for key in keys[:2]
    ]
    offered = _offered(KeyRing(_nobody), _config(tmp_path, *lines))
    assert offered[:2] == [f"{tmp_path}/key0.cert", f"{tmp_path}/key1.cert"]
    assert offered[2:] == ["key0 (agent)", str(keys[1]), str(keys[2])]


def test_what_was_taken_comes_first(keys: list[Path]) -> None:
    """The key that this host took; on other hosts, the one that most have taken so far."""
    ring = KeyRing(_nobody)
    ssh = SshSettings(key_paths=tuple(keys[:3]))
    hosts = [resolve(f"web{number}", ssh) for number in range(4)]
    ring.prepare(hosts[0].access.identities)

    async def log_in(target: Target, key: Path) -> list[str]:
        offer = await ring.offer(target)
        while offer.next() and offer.offered[-1].name != str(key):
            continue
        ring.note_accepted(target, offer)
        return [candidate.name for candidate in offer.offered]

    async def several() -> None:
        assert await log_in(hosts[0], keys[2]) == _names(*keys[:3])
        assert await log_in(hosts[1], keys[2]) == _names(keys[2])
        assert await log_in(hosts[2], keys[1]) == _names(keys[2], keys[0], keys[1])
        assert await log_in(hosts[2], keys[1]) == _names(keys[1]), "its own comes before what others take"
        waiting = await ring.offer(hosts[3])
        assert await log_in(hosts[0], keys[2]) == _names(keys[2])
        waiting.next()
        assert waiting.offered[-1].name == str(keys[2]), "also where the others came after it had begun"

    asyncio.run(several())


@pytest.mark.slow
def test_what_cannot_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A key that is told has to be there and be one; of those in the ssh configuration it is told, of the usual not."""
    encrypted = _make(tmp_path / "encrypted", "sesame")
    nonsense = tmp_path / "nonsense"
    nonsense.write_text("no key")
    for path in (tmp_path / "missing", nonsense, encrypted):
        with pytest.raises(UsageError, match=f"key {path}"):
            KeyRing(_nobody).prepare(resolve("web01", SshSettings(key_paths=(path,))).access.identities)
    lines = [f"IdentityFile {path}" for path in (tmp_path / "missing", nonsense, encrypted)]
    ring = KeyRing(_nobody)
    for _ in range(2):
        assert _offered(ring, _config(tmp_path, *lines)) == []
    assert [message.rpartition("; ")[2] for message in caplog.messages] == ["it is skipped", "it is skipped"]
    caplog.clear()
    (Path.home() / ".ssh").mkdir()
    _make(Path.home() / ".ssh" / "id_ed25519", "sesame")
    assert _offered(KeyRing(_nobody), resolve("web01")) == []
    assert not caplog.messages


@pytest.mark.slow
@pytest.mark.parametrize("broken", ["missing", "/dev/zero", "nonsense", "a folder", "a pipe", "encrypted"])
def test_a_key_of_an_inventory_that_cannot_be_used(
    tmp_path: Path, keys: list[Path], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    """Its host fails with the reason, nobody else does; once it can be used it is, without a reload."""
    monkeypatch.setattr(keys_module, "_LOOK_SECONDS", 0.2)
    path = tmp_path / "broken"
    match broken:
        case "/dev/zero":
            path.symlink_to(broken)
        case "nonsense":
            path.write_text("no key")
        case "a folder":
            path.mkdir()
        case "a pipe":
            os.mkfifo(path)
        case "encrypted":
            _make(path, "sesame")
    ring, told = KeyRing(_nobody), SshSettings(key_paths=(keys[0],), user="u")
    targets = [resolve("web01", told, key_paths=(str(path),)), resolve("web02", told)]
    for target in targets:
        ring.prepare(target.access.identities)

    async def names(target: Target) -> list[str]:
        offer = await ring.offer(target)
        while offer.next():
            continue
        return [candidate.name for candidate in offer.offered]

    async def run() -> None:
        offer = await ring.offer(targets[0])
        assert not offer.next()
        refused = offer.refused(HostWords())
        assert refused.message.startswith(f"u has no key to log in with: key {path}")
        assert isinstance(refused, OwnError)
        assert await names(targets[1]) == _names(keys[0])
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(keys[1].read_bytes())
        for _ in range(50):
            await asyncio.sleep(0.1)
            if await names(targets[0]):
                break
        assert await names(targets[0]) == _names(path)

    asyncio.run(run())


@pytest.mark.slow
def test_a_passphrase_is_asked_once(tmp_path: Path) -> None:
    """Not for each host, and not again for the ring of a reload."""
    asked: list[Path] = []

    def ask(path: Path) -> str:
        asked.append(path)
        return "sesame"

    key = _make(tmp_path / "key", "sesame")
    target = resolve("web01", SshSettings(key_paths=(key,)))
    ring = KeyRing(ask)
    assert _offered(ring, target) == _names(key)
    assert _offered(ring, resolve("web02", SshSettings(key_paths=(key,)))) == _names(key)
    assert _offered(KeyRing(_nobody, ring), target) == _names(key)
    assert asked == [key]


def test_the_agent_comes_and_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that is away has no keys, and is no error."""
    monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "nobody"))
    assert _offered(KeyRing(_nobody), resolve("web01")) == []


def test_refusals() -> None:
    """They say who was refused, with what, and what was left untried."""
    refused = Offer(resolve("web01", SshSettings(user="ubuntu")), [], Experience()).refused(HostWords())
    assert refused.message.startswith("ubuntu has no key to log in with")
    assert refused.cause is Cause.NO_KEY
    assert isinstance(refused, OwnError), "the host has refused nothing"


def test_who_signs_unasked(agent: Path, keys: list[Path]) -> None:
    """A key of a file; one of an agent, which may ask its owner, once hosts have taken it and hardly any refused it."""
    _add(keys[1])
    ring = KeyRing(_nobody)
    ssh = SshSettings(key_paths=(keys[0],))
    in_file, in_agent = resolve("web01", ssh), [resolve(f"web{number}") for number in range(20)]
    ring.prepare(in_file.access.identities)

    async def run() -> None:
        offer = await ring.offer(in_file)
        assert offer.next()
        assert (offer.signs_unasked, offer.is_likely) == (True, False)
        for target in in_agent[:11]:
            offer = await ring.offer(target)
            assert offer.next()
            assert offer.signs_unasked == offer.is_likely == (target is not in_agent[0])
            ring.note_accepted(target, offer)
        offer = await ring.offer(in_agent[11])
        assert offer.next()
        assert not offer.next()
        assert offer.taken is None
        offer = await ring.offer(in_agent[12])
        assert offer.next()
        assert offer.is_likely
        assert not offer.next()
        offer = await ring.offer(in_agent[13])
        assert offer.next()
        assert not offer.signs_unasked
        offer = await ring.offer(in_agent[0])
        assert offer.next()
        assert offer.signs_unasked

    asyncio.run(run())


def test_a_token_is_never_touched_in_vain(keys: list[Path]) -> None:
    """A FIDO key signs when the host has asked for it, also one that other hosts have taken."""
    ring, target = KeyRing(_nobody), resolve("web01", SshSettings(key_paths=(keys[0],)))
    ring.prepare(target.access.identities)

    async def run() -> None:
        offer = await ring.offer(target)
        assert offer.next()
        ring.note_accepted(target, offer)
        assert offer.signs_unasked
        offer.offered[-1].key.algorithm = b"sk-ssh-ed25519@openssh.com"
        assert offer.is_likely
        assert not offer.signs_unasked

    asyncio.run(run())


@pytest.mark.parametrize(("mode", "is_told"), [(0o644, True), (0o640, True), (0o600, False), (0o400, False)])
def test_a_key_that_others_can_read(mode: int, is_told: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It is taken, and told: ssh refuses it."""
    path = tmp_path / "key"
    asyncssh.generate_private_key("ssh-ed25519").write_private_key(str(path))
    path.chmod(mode)
    assert _offered(KeyRing(_nobody), resolve("web01", SshSettings(key_paths=(path,)))) == _names(path)
    assert ("can be read by others" in caplog.text) is is_told
