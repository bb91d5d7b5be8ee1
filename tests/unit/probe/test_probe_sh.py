"""`probe.sh` itself, run here with every shell and awk that is installed."""

import os
import pwd
import re
import signal
import subprocess
import time
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

from .resident import (
    AWKS,
    EACH_PAIR,
    SHELLS,
    SYSTEM_PATH,
    Probe,
    assert_idle,
    busybox_takes_its_own_awk,
    fake_proc,
    find_program,
    search_path,
    shell_command,
    state_of,
    tools_folder,
    wait_for,
    wait_for_end,
    wait_for_processes,
    write_wrapper,
)

pytestmark = pytest.mark.shells


_KINDS = (ProbeKind.STATUS, ProbeKind.PS)


def _run(requests: bytes, shell: str = "sh", path: Path | None = None) -> bytes:
    """Returns what the probe prints for requests that are all there at once."""
    done = subprocess.run(
        [*shell_command(shell), "-c", script.source()],
        input=requests,
        capture_output=True,
        env={"PATH": search_path(path)},
        timeout=60,
        check=True,
    )
    return done.stdout


def _frame(probe: Probe, request_id: int = 1) -> Snapshot:
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


@EACH_PAIR
def test_names_come_through_exactly(named: dict[int, bytes], tmp_path: Path, shell: str, awk: str) -> None:
    """Kind status gives every byte of a name, with any shell and awk."""
    tools = tools_folder(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(ProbeKind.STATUS), shell, tools)))
    assert {pid: rows[pid].command.encode("utf-8", "surrogateescape") for pid in named} == named


@EACH_PAIR
def test_names_through_ps(named: dict[int, bytes], tmp_path: Path, shell: str, awk: str) -> None:
    """Kind ps gives printable names whole, spaces in front and empty ones included; ps replaces the other bytes."""
    tools = tools_folder(tmp_path / "tools", {"awk": awk})
    rows = _by_pid(_parse(_run(_sample(ProbeKind.PS), shell, tools), kind=ProbeKind.PS))
    plain = {pid: name for pid, name in named.items() if name.isascii() and name.decode().isprintable()}
    assert {pid: rows[pid].command.encode() for pid in plain} == plain
    assert set(named) <= set(rows)


@pytest.mark.parametrize("kind", _KINDS)
@EACH_PAIR
def test_numbers_are_those_of_ps(
    named: dict[int, bytes], tmp_path: Path, shell: str, awk: str, kind: ProbeKind
) -> None:
    """RSS, VSZ and user of processes that do nothing are what ps says, in bytes."""
    columns = "pid=,uid=,rss=,vsz="
    pids = ",".join(map(str, named))
    listed = subprocess.run(["ps", "-o", columns, "-p", pids], capture_output=True, text=True, timeout=30, check=True)
    expected = [tuple(map(int, line.split())) for line in listed.stdout.splitlines()]
    tools = tools_folder(tmp_path / "tools", {"awk": awk})
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
    tools = tools_folder(tmp_path / "tools", {"fm_awk": "awk", "fm_ps": "ps", "fm_shell": shell})
    for name in ("awk", "ps"):
        write_wrapper(tools / name, f'exec {tools}/fm_{name} "$@"')
    source = script.source().replace("sh -c", f"{tools}/fm_shell -c")
    assert source != script.source()
    resident = ["fm_shell"] * 3 + ["fm_awk"] * (kind is ProbeKind.STATUS)
    with Probe(str(tools / "fm_shell"), tools, source) as probe:
        for count in range(5):
            snapshot = _frame(probe) if kind is ProbeKind.STATUS else _parse(probe.ask(_sample(kind)), kind=kind)
            own = [row for row in snapshot.processes if row.command.startswith("fm_")]
            if count:  # awk is started for the first one
                assert sorted(row.command for row in own) == sorted(resident)
                wait_for_processes(probe, {row.pid for row in own})


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


