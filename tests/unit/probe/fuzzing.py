"""Any bytes for `FrameReader` and `SnapshotParser`: what must hold for all of them, and a program that tries many.

    cd tests && python -m unit.probe.fuzzing SECONDS [FOLDER]

Atheris mutates the recorded frames of `tests/cases`, led by the code that they reach, where it is installed (or is in
FOLDER); otherwise Hypothesis does, blindly.
"""

import importlib
import sys
import time
import tomllib
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from fleetmem.errors import HostError, Kind
from fleetmem.model import Snapshot
from fleetmem.probe.facts import parse_cpu, parse_host_facts
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind

REQUEST_ID = 1
MAX_FRAME_BYTES = 20_000
_HEAD_BYTES = 4
_CASES = Path(__file__).parents[2] / "cases"
_KINDS = {Kind.BAD_FRAME, Kind.COMMAND_FAILED, Kind.COMMAND_MISSING}
_BYTES_PER_RUN = 16_384


@cache
def seeds() -> tuple[bytes, ...]:
    """Returns the recorded frames, each as an answer to REQUEST_ID."""
    found = []
    for folder in sorted(path for path in _CASES.iterdir() if path.is_dir()):
        request_id = tomllib.loads((folder / "about.toml").read_text(encoding="utf-8"))["request_id"]
        frame = (folder / "frame.txt").read_bytes()
        frame = frame.replace(b"BEGIN fleetmem/1 %d\n" % request_id, b"BEGIN fleetmem/1 %d\n" % REQUEST_ID)
        found.append(frame.replace(b"\nEND %d " % request_id, b"\nEND %d " % REQUEST_ID))
    facts = b"BEGIN fleetmem/1 1\nF shell /bin/sh\nF uid 0\nF sees_init yes\nF proc rw,hidepid=2\nEND 1 0 0\n"
    cost = b"BEGIN fleetmem/1 1\nC 7 123456 1 2 0 0\nC 8 - 1 2 0 0\nEND 1 0 0\n"
    return *found, facts, cost, b"motd\nBEGIN fleetmem/1 1\nP 1\nAGAIN fleetmem/1 2\n"


def exercise(data: bytes) -> None:
    """Takes a stream of bytes the whole way, in pieces: a sound snapshot or a HostError comes out, and nothing is kept.

    Args:
        data: the kind of probe and the sizes of the pieces in four bytes, then the stream.

    Raises:
        AssertionError: something else came out.
    """
    head, stream = data[:_HEAD_BYTES].ljust(_HEAD_BYTES, b"\0"), data[_HEAD_BYTES:]
    parser = SnapshotParser(ProbeKind.STATUS if head[0] % 2 else ProbeKind.PS)
    sizes = [1 + size * 17 for size in head[1:]]
    reader = FrameReader(MAX_FRAME_BYTES)
    reader.expect(REQUEST_ID)
    start = turn = 0
    while start < len(stream):
        piece = stream[start : start + sizes[turn % len(sizes)]]
        start, turn = start + len(piece), turn + 1
        try:
            frame = reader.feed(piece)
        except HostError as error:
            _check(error)
            assert reader.pending_bytes == 0
            continue
        assert reader.pending_bytes <= MAX_FRAME_BYTES
        said = reader.unfinished()
        assert said.isprintable()
        assert len(said) <= 300
        if frame is not None:
            _parse(parser, frame)
            reader.expect(REQUEST_ID)
        elif reader.broke_off:
            _check(reader.broke_off)
            reader.expect(REQUEST_ID)


def _parse(parser: SnapshotParser, frame: bytes) -> None:
    assert len(frame) <= MAX_FRAME_BYTES + 17 * 256
    for parse in (parse_host_facts, parse_cpu):
        _outcome(parse, frame)
    first, second = (_outcome(parser.parse, frame) for _ in range(2))
    assert first == second, "a frame means the same when its rows are known"
    if isinstance(first, Snapshot):
        check_sound(first)


def _outcome(parse: Callable[[bytes], object], frame: bytes) -> object:
    try:
        return parse(frame)
    except HostError as error:
        _check(error)
        return error.kind, error.message


def _check(error: HostError) -> None:
    assert error.kind in _KINDS
    assert error.message.isprintable()
    assert 0 < len(error.message) <= 1000


