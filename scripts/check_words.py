"""Checks the words of README, docs and help texts: short sentences, short lines, plain words.

    check_words.py [FILE ...]      all documents and the help texts where none is named

A sentence has at most 30 words, a line at most 120 characters. Code and links count as one word, and so does a list of
names such as `a`, `b`, `c`. Blocks of code are not looked at; lines of tables may be longer, their sentences may not.
Ends with status 1 where something is wrong.
"""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import typer
from typer.main import get_command

REPOSITORY = Path(__file__).parents[1]
MOST_WORDS = 30
LONGEST_LINE = 120

# What a reader has to read twice, and what to write instead.
_PLAINER = {
    r"mend(s|ed|ing)?": "fix",
    r"likewise": "the fact itself",
    r"so often": "each interval, or the number",
    r"but for": "without, except",
    r"(is|are|was|were|be) told": "is logged, is printed",
    r"anew": "again",
    r"see there": "the fact itself",
}
_PLAINER_PATTERN = re.compile(rf"\b({'|'.join(_PLAINER)})\b", re.IGNORECASE)


def documents() -> list[Path]:
    """Returns README, what contributors read, and all pages of the documentation."""
    pages = ("README.md", "CONTRIBUTING.md", "SECURITY.md", "examples/README.md")
    return [*(REPOSITORY / page for page in pages), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def _blocks(text: str) -> Iterator[tuple[int, str]]:
    """Yields paragraphs, items of lists, headings and cells of tables, each with the number of its first line."""
    fence = ""
    start, lines = 0, list[str]()
    for number, line in enumerate([*text.splitlines(), ""], 1):
        stripped = line.strip()
        if fence:
            fence = "" if stripped.startswith(fence) else fence
            continue
        opening = re.match(r"(```+|~~~+)", stripped)
        begins = re.match(r"([-*+]|\d+\.)\s|#", stripped)
        if lines and (opening or begins or not stripped or stripped.startswith(("|", "<!--"))):
            yield start, " ".join(lines)
            lines = []
        if opening:
            fence = opening[1]
        elif stripped.startswith("|"):
            for cell in re.split(r"(?<!\\)\|", stripped.strip("|")):
                yield number, cell.strip()
        elif stripped and not stripped.startswith("<"):
            start = start if lines else number
            lines.append(re.sub(r"^([-*+]|\d+\.|#+|>)\s+", "", stripped))


def _sentences(block: str) -> list[str]:
    plain = re.sub(r"`+[^`]+`+", "Code", re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", block))
    plain = re.sub(r"Code(( \([^()]*\))?,? (and |or )?Code)+", "Code", plain)
    plain = re.sub(r"\b(e\.g|i\.e|etc|vs)\.", r"\1", plain)
    return re.split(r"(?<=[.!?])[)*\"]*\s+(?=[\"(*]*[A-Z0-9])", plain)


def _words(sentence: str) -> int:
    return len([word for word in sentence.split() if re.search(r"\w", word)])


def problems_of_text(text: str) -> Iterator[tuple[int, str]]:
    """Yields what is wrong with the sentences of a Markdown text, with the line where each paragraph begins."""
    for number, block in _blocks(text):
        for sentence in _sentences(block):
            if (count := _words(sentence)) > MOST_WORDS:
                yield number, f"{count} words in one sentence, at most {MOST_WORDS}: {sentence[:70]}..."
            for found in _PLAINER_PATTERN.finditer(sentence):
                (plainer,) = [new for old, new in _PLAINER.items() if re.fullmatch(old, found[1], re.IGNORECASE)]
                yield number, f"{found[1]!r}: write {plainer}"


def _long_lines(text: str) -> Iterator[tuple[int, str]]:
    in_code = False
    for number, line in enumerate(text.splitlines(), 1):
        in_code ^= line.strip().startswith(("```", "~~~"))
        if not in_code and not line.lstrip().startswith("|") and len(line) > LONGEST_LINE:
            yield number, f"{len(line)} characters in one line, at most {LONGEST_LINE}"


def problems_of_file(path: Path) -> list[str]:
    """Returns what is wrong with a document, in the order of its lines."""
    text = path.read_text(encoding="utf-8")
    found = sorted([*problems_of_text(text), *_long_lines(text)])
    name = path.relative_to(REPOSITORY) if path.is_relative_to(REPOSITORY) else path
    return [f"{name}:{number}: {problem}" for number, problem in found]


def help_texts() -> Iterator[tuple[str, str]]:
    """Yields the words of each command and of its options with the name under which they are shown."""
    from fleetmem.cli import make_app
    from fleetmem.cli.help_page import paragraphs

    waiting: list[tuple[str, typer.core.TyperCommand | typer.core.TyperGroup]]
    waiting = [("fleetmem", get_command(make_app()))]  # type: ignore[list-item]
    while waiting:
        name, command = waiting.pop()
        for is_example, text in paragraphs(command.help or ""):
            for line in text.split("\n") if is_example else [text]:
                if not is_example or line.startswith("#"):  # else a command
                    yield name, line.removeprefix("#").strip()
        for parameter in command.params:
            yield f"{name} {max(parameter.opts, key=len)}", getattr(parameter, "help", None) or ""
        waiting += [(f"{name} {child}", sub) for child, sub in getattr(command, "commands", {}).items()]


def problems_of_help() -> list[str]:
    """Returns what is wrong with the help texts."""
    return [f"{name}: {problem}" for name, text in help_texts() for _line, problem in problems_of_text(text)]


def main() -> None:
    """Prints what is wrong."""
    paths = [Path(name).resolve() for name in sys.argv[1:]]
    found = [problem for path in paths or documents() for problem in problems_of_file(path)]
    if not paths:
        found += problems_of_help()
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
