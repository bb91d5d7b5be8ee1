"""Every kind of inventory, from where the hosts are to `fleetmem hosts`."""

import json
import signal
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fleetmem.inventory import ec2
from fleetmem.inventory.ansible import source as ansible
from fleetmem.inventory.listing import Means

from . import inventories
from .inventories import PORT, USER, Aws, Machine, Write, moto, serving
from .servers import Cli, Result, is_alive, wait_for

ROLES = ["web"] * 14 + ["db"] * 6
NAMES = [f"{role}{number:02d}" for number, role in enumerate(ROLES, 1)]

_WITH_GROUPS = [
    inventories.ansible_ini,
    inventories.ansible_yaml,
    inventories.ansible_folder,
    inventories.ansible_program,
    inventories.terraform_folder,
    inventories.terraform_file,
    inventories.json_file,
    inventories.command,
]
_WITH_LABELS = [*_WITH_GROUPS, inventories.file_sd]
_FILES = [*_WITH_LABELS, inventories.hosts_file, inventories.ssh_config]


@pytest.fixture(scope="module")
def aws() -> Iterator[Aws]:
    """EC2 with the 20 hosts, and others that are none."""
    with moto() as server:
        for name, role in zip(NAMES, ROLES, strict=True):
            server.run("eu-west-1", 1, Name=name, Role=role, Fleet="twenty")
        server.run("eu-west-1", 3, Name="other", Fleet="other")
        yield server


@pytest.fixture(scope="module")
def machines(aws: Aws) -> list[Machine]:
    """The 20 hosts, with the addresses that EC2 gave them."""
    filters = [{"Name": "tag:Fleet", "Values": ["twenty"]}]
    reservations = aws.client("eu-west-1").describe_instances(Filters=filters)["Reservations"]
    found = {}
    for instance in (instance for reservation in reservations for instance in reservation["Instances"]):
        tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
        found[tags["Name"]] = Machine(tags["Name"], instance["PrivateIpAddress"], tags["Role"])
    return [found[name] for name in NAMES]


def _with_aws(cli: Cli, aws: Aws, **more: str) -> Cli:
    return replace(cli, variables=aws.env | more)


def _lines(result: Result) -> list[dict[str, Any]]:
    assert result.status == 0, result.stderr
    return [json.loads(line) for line in result.stdout.splitlines()]


def _hosts(cli: Cli, *arguments: object) -> dict[str, dict[str, Any]]:
    """Returns what `fleetmem hosts` shows, by name."""
    options = ("-u", USER, "-p", PORT, "--format", "jsonl")  # for the kinds that cannot say so themselves
    lines = _lines(cli("hosts", *arguments, *options, FLEETMEM_INVENTORY__ANSIBLE_LABELS="role"))
    return {line["host"]: line for line in lines}


def _is_the_same(hosts: dict[str, dict[str, Any]], machines: list[Machine]) -> None:
    shown = {name: (line["address"], line["port"], line["user"], line["metric"]) for name, line in hosts.items()}
    assert shown == {one.name: (one.address, PORT, USER, f"fleetmem.host.{one.name}.") for one in machines}


@pytest.mark.parametrize("write", _FILES)
def test_every_kind_gives_the_same_hosts(write: Write, machines: list[Machine], cli: Cli, tmp_path: Path) -> None:
    """Names, addresses, users, ports; groups and labels where the kind has them."""
    config = inventories.ssh_config(tmp_path / "ssh", machines).removeprefix("ssh:")
    # Where only names come from the inventory, the ssh configuration has the addresses.
    options = ("-F", config) if write is inventories.hosts_file else ()
    hosts = _hosts(cli, "--inventory", write(tmp_path, machines), *options)
    _is_the_same(hosts, machines)
    for one in machines:
        assert hosts[one.name].get("groups") == (one.groups if write in _WITH_GROUPS else None)
        assert hosts[one.name].get("labels", {}).get("role") == (one.role if write in _WITH_LABELS else None)


