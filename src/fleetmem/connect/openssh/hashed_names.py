"""Hashed names of known_hosts (ssh-keygen -H), searched by a process of its own: a loop of HMACs would hold the GIL."""

import binascii
import subprocess
import sys
from collections.abc import Sequence
from functools import partial

from fleetmem.runtime.side_thread import call_aside

HASH_BYTES = 20
"""Of a salt, and of a hash: SHA-1."""

_LIMIT_SECONDS = 20.0
_END_SECONDS = 2.0
_PROGRAM = """
import hmac, sys
head, _, lines = sys.stdin.buffer.read().partition(b"\\n")
names = list(enumerate(head.split(b"\\0")))
for at in range(0, len(lines), 40):
    salt, digest = lines[at:at + 20], lines[at + 20:at + 40]
    for number, name in names:
        if hmac.digest(salt, name, "sha1") == digest:
            print(number, at // 40)
"""


async def search(names: Sequence[str], hashed: Sequence[str]) -> dict[str, list[int]]:
    """Returns which of the hashed names (`|1|salt|hash`) are those of each host, as their indexes.

    Raises:
        OSError: there is no process for it, or it took too long.
    """
    work = partial(_search, names, hashed)
    return await call_aside(work, name="search of hashed names", limit_seconds=_LIMIT_SECONDS + _END_SECONDS)


def _search(names: Sequence[str], hashed: Sequence[str]) -> dict[str, list[int]]:
    words = (sys.executable, "-I", "-S", "-c", _PROGRAM)
    pipe, nowhere = subprocess.PIPE, subprocess.DEVNULL
    question = _question(names, hashed)
    try:
        done = subprocess.run(
            words, input=question, stdout=pipe, stderr=nowhere, env={}, timeout=_LIMIT_SECONDS, check=True
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{len(hashed)} hashed names were not searched within {_LIMIT_SECONDS:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise OSError(f"the search of hashed names ended with status {error.returncode}") from error
    found: dict[str, list[int]] = {name: [] for name in names}
    for line in done.stdout.splitlines():
        number, index = map(int, line.split())
        found[names[number]].append(index)
    return found


def _question(names: Sequence[str], hashed: Sequence[str]) -> bytes:
    """Returns the program's input: names, and behind them salts and hashes."""
    parts = [binascii.a2b_base64(part) for each in hashed for part in each.split("|")[2:]]
    return b"\0".join(name.encode() for name in names) + b"\n" + b"".join(parts)
