"""`probe.sh` itself, run here with every shell and awk that is installed."""

import os
import re
import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.resources import files
from pathlib import Path

import pytest

from fleetmem.errors import HostError, Kind
from fleetmem.model import ProcessMemory, Snapshot
from fleetmem.probe import script
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import ProbeKind, Processes

_SHELLS = ("dash", "bash", "busybox sh")
_AWKS = ("mawk", "gawk", "busybox")
_KINDS = (ProbeKind.STATUS, ProbeKind.PS)
_SYSTEM_PATH = "PATH=$PATH:/usr/bin:/bin:/usr/sbin:/sbin"

# Gives itself each name in turn, and holds the processes until standard input ends.
_NAMES_SCRIPT = """
import ctypes, os, sys
libc = ctypes.CDLL(None)
for name in map(bytes.fromhex, sys.argv[1:]):
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        libc.prctl(15, name, 0, 0, 0)
        os.write(write_end, b".")
        sys.stdin.buffer.read()
        os._exit(0)
    os.read(read_end, 1)
    print(pid, flush=True)
print(flush=True)
sys.stdin.buffer.read()
"""
_NAMES = (
    b"a:b|c@d#e",
    "café".encode(),
    b"caf\xe9",
    b"two\nlines",
    b"",
    b"  lead",
    b"trail ",
    b"x" * 15,
    b"back\\slash",
    b"\\n",
    b"tab\tesc\x1b[0m",
    b"END 1 0 1",
    b"S 0",
    b"Name:\tx",
)


def _program(name: str) -> str:
    path = shutil.which(name)
    if not path:
        pytest.skip(f"{name} is not installed")
    return path


def _shell(shell: str) -> list[str]:
    name, *arguments = shell.split()
    return [_program(name), *arguments]


def _tools(folder: Path, links: Mapping[str, str]) -> Path:
    """Returns a folder of programs for PATH: names, and what they are links to."""
    folder.mkdir()
    for name, target in links.items():
        (folder / name).symlink_to(_program(target))
    return folder


def _wrapper(path: Path, text: str) -> None:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)


def _run(
    requests: bytes,
    shell: str = "sh",
    path: Path | None = None,
    source: str | None = None,
    stack_bytes: int | None = None,
) -> bytes:
    """Returns what the probe prints for these requests."""

    def limit() -> None:
        if stack_bytes:
            resource.setrlimit(resource.RLIMIT_STACK, (stack_bytes, stack_bytes))

    path_text = f"{path}:{os.environ['PATH']}" if path and source is None else str(path or os.environ["PATH"])
    done = subprocess.run(
        [*_shell(shell), "-c", source or script.source()],
        input=requests,
        capture_output=True,
        env={"PATH": path_text},
        timeout=60,
        check=True,
        preexec_fn=limit,
    )
    return done.stdout


def _parse(output: bytes, request_id: int = 1, kind: ProbeKind = ProbeKind.STATUS) -> Snapshot:
    reader = FrameReader()
    reader.expect(request_id)
    frame = reader.feed(output)
    assert frame is not None, output[-200:]
    return SnapshotParser(kind).parse(frame)


def _sample(kind: ProbeKind, processes: Processes = Processes.USER) -> bytes:
    return script.request(1, kind, processes)


def _by_pid(snapshot: Snapshot) -> dict[int, ProcessMemory]:
    return {process.pid: process for process in snapshot.processes}


