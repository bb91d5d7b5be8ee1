"""Prints the biggest process of each host, cycle after cycle, until Ctrl-C: `biggest_processes.py fleetmem.toml`."""

import asyncio
import sys

import fleetmem


async def main(config: str) -> None:
    """Samples the hosts of a configuration every 2 s."""
    async with fleetmem.Fleet(config=config, interval=2) as fleet:
        async for cycle in fleet.cycles():
            for sample in cycle.samples:
                biggest = max(sample.shaped.processes, key=lambda process: process.rss_bytes)
                print(f"{sample.host.name} {biggest.command} {biggest.pid} {biggest.rss_bytes}", flush=True)


asyncio.run(main(sys.argv[1]))
