import json
import logging
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory import inventory as module
from fleetmem.inventory.inventory import Inventory, InventoryStats, Shard
from fleetmem.inventory.listing import Means
from fleetmem.inventory.sources import parse_sources
from fleetmem.model import Host
from fleetmem.rendezvous import shard_of


def _inventory(*specs: str, sources: tuple[str, ...] = (), limit: str | None = None, seconds: float = 30) -> Inventory:
    return Inventory(parse_sources(specs, sources), limit, Means(timeout_seconds=seconds))


def _names(hosts: list[Host]) -> list[str]:
    return [host.name for host in hosts]


def _write_hosts(path: Path, *entries: dict[str, object] | str) -> None:
    """Writes a JSON inventory whole, as whoever makes one should."""
    new = path.with_suffix(".new")
    hosts = [{"name": entry} if isinstance(entry, str) else entry for entry in entries]
    new.write_text(json.dumps(hosts), encoding="utf-8")
    new.replace(path)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An inventory of ten hosts."""
    path = tmp_path / "hosts.json"
    _write_hosts(path, *(f"h{number}" for number in range(10)))
    return path


def test_the_order_stays_and_duplicates_fold() -> None:
    """A host that is named twice is sampled once, where it was named first."""
    assert _names(_inventory("b,a", "a", "c[1-2],b").read()) == ["b", "a", "c1", "c2"]


def test_one_address_with_two_ports_is_two_hosts() -> None:
    """Several hosts may live behind one address."""
    assert _names(_inventory("a:22,a:23,a").read()) == ["a:22", "a:23", "a"]


@pytest.mark.parametrize("specs", [[], [""], [" , "]])
def test_no_host_at_all_is_an_error(specs: list[str]) -> None:
    """An empty inventory is never a successful cycle of nothing."""
    with pytest.raises(InventoryError, match="no hosts: give -i HOST"):
        _inventory(*specs).read()


def test_an_inventory_without_hosts_is_named(path: Path) -> None:
    """What has no hosts, and what it is called."""
    _write_hosts(path)
    with pytest.raises(InventoryError, match=f"no hosts in json:{path}"):
        _inventory(sources=(f"json:{path}",)).read()


def test_names_and_inventories_come_together(path: Path) -> None:
    """`-i` and `--inventory` add up, in this order, and a host in both is one."""
    assert _names(_inventory("z,h3", sources=(f"json:{path}",)).read()) == [
        "z",
        "h3",
        *(f"h{number}" for number in range(10) if number != 3),
    ]


def test_a_limit_chooses_among_all(path: Path) -> None:
    """Whatever the hosts come from."""
    assert _names(_inventory("z", sources=(str(path),), limit="h[0-3]:z:!h2").read()) == ["h0", "h1", "h3", "z"]


def test_shards_have_each_host_once() -> None:
    """Whatever collector reads the list; the limit comes first."""
    sources = parse_sources(["web[01-30]", "db[01-10]"], ())
    shares = [Inventory(sources, "web*", shard=Shard(number, 3)).read() for number in range(3)]
    assert sorted(_names([host for share in shares for host in share])) == [f"web{n:02d}" for n in range(1, 31)]
    assert all(shares)


def test_a_shard_without_hosts_is_an_error() -> None:
    """Of two shards one has no host of one."""
    mine = shard_of("web01", 2)
    assert _names(Inventory(parse_sources(["web01"], ()), shard=Shard(mine, 2)).read()) == ["web01"]
    with pytest.raises(InventoryError, match=rf"shard {1 - mine}/2 has none of 1 hosts: use fewer shards"):
        Inventory(parse_sources(["web01"], ()), shard=Shard(1 - mine, 2)).read()


def test_a_limit_that_matches_nothing_is_an_error(path: Path) -> None:
    """It is never a successful cycle of nothing, either."""
    with pytest.raises(InventoryError, match=r"limit 'x\*' matches none of 10 hosts"):
        _inventory(sources=(str(path),), limit="x*").read()


def test_the_first_reading_fails_as_a_whole(path: Path) -> None:
    """At the start one inventory that cannot be read is an error, whatever the others say."""
    with pytest.raises(InventoryError, match="nowhere"):
        _inventory("a", sources=(str(path), "json:/nowhere")).read()


def test_a_refresh_tells_what_changed(path: Path) -> None:
    """Hosts that come, go, move, or have other groups and labels are changes; to say the same is none."""
    inventory = _inventory(sources=(str(path),))
    inventory.read()
    assert not inventory.refresh()
    _write_hosts(path, *(f"h{number}" for number in range(1, 11)))
    assert inventory.refresh()
    assert _names(inventory.hosts) == [f"h{number}" for number in range(1, 11)]
    for change in ({"address": "10.0.0.1"}, {"groups": ["web"]}, {"labels": {"env": "prod"}}):
        _write_hosts(path, *(f"h{number}" for number in range(1, 10)), {"name": "h10", **change})
        assert inventory.refresh(), change
        assert not inventory.refresh()
    assert inventory.hosts[-1].labels == {"env": "prod"}


def test_hosts_that_are_named_one_by_one_cannot_change(path: Path) -> None:
    """Without anything else there is nothing to read again; a hosts file is something else."""
    assert not _inventory("a,b").can_change
    assert _inventory("a", sources=(str(path),)).can_change
    assert _inventory(f"a,@{path}").can_change


def test_an_inventory_that_fails_keeps_its_hosts_and_says_so_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """One line for each different problem, one when it is over; the failures are counted all."""
    caplog.set_level(logging.INFO, "fleetmem")
    inventory = _inventory("z", sources=(str(path),))
    before = inventory.read()
    path.write_text("[")
    for _ in range(3):
        assert not inventory.refresh()
    assert inventory.hosts == before
    assert inventory.stats == InventoryStats(11, 3, 1)
    path.unlink()
    assert not inventory.refresh()
    _write_hosts(path, *(f"h{number}" for number in range(10)))
    assert not inventory.refresh()
    assert inventory.stats == InventoryStats(11, 4, 0)
    messages = [record.message for record in caplog.records]
    assert [message.partition(":")[0] for message in messages] == ["inventory"] * 3
    assert "not JSON" in messages[0]
    assert "no such file" in messages[1]
    assert messages[2] == f"inventory: json:{path} can be read again"


@pytest.mark.parametrize(("left", "is_taken"), [(0, False), (1, True), (2, True)])
def test_an_inventory_that_is_all_but_empty_is_taken_for_broken(path: Path, left: int, is_taken: bool) -> None:
    """Less than a tenth of the hosts that it had: that is an API that lost its filter more often than a fleet."""
    inventory = _inventory(sources=(str(path),))
    inventory.read()
    _write_hosts(path, *(f"h{number}" for number in range(left)))
    assert inventory.refresh() == is_taken
    assert len(inventory.hosts) == (left if is_taken else 10)
    assert inventory.stats.inventory_stale == (not is_taken)


def test_no_thread_to_read_with(path: Path, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> None:
    """Where there may be no more threads it counts as a reading that failed."""
    inventory = _inventory(sources=(f"json:{path}",))
    inventory.read()
    request.getfixturevalue("no_threads")
    assert not inventory.refresh()
    assert (len(inventory.hosts), inventory.stats.inventory_failures_total) == (10, 1)
    assert "no more threads may be started" in caplog.text


def test_one_inventory_that_fails_does_not_hold_up_the_others(path: Path, tmp_path: Path) -> None:
    """Each keeps its own last hosts."""
    other = tmp_path / "other.json"
    _write_hosts(other, "o1")
    inventory = _inventory(sources=(str(path), str(other)))
    inventory.read()
    path.unlink()
    _write_hosts(other, "o1", "o2")
    assert inventory.refresh()
    assert _names(inventory.hosts)[-2:] == ["o1", "o2"]
    assert len(inventory.hosts) == 12


@pytest.mark.parametrize("limit", [None, "h*:!gone"])
def test_inventories_that_cannot_be_used_together_keep_all_hosts(
    path: Path, limit: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """A contradiction, and a limit that names a group that is gone: the fleet stays, and it is said once."""
    _write_hosts(path, *(f"h{number}" for number in range(9)), {"name": "h9", "groups": ["gone"]})
    inventory = _inventory("h8", sources=(str(path),), limit=limit)
    before = inventory.read()
    _write_hosts(path, *(f"h{number}" for number in range(9) if number != 8 or limit), {"name": "h8", "address": "x"})
    if limit:
        _write_hosts(path, *(f"h{number}" for number in range(9)))
    for _ in range(2):
        assert not inventory.refresh()
    assert inventory.hosts == before
    assert inventory.stats.inventory_failures_total == 2
    assert len(caplog.records) == 1
    assert ("no host or group 'gone'" if limit else "listed with two addresses") in caplog.text


@pytest.mark.slow
def test_what_hangs_is_left_behind_and_not_asked_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that does not answer (a FIFO that nobody writes to) is an error in time, and one thread for good."""
    monkeypatch.setattr(module, "_GRACE_SECONDS", 0.0)
    path = tmp_path / "hosts"
    path.write_text("a\nb\n")
    inventory = _inventory(f"@{path}", seconds=0.1)
    before = inventory.read()
    path.unlink()
    os.mkfifo(path)
    threads = threading.active_count()
    for _ in range(3):
        begun = time.monotonic()
        assert not inventory.refresh()
        assert time.monotonic() - begun < 5
        assert threading.active_count() == threads + 1
    assert inventory.hosts == before
    path.write_text("a\nb\nc\n")  # whoever reads gets it now
    monkeypatch.setattr(module, "_GRACE_SECONDS", 20.0)
    assert inventory.refresh()
    assert _names(inventory.hosts) == ["a", "b", "c"]


