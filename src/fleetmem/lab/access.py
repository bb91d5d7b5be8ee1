"""Keys, known hosts and configuration files: how fleetmem, and ssh, get at the hosts of a lab."""

import json
from pathlib import Path

from fleetmem.connect.ssh import asyncssh
from fleetmem.errors import LabError
from fleetmem.lab.directory import Directory, write_private
from fleetmem.lab.state import State

_ALGORITHM = "ssh-ed25519"


def make_keys(directory: Directory, hosts: int) -> list[Path]:
    """Makes what is missing of the login key and the host keys; returns the paths of the latter.

    Raises:
        LabError: what is there is no key.
    """
    login = _make_key(directory.key)
    write_private(directory.authorized_keys, login)
    write_private(directory.key.with_suffix(".pub"), login)
    paths = [directory.host_keys / str(number) for number in range(1, hosts + 1)]
    for path in paths:
        _make_key(path)
    return paths


def _make_key(path: Path) -> bytes:
    """Returns the public half of the key in a file, made where there is none."""
    if not path.exists():
        write_private(path, asyncssh.generate_private_key(_ALGORITHM, comment="fleetmem-lab").export_private_key())
    try:
        return asyncssh.read_private_key(path).export_public_key()
    except asyncssh.KeyImportError as error:
        raise LabError(f"{path}: {error}; delete it, and the lab makes a new one") from error


def host_key_line(directory: Directory) -> str:
    """Returns the public half of the first host's key, as known_hosts has it: type and key."""
    return " ".join(_make_key(directory.host_keys / "1").decode().split()[:2])


def write_files(directory: Directory, state: State, addresses: list[tuple[str, int]]) -> None:
    """Writes known_hosts, an ssh configuration, a hosts file and a configuration of fleetmem.

    Args:
        directory: where.
        state: the lab.
        addresses: of its hosts, in the order of their keys.
    """
    known = [
        f"[{address}]:{port} {_make_key(directory.host_keys / str(number)).decode().strip()}"
        for number, (address, port) in enumerate(addresses, 1)
    ]
    write_private(directory.known_hosts, "".join(f"{line}\n" for line in known).encode())
    write_private(directory.hosts_file, "".join(f"{host}\n" for host in state.hosts).encode())
    write_private(directory.ssh_config, _ssh_config(directory, state).encode())
    write_private(directory.config, _fleetmem_config(directory, state).encode())


def _ssh_config(directory: Directory, state: State) -> str:
    port = f"    Port {state.port}\n" if state.port else ""
    return (
        "# For a look at a host: ssh -F THIS_FILE HOST ps ax\n"
        f"Host 127.0.*\n{port}"
        f'    IdentityFile "{directory.key}"\n'
        "    IdentitiesOnly yes\n"
        f'    UserKnownHostsFile "{directory.known_hosts}"\n'
    )


def settings(directory: Directory, state: State) -> dict[str, dict[str, object]]:
    """Returns the configuration that fits a lab, as `fleetmem.config.load` takes it."""
    ssh = {
        "key": [str(directory.key)],
        "config_file": str(directory.ssh_config),
        "known_hosts": str(directory.known_hosts),
        "host_keys": "strict",
    }
    values: dict[str, dict[str, object]] = {"inventory": {"hosts": list(state.hosts)}, "ssh": {**ssh}}
    if state.port:
        values["ssh"]["port"] = state.port
    if state.statsd_port:
        values["statsd"] = {"server": f"127.0.0.1:{state.statsd_port}"}
    values["run"] = {"interval_seconds": float(state.interval_seconds)}
    return values


def _fleetmem_config(directory: Directory, state: State) -> str:
    """Returns the same as TOML, whose strings, lists and numbers JSON's are."""
    lines = ["# The lab in this directory: fleetmem collect -c THIS_FILE"]
    for section, keys in settings(directory, state).items():
        lines += ["", f"[{section}]", *(f"{key} = {json.dumps(value)}" for key, value in keys.items())]
    return "\n".join(lines) + "\n"
