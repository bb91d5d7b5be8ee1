"""Processes with odd names, for all that read them."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from .resident import NAMES, NAMES_SCRIPT


@pytest.fixture(scope="module")
def named() -> Iterator[dict[int, bytes]]:
    """Processes with odd names that do nothing: pid to name."""
    with subprocess.Popen(
        [sys.executable, "-c", NAMES_SCRIPT, *(name.hex() for name in NAMES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        pids = [int(parent.stdout.readline()) for _ in NAMES]
        assert parent.stdout.readline() == b"\n"
        yield dict(zip(pids, NAMES, strict=True))
        parent.stdin.close()
        assert parent.wait(30) == 0