@pytest.fixture(scope="module")
def named() -> Iterator[dict[int, bytes]]:
    """Processes with odd names that do nothing: pid to name."""
    with subprocess.Popen(
        [sys.executable, "-c", _NAMES_SCRIPT, *(name.hex() for name in _NAMES)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as parent:
        assert parent.stdin
        assert parent.stdout
        pids = [int(parent.stdout.readline()) for _ in _NAMES]
        assert parent.stdout.readline() == b"\n"
        yield dict(zip(pids, _NAMES, strict=True))
        parent.stdin.close()
        assert parent.wait(30) == 0


@pytest.mark.parametrize("awk", _AWKS)
@pytest.mark.parametrize("shell", _SHELLS)
def test_names_come_through_exactly(named: dict[int, bytes], tmp_path: Path, shell: str, awk: str) -> None:
    """Kind status gives every byte of a name, with any shell and awk."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(ProbeKind.STATUS), shell, tools)))
    assert {pid: rows[pid].command.encode("utf-8", "surrogateescape") for pid in named} == named


@pytest.mark.parametrize("awk", _AWKS)
@pytest.mark.parametrize("shell", _SHELLS)
def test_names_through_ps(named: dict[int, bytes], tmp_path: Path, shell: str, awk: str) -> None:
    """Kind ps gives printable names whole, spaces in front and empty ones included; ps replaces the other bytes."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(ProbeKind.PS), shell, tools), kind=ProbeKind.PS))
    plain = {pid: name for pid, name in named.items() if name.isascii() and name.decode().isprintable()}
    assert {pid: rows[pid].command.encode() for pid in plain} == plain
    assert set(named) <= set(rows)


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("awk", _AWKS)
@pytest.mark.parametrize("shell", _SHELLS)
def test_numbers_are_those_of_ps(
    named: dict[int, bytes], tmp_path: Path, shell: str, awk: str, kind: ProbeKind
) -> None:
    """RSS, VSZ and user of processes that do nothing are what ps says, in bytes."""
    columns = "pid=,uid=,rss=,vsz="
    pids = ",".join(map(str, named))
    listed = subprocess.run(["ps", "-o", columns, "-p", pids], capture_output=True, text=True, timeout=30, check=True)
    expected = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    tools = _tools(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(kind), shell, tools), kind=kind))
    assert len(expected) == len(named)
    for pid, uid, rss_kib, vsz_kib in expected:
        assert rows[pid][:2] == (pid, uid)
        assert (rows[pid].rss_bytes, rows[pid].vsz_bytes) == (rss_kib * 1024, vsz_kib * 1024)
        assert (rows[pid].peak_rss_bytes is None) == (kind is ProbeKind.PS)


