"""terraform/ without an account: format, types, Terraform's own tests, what a plan holds, what hosts get to read.

Nothing is reached but a moto server on loopback.
"""

import base64
import copy
import gzip
import json
import re
import secrets
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import boto3
import botocore.exceptions
import jsonschema
import pytest
import yaml

from .aws import OPERATOR_CIDR, REGION, Checkout, Moto, cloud_config, embedded_files, user_data
from .plan_rules import MAX_USER_DATA_BYTES, findings
from .servers import REPOSITORY, TOOLS, find_tool, missing, started

MODULE = REPOSITORY / "terraform"
Plan = dict[str, Any]


@pytest.fixture(scope="module")
def moto(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Moto]:
    """An AWS that nothing is applied to: plans look up zones and images there."""
    with started(Moto(tmp_path_factory.mktemp("moto"))) as server:
        yield server


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Checkout:
    """The module as people get it, without what the tests add for moto; its providers are known."""
    checkout = Checkout(tmp_path_factory.mktemp("plain") / "checkout")
    checkout.make()
    (checkout.module / "moto_override.tf").unlink()
    (checkout.module / "terraform.tfvars").unlink()
    checkout.init()
    return checkout


@pytest.fixture
def checkout(tmp_path: Path, moto: Moto, initialised: Checkout) -> Checkout:
    """A copy of the module for one test, ready to plan."""
    return _checkout(tmp_path / "checkout", moto, initialised)


def _checkout(folder: Path, moto: Moto, initialised: Checkout) -> Checkout:
    checkout = Checkout(folder, moto.endpoint)
    checkout.make()
    checkout.init(like=initialised)
    return checkout


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory, moto: Moto, initialised: Checkout) -> tuple[Plan, str]:
    """The plan with default settings, and the public key in it."""
    checkout = _checkout(tmp_path_factory.mktemp("plan") / "checkout", moto, initialised)
    return checkout.plan(), (checkout.folder / ".deploy" / "key.pub").read_text()


@pytest.fixture
def plan(planned: tuple[Plan, str]) -> Plan:
    """A copy of the plan that a test may break."""
    return copy.deepcopy(planned[0])


def _findings(plan: Plan, planned: tuple[Plan, str]) -> list[str]:
    return findings(plan, [OPERATOR_CIDR], planned[1])


def _instance(plan: Plan, name: str) -> dict[str, Any]:
    """Returns the values of the first instance of a name."""
    return next(
        resource["values"]
        for resource in plan["planned_values"]["root_module"]["resources"]
        if resource["type"] == "aws_instance" and resource["name"] == name
    )


# --- the module ------------------------------------------------------------------------------------------------------


def test_format_and_types(initialised: Checkout) -> None:
    """Formatted and valid."""
    initialised.terraform("fmt", "-check", "-recursive", "-diff")
    initialised.terraform("validate", "-no-color")


@pytest.mark.long
def test_terraforms_own_tests(initialised: Checkout) -> None:
    """They pass: with a mocked provider, no account and no server at all."""
    printed = initialised.terraform("test", "-no-color")
    assert re.search(r"^Success! (\d\d) passed, 0 failed\.", printed, re.MULTILINE), printed


def test_a_refused_variable_says_what_to_write(checkout: Checkout) -> None:
    """What is wrong is told by name, with an example of what is right."""
    checkout.set(operator_cidrs=["0.0.0.0/0"], target_count=51, target_instance_type="micro")
    done = checkout.run(find_tool("terraform"), f"-chdir={checkout.module}", "plan", "-input=false", "-no-color")
    assert done.returncode == 1
    text = re.sub(r"\s+", " ", done.stderr.replace("│", ""))
    for part in ("operator_cidrs: nothing wider than a /16", "a whole number from 1 to 50", "t3.micro say"):
        assert part in text


