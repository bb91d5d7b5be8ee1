"""Every command in README, docs and examples runs as it stands, against real hosts. A new one that does not fails."""

import http.server
import json
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from fleetmem.cli import make_app

from . import documents
from .documents import Place
from .servers import REPOSITORY, USER, Sshd, StatsD, free_port

HOSTS = ["web01.example.com", "web02.example.com", "web03.example.com"]
# Followed to their end by a test of their own: they install two releases, or remove what must have been there.
LONG_PAGES = ["docs/how-to/deploy.md", "docs/how-to/upgrade.md", "docs/how-to/remove.md"]
PAGES = [
    page
    for page in documents.pages()
    if documents.blocks(page) and page not in LONG_PAGES and page not in documents.PAGES_NOT_RUNNABLE
]


class _Grafana(http.server.BaseHTTPRequestHandler):
    """Takes dashboards as Grafana's API does, and answers queries with no series."""

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        is_right = self.path == "/api/dashboards/db" and "title" in body["dashboard"] and body["overwrite"]
        self.send_response(200 if is_right else 400)
        self.end_headers()

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"[]")

    def log_message(self, *_arguments: object) -> None:
        """Prints nothing."""


@contextmanager
def _grafana() -> Iterator[int]:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Grafana) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def _ssh_config(fleet: Sshd, home: Path) -> str:
    names = [f"web{number:02}.example.com" for number in range(1, 51)]
    entries = [f"Host {name}\n  HostName 127.0.1.{number}" for number, name in enumerate(names, 1)]
    return (
        "\n".join([*entries, "Host bastion.example.com\n  HostName 127.0.1.50"])
        + f"\nHost *.example.com\n  User {USER}\n  Port {fleet.port}\n  IdentityFile {fleet.key}\n"
        + f"  IdentitiesOnly yes\nHost *\n  UserKnownHostsFile {home}/.ssh/known_hosts\n"
    )


@pytest.fixture
def place(tmp_path: Path, fleet: Sshd, statsd: StatsD) -> Iterator[Place]:
    """A folder with the files that the documents name, and hosts behind the names."""
    home = tmp_path / "home"
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    (home / ".ssh" / "config").write_text(_ssh_config(fleet, home))
    (tmp_path / "hosts.txt").write_text("".join(f"{host}\n" for host in HOSTS))
    (tmp_path / "hosts.ini").write_text(
        "[web]\n{}\n{}\n[eu]\n{}\n{}\n[old]\n{}\n".format(*HOSTS[:2], *HOSTS[:2], HOSTS[1])
    )
    settings = f"[inventory]\nhosts = {json.dumps(HOSTS)}\n[statsd]\nserver = {json.dumps(statsd.address)}\n"
    for name in ("fleetmem.toml", "fleet.toml"):
        (tmp_path / name).write_text(settings)
    for suffix in ("", ".pub"):
        shutil.copy(f"{fleet.key}{suffix}", tmp_path / f"fleetmem{suffix}")
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    for folder in ("deploy", "examples", "src"):
        (tmp_path / folder).symlink_to(REPOSITORY / folder)
    with _grafana() as grafana:
        words = {
            r"statsd\.example\.com": statsd.address,
            r"-g 127\.0\.0\.1(?![:.\d])": f"-g {statsd.address}",
            r"-u fleetmem\b": f"-u {USER}",
            r"~/\.ssh/fleetmem\b": "fleetmem",
            r"--prometheus 9877\b": f"--prometheus {free_port()}",
            r"http://graphite\.example\.com": f"http://127.0.0.1:{free_port()}",
            r"https://grafana\.example\.com": f"http://127.0.0.1:{grafana}",
            r"getpass\.getpass\(\)": '"typed"',
            r"\$(GRAPHITE|PROMETHEUS)\b": f"http://127.0.0.1:{grafana}",
        }
        place = Place(tmp_path, words)
        place.add_program("fleetmem", documents.fleetmem_until_it_works(statsd.address))
        # A target that is not there ends it. What each one does is run by CI, by other tests, or by hand for figures.
        place.add_program("make", f'cd {REPOSITORY} && PATH=/usr/bin:/bin exec make --dry-run "$@" >/dev/null\n')
        # The key that the hosts know; ssh-keygen must take the words all the same.
        place.add_program("ssh-keygen", 'cd "$(mktemp -d)" && exec /usr/bin/ssh-keygen -q -N "" "$@"\n')
        place.add_program(
            "useradd",
            f"mkdir -p {tmp_path}/root/etc && touch {tmp_path}/root/etc/{{passwd,group,shadow}}\n"
            f'exec /usr/sbin/useradd --prefix {tmp_path}/root "${{@/--create-home/--no-create-home}}"\n',
        )
        yield place
    if (tmp_path / ".lab").exists():
        subprocess.run([tmp_path / "bin" / "fleetmem", "lab", "down", "--dir", tmp_path / ".lab"], check=False)


def test_each_block_has_a_language() -> None:
    """A block without one could be commands that nobody runs."""
    assert [
        (page, line) for page in documents.pages() for line, language in documents.languages(page) if not language
    ] == []
    other = {"bash", "shell", "console", "shell-session", "zsh"}
    assert [
        (page, line) for page in documents.pages() for line, language in documents.languages(page) if language in other
    ] == []


def test_few_commands_are_not_run() -> None:
    """Only what needs AWS, Docker or Kubernetes; no entry without a command."""
    assert len(documents.NOT_RUNNABLE) + len(documents.PAGES_NOT_RUNNABLE) <= 15
    reasons = {*documents.NOT_RUNNABLE.values(), *documents.PAGES_NOT_RUNNABLE.values()}
    assert {reason.split(":")[0] for reason in reasons} == {"AWS", "Docker", "Kubernetes"}
    commands = [
        line for page in documents.pages() for block in documents.blocks(page) for line in block.text.splitlines()
    ]
    for begin in (*documents.NOT_RUNNABLE, *documents.RUN_ELSEWHERE):
        assert any(command.startswith(begin) for command in commands), begin
    assert all((REPOSITORY / test).exists() for test in documents.RUN_ELSEWHERE.values())


@pytest.mark.parametrize(("page", "words"), sorted(set(documents.inline_commands())))
def test_a_command_within_a_sentence_exists(page: str, words: str) -> None:
    """Its subcommands and flags are fleetmem's."""
    command: Any = get_command(make_app())
    rest = shlex.split(re.split(r" (?:\||\\\||>|&&) ?", words)[0])
    while rest and hasattr(command, "commands") and not rest[0].isupper():
        assert rest[0] in command.commands, f"{page}: fleetmem {words}"
        command = command.commands[rest.pop(0)]
    known = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    flags = {word.partition("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
    assert flags <= known | {"--help", "--version", "-h"}, f"{page}: fleetmem {words}"


SLOWEST = ["docs/tutorial/first-fleet.md", "docs/how-to/scaling.md"]  # they start a lab, and workers


@pytest.mark.slow
@pytest.mark.parametrize("page", [pytest.param(page, marks=[pytest.mark.long] * (page in SLOWEST)) for page in PAGES])
def test_the_commands_of_a_page_run(page: str, place: Place) -> None:
    """One block after the other; the shell's trace shows which command failed."""
    for block in documents.blocks(page):
        done = place.run(block)
        assert done.returncode == 0, f"{page}:{block.line}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
