"""`probe.sh` itself, run here with every shell and awk that is installed."""

import os
import pwd
import re
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path

import pytest

from fleetmem.errors import HostError, Kind
from fleetmem.model import ProcessMemory, Snapshot
from fleetmem.probe import script
from fleetmem.probe.facts import HostFacts, ProbeCpu, parse_cpu, parse_host_facts
from fleetmem.probe.frame import FrameReader
from fleetmem.probe.parse import SnapshotParser
from fleetmem.probe.script import FactsKind, ProbeKind, Processes

pytestmark = pytest.mark.shells

_SHELLS = ("dash", "bash", "busybox sh")
_AWKS = ("mawk", "gawk", "busybox")
_USUAL_PAIRS = {("dash", "mawk"), ("bash", "mawk"), ("bash", "gawk"), ("busybox sh", "busybox")}
_EACH_PAIR = pytest.mark.parametrize(
    ("shell", "awk"),
    [
        pytest.param(shell, awk, id=f"{shell}-{awk}", marks=() if (shell, awk) in _USUAL_PAIRS else pytest.mark.long)
        for shell in _SHELLS
        for awk in _AWKS
    ],
)
"""Each shell and each awk once; all of them together are for `make check-long`."""

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


def _path(tools: Path | None) -> str:
    return f"{tools}:{os.environ['PATH']}" if tools else os.environ["PATH"]


def _run(requests: bytes, shell: str = "sh", path: Path | None = None) -> bytes:
    """Returns what the probe prints for requests that are all there at once."""
    done = subprocess.run(
        [*_shell(shell), "-c", script.source()],
        input=requests,
        capture_output=True,
        env={"PATH": _path(path)},
        timeout=60,
        check=True,
    )
    return done.stdout


