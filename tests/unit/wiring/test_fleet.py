import asyncio
import pickle
import socket
from pathlib import Path
from typing import Any

import pytest

from fleetmem.config import Settings, load
from fleetmem.errors import ConfigError, UsageError
from fleetmem.shape.shaper import Shaper
from fleetmem.sinks.pages.metrics_page import PrometheusSink
from fleetmem.wiring.fleet import FleetParts, build, build_fleet
from fleetmem.wiring.fleet_spec import FleetSpec
from unit.builders import process, sample, snapshot
from unit.sinks.pages.certificates import Authority


def _build(current: FleetParts | None = None, *, hosts: str = "a,b", user: str = "u", **shape: Any) -> FleetParts:
    flags = {"inventory": {"hosts": [hosts]}, "ssh": {"user": user}, "shape": shape}
    return build_fleet(load(None, flags), lambda _path: None, current)


def _shaper(fleet: FleetParts, name: str = "a") -> Shaper:
    """Returns the shaper that a host has, or gets with its first sample."""
    host = next(host for host in fleet.hosts if host.name == name)
    collector = fleet.collector
    return collector._shapers.get(host) or collector._shapers.setdefault(host, collector._make_shaper(host))


def _kept(shaper: Shaper, processes: int) -> int:
    """Returns how many processes of a sample are kept."""
    return len(shaper.shape(snapshot(*[process(pid) for pid in range(processes)]), 0.0).processes)


def test_the_budget_of_a_host() -> None:
    """Room for `other` and the host itself is reserved; what is left is for rows."""
    assert _kept(_shaper(_build(max_series_per_host=15 + 6)), 9) == 2
    assert _kept(_shaper(_build()), 4000) == (10_000 - 15) // 3
    assert _kept(_shaper(_build(max_series_per_host=0)), 4000) == 4000
    assert _shaper(_build(max_series_per_host=0))._budget is None


def test_the_budget_of_a_fleet() -> None:
    """All hosts have their reserve; the rest is first come, first served."""
    fleet = _build(max_series=2 * 15 + 3 * 3)
    assert [_kept(_shaper(fleet, name), 2) for name in ("a", "b")] == [2, 1]


def test_a_single_cycle_has_no_budget() -> None:
    """What `collect` builds keeps everything."""
    settings = load(None, {"inventory": {"hosts": ["a"]}, "shape": {"max_series_per_host": 24, "max_series": 24}})
    shape = settings.shape.without_budget()
    fleet = build_fleet(settings.model_copy(update={"shape": shape}), lambda _path: None)
    assert _kept(_shaper(fleet), 4000) == 4000


def test_a_fleet_budget_that_is_too_small() -> None:
    """The message names the key and the least that does."""
    with pytest.raises(ConfigError, match=r"shape\.max_series: 2 hosts have 30 series .* 30 or more, 0 for no limit"):
        _build(max_series=29)
    assert _build(max_series=30).series.room == 0


def test_a_reload_keeps_the_past() -> None:
    """With the same shape settings shapers and pool go on, also over new connections; the pool follows the hosts."""
    old = _build(max_series=100)
    shaper = _shaper(old)
    _kept(shaper, 4)
    new = _build(old, hosts="a,b,c", user="other", max_series=100)
    assert _shaper(new) is shaper
    assert new.series is old.series
    assert (new.series.used, new.series.room) == (12, 100 - 3 * 15)


def test_a_reload_with_another_shape_begins_anew() -> None:
    """Other limits, other series: nothing is known of those before, and nothing of them counts."""
    old = _build(max_series=100)
    shaper = _shaper(old)
    _kept(shaper, 4)
    new = _build(old, max_series=100, top=1)
    assert _shaper(new) is not shaper
    assert new.series.used == 0


def test_a_reload_that_fails_changes_nothing() -> None:
    """The fleet that goes on has the room it had."""
    old = _build(max_series=38)
    with pytest.raises(ConfigError, match=r"shape\.max_series: 3 hosts have 45 series"):
        _build(old, hosts="a,b,c", max_series=38)
    assert old.series.room == 38 - 30


def test_a_host_that_is_gone_gives_its_series_back() -> None:
    """After a reload without it the others may have them."""
    old = _build(max_series=100)
    _kept(_shaper(old, "b"), 4)
    new = _build(old, hosts="a", max_series=100)
    asyncio.run(old.collector.close())
    assert new.series.used == 0


def _load(**sinks: dict[str, Any]) -> Settings:
    return load(None, {"inventory": {"hosts": ["a"]}, **sinks})