def test_inventories_are_read_side_by_side(tmp_path: Path) -> None:
    """Two programs that wait for each other both answer."""
    for name in ("a", "b"):
        os.mkfifo(tmp_path / name)
    talk = 'echo hello > {0} & read line < {1}; wait; echo \'[{{"name": "{2}"}}]\''
    sources = tuple(
        f"command:sh -c {json.dumps(talk.format(tmp_path / mine, tmp_path / other, mine))}".replace('\\"', '\\"')
        for mine, other in (("a", "b"), ("b", "a"))
    )
    assert _names(_inventory(sources=sources, seconds=20).read()) == ["a", "b"]


def test_close_ends_a_program_that_runs(tmp_path: Path) -> None:
    """What a stop leaves behind would otherwise run on."""
    program, pid_file = tmp_path / "slow", tmp_path / "pid"
    program.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new; mv {pid_file}.new {pid_file}\nexec sleep 60\n")
    program.chmod(0o755)
    inventory = _inventory(sources=(f"command:{program}",), seconds=50)
    errors: list[Exception] = []

    def read() -> None:
        try:
            inventory.read()
        except InventoryError as error:
            errors.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    until = time.monotonic() + 20
    while not pid_file.exists() and time.monotonic() < until:
        time.sleep(0.01)
    os.kill(int(pid_file.read_text()), 0)  # it is there
    inventory.close()
    thread.join(20)
    assert not thread.is_alive()
    assert f"exit status -{signal.SIGKILL}" in str(errors[0])
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid_file.read_text()), 0)


