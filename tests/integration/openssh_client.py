"""OpenSSH's own client, to try what a key may do."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from .servers import Sshd, environment, find_tool


@dataclass(frozen=True)
class Ssh:
    """OpenSSH's client, with one key and nothing of this machine's configuration."""

    sshd: Sshd
    key: Path
    home: Path

    def command(self, program: str, *words: str) -> list[str]:
        """Returns the words of a command: of ssh, sftp or scp."""
        settings = ("IdentitiesOnly=yes", "BatchMode=yes", "StrictHostKeyChecking=no", "ExitOnForwardFailure=yes")
        options = [word for setting in settings for word in ("-o", setting)]
        options += ["-F", "none", "-o", f"UserKnownHostsFile={self.home}/known", "-i", str(self.key)]
        return [find_tool(program), *options, "-o", f"Port={self.sshd.port}", *words]

    def __call__(
        self, *words: str, text: str = "", program: str = "ssh", **env: str
    ) -> "subprocess.CompletedProcess[str]":
        """Runs it to its end."""
        return subprocess.run(
            self.command(program, *words),
            input=text,
            env=environment(self.home) | env,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )

    @contextmanager
    def running(self, *words: str, **env: str) -> "Iterator[subprocess.Popen[str]]":
        """Runs ssh until it is stopped; standard input stays open."""
        pipe = subprocess.PIPE
        with subprocess.Popen(
            self.command("ssh", *words),
            stdin=pipe,
            stdout=pipe,
            stderr=pipe,
            text=True,
            env=environment(self.home) | env,
        ) as process:
            try:
                yield process
            finally:
                process.kill()
