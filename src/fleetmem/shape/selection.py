"""Which processes of a host are looked at, and what they are called: filters and groups. Pure."""

from collections.abc import Iterable, Sequence

from fleetmem.model import Host, ProcessMemory
from fleetmem.shape.limits import Limits

MAX_REMEMBERED = 10_000
"""Commands of a host that are remembered with what the rules say of them; then that is forgotten, and asked again.
Those of one sample are, however many they are."""

MAX_REMEMBERED_CHARACTERS = 1_000_000
"""In the names of these commands together."""

_EXCLUDED = None


class Selection:
    """Applies the rules to the rows of one host. Each distinct command meets the regular expressions once.

    Attributes:
        takes_all: whether there are no rules for this host: `split` need not be called.
    """

    def __init__(self, host: Host, limits: Limits) -> None:
        self._commands = limits.commands
        self._users = limits.users
        self._groups = limits.groups
        self._is_host_kept = limits.hosts.keeps(host.name)
        self._has_name_rules = bool(limits.commands or limits.groups)
        self.takes_all = self._is_host_kept and not (limits.commands or limits.users or limits.groups)
        self._names: dict[str, str | None] = {}
        self._characters = 0
        self._users_kept: dict[int | None, bool] = {}
        self._renamed: dict[int, tuple[ProcessMemory, ProcessMemory]] = {}

    def undecided(self, rows: Sequence[ProcessMemory]) -> list[str]:
        """Returns the commands of a sample of which it is not known yet what the rules say, each once."""
        if not self._is_host_kept or not self._has_name_rules:
            return []
        if len(self._names) >= MAX_REMEMBERED or self._characters >= MAX_REMEMBERED_CHARACTERS:
            self._names.clear()
            self._characters = 0
        return [command for command in {row.command for row in rows} if command not in self._names]

    def decide(self, commands: Iterable[str]) -> None:
        """Applies the rules to commands."""
        for command in commands:
            self._name(command)

    def split(self, rows: Sequence[ProcessMemory]) -> tuple[Sequence[ProcessMemory], Sequence[ProcessMemory]]:
        """Returns the rows to look at, under their groups' names, and the excluded ones.

        A row that no group renames is passed on as it is. A renamed row is the same object as in the sample before,
        unless it has changed.
        """
        if not self._is_host_kept:
            return (), rows
        if self.takes_all:
            return rows, ()
        self.decide(self.undecided(rows))
        names, users_kept, renamed_before = self._names, self._users_kept, self._renamed
        selected: list[ProcessMemory] = []
        excluded: list[ProcessMemory] = []
        self._renamed = renamed = {}
        has_name_rules = self._has_name_rules
        for row in rows:
            command = row.command
            name = names[command] if has_name_rules else command
            if name is _EXCLUDED or not (users_kept.get(row.uid) or self._is_user_kept(row.uid)):
                excluded.append(row)
            elif name == command:
                selected.append(row)
            else:
                pair = renamed_before.get(row.pid)
                if pair is None or pair[0] is not row:
                    pair = row, row._replace(command=name)
                renamed[row.pid] = pair
                selected.append(pair[1])
        return tuple(selected), tuple(excluded)

    def _name(self, command: str) -> str | None:
        name: str | None = _EXCLUDED
        if self._commands.keeps(command):
            found = (group.name_of(command) for group in self._groups)
            name = next((name for name in found if name is not None), command)
        self._names[command] = name
        self._characters += len(command)
        return name

    def _is_user_kept(self, uid: int | None) -> bool:
        if uid not in self._users_kept:
            if len(self._users_kept) >= MAX_REMEMBERED:
                self._users_kept.clear()
            self._users_kept[uid] = self._users.keeps(None if uid is None else str(uid))
        return self._users_kept[uid]
