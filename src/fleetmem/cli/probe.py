"""`fleetmem probe`: what runs on the hosts, to read and to allow."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.output import print_data
from fleetmem.errors import UsageError, reason_of
from fleetmem.probe import script
from fleetmem.runtime import bounded_file


def probe(
    authorized_keys: Annotated[
        Path | None,
        typer.Option(
            "--authorized-keys",
            help="Print an authorized_keys line that lets this public key run the probe and nothing else.",
            metavar="KEY.pub",
        ),
    ] = None,
    sources: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="With --authorized-keys: good only from these addresses or networks.",
            metavar="ADDRESS,...",
        ),
    ] = None,
    sudoers: Annotated[
        str | None,
        typer.Option(
            "--sudoers",
            help="Print lines for /etc/sudoers.d that let this user run the probe as root and nothing else.",
            metavar="USER",
        ),
    ] = None,
    command: Annotated[bool, typer.Option("--command", help="Print the command as it is sent to a host.")] = False,
    is_root: Annotated[
        bool, typer.Option("--sudo", help="With --authorized-keys or --command: the probe as root, by sudo -n.")
    ] = False,
) -> None:
    """Print the script that runs on the hosts, or what allows exactly that there.

    Examples:
      fleetmem probe | less

      fleetmem probe --authorized-keys ~/.ssh/fleetmem.pub --from 192.0.2.10 >> authorized_keys

      fleetmem probe --sudoers fleetmem > /etc/sudoers.d/fleetmem
    """
    sent = script.root_command() if is_root else script.command()
    if authorized_keys:
        print_data(f"{_authorized_keys_line(authorized_keys, sent, sources)}\n")
    elif sudoers:
        try:
            print_data(script.sudoers(sudoers))
        except ValueError as error:
            raise UsageError(f"--sudoers: {error}") from error
    elif command:
        print_data(f"{sent}\n")
    else:
        print_data(script.source())


_KEY_LIMIT_BYTES = 1 << 20


def _authorized_keys_line(path: Path, command: str, sources: str | None) -> str:
    try:
        public_key = bounded_file.read_text(path.expanduser(), _KEY_LIMIT_BYTES)
        parts = sources.split(",") if sources is not None else []
        return script.authorized_keys_line(public_key, command=command, sources=parts)
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        raise UsageError(f"{path}: {reason_of(error)}") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise UsageError(f"{path}: {error}") from error
