"""Writes the tables of docs/reference/metrics.md that are made from the code, each between two marks.

`--check` changes nothing, and ends with status 1 where a table is not what the code says.
"""

import re
import sys
from pathlib import Path

from fleetmem.telemetry.counters import COLLECTOR_COUNTERS, SINK_COUNTERS, markdown_table

METRICS = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
_TABLES = {"collector": COLLECTOR_COUNTERS, "sink": SINK_COUNTERS}


def updated(text: str) -> str:
    """Returns a document with its tables made anew.

    Raises:
        ValueError: a table has not exactly one place in it.
    """
    for name, declared in _TABLES.items():
        begin, end = f"<!-- table {name}: `make docs-tables` writes it -->", f"<!-- end of table {name} -->"
        pattern = f"{re.escape(begin)}\n.*?{re.escape(end)}"
        replacement = f"{begin}\n{markdown_table(declared)}\n{end}"
        text, places = re.subn(pattern, lambda _match, new=replacement: new, text, flags=re.DOTALL)
        if places != 1:
            raise ValueError(f"{METRICS.name} has {places} places for the table {name!r}")
    return text


def main() -> None:
    """Writes the document, or looks whether it is as it would be written."""
    before = METRICS.read_text(encoding="utf-8")
    after = updated(before)
    if "--check" not in sys.argv[1:]:
        METRICS.write_text(after, encoding="utf-8")
    elif before != after:
        sys.exit(f"{METRICS} is not what the code says: run `make docs-tables`")


if __name__ == "__main__":
    main()
