"""`fleetmem plan`: what would be sent and what it would cost, without sending anything."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from carbon_end import Setting, is_as_computed, measure
from fleetmem.capacity.carbon import Arrival, CarbonLimits, series_that_fit
from fleetmem.sinks.whisper import parse_retention

from .receivers import UdpReceiver
from .servers import TOOLS, Cli, Sshd, free_port, missing, started


def test_it_counts_and_sends_nothing(fleet: Sshd, cli: Cli, tmp_path: Path) -> None:
    """The figures are those of the lines that it writes; no datagram leaves, no spool and no page are made."""
    lines = tmp_path / "lines"
    with started(UdpReceiver()) as receiver:
        options = ("-i", "127.0.1.[1-3]", "-p", fleet.port, "-k", fleet.key, "-g", receiver.address)
        sinks = ("--graphite", "127.0.0.1:1", "--prometheus", free_port())
        result = cli("plan", *options, *sinks, "--interval", 0.5, "--retention", "1s:1h", "-o", lines)
        assert result.status == 0, result.stderr
        assert receiver.datagrams == []
    assert not list(cli.home.rglob("*.spool"))
    sent = lines.read_text().splitlines()
    assert all(re.fullmatch(r"fleetmem\.\w+(\.\w+)+:\d+(\.\d+)?\|g", line) for line in sent)
    assert re.search(rf"series +{len(sent):,}$", result.stdout, re.MULTILINE)
    assert "3 of 3 hosts have answered" in result.stdout
    # 3600 points of 12 bytes, one archive of 12, a header of 16.
    assert "43,228 bytes" in result.stdout
    assert "there are gaps" not in result.stdout
    assert "--interval is 0.5 s, the finest step of the retention 1 s" in result.stdout


def test_failed_hosts_are_told(fleet: Sshd, cli: Cli) -> None:
    """A host that does not answer is in no figure, and named with what to try."""
    options = ("-i", f"127.0.1.1,127.0.1.2:{free_port()}", "-p", fleet.port, "-k", fleet.key)
    result = cli("plan", *options, "--interval", 0.2)
    assert result.status == 1
    assert "1 of 2 hosts have answered" in result.stdout
    assert "unreachable" in result.stderr
    result = cli("plan", "-i", f"127.0.1.2:{free_port()}", "-k", fleet.key, "--interval", 0.2)
    assert result.status == 3


@pytest.mark.parametrize("retention", ["", "10s", "10s:6h,15s:7d"])
def test_a_wrong_retention(cli: Cli, retention: str) -> None:
    """It is named before any host is asked."""
    for command in (("plan",), ("run", "--dry-run")):
        result = cli(*command, "-i", "127.0.1.1", "--retention", retention)
        assert result.status == 2
        assert result.stderr.startswith("fleetmem: --retention: ")


def test_the_old_flag_is_an_alias(fleet: Sshd, cli: Cli) -> None:
    """`run --dry-run` prints the same plan."""
    options = ("-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key, "--interval", 0.2)
    plans = [cli(*command, *options) for command in (("plan",), ("run", "--dry-run"))]
    assert [plan.status for plan in plans] == [0, 0], plans
    # Some lines are there only where processes came meanwhile, or where the machine is too slow for such an interval.
    varying = ("  new ", "warning: ", "note: ")
    labels = [[line[:17] for line in plan.stdout.splitlines() if not line.startswith(varying)] for plan in plans]
    assert labels[0] == labels[1]
    assert len(labels[0]) > 10


def test_a_fleet_that_is_not_there(cli: Cli) -> None:
    """With a number of hosts nobody is asked, no key is needed, and JSON has the figures."""
    retentions = ("--retention", r"\.process\.=10s:1d,1m:30d", "--retention", "10s:6h,60s:1y")
    result = cli("plan", "--hosts", 3000, "--processes", 150, *retentions, "--format", "json", "-g", "127.0.0.1")
    assert result.status == 0, result.stderr
    plan = json.loads(result.stdout)
    assert plan["fleet"]["series"] == 3000 * 458
    assert plan["graphite"]["files_of_schema_1"] == 3000 * 450
    assert plan["graphite"]["disk_bytes"] == 3000 * (450 * 622_120 + 8 * 6_333_160)
    assert "carbon's cache is full" in plan["warnings"][0]
    table = cli("plan", "-i", "3000")
    assert "carbon ends     273,019 series, 596 hosts" in table.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("-i", "127.0.1.1", "--processes", 5), "--processes and --commands go with a number of hosts"),
        (("-i", "30", "-o", "lines"), "-o needs hosts to ask"),
    ],
)
def test_options_that_do_not_go_together(cli: Cli, options: tuple[object, ...], message: str) -> None:
    """Nobody is asked, and nothing written."""
    result = cli("plan", *options)
    assert result.status == 2
    assert message in result.stderr


_WHISPER = """
import json, os, sys, whisper
found = {}
for text in json.load(sys.stdin):
    try:
        archives = [whisper.parseRetentionDef(part) for part in text.split(",")]
        path = os.path.join(sys.argv[1], "series.wsp")
        whisper.create(path, archives)
        found[text] = os.path.getsize(path)
        os.unlink(path)
    except (ValueError, whisper.WhisperException):
        found[text] = None
json.dump(found, sys.stdout)
"""


def test_files_have_the_size_that_whisper_makes(tmp_path: Path) -> None:
    """The real one makes each file; what it refuses is refused here, too."""
    python = TOOLS / "graphite-venv" / "bin" / "python"
    if not python.exists():
        missing("whisper")
    texts = [
        *("10s:6h,60s:3d", "10s:6h,60s:7d,10m:1y", "10s:1d,1m:30d", "60:1440", "1s:1h", "1m:90d,1h:2y", "60s:7d"),
        *("10s:6h,15s:7d", "10s:6h,10s:7d", "10s:6h,60s:1h", "10s:3,60s:1h", "10s:6,60s:1h"),
    ]
    argv = [str(python), "-c", _WHISPER, str(tmp_path)]
    done = subprocess.run(argv, input=json.dumps(texts), capture_output=True, text=True, check=True)
    assert {text: _file_bytes(text) for text in texts} == json.loads(done.stdout)


def _file_bytes(text: str) -> int | None:
    try:
        return parse_retention(text).file_bytes
    except ValueError:
        return None


@pytest.mark.long
def test_a_real_carbon_is_full_where_the_arithmetic_says() -> None:
    """Below the number of series that fit its cache never fills; above it does, whichever way the points come."""
    venv = TOOLS / "graphite-venv"
    if not (venv / "bin" / "carbon-cache.py").exists():
        missing("carbon")
    limits = CarbonLimits(updates_per_second=20, cache_points=5000, step_seconds=1)
    settings = [
        Setting(limits, round(series_that_fit(limits, arrival) * share), arrival)
        for arrival in Arrival
        for share in (0.6, 0.85, 1.2)
    ]
    results = measure(settings, venv)
    assert len(results) == len(settings)
    assert all(map(is_as_computed, results)), results
