"""The command line: one file per command, and nothing else prints. Data goes to stdout, everything else to stderr."""

import errno
import gc
import sys
from collections.abc import Iterable
from importlib import import_module
from traceback import format_exc

import typer

from fleetmem.cli import surroundings
from fleetmem.cli.help_page import HelpfulCommand, HelpfulGroup
from fleetmem.cli.messages import print_message
from fleetmem.errors import FleetmemError, SinkError, UsageError, reason_of
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.safe_text import redact

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF)

_COMMANDS = {
    "collect": "fleetmem.cli.collect:collect",
    "run": "fleetmem.cli.run:run",
    "plan": "fleetmem.cli.plan:plan",
    "hosts": "fleetmem.cli.hosts:hosts",
    "doctor": "fleetmem.cli.doctor:doctor",
    "config": "fleetmem.cli.config:app",
    "probe": "fleetmem.cli.probe:probe",
    "dashboards": "fleetmem.cli.dashboards:dashboards",
    "lab": "fleetmem.cli.simulate:app",  # cli.lab's, to which it adds a command
}


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version  # here: no other start has a use for it

        from fleetmem.cli.output import print_data

        print_data(f"fleetmem {version('fleetmem')}\n")
        raise typer.Exit


def _fleetmem(
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version.", show_default=False
    ),
) -> None:
    """Find which process on which host uses the memory: over SSH, without an agent, into StatsD and Graphite.

    Examples:
      # one look at two hosts, sent to StatsD on 10.0.0.9
      fleetmem collect -u ubuntu -k key.pem -i 10.0.0.1,10.0.0.2 -g 10.0.0.9
      # the same every 10 s
      fleetmem run -u ubuntu -k key.pem -i 10.0.0.1,10.0.0.2 -g 10.0.0.9
    """


def make_app(names: Iterable[str] = _COMMANDS) -> typer.Typer:
    """Returns the command line with these commands, all of them where nobody says which: each is imported only then."""
    app = typer.Typer(
        name="fleetmem",
        cls=HelpfulGroup,
        no_args_is_help=True,
        add_completion=True,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_fleetmem)
    for name in names:
        module, _, attribute = _COMMANDS[name].partition(":")
        command = getattr(import_module(module), attribute)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=name)
        else:
            app.command(name, cls=HelpfulCommand)(command)
    return app


def main() -> None:
    """Runs the command line; what the world or the user did wrong ends with one clear message and no traceback."""
    surroundings.complete()
    gc.disable()  # imports make much, and nothing of it goes away: a tenth of the start was spent looking for it
    first = sys.argv[1:2]
    app = make_app(() if first == ["--version"] else first if first and first[0] in _COMMANDS else _COMMANDS)
    gc.freeze()
    gc.enable()
    try:
        app()
    except UsageError as error:
        print_message(f"fleetmem: {error}")
        sys.exit(ExitStatus.USAGE)
    except SinkError as error:
        print_message(f"fleetmem: {error}")
        sys.exit(ExitStatus.SINK)
    except KeyboardInterrupt:
        sys.exit(ExitStatus.INTERRUPTED)
    except FleetmemError as error:
        print_message(f"fleetmem: {error}")
        sys.exit(ExitStatus.FAILED)
    except Exception as error:  # noqa: BLE001 - a bug of ours
        if isinstance(error, OSError) and error.errno in _UNWRITABLE:  # the help, which typer prints
            surroundings.forget_stdout()
            print_message(f"fleetmem: output: {reason_of(error)}")
            sys.exit(ExitStatus.SINK)
        print_message(f"{redact(format_exc())}fleetmem: this is a bug in fleetmem: please report it")
        sys.exit(ExitStatus.INTERNAL)
