"""`make deploy` and `make destroy` on an AWS without an account: what they raise, what fleetmem reads, what is left."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from .aws import REGION, Checkout, Moto
from .servers import Cli, started

LIVE = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]}]
EC2_SOURCE = f"ec2:region={REGION},tag:Project=fleetmem,tag:Role=target,address=public"


@pytest.fixture
def moto(tmp_path: Path) -> Iterator[Moto]:
    """An AWS in which there is nothing yet."""
    with started(Moto(tmp_path / "moto")) as server:
        yield server


class Account:
    """What is there in an AWS account, apart from what AWS puts there itself."""

    def __init__(self, endpoint: str) -> None:
        keys = {"aws_access_key_id": "testing", "aws_secret_access_key": "testing"}
        session = boto3.session.Session(region_name=REGION, **keys)
        self._ec2: Any = session.client("ec2", endpoint_url=endpoint)
        self._iam: Any = session.client("iam", endpoint_url=endpoint)

    def instances(self) -> list[dict[str, Any]]:
        """Returns instances that are not terminated."""
        found = self._ec2.describe_instances(Filters=LIVE)["Reservations"]
        return [instance for reservation in found for instance in reservation["Instances"]]

    def volumes(self) -> list[dict[str, Any]]:
        """Returns volumes."""
        found: list[dict[str, Any]] = self._ec2.describe_volumes()["Volumes"]
        return found

    def leftovers(self) -> list[str]:
        """Returns what a deployment should take away with it: network interfaces aside, which moto forgets."""
        ec2, iam = self._ec2, self._iam
        groups = [group["GroupName"] for group in ec2.describe_security_groups()["SecurityGroups"]]
        return [
            *(instance["InstanceId"] for instance in self.instances()),
            *(volume["VolumeId"] for volume in self.volumes()),
            *(vpc["VpcId"] for vpc in ec2.describe_vpcs()["Vpcs"] if not vpc["IsDefault"]),
            *(address["AllocationId"] for address in ec2.describe_addresses()["Addresses"]),
            *(key["KeyName"] for key in ec2.describe_key_pairs()["KeyPairs"]),
            *(name for name in groups if name != "default"),
            *(role["RoleName"] for role in iam.list_roles()["Roles"]),
            *(profile["InstanceProfileName"] for profile in iam.list_instance_profiles()["InstanceProfiles"]),
        ]


@pytest.mark.long
def test_from_deploy_to_destroy(tmp_path: Path, moto: Moto, cli: Cli) -> None:
    """Raised as planned; Terraform's inventory is what EC2 says, with 3, 5 and 1 targets; then nothing is left."""
    checkout = Checkout(tmp_path / "checkout", moto.endpoint)
    checkout.make()
    account = Account(moto.endpoint)

    deployed = _aws(checkout, "deploy", "y")
    assert "Plan: " in deployed
    assert "costs money" in deployed
    assert deployed.index("Plan: ") < deployed.index("costs money") < deployed.index("Apply complete!")
    plan = ("plan", "-input=false", "-no-color", "-detailed-exitcode")  # status 2 where anything would change
    assert "No changes." in checkout.terraform(*plan)
    assert len(account.instances()) == 4
    assert all(volume["Encrypted"] for volume in account.volumes())
    assert len(account.volumes()) == 4
    _check_access(checkout)

    three = _check_inventories(checkout, cli, 3)
    five = _scale(checkout, cli, 5)
    assert {name: host["address"] for name, host in three.items()}.items() <= {
        name: host["address"] for name, host in five.items()
    }.items(), "a target that stays was replaced"
    one = _scale(checkout, cli, 1)
    assert one.keys() == {"fleetmem-target-1"}

    refused = checkout.run("scripts/aws", "clean")
    assert refused.returncode == 1
    assert "make destroy first" in refused.stderr
    _aws(checkout, "destroy", "y")
    assert account.leftovers() == []
    assert sorted(path.name for path in (checkout.folder / ".deploy").iterdir()) == ["key", "key.pub"]
    _aws(checkout, "clean", "")
    assert not (checkout.folder / ".deploy").exists()


def _aws(checkout: Checkout, command: str, answer: str) -> str:
    """Runs a command of scripts/aws that has to work; returns what it printed."""
    done = checkout.run("scripts/aws", command, answer=f"{answer}\n")
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr
    return done.stdout


def _check_access(checkout: Checkout) -> None:
    """What `deploy` writes is for this user only, and ssh reads it."""
    folder = checkout.folder / ".deploy"
    assert folder.stat().st_mode & 0o077 == 0
    address = json.loads(checkout.terraform("output", "-json"))["graphite_url"]["value"].removeprefix("https://")
    shown = checkout.run("ssh", "-G", "-F", str(folder / "ssh_config"), "fleetmem-graphite")
    settings = dict(line.split(" ", 1) for line in shown.stdout.splitlines())
    assert (settings["hostname"], settings["user"]) == (address, "ubuntu")
    assert settings["identityfile"] == str(folder / "key")
    assert settings["userknownhostsfile"] == str(folder / "known_hosts")


def _check_inventories(checkout: Checkout, cli: Cli, count: int) -> dict[str, dict[str, Any]]:
    """What fleetmem reads from Terraform's output is what it finds in EC2; returns that, by host."""
    listed = _hosts(checkout, cli, "-c", checkout.folder / ".deploy" / "fleetmem.toml")
    found = _hosts(checkout, cli, "--inventory", EC2_SOURCE)
    assert len(listed) == count
    assert {name: (host["address"], host["port"]) for name, host in listed.items()} == {
        name: (host["address"], host["port"]) for name, host in found.items()
    }
    for name, host in listed.items():
        assert (host["user"], host["groups"]) == ("ubuntu", ["target"])
        assert host["labels"].items() <= found[name]["labels"].items()
    return listed


def _hosts(checkout: Checkout, cli: Cli, *options: object) -> dict[str, dict[str, Any]]:
    aws = {name: value for name, value in checkout.environment().items() if name.startswith("AWS_")}
    result = cli("hosts", "--format", "jsonl", *options, seconds=60, **aws)
    assert result.status == 0, result.stderr
    return result.by_host()


def _scale(checkout: Checkout, cli: Cli, count: int) -> dict[str, dict[str, Any]]:
    checkout.set(target_count=count)
    checkout.terraform("apply", "-input=false", "-no-color", "-auto-approve", "-refresh=false")
    return _check_inventories(checkout, cli, count)
