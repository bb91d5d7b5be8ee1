"""How SSH writes values (RFC 4251, 5): strings with their length in front, numbers of four bytes."""


class WireError(ValueError):
    """There is less than a value takes."""


class WireReader:
    """Reads values from the front of some bytes.

    All methods raise WireError where there is less than they are to read.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def byte(self) -> int:
        """Returns a byte as a number."""
        return self._take(1)[0]

    def uint32(self) -> int:
        """Returns a number of four bytes."""
        return int.from_bytes(self._take(4), "big")

    def string(self) -> bytes:
        """Returns a string without its length."""
        return self._take(self.uint32())

    def mpint(self) -> int:
        """Returns a number of any size."""
        return int.from_bytes(self.string(), "big", signed=True)

    def _take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise WireError(f"{size} bytes expected, {len(self._data) - self._at} left")
        taken, self._at = self._data[self._at : end], end
        return taken


def string(data: bytes) -> bytes:
    """Returns a string with its length in front."""
    return uint32(len(data)) + data


def uint32(number: int) -> bytes:
    """Returns a number in four bytes."""
    return number.to_bytes(4, "big")
