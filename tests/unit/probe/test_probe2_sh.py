"""`probe2.sh` itself, run here with every shell and awk that is installed. Its frames are kept as a collector would."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

import pytest

from .resident import AWKS, EACH_PAIR, NAMES, NAMES_SCRIPT, SHELLS, Probe, fake_proc, tools_folder, wait_for

pytestmark = pytest.mark.shells

_SOURCE = files("fleetmem.probe").joinpath("probe2.sh").read_text(encoding="utf-8")
_ALL_SHELLS = (*SHELLS, "ksh", "mksh", "zsh --emulate sh")
_PART = re.compile(rb"(N|P|G) (\d+)(?: (.*))?", re.DOTALL)

# Ends its first thread; the other one lives until standard input ends.
_LEADERLESS = """
import ctypes, os, sys, threading
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0))).start()
ctypes.CDLL(None).pthread_exit(None)
"""


class _Table:
    """What a collector keeps of a host: rows by slot, each as the words of its N line, brought up to date."""

    def __init__(self, probe: Probe) -> None:
        self.probe = probe
        self.last_id = 0
        self.rows: dict[int, list[bytes]] = {}
        self.groups: dict[bytes, bytes] = {}
        self.lines: list[bytes] = []
        self.base = 0
        self.is_broken_off = False

    def ask(self, base: int | None = None, *, pids: tuple[int, ...] = (), which: str = "user") -> "_Table":
        """Asks for one frame, and takes its changes; again where awk broke off."""
        given = self.last_id if base is None else base
        for _ in range(5):
            self.last_id += 1
            words = " ".join(map(str, (self.last_id, "status", which, given, *pids)))
            output = self.probe.ask(f"sample {words}\n".encode())
            if b"AGAIN" not in output:
                self._take(output)
                return self
            given = 0
            self.is_broken_off = True
        raise AssertionError("awk breaks off each time")

    def _take(self, output: bytes) -> None:
        self.lines = output.split(b"\n")[:-1]
        begin, *_, end = (line.split(b" ") for line in self.lines)
        assert begin[:3] == [b"BEGIN", b"fleetmem/2", b"%d" % self.last_id]
        self.base = int(begin[3])
        if not self.base:
            self.rows, self.groups = {}, {}
        freed = set()
        for line in self.lines:
            if line.startswith(b"C "):
                _, number, _, path = line.split(b" ", 3)
                self.groups[number] = path
            if not (found := _PART.fullmatch(line)):
                continue
            slot = int(found[2])
            if found[1] == b"G":
                del self.rows[slot]
                freed.add(slot)
            elif found[1] == b"P":
                self.rows[slot][5:12] = found[3].split(b" ")
            else:
                assert slot not in freed, "a slot is used again in a later frame only"
                self.rows[slot] = found[3].split(b" ", 12)
        rss, vsz, pid = (sum(int(row[place]) for row in self.rows.values()) for place in (6, 5, 0))
        assert end[:1] + end[3:] == [b"END", *(b"%d" % number for number in (len(self.rows), rss, vsz, pid))]

    def by_pid(self) -> dict[int, list[bytes]]:
        """Returns the rows with their group's path in place of its number."""
        found = {int(row[0]): [*row[1:4], self.groups.get(row[4], b"-"), *row[5:]] for row in self.rows.values()}
        assert len(found) == len(self.rows)
        return found

    def told(self, letter: bytes) -> list[bytes]:
        """Returns the lines of one kind of the last frame."""
        return [line for line in self.lines if line.startswith(letter + b" ")]


def _name(row: list[bytes]) -> bytes:
    return row[-1].replace(b"\\\\", b"\0").replace(b"\\n", b"\n").replace(b"\0", b"\\")


@contextmanager
def _idle(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0) as process:
        try:
            yield process
        finally:
            process.kill()


