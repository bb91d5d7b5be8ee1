"""A PID namespace with a /proc of its own, so that a lab host sees its own processes only, as a machine does."""

import os
import subprocess
from collections.abc import Sequence

_TRY_SECONDS = 10.0
_COMMON = ("--pid", "--fork", "--mount-proc", "--kill-child")
_CANDIDATES = (
    ("unshare", "--user", "--map-current-user", *_COMMON),
    ("unshare", "--user", "--map-root-user", *_COMMON),  # util-linux before 2.34
)
_AS_ROOT = ("unshare", *_COMMON)

# As pid 1 a shell adopts and reaps orphans; Python would leave zombies.
_INIT = ("/bin/sh", "-c", '"$@"; exit $?', "lab-init")
# In a namespace of its own a shell is pid 1 and alone in /proc.
_TRIAL = ("/bin/sh", "-c", 'set -- /proc/[0-9]*; test "$$" = 1 && test "$#" = 1')


def find_namespace() -> tuple[str, ...]:
    """Returns what to put before a command to give it a PID namespace; nothing where the kernel allows none."""
    candidates = (_AS_ROOT, *_CANDIDATES) if os.geteuid() == 0 else _CANDIDATES
    return next(((*prefix, *_INIT) for prefix in candidates if _works(prefix)), ())


def _works(prefix: Sequence[str]) -> bool:
    try:
        trial = subprocess.run([*prefix, *_TRIAL], capture_output=True, timeout=_TRY_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return trial.returncode == 0
