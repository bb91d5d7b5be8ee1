"""Documents, help texts and code: short sentences, short lines, plain words."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

REPOSITORY = Path(__file__).parents[2]


def _load() -> ModuleType:
    """Returns scripts/check_words.py, which is no package."""
    spec = importlib.util.spec_from_file_location("check_words", REPOSITORY / "scripts" / "check_words.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


WORDS = _load()
DOCUMENTS = [path.relative_to(REPOSITORY).as_posix() for path in WORDS.documents()]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_words_of_a_document(document: str) -> None:
    """`make words` prints what is wrong, line by line."""
    assert WORDS.problems_of_file(REPOSITORY / document) == []


LONG = " ".join(["word"] * 31)


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG}.",
        f"Short. {LONG}",
        f"- item\n- {LONG}",
        f"> {LONG}",
        f"| cell | {LONG} |",
        f"# {LONG}",
        "one " * 16 + "\n" + "two " * 16,
        f"{' '.join(['word'] * 16)}; {' '.join(['word'] * 16)}",
        "This mends it.",
        "It is told in the log.",
        "| a | likewise |",
    ],
)
def test_what_has_to_be_read_twice_is_found(text: str, tmp_path: Path) -> None:
    """In paragraphs over several lines, lists, quotations, tables and headings."""
    file = tmp_path / "page.md"
    file.write_text(text, encoding="utf-8")
    assert WORDS.problems_of_file(file)


@pytest.mark.parametrize(
    "text",
    [
        f"{' '.join(['word'] * 20)}. {' '.join(['Word'] * 20)}.",
        f"```\n{LONG} {LONG} {LONG} {LONG}\n```",
        f"- {' '.join(['word'] * 20)}\n- {' '.join(['word'] * 20)}",
        f"| {' '.join(['word'] * 30)} | {' '.join(['word'] * 30)} |",
        "Settings: " + ", ".join(f"`{name}`" for name in "abcdefghijklmnopqrstuvwxyzabcdefgh"[:26]),
        "Run `fleetmem collect -u a -k b -i c -g d --top 3 -o e --format jsonl -p 1` " + "word " * 20,
    ],
)
def test_what_is_read_at_once_is_not_complained_of(text: str) -> None:
    """Code, lists of names, cells by themselves."""
    assert list(WORDS.problems_of_text(text)) == []


def test_a_long_line_is_found_outside_of_code_and_tables(tmp_path: Path) -> None:
    """A reader of the file itself has to scroll."""
    file = tmp_path / "page.md"
    file.write_text(f"{'x' * 121}\n\n```\n{'x' * 121}\n```\n\n| {'x' * 121} |\n", encoding="utf-8")
    assert len(WORDS.problems_of_file(file)) == 1


def test_the_words_of_help_texts() -> None:
    """What `--help` prints of each command and flag."""
    assert len(list(WORDS.help_texts())) > 100
    assert WORDS.problems_of_help() == []


def test_the_words_of_the_code() -> None:
    """Docstrings, comments and messages of all modules."""
    modules = WORDS.modules()
    assert len(modules) > 150
    assert [problem for module in modules for problem in WORDS.problems_of_file(module)] == []


@pytest.mark.parametrize(
    "code",
    [
        f'"""{LONG}."""',
        f'def f(x):\n    """Short.\n\n    Args:\n        x: {LONG}.\n    """',
        f'x = 1\n"""{LONG}."""',
        f"# {' '.join(['word'] * 16)}\n# {' '.join(['word'] * 16)}",
        f"x = 1  # {LONG}",
        f'raise ValueError(f"{{x}} {LONG}")',
        'log.warning("it is told to %s", name)',
        "x = 1  # likewise",
    ],
)
def test_what_has_to_be_read_twice_is_found_in_code(code: str, tmp_path: Path) -> None:
    """In docstrings and their arguments, comments and messages."""
    file = tmp_path / "module.py"
    file.write_text(code, encoding="utf-8")
    assert WORDS.problems_of_file(file)


@pytest.mark.parametrize(
    "code",
    [
        f'"""Short.\n\n    a ──> b {LONG}\n"""',
        f'def f():\n    """Short.\n\n    Examples:\n      # {LONG}\n      fleetmem run\n    """',
        f"x = 1  # {' '.join(['word'] * 16)}\ny = 2  # {' '.join(['word'] * 16)}",
        f'SCRIPT = """\n{LONG}\n{LONG}\n"""',
        "mend = told = likewise = 1",
    ],
)
def test_code_that_is_read_at_once_is_not_complained_of(code: str) -> None:
    """Diagrams, examples, comments of different lines, scripts, names."""
    assert WORDS.problems_of_code(code) == []