def _expected(pid: int) -> list[bytes]:
    """Returns what a row says, from the files themselves."""
    proc = Path(f"/proc/{pid}")
    status = (proc / "status").read_text(errors="replace")
    start = (proc / "stat").read_text(errors="replace").rpartition(") ")[2].split()[19]
    adj = (proc / "oom_score_adj").read_text().strip()
    groups = (proc / "cgroup").read_text()
    group = re.search(r"^\d+:(?:[^:\n]*,)?memory(?:,[^:\n]*)?:(.*)", groups, re.MULTILINE)
    group = group or re.search(r"^0::(.*)", groups, re.MULTILINE)
    assert group

    def figure(key: str) -> str:
        found = re.search(rf"^{key}:\s+(\d+)", status, re.MULTILINE)
        return found[1] if found else "-"

    keys = ("VmSize", "VmRSS", "VmHWM", "RssAnon", "VmSwap", "VmPTE", "HugetlbPages")
    return [text.encode() for text in (figure("Uid"), start, adj, group[1], *map(figure, keys))]


@EACH_PAIR
def test_changes_add_up_to_the_whole(tmp_path: Path, shell: str, awk: str) -> None:
    """Processes appear, grow, become others and end: what is kept is what a frame of everything says."""
    grows = "import sys\nfor line in sys.stdin: kept = bytearray(int(line)); print(flush=True)"
    with Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk}), _SOURCE) as probe:
        kept = _Table(probe).ask(0)
        assert kept.base == 0
        with _idle(sys.executable, "-c", grows) as growing, _idle("sh", "-c", "read -r _; exec sleep 60") as other:
            assert growing.stdin
            assert growing.stdout
            assert other.stdin
            growing.stdin.write(b"1\n")
            growing.stdout.readline()
            wait_for("it is sh", lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sh\n")
            rows = kept.ask().by_pid()
            assert kept.base or kept.is_broken_off
            assert rows[growing.pid][:-1] == _expected(growing.pid)
            growing.stdin.write(b"50000000\n")
            growing.stdout.readline()
            other.stdin.write(b"\n")
            wait_for("it is sleep", lambda: Path(f"/proc/{other.pid}/comm").read_text() == "sleep\n")
            time.sleep(0.05)
            changed = kept.ask().by_pid()
            assert b"%d" % other.pid in [row.split(b" ")[2] for row in kept.told(b"N") if row.endswith(b" sleep")]
            assert int(changed[growing.pid][5]) > int(rows[growing.pid][5]) + 40_000
            assert changed[growing.pid][:-1] == _expected(growing.pid)
            whole = _Table(probe).ask(0).by_pid()
            assert {pid: whole[pid] for pid in (growing.pid, other.pid)} == {
                pid: changed[pid] for pid in (growing.pid, other.pid)
            }
            kept = _Table(probe).ask(0)
        assert {growing.pid, other.pid}.isdisjoint(kept.ask().by_pid())
        assert len(kept.told(b"G")) >= 2 or kept.is_broken_off


def _every_name() -> list[bytes]:
    """Returns names that hold each byte but 0, and some that stand for a part of a file."""
    every = bytes(range(1, 256))
    return [
        *NAMES,
        *(every[at : at + 15] for at in range(0, 255, 15)),
        b"\x01\x01\x01",
        b"\x01",
        b"a) R 1 2",
        b"\n\n) S \n\n",
        b"\n" * 15,
        b"\nUid:\t7",
    ]


@EACH_PAIR
def test_a_name_may_hold_any_byte(tmp_path: Path, shell: str, awk: str) -> None:
    """And whatever it holds, all else of the row is right, too."""
    names = _every_name()
    with _idle(sys.executable, "-c", NAMES_SCRIPT, *(name.hex() for name in names)) as parent:
        assert parent.stdout
        pids = [int(parent.stdout.readline()) for _ in names]
        with Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk}), _SOURCE) as probe:
            kept = _Table(probe).ask(0)
            rows = kept.by_pid()
            assert [_name(rows[pid]) for pid in pids] == names
            assert [rows[pid][:-1] for pid in pids] == list(map(_expected, pids))
            kept.ask()
            assert kept.is_broken_off or not [line for line in kept.told(b"N") if int(line.split()[2]) in pids]
        assert parent.stdin
        parent.stdin.close()
        parent.wait(30)