def test_what_is_left_out_is_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Not with every reading; again once it is something else."""
    path = tmp_path / "targets.json"
    path.write_text(json.dumps([{"targets": ["a:1", "https://x.example.com/"]}]))
    inventory = _inventory(sources=(f"file_sd:{path}",))
    inventory.read()
    inventory.refresh()
    assert [record.message for record in caplog.records] == [
        f"inventory file_sd:{path}: left out, no hosts: https://x.example.com/"
    ]
    path.write_text(json.dumps([{"targets": ["a:1", "https://y.example.com/"]}]))
    inventory.refresh()
    assert len(caplog.records) == 2


def test_counters_go_on_over_a_reload(path: Path) -> None:
    """An inventory that takes the place of another one counts on."""
    before = _inventory(sources=(str(path),))
    before.read()
    path.unlink()
    before.refresh()
    assert Inventory(parse_sources(["a"], []), before=before).stats.inventory_failures_total == 1


def test_odd_entries_cost_themselves(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """With each reading the good ones come and go; the odd ones are logged once, and counted."""
    path = tmp_path / "hosts"
    path.write_text("good01\nweb 01 (prod)\ndb/primary, good02, good03:70000\n")
    inventory = _inventory(sources=(f"hosts:{path}",))
    assert [host.name for host in inventory.read()] == ["good01", "good02"]
    assert inventory.stats.inventory_entries_left_out == 3
    assert [record.message for record in caplog.records] == [
        f"inventory: left out: hosts file {path}, line {reason}"
        for reason in (
            "2: host '(prod)': '(prod)' is not a host name; expected [user@]host[:port], web[01-50] or [::1]:22 "
            "(all of 'web 01 (prod)' is left out)",
            "3: host 'db/primary': 'db/primary' is not a host name; expected [user@]host[:port], web[01-50] or "
            "[::1]:22",
            "3: host 'good03:70000': '70000' is not a port (1 to 65535); IPv6 is written [::1]:22",
        )
    ]
    path.write_text("good01\ngood04\nweb 01 (prod)\n")
    caplog.clear()
    assert inventory.refresh()
    assert [host.name for host in inventory.hosts] == ["good01", "good04"]
    assert inventory.stats.inventory_entries_left_out == len(inventory.left_out) == 1
    assert len(caplog.records) == 1  # it stands on another line now
    path.write_text("web 01 (prod)\n")
    assert not inventory.refresh()
    assert [host.name for host in inventory.hosts] == ["good01", "good04"]
    assert inventory.stats.inventory_stale == 1


def test_nothing_left_is_an_error(tmp_path: Path) -> None:
    """The message says why the first ones are left out."""
    path = tmp_path / "hosts"
    path.write_text("a/b\n" * 9)
    with pytest.raises(InventoryError, match=r"no hosts in hosts:.*line 1: .*line 3: .*left out: 6 more entries"):
        _inventory(sources=(f"hosts:{path}",)).read()


def test_many_odd_entries_are_few_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A hundred of them, and how many more there are."""
    path = tmp_path / "hosts"
    path.write_text("good01\n" + "a/b\n" * 1000)
    _inventory(sources=(f"hosts:{path}",)).read()
    assert len(caplog.records) == 101
    assert caplog.records[-1].message == "inventory: left out: 900 more entries"
