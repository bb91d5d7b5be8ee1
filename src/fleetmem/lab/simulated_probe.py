"""The probe of one connection to a simulated host, in protocol 2: it remembers what it has told. Pure.

What `probe2.sh` does with files this does with rows: it tells everything, and from then on what has changed.
"""

from fleetmem.lab.simulated_host import SimulatedHost

_STARTED_TICKS = 4000  # of all processes there are at first, in 1/100 s since boot
_GROUPS = b"C 1 - /system.slice\n"


class SimulatedProbe:
    """Answers requests of protocol 2 over one connection.

    Args:
        host: whose processes it tells of.
    """

    def __init__(self, host: SimulatedHost) -> None:
        self._host = host
        self._last_id = 0
        self._told: list[bytes] = []  # rows in the frame before
        self._slots: list[int] = []  # of each row
        self._free: list[int] = []
        self._slot_count = 0
        self._sums = (0, 0, 0)

    def frame(self, request_id: int, base: int) -> bytes:
        """Returns the frame that answers a request, after the processes have gone on a little.

        Args:
            request_id: of the request.
            base: the frame that the collector has, 0 for none.
        """
        self._host.go_on()
        if not base or base != self._last_id:
            base, lines = 0, self._tell_all()
        else:
            lines = self._tell_changes()
        self._last_id = request_id
        head = b"BEGIN fleetmem/2 %d %d\nM %d %d 0 0 0\nK 0 %b\nS 0 0 0.00 0.00\nU 86400.00\n" % (
            request_id,
            base,
            *self._host.memory_kib,
            self._host.boot_id,
        )
        return b"%b%bEND %d 0 %d %d %d %d\n" % (head, lines, request_id, len(self._told), *self._sums)

    def _tell_all(self) -> bytes:
        if not self._slots:
            self._slots, self._slot_count = list(range(len(self._host.rows))), len(self._host.rows)
        elif self._told:
            self._tell_changes()  # what has gone leaves its slot, what has come gets one
        self._told = list(self._host.rows)
        columns = [row.split(b" ", 5) for row in self._told]
        self._sums = (
            sum([int(row[4]) for row in columns]),
            sum([int(row[3]) for row in columns]),
            sum([int(row[1]) for row in columns]),
        )
        return _GROUPS + b"".join(map(_new_line, self._slots, self._told))

    def _tell_changes(self) -> bytes:
        lines: list[bytes] = []
        gone: list[int] = []
        rss_kib, vsz_kib, pids = self._sums
        for place, (before, row) in enumerate(zip(self._told, self._host.rows, strict=True)):
            if before is row:
                continue
            _p, old_pid, _uid, old_vsz, old_rss, _rest = before.split(b" ", 5)
            _p, pid, _uid, vsz, rss, peak, anon, swap, _name = row.split(b" ", 8)
            rss_kib += int(rss) - int(old_rss)
            vsz_kib += int(vsz) - int(old_vsz)
            pids += int(pid) - int(old_pid)
            self._told[place] = row
            if pid == old_pid:
                slot = self._slots[place]
                lines.append(b"P %d %b %b %b %b %b 40 0\n" % (slot, vsz, rss, peak, anon, swap))
                continue
            gone.append(self._slots[place])
            if not self._free:
                self._free.append(self._slot_count)
                self._slot_count += 1
            self._slots[place] = self._free.pop()
            lines.append(_new_line(self._slots[place], row))
        self._free += gone
        self._sums = rss_kib, vsz_kib, pids
        return b"".join([*lines, *[b"G %d\n" % slot for slot in gone]])


def _new_line(slot: int, row: bytes) -> bytes:
    _p, pid, uid, vsz, rss, peak, anon, swap, name = row.split(b" ", 8)
    figures = b" ".join([vsz, rss, peak, anon, swap])
    return b"N %d %b %b %d 0 1 %b 40 0 %b\n" % (slot, pid, uid, _STARTED_TICKS + int(pid), figures, name)