@EACH_PAIR
def test_a_process_whose_first_thread_has_ended(tmp_path: Path, shell: str, awk: str) -> None:
    """It is told as such, and named in the next request, read through another thread."""
    with (
        _idle(sys.executable, "-c", _LEADERLESS) as process,
        Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk}), _SOURCE) as probe,
    ):
        pid = process.pid
        wait_for("a zombie", lambda: "State:\tZ" in Path(f"/proc/{pid}/status").read_text())
        kept = _Table(probe).ask(0)
        assert b"Z %d" % pid in kept.lines
        assert pid not in kept.by_pid()
        for _ in range(2):
            rows = kept.ask(pids=(1 << 22, pid)).by_pid()
            assert int(rows[pid][5]) > 1000
            assert b"Z %d" % pid in kept.lines
        assert b"G" not in [line[:1] for line in kept.lines if line.endswith(b" %d" % pid)]


@EACH_PAIR
def test_a_sample_starts_nothing(tmp_path: Path, shell: str, awk: str) -> None:
    """The same four processes answer all requests; none of them waits for a child in between."""
    with Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk}), _SOURCE) as probe:
        kept = _Table(probe).ask(0).ask()
        running = probe.processes()
        assert len(running) == 4
        for _ in range(5):
            child_faults = [work[1] for work in probe.work()]
            kept.ask()
            assert probe.processes() != running or [work[1] for work in probe.work()] == child_faults
            running = probe.processes()


# --- a /proc of files: what the kernel does seldom, whenever a test wants it ------------------------------------------


def _source_on(proc: Path) -> str:
    source = _SOURCE.replace("cd /proc ", f"cd {proc} ").replace("<sys/", "</proc/sys/")
    assert f"cd {proc} " in source
    return source


def _fake(proc: Path, pid: int, *, start: int = 100, name: str | None = None, rss: int = 7, state: str = "S") -> None:
    folder = proc / str(pid)
    folder.mkdir(exist_ok=True)
    text = f"Name:\t{name or f'p{pid}'}\nState:\t{state} (x)\nUid:\t5\t5\t5\t5\nVmSize:\t{pid} kB\nVmHWM:\t90 kB\n"
    (folder / "status").write_text(f"{text}VmRSS:\t{rss} kB\nHugetlbPages:\t0 kB\nThreads:\t1\nSigQ:\t0/1\n")
    (folder / "stat").write_text(f"{pid} ({name}) S {' 0' * 18} {start} 4 5\n")
    (folder / "oom_score_adj").write_text("-17\n")
    (folder / "cgroup").write_text("0::/a\n")


def _last_pid(proc: Path, pid: int) -> None:
    (proc / "loadavg").write_text(f"0.00 0.01 0.05 1/150 {pid}\n")


@contextmanager
def _on(proc: Path, awk: str, shell: str = "sh") -> Iterator[_Table]:
    with Probe(shell, tools_folder(proc.parent / f"tools-{awk}", {"awk": awk}), _source_on(proc)) as probe:
        yield _Table(probe)


@pytest.mark.parametrize("awk", AWKS)
def test_a_pid_that_was_used_again(tmp_path: Path, awk: str) -> None:
    """The same name, user and memory, another start: told where the last pid has passed it, also after a lap."""
    proc = fake_proc(tmp_path / "proc")
    for pid in (100, 500, 900):
        _fake(proc, pid)
    _last_pid(proc, 400)
    with _on(proc, awk) as kept:
        kept.ask()
        for last_pid, reused in ((600, 500), (150, 900), (160, None), (120, 100)):
            if reused:
                _fake(proc, reused, start=200 + last_pid)
            _last_pid(proc, last_pid)
            kept.ask()
            told = [line.split()[2:5] for line in kept.told(b"N")]
            assert told == ([[b"%d" % reused, b"5", b"%d" % (200 + last_pid)]] if reused else [])
            assert not kept.told(b"P") + kept.told(b"G")


