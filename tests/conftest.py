"""In which order tests run."""

import pytest


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Lets the modules of tests with real servers begin; the quick tests fill the gaps at the end."""
    items.sort(key=lambda item: "unit" in item.path.parts)
