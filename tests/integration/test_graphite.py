"""Carbon's plaintext protocol, as a server on the other side reads it."""

import socket
import threading
from collections.abc import Iterator

import pytest

from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.units import format_number

from .servers import Cli, Sshd, wait_for

MEASURES = ("rss_bytes", "vsz_bytes", "mem_percent")


class LineServer:
    """Takes connections, one after the other, and keeps what they send."""

    def __init__(self) -> None:
        self.text = b""
        self.connections = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            connection, _peer = self._socket.accept()
            with connection:
                while data := connection.recv(65536):
                    self.text += data
            if self.text.endswith(b"stop"):
                return
            self.connections += 1

    def lines(self) -> list[str]:
        """Returns the whole lines that came so far."""
        return self.text.decode("ascii").split("\n")[:-1]

    def close(self) -> None:
        """Ends the thread."""
        with socket.create_connection(self._socket.getsockname()) as connection:
            connection.sendall(b"stop")
        self._thread.join()
        self._socket.close()


@pytest.fixture
def carbon() -> Iterator[LineServer]:
    """A server for the plaintext protocol."""
    server = LineServer()
    yield server
    server.close()


def test_graphite_gets_the_json_output_line_by_line(fleet: Sshd, carbon: LineServer, cli: Cli) -> None:
    """Each value of the JSON output is one line `name value time`, with the second that its host was sampled in."""
    options = ("-i", "127.0.1.[1-5]", "-p", fleet.port, "-k", fleet.key, "--graphite", carbon.address)
    result = cli("collect", *options, "--format", "jsonl")
    assert result.status == 0, result.stderr
    wait_for("the connection is over", lambda: carbon.connections == 1)
    outcomes = result.by_host()
    names = FleetNames("fleetmem", outcomes)
    expected, times = {}, {}
    for host, outcome in outcomes.items():
        host_names = names.host(host)
        for process in outcome["processes"]:  # first all of them: two that fold to one name both get a hash
            host_names.process(process["command"], process["pid"])
        for process in outcome["processes"]:
            stem = statsd_plain("fleetmem", host_names.process(process["command"], process["pid"])).head
            for measure in MEASURES:
                expected[stem + measure] = format_number(process[measure])
                times[stem + measure] = int(outcome["taken_unix_seconds"])
    rows = [line.split(" ") for line in carbon.lines()]
    assert all(len(row) == 3 for row in rows)
    processes = [row for row in rows if row[0].startswith("fleetmem.process.")]
    assert {name: value for name, value, _time in processes} == expected
    assert {name: int(seconds) for name, _value, seconds in processes} == times
    assert len(processes) == len(expected), "a line came twice"
    hosts = {name: value for name, value, _time in rows if name.startswith("fleetmem.host.")}
    assert hosts["fleetmem.host.127_0_1_1.up"] == "1"
    assert hosts["fleetmem.host.127_0_1_1.mem_total_bytes"] == str(outcomes["127.0.1.1"]["memory"]["total_bytes"])


@pytest.mark.slow
def test_graphite_that_takes_nothing_ends_with_status_4(fleet: Sshd, cli: Cli) -> None:
    """Nothing listens at the plaintext port: 5 to 7 s later a message that names the address, and 4."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    arguments = ("collect", "-i", "127.0.1.1", "-p", fleet.port, "-k", fleet.key)
    without = cli(*arguments)
    result = cli(*arguments, "--graphite", address)
    assert result.status == 4
    assert 5 <= result.seconds <= without.seconds + 7
    assert address in result.stderr.splitlines()[-1]


@pytest.mark.slow
def test_a_carbon_that_hangs_does_not_delay_statsd(fleet: Sshd, cli: Cli) -> None:
    """With a carbon that accepts and reads nothing, hosts are sampled and the other sink gets its datagrams on time."""
    with (
        socket.create_server(("127.0.0.1", 0), backlog=1) as hung,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as statsd,
    ):
        statsd.bind(("127.0.0.1", 0))
        statsd.settimeout(2.0)
        options = ("-i", "127.0.1.[1-4]", "-p", fleet.port, "-k", fleet.key, "--interval", 1, "-o", "-")
        sinks = ("-g", f"127.0.0.1:{statsd.getsockname()[1]}", "--graphite", f"127.0.0.1:{hung.getsockname()[1]}")
        with cli.run(*options, *sinks) as running:
            wait_for("a cycle is over", running.cycles)
            count = 0
            while len(running.cycles()) < 14:
                statsd.recv(65536)  # two intervals without any fail the test
                count += 1
            assert count >= 14 * 4
            assert all(outcome["ok"] for outcome in running.outcomes())
            assert not sum(cycle["missed"] for cycle in running.cycles()[3:])  # in the first ones hosts log in
