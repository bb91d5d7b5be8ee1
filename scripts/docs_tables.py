"""Writes the tables of the documentation that are made from the code, each between two marks.

`--check` changes nothing, and ends with status 1 where a table is not what the code says.
"""

import hashlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

from fleetmem.capacity import measured
from fleetmem.probe import script
from fleetmem.telemetry.counters import COLLECTOR_COUNTERS, SINK_COUNTERS, markdown_table

DOCS = Path(__file__).parents[1] / "docs"


def _probe_table() -> str:
    """Returns what `fleetmem probe` prints, as digests: those of what runs on hosts, byte for byte."""
    rows = ["| command that prints it | SHA-256 of what it prints |", "|---|---|"]
    for protocol in range(1, script.LATEST + 1):
        flag = "" if protocol == script.USUAL else f" --protocol {protocol}"
        for words, text in (
            ("", script.source(protocol)),
            (" --command", f"{script.command(protocol)}\n"),
            (" --command --sudo", f"{script.root_command(protocol)}\n"),
        ):
            rows.append(f"| `fleetmem probe{words}{flag}` | `{hashlib.sha256(text.encode()).hexdigest()}` |")
        rows.append(f"| the script that `fleetmem probe --sudoers USER{flag}` allows | `{script.digest(protocol)}` |")
    return "\n".join(rows)


_TABLES = {
    "explanation/security.md": {"probe": _probe_table()},
    "reference/metrics.md": {
        "collector": markdown_table(COLLECTOR_COUNTERS),
        "sink": markdown_table(SINK_COUNTERS),
    },
    "how-to/capacity.md": {"measured": measured.markdown_table()},
}


def updated(text: str, tables: Mapping[str, str]) -> str:
    """Returns a document with its tables made again.

    Raises:
        ValueError: a table has not exactly one place in it.
    """
    for name, table in tables.items():
        begin, end = f"<!-- table {name}: `make docs-tables` writes it -->", f"<!-- end of table {name} -->"
        pattern = f"{re.escape(begin)}\n.*?{re.escape(end)}"
        replacement = f"{begin}\n{table}\n{end}"
        text, places = re.subn(pattern, lambda _match, new=replacement: new, text, flags=re.DOTALL)
        if places != 1:
            raise ValueError(f"{places} places for the table {name!r}")
    return text


def main() -> None:
    """Writes the documents, or looks whether they are as they would be written."""
    for name, tables in _TABLES.items():
        path = DOCS / name
        before = path.read_text(encoding="utf-8")
        after = updated(before, tables)
        if "--check" not in sys.argv[1:]:
            path.write_text(after, encoding="utf-8")
        elif before != after:
            sys.exit(f"{path} is not what the code says: run `make docs-tables`")


if __name__ == "__main__":
    main()
