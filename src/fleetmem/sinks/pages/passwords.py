"""Whether a client knows a password. A bcrypt hash takes a tenth of a second of CPU: in a thread, and bounded.

    recall ──> known: at once, on the loop
          └──> check ──> in a thread: one at a time, one for each address, after a wrong one three times as long a rest

So clients that guess take a quarter of a core at most, and neither the loop nor a client whose password is known waits.
"""

import base64
import binascii
import hashlib
import hmac
import os
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from typing import NamedTuple

import bcrypt

from fleetmem.runtime.side_thread import SideThread

_MOST_WAITING = 8
_REMEMBERED = 100
_REST_FACTOR = 3.0
_LONGEST_REST_SECONDS = 1.0
_PASSWORD_BYTES = 72  # bcrypt looks at no more


class TooManyChecksError(Exception):
    """As many passwords are being checked as may be."""


class Credentials(NamedTuple):
    """What a client says who it is."""

    user: bytes
    password: bytes


def parse_authorization(header: str | None) -> Credentials | None:
    """Returns what an `Authorization` header of the scheme Basic holds, None where it is none."""
    scheme, _space, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return Credentials(user, password) if colon else None


class Passwords:
    """Checks passwords against bcrypt hashes, and remembers the answers, by a digest with a key of this process."""

    def __init__(self) -> None:
        self._key = os.urandom(32)
        self._right: OrderedDict[bytes, None] = OrderedDict()
        self._wrong: OrderedDict[bytes, None] = OrderedDict()  # of its own: guesses cannot drive out what is right
        self._checked_addresses: set[str] = set()
        self._thread = SideThread("password")

    def recall(self, users: Mapping[str, str], given: Credentials | None) -> bool | None:
        """Returns whether a client may come in, None where that has to be checked."""
        if given is None:
            return False
        digest = self._digest(users, given)
        if digest in self._right:
            self._right.move_to_end(digest)
            return True
        return False if digest in self._wrong else None

    async def check(self, users: Mapping[str, str], given: Credentials, address: str) -> bool:
        """Returns the same after a check.

        Args:
            users: bcrypt hashes by name.
            given: by the client.
            address: of the client: one check at a time for each.

        Raises:
            TooManyChecksError: this address, or too many others, are being checked.
            OSError: there may be no more threads.
        """
        if address in self._checked_addresses or len(self._checked_addresses) >= _MOST_WAITING:
            raise TooManyChecksError
        self._checked_addresses.add(address)
        try:
            hash_, is_known = _hash_of(users, given)
            is_right = await self._thread.call(partial(_check, hash_, given.password, is_known=is_known))
        finally:
            self._checked_addresses.discard(address)
        answers = self._right if is_right else self._wrong
        answers[self._digest(users, given)] = None
        if len(answers) > _REMEMBERED:
            answers.popitem(last=False)
        return is_right

    def close(self) -> None:
        """Lets the thread end."""
        self._thread.end()

    def _digest(self, users: Mapping[str, str], given: Credentials) -> bytes:
        """Returns a digest of all that the answer depends on; lengths keep the parts apart."""
        hash_, is_known = _hash_of(users, given)
        parts = given.user, hash_.encode(), b"%d" % is_known, given.password
        text = b"".join(len(part).to_bytes(4) + part for part in parts)
        return hmac.digest(self._key, text, hashlib.sha256)


def _hash_of(users: Mapping[str, str], given: Credentials) -> tuple[str, bool]:
    """Returns the hash of a user, and True; for one that does not exist, somebody else's, and False.

    So the time of an answer does not tell which users there are.
    """
    hash_ = users.get(given.user.decode("utf-8", "replace"))
    return (hash_, True) if hash_ else (next(iter(users.values())), False)


def _check(hash_: str, password: bytes, *, is_known: bool) -> bool:
    """Returns whether a password is right. It blocks, and after a wrong one for a while longer."""
    begun = time.monotonic()
    try:
        is_right = bcrypt.checkpw(password[:_PASSWORD_BYTES], hash_.encode()) and is_known
    except ValueError:  # a NUL in it
        is_right = False
    if not is_right:
        time.sleep(min(_LONGEST_REST_SECONDS, _REST_FACTOR * (time.monotonic() - begun)))
    return is_right
