"""The lists of packages that are installed: each version has hashes, none has an address."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[2]
LISTS = ("build", "dev", "run")

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


def _wanted(*extras: str) -> set[str]:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(text for extra in extras for text in project["optional-dependencies"][extra])]
    return {canonicalize_name(Requirement(text).name) for text in texts}


@pytest.mark.parametrize("name", LISTS)
def test_no_address(name: str) -> None:
    """Packages come from wherever the user's pip takes them."""
    text = (REPOSITORY / "requirements" / f"{name}.txt").read_text(encoding="utf-8")
    assert "://" not in text
    assert "index" not in text


@pytest.mark.parametrize("name", LISTS)
def test_versions_are_those_of_the_constraints(name: str) -> None:
    """One version of a package, whether pip is given the constraints or the list with hashes."""
    lines = (REPOSITORY / "constraints.txt").read_text(encoding="utf-8").splitlines()[1:]
    constraints = {
        canonicalize_name(package): version for package, _, version in (line.partition("==") for line in lines)
    }
    assert _locked(name).items() <= constraints.items()


def test_nothing_is_left_out() -> None:
    """What pyproject.toml asks for is in the lists: of the image, and of a contributor."""
    assert _wanted("aws", "zstd") <= _locked("run").keys()
    assert _wanted("aws", "zstd", "dev", "bench") <= _locked("dev").keys()


def test_bounds_admit_what_is_locked() -> None:
    """Each lower bound of pyproject.toml admits the version that is locked."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = _locked("dev")
    extras = [text for texts in project["optional-dependencies"].values() for text in texts]
    for requirement in map(Requirement, [*project["dependencies"], *extras]):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)], prereleases=True), (
            requirement
        )
