"""The command line: one file per command, and nothing else prints. Data goes to stdout, everything else to stderr."""

import sys

import typer

from fleetmem.cli import collect, config, dashboards, doctor, hosts, lab, probe, run, simulate
from fleetmem.cli.messages import print_message
from fleetmem.errors import SinkError, UsageError

EXIT_USAGE = 2
EXIT_SINK = 4
EXIT_INTERRUPTED = 130

app = typer.Typer(
    name="fleetmem",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="One line does it: fleetmem collect -u ubuntu -k key.pem -i 10.0.0.1,10.0.0.2 -g 10.0.0.9",
)
app.command("collect")(collect.collect)
app.command("run")(run.run)
app.command("hosts")(hosts.hosts)
app.command("doctor")(doctor.doctor)
app.add_typer(config.app, name="config")
app.command("probe")(probe.probe)
app.command("dashboards")(dashboards.dashboards)
lab.app.command("simulate")(simulate.simulate)
app.add_typer(lab.app, name="lab")


def _print_version(is_wanted: bool) -> None:
    if is_wanted:
        from importlib.metadata import version  # here: no other start has a use for it

        print(f"fleetmem {version('fleetmem')}")
        raise typer.Exit


@app.callback()
def _fleetmem(
    _version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version."
    ),
) -> None:
    """Which process, on which host, is using the memory: over SSH, without an agent, into StatsD and Graphite."""


def main() -> None:
    """Runs the command line; what the world or the user did wrong ends with one clear message and no traceback."""
    try:
        app()
    except UsageError as error:
        print_message(f"fleetmem: {error}")
        sys.exit(EXIT_USAGE)
    except SinkError as error:
        print_message(f"fleetmem: {error}")
        sys.exit(EXIT_SINK)
    except KeyboardInterrupt:
        sys.exit(EXIT_INTERRUPTED)
