"""Terraform and moto, the AWS that it talks to here: loopback only, and no account, whatever the environment holds."""

import base64
import gzip
import http.client
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from .servers import REPOSITORY, Server, find_tool, free_port, is_ready, make_key, missing

SECONDS = 600.0
"""No command of Terraform's may take longer."""

OPERATOR_CIDR = "203.0.113.7/32"
REGION = "eu-central-1"

_CANONICAL = "099720109477"
_NAMES = {
    "ami-0a18040000000001a": "ubuntu/images/hvm-ssd/ubuntu-bionic-18.04-amd64-server-20230607",
    "ami-0a24040000000001a": "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20250610",
}
_IMPOSTOR = "ami-0bad000000000000a", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-20991231"


@cache
def plugins() -> str:
    """Returns the folder with the providers' plugins, from TF_PLUGIN_DIR or wherever there is one.

    It holds <registry>/hashicorp/aws/<version>/<platform>/<binary>.
    """
    given = os.environ.get("TF_PLUGIN_DIR")
    if given:
        return given
    usual = [str(Path.home() / ".terraform.d"), "/opt", "/usr"]  # the whole machine takes five seconds
    find = ["find", *usual, "/", "-path", "/proc", "-prune", "-o", "-path", "/sys", "-prune", "-o"]
    found = subprocess.run(
        [*find, "-type", "f", "-name", "terraform-provider-aws*", "-print", "-quit"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # folders of others
        timeout=SECONDS,
        check=False,
    )
    paths = found.stdout.decode().splitlines()
    return str(Path(paths[0]).parents[5]) if paths else missing("Terraform's AWS plugin (TF_PLUGIN_DIR)")


def environment(home: Path) -> dict[str, str]:
    """Returns an environment in which nothing leads to a real account."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "TF_", "FLEETMEM_", "SSH_"))}
    terraform = {"CHECKPOINT_DISABLE": "1", "TF_CLI_ARGS_init": f"-backend=false -plugin-dir={plugins()}"}
    aws = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_ACCESS_KEY_ID": "testing", "AWS_SECRET_ACCESS_KEY": "testing"}
    return kept | terraform | aws | {"HOME": str(home)}


@dataclass(frozen=True)
class Checkout:
    """A copy of what `make deploy` works with: the tests leave nothing in the repository itself."""

    folder: Path
    endpoint: str = "http://127.0.0.1:9"  # nothing answers there
    variables: dict[str, object] = field(default_factory=dict)

    @property
    def module(self) -> Path:
        """The Terraform module."""
        return self.folder / "terraform"

    def make(self) -> None:
        """Copies it, with a key and with the variables that have no default."""
        for name in ("terraform", "deploy", "scripts"):
            ignore = shutil.ignore_patterns(".terraform*", "*.tfstate*", "*.tfvars")
            shutil.copytree(REPOSITORY / name, self.folder / name, ignore=ignore)
        workload = Path("src/fleetmem/lab/workload.py")
        (self.folder / workload).parent.mkdir(parents=True)
        shutil.copy(REPOSITORY / workload, self.folder / workload)
        (self.folder / ".deploy").mkdir(mode=0o700)
        key = make_key(self.folder / ".deploy" / "key")
        # moto answers with 500 to what it does not know, which the provider would try 25 times.
        (self.module / "moto_override.tf").write_text('provider "aws" {\n  max_retries = 1\n}\n')
        values = {"operator_cidrs": [OPERATOR_CIDR], "ssh_public_key": key.with_suffix(".pub").read_text()}
        self.set(**values)

    def set(self, **values: object) -> None:
        """Sets variables, beside those that are set."""
        self.variables.update(values)
        lines = (f"{name} = {json.dumps(value)}\n" for name, value in self.variables.items())
        (self.module / "terraform.tfvars").write_text("".join(lines))

    def environment(self) -> dict[str, str]:
        """Returns an environment for its commands."""
        return environment(self.folder) | {"AWS_ENDPOINT_URL": self.endpoint}

    def run(self, *command: str, answer: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        """Runs a command there to its end, whatever that is."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment() | env,
            input=answer,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    def terraform(self, *arguments: str) -> str:
        """Runs Terraform; returns what it prints."""
        done = self.run(find_tool("terraform"), f"-chdir={self.module}", *arguments)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def init(self, like: "Checkout | None" = None) -> None:
        """Makes the providers known.

        Args:
            like: another one, with the same providers, that knows them: to copy that takes no time.
        """
        if like is None:
            self.terraform("init", "-input=false", "-no-color")
            return
        shutil.copytree(like.module / ".terraform", self.module / ".terraform", symlinks=True)
        shutil.copy(like.module / ".terraform.lock.hcl", self.module)

    def plan(self) -> dict[str, Any]:
        """Returns what is planned, as Terraform's JSON has it."""
        self.terraform("plan", "-input=false", "-no-color", "-out=plan")
        plan: dict[str, Any] = json.loads(self.terraform("show", "-json", "plan"))
        return plan


class Moto(Server):
    """An AWS without an account, with Canonical's images, and one that only looks like theirs."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._port = free_port()

    @property
    def endpoint(self) -> str:
        """For AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self._port}"

    def enforce_permissions(self) -> None:
        """From now on it refuses what the policies of whoever asks do not allow."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=10)
        connection.request("POST", "/moto-api/reset-auth", b"0", {"Content-Type": "text/plain"})
        assert connection.getresponse().status == http.HTTPStatus.OK
        connection.close()

    def _prepare(self) -> list[str]:
        program = Path(sys.executable).with_name("moto_server")
        if not program.is_file():
            missing("moto")
        owners = [(id_, name, _CANONICAL) for id_, name in _NAMES.items()] + [(*_IMPOSTOR, "123456789012")]
        images = [{"ami_id": id_, "name": name, "owner_id": owner, **_IMAGE} for id_, name, owner in owners]
        (self.folder / "amis.json").write_text(json.dumps(images))
        return [str(program), "-H", "127.0.0.1", "-p", str(self._port)]

    def _environment(self) -> dict[str, str]:
        return {
            **super()._environment(),
            "MOTO_AMIS_PATH": str(self.folder / "amis.json"),
            # Otherwise it takes any of them.
            "MOTO_ENABLE_AMI_VALIDATION": "true",
            "MOTO_EC2_ENABLE_INSTANCE_TYPE_VALIDATION": "true",
            "MOTO_ENABLE_KEYPAIR_VALIDATION": "true",
        }

    def _is_up(self) -> bool:
        return is_ready(self._port)


_IMAGE = {
    "description": "Ubuntu",
    "architecture": "x86_64",
    "virtualization_type": "hvm",
    "hypervisor": "xen",
    "root_device_type": "ebs",
    "root_device_name": "/dev/sda1",
    "image_type": "machine",
    "image_location": "ubuntu",
    "platform": None,
    "sriov": "simple",
    "state": "available",
    "public": True,
}


def user_data(instance: Mapping[str, Any]) -> bytes:
    """Returns the user data of an instance in a plan, as EC2 gets it."""
    return base64.b64decode(instance["user_data_base64"])


def cloud_config(instance: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the cloud-config of an instance in a plan."""
    text = gzip.decompress(user_data(instance)).decode()
    assert text.startswith("#cloud-config\n"), "cloud-init takes it for something else"
    config: dict[str, Any] = yaml.safe_load(text)
    return config


def embedded_files(instance: Mapping[str, Any]) -> dict[str, bytes]:
    """Returns the files that cloud-init writes on an instance, by path."""
    return {file["path"]: base64.b64decode(file["content"]) for file in cloud_config(instance)["write_files"]}