def _reload(fleet: FleetParts, settings: Settings) -> FleetParts:
    return build_fleet(settings, lambda _path: None, fleet)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.mark.slow
def test_a_reload_that_changes_how_carbon_is_spoken_to(tmp_path: Path) -> None:
    """The new sink waits on disk where the old one did, and delivers what the old one left there."""
    with socket.create_server(("127.0.0.1", 0)) as carbon:
        address = f"127.0.0.1:{carbon.getsockname()[1]}"

        async def scenario() -> None:
            graphite = {"server": address, "spool_dir": str(tmp_path), "spool_max_age_seconds": 1e10}
            old = build_fleet(_load(graphite=graphite), lambda _path: None)
            new = _reload(old, _load(graphite=graphite | {"spool_max_size": "1MiB"}))
            (old_sink,), (new_sink,) = old.collector.sinks, new.collector.sinks
            assert old_sink is not new_sink
            old_sink.put(sample(host=old.hosts[0]))
            await old_sink.close()
            running = asyncio.create_task(new_sink.run())
            await new_sink.drain()
            running.cancel()
            await new_sink.close()

        asyncio.run(scenario())
        with carbon.accept()[0] as connection:
            assert connection.recv(100).startswith(b"fleetmem.host.a.up 1 ")


def test_a_reload_that_shows_the_page_to_others() -> None:
    """Port and address of the old page overlap with those of the new one."""

    async def scenario() -> None:
        port = _free_port()
        old = build_fleet(_load(prometheus={"listen": f"127.0.0.1:{port}"}), lambda _path: None)
        new = _reload(old, _load(prometheus={"listen": f"0.0.0.0:{port}"}))
        await old.collector.sinks[0].close()
        running = asyncio.create_task(new.collector.sinks[0].run())
        await asyncio.sleep(0)
        socket.create_connection(("127.0.0.1", port)).close()
        running.cancel()
        await new.collector.sinks[0].close()

    asyncio.run(scenario())


def test_a_reload_of_a_guarded_page(tmp_path: Path) -> None:
    """It keeps the page where it is guarded as the file says, and opens it where the file now does."""
    web = tmp_path / "web.yml"
    hash_ = "$2b$04$" + "a" * 53
    Authority(tmp_path).issue(tmp_path, "page")
    tls = "tls_server_config: {cert_file: page.crt, key_file: page.key}\n"

    async def scenario() -> None:
        settings = _load(prometheus={"listen": str(_free_port()), "web_config": str(web)})
        web.write_text(tls)
        first = build_fleet(settings, lambda _path: None)
        (sink,) = first.collector.sinks
        assert isinstance(sink, PrometheusSink)
        assert sink._guard
        web.write_text("nonsense")
        (refreshed,) = _reload(first, settings).collector.sinks
        assert refreshed is sink
        with pytest.raises(ConfigError):
            _reload(first, settings.model_copy())
        web.write_text(f"{tls}basic_auth_users: {{ann: {hash_}}}\n")
        assert sink._guard.current().config.users
        guarded = _reload(first, settings.model_copy())
        assert guarded.collector.sinks[0] is sink
        web.write_text(tls)
        assert sink._guard.current().config.users
        await sink.close()
        (other,) = _reload(guarded, settings.model_copy()).collector.sinks
        assert isinstance(other, PrometheusSink)
        assert other._guard
        assert not other._guard.current().config.users
        await other.close()

    asyncio.run(scenario())


