"""The same hosts in every kind of inventory, and the servers that some kinds need."""

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from .servers import find_tool, missing

USER, PORT = "deploy", 2222


@dataclass(frozen=True)
class Machine:
    """A host as every kind shall give it."""

    name: str
    address: str
    role: str

    @property
    def groups(self) -> list[str]:
        """As Ansible would put it."""
        return sorted([self.role, "eu"])

    @property
    def entry(self) -> dict[str, Any]:
        """As an object of a JSON inventory."""
        return {
            "name": self.name,
            "address": self.address,
            "user": USER,
            "port": PORT,
            "groups": self.groups,
            "labels": {"role": self.role},
        }


@dataclass(frozen=True)
class Aws:
    """A moto server that has EC2 instances."""

    endpoint: str

    @property
    def env(self) -> dict[str, str]:
        """What makes AWS's tools use it, and nothing of AWS."""
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self, region: str) -> Any:
        """Returns a client of it."""
        import boto3

        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        return boto3.client("ec2", region_name=region, endpoint_url=self.endpoint, **keys)

    def run(self, region: str, count: int, **tags: str) -> list[dict[str, Any]]:
        """Starts instances with these tags."""
        specification = {"ResourceType": "instance", "Tags": [{"Key": k, "Value": v} for k, v in tags.items()]}
        started = self.client(region).run_instances(
            ImageId="ami-12c6146b", MinCount=count, MaxCount=count, TagSpecifications=[specification]
        )
        instances: list[dict[str, Any]] = started["Instances"]
        return instances


@contextmanager
def moto() -> Iterator[Aws]:
    """A moto server on a loopback address."""
    try:
        from moto.server import ThreadedMotoServer
    except ImportError:
        missing("moto")
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Aws(f"http://{host}:{port}")
    server.stop()


@contextmanager
def serving(body: bytes) -> Iterator[str]:
    """A server that answers every GET with this; yields its URL, with a password in it that it wants."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_known = self.headers["Authorization"] == "Basic YW5uOnNlY3JldA=="
            self.send_response(200 if is_known else 401)
            self.end_headers()
            self.wfile.write(body if is_known else b"")

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            del format, args

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://ann:secret@127.0.0.1:{server.server_address[1]}/targets"
        server.shutdown()
        thread.join()


# --- one function per kind: writes the machines, returns what --inventory takes ---------------------------------------

Write = Callable[[Path, list[Machine]], str]


def _write(path: Path, content: Any, *, is_program: bool = False) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    if is_program:
        path.chmod(0o755)
    return path


def _lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)


def hosts_file(folder: Path, machines: list[Machine]) -> str:
    """A line each; addresses are the ssh configuration's."""
    return f"hosts:{_write(folder / 'hosts.txt', _lines(one.name for one in machines))}"


def ssh_config(folder: Path, machines: list[Machine]) -> str:
    """`Host` entries, half of them included."""
    texts = [f"Host {one.name}\n  HostName {one.address}\n  User {USER}\n  Port {PORT}" for one in machines]
    included = _write(folder / "included", _lines(texts[10:]))
    return f"ssh:{_write(folder / 'config', _lines([f'Include {included}', *texts[:10], 'Host *.other']))}"


def ansible_ini(folder: Path, machines: list[Machine]) -> str:
    """Groups, a group of groups and its variables."""
    lines = [f"[eu:children]\nweb\ndb\n[eu:vars]\nansible_user={USER}\nansible_port={PORT}"]
    for role in ("web", "db"):
        lines += [f"[{role}]", *(f"{one.name} ansible_host={one.address}" for one in machines if one.role == role)]
        lines += [f"[{role}:vars]", f"role={role}"]
    return f"ansible:{_write(folder / 'hosts.ini', _lines(lines))}"


def _groups(machines: list[Machine], *, roles: tuple[str, ...] = ("web", "db")) -> dict[str, Any]:
    children = {
        role: {
            "hosts": {one.name: {"ansible_host": one.address} for one in machines if one.role == role},
            "vars": {"role": role},
        }
        for role in roles
    }
    return {"eu": {"children": children, "vars": {"ansible_user": USER, "ansible_port": PORT}}}