def check_sound(snapshot: Snapshot) -> None:
    """Checks that everything in a snapshot may be sent: no sign, no size that a kernel cannot have, each pid once."""
    memory = snapshot.memory
    sizes = [memory.total_bytes, memory.available_bytes, memory.swap_total_bytes, memory.swap_free_bytes]
    for row in snapshot.processes:
        sizes += [row.rss_bytes, row.vsz_bytes, row.peak_rss_bytes, row.anon_bytes, row.swap_bytes]
        assert (row.mem_percent is None) is (memory.total_bytes is None)
        assert row.mem_percent is None or row.mem_percent >= 0
        row.command.encode("utf-8", "surrogateescape")
    assert memory.total_bytes != 0
    assert all(0 <= size < 1024 * 10**16 for size in sizes if size is not None)
    assert len({row.pid for row in snapshot.processes}) == len(snapshot.processes)


# --- mutations -------------------------------------------------------------------------------------------------------

_WORDS = (
    *b"P |\nP |M |K |E |F |C |-| |\n|\0|\r|\xff|0|00|-1|+1|1_0|1e9|\xd9\xa3|BEGIN fleetmem/1 1\n".split(b"|"),
    *b"\nEND 1 |\nEND 1 0\n|\nEND 1 0 0\n|\nEND 1 \n|\nAGAIN fleetmem/1 127\n".split(b"|"),
    b"9" * 16,
    b"9" * 5000,
)


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    """Draws what `exercise` takes: recorded frames with bytes replaced, put in, taken out and taken from elsewhere."""
    frames = seeds()
    stream = bytearray(b"".join(draw(st.lists(st.sampled_from(frames), min_size=1, max_size=3))))
    for _ in range(draw(st.integers(0, 8))):
        start = draw(st.integers(0, len(stream)))
        length = draw(st.sampled_from((0, 0, 1, 1, 2, 7, 100)))
        other = draw(st.sampled_from(frames))
        at = draw(st.integers(0, len(other)))
        stream[start : start + length] = draw(
            st.one_of(st.sampled_from(_WORDS), st.binary(max_size=6), st.just(other[at : at + 60]))
        )
    return draw(st.binary(min_size=_HEAD_BYTES, max_size=_HEAD_BYTES)) + bytes(stream)


# --- the program -----------------------------------------------------------------------------------------------------


def _fuzz_blindly(seconds: float) -> int:
    """Tries what Hypothesis draws; returns how often."""
    until, tried = time.monotonic() + seconds, 0

    @settings(
        max_examples=1000,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(streams())
    def attempt(data: bytes) -> None:
        nonlocal tried
        if time.monotonic() < until:
            tried += 1
            exercise(data)

    while time.monotonic() < until:
        attempt()
    return tried


def _fuzz_with(atheris: Any, seconds: int, corpus: Path) -> None:
    """Tries what Atheris makes of the recorded frames, and ends the process: it prints how often, and its findings."""
    corpus.mkdir(parents=True, exist_ok=True)
    for number, frame in enumerate(seeds()):
        for head in (b"\0\xff\xff\xff", b"\1\0\3\7"):
            (corpus / f"seed-{number}-{head[0]}").write_bytes(head + frame)
    words = [
        f"-artifact_prefix={corpus.parent}/",
        f"-max_total_time={seconds}",
        f"-max_len={_BYTES_PER_RUN}",
        "-rss_limit_mb=1000",
        "-print_final_stats=1",
    ]
    for function in _functions():
        atheris.instrument_func(function)
    atheris.Setup([sys.argv[0], *words, str(corpus)], exercise)
    atheris.Fuzz()


def _functions() -> Iterator[Callable[..., object]]:
    """Yields the functions and methods that coverage is measured of."""
    for name in ("frame", "parse", "facts"):
        module = importlib.import_module(f"fleetmem.probe.{name}")
        for thing in vars(module).values():
            if getattr(thing, "__module__", None) == module.__name__:
                parts = vars(thing).values() if isinstance(thing, type) else [thing]
                yield from (part for part in parts if hasattr(part, "__code__"))


def main(words: Sequence[str]) -> None:
    """Runs for some seconds."""
    seconds = int(words[0])
    if len(words) > 1:
        sys.path.append(words[1])
    try:
        atheris = importlib.import_module("atheris")
    except ImportError:
        print(f"Atheris is not installed: {seconds} s with Hypothesis")  # noqa: T201 - a program
        print(f"{_fuzz_blindly(seconds)} streams, nothing but snapshots and failures")  # noqa: T201
        return
    _fuzz_with(atheris, seconds, Path(words[1]).parent / "corpus" if len(words) > 1 else Path("corpus"))


if __name__ == "__main__":
    main(sys.argv[1:])
