import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.errors import HostError, Kind, Stage
from fleetmem.probe.frame import FrameReader

FRAME = b"BEGIN fleetmem/1 7\nM 1 2 3 4\nP 1 0 8 4 4 4 0 END 7 x\nEND 7 0 1\n"


def _reader(max_frame_bytes: int = 1000, request_id: int = 7) -> FrameReader:
    reader = FrameReader(max_frame_bytes)
    reader.expect(request_id)
    return reader


def test_a_frame_in_one_piece() -> None:
    """A whole frame comes out as it is, BEGIN and END included, and nothing is left."""
    reader = _reader()
    assert reader.feed(FRAME) == FRAME
    assert (reader.pending_bytes, reader.is_in_frame, reader.unfinished()) == (0, False, "")


@given(
    junk=st.text(alphabet="END 7\nBGIMfletmem/1 é\x1b", max_size=60),
    cuts=st.sets(st.integers(0, len(FRAME) + 60)),
)
def test_any_chunking_gives_the_same_frame(junk: str, cuts: set[int]) -> None:
    """However the network cuts it and whatever a login prints before it, one frame comes out, with its last byte."""
    before = junk.encode()
    stream = before + FRAME
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    reader = _reader()
    answers = [reader.feed(stream[start:end]) for start, end in pairwise(edges)]
    assert answers[-1] == FRAME
    assert not any(answers[:-1])


def test_byte_by_byte_knows_when_it_is_inside() -> None:
    """`is_in_frame` is true from the end of the BEGIN line to the end of the END line."""
    reader = _reader()
    states = []
    for position in range(len(FRAME) - 1):
        assert reader.feed(FRAME[position : position + 1]) is None
        states.append(reader.is_in_frame)
    begin_bytes = FRAME.index(b"\n") + 1
    assert states == [False] * (begin_bytes - 1) + [True] * (len(FRAME) - begin_bytes)


def test_a_banner_without_a_newline() -> None:
    """What .bashrc prints may stand right before BEGIN."""
    assert _reader().feed(b"hello> " + FRAME) == FRAME


@pytest.mark.parametrize("before", [b"", b"BEGIN fleetmem/1 7\nM 1 2 3 4\nP 1 0 8", b"motd"])
@pytest.mark.parametrize("chunk_bytes", [1, 5, 100])
def test_a_probe_that_broke_off(before: bytes, chunk_bytes: int) -> None:
    """AGAIN says that no frame will come, however it is cut; with the next request that is over."""
    reader = _reader()
    stream = before + b"\nAGAIN fleetmem/1 2\n"
    for start in range(0, len(stream), chunk_bytes):
        assert reader.broke_off is None
        assert reader.feed(stream[start : start + chunk_bytes]) is None
    assert reader.broke_off is not None
    assert (reader.broke_off.kind, reader.broke_off.message) == (Kind.COMMAND_FAILED, "awk ended with status 2")
    assert (reader.pending_bytes, reader.is_in_frame) == (0, False)
    reader.expect(7)
    assert reader.broke_off is None
    assert reader.feed(FRAME) == FRAME


@pytest.mark.parametrize("status", [126, 127])
def test_an_awk_that_is_missing(status: int) -> None:
    """126 and 127 are the shell's words for it."""
    reader = _reader()
    reader.feed(b"\nAGAIN fleetmem/1 %d\n" % status)
    assert reader.broke_off is not None
    assert (reader.broke_off.stage, reader.broke_off.kind) == (Stage.COMMAND, Kind.COMMAND_MISSING)


@pytest.mark.parametrize(
    "text", [b"AGAIN fleetmem/1 2\n", b"\nAGAIN 2\n", b"\nAGAIN fleetmem/1 \n", b"\nAGAIN fleetmem/3 2\n"]
)
def test_what_is_no_again(text: bytes) -> None:
    """Another word is text as any other."""
    reader = _reader()
    assert reader.feed(text) is None
    assert reader.broke_off is None
    assert reader.feed(FRAME) == FRAME


def test_the_second_begin_counts() -> None:
    """When the awk behind ps broke off, the probe begins again: the first beginning is thrown away."""
    again = b"BEGIN fleetmem/1 7\nE awk ended with status 2\nEND 7 2 0\n"
    reader = _reader()
    assert reader.feed(b"BEGIN fleetmem/1 7\nM 1 2 3 4\nP 1 0 8" + again) == again


def test_a_banner_that_talks_like_an_end() -> None:
    """An END that nothing began ends nothing, even where only its last byte comes with the frame."""
    reader = _reader()
    assert reader.feed(b"\nEND 7 0 0") is None
    assert reader.feed(b"\n\nEND 7 x\n" + FRAME) == FRAME