def test_names_on_the_command_line_are_the_same_hosts(machines: list[Machine], cli: Cli, tmp_path: Path) -> None:
    """As `-i` has always had them."""
    config = inventories.ssh_config(tmp_path, machines).removeprefix("ssh:")
    _is_the_same(_hosts(cli, "-i", "web[01-14],db[15-20]", "-F", config), machines)


def test_ec2_gives_the_same_hosts(aws: Aws, machines: list[Machine], cli: Cli) -> None:
    """By tag; tags are labels."""
    hosts = _hosts(_with_aws(cli, aws), "--inventory", "ec2:region=eu-west-1,tag:Fleet=twenty")
    _is_the_same(hosts, machines)
    assert {name: line["labels"]["Role"] for name, line in hosts.items()} == {one.name: one.role for one in machines}


def test_http_sd_gives_the_same_hosts(machines: list[Machine], cli: Cli) -> None:
    """From a server that wants a password, which nobody gets to see."""
    with serving(inventories.targets_body(machines)) as url:
        hosts = _hosts(cli, "--inventory", url)
        refused = cli("hosts", "--inventory", url.replace("secret", "s3cr3t"))
        shown = cli("config", "show", "--inventory", url)
    _is_the_same(hosts, machines)
    assert {line["labels"]["role"] for line in hosts.values()} == {"web", "db"}
    assert refused.status == 2
    assert "answers 401" in refused.stderr
    assert "s3cr3t" not in refused.stderr
    assert "secret" not in shown.stdout


