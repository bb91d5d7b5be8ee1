"""`fleetmem hosts`: the inventory as it resolves."""

import json
from typing import Annotated

import typer

from fleetmem.build import Fleet, build_fleet
from fleetmem.cli.options import Given, ask_passphrase, with_settings
from fleetmem.cli.output import OutputFormat, print_data
from fleetmem.model import Host
from fleetmem.safe_text import printable, redact
from fleetmem.sinks.formats import statsd_plain


def _stem(fleet: Fleet, host: Host) -> str:
    return statsd_plain(fleet.names.prefix, fleet.names.host(host.name).host).head


@with_settings
def hosts(
    given: Given,
    format_: Annotated[OutputFormat, typer.Option("--format", help="table or jsonl.")] = OutputFormat.TABLE,
) -> None:
    """Show the hosts as the inventory and the ssh configuration resolve them; connect to none.

    Example: fleetmem hosts -i web[01-50].example.com
    """
    fleet = build_fleet(given.settings.without_sinks(), ask_passphrase)
    rows = [(host, fleet.reach.target(host), _stem(fleet, host)) for host in fleet.hosts]
    if format_ is OutputFormat.JSONL:
        objects = (
            {
                "host": host.name,
                "address": target.address,
                "port": target.port,
                "user": target.user,
                "metric": stem,
            }
            for host, target, stem in rows
        )
        print_data("".join(f"{json.dumps(line)}\n" for line in objects))
        return
    width = max(len(text) for text in ("HOST", *(host.name for host, _, _ in rows)))
    lines = [f"{'HOST':<{width}}  CONNECTS TO"]
    lines += [f"{host.name:<{width}}  {target.user}@{target.address} port {target.port}" for host, target, _ in rows]
    print_data("".join(f"{printable(redact(line))}\n" for line in lines))
