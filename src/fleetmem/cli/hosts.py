"""`fleetmem hosts`: the inventory as it resolves."""

import json
from typing import Annotated, NamedTuple

import typer

from fleetmem.cli.logs import LogFormat, Verbosity, set_up
from fleetmem.cli.options import Given, with_settings
from fleetmem.cli.output import ListFormat, print_data
from fleetmem.connect.openssh.targets import Targets
from fleetmem.connect.target import Target
from fleetmem.model import Host
from fleetmem.safe_text import printable, redact
from fleetmem.sinks.formats import statsd_plain
from fleetmem.sinks.naming import FleetNames
from fleetmem.wiring.fleet_spec import FleetSpec, fleet_names, fleet_spec, read_inventory
from fleetmem.wiring.host_settings import settings_by_host


class _Row(NamedTuple):
    host: Host
    target: Target
    metric: str


@with_settings
def hosts(
    given: Given,
    format_: Annotated[
        ListFormat, typer.Option("--format", help="table for people, jsonl for machines.", metavar="table|jsonl")
    ] = ListFormat.TABLE,
) -> None:
    """List the hosts that an inventory names and how fleetmem would reach them. Connect to none of them.

    Use it to try the flags that choose hosts. They work the same with every command.

    Examples:
      fleetmem hosts -i 'web[01-50].example.com'
      # Ansible: group web in eu, without old
      fleetmem hosts --inventory ansible:hosts.ini --limit 'web:&eu:!old'
      # AWS: instances of a region with a tag
      fleetmem hosts --inventory 'ec2:region=eu-west-1,tag:Role=web'
      # Terraform state and Prometheus targets together
      fleetmem hosts --inventory terraform:DIR --inventory 'file_sd:targets/*.json' --limit env=prod
      fleetmem hosts --inventory ssh:~/.ssh/config --inventory http_sd:https://sd.example.com/targets
      # a list of hosts, a JSON file, the output of a program
      fleetmem hosts --inventory hosts:FILE --inventory json:FILE --inventory 'command:PROGRAM ARGUMENT'

    You may leave out KIND: for a URL, a folder, or a file whose kind shows.
    """
    set_up(Verbosity.WARNINGS if given.verbosity is Verbosity.NORMAL else given.verbosity, LogFormat.TEXT)
    spec = fleet_spec(given.settings, read_inventory(given.settings))
    targets = resolve(spec)
    names = fleet_names(spec)
    rows = [_Row(host, target, _stem(names, host)) for host, target in targets.items()]
    lines = map(_json, rows) if format_ is ListFormat.JSONL else _table(rows)
    print_data("".join(f"{line}\n" for line in lines))


def resolve(spec: FleetSpec) -> dict[Host, Target]:
    """Returns the hosts of a fleet as they are to be reached; no key is read."""
    by_host = settings_by_host(spec.settings, spec.hosts, spec.matches, is_refresh=False)
    return Targets(spec.reach).resolve_all(spec.hosts, lambda host: by_host[host].ssh)


def _stem(names: FleetNames, host: Host) -> str:
    return statsd_plain(names.prefix, names.host(host.name).host).head


def _json(row: _Row) -> str:
    host, target, metric = row
    line: dict[str, object] = {"host": host.name, "address": target.address, "port": target.port, "user": target.user}
    if target.jumps:
        line["jump"] = ",".join(map(str, target.jumps))
    line["metric"] = metric
    if host.groups:
        line["groups"] = sorted(host.groups)
    if host.labels:
        line["labels"] = dict(host.labels)
    return json.dumps(line)


def _table(rows: list[_Row]) -> list[str]:
    """Returns lines with a column each for what any of the hosts has."""
    columns = [
        ["HOST", *(host.name for host, _, _ in rows)],
        ["CONNECTS TO", *(f"{target.user}@{target.address} port {target.port}" for _, target, _ in rows)],
        ["THROUGH", *(target.proxy_command or ",".join(map(str, target.jumps)) for _, target, _ in rows)],
        ["GROUPS", *(",".join(sorted(host.groups)) for host, _, _ in rows)],
        ["LABELS", *(" ".join(f"{key}={value}" for key, value in host.labels.items()) for host, _, _ in rows)],
    ]
    shown = [[printable(redact(cell)) for cell in column] for column in columns if any(column[1:])]
    widths = [max(map(len, column)) for column in shown]
    return ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in zip(*shown, strict=True)]
