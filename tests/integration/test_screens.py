"""What people see on terminals of several sizes: no line is longer than the screen, and no name is broken."""

import re
from pathlib import Path

import pytest

from fleetmem.cli.wrapping import width_of
from fleetmem.lab.directory import Directory

from . import servers
from .servers import PATIENT, TOOLS, Cli, Sshd, missing
from .terminal import Terminal, on_terminal

pytestmark = pytest.mark.slow

SIZES = [(60, 20), (80, 24), (120, 40), (200, 50)]
NAME = "worker{}.eu-west-1.compute.internal.example.com"
ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COLOUR = re.compile(r"\x1b\[[0-9;]*m")


def _shown(terminal: Terminal) -> list[str]:
    """Returns the lines that stay, with their colours: a progress bar erases itself before they come."""
    text = terminal.screen.rpartition("\x1b[2K")[2]
    return text.replace("\r", "").rstrip("\n").split("\n")


def _plain(lines: list[str]) -> list[str]:
    """Returns lines without colours; they have no other escape sequences."""
    plain = [COLOUR.sub("", line) for line in lines]
    assert all(line.isprintable() for line in plain), plain
    return plain


@pytest.fixture
def names(cli: Cli) -> str:
    """Twelve long names of one host that answers, and eight of one that does not."""
    (cli.home / ".ssh").mkdir()
    lines = ["Host worker1*", "HostName 127.0.1.1", "Host worker2*", f"HostName 127.0.1.1\nPort {servers.free_port()}"]
    (cli.home / ".ssh" / "config").write_text("\n".join(lines) + "\n")
    return f"{NAME.format('[101-112]')},{NAME.format('[201-208]')}"


@pytest.mark.parametrize("size", SIZES)
def test_collect(size: tuple[int, int], names: str, fleet: Sshd, cli: Cli) -> None:
    """The table has the height of the screen, with names cut at most; failures are folded and wrapped by words."""
    columns, rows = size
    hosts = names.replace(",", f":{fleet.port},", 1)
    with on_terminal(cli, "collect", "-i", hosts, "-k", fleet.key, *PATIENT, has_stdout=True, size=size) as terminal:
        terminal.finish(seconds=90)
    lines = _plain(_shown(terminal))
    assert max(map(width_of, lines)) <= columns, "\n".join(lines)
    assert len(lines) < rows
    assert terminal.status == 1
    header, foot = lines[0].split(), next(number for number, line in enumerate(lines) if " processes on " in line)
    assert header[:3] == ["HOST", "PID", "COMMAND" if "USER" not in header else "USER"]
    assert columns == 120 or ("ANON" in header) is (columns == 200)  # at 120 it depends on the length of numbers
    for line in lines[1:foot]:
        assert re.match(r"worker1\d*(\.[\w.-]*:\d+|\S*…\S*) +\d+ ", line)
        assert line.count("…") <= 2
    below = "\n".join(lines[foot:])
    assert re.match(rf"{foot - 1} of [\d,]+ processes on 12 hosts: ", below.replace("\n", " "))
    assert NAME.format("[201-208]") in below
    assert "unreachable: connection refused" in below.replace("\n      ", " ")
    assert "…" not in below


@pytest.mark.parametrize("variables", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_no_colours(variables: dict[str, str], fleet: Sshd, cli: Cli) -> None:
    """Where nobody wants them, all is said in words."""
    flags = ("-i", f"127.0.1.1:{fleet.port},127.0.1.2:{servers.free_port()}", "-k", fleet.key, *PATIENT)
    with on_terminal(cli, "collect", *flags, has_stdout=True, size=(80, 24), **variables) as terminal:
        terminal.finish(seconds=90)
    lines = _shown(terminal)
    assert _plain(lines) == lines
    assert "1 of 2 hosts failed:" in lines


def test_a_pipe_has_all_of_a_name(names: str, fleet: Sshd, cli: Cli) -> None:
    """Nothing is cut, twenty rows, and no escape sequence; COLUMNS is honoured."""
    hosts = names.partition(",")[0]
    flags = ("-i", hosts, "-p", fleet.port, "-k", fleet.key, *PATIENT)
    lines = _plain(cli("collect", *flags, COLUMNS="").stdout.splitlines())
    assert len(lines) == 22
    assert "ANON" in lines[0]
    assert all(re.match(r"worker1\d\d\.eu-west-1\.compute\.internal\.example\.com ", line) for line in lines[1:-1])
    assert max(map(len, cli("collect", *flags, COLUMNS="70").stdout.splitlines())) <= 70


@pytest.mark.parametrize("size", SIZES)
def test_doctor(size: tuple[int, int], names: str, fleet: Sshd, cli: Cli) -> None:
    """Findings are wrapped between words, hosts are folded, and the problems announced are those above."""
    hosts = names.replace(",", f":{fleet.port},", 1)
    with on_terminal(cli, "doctor", "-i", hosts, "-k", fleet.key, *PATIENT, has_stdout=True, size=size) as terminal:
        terminal.finish(seconds=90)
    lines = _plain(_shown(terminal))
    assert max(map(width_of, lines)) <= size[0], "\n".join(lines)
    text = re.sub(r"\s+", " ", " ".join(lines))
    assert f"problem 8 hosts ({NAME.format('[201-208]')}): connection refused" in text
    assert "1 problem on 8 hosts, " in text
    assert sum(line.startswith("problem ") for line in lines) == 1
    assert "…" not in text


@pytest.mark.parametrize("columns", [60, 200])
def test_help(columns: int, cli: Cli) -> None:
    """As wide as the terminal, at most; what each command says is looked at in unit tests."""
    with on_terminal(cli, "collect", "--help", has_stdout=True, size=(columns, 24)) as terminal:
        terminal.finish(seconds=90)
    lines = _plain(_shown(terminal))
    assert max(map(len, lines)) <= min(columns, 110)
    assert "  -i, --hosts HOST,..." in [line[:22] for line in lines]


def test_demo(cli: Cli, tmp_path: Path) -> None:
    """The leak is on top at every size, and after a resize there is one table, of the new size."""
    installed = Directory(TOOLS).venv
    if not installed.is_dir():
        missing("Graphite")
    folder = tmp_path / "lab"
    folder.mkdir()
    (folder / installed.name).symlink_to(installed)
    flags = ("lab", "demo", "--dir", folder, "--hosts", 1)
    with on_terminal(cli, *flags, has_stdout=True, size=SIZES[0], DEMO_SECONDS="9", TERM="xterm") as terminal:
        terminal.expect("leaky", seconds=120)
        for columns, rows in (*SIZES[1:], SIZES[0]):
            terminal.resize(columns, rows)
            frame = terminal.next_frame()
            lines = [ESCAPE.sub("", line) for line in frame.split("\n")]
            assert max(map(width_of, lines)) <= columns, frame
            assert len(lines) <= rows
            assert lines[1].split()[:3] == ["HOST", "PID", "COMMAND"]
            assert re.match(r"127\.0\.1\.1 +\d+ +\S+ ", lines[2])
            assert ("GRAPHITE" in lines[1]) is (columns >= 80)
        terminal.finish(seconds=120)
    assert terminal.status == 0, terminal.screen
    end = ESCAPE.sub("", terminal.screen.rpartition("\x1b[J")[2].replace("\r", ""))
    assert max(map(width_of, end.split("\n"))) <= SIZES[0][0]
    assert re.findall(r"^HOST .*\n(\S+) +\d+ (\S+)", end, re.MULTILINE) == [("127.0.1.1", "leaky")]
