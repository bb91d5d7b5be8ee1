"""Scaling happens here and nowhere else: the kernel speaks KiB, everything after the probe speaks bytes and percent."""

import re

KIB = 1024

_SIZE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(i?b?)\s*", re.IGNORECASE)
_POWERS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}


def kib_to_bytes(kib: int) -> int:
    """Returns bytes for the KiB that `/proc` and `ps` print (proc_pid_status(5) calls them kB)."""
    return kib * KIB


def percent_of(part_bytes: int, whole_bytes: int | None) -> float | None:
    """Returns part / whole * 100, rounded to 6 decimals; None where nobody knows the whole.

    `ps` truncates to 0.1 and caps at 99.9. Six decimals keep a 4 KiB page of a 256 GiB host above zero; one rounding,
    here, makes every output show the same number.
    """
    return round(part_bytes / whole_bytes * 100, 6) if whole_bytes else None


def parse_size(text: str) -> int:
    """Returns the bytes of `512`, `64k`, `10MiB`, `1.5G`; every prefix is a power of 1024.

    Raises:
        ValueError: the text is not a size.
    """
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f"not a size: {text!r} (try 512, 64k, 10MiB or 1.5G)")
    return int(float(match[1]) * KIB ** _POWERS[match[2].lower()])


def format_size(size_bytes: float) -> str:
    """Returns bytes for people: `512 B`, `1.5 MiB`, `12 GiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size_bytes < KIB:
            return f"{size_bytes:.0f} {unit}" if size_bytes >= 10 or unit == "B" else f"{size_bytes:.1f} {unit}"
        size_bytes /= KIB
    return f"{size_bytes:.1f} TiB"


def format_share(percent: float | None) -> str:
    """Returns a percentage for people: `1.25`, and `-` where nobody knows it."""
    return "-" if percent is None else f"{percent:.2f}"


def format_number(value: float) -> str:
    """Returns an unsigned decimal as every metrics receiver takes it: no sign, no exponent, at most 6 decimals."""
    if isinstance(value, int):
        return str(value)
    return f"{value:.6f}".rstrip("0").rstrip(".")