def test_deploy_that_cannot_find_out_the_address_says_what_to_do(tmp_path: Path) -> None:
    """Without a file of variables, and without the internet; the key is made, and nothing is planned."""
    checkout = Checkout(tmp_path / "checkout")
    checkout.make()
    (checkout.module / "terraform.tfvars").unlink()
    shutil.rmtree(checkout.folder / ".deploy")
    done = checkout.run("scripts/aws", "deploy", https_proxy="http://127.0.0.1:9")
    key = checkout.folder / ".deploy" / "key"
    assert (done.returncode, done.stdout) == (1, f"made {key}\n")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert checkout.run("scripts/aws", "key").stdout == f"{key} is there already\n"
    assert "copy terraform/terraform.tfvars.example to terraform/terraform.tfvars and fill it in" in done.stderr


def test_the_example_of_variables_names_every_one() -> None:
    """terraform.tfvars.example has each variable, those with a default commented out, with that default's shape."""
    declared = set(re.findall(r'^variable "(\w+)"', (MODULE / "variables.tf").read_text(), re.MULTILINE))
    example = (MODULE / "terraform.tfvars.example").read_text()
    assert set(re.findall(r"^(?:# )?(\w+) +=", example, re.MULTILINE)) == declared


# --- the plan --------------------------------------------------------------------------------------------------------


def test_the_plan_is_good(plan: Plan, planned: tuple[Plan, str]) -> None:
    """Nothing open to the world, IMDSv2, encrypted disks, no key but ours, no secret, least privilege, all outputs."""
    assert _findings(plan, planned) == []


def test_the_role_may_find_hosts_and_nothing_else(plan: Plan, tmp_path: Path) -> None:
    """An AWS that enforces permissions lets the policy in the plan describe instances, and refuses the rest."""
    policy = _resource(plan, "aws_iam_role_policy")["policy"]
    with started(Moto(tmp_path / "moto")) as moto:
        iam = _client(moto, "iam", "testing", "testing")
        iam.create_user(UserName="finder")
        iam.put_user_policy(UserName="finder", PolicyName="discover", PolicyDocument=policy)
        key = iam.create_access_key(UserName="finder")["AccessKey"]
        ec2 = _client(moto, "ec2", key["AccessKeyId"], key["SecretAccessKey"])
        moto.enforce_permissions()
        assert ec2.describe_instances()["Reservations"] == []
        for refused in (ec2.describe_images, ec2.describe_vpcs, ec2.create_internet_gateway):
            with pytest.raises(botocore.exceptions.ClientError, match="not authorized to perform"):
                refused()


def _client(moto: Moto, service: str, key: str, secret: str) -> Any:
    session = boto3.session.Session(key, secret, region_name=REGION)
    return session.client(service, endpoint_url=moto.endpoint)


def _open(plan: Plan) -> None:
    _resource(plan, "aws_vpc_security_group_ingress_rule")["cidr_ipv4"] = "0.0.0.0/0"


def _open_in_the_group(plan: Plan) -> None:
    rule = {"protocol": "tcp", "from_port": 22, "to_port": 22, "cidr_blocks": [], "ipv6_cidr_blocks": ["::/0"]}
    _resource(plan, "aws_security_group")["ingress"] = [rule]


def _open_to_another(plan: Plan) -> None:
    _resource(plan, "aws_vpc_security_group_ingress_rule")["cidr_ipv4"] = "198.51.100.0/24"


def _open_another_port(plan: Plan) -> None:
    _resource(plan, "aws_vpc_security_group_ingress_rule")["to_port"] = 8126


def _open_all_ports(plan: Plan) -> None:
    values = _resource(plan, "aws_vpc_security_group_ingress_rule")
    values.update(ip_protocol="-1", from_port=None, to_port=None)


def _imds_v1(plan: Plan) -> None:
    _instance(plan, "target")["metadata_options"][0]["http_tokens"] = "optional"


def _imds_default(plan: Plan) -> None:
    _instance(plan, "graphite")["metadata_options"] = []


