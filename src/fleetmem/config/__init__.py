"""Configuration: flags over environment over a TOML file over defaults, checked, as one frozen object.

Environment variables are `FLEETMEM_<SECTION>__<KEY>`, as in `FLEETMEM_SSH__USER=ubuntu`.
"""

from fleetmem.config.doctor_section import Doctor
from fleetmem.config.inventory_section import InventorySection, split_shard
from fleetmem.config.loading import DEFAULT_PATHS, PATH_VARIABLE, find_path, load
from fleetmem.config.network import Server, split_address, split_server
from fleetmem.config.probe_section import Probe
from fleetmem.config.problems import InvalidSettingsError, Problem
from fleetmem.config.run_section import AUTO, Run
from fleetmem.config.settings import Settings
from fleetmem.config.shape_section import Shape, ShapeGroup
from fleetmem.config.sink_sections import CarbonProtocol, File, Graphite, Prometheus, Statsd
from fleetmem.config.ssh_section import Override, Ssh

__all__ = [
    "AUTO",
    "DEFAULT_PATHS",
    "PATH_VARIABLE",
    "CarbonProtocol",
    "Doctor",
    "File",
    "Graphite",
    "InvalidSettingsError",
    "InventorySection",
    "Override",
    "Probe",
    "Problem",
    "Prometheus",
    "Run",
    "Server",
    "Settings",
    "Shape",
    "ShapeGroup",
    "Ssh",
    "Statsd",
    "find_path",
    "load",
    "split_address",
    "split_server",
    "split_shard",
]
