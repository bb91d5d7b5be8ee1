"""Which of several servers a key belongs to: rendezvous hashing (highest random weight). Pure.

Whoever knows the same servers finds the same owner, with nothing to agree on and whatever the order of the list. When a
server is added or removed, only the keys that it gets or had move.
"""

from collections.abc import Sequence
from hashlib import blake2b

_WEIGHT_BYTES = 8


def owner(key: str, servers: Sequence[str]) -> str:
    """Returns the server that a key belongs to.

    Args:
        key: what is to be placed, a host's name say.
        servers: names without NUL; their order does not matter. One weight, about 1 µs, is computed for each.

    Raises:
        ValueError: there are no servers.
    """
    if not servers:
        raise ValueError(f"no servers to place {key!r} on")
    key_bytes = key.encode()
    return max(servers, key=lambda server: (_weight(key_bytes, server), server))


def _weight(key: bytes, server: str) -> bytes:
    return blake2b(server.encode() + b"\0" + key, digest_size=_WEIGHT_BYTES).digest()


def shard_of(key: str, shards: int) -> int:
    """Returns which of so many shards a key belongs to, 0 for the first."""
    return int(owner(key, [str(number) for number in range(shards)]))