def _plain_disk(plan: Plan) -> None:
    _instance(plan, "graphite")["root_block_device"][0]["encrypted"] = False


def _plain_volume(plan: Plan) -> None:
    _add(plan, "aws_ebs_volume", {"encrypted": False})


def _password(plan: Plan) -> None:
    _rewrite(plan, b"GF_SECURITY_ADMIN_PASSWORD=$(random)", b"GF_SECURITY_ADMIN_PASSWORD=correct-horse")


def _private_key_in_user_data(plan: Plan) -> None:
    _rewrite(plan, b"set -eu\n", b"-----BEGIN OPENSSH PRIVATE KEY-----\n")


def _too_much_user_data(plan: Plan) -> None:
    _rewrite(plan, b"set -eu\n", secrets.token_bytes(20_000).hex().encode())


def _other_key(plan: Plan) -> None:
    _resource(plan, "aws_key_pair")["public_key"] = "ssh-ed25519 AAAAC3Nz somebody@example.com"


def _made_key(plan: Plan) -> None:
    _add(plan, "tls_private_key", {"algorithm": "ED25519"})


def _all_of_ec2(plan: Plan) -> None:
    policy = _resource(plan, "aws_iam_role_policy")
    policy["policy"] = policy["policy"].replace("ec2:DescribeInstances", "ec2:*")


def _role_on_targets(plan: Plan) -> None:
    _instance(plan, "target")["iam_instance_profile"] = "admin"


def _password_output(plan: Plan) -> None:
    plan["planned_values"]["outputs"]["grafana_password"] = {"sensitive": True, "value": "x"}


def _no_inventory(plan: Plan) -> None:
    del plan["planned_values"]["outputs"]["inventory"], plan["output_changes"]["inventory"]


def _nameless_hosts(plan: Plan) -> None:
    del plan["output_changes"]["inventory"]["after"][1]["user"]


def _resource(plan: Plan, type_: str) -> dict[str, Any]:
    found: dict[str, Any] = next(
        each["values"] for each in plan["planned_values"]["root_module"]["resources"] if each["type"] == type_
    )
    return found


def _add(plan: Plan, type_: str, values: Mapping[str, Any]) -> None:
    resource = {"address": f"{type_}.new", "type": type_, "name": "new", "values": values}
    plan["planned_values"]["root_module"]["resources"].append(resource)


def _rewrite(plan: Plan, old: bytes, new: bytes) -> None:
    """Changes bootstrap.sh in the user data of the Graphite host."""
    values = _instance(plan, "graphite")
    config = cloud_config(values)
    (file,) = (file for file in config["write_files"] if file["path"].endswith("bootstrap.sh"))
    text = base64.b64decode(file["content"])
    assert old in text
    file["content"] = base64.b64encode(text.replace(old, new)).decode()
    text = b"#cloud-config\n" + yaml.safe_dump(config).encode()
    values["user_data_base64"] = base64.b64encode(gzip.compress(text)).decode()


DEFECTS: dict[Callable[[Plan], None], str] = {
    _open: "open to the world",
    _open_in_the_group: "open to the world",
    _open_to_another: r"open to 198\.51\.100\.0/24",
    _open_another_port: "not to be reached",
    _open_all_ports: "not to be reached",
    _imds_v1: "IMDSv1",
    _imds_default: "IMDSv1",
    _plain_disk: "not encrypted",
    _plain_volume: "not encrypted",
    _password: "a secret: .*correct-horse",
    _private_key_in_user_data: "a private key",
    _too_much_user_data: "16384 are allowed",
    _other_key: "another key",
    _made_key: "would be in the state",
    _all_of_ec2: r"permissions: \['ec2:\*'\]",
    _role_on_targets: "has a role",
    _password_output: "stays on the hosts",
    _no_inventory: "missing .'inventory'",
    _nameless_hosts: "host 2 has",
}


