"""A page that is drawn again and again in one place of a terminal.

It stays on the main screen and hides no cursor: a process that is killed leaves a terminal that works.
"""

from collections.abc import Sequence
from typing import TextIO

from fleetmem.cli.screen import Screen, screen_of

_HOME, _CLEAR_LINE_END, _CLEAR_BELOW, _CLEAR = "\x1b[H", "\x1b[K", "\x1b[J", "\x1b[2J"


class LivePage:
    """Draws lines from the top of a terminal. What was on it before moves up, out of sight and into its history.

    Args:
        stream: the terminal.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._drawn: Screen | None = None

    def draw(self, lines: Sequence[str], screen: Screen) -> None:
        """Shows lines in place of those before; as many as the terminal has room for.

        Args:
            lines: each fits the width.
            screen: what they were made for. After a change of its size nothing of the old page stays.
        """
        rows = screen.rows or len(lines)
        begin = _HOME
        if self._drawn is None:
            begin = "\n" * rows + _HOME
        elif self._drawn != screen:
            begin = _CLEAR + _HOME
        self._drawn = screen
        text = "\n".join(f"{line}{_CLEAR_LINE_END}" for line in lines[:rows])
        self._stream.write(f"{begin}{text}{_CLEAR_BELOW}")
        self._stream.flush()

    def clear(self) -> None:
        """Takes the page away, and goes on at the top of the terminal."""
        if self._drawn:
            is_resized = self._drawn != screen_of(self._stream)
            self._stream.write(f"{_CLEAR if is_resized else ''}{_HOME}{_CLEAR_BELOW}")
            self._stream.flush()
