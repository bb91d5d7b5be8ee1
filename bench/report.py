"""How figures are printed, and what they were measured with."""

import os
import platform
import subprocess


def number(value: float) -> str:
    """Returns three digits that count, never an exponent."""
    digits = max(0, 2 - (len(str(int(value))) - 1)) if value >= 1 else 3
    return f"{value:.{digits}f}"


def surroundings() -> str:
    """Returns what the figures were measured with."""
    ssh = subprocess.run(["ssh", "-V"], check=False, stderr=subprocess.PIPE, text=True).stderr.split(",")[0]
    return f"Python {platform.python_version()}, {ssh}, Linux {platform.release()}, {os.cpu_count()} cores"