@pytest.mark.parametrize("awk", AWKS)
def test_a_kernel_that_tells_little(tmp_path: Path, awk: str) -> None:
    """Mounted with subset=pid there are processes and nothing else: `-` for it, and each start is looked at."""
    proc = tmp_path / "proc"
    proc.mkdir()
    _fake(proc, 100)
    with _on(proc, awk) as kept:
        kept.ask()
        assert [line for line in kept.lines if line[:1] in b"MSU"] == [b"M - - - - -", b"S - - - -", b"U -"]
        _fake(proc, 100, start=4_000_000_000)
        kept.ask()
        assert [line.split()[4:6] for line in kept.told(b"N")] == [[b"4000000000", b"-17"]]
        kept.ask()
        assert not kept.told(b"N")


@pytest.mark.parametrize("awk", AWKS)
def test_large_numbers_are_copied(tmp_path: Path, awk: str) -> None:
    """No awk makes a number of what has passed 2^31, or 2^53."""
    proc = fake_proc(tmp_path / "proc")
    (proc / "pressure").mkdir()
    pressure = "some avg10=1.50 avg60=0.00 avg300=0.00 total=18446744073709551615\n"
    (proc / "pressure/memory").write_text(pressure + pressure.replace("some", "full").replace("1.50", "0.25"))
    (proc / "uptime").write_text("31536000.25 99.00\n")
    _fake(proc, 4_000_000, start=3_153_600_025)
    _fake(proc, 4_000_001, rss=3_000_000_000)
    with _on(proc, awk) as kept:
        kept.ask()
    assert b"S 18446744073709551615 18446744073709551615 1.50 0.25" in kept.lines
    assert b"U 31536000.25" in kept.lines
    assert kept.by_pid()[4_000_000][1] == b"3153600025"
    assert kept.lines[-1].endswith(b" 3000000007 8000001 8000001")


@pytest.mark.parametrize("awk", AWKS)
@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("0::/user.slice/a b\n", b"/user.slice/a b"),
        ("9:name=systemd:/x:memory:/y\n4:memory:/docker/1 2\n0::/z\n", b"/docker/1 2"),
        ("5:cpu,memory,pids:/m\n", b"/m"),
        ("9:name=systemd:/:memory:/y\n0::/a:b\n", b"/a:b"),
        ("2:cpu:/c\n", b"-"),
        ("0::/one\x01two\n", b"/one\x01two"),
        ("", b"-"),
    ],
)
def test_control_groups(tmp_path: Path, awk: str, text: str, path: bytes) -> None:
    """The one that limits memory, of either version, whatever its path holds."""
    proc = fake_proc(tmp_path / "proc")
    _fake(proc, 100)
    (proc / "100/cgroup").write_text(text)
    with _on(proc, awk) as kept:
        assert kept.ask().by_pid()[100][3] == path


@EACH_PAIR
def test_a_thousand_processes(tmp_path: Path, shell: str, awk: str) -> None:
    """Some come, go and change in each frame; only that is told, and slots are used again."""
    proc = fake_proc(tmp_path / "proc")
    for pid in range(1, 1001):
        _fake(proc, pid)
    _last_pid(proc, 1000)
    with _on(proc, awk, shell) as kept:
        kept.ask()
        assert sorted(kept.rows) == list(range(1000))
        for turn in range(1, 8):
            for pid in range(turn * 10, turn * 10 + 10):
                shutil.rmtree(proc / str(pid))
                _fake(proc, 1000 + pid)
                _fake(proc, 500 + pid, rss=turn + 50)
                _fake(proc, 800 + pid, state="R")
            kept.ask()
            assert [len(kept.told(letter)) for letter in (b"G", b"N", b"P")] == [10, 10, 10]
            assert max(kept.rows) < 1010
        rows = kept.by_pid()
        kept.ask(base=1)
        assert kept.base == 0
        assert kept.by_pid() == rows
        kept.ask()
        assert not [line for line in kept.lines if line[:1] in b"NPGC"]