@EACH_PAIR
def test_requests_are_answered_in_turn(tmp_path: Path, shell: str, awk: str) -> None:
    """One frame per request, with its id; what is no request gets a failure and does not end the probe."""
    requests = [b"sample 1 status user\n", b"hello\n", b"sample x status user\n", b"sample 4 status nobody\n", b"\n"]
    requests += [b"facts 5 host\n", b"facts 6 cost\n", b"facts 6 cost user\n", b"facts 7\n"]
    expected = [(b"1", b"0"), (b"0", b"2"), (b"0", b"0"), (b"4", b"2"), (b"0", b"2"), (b"5", b"0"), (b"6", b"0")]
    expected += [(b"6", b"2"), (b"7", b"2"), (b"7", b"0"), (b"9", b"0")]
    with Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk})) as probe:
        answers = [probe.ask(line) for line in [*requests, b"sample 7 ps user\n", b"sample 9 status all\n"]]
    found = [re.findall(rb"^(?:BEGIN fleetmem/1|END) (\d+)(?: (\d+) .*)?$", text, re.MULTILINE) for text in answers]
    assert found == [[(number, b""), (number, status)] for number, status in expected]
    assert sum(text.count(b"E not a request of protocol 1\n") for text in answers) == 5


@EACH_PAIR
def test_a_sample_starts_no_process(shell: str, awk: str, tmp_path: Path) -> None:
    """The same awk answers all requests, and no shell of the probe waits for a child in between."""
    tools = tools_folder(tmp_path / "tools", {"awk": awk})
    with Probe(shell, tools) as probe:
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


@pytest.mark.parametrize("awk", AWKS)
def test_an_answer_comes_at_once_whatever_its_size(tmp_path: Path, awk: str) -> None:
    """No request waits in a half-filled buffer of awk for the next one, however many bytes it has."""
    proc = fake_proc(tmp_path / "proc")
    with Probe("sh", tools_folder(tmp_path / "tools", {"awk": awk}), _source_on(proc)) as probe:
        for count in range(1, 1300):
            _fake_process(proc, 100_000 + count)
            if count % 3 == 1 or 560 < count < 600:
                assert len(_frame(probe, count).processes) == count