@pytest.mark.parametrize(
    "write",
    [inventories.ansible_ini, inventories.ansible_yaml, inventories.ansible_folder, inventories.ansible_program],
)
def test_without_ansible_its_inventories_give_the_same_hosts(
    write: Write, machines: list[Machine], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Our own reading of them is Ansible's, in every part."""
    path = write(tmp_path, machines).removeprefix("ansible:")
    means = Means(ansible_labels=("role",))
    theirs = ansible.read(path, means).hosts
    monkeypatch.setattr(ansible, "find_program", lambda: None)
    ours = ansible.read(path, means).hosts
    assert ours == theirs
    assert [(host.groups, host.labels) for host in ours] == [(host.groups, host.labels) for host in theirs]
    assert len(ours) == len(machines)


def test_all_kinds_at_once_are_still_20_hosts(aws: Aws, machines: list[Machine], cli: Cli, tmp_path: Path) -> None:
    """What they say of a host comes together; a limit chooses by what any of them says."""
    written = [write(tmp_path, machines) for write in _WITH_LABELS if write is not inventories.terraform_folder]
    sources = [word for text in written for word in ("--inventory", text)]
    sources += ["--inventory", "ec2:region=eu-west-1,tag:Fleet=twenty"]
    cli = _with_aws(cli, aws)
    hosts = _hosts(cli, *sources)
    _is_the_same(hosts, machines)
    assert hosts["db15"]["groups"] == ["db", "eu"]
    assert hosts["db15"]["labels"]["role"] == hosts["db15"]["labels"]["Role"] == "db"
    some = _hosts(cli, *sources, "--limit", "eu:&Role=d*:!db[15-17]")
    assert set(some) == {"db18", "db19", "db20"}


def test_what_contradicts_itself_is_an_error(machines: list[Machine], cli: Cli, tmp_path: Path) -> None:
    """With both places."""
    wrong = [Machine(machines[0].name, "10.9.9.9", "web"), *machines[1:]]
    first, second = inventories.json_file(tmp_path, machines), inventories.ansible_ini(tmp_path, wrong)
    result = cli("hosts", "--inventory", first, "--inventory", second)
    assert result.status == 2
    assert f"host web01 is listed with two addresses: {machines[0].address} ({first}) and 10.9.9.9 ({second})" in (
        result.stderr
    )


def test_an_interrupt_ends_the_program_that_is_asked(cli: Cli, tmp_path: Path) -> None:
    """It is in a group of its own, where Ctrl-C does not reach it."""
    pid_file, program = tmp_path / "pid", tmp_path / "program"
    program.write_text(f"#!/bin/sh\necho $$ > {pid_file}.new; mv {pid_file}.new {pid_file}\nexec sleep 60\n")
    program.chmod(0o755)
    with cli.start("hosts", "--inventory", f"command:{program}") as running:
        wait_for("it is asked", pid_file.exists)
        assert is_alive(int(pid_file.read_text()))
        running.signal(signal.SIGINT)
        assert running.wait(10) == 130
        assert not is_alive(int(pid_file.read_text()))


# --- AWS -------------------------------------------------------------------------------------------------------------


def test_250_instances_in_3_regions(cli: Cli) -> None:
    """All of them, page by page, and only those that run and have the tags."""
    regions = {"eu-west-1": 100, "us-east-1": 100, "ap-southeast-2": 50}
    with moto() as aws:
        instances = {region: aws.run(region, count, Fleet="large") for region, count in regions.items()}
        aws.run("eu-west-1", 2, Fleet="another")
        aws.run("eu-central-1", 2, Fleet="large")
        gone = [instance["InstanceId"] for instance in aws.run("us-east-1", 3, Fleet="large")]
        aws.client("us-east-1").stop_instances(InstanceIds=gone[:1])
        aws.client("us-east-1").terminate_instances(InstanceIds=gone[1:])
        query = f"ec2:{','.join(f'region={region}' for region in regions)},tag:Fleet=large"
        cli = _with_aws(cli, aws)
        private = _lines(cli("hosts", "--inventory", query, "--format", "jsonl"))
        public = _lines(cli("hosts", "--inventory", f"{query},address=public", "--format", "jsonl"))
    expected = {instance["InstanceId"]: instance for some in instances.values() for instance in some}
    assert len(expected) == 250
    assert {line["host"]: line["address"] for line in private} == {
        name: instance["PrivateIpAddress"] for name, instance in expected.items()
    }
    assert all(line["address"] != expected[line["host"]]["PrivateIpAddress"] for line in public)
    found = Counter(line["labels"]["ec2_region"] for line in private)
    assert found == regions


def test_every_page_is_asked_for(aws: Aws, machines: list[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS gives 1,000 instances at a time; here five."""
    for name, value in aws.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(ec2, "_PAGE_SIZE", 5)
    hosts = ec2.read("region=eu-west-1,tag:Fleet=twenty", Means()).hosts
    assert {host.name: host.address for host in hosts} == {one.name: one.address for one in machines}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1"}, "Could not connect to the endpoint URL"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}, "Unable to locate credentials; AWS_PROFILE,"),
        ({"AWS_PROFILE": "nobody"}, "profile (nobody) could not be found"),
    ],
)
def test_aws_that_does_not_answer(change: dict[str, str], message: str, aws: Aws, cli: Cli) -> None:
    """Exit status 2, what went wrong, in time."""
    begun = time.monotonic()
    result = _with_aws(cli, aws, **change)("hosts", "--inventory", "ec2:region=eu-west-1")
    assert time.monotonic() - begun < 30
    assert result.status == 2
    assert result.stderr.startswith("fleetmem: ec2: ")
    assert message in result.stderr


def test_aws_without_a_region(aws: Aws, cli: Cli) -> None:
    """The message says where it may stand; and there it is looked up."""
    result = _with_aws(cli, aws)("hosts", "--inventory", "ec2:tag:Fleet=other")
    assert (result.status, result.stderr) == (
        2,
        "fleetmem: ec2: no region: write ec2:region=eu-west-1, or set AWS_DEFAULT_REGION\n",
    )
    result = _with_aws(cli, aws, AWS_DEFAULT_REGION="eu-west-1")("hosts", "--inventory", "ec2:tag:Fleet=other")
    assert len(result.stdout.splitlines()) == 1 + 3
