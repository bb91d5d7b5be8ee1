"""What a jump host has to let through, as the inventory and the ssh configuration resolve the way to each host."""

from itertools import pairwise

from fleetmem.cli.hosts import resolve
from fleetmem.cli.logs import LogFormat, set_up
from fleetmem.cli.messages import print_message
from fleetmem.cli.options import Given
from fleetmem.connect.target import Target
from fleetmem.wiring.fleet_spec import fleet_spec, read_inventory


def targets_by_bastion(given: Given) -> dict[str, list[str]]:
    """Returns what each jump host is asked for, as `host:port`, by `user@host:port` of the jump host.

    Where no host has a jump host yet, all hosts are behind one that has no name, "".
    """
    set_up(given.verbosity, LogFormat.TEXT)
    targets = resolve(fleet_spec(given.settings, read_inventory(given.settings))).values()
    found: dict[str, dict[str, None]] = {}
    for target in targets:
        for jump, behind in pairwise([*target.jumps, target]):
            found.setdefault(f"{jump.user}@{_written(jump)}", {})[_written(behind)] = None
    direct = [target for target in targets if not target.jumps]
    if not found:
        return {"": list(dict.fromkeys(map(_written, direct)))}
    if direct:
        print_message(f"note: not behind a jump host, and left out: {', '.join(map(str, direct))}")
    return {bastion: list(opened) for bastion, opened in found.items()}


def _written(target: Target) -> str:
    address = f"[{target.address}]" if ":" in target.address else target.address
    return f"{address}:{target.port}"
