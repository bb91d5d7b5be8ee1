"""What every unit test gets: a home of its own, no configuration from outside, and Hypothesis without a stopwatch."""

import logging
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fleetmem.config import ssh_section
from fleetmem.connect.openssh import targets

# Time per example depends on the machine; a slow one must not turn a right answer red.
settings.register_profile("fleetmem", deadline=None, max_examples=60)
settings.register_profile("fast", deadline=None, max_examples=15)  # for `make check-fast`
settings.load_profile("fleetmem")


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Moves home to an empty folder, and takes away what the caller's environment would add."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    for name in [name for name in os.environ if name.startswith("FLEETMEM_")]:
        monkeypatch.delenv(name)
    monkeypatch.setattr(targets, "_SYSTEM_KNOWN_HOSTS", (tmp_path / "no_system_known_hosts",))
    monkeypatch.setattr(ssh_section, "_SSH_CONFIGS", (Path("~/.ssh/config"),))
    return folder


@pytest.fixture(autouse=True)
def _own_logging() -> Iterator[None]:
    """Puts handlers and levels back that a command sets up."""
    loggers = [logging.getLogger(name) for name in (None, "fleetmem", "asyncssh")]
    levels, handlers = [logger.level for logger in loggers], logging.getLogger().handlers[:]
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)
    logging.getLogger().handlers[:] = handlers


@pytest.fixture
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has no thread started any more: a container's limit is reached (`pids.max`)."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