class _Probe:
    """A running probe, asked as fleetmem does: the next request when the answer is there."""

    def __init__(self, shell: str = "sh", tools: Path | None = None, source: str | None = None) -> None:
        # A source of its own comes with a PATH of nothing but the tools.
        path = str(tools) if tools and source and _SYSTEM_PATH not in source else _path(tools)
        self.process = subprocess.Popen(
            [*_shell(shell), "-c", source or script.source()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={"PATH": path},
            bufsize=0,
        )

    def __enter__(self) -> "_Probe":
        return self

    def __exit__(self, *_error: object) -> None:
        """It ends with its input, and nothing of it stays."""
        started = self.processes()
        self.send(b"", close=True)
        try:
            assert self.process.wait(10) == 0
            _wait_for_end(started)
        finally:
            self.process.kill()
            assert self.process.stdout
            self.process.stdout.close()

    def send(self, text: bytes, *, close: bool = False) -> None:
        assert self.process.stdin
        if text:
            self.process.stdin.write(text)
        if close:
            self.process.stdin.close()

    def ask(self, request: bytes) -> bytes:
        """Returns what is printed until an answer is complete, within 20 s."""
        self.send(request)
        return self.answer()

    def answer(self) -> bytes:
        assert self.process.stdout
        output = b""
        deadline = time.monotonic() + 20
        while not re.search(rb"^(END|AGAIN) .*\n\Z", output, re.MULTILINE):
            ready, _, _ = select.select([self.process.stdout], [], [], max(0, deadline - time.monotonic()))
            assert ready, f"no answer: {output[-200:]!r}"
            data = self.process.stdout.read(65536)
            assert data, f"it ended: {output[-200:]!r}"
            output += data
        return output

    def processes(self) -> list[int]:
        """Returns the pids of all that runs for it, itself first."""
        found = [self.process.pid]
        for pid in found:
            try:
                found += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
            except OSError:
                continue
        return found

    def awks(self) -> list[int]:
        found = []
        for pid in self.processes():
            with suppress(OSError):  # it has just ended
                if Path(f"/proc/{pid}/comm").read_text().strip() == "awk":
                    found.append(pid)
        return found

    def work(self) -> list[list[str]]:
        """Returns the page faults and CPU ticks of all that runs for it, and of their children that have ended."""
        return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[7:15] for pid in self.processes()]


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def _wait_for(what: str, happened: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not happened():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def _wait_for_end(pids: list[int]) -> None:
    _wait_for("nothing of it is left", lambda: not any(map(_is_alive, pids)))


def _wait_for_processes(probe: _Probe, pids: set[int]) -> None:
    _wait_for("the others are gone", lambda: pids == set(probe.processes()))


def _frame(probe: _Probe, request_id: int = 1) -> Snapshot:
    """Returns a frame of kind status; asks as often as fleetmem does where a process went away under mawk."""
    for _ in range(3):
        output = probe.ask(script.request_maker(ProbeKind.STATUS, Processes.USER)(request_id))
        if b"AGAIN" not in output:
            break
    return _parse(output, request_id)


def _parse(output: bytes, request_id: int = 1, kind: ProbeKind = ProbeKind.STATUS) -> Snapshot:
    reader = FrameReader()
    reader.expect(request_id)
    frame = reader.feed(output)
    assert frame is not None, output[-200:]
    return SnapshotParser(kind).parse(frame)


def _sample(kind: ProbeKind, processes: Processes = Processes.USER) -> bytes:
    return script.request_maker(kind, processes)(1)


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


@_EACH_PAIR
def test_names_come_through_exactly(named: dict[int, bytes], tmp_path: Path, shell: str, awk: str) -> None:
    """Kind status gives every byte of a name, with any shell and awk."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(ProbeKind.STATUS), shell, tools)))
    assert {pid: rows[pid].command.encode("utf-8", "surrogateescape") for pid in named} == named


@_EACH_PAIR
def test_names_through_ps(named: dict[int, bytes], tmp_path: Path, shell: str, awk: str) -> None:
    """Kind ps gives printable names whole, spaces in front and empty ones included; ps replaces the other bytes."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(ProbeKind.PS), shell, tools), kind=ProbeKind.PS))
    plain = {pid: name for pid, name in named.items() if name.isascii() and name.decode().isprintable()}
    assert {pid: rows[pid].command.encode() for pid in plain} == plain
    assert set(named) <= set(rows)


@pytest.mark.parametrize("kind", _KINDS)
@_EACH_PAIR
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
def test_only_what_stays_is_in_the_frame(tmp_path: Path, shell: str, kind: ProbeKind) -> None:
    """The probe's own processes are in the frame if they stay; what a sample starts would be new pids in each."""
    tools = _tools(tmp_path / "tools", {"fm_awk": "awk", "fm_ps": "ps", "fm_shell": shell})
    for name in ("awk", "ps"):
        _wrapper(tools / name, f'exec {tools}/fm_{name} "$@"')
    source = script.source().replace("sh -c", f"{tools}/fm_shell -c")
    assert source != script.source()
    resident = ["fm_shell"] * 3 + ["fm_awk"] * (kind is ProbeKind.STATUS)
    with _Probe(str(tools / "fm_shell"), tools, source) as probe:
        for count in range(5):
            snapshot = _frame(probe) if kind is ProbeKind.STATUS else _parse(probe.ask(_sample(kind)), kind=kind)
            own = [row for row in snapshot.processes if row.command.startswith("fm_")]
            if count:  # awk is started for the first one
                assert sorted(row.command for row in own) == sorted(resident)
                _wait_for_processes(probe, {row.pid for row in own})


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


@_EACH_PAIR
def test_requests_are_answered_in_turn(tmp_path: Path, shell: str, awk: str) -> None:
    """One frame per request, with its id; what is no request gets a failure and does not end the probe."""
    requests = [b"sample 1 status user\n", b"hello\n", b"sample x status user\n", b"sample 4 status nobody\n", b"\n"]
    requests += [b"facts 5 host\n", b"facts 6 cost\n", b"facts 6 cost user\n", b"facts 7\n"]
    expected = [(b"1", b"0"), (b"0", b"2"), (b"0", b"0"), (b"4", b"2"), (b"0", b"2"), (b"5", b"0"), (b"6", b"0")]
    expected += [(b"6", b"2"), (b"7", b"2"), (b"7", b"0"), (b"9", b"0")]
    with _Probe(shell, _tools(tmp_path / "tools", {"awk": awk})) as probe:
        answers = [probe.ask(line) for line in [*requests, b"sample 7 ps user\n", b"sample 9 status all\n"]]
    found = [re.findall(rb"^(?:BEGIN fleetmem/1|END) (\d+)(?: (\d+) .*)?$", text, re.MULTILINE) for text in answers]
    assert found == [[(number, b""), (number, status)] for number, status in expected]
    assert sum(text.count(b"E not a request of protocol 1\n") for text in answers) == 5


@_EACH_PAIR
def test_a_sample_starts_no_process(shell: str, awk: str, tmp_path: Path) -> None:
    """The same awk answers all requests, and no shell of the probe waits for a child in between."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    with _Probe(shell, tools) as probe:
        _frame(probe)
        running = probe.processes()
        for number in range(10):
            assert os.getpid() in {row.pid for row in _frame(probe, number).processes}
            if probe.processes() != running:  # a process went away under mawk
                running = probe.processes()
                continue
            child_faults = [work[1] for work in probe.work()]
            _frame(probe, number + 100)
            assert probe.processes() != running or [work[1] for work in probe.work()] == child_faults
        assert len(running) == 4


@pytest.mark.parametrize("awk", _AWKS)
def test_an_answer_comes_at_once_whatever_its_size(tmp_path: Path, awk: str) -> None:
    """No request waits in a half-filled buffer of awk for the next one, however many bytes it has."""
    proc = _fake_proc(tmp_path / "proc")
    with _Probe("sh", _tools(tmp_path / "tools", {"awk": awk}), _source_on(proc)) as probe:
        for count in range(1, 1300):
            _fake_process(proc, 100_000 + count)
            if count % 3 == 1 or 560 < count < 600:
                assert len(_frame(probe, count).processes) == count


@pytest.mark.parametrize("awk", _AWKS)
def test_awk_does_not_grow(tmp_path: Path, awk: str) -> None:
    """What a sample takes is given back: mawk 1.3.4 keeps each new name of a file for ever."""
    proc = _fake_proc(tmp_path / "proc")
    for pid in range(1, 301):
        _fake_process(proc, pid)

    def rss_kib() -> int:
        (pid,) = probe.awks()
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])

    with _Probe("sh", _tools(tmp_path / "tools", {"awk": awk}), _source_on(proc)) as probe:
        for number in range(30):
            _frame(probe, number)
        before = rss_kib()
        for number in range(100):
            _frame(probe, number)
        assert rss_kib() < before + 300


@pytest.mark.parametrize("awk", _AWKS)
def test_an_awk_that_has_seen_too_much_makes_room(tmp_path: Path, awk: str) -> None:
    """After very many different processes a new awk takes over, and no answer is lost."""
    proc = _fake_proc(tmp_path / "proc")
    source = _source_on(proc).replace("10000 + 2 * rows", "10 + 2 * rows")
    assert source != _source_on(proc)
    seen = set()
    with _Probe("sh", _tools(tmp_path / "tools", {"awk": awk}), source) as probe:
        for pid in range(1, 41):
            _fake_process(proc, pid)
            assert [row.pid for row in _frame(probe, pid).processes] == [pid]
            seen.update(probe.awks())
            (proc / str(pid) / "status").unlink()
            (proc / str(pid)).rmdir()
    assert 3 <= len(seen) <= 4


@pytest.mark.parametrize("shell", _SHELLS)
def test_the_first_request_may_come_with_the_command(shell: str) -> None:
    """It is answered before there is any input; once, when it comes in the input too; and the next one as ever."""
    for first in (b"sample 7 status user\n", b"facts 7 cost\n"):
        command = [*_shell(shell), "-c", script.source(), "sh", *first.decode().split()]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as probe:
            assert probe.stdin
            assert probe.stdout
            answer = b""
            while not answer.startswith(b"END 7 0 "):
                answer = probe.stdout.readline()
            probe.stdin.write(first + b"facts 8 cost\n")
            probe.stdin.close()
            rest = probe.stdout.read()
        assert rest.count(b"BEGIN") == 1
        assert rest.startswith(b"BEGIN fleetmem/1 8\n")


@pytest.mark.parametrize("shell", _SHELLS)
def test_it_ends_with_its_input(shell: str) -> None:
    """When the connection ends nothing stays behind, also in the middle of a request line."""
    assert _run(b"", shell) == b""
    assert _run(b"sample 1 status us", shell) == b""


@pytest.mark.parametrize("shell", _SHELLS)
def test_a_missing_awk(tmp_path: Path, shell: str) -> None:
    """Without awk each answer has the shell's own status for it; nothing is done in between."""
    tools = _tools(tmp_path / "tools", {"grep": "grep"})
    source = script.source().replace(_SYSTEM_PATH, "")
    assert source != script.source()
    if shell == "busybox sh":
        pytest.skip("busybox finds its own awk without PATH")
    with _Probe(shell, tools, source) as probe:
        for _ in range(3):
            assert probe.ask(_sample(ProbeKind.STATUS)) == b"\nAGAIN fleetmem/1 127\n"
        _assert_idle(probe)


def _assert_idle(probe: _Probe) -> None:
    """Nothing runs but what waits."""
    time.sleep(0.2)
    before = probe.processes(), probe.work()
    time.sleep(0.5)
    assert (probe.processes(), probe.work()) == before


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_awk_is_all_it_needs(tmp_path: Path, shell: str) -> None:
    """On a host with a shell and awk, and no other program, there is a frame."""
    tools = _tools(tmp_path / "tools", {"awk": "awk"})
    source = script.source().replace(_SYSTEM_PATH, "")
    with _Probe(shell, tools, source) as probe:
        assert os.getpid() in _by_pid(_frame(probe))


@_EACH_PAIR
def test_an_awk_that_fails_once(tmp_path: Path, shell: str, awk: str) -> None:
    """Mawk breaks off when a process ends while its file is read: that is said, and the next request gets a frame."""
    tools = tmp_path / "tools"
    tools.mkdir()
    real = f"{_program(awk)} awk" if awk == "busybox" else _program(awk)
    broken = "echo BEGIN fleetmem/1 1; echo M 1 2 3 4; echo K - -; read -r _; printf %s 'P 1 0 1'; exit 2"
    _wrapper(tools / "awk", f'[ -e {tools}/tried ] && exec {real} "$@"; : >{tools}/tried; {broken}')
    if shell == "busybox sh" and _busybox_takes_its_own_awk():
        pytest.skip("busybox takes its own awk first")
    with _Probe(shell, tools) as probe:
        broken_off = probe.ask(_sample(ProbeKind.STATUS))
        assert broken_off.startswith(b"BEGIN fleetmem/1 1\nM 1 2 3 4\n")
        assert broken_off.endswith(b"P 1 0 1\nAGAIN fleetmem/1 2\n")
        for number in (2, 3):
            snapshot = _frame(probe, number)
            assert os.getpid() in _by_pid(snapshot)
            assert (snapshot.memory.total_bytes or 0) > 1024


def _busybox_takes_its_own_awk() -> bool:
    """Whether busybox sh prefers its own programs to those on PATH."""
    command = ["busybox", "sh", "-c", "command -v awk"]
    return subprocess.run(command, capture_output=True, timeout=30, check=False).stdout.strip() == b"awk"


@pytest.mark.parametrize("reads", ["", "read -r _; ", "dd bs=4096 count=1 >/dev/null 2>&1; "])
@pytest.mark.parametrize("status", [1, 9, 126])
def test_an_awk_that_fails(tmp_path: Path, status: int, reads: str) -> None:
    """It is started once for each request, whenever it fails, and nothing spins in between."""
    tools = tmp_path / "tools"
    tools.mkdir()
    _wrapper(tools / "awk", f"echo started >>{tools}/log; {reads}exit {status}")
    with _Probe("sh", tools) as probe:
        for count in range(1, 4):
            assert probe.ask(_sample(ProbeKind.STATUS)) == b"\nAGAIN fleetmem/1 %d\n" % status
            _assert_idle(probe)
            assert (tools / "log").read_text() == "started\n" * count


@pytest.mark.parametrize("shell", _SHELLS)
def test_an_awk_that_is_killed_while_it_waits(shell: str) -> None:
    """By hand, or for want of memory: that is said when nobody asked, and the next request gets a new one."""
    with _Probe(shell) as probe:
        _frame(probe)
        (awk,) = probe.awks() or [pytest.skip("this shell's awk has another name")]
        os.kill(awk, signal.SIGKILL)
        assert probe.answer() == b"\nAGAIN fleetmem/1 137\n"
        _assert_idle(probe)
        assert os.getpid() in _by_pid(_frame(probe, 2))
        assert probe.awks() not in ([], [awk])


@pytest.mark.parametrize("shell", _SHELLS)
def test_it_ends_where_nobody_reads(crowded_proc: Path, shell: str) -> None:
    """A channel that died under a half-written frame leaves nothing behind, nor does one that was never read."""
    for is_closed_first in (True, False):
        probe = _Probe(shell, source=_source_on(crowded_proc))
        assert probe.process.stdout
        probe.send(_sample(ProbeKind.STATUS))
        assert probe.process.stdout.read(100)
        started = probe.processes()
        assert len(started) == 4
        if is_closed_first:
            probe.process.stdout.close()
            probe.send(b"", close=True)
        else:
            probe.send(b"", close=True)
            time.sleep(0.1)
            probe.process.stdout.close()
        probe.process.wait(10)
        _wait_for_end(started)


@pytest.mark.parametrize("shell", _SHELLS)
def test_busybox_ps_is_refused(tmp_path: Path, shell: str) -> None:
    """Its sizes are rounded; the message says what to use, and the probe goes on."""
    tools = _tools(tmp_path / "tools", {"ps": "busybox"})
    with _Probe(shell, tools) as probe:
        for _ in range(2):
            with pytest.raises(HostError, match="busybox, which prints rounded sizes: use the probe kind") as caught:
                _parse(probe.ask(_sample(ProbeKind.PS)))
            assert caught.value.kind is Kind.COMMAND_MISSING
        assert _frame(probe, 2).processes


_FAKE_PROCESSES = 20_000


def _fake_proc(folder: Path) -> Path:
    """Returns the folder as a /proc without processes."""
    folder.mkdir(exist_ok=True)
    (folder / "meminfo").write_text("MemTotal: 1000000 kB\nMemAvailable: 5000 kB\nSwapTotal: 7 kB\nSwapFree: 6 kB\n")
    (folder / "vmstat").write_text("nr_free_pages 1\noom_kill 3\n")
    return folder


def _fake_process(proc: Path, pid: int) -> None:
    (proc / str(pid)).mkdir()
    status = f"Name:\tp{pid}\nPid:\t{pid}\nPPid:\t1\nUid:\t5\t5\t5\t5\nVmSize:\t{pid} kB\nVmRSS:\t7 kB\n"
    (proc / str(pid) / "status").write_text(status)


def _source_on(proc: Path) -> str:
    """Returns the probe for another /proc."""
    source = script.source().replace("cd /proc ", f"cd {proc} ").replace("<sys/", "</proc/sys/")
    assert f"cd {proc} " in source
    return source


@pytest.fixture(scope="module")
def crowded_proc(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A /proc of more processes than fit on a command line of 128 KiB."""
    folder = _fake_proc(tmp_path_factory.mktemp("proc"))
    for pid in range(100_001, 100_001 + _FAKE_PROCESSES):
        _fake_process(folder, pid)
    return folder


@_EACH_PAIR
def test_twenty_thousand_processes(crowded_proc: Path, tmp_path: Path, shell: str, awk: str) -> None:
    """No limit of a command line counts, and all of them are in each frame."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    with _Probe(shell, tools, _source_on(crowded_proc)) as probe:
        for number in (1, 2):
            snapshot = _frame(probe, number)
            assert len(snapshot.processes) == _FAKE_PROCESSES
            assert {(row.uid, row.rss_bytes) for row in snapshot.processes} == {(5, 7 * 1024)}
            assert all(row.command == f"p{row.pid}" and row.vsz_bytes == row.pid * 1024 for row in snapshot.processes)
            assert (snapshot.memory.total_bytes, snapshot.memory.oom_kills_total) == (1_024_000_000, 3)


def test_the_file_is_what_is_sent() -> None:
    """The package's file is the script: nothing is put together elsewhere."""
    assert files("fleetmem.probe").joinpath("probe.sh").read_text(encoding="utf-8") == script.source()


# --- facts -----------------------------------------------------------------------------------------------------------


def _host_facts(probe: _Probe, request_id: int = 1) -> HostFacts:
    return parse_host_facts(probe.ask(script.facts_request(request_id, FactsKind.HOST)))


def _cpu(probe: _Probe) -> ProbeCpu:
    return parse_cpu(probe.ask(script.facts_request(1, FactsKind.COST)))


@_EACH_PAIR
def test_facts_are_those_of_this_machine(tmp_path: Path, shell: str, awk: str) -> None:
    """Any shell and awk tell the same about a host, before the first sample and after it."""
    tools = _tools(tmp_path / "tools", {"awk": awk})
    with _Probe(shell, tools) as probe:
        for number in (1, 2):
            facts = _host_facts(probe, number)
            assert facts.kernel == os.uname().release
            assert facts.uid == os.getuid()
            assert facts.login_shell in (None, pwd.getpwuid(os.getuid()).pw_shell)  # it has no SHELL here, bash looks
            assert facts.sees_init == os.access("/proc/1/status", os.R_OK)
            assert facts.has_pressure == _is_readable(Path("/proc/pressure/memory"))
            assert facts.proc_options
            assert facts.unix_seconds is not None
            assert abs(facts.unix_seconds - time.time()) < 5
            if shell != "busybox sh":
                assert (facts.awk, facts.awk_kind) == (str(tools / "awk"), awk)
            _frame(probe, number)


def _is_readable(path: Path) -> bool:
    try:
        return bool(path.read_text())
    except OSError:
        return False


@pytest.mark.parametrize("shell", _SHELLS)
def test_the_login_shell_is_a_fact(shell: str) -> None:
    """It is what sshd, or a shell on the way, says; nothing in it is special."""
    odd = "/opt/it's a \\n $(shell) *"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHELL", odd)
        done = subprocess.run(
            [*_shell(shell), "-c", script.source()],
            input=b"facts 1 host\n",
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert parse_host_facts(done.stdout).login_shell == odd


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_facts_without_awk(tmp_path: Path, shell: str) -> None:
    """What is missing is told where it is missing: the shell alone knows the most of it."""
    tools = _tools(tmp_path / "tools", {"date": "date"})
    source = script.source().replace(_SYSTEM_PATH, "")
    with _Probe(shell, tools, source) as probe:
        facts = _host_facts(probe)
        assert (facts.awk, facts.awk_kind, facts.proc_options) == (None, None, None)
        assert facts.kernel == os.uname().release
        assert facts.unix_seconds
        assert probe.ask(_sample(ProbeKind.STATUS)) == b"\nAGAIN fleetmem/1 127\n"
        assert _cpu(probe).processes == 3


@_EACH_PAIR
def test_the_cost_is_that_of_all_its_processes(tmp_path: Path, shell: str, awk: str) -> None:
    """Once awk runs, four processes; what they use is what the kernel says, and asking starts nothing."""
    with _Probe(shell, _tools(tmp_path / "tools", {"awk": awk})) as probe:
        _frame(probe)
        children = [work[1] for work in probe.work()]
        before, exact_before = _cpu(probe), _exact_cpu_seconds(probe)
        assert before.processes == 4
        assert [work[1] for work in probe.work()] == children, "it waited for a child"
        for number in range(20):
            _frame(probe, number)
        assert _cpu(probe).seconds - before.seconds == pytest.approx(
            _exact_cpu_seconds(probe) - exact_before, rel=0.15, abs=0.003
        )


def _exact_cpu_seconds(probe: _Probe) -> float:
    """Returns the CPU of all that runs for it, once all of it waits."""
    _wait_for("all of it waits", lambda: {_state(pid) for pid in probe.processes()} == {"S"})
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in probe.processes()) / 1e9


def _state(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def test_the_cost_of_ps_is_that_of_what_it_starts() -> None:
    """Programs that a sample starts are gone by then; their time is with whom waited for them."""
    with _Probe() as probe:
        before = _cpu(probe).seconds
        for _ in range(10):
            probe.ask(_sample(ProbeKind.PS))
        assert _cpu(probe).seconds - before > 0.02
