"""Metric names: legal for every receiver, the same on every run, and never one name for two things. Pure.

A component matches `[A-Za-z0-9_]+`, the only characters that every StatsD server, carbon and Prometheus keep unchanged;
a whole name fits 127 bytes, where collectd cuts (DATA_MAX_NAME_LEN in its daemon/globals.h).
"""

import hashlib
import re
import sys
from collections.abc import Iterable, Mapping
from typing import NamedTuple

MAX_NAME_BYTES = 127
MAX_PREFIX_BYTES = 40
_COMMAND_BYTES = 32  # the kernel's own limit is 15; `ps` on other systems, and groups, make longer ones
# `.process.` before the host; `.`, `.`, a pid of 7 digits (PID_MAX_LIMIT is 2^22) and the longest measure after it.
_FIXED_BYTES = len(".process.") + len("..") + 7 + len(".peak_rss_bytes")
_HASH_DIGITS = 8
MAX_TAGS = 8
_TAG_KEY_BYTES, _TAG_VALUE_BYTES = 32, 64  # 8 of them, a name and a value fit a datagram
_OWN_TAGS = frozenset({"host", "command", "pid", "collector", "sink"})
_MAX_REMEMBERED = 20_000
MAX_REMEMBERED_BYTES = 4 * 1024**2
"""Memory for the names of one host's commands: 12,000 ordinary ones, or 4,000 long ones."""
MAX_FLEET_BYTES = 256 * 1024**2
"""Memory for the names of the commands of all hosts: 10,000 hosts with 80 commands each."""
_ENTRY_BYTES = 200  # of two dictionaries, beside the texts

