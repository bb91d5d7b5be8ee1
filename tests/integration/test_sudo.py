"""Hosts that hide processes (hidepid): the probe as root by the real sudo, which allows that and nothing else.

Each test has a mount namespace of its own, with its own /etc/sudoers, /etc/passwd, /proc and sudo's log: this machine
stays as it is.
"""

import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from . import servers
from .servers import (
    Cli,
    Sshd,
    StatsD,
    descendants,
    environment,
    find_tool,
    free_port,
    is_alive,
    make_key,
    missing,
    wait_for,
)

ACCOUNT = "nobody"
SEEN_AS = Path("/mnt")
HOST = "127.0.1.1"

_FIRST_KERNEL = (5, 8)  # before it, hidepid was the same for every mount of /proc: this machine's would change
_MOUNTS = """set -e
mount -t proc -o hidepid=2 proc /proc
mount --bind "$0" /mnt
mount --bind "$0/sudoers" /etc/sudoers
mount --bind "$0/sudoers.d" /etc/sudoers.d
mount --bind "$0/passwd" /etc/passwd
"""


@pytest.fixture
def hide() -> Iterator[Callable[..., AbstractContextManager[Sshd]]]:
    """Starts an sshd on a host that hides processes; an account without any rights logs in there."""
    release = re.match(r"(\d+)\.(\d+)", os.uname().release)
    assert release
    if os.getuid() != 0 or tuple(map(int, release.groups())) < _FIRST_KERNEL:
        pytest.skip("needs root, to mount, and a kernel whose mounts of /proc each have their own hidepid (5.8)")
    shutil.which("sudo") or missing("sudo")
    if subprocess.run(["unshare", "-m", "mount", "-t", "proc", "proc", "/proc"], check=False).returncode:
        pytest.skip("mounts are not allowed here")
    with tempfile.TemporaryDirectory(prefix="fleetmem-sudo-") as name:  # not in pytest's: nobody may look into those
        yield lambda **options: hiding_sshd(Path(name), **options)


@contextmanager
def hiding_sshd(
    folder: Path, *, sudoers: str = "", public_keys: list[str] | None = None, options: str = "", mounts: str = ""
) -> Iterator[Sshd]:
    """Starts the sshd.

    Args:
        folder: for its files.
        sudoers: what /etc/sudoers says there.
        public_keys: lines for authorized_keys; None for those of a new key.
        options: lines for sshd_config.
        mounts: more commands for its namespace.
    """
    folder.chmod(0o755)
    (folder / "sudoers").write_text(sudoers)
    (folder / "sudoers").chmod(0o440)
    (folder / "sudoers.d").mkdir()
    lines = Path("/etc/passwd").read_text().splitlines(keepends=True)
    shelled = [re.sub(r":[^:]*$", ":/bin/sh\n", line) if line.startswith(f"{ACCOUNT}:") else line for line in lines]
    (folder / "passwd").write_text("".join(shelled))
    wrapper = ["unshare", "-m", "sh", "-c", f'{_MOUNTS}{mounts}\nexec "$@"', str(folder)]
    with servers.sshd(
        folder, public_keys=public_keys, options=options, user=ACCOUNT, seen_as=SEEN_AS, wrapper=wrapper
    ) as sshd:
        yield sshd


def allowed(cli: Cli, account: str = ACCOUNT) -> str:
    """Returns what `fleetmem probe --sudoers` prints, checked by visudo."""
    result = cli("probe", "--sudoers", account)
    assert result.status == 0, result.stderr
    checked = subprocess.run([find_tool("visudo"), "-cf", "-"], input=result.stdout.encode(), check=False, timeout=30)
    assert checked.returncode == 0
    return result.stdout


def options(sshd: Sshd, key: Path | None = None) -> tuple[object, ...]:
    """Returns the flags that reach it."""
    return ("-i", HOST, "-u", ACCOUNT, "-p", sshd.port, "-k", key or sshd.key)


