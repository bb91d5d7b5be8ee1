"""Host keys: known, new, changed, revoked, certified; and two collectors that record at the same time."""

import fcntl
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from . import servers
from .servers import Cli, Sshd, find_tool, make_key, wait_for

HOST = "127.0.1.1"


def fingerprint(public_key: Path) -> str:
    """Returns the fingerprint of a key as ssh-keygen shows it."""
    done = subprocess.run(
        [find_tool("ssh-keygen"), "-l", "-f", str(public_key)], capture_output=True, text=True, check=True
    )
    return done.stdout.split()[1]


@pytest.fixture
def known_hosts(cli: Cli) -> Path:
    """The file in the home of the command line; its folder is there, it is not."""
    (cli.home / ".ssh").mkdir(mode=0o700)
    return cli.home / ".ssh" / "known_hosts"


def collect(cli: Cli, sshd: Sshd, *options: object) -> dict[str, str]:
    """Samples one host; returns its error, empty where there is none."""
    result = cli("collect", "-i", HOST, "-p", sshd.port, "-k", sshd.key, "--format", "jsonl", *options)
    outcome = result.by_host()[HOST]
    assert result.status == (0 if outcome["ok"] else 3), result.stderr
    error: dict[str, str] = outcome.get("error", {})
    return error


def test_a_changed_key(sshd: Sshd, tmp_path: Path, known_hosts: Path, cli: Cli) -> None:
    """It is refused and shown with both fingerprints, file and line; the command that is shown mends it."""
    old = make_key(tmp_path / "old").with_suffix(".pub")
    words = old.read_text().split()[:2]
    known_hosts.write_text(f"# mine\n[{HOST}]:{sshd.port} {' '.join(words)}\nother {' '.join(words)}\n")
    error = collect(cli, sshd)
    assert error["kind"] == "host_key_changed"
    new = fingerprint(sshd.folder / "host_key.pub")
    entry = f"'[{HOST}]:{sshd.port}'"
    assert error["message"] == (
        f"host key is ssh-ed25519 {new}, but {known_hosts} line 2 has ssh-ed25519 {fingerprint(old)} "
        f"for [{HOST}]:{sshd.port}; if you know why, remove it: ssh-keygen -R {entry} -f {known_hosts}"
    )
    assert "Accepted" not in sshd.log()
    subprocess.run(["/bin/sh", "-c", error["message"].partition("remove it: ")[2]], check=True, capture_output=True)
    assert not collect(cli, sshd)
    assert known_hosts.read_text().splitlines()[-1] == f"[{HOST}]:{sshd.port} {sshd.host_public_key}"


def test_a_key_of_another_kind(sshd: Sshd, tmp_path: Path, known_hosts: Path, cli: Cli) -> None:
    """A host that is known by an ECDSA key and has none any more has changed; it is not a host without a name."""
    old = make_key(tmp_path / "old", "ecdsa").with_suffix(".pub")
    known_hosts.write_text(f"[{HOST}]:{sshd.port} {' '.join(old.read_text().split()[:2])}\n")
    error = collect(cli, sshd)
    assert error["kind"] == "host_key_changed"
    assert fingerprint(old) in error["message"]
    assert fingerprint(sshd.folder / "host_key.pub") in error["message"]


def test_insecure_is_loud(sshd: Sshd, tmp_path: Path, known_hosts: Path, cli: Cli) -> None:
    """A changed key is taken, with one warning; the file stays as it is."""
    before = (
        f"[{HOST}]:{sshd.port} {' '.join(make_key(tmp_path / 'old').with_suffix('.pub').read_text().split()[:2])}\n"
    )
    known_hosts.write_text(before)
    options = ("-p", sshd.port, "-k", sshd.key, "--host-keys", "insecure", "--format", "jsonl")
    result = cli("collect", "-i", "127.0.1.[1-5]", *options)
    assert result.status == 0, result.stderr
    assert result.stderr.count("host keys are not checked") == 1
    assert known_hosts.read_text() == before


@pytest.mark.parametrize("policy", ["accept-new", "strict"])
def test_a_revoked_key(policy: str, sshd: Sshd, known_hosts: Path, cli: Cli) -> None:
    """It is refused, known or not, and nothing is sent to the host."""
    text = f"[{HOST}]:{sshd.port} {sshd.host_public_key}\n@revoked * {sshd.host_public_key}\n"
    known_hosts.write_text(text)
    error = collect(cli, sshd, "--host-keys", policy)
    assert error["kind"] == "host_key_changed"
    shown = f"{known_hosts} line 2 revokes ssh-ed25519 {fingerprint(sshd.folder / 'host_key.pub')}"
    assert shown in error["message"]
    assert "publickey" not in sshd.log()


