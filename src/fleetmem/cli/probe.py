"""`fleetmem probe`: what runs on the hosts, to read and to allow."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from fleetmem.cli.bastion import targets_by_bastion
from fleetmem.cli.options import Unread, with_some_flags
from fleetmem.cli.output import print_data
from fleetmem.errors import UsageError, reason_of
from fleetmem.probe import script
from fleetmem.runtime import bounded_file
from fleetmem.safe_text import printable


@with_some_flags("hosts", "inventory", "limit", "jump", "port", "ssh_config")
def probe(
    given: Unread,
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
            help="With --authorized-keys: accept the key only from these addresses or networks. Behind a bastion, give "
            "the bastion's address as the host sees it.",
            metavar="ADDRESS,...",
        ),
    ] = None,
    is_bastion: Annotated[
        bool,
        typer.Option(
            "--bastion",
            help="With --authorized-keys: print the line for a bastion (jump host). The key may only forward "
            "connections to the hosts of --permit-open or of the inventory.",
            show_default=False,
        ),
    ] = False,
    permit_open: Annotated[
        str | None,
        typer.Option(
            "--permit-open",
            help="With --bastion: the hosts to forward to, named as fleetmem asks the bastion for them. `*` is any "
            "host or any port: *:22.",
            metavar="HOST:PORT,...",
        ),
    ] = None,
    sudoers: Annotated[
        str | None,
        typer.Option(
            "--sudoers",
            help="Print lines for /etc/sudoers.d that let this user run only the probe as root.",
            metavar="USER",
        ),
    ] = None,
    command: Annotated[
        bool, typer.Option("--command", help="Print the command that fleetmem sends to a host.", show_default=False)
    ] = False,
    is_root: Annotated[
        bool,
        typer.Option(
            "--sudo",
            help="With --authorized-keys or --command: run the probe as root with `sudo -n`.",
            show_default=False,
        ),
    ] = False,
    protocol: Annotated[
        int,
        typer.Option(
            "--protocol",
            help="Print the probe of this protocol: 1 sends all rows each time, 2 those that changed (a preview).",
            metavar="1|2",
            min=1,
            max=script.LATEST,
        ),
    ] = script.USUAL,
) -> None:
    """Print the script that runs on the hosts, or a rule that allows exactly this script.

    Examples:
      # read what runs on your hosts
      fleetmem probe | less
      # a key that can run the probe and nothing else, from one address
      fleetmem probe --authorized-keys ~/.ssh/fleetmem.pub --from 192.0.2.10 >> authorized_keys
      # the probe as root, for hosts that hide processes
      fleetmem probe --sudoers fleetmem > /etc/sudoers.d/fleetmem
      # the same key on a bastion: it can reach these hosts, and nothing else
      fleetmem probe --authorized-keys ~/.ssh/fleetmem.pub --bastion -i @hosts.txt -J bastion.example.com
      fleetmem probe --authorized-keys ~/.ssh/fleetmem.pub --bastion --permit-open '*:22' --from 192.0.2.10

    The flags for hosts and for reaching them are for --bastion only.
    """
    if not is_bastion and (given.flags or permit_open is not None):
        raise UsageError("probe: flags for hosts and --permit-open say what a bastion passes on to; add --bastion")
    sent = script.root_command(protocol) if is_root else script.command(protocol)
    if is_bastion:
        if not authorized_keys or is_root:
            raise UsageError("--bastion: needs --authorized-keys KEY.pub, and no --sudo: hosts run the probe")
        print_data(_bastion_lines(authorized_keys, given, permit_open, _split(sources)))
    elif authorized_keys:
        public_key = _read_key(authorized_keys)
        with _mistakes_in("--from"):
            line = script.authorized_keys_line(public_key, command=sent, sources=_split(sources))
        print_data(f"{line}\n")
    elif sudoers:
        with _mistakes_in("--sudoers"):
            lines = script.sudoers(sudoers, protocol)
        print_data(lines)
    elif command:
        print_data(f"{sent}\n")
    else:
        print_data(script.source(protocol))


_KEY_LIMIT_BYTES = 1 << 20


def _split(words: str | None) -> list[str]:
    return words.split(",") if words is not None else []


def _bastion_lines(path: Path, given: Unread, permit_open: str | None, sources: list[str]) -> str:
    """Returns a line, or several with a comment each that names its bastion."""
    if permit_open is not None and given.flags:
        raise UsageError("--bastion: what to pass on to is in --permit-open or in the inventory; give one of them")
    bastions = {"": _split(permit_open)} if permit_open is not None else targets_by_bastion(given.read())
    public_key = _read_key(path)
    with _mistakes_in("--bastion"):
        lines = {
            bastion: script.bastion_line(public_key, targets=targets, sources=sources)
            for bastion, targets in bastions.items()
        }
    if len(lines) == 1:
        return f"{lines.popitem()[1]}\n"
    return "".join(f"# For {printable(bastion)}\n{line}\n" for bastion, line in lines.items())


@contextmanager
def _mistakes_in(flag: str) -> Iterator[None]:
    try:
        yield
    except ValueError as error:
        raise UsageError(f"{flag}: {error}") from error


def _read_key(path: Path) -> str:
    try:
        return script.checked_key(bounded_file.read_text(path.expanduser(), _KEY_LIMIT_BYTES))
    except (OSError, RuntimeError) as error:  # RuntimeError: ~somebody without a home
        raise UsageError(f"{path}: {reason_of(error)}") from error
    except ValueError as error:  # UnicodeDecodeError is one
        raise UsageError(f"{path}: {error}") from error