def uids(sshd: Sshd, cli: Cli, *more: object) -> set[int]:
    """Returns whose processes a sample has."""
    result = cli("collect", *options(sshd), "--format", "jsonl", *more)
    assert result.status == 0, result.stderr
    return {process["uid"] for process in result.by_host()[HOST]["processes"]}


def test_as_root_the_probe_sees_everything(hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli) -> None:
    """Without --sudo a host that hides processes shows the account's own; with it all."""
    own = pwd.getpwnam(ACCOUNT).pw_uid
    with hide(sudoers=f"Defaults requiretty, !env_reset\n{allowed(cli)}") as sshd:
        assert uids(sshd, cli) == {own}
        assert {0, own} <= uids(sshd, cli, "--sudo")
        assert {0, own} <= uids(sshd, cli, "--sudo", "--probe", "ps")


def test_run_by_sudo_and_leave_nothing_behind(hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli) -> None:
    """With `probe.sudo = true`, cycle after cycle: one login, one short line in sudo's log; after SIGKILL nothing."""
    (cli.home / "fleetmem.toml").write_text("[probe]\nsudo = true\n")
    with hide(sudoers=f"Defaults use_pty, logfile=/mnt/sudo.log\n{allowed(cli)}") as sshd:
        with cli.run("-c", "fleetmem.toml", *options(sshd), "-o", "-", "--interval", 0.3) as running:
            wait_for("three samples", lambda: len(running.outcomes()) >= 3)
            started = descendants(sshd.pid)
            running.signal(signal.SIGKILL)
            wait_for("nothing is left", lambda: not any(map(is_alive, started | descendants(sshd.pid))), 3)
        assert all(outcome["ok"] for outcome in running.outcomes())
        assert sshd.logins_total == 1
        log = (sshd.folder / "sudo.log").read_text()
        assert log.count("COMMAND=") == 1
        assert len(log) < 2000


def test_a_rule_of_an_earlier_version_goes_on_working(
    hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli
) -> None:
    """Sudo refuses the new probe and allows the old one: every cycle has a sample, and one line says what to renew."""
    rule = cli("probe", "--sudoers", ACCOUNT, "--protocol", 1).stdout
    with hide(sudoers=rule) as sshd:
        with cli.run(*options(sshd), "--sudo", "--protocol", 2, "-o", "-", "--interval", 0.5) as running:
            wait_for("three samples", lambda: len(running.outcomes()) >= 3)
        assert sshd.logins_total == 2
    assert all(outcome["ok"] for outcome in running.outcomes())
    (told,) = [line for line in running.stderr.splitlines() if "protocol 1" in line]
    assert "fleetmem probe --sudoers" in told


@pytest.mark.parametrize("allow", ["nothing", "with a password", "another version"])
def test_sudo_refuses(hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli, allow: str) -> None:
    """The kind is sudo_refused, with sudo's own words and what to do; there is no second attempt in sight."""
    lines = allowed(cli)
    digest = lines.split()[4]
    sudoers = {
        "nothing": "",
        "with a password": lines.replace("NOPASSWD: ", ""),
        "another version": lines.replace(digest, "0" * 64),
    }[allow]
    with hide(sudoers=sudoers) as sshd:
        result = cli("collect", *options(sshd), "--sudo")
    assert result.status == 3
    assert "sudo_refused: the probe ended with status 1: " in result.stderr
    assert re.search(r"a password is required|not allowed|not in the sudoers file", result.stderr), result.stderr
    assert "try: `fleetmem probe --sudoers USER`" in result.stderr


@pytest.mark.parametrize("there", [False, True])
def test_sudo_is_missing(
    hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli, tmp_path: Path, there: bool
) -> None:
    """A host without sudo, or where the account may not run it, has no command: this is no refusal."""
    words = "mount --bind /mnt/sudoers $(command -v sudo)" if there else ""
    path = "" if there else "SetEnv PATH=/mnt/bin"
    with hide(sudoers=allowed(cli), mounts=words, options=path) as sshd:
        (sshd.folder / "bin").mkdir()
        (sshd.folder / "bin" / "env").symlink_to(find_tool("env"))
        result = cli("collect", *options(sshd), "--sudo")
    del tmp_path
    assert result.status == 3
    assert f"command_missing: the probe ended with status {126 if there else 127}: " in result.stderr
    assert "sudo" in result.stderr


