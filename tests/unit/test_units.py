import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.units import format_number, format_size, kib_to_bytes, parse_size, percent_of


def test_kib_to_bytes() -> None:
    """The kernel's kB are KiB."""
    assert kib_to_bytes(3) == 3072


def test_percent_of_the_smallest_page_is_not_zero() -> None:
    """A 4 KiB page of a 256 GiB host still shows."""
    assert percent_of(4096, 256 * 1024**3) == 0.000001
    assert percent_of(1, 3) == 33.333333


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("512", 512),
        ("64k", 65536),
        ("64 K", 65536),
        ("10MiB", 10 * 1024**2),
        ("10mb", 10 * 1024**2),
        ("1.5G", 3 * 1024**3 // 2),
        (" 2TiB ", 2 * 1024**4),
        ("7b", 7),
    ],
)
def test_parse_size(text: str, size_bytes: int) -> None:
    """Every usual way to write a size is read, as powers of 1024."""
    assert parse_size(text) == size_bytes


@pytest.mark.parametrize("text", ["", "k", "-1", "1e3", "10 X", "1..5", "1.5.5G", "10MM", "ten"])
def test_parse_size_refuses(text: str) -> None:
    """What is no size is refused with the text and an example."""
    with pytest.raises(ValueError, match=r"not a size: .*try 512"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (10 * 1024, "10 KiB"),
        (1.5 * 1024**2, "1.5 MiB"),
        (12 * 1024**3, "12 GiB"),
        (3 * 1024**4, "3.0 TiB"),
        (5000 * 1024**4, "5000.0 TiB"),
    ],
)
def test_format_size(size_bytes: float, text: str) -> None:
    """Sizes for people have one decimal below ten, none above."""
    assert format_size(size_bytes) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (0.0, "0"), (100.0, "100"), (0.5, "0.5"), (1e-6, "0.000001"), (1e-9, "0"), (1e22, "1" + "0" * 22)],
)
def test_format_number(value: float, text: str) -> None:
    """No exponent, no zeros at the end, no lonely dot."""
    assert format_number(value) == text


@given(st.integers(0, 10**30) | st.floats(0, 1e15))
def test_format_number_is_an_unsigned_decimal(value: float) -> None:
    """Every number that can be measured becomes digits with at most six decimals, and means the same."""
    text = format_number(value)
    whole, dot, fraction = text.partition(".")
    assert whole.isdigit()
    assert (bool(dot), len(fraction) <= 6) == (bool(fraction), True)
    assert math.isclose(float(text), value, rel_tol=1e-12, abs_tol=5.1e-7)
