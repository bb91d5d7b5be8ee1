"""The check at the start: what it finds out about an asyncssh that is not as it is expected."""

import inspect
import threading
from typing import Any

import asyncssh
import pytest
from asyncssh.connection import SSHConnection

from fleetmem.connect import choice
from fleetmem.connect.asyncssh_private import pipelined, self_check
from fleetmem.connect.asyncssh_private.self_check import MisfitError, check_names, find_fault

_OVERRIDDEN = [
    name
    for name, found in vars(pipelined.PipelinedConnection).items()
    if inspect.isfunction(found) and not name.startswith("__") and name not in {*self_check._OURS, "connection_lost"}
]


def test_nothing_is_found_in_what_is_installed() -> None:
    """Every version that was tried passes."""
    assert find_fault() is None


@pytest.mark.parametrize("name", _OVERRIDDEN)
def test_a_method_that_nobody_would_call(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ours would be there in vain, which no login shows: a host's banner, a refused key."""
    for class_ in (asyncssh.SSHClientConnection, SSHConnection):
        if name in vars(class_):
            monkeypatch.delattr(class_, name)
    assert find_fault() == f"MisfitError: its connection has no {name}"


def test_a_method_that_is_called_in_another_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """With one value more, say, which ours does not take."""

    def validate(self: Any, host: str, addr: str, port: int, key_data: bytes, more: str) -> None:
        """Nothing."""

    monkeypatch.setattr(asyncssh.SSHClientConnection, "_validate_host_key", validate)
    assert "_validate_host_key takes (self: Any, host: str, addr: str" in (find_fault() or "")


@pytest.mark.parametrize("name", ["_send_deferred_packets", "_recv_pkthdr"])
def test_a_method_that_a_login_takes(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without it the login in memory comes to nothing, or the name is missed."""
    monkeypatch.delattr(SSHConnection, name)
    monkeypatch.setattr(self_check, "_LOGIN_SECONDS", 0.5)
    assert find_fault()


def test_attributes_that_are_not_there() -> None:
    """Also those that are only set, or only read when something goes wrong."""
    with pytest.raises(MisfitError) as error:
        check_names(pipelined, (object(),))
    for name in ("_inpbuf", "_recv_handler", "_client_kexinit", "_command", "_waiter", "_force_close"):
        assert name in str(error.value)


def test_names_of_ours_are_not_those_of_asyncssh() -> None:
    """Otherwise nobody would look for them, and ours would take their place."""
    their_code = {name for class_ in asyncssh.SSHClientConnection.__mro__ for name in vars(class_)}
    sources = inspect.getsource(inspect.getmodule(SSHConnection))  # type: ignore[arg-type]
    assert not self_check._OURS & their_code
    assert not [name for name in self_check._OURS if f"self.{name} " in sources]


def test_the_choice(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """It is made once, and a warning says what was found and what that means."""
    choose = choice.best_connector.__wrapped__
    assert isinstance(choose(), pipelined.PipelinedConnector)
    assert choice.best_connector() is choice.best_connector()
    assert not caplog.text
    monkeypatch.setattr(choice, "find_fault", lambda: "AttributeError: '_inpbuf'")
    assert not choose().waits_for_decisions
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert f"asyncssh {asyncssh.__version__} is not as fleetmem knows it (AttributeError: '_inpbuf')" in caplog.text


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit of threads is a reason to go without, not one to end the start with a traceback."""

    def start(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    fault = find_fault()
    assert fault
    assert "no more threads may be started" in fault
