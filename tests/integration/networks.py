"""Network namespaces: machines with no way to each other but the one that a test lays."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import pytest

from .servers import find_tool


@dataclass(frozen=True)
class Machine:
    """A network namespace.

    Attributes:
        name: as `ip netns` has it.
    """

    name: str

    @property
    def wrapper(self) -> list[str]:
        """Words that run a command in it."""
        return [find_tool("ip"), "netns", "exec", self.name]


@contextmanager
def line_of_machines(count: int, hosts: int) -> Iterator[list[Machine]]:
    """Makes machines that are linked one to the next, and know no way to any other.

    The link between machine N and N + 1, from 0, is 10.219.N.0/24: machine N has address 254 of it, and machine N + 1
    address 1; the last machine has so many addresses, from 1 on.
    """
    if os.getuid() != 0:
        pytest.skip("only root can make network namespaces")
    token = secrets.token_hex(3)
    machines = [Machine(f"fm-{token}-{number}") for number in range(count)]
    made: list[Machine] = []
    try:
        for machine in machines:
            _ip("netns", "add", machine.name)
            made.append(machine)
            _ip("-n", machine.name, "link", "set", "lo", "up")
        for number, (near, far) in enumerate(pairwise(machines)):
            _ip("link", "add", "near", "netns", near.name, "type", "veth", "peer", "name", "far", "netns", far.name)
            _address(near, "near", f"10.219.{number}.254")
            for last in range(1, hosts + 1 if far is machines[-1] else 2):
                _address(far, "far", f"10.219.{number}.{last}")
        yield machines
    finally:
        for machine in made:
            _ip("netns", "del", machine.name)


def _address(machine: Machine, device: str, address: str) -> None:
    _ip("-n", machine.name, "address", "add", f"{address}/24", "dev", device)
    _ip("-n", machine.name, "link", "set", device, "up")


def _ip(*words: str) -> None:
    done = subprocess.run([find_tool("ip"), *words], capture_output=True, text=True, check=False)
    if done.returncode:
        if "Operation not permitted" in done.stderr:
            pytest.skip(f"root may not make network namespaces here: {done.stderr.strip()}")
        pytest.fail(f"ip {' '.join(words)}: {done.stderr}")
