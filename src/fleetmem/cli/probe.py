"""`fleetmem probe`: what runs on the hosts, to read and to allow."""

from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.output import print_data
from fleetmem.errors import UsageError
from fleetmem.probe import script


def probe(
    authorized_keys: Annotated[
        Path | None,
        typer.Option(
            "--authorized-keys",
            help="Print an authorized_keys line that lets this public key run the probe and nothing else.",
            metavar="KEY.pub",
        ),
    ] = None,
    command: Annotated[bool, typer.Option("--command", help="Print the command as it is sent to a host.")] = False,
) -> None:
    """Print the script that runs on the hosts.

    Examples:
      fleetmem probe | less

      fleetmem probe --authorized-keys ~/.ssh/fleetmem.pub >> authorized_keys
    """
    if authorized_keys:
        try:
            line = script.authorized_keys_line(authorized_keys.expanduser().read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UsageError(f"{authorized_keys}: {error}") from error
        print_data(f"{line}\n")
    elif command:
        print_data(f"{script.command()}\n")
    else:
        print_data(script.source())
