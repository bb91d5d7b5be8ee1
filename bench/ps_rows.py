"""What the libraries' programs have in common: their arguments, and what they make of the text of `ps`."""

import argparse
import json
from pathlib import Path


def arguments(about: str | None) -> argparse.Namespace:
    """Returns what such a program was called with."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--hosts", required=True, type=Path, help="a file, one on each line")
    parser.add_argument("--port", type=int, default=22)
    parser.add_argument("--user", required=True)
    parser.add_argument("--key", required=True)
    parser.add_argument("--at-once", type=int, required=True)
    parser.add_argument("--cycles", type=int, default=1)
    parser.add_argument("--form", choices=FORMS, required=True)
    parser.add_argument("command", help="ps -eo pid=,rss=,vsz=,pmem=,comm=")
    return parser.parse_args()


def json_line(host: str, text: str) -> str:
    """Returns one JSON object for a host, as `fleetmem collect --format jsonl` has it."""
    processes = []
    for line in text.splitlines():
        pid, rss_kib, vsz_kib, percent, command = line.split(None, 4)
        processes.append(
            {
                "pid": int(pid),
                "command": command,
                "rss_bytes": int(rss_kib) * 1024,
                "vsz_bytes": int(vsz_kib) * 1024,
                "mem_percent": float(percent),
            }
        )
    record = {"host": host, "ok": True, "process_count": len(processes), "processes": processes}
    return json.dumps(record, separators=(",", ":")) + "\n"


def labelled(host: str, text: str) -> str:
    """Returns each line with its host before it, as clush has it."""
    return "".join(f"{host}: {line}\n" for line in text.splitlines())


FORMS = {"jsonl": json_line, "text": labelled}
"""How output is printed, by the name of the form."""