@pytest.mark.parametrize("awk", AWKS)
def test_awk_does_not_grow(tmp_path: Path, awk: str) -> None:
    """What a sample takes is given back: mawk 1.3.4 keeps each new name of a file for ever."""
    proc = fake_proc(tmp_path / "proc")
    for pid in range(1, 301):
        _fake_process(proc, pid)

    def rss_kib() -> int:
        (pid,) = probe.awks()
        return int(re.findall(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[0])

    with Probe("sh", tools_folder(tmp_path / "tools", {"awk": awk}), _source_on(proc)) as probe:
        for number in range(30):
            _frame(probe, number)
        before = rss_kib()
        for number in range(100):
            _frame(probe, number)
        assert rss_kib() < before + 300


@pytest.mark.parametrize("awk", AWKS)
def test_an_awk_that_has_seen_too_much_makes_room(tmp_path: Path, awk: str) -> None:
    """After very many different processes a new awk takes over, and no answer is lost."""
    proc = fake_proc(tmp_path / "proc")
    source = _source_on(proc).replace("10000 + 2 * rows", "10 + 2 * rows")
    assert source != _source_on(proc)
    seen = set()
    with Probe("sh", tools_folder(tmp_path / "tools", {"awk": awk}), source) as probe:
        for pid in range(1, 41):
            _fake_process(proc, pid)
            assert [row.pid for row in _frame(probe, pid).processes] == [pid]
            seen.update(probe.awks())
            (proc / str(pid) / "status").unlink()
            (proc / str(pid)).rmdir()
    assert 3 <= len(seen) <= 4


@pytest.mark.parametrize("shell", SHELLS)
def test_the_first_request_may_come_with_the_command(shell: str) -> None:
    """It is answered before there is any input; once, when it comes in the input too; and the next one as ever."""
    for first in (b"sample 7 status user\n", b"facts 7 cost\n"):
        command = [*shell_command(shell), "-c", script.source(), "sh", *first.decode().split()]
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


@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_with_its_input(shell: str) -> None:
    """When the connection ends nothing stays behind, also in the middle of a request line."""
    assert _run(b"", shell) == b""
    assert _run(b"sample 1 status us", shell) == b""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_missing_awk(tmp_path: Path, shell: str) -> None:
    """Without awk each answer has the shell's own status for it; nothing is done in between."""
    tools = tools_folder(tmp_path / "tools", {"grep": "grep"})
    source = script.source().replace(SYSTEM_PATH, "")
    assert source != script.source()
    if shell == "busybox sh":
        pytest.skip("busybox finds its own awk without PATH")
    with Probe(shell, tools, source) as probe:
        for _ in range(3):
            assert probe.ask(_sample(ProbeKind.STATUS)) == b"\nAGAIN fleetmem/1 127\n"
        assert_idle(probe)


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_awk_is_all_it_needs(tmp_path: Path, shell: str) -> None:
    """On a host with a shell and awk, and no other program, there is a frame."""
    tools = tools_folder(tmp_path / "tools", {"awk": "awk"})
    source = script.source().replace(SYSTEM_PATH, "")
    with Probe(shell, tools, source) as probe:
        assert os.getpid() in _by_pid(_frame(probe))


@EACH_PAIR
def test_an_awk_that_fails_once(tmp_path: Path, shell: str, awk: str) -> None:
    """Mawk breaks off when a process ends while its file is read: that is said, and the next request gets a frame."""
    tools = tmp_path / "tools"
    tools.mkdir()
    real = f"{find_program(awk)} awk" if awk == "busybox" else find_program(awk)
    broken = "echo BEGIN fleetmem/1 1; echo M 1 2 3 4; echo K - -; read -r _; printf %s 'P 1 0 1'; exit 2"
    write_wrapper(tools / "awk", f'[ -e {tools}/tried ] && exec {real} "$@"; : >{tools}/tried; {broken}')
    if shell == "busybox sh" and busybox_takes_its_own_awk():
        pytest.skip("busybox takes its own awk first")
    with Probe(shell, tools) as probe:
        broken_off = probe.ask(_sample(ProbeKind.STATUS))
        assert broken_off.startswith(b"BEGIN fleetmem/1 1\nM 1 2 3 4\n")
        assert broken_off.endswith(b"P 1 0 1\nAGAIN fleetmem/1 2\n")
        for number in (2, 3):
            snapshot = _frame(probe, number)
            assert os.getpid() in _by_pid(snapshot)
            assert (snapshot.memory.total_bytes or 0) > 1024


@pytest.mark.parametrize("reads", ["", "read -r _; ", "dd bs=4096 count=1 >/dev/null 2>&1; "])
@pytest.mark.parametrize("status", [1, 9, 126])
def test_an_awk_that_fails(tmp_path: Path, status: int, reads: str) -> None:
    """It is started once for each request, whenever it fails, and nothing spins in between."""
    tools = tmp_path / "tools"
    tools.mkdir()
    write_wrapper(tools / "awk", f"echo started >>{tools}/log; {reads}exit {status}")
    with Probe("sh", tools) as probe:
        for count in range(1, 4):
            assert probe.ask(_sample(ProbeKind.STATUS)) == b"\nAGAIN fleetmem/1 %d\n" % status
            assert_idle(probe)
            assert (tools / "log").read_text() == "started\n" * count


@pytest.mark.parametrize("shell", SHELLS)
def test_an_awk_that_is_killed_while_it_waits(shell: str) -> None:
    """By hand, or for want of memory: that is said when nobody asked, and the next request gets a new one."""
    with Probe(shell) as probe:
        _frame(probe)
        (awk,) = probe.awks() or [pytest.skip("this shell's awk has another name")]
        os.kill(awk, signal.SIGKILL)
        assert probe.answer() == b"\nAGAIN fleetmem/1 137\n"
        assert_idle(probe)
        assert os.getpid() in _by_pid(_frame(probe, 2))
        assert probe.awks() not in ([], [awk])


@pytest.mark.parametrize("shell", SHELLS)
def test_it_ends_where_nobody_reads(crowded_proc: Path, shell: str) -> None:
    """A channel that died under a half-written frame leaves nothing behind, nor does one that was never read."""
    for is_closed_first in (True, False):
        probe = Probe(shell, source=_source_on(crowded_proc))
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
        wait_for_end(started)


@pytest.mark.parametrize("shell", SHELLS)
def test_busybox_ps_is_refused(tmp_path: Path, shell: str) -> None:
    """Its sizes are rounded; the message says what to use, and the probe goes on."""
    tools = tools_folder(tmp_path / "tools", {"ps": "busybox"})
    with Probe(shell, tools) as probe:
        for _ in range(2):
            with pytest.raises(HostError, match="busybox, which prints rounded sizes: use the probe kind") as caught:
                _parse(probe.ask(_sample(ProbeKind.PS)))
            assert caught.value.kind is Kind.COMMAND_MISSING
        assert _frame(probe, 2).processes


_FAKE_PROCESSES = 20_000


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
    folder = fake_proc(tmp_path_factory.mktemp("proc"))
    for pid in range(100_001, 100_001 + _FAKE_PROCESSES):
        _fake_process(folder, pid)
    return folder


@EACH_PAIR
def test_twenty_thousand_processes(crowded_proc: Path, tmp_path: Path, shell: str, awk: str) -> None:
    """No limit of a command line counts, and all of them are in each frame."""
    tools = tools_folder(tmp_path / "tools", {"awk": awk})
    with Probe(shell, tools, _source_on(crowded_proc)) as probe:
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


def _host_facts(probe: Probe, request_id: int = 1) -> HostFacts:
    return parse_host_facts(probe.ask(script.facts_request(request_id, FactsKind.HOST)))


def _cpu(probe: Probe) -> ProbeCpu:
    return parse_cpu(probe.ask(script.facts_request(1, FactsKind.COST)))


@EACH_PAIR
def test_facts_are_those_of_this_machine(tmp_path: Path, shell: str, awk: str) -> None:
    """Any shell and awk tell the same about a host, before the first sample and after it."""
    tools = tools_folder(tmp_path / "tools", {"awk": awk})
    with Probe(shell, tools) as probe:
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


@pytest.mark.parametrize("shell", SHELLS)
def test_the_login_shell_is_a_fact(shell: str) -> None:
    """It is what sshd, or a shell on the way, says; nothing in it is special."""
    odd = "/opt/it's a \\n $(shell) *"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHELL", odd)
        done = subprocess.run(
            [*shell_command(shell), "-c", script.source()],
            input=b"facts 1 host\n",
            capture_output=True,
            timeout=60,
            check=True,
        )
    assert parse_host_facts(done.stdout).login_shell == odd


@pytest.mark.parametrize("shell", ["dash", "bash"])
def test_facts_without_awk(tmp_path: Path, shell: str) -> None:
    """What is missing is told where it is missing: the shell alone knows the most of it."""
    tools = tools_folder(tmp_path / "tools", {"date": "date"})
    source = script.source().replace(SYSTEM_PATH, "")
    with Probe(shell, tools, source) as probe:
        facts = _host_facts(probe)
        assert (facts.awk, facts.awk_kind, facts.proc_options) == (None, None, None)
        assert facts.kernel == os.uname().release
        assert facts.unix_seconds
        assert probe.ask(_sample(ProbeKind.STATUS)) == b"\nAGAIN fleetmem/1 127\n"
        assert _cpu(probe).processes == 3


@EACH_PAIR
def test_the_cost_is_that_of_all_its_processes(tmp_path: Path, shell: str, awk: str) -> None:
    """Once awk runs, four processes; what they use is what the kernel says, and asking starts nothing."""
    with Probe(shell, tools_folder(tmp_path / "tools", {"awk": awk})) as probe:
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


def _exact_cpu_seconds(probe: Probe) -> float:
    """Returns the CPU of all that runs for it, once all of it waits."""
    wait_for("all of it waits", lambda: {state_of(pid) for pid in probe.processes()} == {"S"})
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in probe.processes()) / 1e9


def test_the_cost_of_ps_is_that_of_what_it_starts() -> None:
    """Programs that a sample starts are gone by then; their time is with whom waited for them."""
    with Probe() as probe:
        before = _cpu(probe).seconds
        for _ in range(10):
            probe.ask(_sample(ProbeKind.PS))
        assert _cpu(probe).seconds - before > 0.02