def test_an_end_without_its_rest_is_looked_at_once() -> None:
    """An END line that goes on for ever is none: what comes after it does not make each byte dearer than the last."""
    reader = _reader(max_frame_bytes=2_000_000)
    reader.feed(FRAME[:-6] + b"7 ")
    started = time.process_time()
    for _ in range(10_000):
        assert reader.feed(b"x" * 100) is None
    assert time.process_time() - started < 0.5  # 0.02 s; 1 s and more where each looks through all before it
    assert reader.feed(b"\n" + FRAME) == FRAME


def test_an_empty_frame() -> None:
    """END may follow right after BEGIN."""
    assert _reader().feed(b"BEGIN fleetmem/1 7\nEND 7 0 0\n") == b"BEGIN fleetmem/1 7\nEND 7 0 0\n"


def test_leftovers_of_an_older_request_are_thrown_away() -> None:
    """The late answer to a request that was given up is never the answer to the next one."""
    reader = _reader()
    assert reader.feed(FRAME[:-5]) is None
    reader.expect(8)
    assert reader.pending_bytes == 0
    assert reader.feed(FRAME[-5:] + FRAME) is None
    mine = FRAME.replace(b"END 7 0", b"END 8 0").replace(b"fleetmem/1 7", b"fleetmem/1 8")
    assert reader.feed(mine) == mine


@pytest.mark.parametrize("other", [b"BEGIN fleetmem/2 7\nEND 7 0 0\n", b"BEGIN fleetmem/1 77\nEND 77 0 0\n"])
def test_another_protocol_or_request_is_no_answer(other: bytes) -> None:
    """Version and id have to fit, and an id is compared whole."""
    assert _reader().feed(other) is None


def test_what_follows_a_frame_is_not_part_of_it() -> None:
    """A frame ends with its END line."""
    reader = _reader()
    assert reader.feed(FRAME + b"and more") == FRAME


@pytest.mark.parametrize("chunk_bytes", [1, 7, 500])
def test_a_flood_is_a_bad_frame(chunk_bytes: int) -> None:
    """A host that never ends its frame is stopped at the limit, and its bytes are let go."""
    reader = _reader(max_frame_bytes=1000)
    for _ in range(1000 // chunk_bytes):
        assert reader.feed(b"x" * chunk_bytes) is None
    with pytest.raises(HostError, match=r"sent 1\d\d\d bytes without completing a frame") as caught:
        reader.feed(b"x" * chunk_bytes)
    assert (caught.value.stage, caught.value.kind) == (Stage.COMMAND, Kind.BAD_FRAME)
    assert reader.pending_bytes == 0


def test_a_flood_behind_an_end_without_a_beginning() -> None:
    """An END that nothing began does not turn the limit off."""
    reader = _reader(max_frame_bytes=100)
    assert reader.feed(b"\nEND 7 0 0\n") is None
    with pytest.raises(HostError, match="without completing"):
        reader.feed(b"x" * 200)


def test_a_frame_at_the_limit_is_whole() -> None:
    """The limit is for what never ends: a whole frame of just that size is taken."""
    assert _reader(max_frame_bytes=len(FRAME)).feed(FRAME) == FRAME


def test_unfinished_is_printable_and_short() -> None:
    """What a host said instead of a frame can be shown: last words, one line, no control characters."""
    reader = _reader(max_frame_bytes=10_000)
    reader.feed(b"x" * 5000 + b"\x1b[31m sh:\r\n  caf\xe9 \x00 not found\n")
    said = reader.unfinished()
    assert said.endswith("[31m sh: caf\N{REPLACEMENT CHARACTER} not found")
    assert said.isprintable()
    assert len(said) == 300


def test_what_comes_before_a_frame_is_not_kept() -> None:
    """A host may say a megabyte before it begins; only the end of that is kept, and the frame behind it is whole."""
    reader = _reader(max_frame_bytes=3_000_000)
    reader.feed(b"no frame " * 100_000)
    assert reader.pending_bytes == 900_000
    assert len(reader._buffer) < 100_000
    assert reader.unfinished().endswith("no frame no frame")
    assert reader.feed(b"\nEND 7 \nBEGIN fleet") is None
    assert reader.feed(b"metry\nBEGIN fleetmem/1 7\n") is None
    assert reader.feed(b"x\nEND 7 0 0\n") == b"BEGIN fleetmem/1 7\nx\nEND 7 0 0\n"


def test_a_flood_outside_of_frames_is_a_bad_frame() -> None:
    """What is not kept counts all the same; the next request begins anew."""
    reader = _reader(max_frame_bytes=300_000)
    for _ in range(3):
        reader.feed(b"spam" * 25_000)
    with pytest.raises(HostError, match="sent 300001 bytes without completing a frame"):
        reader.feed(b"!")
    assert reader.pending_bytes == 0
    reader.expect(8)
    assert reader.feed(b"BEGIN fleetmem/1 8\nEND 8 0 0\n") == b"BEGIN fleetmem/1 8\nEND 8 0 0\n"
