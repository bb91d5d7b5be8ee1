"""What was sent over a protocol without acknowledgement, and may be lost when its connection breaks. Pure."""

from collections import deque

MAX_BYTES = 4 * 1024 * 1024


class Unconfirmed:
    """Texts in the order they were sent first: those lost with earlier connections go again before anything new.

    Beyond `MAX_BYTES` the oldest are forgotten.
    """

    def __init__(self) -> None:
        self._sent: deque[tuple[float, bytes]] = deque()  # over the present connection, older than all lost ones
        self._lost: deque[bytes] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._sent or self._lost)

    def texts(self) -> list[bytes]:
        """Returns all, oldest first."""
        return [text for _at, text in self._sent] + list(self._lost)

    def add(self, now_seconds: float, text: bytes) -> None:
        """Takes a text that was sent over the present connection, when no lost ones are left."""
        self._sent.append((now_seconds, text))
        self._bytes += len(text)
        while self._bytes > MAX_BYTES:
            self._bytes -= len(self._sent.popleft()[1])

    def forget(self, before_seconds: float) -> None:
        """Lets go of what the present connection, which is alive, took before a time."""
        while self._sent and self._sent[0][0] <= before_seconds:
            self._bytes -= len(self._sent.popleft()[1])

    def forget_all(self) -> None:
        """Lets go of everything: it arrived."""
        self._sent.clear()
        self._lost.clear()
        self._bytes = 0

    def lose(self) -> None:
        """The connection broke: what it took goes again, too."""
        self._lost.extendleft(text for _at, text in reversed(self._sent))
        self._sent.clear()

    def first_lost(self) -> bytes | None:
        """Returns the text that is to go again next."""
        return self._lost[0] if self._lost else None

    def note_sent_again(self, now_seconds: float) -> None:
        """The present connection took `first_lost`."""
        self._sent.append((now_seconds, self._lost.popleft()))
