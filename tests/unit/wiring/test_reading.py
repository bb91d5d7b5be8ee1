import asyncio
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import pytest

from fleetmem.config import Settings, load
from fleetmem.connect.reach import Reach
from fleetmem.daemon import Daemon
from fleetmem.errors import ConfigError, UsageError
from fleetmem.model import Outcome
from fleetmem.wiring import reading
from fleetmem.wiring.fleet import Prepared, assemble, build_fleet, prepare
from fleetmem.wiring.fleet_spec import fleet_spec, read_inventory
from fleetmem.wiring.reading import read_aside

_Outcomes = list[Outcome]


def _settings(**sections: object) -> Settings:
    inventory = {"hosts": ["127.0.0.1:1"]}
    return load(None, {"inventory": inventory, "run": {"interval_seconds": 0.1}, **sections})


def _ask_nobody(_path: Path) -> None:
    """Has no passphrase."""


def _fail(error: Exception) -> None:
    raise error


def test_what_a_reading_fails_with(caplog: pytest.LogCaptureFixture) -> None:
    """An error that a person can act on comes as it is; a bug has its traceback in the log, and ends nothing."""
    with pytest.raises(ConfigError, match=r"^wrong$"):
        asyncio.run(read_aside(partial(_fail, ConfigError("wrong")), "x"))
    with pytest.raises(UsageError, match=r"^x: disk gone$"):
        asyncio.run(read_aside(partial(_fail, OSError("disk gone")), "x"))
    assert not caplog.records
    with pytest.raises(UsageError, match=r"^x: a bug in fleetmem: KeyError: 7$"):
        asyncio.run(read_aside(partial(_fail, KeyError(7)), "x"))
    assert caplog.records[0].exc_info


@pytest.mark.usefixtures("no_threads")
def test_a_reading_without_a_thread() -> None:
    """It fails, and says why."""
    with pytest.raises(UsageError, match="x: no more threads"):
        asyncio.run(read_aside(lambda: None, "x"))


async def _until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - a log tells nobody
            await asyncio.sleep(0.01)


@pytest.mark.slow
def test_sampling_goes_on_while_the_configuration_hangs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The reload fails after its limit, says what hung, and the next one works."""
    monkeypatch.setattr(reading, "READ_SECONDS", 0.5)
    caplog.set_level(logging.INFO, "fleetmem")
    gate, reads, outcomes = threading.Event(), list[int](), _Outcomes()

    def read() -> Settings:
        reads.append(1)
        if len(reads) == 1:
            gate.wait(20)
        return _settings()

    async def main() -> None:
        running = Daemon(build_fleet(_settings(), _ask_nobody), read, outcomes.append)
        task = asyncio.create_task(running.run())
        await _until(lambda: bool(outcomes))
        os.kill(os.getpid(), signal.SIGHUP)
        await _until(lambda: bool(reads))
        before = len(outcomes)
        await _until(lambda: "not taken, the old one stays: configuration: not done after 0.5 s" in caplog.text)
        assert len(outcomes) > before
        os.kill(os.getpid(), signal.SIGHUP)
        await _until(lambda: "configuration taken" in caplog.text)
        running.stop()
        async with asyncio.timeout(5):
            await task

    try:
        asyncio.run(main())
    finally:
        gate.set()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGHUP, None], ids=["reload", "refresh"])
def test_sampling_goes_on_while_keys_hang(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, tmp_path: Path, number: int | None
) -> None:
    """Keys, known hosts and the ssh configuration are read beside the loop, and hosts that could not be taken come."""
    caplog.set_level(logging.INFO, "fleetmem")
    monkeypatch.setattr(reading, "READ_SECONDS", 0.3)
    hosts, gate, is_stuck, outcomes = tmp_path / "hosts", threading.Event(), threading.Event(), _Outcomes()
    hosts.write_text("127.0.0.1:1\n")
    resolve = Reach.resolve

    def resolve_or_hang(reach: Reach, *arguments: object) -> object:
        if is_stuck.is_set():
            gate.wait(20)
            raise UsageError("a key could not be read")
        return resolve(reach, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Reach, "resolve", resolve_or_hang)
    settings = _settings(inventory={"hosts": [f"@{hosts}"], "refresh_seconds": 0.1})

    async def main() -> None:
        running = Daemon(build_fleet(settings, _ask_nobody), settings.model_copy, outcomes.append)
        task = asyncio.create_task(running.run())
        await _until(lambda: bool(outcomes))
        is_stuck.set()
        hosts.write_text("127.0.0.1:1\n127.0.0.2:1\n")
        if number:
            os.kill(os.getpid(), number)
        await _until(lambda: "not taken" in caplog.text)
        assert "outputs: not done after" in caplog.text
        before = len(outcomes)
        await _until(lambda: len(outcomes) > before)
        is_stuck.clear()
        await _until(lambda: {outcome.host.address for outcome in outcomes} == {"127.0.0.1", "127.0.0.2"})
        running.stop()
        async with asyncio.timeout(5):
            await task

    try:
        asyncio.run(main())
    finally:
        gate.set()


def test_what_is_prepared_in_vain_frees_its_port() -> None:
    """A reload that came too late holds nothing: the next one may have the port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = _settings(prometheus={"listen": f"127.0.0.1:{port}"})
    spec = fleet_spec(settings, read_inventory(settings))
    for _ in range(2):
        prepare(spec, _ask_nobody).close()
    with closing(prepare(spec, _ask_nobody)) as prepared, pytest.raises(UsageError, match="port is in use"):
        prepare(spec, _ask_nobody)
    assert isinstance(prepared, Prepared)


def test_preparing_changes_nothing_of_the_fleet_in_force() -> None:
    """Who has which StatsD server stays until the new fleet is there: the preparation may come to nothing."""
    old = build_fleet(_settings(statsd={"server": ["127.0.0.1:1", "127.0.0.1:2"]}), _ask_nobody)
    first = old.collector.sinks[0]
    before = first.name, first.takes
    settings = _settings(statsd={"server": ["127.0.0.1:2", "127.0.0.1:1"]})
    prepared = prepare(fleet_spec(settings, old.inventory), _ask_nobody, old)
    assert (first.name, first.takes) == before
    assert first in assemble(prepared, old, old.inventory).collector.sinks
    assert first.name == "statsd_2"