def ssh(
    sshd: Sshd, cli: Cli, *words: str, key: Path | None = None, text: str = ""
) -> "subprocess.CompletedProcess[str]":
    """Runs ssh, with nothing of this machine's configuration."""
    settings = (
        "IdentitiesOnly=yes",
        "BatchMode=yes",
        "StrictHostKeyChecking=no",
        f"UserKnownHostsFile={cli.home}/known",
    )
    command = [find_tool("ssh"), "-F", "none", "-i", str(key or sshd.key), "-p", str(sshd.port), "-l", ACCOUNT]
    command += [word for setting in settings for word in ("-o", setting)]
    return subprocess.run(
        [*command, HOST, *words],
        input=text,
        env=environment(cli.home),
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )


def test_sudo_allows_nothing_else(hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli) -> None:
    """Whatever is made of the words that are allowed, and whatever is sent to them, nothing of ours runs as root."""
    command = cli("probe", "--command", "--sudo").stdout.strip()
    head, _quote, word = command.removeprefix("exec ").removesuffix("'").partition(" '")
    assert head == "env LC_ALL=C sudo -n /bin/sh -c"
    root = "/mnt/of-root"
    attempts = [
        "sudo -n id",
        "sudo -n /bin/sh",
        "sudo -n /bin/sh -c id",
        f"sudo -n /bin/sh -c '{word}' id",
        f"sudo -n /bin/sh -c 'id;{word}'",
        f"sudo -n /bin/sh '-c {word}'",  # the same words to sudo: it compares them joined by spaces
        f"sudo -n /bin/sh -c '' '{word}'",
        f"sudo -n -s '{word}'",
        f"sudo -n PATH=/mnt/bin /bin/sh -c '{word}'",
        f"sudo -n -u {ACCOUNT} /bin/sh -c '{word}'",
        f"PATH=/mnt/bin:$PATH sudo -n /bin/sh -c '{word}'",
        f"IFS=x ENV=/mnt/evil BASH_ENV=/mnt/evil sudo -n /bin/sh -c '{word}'",
    ]
    with hide(sudoers=f"Defaults !env_reset, !secure_path\n{allowed(cli)}") as sshd:
        evil = f"#!/bin/sh\ntouch {root}\n"
        (sshd.folder / "bin").mkdir()
        for name in ("sha256sum", "printf", "awk", "test", "sh"):
            (sshd.folder / "bin" / name).write_text(evil)
            (sshd.folder / "bin" / name).chmod(0o755)
        (sshd.folder / "evil").write_text(evil)
        (sshd.folder / "of-root").unlink(missing_ok=True)
        script = f"touch {root}\nsample 1 status user; touch {root}\n"
        for attempt in attempts:
            done = ssh(sshd, cli, attempt, text=script)
            assert "uid=0" not in done.stdout, attempt
            assert done.returncode != 0, (attempt, done)
            assert not (sshd.folder / "of-root").exists(), attempt
        good = ssh(sshd, cli, command, text="nonsense\n")
        assert "sudoers-allows-another-version-of-the-probe" in good.stderr


