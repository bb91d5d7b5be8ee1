"""Text of points, per receiver. Pure."""

from fleetmem.sinks.series import Points

_TIME_PLACE = b"\0"  # no name and no number holds one


def statsd(points: Points) -> bytes:
    """Returns one gauge a line, in the form that every StatsD server reads: `name:value|g`, nothing after the `g`."""
    return "".join([f"{name}:{value}|g\n" for name, value in points]).encode("ascii")


def graphite(points: Points) -> bytes:
    """Returns one line of carbon's plaintext protocol for each point, with a place for the time: see `graphite_at`."""
    return "".join([f"{name} {value} \0\n" for name, value in points]).encode("ascii")


def graphite_at(text: bytes, unix_seconds: float) -> bytes:
    """Returns the lines with their time, whole seconds as whisper stores them."""
    return text.replace(_TIME_PLACE, b"%d" % unix_seconds)


def cut_lines(text: bytes, max_bytes: int) -> list[bytes]:
    """Returns the text in pieces of whole lines, each as long as fits `max_bytes`.

    Raises:
        ValueError: one line alone is longer. Names of at most 127 bytes keep a line below 160.
    """
    pieces: list[bytes] = []
    start, length = 0, len(text)
    while start < length:
        end = length if length - start <= max_bytes else text.rfind(b"\n", start, start + max_bytes) + 1
        if end <= start:
            raise ValueError(f"a line is longer than {max_bytes} bytes: {text[start : start + 60]!r}...")
        pieces.append(text[start:end])
        start = end
    return pieces
