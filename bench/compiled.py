"""fleetmem as its users have it, also where it runs from its source."""

import compileall
from pathlib import Path

import fleetmem


def compile_fleetmem() -> None:
    """Compiles fleetmem, as pip does with what it installs.

    From source a program is compiled at its first start, or at each where the environment forbids to write the result
    (PYTHONDONTWRITEBYTECODE): a fifth of a start then.
    """
    compileall.compile_dir(Path(fleetmem.__file__).parent, quiet=1)