def test_hashed_names(sshd: Sshd, known_hosts: Path, cli: Cli) -> None:
    """A file that ssh has hashed is read; new hosts are added to it."""
    known_hosts.write_text(f"[{HOST}]:{sshd.port} {sshd.host_public_key}\n")
    subprocess.run([find_tool("ssh-keygen"), "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    assert HOST not in known_hosts.read_text()
    assert not collect(cli, sshd, "--host-keys", "strict")


def test_another_file(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """--known-hosts, and UserKnownHostsFile of the ssh configuration with a name of its own for the host."""
    mine = tmp_path / "mine"
    assert not collect(cli, sshd, "--known-hosts", mine)
    assert mine.read_text() == f"[{HOST}]:{sshd.port} {sshd.host_public_key}\n"
    config = tmp_path / "config"
    config.write_text(f"HostKeyAlias the-one\nUserKnownHostsFile {tmp_path}/theirs\nStrictHostKeyChecking yes\n")
    error = collect(cli, sshd, "-F", config)
    assert error["kind"] == "host_key_unknown"
    assert f"of the-one is not in {tmp_path}/theirs" in error["message"]
    (tmp_path / "theirs").write_text(f"the-one {sshd.host_public_key}\n")
    assert not collect(cli, sshd, "-F", config)
    assert not (cli.home / ".ssh" / "known_hosts").exists()


# --- certificates of hosts -------------------------------------------------------------------------------------------


@pytest.fixture
def authority(tmp_path: Path) -> Path:
    """A key that signs those of hosts."""
    return make_key(tmp_path / "host_ca")


@pytest.fixture
def certified(tmp_path: Path, authority: Path) -> Iterator[Sshd]:
    """An sshd whose key is signed for 127.0.1.1 and 127.0.1.3; for the latter only by name, on the inside."""
    folder = tmp_path / "certified"
    folder.mkdir()
    options = f"HostCertificate {folder}/host_key-cert.pub"
    certificate = make_key(tmp_path / "temporary")
    sign_host(authority, certificate, HOST)
    (folder / "host_key-cert.pub").write_text(certificate.with_name("temporary-cert.pub").read_text())
    with servers.sshd(folder, options=options) as sshd:
        sign_host(authority, folder / "host_key", HOST)
        sshd.stop()
        sshd.start()
        yield sshd


def sign_host(authority: Path, key: Path, *names: str, validity: str = "-1h:+1h") -> None:
    """Makes the certificate of a host's key."""
    words = ["-q", "-s", str(authority), "-I", "host", "-h", "-n", ",".join(names), "-V", validity]
    subprocess.run([find_tool("ssh-keygen"), *words, str(key.with_suffix(".pub"))], check=True)


def trust(known_hosts: Path, authority: Path, pattern: str = "*", marker: str = "@cert-authority") -> None:
    """Adds a line with a marker to a file."""
    with known_hosts.open("a") as file:
        file.write(f"{marker} {pattern} {' '.join(authority.with_suffix('.pub').read_text().split()[:2])}\n")


def test_a_certificate_of_a_known_authority(certified: Sshd, authority: Path, known_hosts: Path, cli: Cli) -> None:
    """It will do for `strict`, and nothing is recorded."""
    trust(known_hosts, authority)
    before = known_hosts.read_text()
    assert not collect(cli, certified, "--host-keys", "strict")
    assert known_hosts.read_text() == before


def test_a_certificate_for_another_host(certified: Sshd, authority: Path, known_hosts: Path, cli: Cli) -> None:
    """A name that it is not made for is no proof."""
    trust(known_hosts, authority)
    options = ("-p", certified.port, "-k", certified.key, "--format", "jsonl")
    error = cli("collect", "-i", "127.0.1.2", *options).by_host()["127.0.1.2"]["error"]
    assert error["kind"] == "host_key_unknown"
    assert re.search(r"[Cc]ertificate", error["message"])


def test_a_certificate_that_ran_out(certified: Sshd, authority: Path, known_hosts: Path, cli: Cli) -> None:
    """Likewise."""
    trust(known_hosts, authority)
    sign_host(authority, certified.folder / "host_key", HOST, validity="-2h:-1h")
    certified.stop()
    certified.start()
    error = collect(cli, certified)
    assert error["kind"] == "host_key_unknown"
    assert "expired" in error["message"]


def test_a_certificate_of_an_unknown_authority(certified: Sshd, known_hosts: Path, cli: Cli) -> None:
    """As with ssh, the key inside counts as any other: recorded by `accept-new`, refused by `strict`."""
    assert collect(cli, certified, "--host-keys", "strict")["kind"] == "host_key_unknown"
    assert not collect(cli, certified)
    assert known_hosts.read_text() == f"[{HOST}]:{certified.port} {certified.host_public_key}\n"


@pytest.mark.parametrize("what", ["authority", "key"])
def test_a_certificate_with_something_revoked(
    what: str, certified: Sshd, authority: Path, known_hosts: Path, cli: Cli
) -> None:
    """Neither a revoked authority can vouch for a key, nor any authority for a revoked key."""
    trust(known_hosts, authority)
    trust(known_hosts, authority if what == "authority" else certified.folder / "host_key", marker="@revoked")
    error = collect(cli, certified)
    assert error["kind"] == "host_key_changed"
    assert f"{known_hosts} line 2 revokes" in error["message"]


# --- two collectors --------------------------------------------------------------------------------------------------


def test_two_collectors_record_50_new_hosts(tmp_path: Path, cli: Cli) -> None:
    """At the same time, in one file: each host has exactly one line, and each line is whole."""
    path = tmp_path / "known_hosts"
    with servers.sshd(tmp_path / "sshd", options="MaxSessions 0") as sshd:  # to be let in is enough
        arguments = ("collect", "-i", "127.0.1.[1-50]", "-p", sshd.port, "-k", sshd.key, "--known-hosts", path)
        with cli.start(*arguments, *servers.PATIENT) as one, cli.start(*arguments, *servers.PATIENT) as other:
            assert (one.wait(150), other.wait(150)) == (3, 3)
        assert sshd.logins_total == 100
        wanted = [f"[127.0.1.{number}]:{sshd.port} {sshd.host_public_key}" for number in range(1, 51)]
    assert sorted(path.read_text().splitlines()) == sorted(wanted)


# --- several keys ----------------------------------------------------------------------------------------------------

KINDS = ("rsa", "ecdsa", "ed25519")


def _host_keys(folder: Path, kinds: tuple[str, ...]) -> str:
    """Makes keys, where they are not there, and returns the lines of sshd_config that give a host those."""
    paths = [folder / f"ssh_host_{kind}_key" for kind in kinds]
    for kind, path in zip(kinds, paths, strict=True):
        if not path.exists():
            make_key(path, kind)
    return "\n".join(f"HostKey {path}" for path in paths)


@pytest.mark.parametrize("kinds", [KINDS, ("rsa", "ecdsa"), ("rsa",), ("ecdsa",)])
def test_a_new_host_is_recorded_as_ssh_records_it(
    kinds: tuple[str, ...], tmp_path: Path, known_hosts: Path, cli: Cli
) -> None:
    """Of the keys that a host has, the one is recorded that ssh would take."""
    config = tmp_path / "sshd" / "sshd_config"
    with servers.sshd(tmp_path / "sshd") as server:
        server.stop()
        config.write_text(_host_keys(tmp_path, kinds) + "\n" + re.sub(r"HostKey .*", "", config.read_text()))
        server.start()
        theirs = tmp_path / "theirs"
        options = ["StrictHostKeyChecking=accept-new", f"UserKnownHostsFile={theirs}", "HashKnownHosts=no"]
        words = ["-F", "none", "-p", str(server.port), "-i", str(server.key), *(f"-o{each}" for each in options)]
        done = subprocess.run([find_tool("ssh"), *words, HOST, "true"], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr
        assert not collect(cli, server)
    assert known_hosts.read_text().splitlines() == theirs.read_text().splitlines()[:1]


def test_a_kind_of_key_that_is_retired(tmp_path: Path, known_hosts: Path, cli: Cli) -> None:
    """A host that had an RSA key beside others is the same host once that is gone; one known by RSA stays so."""
    config = tmp_path / "sshd" / "sshd_config"
    with servers.sshd(tmp_path / "sshd") as server:
        server.stop()
        rest = re.sub(r"HostKey .*", "", config.read_text())
        config.write_text(f"{_host_keys(tmp_path, ('rsa', 'ed25519'))}\n{rest}")
        server.start()
        assert not collect(cli, server)
        assert "ssh-ed25519" in known_hosts.read_text()
        server.stop()
        config.write_text(f"{_host_keys(tmp_path, ('ed25519',))}\n{rest}")
        server.start()
        assert not collect(cli, server)
        server.stop()
        config.write_text(f"{_host_keys(tmp_path, ('rsa', 'ed25519'))}\n{rest}")
        rsa = (tmp_path / "ssh_host_rsa_key.pub").read_text()
        known_hosts.write_text(f"[{HOST}]:{server.port} {rsa}")
        server.start()
        assert not collect(cli, server)
        assert known_hosts.read_text().count("\n") == 1


# --- files that hang or are huge -------------------------------------------------------------------------------------


# fleetmem tries again after 30 s; in `check`, unit/connect/openssh/test_known_hosts.py sees it record after less.
@pytest.mark.slow
@pytest.mark.parametrize("is_lock_ended", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_lock_that_another_program_keeps(sshd: Sshd, known_hosts: Path, cli: Cli, *, is_lock_ended: bool) -> None:
    """All hosts are sampled meanwhile, one warning says why; their keys are recorded once the lock is gone."""
    known_hosts.touch()
    options = ("-i", "127.0.1.[1-10]", "-p", sshd.port, "-k", sshd.key, "-o", "-", "--interval", 1)
    with known_hosts.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with cli.run(*options) as running:
            wait_for("all answer", lambda: len({each["host"] for each in running.outcomes() if each["ok"]}) == 10)
            wait_for("it is told", lambda: "another program has kept it locked" in running.stderr)
            assert all(each["ok"] for each in running.outcomes())
            assert known_hosts.read_text() == ""
            if not is_lock_ended:
                return
            fcntl.flock(file, fcntl.LOCK_UN)
            wait_for("keys are recorded", lambda: len(known_hosts.read_text().splitlines()) == 10)


def test_many_hashed_names(sshd: Sshd, tmp_path: Path, known_hosts: Path, cli: Cli) -> None:
    """Among 20,000 hashed lines known hosts are found at once; a new one is searched for, and a changed one told."""
    old = make_key(tmp_path / "old").with_suffix(".pub").read_text()
    names = [f"[127.0.1.{number}]:{sshd.port}" for number in range(1, 21)]
    lines = [f"{name} {sshd.host_public_key}\n" for name in names]
    lines += [f"old{number} {old}" for number in range(20_000)]
    lines += [f"[127.0.1.30]:{sshd.port} {old}"]
    known_hosts.write_text("".join(lines))
    subprocess.run([find_tool("ssh-keygen"), "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    options = ("-i", "127.0.1.[1-21],127.0.1.30", "-p", sshd.port, "-k", sshd.key, "--format", "jsonl")
    result = cli("collect", *options, *servers.PATIENT)
    outcomes = result.by_host()
    failed = {name: outcome["error"] for name, outcome in outcomes.items() if not outcome["ok"]}
    assert list(failed) == ["127.0.1.30"], failed
    assert outcomes["127.0.1.30"]["error"]["kind"] == "host_key_changed"
    assert known_hosts.read_text().splitlines()[-1].startswith("[127.0.1.21]:")


def test_a_known_key_of_another_kind_among_many_hashed_names(
    sshd: Sshd, tmp_path: Path, known_hosts: Path, cli: Cli
) -> None:
    """A host with two keys that is known by its ECDSA key is asked for that one, as by ssh, once it has been found."""
    ecdsa = make_key(tmp_path / "ecdsa_host", "ecdsa")
    config = sshd.folder / "sshd_config"
    config.write_text(f"HostKey {ecdsa}\n{config.read_text()}")
    sshd.stop()
    sshd.start()
    words = " ".join(ecdsa.with_suffix(".pub").read_text().split()[:2])
    old = make_key(tmp_path / "old").with_suffix(".pub").read_text()
    known_hosts.write_text(f"[{HOST}]:{sshd.port} {words}\n" + "".join(f"old{number} {old}" for number in range(2000)))
    subprocess.run([find_tool("ssh-keygen"), "-H", "-f", str(known_hosts)], check=True, capture_output=True)
    assert not collect(cli, sshd, "--host-keys", "strict")


def test_dev_null_as_ssh(sshd: Sshd, tmp_path: Path, cli: Cli) -> None:
    """StrictHostKeyChecking no with UserKnownHostsFile /dev/null: a host that is replaced while running is taken."""
    config = tmp_path / "config"
    config.write_text("StrictHostKeyChecking no\nUserKnownHostsFile /dev/null\n")
    options = ("-i", HOST, "-p", sshd.port, "-k", sshd.key, "-F", config, "-o", "-", "--interval", 0.5)
    with cli.run(*options) as running:
        wait_for("it answers", lambda: running.outcomes()[-1:] and running.outcomes()[-1]["ok"])
        sshd.stop()
        for path in (sshd.folder / "host_key", sshd.folder / "host_key.pub"):
            path.unlink()
        make_key(sshd.folder / "host_key")
        wait_for("it is away", lambda: not running.outcomes()[-1]["ok"])
        sshd.start()
        wait_for("it answers again", lambda: running.outcomes()[-1]["ok"])
        assert all(each["ok"] or each["error"]["kind"] != "host_key_changed" for each in running.outcomes())