_ILLEGAL = re.compile(rb"[^A-Za-z0-9_]")
_LOOKS_HASHED = re.compile(r".*_[0-9a-f]{8}")
_PREFIX = re.compile(r"[A-Za-z][A-Za-z0-9_]*(\.[A-Za-z0-9_]+)*")
_GRAPHITE_PREFIX = re.compile(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
MAX_GRAPHITE_PREFIX_BYTES = 80


def check_prefix(prefix: str, *, is_for_graphite: bool = False) -> str:
    """Returns the prefix as it is.

    Args:
        prefix: of all names.
        is_for_graphite: nothing else gets the names. A hosted Graphite has the key of an account in front of them.

    Raises:
        ValueError: no receiver would keep it unchanged, or it leaves no room for host and command.
    """
    if is_for_graphite:
        if _GRAPHITE_PREFIX.fullmatch(prefix) and len(prefix) <= MAX_GRAPHITE_PREFIX_BYTES:
            return prefix
        raise ValueError(
            f"prefix {prefix!r}: letters, digits, _ and - in parts joined by dots, "
            f"at most {MAX_GRAPHITE_PREFIX_BYTES} characters"
        )
    if not _PREFIX.fullmatch(prefix) or len(prefix) > MAX_PREFIX_BYTES:
        raise ValueError(
            f"prefix {prefix!r}: letters, digits and _ in parts joined by dots, a letter first, "
            f"at most {MAX_PREFIX_BYTES} characters. Where names go to Graphite alone (no StatsD, no Prometheus), "
            f"- and a digit first are allowed, and {MAX_GRAPHITE_PREFIX_BYTES} characters"
        )
    return prefix


def check_tags(labels: tuple[str, ...]) -> tuple[str, ...]:
    """Returns the names of labels that become tags, as they are.

    Raises:
        ValueError: one is a tag already, two would become one, or there are too many.
    """
    if len(labels) > MAX_TAGS:
        raise ValueError(f"more than {MAX_TAGS} tags: a line has no room for them")
    keys = [tag_key(label) for label in labels]
    for label, key in zip(labels, keys, strict=True):
        if key in _OWN_TAGS:
            raise ValueError(f"{label!r}: {key} is a tag of every series already")
        if keys.count(key) > 1:
            raise ValueError(f"{label!r}: two labels would become the tag {key}")
    return labels


def tag_key(label: str) -> str:
    """Returns the name of a label as the name of a tag, which begins with no digit: so Prometheus wants it."""
    key = _fold(label, _TAG_KEY_BYTES)
    return f"_{key}" if key[0].isdigit() else key


def make_tags(labels: Mapping[str, str], wanted: Iterable[str]) -> "Tags":
    """Returns those labels of a host that are wanted as tags, legal for every receiver; one that it lacks is left out.

    Two values may become one (`eu-west` and `eu_west`): that mixes no series, as each has its host's name.
    """
    return tuple((tag_key(label), _fold(labels[label], _TAG_VALUE_BYTES)) for label in wanted if labels.get(label))


def _fold(original: str, max_bytes: int) -> str:
    """Returns a legal component: other bytes become `_`, nothing becomes `unnamed`, long ones are cut and hashed."""
    legal = _ILLEGAL.sub(b"_", original.encode("utf-8", "surrogateescape")).decode("ascii") or "unnamed"
    return legal if len(legal) <= max_bytes else _with_hash(legal, original, max_bytes)


def _with_hash(legal: str, original: str, max_bytes: int, digits: int = _HASH_DIGITS) -> str:
    digest = hashlib.sha256(original.encode("utf-8", "surrogateescape")).hexdigest()[:digits]
    return f"{legal[: max_bytes - digits - 1]}_{digest}"


class NamePool:
    """The memory that the tables of a fleet's hosts share.

    Attributes:
        used_bytes: what they take.
    """

    def __init__(self) -> None:
        self.used_bytes = 0


class NameTable:
    """Gives originals their names in one scope (the hosts of a fleet, the commands of a host).

    An original that is legal already keeps its name. When others fold to one name (`a.b`, `a-b`), each gets a hash
    of its original for good, once the second is seen: which came first makes no difference. One that
    looks as if it had a hash gets another: no process can call itself by the name of a different one.

    A table with a pool is bounded in bytes. Once it is full it stays so. Each new name that is not legal then has a
    hash of its original: it is the same every time, and nothing has to be remembered for it.

    Args:
        max_bytes: of a name.
        reserved: names that no original gets.
        pool: what the table shares with others; None is a table for names of our own side.

    Attributes:
        generation: grows when a name given out earlier changed; callers that keep names look them up again then.
        hashed: names that have a hash so that no other thing has the same; those that are only too long included.
        remembered_bytes: memory that the names take.
        known: names by their originals, to read.
    """

    def __init__(self, max_bytes: int, reserved: Iterable[str] = (), pool: NamePool | None = None) -> None:
        self.generation = 0
        self.hashed = 0
        self.remembered_bytes = 0
        self._is_full = False
        self._pool = pool
        self._max_bytes = max_bytes
        self.known: dict[str, str] = {}
        self._reserved = frozenset(reserved)
        # Folded name to the original that holds it; None once it is contested: then only one that is legal may.
        self._holders: dict[str, str | None] = {}

    def name(self, original: str) -> str:
        """Returns the name of an original."""
        return self.known.get(original) or self._assign(original)

    def has(self, original: str) -> bool:
        """Whether an original has a name already."""
        return original in self.known

    def _assign(self, original: str) -> str:
        folded = _fold(original, self._max_bytes)
        is_free = folded not in self._reserved and not _LOOKS_HASHED.fullmatch(folded)
        if self._fills():
            # A host that makes up names without end: no memory left to tell them apart by, so a hash for each.
            return folded if is_free and folded == original and folded not in self._holders else self._hashed(original)
        if not is_free:
            return self._hold_hashed(original)
        if folded not in self._holders:
            return self._hold(folded, original)
        holder = self._holders[folded]
        if holder is not None and holder != folded:
            self._holders[folded] = None
            self._hold_hashed(holder)
            self.generation += 1
        if original == folded:
            return self._hold(folded, original)
        return self._hold_hashed(original)

    def share(self, pool: NamePool) -> None:
        """Counts what it remembers in another pool from now on."""
        self._pool = pool
        pool.used_bytes += self.remembered_bytes

    def _fills(self) -> bool:
        """Returns whether there is no room for another name."""
        if not self._is_full:
            self._is_full = len(self.known) >= _MAX_REMEMBERED or (
                self._pool is not None
                and (self.remembered_bytes >= MAX_REMEMBERED_BYTES or self._pool.used_bytes >= MAX_FLEET_BYTES)
            )
        return self._is_full

    def _hold_hashed(self, original: str) -> str:
        name = self._hashed(original)
        if name in self._holders:  # two in 2**32, or made so on purpose
            name = self._hashed(original, 2 * _HASH_DIGITS)
        return self._hold(name, original)

    def _hold(self, name: str, original: str) -> str:
        self._holders[name] = original
        self.known[original] = name
        size_bytes = sys.getsizeof(original) + sys.getsizeof(name) + _ENTRY_BYTES
        self.remembered_bytes += size_bytes
        if self._pool:
            self._pool.used_bytes += size_bytes
        self.hashed += name != original and bool(_LOOKS_HASHED.fullmatch(name))
        return name

    def _hashed(self, original: str, digits: int = _HASH_DIGITS) -> str:
        return _with_hash(_fold(original, self._max_bytes), original, self._max_bytes, digits)


Tags = tuple[tuple[str, str], ...]
"""Keys and values, legal for every receiver."""


class Place(NamedTuple):
    """What a series is of, in legal components: `process`, and host `web01`, command `nginx`, pid `7`.

    Attributes:
        family: `process`, `command`, `host` or `collector`.
        labels: what tells it from others of its family, in the order in which plain names have them.
        tags: what else is said of its host, where names have tags.
    """

    family: str
    labels: Tags
    tags: Tags = ()


LABELS = {
    "process": ("host", "command", "pid"),
    "command": ("host", "command"),
    "host": ("host",),
    "collector": ("collector", "sink"),
}
"""What tells the series of a family from each other, in the order of names. The collector's own lack the sink."""


def place(family: str, *values: str) -> Place:
    """Returns the place with these values of its family's labels, which are legal components, or a query's patterns."""
    return Place(family, tuple(zip(LABELS[family], values, strict=False)))


class FleetNames:
    """The names of a fleet's series, from a prefix and all host names at once. Sinks share them.

    Args:
        prefix: of all names.
        hosts: of the fleet.
        before: names of the fleet as it was; hosts that are called as before go on with the commands seen there.
        tags: of hosts, by name.
        own: of these hosts, those that are sampled here; None for all of them.
    """

    def __init__(
        self,
        prefix: str,
        hosts: Iterable[str],
        before: "FleetNames | None" = None,
        tags: Mapping[str, Tags] | None = None,
        own: Iterable[str] | None = None,
    ) -> None:
        self.prefix = check_prefix(prefix, is_for_graphite=True)  # which receivers there are is checked before
        # Graphite's own limits are far away: what a prefix for Graphite alone has more does not shorten names.
        max_bytes = MAX_NAME_BYTES - min(len(prefix), MAX_PREFIX_BYTES) - _FIXED_BYTES - _COMMAND_BYTES
        self._table = NameTable(max_bytes)
        hosts = list(hosts)
        for host in hosts:  # first all of them, so that the order makes no difference
            self._table.name(host)
        known = before._hosts if before else {}
        pool = NamePool()
        self._hosts: dict[str, HostNames] = {
            host: _host_names(self._table.name(host), (tags or {}).get(host, ()), known.get(host))
            for host in (hosts if own is None else own)
        }
        for names in self._hosts.values():
            names.share(pool)

    def host(self, host: str) -> "HostNames":
        """Returns the names of one host of the fleet."""
        return self._hosts[host]

    def is_of_fleet(self, host: str) -> bool:
        """Whether a host is in the inventory, also where it is sampled elsewhere."""
        return self._table.has(host)

    def is_sampled_here(self, host: str) -> bool:
        """Whether a host is sampled here."""
        return host in self._hosts

    @property
    def kept_apart(self) -> int:
        """Hosts and commands that have a hash in their name, as they would share it with another otherwise."""
        return self.hosts_kept_apart + self.commands_kept_apart

    @property
    def hosts_kept_apart(self) -> int:
        """Of these the hosts, also those that are sampled elsewhere."""
        return self._table.hashed

    @property
    def commands_kept_apart(self) -> int:
        """Of these the commands."""
        return sum(names.kept_apart for names in self._hosts.values())


class HostNames:
    """The places of one host's series.

    Args:
        host: the host's legal name.
        tags: the host's.
        commands: names of its commands, where some are known already.

    Attributes:
        host: the place of its own series.
        commands: see above.
    """

    def __init__(self, host: str, tags: Tags = (), commands: NameTable | None = None) -> None:
        self._label = ("host", host)
        self._tags = tags
        self.commands = commands or NameTable(_COMMAND_BYTES, reserved=["other"], pool=NamePool())
        self.host = self._place("host")

    def _place(self, family: str, *labels: tuple[str, str]) -> Place:
        return Place(family, (self._label, *labels), self._tags)

    def with_tags(self, tags: Tags) -> "HostNames":
        """Returns the same names with other tags."""
        return HostNames(self._label[1], tags, self.commands)

    @property
    def kept_apart(self) -> int:
        """Commands that have a hash in their name."""
        return self.commands.hashed

    @property
    def remembered_bytes(self) -> int:
        """Memory that the names of its commands take."""
        return self.commands.remembered_bytes

    def share(self, pool: NamePool) -> None:
        """Takes part in a fleet's bound on memory."""
        self.commands.share(pool)

    def process(self, command: str, pid: int) -> Place:
        """Returns the place of a process."""
        return self.process_called(self.commands.name(command), str(pid))

    def process_called(self, command_name: str, pid: str) -> Place:
        """Returns the place of a process, of components that are legal already."""
        return self._place("process", ("command", command_name), ("pid", pid))

    def command(self, command: str) -> Place:
        """Returns the place of a command."""
        return self._place("command", ("command", self.commands.name(command)))

    @property
    def other_processes(self) -> Place:
        """The place of processes without series of their own. No process has pid 0; a command `other` gets a hash."""
        return self.process_called("other", "0")

    @property
    def other_commands(self) -> Place:
        """The place of commands without series of their own."""
        return self._place("command", ("command", "other"))


def _host_names(host: str, tags: Tags, before: HostNames | None) -> HostNames:
    """Returns the names of a host; those that it had, with the commands seen there, where it is called as before."""
    names = HostNames(host, tags)
    if before is None or before.host.labels != names.host.labels:
        return names
    return before if before.host == names.host else before.with_tags(tags)
