"""What keeps the source easy to find one's way in: one name, one thing, and few modules at the top."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

import fleetmem

SOURCE = Path(fleetmem.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))
MOST_AT_THE_TOP = 12


def _twice(places: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: found for name, found in places.items() if len(found) > 1}


@pytest.mark.slow
def test_no_class_name_occurs_twice() -> None:
    """Whoever searches for a class finds it, not three."""
    classes = defaultdict(list)
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef):
                classes[node.name].append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert len(classes) > 300
    assert not _twice(classes)


def test_no_module_name_occurs_twice() -> None:
    """A command's module is called as the command, whatever else has that name; all others have names of their own."""
    modules = defaultdict(list)
    for path in MODULES:
        if path.stem != "__init__" and path.parent.name != "cli":
            modules[path.stem].append(str(path.relative_to(SOURCE)))
    assert len(modules) > 100
    assert not _twice(modules)


def test_few_modules_stand_at_the_top() -> None:
    """The others are in rooms."""
    assert len([path for path in SOURCE.glob("*.py") if path.stem not in ("__init__", "__main__")]) <= MOST_AT_THE_TOP
