"""The documentation as a site, and the links between its pages."""

import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

REPOSITORY = Path(__file__).parents[2]
PAGES = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "docs").rglob("*.md"))
AT_THE_TOP = sorted(path.name for path in REPOSITORY.glob("*.md"))

_LINK = re.compile(r"\]\(([^)\s]+)\)")


def _without_code(text: str) -> str:
    return re.sub(r"`[^`\n]*`", "", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def _anchors(text: str) -> set[str]:
    """Returns the anchors of a page's headings, as GitHub and MkDocs make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE), re.MULTILINE)
    return {re.sub(r"[\s-]+", "-", re.sub(r"[^\w\s-]", "", heading.lower()).strip()) for heading in headings}


@pytest.mark.parametrize("page", [*AT_THE_TOP, *PAGES])
def test_each_link_leads_to_a_file_and_a_heading(page: str) -> None:
    """A link to a page that moved, or to a heading that was renamed, is found here."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for link in _LINK.findall(_without_code(text)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = ((REPOSITORY / page).parent / path).resolve() if path else REPOSITORY / page
        assert target.exists(), link
        if anchor:
            assert anchor in _anchors(target.read_text(encoding="utf-8")), link


def test_the_navigation_has_each_page_once() -> None:
    """A page that is not in mkdocs.yml is found by nobody."""
    listed = re.findall(r"[\w/-]+\.md", (REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))
    assert sorted(f"docs/{page}" for page in listed) == PAGES


def test_the_theme_fetches_no_font() -> None:
    """Material loads its fonts from Google unless it is told not to."""
    assert yaml.safe_load((REPOSITORY / "mkdocs.yml").read_text(encoding="utf-8"))["theme"]["font"] is False


class _Resources(HTMLParser):
    """Collects what a browser loads for a page; a link that somebody must click is not among it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [value or "" for name, value in attrs if tag != "a" and name in ("href", "src", "srcset", "data")]


@pytest.mark.long
def test_the_site_builds_and_loads_nothing_from_elsewhere() -> None:
    """`make docs` is strict: a warning ends it. No page and no stylesheet has a resource of another server."""
    subprocess.run(["make", "docs"], cwd=REPOSITORY, check=True, timeout=300)
    site = REPOSITORY / ".cache" / "site"
    pages = list(site.rglob("*.html"))
    assert len(pages) > len(PAGES)
    for page in pages:
        resources = _Resources()
        resources.feed(page.read_text(encoding="utf-8"))
        assert resources.found
        assert not [each for each in resources.found if re.match(r"(https?:)?//", each)], page
    for sheet in site.rglob("*.css"):
        text = sheet.read_text(encoding="utf-8")
        assert not re.search(r"@import|url\([\"']?(https?:)?//", text), sheet