@pytest.mark.parametrize("defect", DEFECTS, ids=lambda defect: defect.__name__.strip("_"))
def test_a_planted_defect_is_found(plan: Plan, planned: tuple[Plan, str], defect: Callable[[Plan], None]) -> None:
    """Each defect is named, and nothing else is complained of."""
    defect(plan)
    found = _findings(plan, planned)
    assert any(re.search(DEFECTS[defect], line) for line in found), found


@pytest.mark.long
def test_defects_in_the_module_itself_are_found(checkout: Checkout, planned: tuple[Plan, str]) -> None:
    """Five of them, planted in the files: a real plan shows each."""
    replaced = {
        "security.tf": ("distinct(concat(var.operator_cidrs, [var.vpc_cidr]))", '[var.vpc_cidr, "0.0.0.0/0"]'),
        "targets.tf": ("encrypted   = true", "encrypted   = false"),
        "graphite.tf": ('http_tokens                 = "required"', 'http_tokens                 = "optional"'),
        "outputs.tf": ("user    = local.login_user", "login   = local.login_user"),
        "files/bootstrap.sh": ("ADMIN_PASSWORD=$(random)", "ADMIN_PASSWORD=graphite_me"),
    }
    for name, (old, new) in replaced.items():
        path = checkout.module / name
        text = path.read_text()
        assert old in text, name
        path.write_text(text.replace(old, new))
    found = "\n".join(findings(checkout.plan(), [OPERATOR_CIDR], (checkout.folder / ".deploy/key.pub").read_text()))
    for expected in (
        "open to the world",
        "target[0]: a disk is not",
        "graphite: takes IMDSv1",
        "graphite_me",
        "host 1 has",
    ):
        assert expected in found


# --- what hosts get to read ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def cloud_init_schema() -> dict[str, Any]:
    """cloud-init's own schema of what it reads."""
    name = "usr/lib/python3/dist-packages/cloudinit/config/schemas/schema-cloud-config-v1.json"
    paths = [path for path in (Path("/") / name, TOOLS / "root" / name) if path.is_file()]
    schema: dict[str, Any] = json.loads((paths[0] if paths else Path(missing("cloud-init's schema"))).read_text())
    return schema


def known_keys(schema: Mapping[str, Any]) -> set[str]:
    """Returns the keys that a cloud-config may have: the schema itself lets unknown ones pass."""
    return {key for part in schema["$defs"].values() for key in part.get("properties", {})}


@pytest.mark.parametrize("name", ["target", "graphite"])
def test_cloud_init_takes_the_user_data(plan: Plan, cloud_init_schema: dict[str, Any], name: str) -> None:
    """It fits, has nothing but keys that cloud-init knows, and is of its schema."""
    values = _instance(plan, name)
    assert len(user_data(values)) < MAX_USER_DATA_BYTES * 3 / 4
    config = cloud_config(values)
    jsonschema.validate(config, cloud_init_schema, cls=jsonschema.Draft4Validator)
    assert config.keys() <= known_keys(cloud_init_schema)
    for command in config["runcmd"]:
        assert all(isinstance(word, str) for word in command)


@pytest.mark.parametrize("change", [{"runcommand": []}, {"write_files": [{"path": "/x", "permissions": 493}]}])
def test_cloud_init_does_not_take_everything(cloud_init_schema: dict[str, Any], change: dict[str, Any]) -> None:
    """A misspelt key, and an octal number without quotes, are found."""
    is_known = change.keys() <= known_keys(cloud_init_schema)
    errors = list(jsonschema.Draft4Validator(cloud_init_schema).iter_errors(change))
    assert errors or not is_known


