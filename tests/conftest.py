"""In which order tests run, and which of them one after the other, where several run at a time."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps each module of tests with real servers in one process; the quick tests fill the gaps at the end.

    The tests of such a module share servers, and start processes by the same names, which each host shows.
    """
    items.sort(key=_is_quick)
    for item in items:
        if not _is_quick(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _is_quick(item: pytest.Item) -> bool:
    return "unit" in item.path.parts
