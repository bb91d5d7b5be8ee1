"""Key files that cannot be used: those of one inventory host are that host's failure, and heal without a reload."""

import json
import os
from pathlib import Path

import pytest

from .servers import Cli, Sshd, wait_for


@pytest.mark.parametrize("broken", ["missing", "/dev/zero", "nonsense", "a folder", "a pipe"])
def test_a_bad_key_of_one_host(fleet: Sshd, cli: Cli, tmp_path: Path, broken: str) -> None:
    """The others are sampled throughout; the host fails with the name of the file, and answers once it is a key."""
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
    entries = [{"name": "127.0.1.1", "key": str(path)}, {"name": "127.0.1.2"}, {"name": "127.0.1.3"}]
    (tmp_path / "hosts.json").write_text(json.dumps(entries))
    options = ("--inventory", f"json:{tmp_path}/hosts.json", "-p", fleet.port, "-k", fleet.key, "-F", "none")
    with cli.run(*options, "--host-keys", "insecure", "-o", "-", "--interval", 0.5) as running:
        wait_for("the others answer", lambda: all(running.outcomes_of(f"127.0.1.{n}")[5:] for n in (2, 3)))
        assert all(each["ok"] for n in (2, 3) for each in running.outcomes_of(f"127.0.1.{n}"))
        failures = running.outcomes_of("127.0.1.1")
        assert {each["error"]["kind"] for each in failures} == {"auth_failed"}
        assert f"no key to log in with: key {path}" in failures[0]["error"]["message"]
        if path.is_dir():
            path.rmdir()
        path.unlink(missing_ok=True)
        path.write_bytes(fleet.key.read_bytes())
        path.chmod(0o600)
        wait_for("it answers", lambda: running.outcomes_of("127.0.1.1")[-1]["ok"])


def test_a_key_of_a_host_that_hangs_later(sshd: Sshd, cli: Cli, tmp_path: Path) -> None:
    """The key that was read before stays in force when its file becomes a pipe that nobody writes to."""
    path = tmp_path / "key"
    path.write_bytes(sshd.key.read_bytes())
    path.chmod(0o600)
    options = ("-i", "127.0.1.[1-5]", "-p", sshd.port, "-k", path, "-F", "none", "--host-keys", "insecure")
    with cli.run(*options, "-o", "-", "--interval", 0.5) as running:
        wait_for("they answer", lambda: len({each["host"] for each in running.outcomes()}) == 5)
        path.unlink()
        os.mkfifo(path)
        sshd.stop()
        wait_for("they are away", lambda: not running.outcomes()[-1]["ok"])
        sshd.start()
        before = len(running.outcomes())
        wait_for(
            "they answer again",
            lambda: len({each["host"] for each in running.outcomes()[before:] if each["ok"]}) == 5,
        )
        wait_for("it is told", lambda: f"key {path} has changed and cannot be read" in running.stderr)
