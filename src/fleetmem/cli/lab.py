"""`fleetmem lab`: hosts, StatsD and Graphite on this machine, to try fleetmem on."""

import typer

app = typer.Typer(no_args_is_help=True, help="Hosts, StatsD and Graphite on this machine, for trying and testing.")


@app.command()
def up() -> None:
    """Start the lab."""
