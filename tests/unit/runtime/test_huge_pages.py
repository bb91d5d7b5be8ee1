import asyncio
import re
from pathlib import Path

import pytest

from fleetmem.runtime import huge_pages
from fleetmem.runtime.usage import Usage

_PAGE_BYTES = 2 * 1024 * 1024


def _kib_in_huge_pages() -> int:
    match = re.search(r"AnonHugePages:\s+(\d+) kB", Path("/proc/self/smaps_rollup").read_text())
    assert match
    return int(match[1])


@pytest.mark.slow
def test_memory_is_in_huge_pages_and_says_the_same() -> None:
    """All of a large object is; what it holds does not change."""
    if not huge_pages._huge_page_bytes():
        pytest.skip("this kernel has no huge pages")
    parts = [bytes([number % 251]) * 100_000 for number in range(400)]  # 40 MB, in pieces as a program has them
    before = _kib_in_huge_pages()
    pages = asyncio.run(huge_pages.collapse(_PAGE_BYTES))
    if not pages:
        pytest.skip("this kernel does not do it when asked (Linux 6.1 and later)")
    assert _kib_in_huge_pages() - before > 20_000
    assert all(part == bytes([number % 251]) * 100_000 for number, part in enumerate(parts))


def test_small_memory_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only much memory that has stopped growing is worth it, and once is enough."""
    sizes = iter([50, 500, 600, 700, 701, 702, 703, 900, 901])
    collapsed: list[int] = []
    looked: list[int] = []

    def look(_process: object) -> Usage:
        size = next(sizes, None)
        if size is None:
            raise asyncio.CancelledError
        looked.append(size)
        if len(looked) == 3:
            raise OSError(24, "Too many open files")  # which must end nothing
        return Usage(0.0, size * 1024 * 1024, 0, 0)

    async def collapse(_page_bytes: int) -> int:
        collapsed.append(looked[-1])
        return 1

    monkeypatch.setattr(huge_pages, "usage_of", look)
    monkeypatch.setattr(huge_pages, "collapse", collapse)
    monkeypatch.setattr(huge_pages, "_huge_page_bytes", lambda: _PAGE_BYTES)
    monkeypatch.setattr(huge_pages, "_LOOK_SECONDS", 0)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(huge_pages.keep_in_huge_pages())
    assert collapsed == [701, 901]