@pytest.mark.parametrize("shell", ["dash", "bash", "busybox ash", "zsh --emulate sh"])
def test_words_that_sudo_takes_for_the_same_run_nothing(shell: str, cli: Cli, tmp_path: Path) -> None:
    """The one other way to split the words that sudo allows, as one, is an error in any sh."""
    program, *more = shell.split()
    word = cli("probe", "--command", "--sudo").stdout.strip().partition(" '")[2].removesuffix("'")
    assert not set(word) & set(" \t\n'!\\*?[]"), "a space would let words be split in other ways"
    done = subprocess.run(
        [find_tool(program), *more, f"-c {word}"],
        input=f"touch {tmp_path}/run\n",
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode != 0
    assert not (tmp_path / "run").exists()


def test_a_forced_command_by_sudo(hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli, tmp_path: Path) -> None:
    """`probe --authorized-keys KEY.pub --sudo`: the key runs the probe as root, and nothing else."""
    key = make_key(tmp_path / "limited")
    line = cli("probe", "--authorized-keys", f"{key}.pub", "--sudo", "--from", "127.0.0.0/8").stdout
    with hide(sudoers=allowed(cli), public_keys=[line]) as sshd:
        result = cli("collect", *options(sshd, key), "--sudo", "--format", "jsonl")
        assert result.status == 0, result.stderr
        assert 0 in {process["uid"] for process in result.by_host()[HOST]["processes"]}
        assert not ssh(sshd, cli, "id", key=key).stdout
        without = cli("collect", *options(sshd, key), "--format", "jsonl").by_host()[HOST]
        assert without["error"]["kind"] == "command_failed", "its requests are no probe"


def test_the_doctor_sees_what_is_hidden(hide: Callable[..., AbstractContextManager[Sshd]], cli: Cli) -> None:
    """Without --sudo it says that processes are hidden, by sudo none is; a sudo that refuses is told, with its mend."""
    with hide(sudoers=allowed(cli)) as sshd:
        hidden = cli("doctor", *options(sshd))
        assert hidden.status == 1
        assert f"problem  {HOST}: hidepid hides the processes of all but {ACCOUNT}" in hidden.stdout
        assert f"fleetmem probe --sudoers {ACCOUNT}" in hidden.stdout
        seen = cli("doctor", *options(sshd), "--sudo")
        assert seen.status == 0, seen.stdout
        assert f"logs in as {ACCOUNT}, uid 0" in seen.stdout
        (sshd.folder / "sudoers").write_text("")
        refused = cli("doctor", *options(sshd), "--sudo")
        assert refused.status == 3
        assert f"fix  fleetmem probe --sudoers {ACCOUNT}   # put that into /etc/sudoers.d" in refused.stdout


def test_fleetmem_itself_needs_no_root(fleet: Sshd, statsd: StatsD) -> None:
    """An account without any rights samples, records host keys, keeps its spool and serves Prometheus' page."""
    if os.getuid() != 0:
        pytest.skip("whoever runs this is not root: every other test shows it")
    account = pwd.getpwnam(ACCOUNT)
    unprivileged = ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]
    unprivileged += ["--bounding-set=-all", "--inh-caps=-all", "--no-new-privs"]
    if subprocess.run([*unprivileged, sys.executable, "-c", "import fleetmem.cli"], check=False).returncode:
        pytest.skip(f"{ACCOUNT} cannot run this Python, or read fleetmem")
    with tempfile.TemporaryDirectory(prefix="fleetmem-home-") as name:
        home = Path(name)
        shutil.copy(fleet.key, home / "key")
        for path in (home, home / "key"):
            os.chown(path, account.pw_uid, account.pw_gid)
        words = [sys.executable, "-m", "fleetmem", "run", "-i", HOST, "-u", servers.USER]
        words += ["-p", str(fleet.port), "-k", "key"]
        words += ["-g", statsd.address, "--graphite", f"127.0.0.1:{free_port()}", "--prometheus", str(free_port())]
        words += ["-o", "out", "--interval", "0.5"]
        with subprocess.Popen(
            [*unprivileged, *words], cwd=home, env=environment(home), stderr=subprocess.PIPE
        ) as process:
            output = home / "out"
            wait_for("two samples", lambda: output.exists() and output.read_text().count('"ok":true') >= 2)
            process.terminate()
            _, errors = process.communicate(timeout=10)
        assert process.returncode == 0, errors
        assert (home / ".ssh" / "known_hosts").stat().st_uid == account.pw_uid
        assert list((home / ".local/state/fleetmem").iterdir())
