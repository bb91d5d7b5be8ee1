"""What people write first: paramiko, a process for each host, `ps aux` over a new connection, the `statsd` package.

`compare.py` measures fleetmem against it. Competent and in a hurry: it loads its key for each connection because that
is what `connect` does, it accepts unknown host keys as fleetmem's default does, and it sends the same three gauges.
"""

import argparse
from multiprocessing import Pool
from typing import NamedTuple

import paramiko
import statsd


class Job(NamedTuple):
    """One host to sample, and how."""

    host: str
    port: int
    user: str
    key: str
    statsd_host: str
    statsd_port: int


def collect(job: Job) -> int:
    """Samples one host and sends what it said; returns the number of processes."""
    client = paramiko.SSHClient()
    client.set_missing_host_key_policy(paramiko.AutoAddPolicy())  # noqa: S507 - fleetmem's `accept-new`
    client.connect(
        job.host, port=job.port, username=job.user, key_filename=job.key, allow_agent=False, look_for_keys=False
    )
    try:
        _stdin, stdout, _stderr = client.exec_command("ps aux")
        lines = stdout.read().decode(errors="replace").splitlines()[1:]
    finally:
        client.close()
    send(job, lines)
    return len(lines)


def send(job: Job, lines: list[str]) -> None:
    """Sends rss, vsz and pmem of each line of `ps aux`."""
    host = job.host.replace(".", "_")
    with statsd.StatsClient(job.statsd_host, job.statsd_port, prefix="memory").pipeline() as pipe:
        for line in lines:
            _user, pid, _pcpu, pmem, vsz, rss, _tty, _stat, _start, _time, command = line.split(None, 10)
            name = command.split()[0].replace(".", "_").replace(":", "_").replace("/", "_")
            pipe.gauge(f"{host}.{name}.{pid}.rss", int(rss))
            pipe.gauge(f"{host}.{name}.{pid}.vsz", int(vsz))
            pipe.gauge(f"{host}.{name}.{pid}.pmem", float(pmem))


def main() -> None:
    """Samples all hosts, as many times as asked, and prints how many processes the last cycle saw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hosts", required=True, help="comma-separated")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--user", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--statsd", required=True, help="HOST:PORT")
    parser.add_argument("--cycles", type=int, default=1)
    given = parser.parse_args()
    statsd_host, statsd_port = given.statsd.split(":")
    hosts = given.hosts.split(",")
    jobs = [Job(host, given.port, given.user, given.key, statsd_host, int(statsd_port)) for host in hosts]
    counts: list[int] = []
    with Pool(processes=len(hosts)) as pool:
        for _ in range(given.cycles):
            counts = pool.map(collect, jobs, chunksize=1)
    print(f"{sum(counts)} processes")


if __name__ == "__main__":
    main()
