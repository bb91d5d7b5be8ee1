"""The examples that have no module of their own; and that each example has a test, and a line in their README."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from .hostile import refused
from .servers import REPOSITORY, Cli, Sshd, environment, find_tool

EXAMPLES = REPOSITORY / "examples"
CRON = EXAMPLES / "cron"
COMPOSE = EXAMPLES / "compose"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.parametrize("path", sorted(EXAMPLES.iterdir()), ids=lambda path: path.name)
def test_each_example_has_a_test_and_a_line(path: Path) -> None:
    """An example is run by a test of `tests/integration`, and people find it in the table."""
    if path.name == "README.md":
        return
    tests = "".join(module.read_text() for module in (REPOSITORY / "tests" / "integration").glob("test_*.py"))
    assert re.search(rf'(EXAMPLES|"examples") / "{re.escape(path.name)}"', tests)
    assert f"]({path.name})" in (EXAMPLES / "README.md").read_text()


# --- cron ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def collect(fleet: Sshd, tmp_path: Path) -> Run:
    """Runs the crontab's command as cron does, with a configuration of the hosts given."""

    def run(hosts: str, folder: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
        config = tmp_path / "config.toml"
        config.write_text(f'[inventory]\nhosts = ["{hosts}"]\n[ssh]\nport = {fleet.port}\nkey = ["{fleet.key}"]\n')
        (line,) = (line for line in (CRON / "crontab").read_text().splitlines() if line.startswith("*/5 "))
        *_times, user, command = line.split(None, 6)
        assert user == "fleetmem"
        command = command.replace("/etc/fleetmem/config.toml", str(config))
        places = (folder or Path(sys.executable).parent, CRON, "/usr/bin", "/bin")
        variables = {"PATH": os.pathsep.join(map(str, places)), "SAMPLES_FOLDER": str(tmp_path / "samples"), **env}
        return subprocess.run(
            ["/bin/sh", "-c", command],
            env=environment(tmp_path) | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def kept(tmp_path: Path) -> list[Path]:
    """Returns the files with samples; nothing else is in their folder but the lock."""
    names = sorted((tmp_path / "samples").iterdir())
    assert names[0].name == ".lock"
    return names[1:]


@pytest.mark.slow
def test_cron_keeps_a_file(collect: Run, tmp_path: Path) -> None:
    """It prints nothing, so cron sends no mail; the file has a line for each host; old ones are deleted."""
    folder = tmp_path / "samples"
    folder.mkdir()
    for name, age_days in (("old.jsonl", 9), ("older.txt", 9), ("new.jsonl", 1)):
        (folder / name).touch()
        changed = (folder / name).stat().st_mtime - age_days * 86400
        os.utime(folder / name, (changed, changed))
    done = collect("127.0.1.[1-2]")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    new, *others = kept(tmp_path)
    assert [path.name for path in others] == ["new.jsonl", "older.txt"]
    assert [json.loads(line)["ok"] for line in new.read_text().splitlines()] == [True, True]


@pytest.mark.slow
def test_cron_when_hosts_fail(collect: Run, tmp_path: Path) -> None:
    """Some: their number, and 0, as the others' data is there. All: 3."""
    done = collect(f"127.0.1.1,{refused()}")
    assert (done.returncode, done.stdout) == (0, "")
    (path,) = kept(tmp_path)
    assert done.stderr == f"1 of 2 hosts failed: {path} has the errors\n"
    done = collect(refused())
    assert done.returncode == 3
    assert "no host answered" in done.stderr


@pytest.mark.slow
def test_cron_with_a_wrong_configuration(collect: Run, tmp_path: Path) -> None:
    """It is 2, with what fleetmem says of it, and no file is left."""
    done = collect("web[1-")
    assert done.returncode == 2
    assert "brackets do not match" in done.stderr
    assert "fleetmem config check" in done.stderr
    assert kept(tmp_path) == []


@pytest.mark.parametrize(("status", "message"), [(4, "an output failed"), (70, "a bug in fleetmem"), (9, "status 9")])
def test_cron_with_other_statuses(status: int, message: str, collect: Run, tmp_path: Path) -> None:
    """Each is passed on, with a message."""
    program = tmp_path / "bin" / "fleetmem"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\nexit {status}\n")
    program.chmod(0o755)
    done = collect("127.0.1.1", program.parent)
    assert done.returncode == status
    assert message in done.stderr


def test_cron_never_runs_twice_at_a_time(collect: Run, tmp_path: Path) -> None:
    """The second run says so and leaves the first one alone."""
    (tmp_path / "samples").mkdir()
    lock = tmp_path / "samples" / ".lock"
    with subprocess.Popen(["flock", lock, "-c", "echo; read line"], stdin=-1, stdout=-1) as holder:
        assert holder.stdout
        assert holder.stdin
        holder.stdout.readline()
        done = collect("127.0.1.1")
        holder.stdin.close()
    assert done.returncode == 75
    assert "has not ended" in done.stderr
    assert kept(tmp_path) == []


def test_cron_as_a_systemd_timer(tmp_path: Path) -> None:
    """Systemd reads service and timer without complaint, and the command is the crontab's."""
    for name in ("fleetmem-collect.service", "fleetmem-collect.timer"):
        text = (CRON / name).read_text()
        (tmp_path / name).write_text(text.replace("/usr/local/bin/fleetmem-collect", str(CRON / "fleetmem-collect")))
    command = [find_tool("systemd-analyze"), "verify", "--man=no", str(tmp_path / "fleetmem-collect.timer")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    (command_line,) = re.findall(
        r"^ExecStart=/usr/local/bin/(.*)", (CRON / "fleetmem-collect.service").read_text(), re.MULTILINE
    )
    assert (CRON / "crontab").read_text().endswith(f" {command_line}\n")


# --- Compose ---------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_compose(cli: Cli) -> None:
    """Compose reads it; Prometheus asks the page that fleetmem serves, on a network that both have and nobody else."""
    command = [find_tool("docker-compose"), "-f", str(COMPOSE / "compose.yml"), "config", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    read: dict[str, Any] = json.loads(done.stdout)
    services = read["services"]
    mounts = [mount["source"] for each in services.values() for mount in each["volumes"] if mount["type"] == "bind"]
    assert all(Path(source).exists() for source in mounts)
    assert (Path(services["fleetmem"]["build"]["context"]) / services["fleetmem"]["build"]["dockerfile"]).is_file()
    assert [port["host_ip"] for each in services.values() for port in each.get("ports", ())] == ["127.0.0.1"]

    (scrape,) = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())["scrape_configs"]
    name, _, port = scrape["static_configs"][0]["targets"][0].partition(":")
    shown = cli("config", "show", "-c", COMPOSE / "config" / "config.toml")
    assert shown.status == 0, shown.stderr
    assert f'listen = "0.0.0.0:{port}"' in shown.stdout
    (common,) = services[name]["networks"].keys() & services["prometheus"]["networks"].keys()
    assert read["networks"][common]["internal"]
