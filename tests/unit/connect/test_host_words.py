"""What a host says during a login, and what is made of it."""

import time

import pytest

from fleetmem.connect.host_words import HostWords, one_line
from fleetmem.errors import Cause, HostError, Kind, Stage

LOST = HostError(Stage.LOGIN, Kind.DISCONNECTED, "connection lost")
REFUSED = HostError(Stage.LOGIN, Kind.AUTH_FAILED, "u is refused with k")


def test_nothing_said() -> None:
    """The error is the same."""
    assert HostWords().explain(LOST) is LOST


def test_all_that_was_said() -> None:
    """Before the version, as a banner, in farewell: in this order, cleaned."""
    words = HostWords()
    words.add_greeting(b"Busy\r")
    words.add_banner("Wartung \x1b[2Jbis 18 Uhr".encode("latin-1"))
    words.reason = "bye"
    error = words.explain(REFUSED)
    assert error.message == "u is refused with k; the host said: Busy; Wartung bis 18 Uhr; bye"
    assert (error.kind, error.cause) == (Kind.AUTH_FAILED, Cause.HOST_SAID)
    lost = HostError(Stage.LOGIN, Kind.DISCONNECTED, "connection lost: bye")
    assert words.explain(lost).message == "connection lost: bye; the host said: Busy; Wartung bis 18 Uhr"


def test_a_cause_that_is_known_stays() -> None:
    """A banner is no reason to forget that there is no key."""
    words = HostWords()
    words.add_banner(b"Authorized use only")
    assert words.explain(HostError(Stage.LOGIN, Kind.AUTH_FAILED, "none", Cause.NO_KEY)).cause is Cause.NO_KEY


@pytest.mark.parametrize(
    ("what", "offered", "known", "message"),
    [
        (
            "key exchange",
            [b"diffie-hellman-group1-sha1", b"kex-strict-s-v00@openssh.com"],
            [b"diffie-hellman-group1-sha1"],
            "for key exchange the host offers only diffie-hellman-group1-sha1: "
            "set `KexAlgorithms +diffie-hellman-group1-sha1` in the ssh configuration",
        ),
        ("encryption", [b"a", b"b"], [b"b"], "for encryption the host offers only a, b: set `Ciphers +b` in"),
        ("MAC", [b"m"], [b"m"], "for MAC the host offers only m: set `MACs +m` in"),
        ("compression", [b"zlib"], [], "for compression the host offers only zlib: set `Compression yes` in"),
        ("key exchange", [b"x"], [b"y"], "for key exchange the host offers only x, none of which fleetmem has"),
        ("key exchange", [], [b"y"], "for key exchange the host offers only nothing, none of which fleetmem has"),
    ],
)
def test_algorithms(what: str, offered: list[bytes], known: list[bytes], message: str) -> None:
    """What the host offers, and the setting that allows what of it is known."""
    words = HostWords()
    words.note_mismatch(what, offered, known)
    error = words.explain(LOST)
    assert error.message.startswith(message)
    assert error.cause is Cause.ALGORITHMS


def test_host_keys_of_other_kinds() -> None:
    """A host without a kind of key that is wanted hangs up in silence; its list says why."""
    words = HostWords()
    words.note_host_keys([b"ssh-ed25519"], [b"ssh-dss"], [b"ssh-dss"])
    assert "set `HostKeyAlgorithms +ssh-dss`" in words.explain(LOST).message
    fine = HostWords()
    fine.note_host_keys([b"ssh-ed25519"], [b"ssh-dss", b"ssh-ed25519"], [b"ssh-dss"])
    assert fine.explain(LOST) is LOST


def test_ways_in() -> None:
    """What the host lists tells a key that is wrong from one that is not enough, and from one that is not wanted."""
    words = HostWords()
    assert words.refusal("u", ["k"]) is None
    words.methods = ("publickey", "password")
    assert words.refusal("u", ["k"]) is None
    words.methods = ("password",)
    assert words.refusal("u", []) is None, "nothing was offered"
    assert words.refusal("u", ["k"]) == ("u: the host takes no keys, only password", Cause.NO_KEYS_TAKEN)
    words.accepted = ["k"]
    assert words.refusal("u", ["k"]) == ("u: key k accepted; the host also wants password", Cause.MORE_METHODS)


@pytest.mark.parametrize("text", [b"\x1b[" * 200_000, b"\x1b]" + b"x" * 400_000, b"\x1b" * 400_000])
def test_cleaning_takes_time_in_proportion(text: bytes) -> None:
    """However a host mixes what steers terminals: twice the text takes no four times as long."""

    def seconds(part: bytes) -> float:
        begun = time.process_time()
        one_line(part)
        return time.process_time() - begun

    assert seconds(text) < 8 * seconds(text[: len(text) // 2]) + 0.1
