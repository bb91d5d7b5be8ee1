"""What one sample costs a host: the resident probe, `ps aux` over a new channel, `ps aux` over a new connection."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import paramiko

from fleetmem import config
from fleetmem.model import Sample
from fleetmem.runtime.event_loop import run_async
from fleetmem.wiring.fleet import build_fleet
from measured_host import MeasuredHost


def cpu_ms_per_sample(host: MeasuredHost, run: Callable[[MeasuredHost, int], None], samples: int) -> float:
    """Returns the host's CPU for one sample in ms: `samples` of them, less the same run with a single one."""
    one_seconds, many_seconds = (_cpu_seconds(host, run, count) for count in (1, samples + 1))
    return (many_seconds - one_seconds) / samples * 1000


def _cpu_seconds(host: MeasuredHost, run: Callable[[MeasuredHost, int], None], samples: int) -> float:
    host.start()
    run(host, samples)
    return host.stop()


def resident_probe(host: MeasuredHost, samples: int) -> None:
    """Asks fleetmem's probe, over one connection."""
    with tempfile.TemporaryDirectory() as folder:
        flags = host.flags(["127.0.0.1"], Path(folder) / "known_hosts")
        run_async(_ask_probe(config.load(None, flags), samples))


async def _ask_probe(settings: config.Settings, samples: int) -> None:
    fleet = build_fleet(settings, lambda _path: None)
    for _ in range(samples):
        outcome = await fleet.collector.sample(fleet.hosts[0])
        assert isinstance(outcome, Sample), outcome
    await fleet.collector.close()


def ps_over_new_channel(host: MeasuredHost, samples: int) -> None:
    """Runs `ps aux` in a new exec channel each time, over one connection."""
    with _connect(host) as client:
        for _ in range(samples):
            _run_ps(client)


def ps_over_new_connection(host: MeasuredHost, samples: int) -> None:
    """Runs `ps aux` over a new connection each time, as the baseline does."""
    for _ in range(samples):
        with _connect(host) as client:
            _run_ps(client)


def _connect(host: MeasuredHost) -> paramiko.SSHClient:
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - a host of our own, on loopback
    client.connect(
        "127.0.0.1", host.port, host.user, key_filename=str(host.key), allow_agent=False, look_for_keys=False
    )
    return client


def _run_ps(client: paramiko.SSHClient) -> None:
    _stdin, stdout, _stderr = client.exec_command("ps aux")
    assert stdout.read().startswith(b"USER")
    assert stdout.channel.recv_exit_status() == 0
