"""Checks the words of documents, help texts and code: short sentences, short lines, plain words.

    check_words.py [FILE ...]      all documents, help texts and modules where none is named

A sentence has at most 30 words, a line at most 120 characters. Code and links count as one word, and so does a list of
names such as `a`, `b`, `c`. Blocks of code are not looked at; lines of tables may be longer, their sentences may not.
In code it reads docstrings, comments and messages: texts of three words and more.
Ends with status 1 where something is wrong.
"""

import ast
import inspect
import io
import re
import sys
import tokenize
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
    r"(is|are|was|were|be)( not)? told": "is logged, is printed",
    r"anew": "again",
    r"see there": "the fact itself",
}
_PLAINER_PATTERN = re.compile(rf"\b({'|'.join(_PLAINER)})\b", re.IGNORECASE)


def documents() -> list[Path]:
    """Returns all Markdown files that people read: of the repository, its documentation, examples and deployments."""
    folders = ("docs", "examples", "deploy", "terraform", ".github")
    below = [path for folder in folders for path in sorted((REPOSITORY / folder).rglob("*.md"))]
    return [*sorted(REPOSITORY.glob("*.md")), *below]


def modules() -> list[Path]:
    """Returns the modules of fleetmem, and the scripts: one has words of the man page."""
    return [*sorted((REPOSITORY / "src" / "fleetmem").rglob("*.py")), *sorted((REPOSITORY / "scripts").glob("*.py"))]


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


def _text_of(node: ast.AST) -> str:
    """Returns a string as it stands in the code, with a word for each value in it; empty for anything else."""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text_of(part) or "`value`" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _prose(docstring: str) -> str:
    """Returns a docstring as Markdown, each argument as an item; without diagrams, examples and lists of numbers."""
    text = re.sub(r"(?ms)^Examples:\n.*?(?=\n\n|\Z)", "", docstring)
    text = re.sub(r"(?m)^(Args|Attributes|Raises|Returns|Yields):$", "", text)
    text = re.sub(r"(?m)^ {4}\*{0,2}(\w+): ", r"- ", text)
    paragraphs = re.split(r"\n\s*\n", text)
    return "\n\n".join(part for part in paragraphs if not re.search(r"──|  \d+  ?\w|^ {4,}\d", part))


def _strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Yields docstrings and messages. A text of several lines that is no docstring is a script or a template."""
    alone = {id(node.value): node for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        text = _text_of(node) if id(node) not in parts else ""
        if text and id(node) in alone:
            yield node.lineno, _prose(inspect.cleandoc(text))  # type: ignore[attr-defined]
        elif text.count(" ") >= 2 and "\n" not in text:
            yield node.lineno, text  # type: ignore[attr-defined]


def _comments(code: str) -> Iterator[tuple[int, str]]:
    """Yields the comments: lines of their own that follow each other are one, each of the others is one."""
    start, words, last = 0, list[str](), 0
    for token in tokenize.generate_tokens(io.StringIO(code).readline):
        if token.type != tokenize.COMMENT:
            continue
        number, is_behind_code = token.start[0], bool(token.line[: token.start[1]].strip())
        if words and (number != last + 1 or is_behind_code):
            yield start, " ".join(words)
            words = []
        start = start if words else number
        words.append(token.string.lstrip("# "))
        last = 0 if is_behind_code else number
    yield start, " ".join(words)


def problems_of_code(code: str) -> list[tuple[int, str]]:
    """Returns what is wrong with docstrings, comments and messages, with the line where each begins."""
    texts = [*_strings(ast.parse(code)), *_comments(code)]
    return sorted((start, problem) for start, text in texts for _line, problem in problems_of_text(text))


def problems_of_file(path: Path) -> list[str]:
    """Returns what is wrong with a document or a module, in the order of its lines."""
    text = path.read_text(encoding="utf-8")
    is_code = path.suffix == ".py"
    found = problems_of_code(text) if is_code else sorted([*problems_of_text(text), *_long_lines(text)])
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
    found = [problem for path in paths or [*documents(), *modules()] for problem in problems_of_file(path)]
    if not paths:
        found += problems_of_help()
    print(*found, sep="\n", end="\n" if found else "")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
