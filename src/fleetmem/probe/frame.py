"""From the bytes of a connection to the lines of one frame.

Text that a login banner or `.bashrc` prints falls outside BEGIN and END and is ignored. A frame without its END is a
failed sample, never "no processes".
"""

import re

from fleetmem.errors import HostError, Kind, Stage

MAX_FRAME_BYTES = 8 * 1024 * 1024
"""More than this for one request is a flood. A row is 60 bytes: room for twice `parse.MAX_PROCESSES`."""

_END_REST_MAX_BYTES = 128  # of the END line, behind the request id: status, count and sums are short

_KEPT_BYTES = 64 * 1024  # of what comes before a frame: more than `unfinished` tells and a BEGIN line takes

_AGAIN = re.compile(rb"\nAGAIN fleetmem/[12] (\d{1,3})\n")
_AGAIN_MAX_BYTES = len(b"\nAGAIN fleetmem/1 255\n")
_COMMAND_MISSING = (126, 127)  # the shell's exit statuses for it, POSIX XCU 2.8.2


class FrameReader:
    """Collects what a host sends and cuts out the frame that answers one request.

    Give it a request id with `expect`, then bytes with `feed`, which returns the frame when it is complete.

    Attributes:
        broke_off: why the host gave this request up and waits for the next one; None while it is at work on it.
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._buffer = bytearray()
        self._begin_1 = self._begin_2 = self._end = b""
        self._searched = self._refused = self._ignored_bytes = 0
        self._has_begun = False  # it was seen to have, since the buffer was empty
        self.broke_off: HostError | None = None

    def expect(self, request_id: int) -> None:
        """Starts over, for the frame of this request; what is left of an older one is thrown away."""
        self._begin_1 = b"BEGIN fleetmem/1 %d\n" % request_id
        self._begin_2 = b"BEGIN fleetmem/2 %d " % request_id
        self._end = b"\nEND %d " % request_id
        self._clear()
        self._searched = self._refused = self._ignored_bytes = 0
        self.broke_off = None

    def feed(self, data: bytes) -> bytes | None:
        """Takes received bytes; returns the complete frame, its BEGIN and END line included, or None.

        Raises:
            HostError: (bad_frame) the host sent more than a frame can be.
        """
        buffer = self._buffer
        buffer += data
        while (end := buffer.find(self._end, self._searched)) >= 0:
            rest = end + len(self._end)
            newline = buffer.find(b"\n", rest, rest + _END_REST_MAX_BYTES)
            if newline < 0 and len(buffer) < rest + _END_REST_MAX_BYTES:
                break
            # The probe prints BEGIN a second time when the awk behind its ps broke off: the last one counts.
            begin = max(
                buffer.rfind(self._begin_2, self._refused, end + 1), buffer.rfind(self._begin_1, self._refused, end + 1)
            )
            if newline >= 0 and begin >= 0:
                frame = bytes(memoryview(buffer)[begin : newline + 1])
                self._clear()
                return frame
            self._searched = self._refused = end + 1  # a banner that talks like an END
        else:
            self._searched = max(self._searched, len(buffer) - len(self._end))
        if again := _AGAIN.search(buffer, max(0, len(buffer) - len(data) - _AGAIN_MAX_BYTES)):
            status = int(again[1])
            del again  # it holds the buffer, which could not be cleared
            self._clear()
            kind = Kind.COMMAND_MISSING if status in _COMMAND_MISSING else Kind.COMMAND_FAILED
            self.broke_off = HostError(Stage.COMMAND, kind, f"awk ended with status {status}")
        if len(buffer) > _KEPT_BYTES and not self.is_in_frame:
            self._ignore(len(buffer) - _KEPT_BYTES)
        if self.pending_bytes > self._max_frame_bytes:
            size, self._ignored_bytes = self.pending_bytes, 0
            self._clear()
            raise HostError(Stage.COMMAND, Kind.BAD_FRAME, f"sent {size} bytes without completing a frame")
        return None

    def _clear(self) -> None:
        self._buffer.clear()
        self._has_begun = False

    def _ignore(self, size: int) -> None:
        """Drops what is no part of a frame and never will be: thousands of hosts may talk a lot before they begin."""
        del self._buffer[:size]
        self._ignored_bytes += size
        self._searched = max(0, self._searched - size)
        self._refused = max(0, self._refused - size)

    def unfinished(self) -> str:
        """Returns what has come so far and is no frame, as printable text: for the message when a host breaks off."""
        text = bytes(self._buffer[-2000:]).decode("utf-8", "replace")
        printable = "".join(character if character.isprintable() else " " for character in text)
        return " ".join(printable.split())[-300:]

    @property
    def pending_bytes(self) -> int:
        """Bytes received since `expect` that are not part of a complete frame."""
        return self._ignored_bytes + len(self._buffer)

    @property
    def is_in_frame(self) -> bool:
        """Whether the frame's BEGIN has come, and its END not yet."""
        self._has_begun = self._has_begun or self._begin_2 in self._buffer or self._begin_1 in self._buffer
        return self._has_begun
