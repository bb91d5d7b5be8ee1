import asyncio
import base64
import time

import bcrypt
import pytest

from fleetmem.sinks.pages import passwords
from fleetmem.sinks.pages.passwords import Credentials, Passwords, TooManyChecksError, parse_authorization

_HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
_USERS = {"ann": _HASH, "bob": bcrypt.hashpw(b"bobs", bcrypt.gensalt(4)).decode()}
_ANN = Credentials(b"ann", b"right")


def header(text: bytes, scheme: str = "Basic") -> str:
    """Returns an Authorization header."""
    return f"{scheme} {base64.b64encode(text).decode()}"


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (header(b"ann:right"), _ANN),
        (header(b"ann:right", "bASIC"), _ANN),
        (header(b"ann:a:b"), Credentials(b"ann", b"a:b")),
        (header(b":"), Credentials(b"", b"")),
        (header(b"ann"), None),
        (header(b"ann:right", "Bearer"), None),
        ("Basic", None),
        ("Basic !!", None),
        ("Basic é", None),
        (f"{header(b'a:b')}, {header(b'a:b')}", None),
        (None, None),
    ],
)
def test_authorization(given: str | None, expected: Credentials | None) -> None:
    """User and password, at the first colon."""
    assert parse_authorization(given) == expected


def check(given: Credentials) -> tuple[bool | None, bool, bool | None]:
    """Returns what is known of a client before a check, what that comes to, and what is known afterwards."""

    async def main() -> tuple[bool | None, bool, bool | None]:
        checker = Passwords()
        before = checker.recall(_USERS, given)
        answer = await checker.check(_USERS, given, "192.0.2.1")
        after = checker.recall(_USERS, given)
        checker.close()
        return before, answer, after

    return asyncio.run(main())


@pytest.mark.parametrize(
    ("given", "is_right"),
    [
        (_ANN, True),
        (Credentials(b"bob", b"bobs"), True),
        (Credentials(b"bob", b"right"), False),
        (Credentials(b"ann", b""), False),
        (Credentials(b"ann", b"right\0"), False),
        (Credentials(b"ann", b"x" * 10_000), False),
        (Credentials(b"nobody", b"right"), False),  # its hash is that of the first user
        (Credentials(b"", b"right"), False),
        (Credentials(b"\xff", b"right"), False),
    ],
)
def test_a_check(given: Credentials, is_right: bool) -> None:
    """It is made once, and then known."""
    assert check(given) == (None, is_right, is_right)


def test_what_is_known_is_of_that_hash() -> None:
    """Another hash of the same user is checked again; parts that only look alike are others."""

    async def main() -> None:
        checker = Passwords()
        assert await checker.check(_USERS, _ANN, "a")
        again = {"ann": bcrypt.hashpw(b"new", bcrypt.gensalt(4)).decode()}
        assert checker.recall(again, _ANN) is None
        assert checker.recall(_USERS, Credentials(b"annr", b"ight")) is None
        checker.close()

    asyncio.run(main())


def test_a_user_who_has_another_name_now() -> None:
    """The hash is the same: the old name is refused all the same, and the new one is not."""

    async def main() -> None:
        checker = Passwords()
        renamed, anna = {"anna": _HASH}, Credentials(b"anna", b"right")
        assert await checker.check({"ann": _HASH}, _ANN, "a")
        assert not await checker.check({"ann": _HASH}, anna, "a")
        assert checker.recall(renamed, _ANN) is checker.recall(renamed, anna) is None
        assert not await checker.check(renamed, _ANN, "a")
        assert await checker.check(renamed, anna, "a")
        checker.close()

    asyncio.run(main())


def test_guesses_cannot_drive_out_what_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both are bounded, each by itself."""
    monkeypatch.setattr(passwords, "_REMEMBERED", 3)

    async def main() -> None:
        checker = Passwords()
        assert await checker.check(_USERS, _ANN, "a")
        for number in range(6):
            await checker.check(_USERS, Credentials(b"ann", b"%d" % number), "a")
        assert checker.recall(_USERS, _ANN)
        assert [checker.recall(_USERS, Credentials(b"ann", b"%d" % number)) for number in range(6)] == [
            *[None] * 3,
            *[False] * 3,
        ]
        checker.close()

    asyncio.run(main())


@pytest.mark.timing
@pytest.mark.slow
def test_guesses_are_bounded() -> None:
    """One at a time, one for each address, some addresses; the loop has its turns, and the CPU is ours."""
    users = {"ann": bcrypt.hashpw(b"right", bcrypt.gensalt(9)).decode()}

    async def main() -> None:
        checker = Passwords()
        cpu, begun = time.process_time(), time.monotonic()
        guesses = [
            asyncio.create_task(checker.check(users, Credentials(b"ann", b"%d" % number), f"192.0.2.{number // 2}"))
            for number in range(40)
        ]
        turns = 0
        while not all(guess.done() for guess in guesses):
            await asyncio.sleep(0.001)
            turns += 1
        answers = await asyncio.gather(*guesses, return_exceptions=True)
        cpu, took = time.process_time() - cpu, time.monotonic() - begun
        assert answers.count(False) == passwords._MOST_WAITING
        assert sum(isinstance(answer, TooManyChecksError) for answer in answers) == 32
        assert turns > 50
        assert cpu < 0.6 * took
        assert await checker.check(users, _ANN, "192.0.2.0")
        checker.close()

    asyncio.run(main())
