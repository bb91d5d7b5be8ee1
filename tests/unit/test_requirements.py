"""The lists of packages that are installed: each version has hashes, none has an address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
LISTS = ("build", "dev", "run", "docs")

_PINNED = re.compile(r"([A-Za-z0-9._-]+)==([^\s;]+)")
_HASH = re.compile(r"\s+--hash=sha256:[0-9a-f]{64}")


def _locked(name: str) -> dict[str, str]:
    """Returns the versions that a list names, by package; fails where a package has no hash."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    versions: dict[str, str] = {}
    for entry in text.replace("\\\n", "").splitlines():
        head = _PINNED.match(entry)
        assert head, entry
        assert _HASH.search(entry), head[0]
        versions[canonicalize_name(head[1])] = head[2]
    return versions


_PYPROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
_PUBLISHED: dict[str, list[str]] = _PYPROJECT["project"]["optional-dependencies"]
_GROUPS: dict[str, list[str]] = _PYPROJECT["dependency-groups"]
_ALWAYS: list[str] = _PYPROJECT["project"]["dependencies"]


def _names(*lists: list[str]) -> set[str]:
    return {canonicalize_name(Requirement(text).name) for texts in lists for text in texts}


@pytest.mark.parametrize("name", LISTS)
def test_no_address(name: str) -> None:
    """Packages come from wherever the user's pip takes them."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text


@pytest.mark.parametrize("name", ["build", "dev", "run"])
def test_versions_are_those_of_the_constraints(name: str) -> None:
    """One version of a package, whether pip is given the constraints or the list with hashes."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    constraints = {
        canonicalize_name(package): version for package, _, version in (line.partition("==") for line in lines)
    }
    assert _locked(name).items() <= constraints.items()


def test_the_site_has_an_environment_of_its_own() -> None:
    """What builds the documentation has hashes, too, and is not installed for anything else."""
    assert "mkdocs-material" in _locked("docs")
    assert "mkdocs-material" not in _locked("dev")


def test_nothing_is_left_out() -> None:
    """What pyproject.toml asks for is in the lists: of the image, and of a contributor."""
    assert _names(_ALWAYS, *_PUBLISHED.values()) <= _locked("run").keys()
    assert _names(_ALWAYS, *_PUBLISHED.values(), *_GROUPS.values()) <= _locked("dev").keys()


def test_the_image_has_no_tool_of_contributors() -> None:
    """Groups of contributors stay out of the list that users get."""
    contributors_only = _names(*_GROUPS.values()) - _names(_ALWAYS, *_PUBLISHED.values())
    assert not contributors_only & _locked("run").keys()


def test_bounds_admit_what_is_locked() -> None:
    """Each lower bound of pyproject.toml admits the version that is locked."""
    locked = _locked("dev")
    texts = [text for part in (*_PUBLISHED.values(), *_GROUPS.values()) for text in part]
    for requirement in map(Requirement, [*_ALWAYS, *texts]):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)], prereleases=True), (
            requirement
        )