@pytest.mark.parametrize("awk", AWKS)
def test_a_host_without_processes(tmp_path: Path, awk: str) -> None:
    """That is a failure, with numbers in its last line."""
    with _on(fake_proc(tmp_path / "proc"), awk) as kept:
        kept.ask()
    assert kept.lines[-2:] == [b"E no process could be read with status", b"END 1 1 0 0 0 0"]


@pytest.mark.slow
@pytest.mark.parametrize("shell", _ALL_SHELLS)
def test_nothing_in_the_environment_ends_it(tmp_path: Path, shell: str) -> None:
    """Timeouts and options that come with the environment do not count, however long the next request takes."""
    env = {"TMOUT": "1", "GAWK_READ_TIMEOUT": "500", "IFS": "0", "POSIXLY_CORRECT": "1", "SHELLOPTS": "noglob:nounset"}
    env |= {"ENV": str(tmp_path / "no"), "BASH_FUNC_read%%": "() { return 1; }", "WHINY_USERS": "1", "COLUMNS": "9"}
    with Probe(shell, tools_folder(tmp_path / "tools", {"awk": "gawk"}), _SOURCE, env) as probe:
        kept = _Table(probe).ask()
        time.sleep(3)
        assert os.getpid() in kept.ask().by_pid()
        assert kept.base or kept.is_broken_off


@pytest.mark.parametrize("shell", _ALL_SHELLS)
def test_a_readonly_variable_ends_nothing(tmp_path: Path, shell: str) -> None:
    """What a file of the shell's own has made readonly stays as it is."""
    del tmp_path
    with Probe(shell, None, f"readonly COLUMNS=9 PS_FORMAT=pid\n{_SOURCE}") as probe:
        assert os.getpid() in _Table(probe).ask().by_pid()


@EACH_PAIR
def test_evidence_and_shares(tmp_path: Path, shell: str, awk: str) -> None:
    """Both are answered by programs of their own, and the table is kept."""
    with Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk}), _SOURCE) as probe:
        kept = _Table(probe).ask()
        evidence = probe.ask(b"oom 70\n").splitlines()
        assert evidence[0] == b"BEGIN fleetmem/1 70"
        assert evidence[-1] == b"END 70 0 0"
        assert len([line for line in evidence if line.startswith(b"K ")]) == 2
        shares = probe.ask(b"pss 71 %d x 4999999\n" % os.getpid()).splitlines()
        assert [line[:1] for line in shares] == [b"B", b"A", b"A", b"E"]
        _, pid, start, *figures = shares[1].split()
        assert (int(pid), start) == (os.getpid(), _expected(os.getpid())[1])
        assert all(int(figure) >= 0 for figure in figures)
        assert len(figures) == 4
        assert shares[2] == b"A 4999999 - - - - -"
        assert kept.ask().base or kept.is_broken_off


@pytest.mark.parametrize("awk", AWKS)
@pytest.mark.slow
def test_awk_stays_small(tmp_path: Path, awk: str) -> None:
    """Processes that come and go leave nothing behind: an awk that has opened very many files makes room."""
    proc = fake_proc(tmp_path / "proc")
    _fake(proc, 1)
    seen: dict[int, int] = {}
    with _on(proc, awk) as kept:
        probe = kept.probe
        for turn in range(1, 41):
            for pid in range(turn * 200, turn * 200 + 200):
                _fake(proc, pid)
            kept.ask()
            for pid in probe.awks():
                found = re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
                seen[pid] = max(seen.get(pid, 0), *map(int, found)) if found else 0  # it has just ended
            for pid in range(turn * 200, turn * 200 + 200):
                shutil.rmtree(proc / str(pid))
    assert 3 <= len(seen) <= 8
    assert max(seen.values()) < 6000
