"""Lines that fit: no word is broken, nothing is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.cli.screen import Screen
from fleetmem.cli.wrapping import cut, width_of, wrap, wrap_command

_TEXTS = st.text(st.sampled_from("ab 漢é"), max_size=80)


@given(_TEXTS, st.integers(10, 40))
def test_words_stay_whole(text: str, columns: int) -> None:
    """Lines are as long as the screen is wide, but for a word that is longer."""
    lines = wrap(text, columns, "  ", "    ")
    assert " ".join(lines).split() == text.split()
    for line in lines:
        assert width_of(line) <= columns or len(line.split()) == 1


def test_a_command_stays_on_one_line_or_can_be_copied() -> None:
    """Between backquotes no line ends where a shell would run half of a command."""
    assert wrap("try `ssh host true` now", 18) == ["try", "`ssh host true`", "now"]
    assert wrap("try `ssh -o A=b somehost true` now", 16) == ["try `ssh -o \\", "A=b somehost \\", "true` now"]


def test_a_number_stays_with_its_unit() -> None:
    """`2.3` at the end of a line would be read without it."""
    assert wrap("12 hosts answered, 1.2 TiB, 2.3 s", 31) == ["12 hosts answered, 1.2 TiB,", "2.3 s"]


def test_the_indent_gives_way_to_a_long_word() -> None:
    """It is whole on one line as long as the screen has room for it."""
    assert wrap("see ~/.ssh/known_hosts", 18, "    ") == ["    see", "~/.ssh/known_hosts"]


def test_an_option_stays_with_its_value() -> None:
    """Command lines are broken before options, and never in quotes."""
    lines = wrap_command("fleetmem hosts --inventory 'command:PROGRAM ARGUMENT' -i a -q", 45, "  ", "      ")
    assert lines == [
        "  fleetmem hosts \\",
        "      --inventory 'command:PROGRAM ARGUMENT' \\",
        "      -i a -q",
    ]


@pytest.mark.parametrize(
    ("name", "columns", "shown"),
    [
        ("web01", 5, "web01"),
        ("web01.example.com", 10, "web01.…com"),
        ("漢漢漢漢", 5, "漢…漢"),
        ("web01", 1, "…"),
        ("web01", 0, ""),
    ],
)
def test_names_are_cut_in_the_middle(name: str, columns: int, shown: str) -> None:
    """Both ends tell names apart."""
    assert cut(name, columns, Screen()) == shown.replace("漢…漢", cut("漢漢漢漢", 5, Screen()))


@given(st.text(max_size=30), st.integers(0, 30))
def test_a_cut_name_fits(name: str, columns: int) -> None:
    """Whatever it is made of, and in ASCII where the screen has only that."""
    assert width_of(cut(name, columns, Screen())) <= columns
    assert cut("x" * 31, columns, Screen(is_unicode=False)).isascii()