def test_a_reload_that_fails_holds_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither port nor spool of a configuration that is not taken are in the way of the next one."""
    graphite = {"server": "127.0.0.1:1", "spool_dir": str(tmp_path)}
    file = {"path": str(tmp_path / "memory.jsonl"), "compress": "zstd"}

    async def scenario() -> None:
        port = _free_port()
        prometheus = {"listen": str(port)}
        fleet = build_fleet(_load(), lambda _path: None)
        with monkeypatch.context() as patch:
            patch.setattr("importlib.util.find_spec", lambda _name: None)
            with pytest.raises(UsageError, match="zstd needs a package"):
                _reload(fleet, _load(graphite=graphite, prometheus=prometheus, file=file))
        with socket.create_server(("127.0.0.1", port)), pytest.raises(UsageError, match="in use"):
            _reload(fleet, _load(graphite=graphite, prometheus=prometheus))
        for sink in _reload(fleet, _load(graphite=graphite, prometheus=prometheus)).collector.sinks:
            await sink.close()

    asyncio.run(scenario())


def test_an_ssh_configuration_that_names_hosts_also_says_how_to_reach_them(tmp_path: Path) -> None:
    """Unless another one is given; of two, nobody could know which."""
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_text("Host web01\n  HostName 10.0.0.1\n  User ann\n")
    other.write_text("Host db01\n")

    def built(*sources: Path, **ssh: Any) -> FleetParts:
        inventory = {"sources": [f"ssh:{path}" for path in sources]}
        return build_fleet(load(None, {"inventory": inventory, "ssh": ssh}), lambda _path: None)

    fleet = built(one)
    target = fleet.reach.target(fleet.hosts[0])
    assert (target.address, target.user) == ("10.0.0.1", "ann")
    with pytest.raises(ConfigError, match=r"ssh.config_file \(-F\) must say which one is used: .*one, .*other"):
        built(one, other)
    fleet = built(one, other, config_file=str(one))
    assert [fleet.reach.target(host).address for host in fleet.hosts] == ["10.0.0.1", "db01"]


def _pages(settings: Settings, current: FleetParts | None = None) -> list[str]:
    """Returns where health pages are, and where Prometheus's."""
    fleet = build_fleet(settings, lambda _path: None, current)
    addresses = [service.address for service in reversed(fleet.services)]
    for service in fleet.services:
        asyncio.run(service.close())
    return addresses


def test_health_pages_of_their_own() -> None:
    """At the address that they are given, of this machine alone where that is a port."""
    port, other = _free_port(), _free_port()
    assert _pages(_load(run={"health_listen": str(port)})) == [f"http://127.0.0.1:{port}"]
    assert _pages(_load(run={"health_listen": f"0.0.0.0:{port}"}, prometheus={"listen": str(other)})) == [
        f"http://0.0.0.0:{port}",
        f"http://127.0.0.1:{other}/metrics",
    ]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])  # noqa: S104 - of a page that is closed at once
def test_health_pages_beside_the_metrics(host: str) -> None:
    """Where Prometheus's address is theirs, or all addresses, they have no port of their own."""
    port = _free_port()
    prometheus = {"listen": f"{host}:{port}"}
    assert _pages(_load(run={"health_listen": str(port)}, prometheus=prometheus)) == [f"http://{host}:{port}/metrics"]


def test_health_pages_at_a_port_in_use() -> None:
    """The message names the key; what Prometheus would have had is free again."""
    port = _free_port()
    with socket.create_server(("127.0.0.1", 0)) as other:
        settings = _load(run={"health_listen": str(other.getsockname()[1])}, prometheus={"listen": str(port)})
        with pytest.raises(UsageError, match=r"run\.health_listen: cannot listen on .* the port is in use"):
            build_fleet(settings, lambda _path: None)
        socket.create_server(("127.0.0.1", port)).close()
        settings = _load(run={"health_listen": str(port)}, prometheus={"listen": str(other.getsockname()[1])})
        with pytest.raises(UsageError, match=r"prometheus: cannot listen on .* the port is in use"):
            build_fleet(settings, lambda _path: None)
        socket.create_server(("127.0.0.1", port)).close()


def test_a_single_cycle_has_no_health_pages() -> None:
    """Nor has a dry run."""
    settings = _load(run={"health_listen": str(_free_port()), "interval_seconds": 3.0})
    for changed in (settings.for_one_cycle(), settings.without_sinks()):
        assert _pages(changed) == []
        assert changed.run.interval_seconds == 3.0


def test_a_reload_keeps_the_health_pages() -> None:
    """The site stays, and so does what is known of the cycles; a reload without them takes them away."""
    settings = _load(run={"health_listen": str(_free_port())})
    old = build_fleet(settings, lambda _path: None)
    new = _reload(old, settings)
    assert new.services == old.services
    assert new.health is old.health
    assert _reload(new, _load()).services == []
    asyncio.run(old.services[0].close())


def test_a_reload_that_swaps_the_ports_of_pages() -> None:
    """Each new site has the port that the other one has until then."""

    async def scenario() -> None:
        ports = [str(_free_port()), str(_free_port())]
        old = build_fleet(_load(run={"health_listen": ports[0]}, prometheus={"listen": ports[1]}), lambda _path: None)
        new = _reload(old, _load(run={"health_listen": ports[1]}, prometheus={"listen": ports[0]}))
        for service in old.services:
            await service.close()
        running = [asyncio.create_task(service.run()) for service in new.services]
        await asyncio.sleep(0)
        for port in ports:
            socket.create_connection(("127.0.0.1", int(port))).close()
        for task, service in zip(running, new.services, strict=True):
            task.cancel()
            await service.close()

    asyncio.run(scenario())