def ansible_yaml(folder: Path, machines: list[Machine]) -> str:
    """The same in YAML, which JSON is."""
    return f"ansible:{_write(folder / 'hosts.yml', {'all': {'children': _groups(machines)}})}"


def ansible_folder(folder: Path, machines: list[Machine]) -> str:
    """INI and YAML side by side, variables in group_vars."""
    web = "\n".join(f"{one.name} ansible_host={one.address}" for one in machines if one.role == "web")
    _write(folder / "inventory" / "1.ini", f"[web]\n{web}\n[eu:children]\nweb\n")
    _write(folder / "inventory" / "2.yml", _groups(machines, roles=("db",)))
    _write(folder / "inventory" / "group_vars" / "web.yml", {"role": "web"})
    return f"ansible:{folder / 'inventory'}"


def _list(machines: list[Machine]) -> dict[str, Any]:
    groups: dict[str, Any] = {role: [one.name for one in machines if one.role == role] for role in ("web", "db")}
    groups["eu"] = {"children": ["web", "db"], "vars": {"ansible_user": USER, "ansible_port": PORT}}
    hostvars = {one.name: {"ansible_host": one.address, "role": one.role} for one in machines}
    return groups | {"_meta": {"hostvars": hostvars}}


def ansible_program(folder: Path, machines: list[Machine]) -> str:
    """A dynamic inventory."""
    data = _write(folder / "list.json", _list(machines))
    script = f'#!/bin/sh\n[ "$1" = --list ] && exec cat {data}\n'
    return f"ansible:{_write(folder / 'dynamic', script, is_program=True)}"


def terraform_folder(folder: Path, machines: list[Machine]) -> str:
    """An output of a configuration that has been applied."""
    terraform = find_tool("terraform")
    value = json.dumps([one.entry for one in machines])
    _write(folder / "tf" / "main.tf", f'output "inventory" {{\n  value = jsondecode({json.dumps(value)})\n}}\n')
    env = {name: text for name, text in os.environ.items() if not name.startswith(("TF_", "AWS_"))}
    for arguments in (["init", "-input=false"], ["apply", "-auto-approve", "-input=false"]):
        command = [terraform, f"-chdir={folder / 'tf'}", *arguments]
        subprocess.run(command, check=True, capture_output=True, timeout=60, env=env | {"CHECKPOINT_DISABLE": "1"})
    return f"terraform:{folder / 'tf'}"


def terraform_file(folder: Path, machines: list[Machine]) -> str:
    """What `terraform output -json` has printed, hosts by name."""
    value = {one.name: {key: part for key, part in one.entry.items() if key != "name"} for one in machines}
    outputs = {"inventory": {"sensitive": False, "type": "dynamic", "value": value}}
    return f"terraform:{_write(folder / 'outputs.json', outputs)}"


def _targets(machines: list[Machine]) -> list[dict[str, Any]]:
    return [
        {"targets": [f"{one.address}:9100"], "labels": {"role": one.role, "instance": f"{one.name}:9100"}}
        for one in machines
    ]


def file_sd(folder: Path, machines: list[Machine]) -> str:
    """Several files, JSON and YAML, and two exporters on each host."""
    _write(folder / "targets" / "a.json", _targets(machines[:10]) + _targets(machines[:10]))
    _write(folder / "targets" / "b.yml", _targets(machines[10:]))
    return f"file_sd:{folder}/targets/*"


def json_file(folder: Path, machines: list[Machine]) -> str:
    """A list of hosts."""
    return f"json:{_write(folder / 'hosts.json', [one.entry for one in machines])}"


def command(folder: Path, machines: list[Machine]) -> str:
    """A program that prints the list, for an argument that nobody shall see."""
    data = _write(folder / "printed.json", [one.entry for one in machines])
    script = f'#!/bin/sh\n[ "$2" = "s e c r e t" ] && exec cat {data}\n'
    return f"command:{_write(folder / 'program', script, is_program=True)} --token 's e c r e t'"


def targets_body(machines: list[Machine]) -> bytes:
    """What a server of service discovery answers."""
    return json.dumps(_targets(machines)).encode()
