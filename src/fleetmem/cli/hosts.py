"""`fleetmem hosts`: the inventory as it resolves."""

import json
from typing import Annotated

import typer

from fleetmem.build import Fleet, build_fleet
from fleetmem.cli.options import Given, ask_passphrase, with_settings
from fleetmem.cli.output import OutputFormat
from fleetmem.model import Host
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
        for host, target, stem in rows:
            line = {
                "host": host.name,
                "address": target.address,
                "port": target.port,
                "user": target.user,
                "metric": stem,
            }
            print(json.dumps(line))
        return
    widths = [max(len(text) for text in ("HOST", *(host.name for host, _, _ in rows)))]
    print(f"{'HOST':<{widths[0]}}  CONNECTS TO")
    for host, target, _ in rows:
        print(f"{host.name:<{widths[0]}}  {target.user}@{target.address} port {target.port}")
