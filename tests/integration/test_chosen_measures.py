"""`shape.measures`: what is asked for arrives by every way, with workers too, and ends when nobody asks any more."""

import re
import signal
import urllib.request
from pathlib import Path

import pytest

from fleetmem.model import MORE_MEASURES, PROCESS_MEASURES

from .receivers import TcpReceiver
from .servers import Cli, Sshd, StatsD, free_port, started, wait_for

pytestmark = pytest.mark.slow


def _page(port: int) -> dict[str, int]:
    """Returns how many samples each family of processes has at Prometheus' address."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        names = re.findall(r"^fleetmem_process_(\w+)\{", answer.read().decode(), re.MULTILINE)
    return {name: names.count(name) for name in names}


def _live(gauges: dict[str, float]) -> set[str]:
    """Returns the measures of processes that have a value above 0."""
    return {name.rpartition(".")[2] for name, value in gauges.items() if ".process." in name and value}


@pytest.mark.parametrize("workers", [1, 2])
def test_measures_come_and_go_with_a_reload(
    workers: int, fleet: Sshd, statsd: StatsD, cli: Cli, tmp_path: Path
) -> None:
    """StatsD, carbon and Prometheus have what is asked for. After a reload without it, no series of it lives."""
    port, config = free_port(), tmp_path / "config.toml"
    carbon = TcpReceiver()
    usual = f"[run]\nworkers = {workers}\ninterval_seconds = 0.5\n[shape]\nmin_rss = '1k'\n"
    everything = (*PROCESS_MEASURES, *MORE_MEASURES)
    config.write_text(f"{usual}measures = {list(everything)}\n")
    options = ("-c", config, "-i", "127.0.1.1,127.0.1.2", "-p", fleet.port, "-k", fleet.key)
    outputs = ("-g", statsd.address, "--graphite", carbon.address, "--prometheus", f"127.0.0.1:{port}")
    with started(carbon), cli.run(*options, *outputs) as running:
        # Nothing is swapped out perhaps: its series are there, at 0.
        wait_for("StatsD has them", lambda: _live(statsd.gauges()) >= {*everything} - {"swap_bytes"})
        assert any(name.endswith(".swap_bytes") for name in statsd.gauges() if ".process." in name)
        shown = _page(port)
        assert shown.keys() == {*everything, "mem_ratio"} - {"mem_percent"}
        assert len(set(shown.values())) == 1
        sent = {name for name in map(_measure, carbon.lines()) if name}
        assert sent >= {*everything}
        config.write_text(usual)
        running.signal(signal.SIGHUP)
        wait_for("it is taken", lambda: "configuration taken" in running.stderr)
        wait_for("they have ended", lambda: not _live(statsd.gauges()) & {*MORE_MEASURES})
        assert _live(statsd.gauges()) >= {*PROCESS_MEASURES}
        wait_for("the page has the usual ones", lambda: _page(port).keys() == {"rss_bytes", "vsz_bytes", "mem_ratio"})
        before = len(carbon.lines())
        wait_for("more points", lambda: len(carbon.lines()) > before + 100)
        wait_for("none of them", lambda: not {*map(_measure, carbon.lines()[-50:])} & {*MORE_MEASURES})


def _measure(line: str) -> str:
    """Returns the measure of a line for carbon that is about a process."""
    match = re.match(r"fleetmem\.process\.\w+\.\w+\.\d+\.(\w+) ", line)
    return match[1] if match and ".other." not in line else ""
