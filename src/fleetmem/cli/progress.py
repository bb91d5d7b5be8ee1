"""Progress bars on stderr: on a terminal only, and gone when the work is done."""

import os
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from rich.progress import Progress

_STDERR = 2
_SAYS_TERMINAL = {"FORCE_COLOR", "TTY_COMPATIBLE"}
"""Variables by which rich takes for a terminal what is none."""


def progress_bars(*, is_quiet: bool) -> "Progress | NoBars":
    """Returns bars, to be used as a context; each task has a description in front and a `text` behind."""
    if is_quiet or not (os.isatty(_STDERR) or _SAYS_TERMINAL & os.environ.keys()):
        return NoBars()
    # Imported here: rich is a twentieth of a start that draws nothing.
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[text]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


class NoBars:
    """Takes what bars show, and shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Leaves nothing behind."""

    def add_task(self, description: str, *, total: float, text: str) -> Any:
        """Takes a task."""

    def update(self, task: Any, **_changes: Any) -> None:
        """Takes how far a task is."""

    def advance(self, task: Any) -> None:
        """Takes that a task is a step further."""
