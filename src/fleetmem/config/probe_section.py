"""`[probe]`: what runs on the hosts."""

from typing import Literal

from fleetmem.config.fields import Section
from fleetmem.probe.script import ProbeKind, Processes


class Probe(Section):
    """What runs on the hosts."""

    kind: ProbeKind = ProbeKind.STATUS
    """status reads /proc, ps runs ps (for hosts without a readable /proc)"""
    sudo: bool = False
    """run it as root by sudo -n, where hosts hide processes (hidepid); see `fleetmem probe --sudoers USER`"""
    protocol: Literal[1, 2] = 1
    """what a host is asked to speak: 1 sends all rows each time, 2 those that changed (a preview)"""
    processes: Processes = Processes.USER
    """user leaves out kernel threads and zombies, which own no memory; all keeps them"""