def test_host_memory_is_that_of_proc() -> None:
    """The host's figures are the kernel's."""
    memory = _parse(_run(_sample(ProbeKind.STATUS))).memory
    (total_kib,) = re.findall(r"^MemTotal: +(\d+)", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert memory.total_bytes == int(total_kib) * 1024
    assert memory.available_bytes is not None
    assert 0 < memory.available_bytes < memory.total_bytes
    assert memory.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


@pytest.mark.parametrize("kind", _KINDS)
@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_its_own_helpers_are_left_out(tmp_path: Path, shell: str, kind: ProbeKind) -> None:
    """Of all that a sample starts only the resident shell is in it: the rest would be new pids in every sample."""
    tools = _tools(tmp_path / "tools", {"fm_grep": "grep", "fm_awk": "awk", "fm_ps": "ps", "fm_shell": shell})
    for name in ("grep", "awk", "ps"):
        _wrapper(tools / name, f'exec {tools}/fm_{name} "$@"')
    output = subprocess.run(
        [tools / "fm_shell", "-c", script.source()],
        input=_sample(kind) * 3,
        capture_output=True,
        env={"PATH": f"{tools}:{os.environ['PATH']}"},
        timeout=60,
        check=True,
    ).stdout
    frames = [_parse(part + b"END 1 0 " + end, kind=kind) for part, end in _split_frames(output)]
    assert len(frames) == 3
    for frame in frames:
        assert [row.command for row in frame.processes if row.command.startswith("fm_")] == ["fm_shell"]


def test_the_helpers_of_the_fallback_are_left_out(tmp_path: Path) -> None:
    """Where awk gets the list of processes over a pipe, neither it nor what writes the list is in the frame."""
    tools = _tools(tmp_path / "tools", {"fm_awk": "awk"})
    _wrapper(tools / "awk", f'[ "$#" -lt 20 ] || exit 126; exec {tools}/fm_awk "$@"')
    output = _run(_sample(ProbeKind.STATUS) * 10, path=tools)
    frames = _split_frames(output)
    assert len(frames) == 10
    for part, end in frames:
        rows = _parse(part + b"END 1 0 " + end).processes
        assert os.getpid() in {row.pid for row in rows}
        assert not [row.command for row in rows if row.command.startswith("fm_")]


def _split_frames(output: bytes) -> list[tuple[bytes, bytes]]:
    return [(part, end + b"\n") for part, end in re.findall(rb"(BEGIN.*?\n)END 1 0 (\d+)\n", output, re.DOTALL)]


@pytest.mark.parametrize("kind", _KINDS)
def test_kernel_threads_and_zombies_only_when_asked_for(kind: ProbeKind) -> None:
    """`user` leaves out what owns no memory, `all` shows it with 0 bytes."""
    zombie = os.posix_spawn("/bin/sh", ["sh", "-c", "exit 0"], {})
    os.waitid(os.P_PID, zombie, os.WEXITED | os.WNOWAIT)
    try:
        user = _by_pid(_parse(_run(_sample(kind)), kind=kind))
        everything = _by_pid(_parse(_run(_sample(kind, Processes.ALL)), kind=kind))
    finally:
        os.waitpid(zombie, 0)
    assert zombie not in user
    assert all(row.vsz_bytes for row in user.values())
    assert (everything[zombie].rss_bytes, everything[zombie].vsz_bytes) == (0, 0)
    assert everything[zombie].command == "sh"


@pytest.mark.parametrize("shell", _SHELLS)
def test_requests_are_answered_in_turn(shell: str) -> None:
    """One frame per request, with its id; what is no request gets a failure and does not end the probe."""
    requests = b"sample 1 status user\nhello\nsample x status user\nsample 4 status nobody\n\nsample 9 status all\n"
    output = _run(requests, shell)
    assert re.findall(rb"^BEGIN fleetmem/1 (\d+)$", output, re.MULTILINE) == [b"1", b"0", b"0", b"4", b"0", b"9"]
    ends = re.findall(rb"^END (\d+) (\d+) ", output, re.MULTILINE)
    assert ends == [(b"1", b"0"), (b"0", b"2"), (b"0", b"0"), (b"4", b"2"), (b"0", b"2"), (b"9", b"0")]
    assert output.count(b"E not a request of protocol 1\n") == 3


@pytest.mark.parametrize("shell", _SHELLS)
def test_it_ends_with_its_input(shell: str) -> None:
    """When the connection ends nothing stays behind, also in the middle of a request line."""
    assert _run(b"", shell) == b""
    assert _run(b"sample 1 status us", shell) == b""


@pytest.mark.parametrize("shell", _SHELLS)
def test_a_missing_awk(tmp_path: Path, shell: str) -> None:
    """Without awk the frame says so, with the shell's own status for it."""
    tools = _tools(tmp_path / "tools", {"grep": "grep"})
    source = script.source().replace(_SYSTEM_PATH, "")
    assert source != script.source()
    if shell == "busybox sh":
        pytest.skip("busybox finds its own awk without PATH")
    with pytest.raises(HostError, match="awk ended with status 127") as caught:
        _parse(_run(_sample(ProbeKind.STATUS), shell, tools, source))
    assert caught.value.kind is Kind.COMMAND_MISSING


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_awk_is_all_it_needs(tmp_path: Path, shell: str) -> None:
    """On a host with a shell and awk, and no other program, there is a frame."""
    tools = _tools(tmp_path / "tools", {"awk": "awk"})
    source = script.source().replace(_SYSTEM_PATH, "")
    assert os.getpid() in _by_pid(_parse(_run(_sample(ProbeKind.STATUS), shell, tools, source)))


def test_an_awk_that_fails_once(tmp_path: Path) -> None:
    """Mawk breaks off when a process ends while its file is read; the next try gives the whole frame."""
    tools = _tools(tmp_path / "tools", {"fm_awk": "awk"})
    broken = "echo BEGIN fleetmem/1 1; echo M 1 2 3 4; echo K - -; exit 2"
    _wrapper(tools / "awk", f'[ -e {tools}/tried ] && exec {tools}/fm_awk "$@"; : >{tools}/tried; {broken}')
    snapshot = _parse(_run(_sample(ProbeKind.STATUS), path=tools))
    assert os.getpid() in _by_pid(snapshot)
    assert snapshot.memory.total_bytes > 1024


def test_an_awk_that_fails(tmp_path: Path) -> None:
    """An awk that breaks off in the middle of a frame is a failure with its status, not a short frame."""
    tools = tmp_path / "tools"
    tools.mkdir()
    _wrapper(tools / "awk", "echo BEGIN fleetmem/1 1; echo M 1 2 3 4; cat >/dev/null; exit 9")
    with pytest.raises(HostError, match="awk ended with status 9") as caught:
        _parse(_run(_sample(ProbeKind.STATUS), path=tools))
    assert caught.value.kind is Kind.COMMAND_FAILED


@pytest.mark.parametrize("shell", _SHELLS)
def test_busybox_ps_is_refused(tmp_path: Path, shell: str) -> None:
    """Its sizes are rounded; the message says what to use, and the probe goes on."""
    tools = _tools(tmp_path / "tools", {"ps": "busybox"})
    output = _run(_sample(ProbeKind.PS) * 2 + b"sample 2 status user\n", shell, tools)
    with pytest.raises(HostError, match="busybox, which prints rounded sizes: use the probe kind status") as caught:
        _parse(output)
    assert caught.value.kind is Kind.COMMAND_MISSING
    assert output.count(b"END 1 127 0\n") == 2
    assert _parse(output, 2).processes


_FAKE_PROCESSES = 12_000


@pytest.fixture(scope="module")
def crowded_proc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A /proc of so many processes that their files do not fit on a command line of 128 KiB."""
    folder = tmp_path_factory.mktemp("proc")
    (folder / "meminfo").write_text("MemTotal: 1000000 kB\nMemAvailable: 5000 kB\nSwapTotal: 7 kB\nSwapFree: 6 kB\n")
    (folder / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")
    for pid in range(100_001, 100_001 + _FAKE_PROCESSES):
        (folder / str(pid)).mkdir()
        status = f"Name:\tp{pid}\nPid:\t{pid}\nPPid:\t1\nUid:\t5\t5\t5\t5\nVmSize:\t{pid} kB\nVmRSS:\t7 kB\n"
        (folder / str(pid) / "status").write_text(status)
    return folder


@pytest.mark.parametrize("shell", _SHELLS)
def test_more_processes_than_fit_on_a_command_line(crowded_proc: Path, shell: str) -> None:
    """One awk cannot be given that many at once: the same comes over a pipe, all of it."""
    source = script.source().replace("cd /proc", f"cd {crowded_proc}")
    output = _run(_sample(ProbeKind.STATUS), shell, source=source, stack_bytes=512 * 1024)
    snapshot = _parse(output)
    assert len(snapshot.processes) == _FAKE_PROCESSES
    assert {(row.uid, row.rss_bytes) for row in snapshot.processes} == {(5, 7 * 1024)}
    assert all(row.command == f"p{row.pid}" and row.vsz_bytes == row.pid * 1024 for row in snapshot.processes)
    assert (snapshot.memory.total_bytes, snapshot.memory.oom_kills_total) == (1_024_000_000, 3)


def test_the_fallback_is_needed(crowded_proc: Path) -> None:
    """The test above tests the fallback: one awk for all of them does not start there."""
    started = subprocess.run(
        ["sh", "-c", "awk 'BEGIN { exit }' [0-9]*"],
        cwd=crowded_proc,
        capture_output=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_STACK, (512 * 1024, 512 * 1024)),
    )
    assert started.returncode == 126


def test_the_file_is_what_is_sent() -> None:
    """The package's file is the script: nothing is put together elsewhere."""
    assert files("fleetmem.probe").joinpath("probe.sh").read_text(encoding="utf-8") == script.source()
