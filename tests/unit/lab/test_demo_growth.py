"""The demo finds what grows."""

from dataclasses import replace
from typing import cast

from fleetmem.lab.demo import GROWTH_SECONDS, Watch
from fleetmem.model import Host, ProcessMemory, Sample
from fleetmem.sinks.naming import FleetNames
from fleetmem.wiring.fleet import FleetParts
from unit.builders import WEB, failure, process, sample

_MIB = 1024**2


class _Fleet:
    hosts = (WEB, Host("db1", "10.0.0.2"))
    names = FleetNames("fleetmem", ["web01", "db1"])


def _at(seconds: float, *processes: ProcessMemory, host: Host = WEB) -> Sample:
    return replace(sample(*processes, host=host), taken_unix_seconds=seconds)


def test_what_grows_comes_first() -> None:
    """However small it is; what grows alike is in the order of its size."""
    watch = Watch(cast("FleetParts", _Fleet()))
    for second in range(0, 20, 2):
        big, small = process(1, "big", 900 * _MIB), process(2, "small", 800 * _MIB)
        watch.add(_at(second, big, small, process(3, "leaky", second * _MIB + 4096)))
    watch.add(_at(0, process(1, "other", 850 * _MIB), host=_Fleet.hosts[1]))
    rows = watch.fastest_growing(4)
    assert [row.process.command for row in rows] == ["leaky", "big", "other", "small"]
    assert [row.grown_bytes // _MIB for row in rows] == [18, 0, 0, 0]


def test_growth_is_that_of_the_last_minute() -> None:
    """A leak that starts over grows again from there, and a pid that another process has is another process."""
    watch = Watch(cast("FleetParts", _Fleet()))
    for second, mib in ((0, 1), (30, 20), (30 + GROWTH_SECONDS, 32)):
        watch.add(_at(second, process(3, "leaky", mib * _MIB)))
    assert watch.fastest_growing(1)[0].grown_bytes == 12 * _MIB
    watch.add(_at(100, process(3, "leaky", _MIB)))
    watch.add(_at(102, process(3, "leaky", 2 * _MIB)))
    assert watch.fastest_growing(1)[0].grown_bytes == _MIB
    watch.add(_at(104, process(3, "new", 50 * _MIB)))
    assert watch.fastest_growing(1)[0].grown_bytes == 0
    watch.add(failure())
    assert watch.fastest_growing(1) == []
    assert watch.hosts_answering == 0