def test_hosts_get_the_files_of_the_repository(plan: Plan) -> None:
    """Byte for byte, and each parses as what it is."""
    files = embedded_files(_instance(plan, "graphite")) | embedded_files(_instance(plan, "target"))
    folders = ("terraform/files", "deploy/graphite", "deploy/grafana/provisioning/*", "src/fleetmem/lab")
    sources = {path.name: path for folder in folders for path in REPOSITORY.glob(f"{folder}/*")}
    assert {path.name for path in MODULE.glob("files/*")} <= set(map(_name, files))
    for place, text in files.items():
        assert text == sources[_name(place)].read_bytes()
        if place.endswith(".yaml"):
            assert yaml.safe_load(text)


def _name(path: str) -> str:
    return path.rpartition("/")[2]


def test_commands_of_cloud_init_name_files_that_it_writes(plan: Plan) -> None:
    """bootstrap.sh is there, may be run, and finds what it mounts; the services have their unit."""
    graphite = cloud_config(_instance(plan, "graphite"))
    permissions = {file["path"]: file["permissions"] for file in graphite["write_files"]}
    assert [permissions[command[0]] for command in graphite["runcmd"]] == ["0755"]
    compose = yaml.safe_load((MODULE / "files" / "compose.yaml").read_text())
    mounted = [volume for service in compose["services"].values() for volume in service["volumes"]]
    made = {"./dashboards", "./tls"}  # by bootstrap.sh
    written = {path.replace("/srv/fleetmem", ".") for path in permissions}
    for source in (volume.split(":")[0] for volume in mounted if volume.startswith("./")):
        assert source in written | made or any(path.startswith(f"{source}/") for path in written), source
    target = cloud_config(_instance(plan, "target"))
    assert target["runcmd"][1][3:] == [
        f"fleetmem-workload@{name}.service" for name in ("steady", "leaky", "fork-storm")
    ]


def test_compose_takes_the_containers() -> None:
    """The file is of Compose's schema, no image floats, no port is published that no rule opens."""
    path = TOOLS / "node_modules" / "dclint" / "schemas" / "compose.schema.json"
    schema = json.loads((path if path.is_file() else Path(missing("Compose's schema"))).read_text())
    compose = yaml.safe_load((MODULE / "files" / "compose.yaml").read_text())
    validator = jsonschema.Draft7Validator(schema)
    validator.validate(compose)
    assert not validator.is_valid(compose | {"services": {"graphite": {"imagge": "x"}}})
    services = compose["services"].values()
    assert all(re.search(r":[\w.-]*\d", service["image"]) and "healthcheck" in service for service in services)
    published = {port for service in services for port in service.get("ports", [])}
    assert published == {"2003-2004:2003-2004", "8125:8125/udp", "443:443", "3000:3000"}


def test_scripts_are_clean() -> None:
    """ShellCheck and the shells themselves find nothing in what the operator and the hosts run."""
    scripts = [
        *MODULE.glob("files/*.sh"),
        *(path for path in (REPOSITORY / "scripts").iterdir() if path.is_file() and path.suffix != ".py"),
    ]
    shellcheck = Path(sys.executable).with_name("shellcheck")
    done = subprocess.run(
        [str(shellcheck), *map(str, scripts)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    assert done.returncode == 0, done.stdout.decode()
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Nothing is wrong with them, but that Docker is not here."""
    for path in [*MODULE.glob("files/*.service"), *MODULE.glob("files/*.timer")]:
        shutil.copy(path, tmp_path)
    units = ["fleetmem-workload@.service", "fleetmem-prune.service", "fleetmem-prune.timer"]
    assert sorted(units) == sorted(path.name for path in tmp_path.iterdir())
    verify = [find_tool("systemd-analyze"), "verify", "--man=no", *(str(tmp_path / unit) for unit in units)]
    done = subprocess.run(verify, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    complaints = [line for line in done.stdout.decode().splitlines() if "fleetmem" in line and "docker" not in line]
    assert complaints == []
    (tmp_path / units[0]).write_text(
        (tmp_path / units[0]).read_text().replace("[Service]", "[Service]\nTasksMaximum=1")
    )
    done = subprocess.run(verify, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    assert "TasksMaximum" in done.stdout.decode()