def test_what_a_sample_may_take() -> None:
    """All limits on the way, a jump host's as well: health goes by the longest."""
    seconds = {"connect_timeout_seconds": 1.0, "login_timeout_seconds": 2.0, "command_timeout_seconds": 4.0}
    for jump, expected in (("none", 7.0), ("bastion", 10.0), ("b1,b2", 13.0)):
        ssh = seconds | {"jump": jump}
        fleet = build_fleet(load(None, {"inventory": {"hosts": ["a,b"]}, "ssh": ssh}), lambda _path: None)
        assert fleet.longest_sample_seconds == expected


def test_shards_tell_the_same_names_apart() -> None:
    """Two hosts whose names fold to one keep their own series also where different collectors sample them."""
    names = set()
    for shard in ("0/2", "1/2"):
        inventory = {"hosts": ["web[01-20].x,web[01-20]-x"], "shard": shard}
        fleet = build_fleet(load(None, {"inventory": inventory}), lambda _path: None)
        names |= {(host.name, fleet.names.host(host.name).host) for host in fleet.hosts}
    assert len({place for _name, place in names}) == len({name for name, _place in names}) == 40


def _shares(workers: int, hosts: str = "web[001-400]", **sections: Any) -> list[FleetSpec]:
    fleet = build_fleet(load(None, {"inventory": {"hosts": [hosts]}, **sections}), lambda _path: None)
    asyncio.run(_close(fleet))
    return fleet.spec.shares(workers)


async def _close(fleet: FleetParts) -> None:
    for service in fleet.services:
        await service.close()


@pytest.mark.parametrize("workers", [2, 3, 7])
def test_workers_share_a_fleet_out(workers: int) -> None:
    """Each host belongs to one of them; all know all names; none has much more than the others."""
    shares = _shares(workers)
    names = [host.name for share in shares for host in share.hosts]
    assert sorted(names) == sorted(set(names)) == sorted(shares[0].host_names)
    assert all(0.7 < len(share.hosts) * workers / 400 < 1.3 for share in shares)


def test_workers_of_a_shard_share_it_out_once_more() -> None:
    """By another key: by the same one, one worker would have all hosts of shard 0/2, and the other none."""
    shares = _shares(2, inventory={"hosts": ["web[001-400]"], "shard": "0/2"})
    assert all(len(share.hosts) > 50 for share in shares)
    assert sum(len(share.hosts) for share in shares) < 300


def test_workers_share_limits() -> None:
    """What holds for the whole fleet is divided; a limit that is none stays none; one login at least is left."""
    ssh = {"concurrency": 64, "handshakes_per_second": 150, "jump_handshakes": 2, "most_refusals": 5}
    (share, *_others) = _shares(4, ssh=ssh, shape={"max_series": 400 * 15 + 40})
    limits = share.reach.limits
    assert (limits.max_handshakes, limits.max_connects, limits.handshakes_per_second) == (16, 128, 37.5)
    assert (limits.jump_handshakes, limits.jump_handshakes_per_second, limits.most_refusals) == (1, 12.5, 1)
    assert share.senders == 4
    shares = _shares(4, ssh={"handshakes_per_second": 0, "most_refusals": 0}, shape={"max_series": 400 * 15})
    assert (shares[0].reach.limits.handshakes_per_second, shares[0].reach.limits.most_refusals) == (0, 0)
    for each in shares:  # room for what each host has in any case, to the last one
        assert build(each, lambda _path: None).series.room == each.max_series - 15 * len(each.hosts) >= 0
    assert sum(each.max_series for each in shares) <= 400 * 15


def test_workers_have_no_sink_that_is_there_once(tmp_path: Path) -> None:
    """They send to StatsD; ports, spool and files are the main process's."""
    sinks: dict[str, Any] = {
        "statsd": {"server": ["s1", "s2"]},
        "graphite": {"server": "c", "spool_dir": str(tmp_path)},
        "prometheus": {"listen": str(_free_port())},
        "file": {"path": str(tmp_path / "f")},
        "run": {"health_listen": str(_free_port())},
    }
    share = _shares(2, **sinks)[0]
    fleet = build(share, lambda _path: None)
    assert [sink.name for sink in fleet.collector.sinks] == ["statsd", "statsd_2"]
    assert not fleet.sites
    assert not fleet.single_sinks
    assert pickle.loads(pickle.dumps(share)) == share  # noqa: S301 - our own
