"""In which order tests run, and which of them in one process, where they run several at a time."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keeps tests that share a module's servers in one process, and lets the quick tests fill the gaps at the end."""
    items.sort(key=lambda item: "unit" in item.path.parts)
    for item in items:
        if isinstance(item, pytest.Function) and _shares_a_fixture(item):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


def _shares_a_fixture(item: pytest.Function) -> bool:
    # No public name says what fixtures a test gets by way of others.
    definitions = item._fixtureinfo.name2fixturedefs
    return any(definitions[name][-1].scope == "module" for name in item.fixturenames if name in definitions)
