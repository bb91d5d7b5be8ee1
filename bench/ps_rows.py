"""What a program makes of the text of `ps -eo pid=,rss=,vsz=,pmem=,comm=`: the values, as JSON lines in bytes."""

import json


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
