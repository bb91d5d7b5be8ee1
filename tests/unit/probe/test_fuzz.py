import pytest
from hypothesis import given, settings

from .fuzzing import exercise, seeds, streams


@pytest.mark.slow
@settings(max_examples=300)
@given(streams())
def test_mutated_frames(data: bytes) -> None:
    """Whatever becomes of a recorded frame on its way: a sound snapshot or a HostError, and bounded memory."""
    exercise(data)


@pytest.mark.parametrize("head", [b"\0\xff\xff\xff", b"\1\0\0\0", b"\1\0\3\7"])
def test_recorded_frames(head: bytes) -> None:
    """What the mutations begin with goes through, too."""
    for frame in seeds():
        exercise(head + frame)
