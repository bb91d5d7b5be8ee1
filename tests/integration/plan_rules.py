"""What must hold for every plan of terraform/, read from `terraform show -json`: findings, none if it is good. Pure."""

import gzip
import ipaddress
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .aws import embedded_files, user_data

MAX_USER_DATA_BYTES = 16384
"""EC2's limit, before base64."""

OPEN_PORTS = {"tcp": {22, 443, 2003, 2004, 3000}, "udp": {8125}}
"""What may be reached at all."""

OUTPUTS = {
    "inventory",
    "ssh_config",
    "graphite_host",
    "graphite_url",
    "grafana_url",
    "statsd_endpoint",
    "statsd_private_endpoint",
    "carbon_endpoint",
    "ami_ids",
}
HOST_FIELDS = {"name", "address", "port", "user", "groups", "labels"}

_WORLD = {"0.0.0.0/0", "::/0"}
_INGRESS = "aws_vpc_security_group_ingress_rule"
# A word for a secret, and then a value as such: `$(random)` and `graphite.env` are none.
_SECRET = re.compile(
    rb"""(?i)(pass(word|wd|phrase)|secret(_key)?|token|api_?key)["']?\s*[:=]\s*["']?[A-Za-z0-9+/!@#%^&*_-]{6,}"""
)
_PRIVATE_KEY = "PRIVATE KEY"


def findings(plan: Mapping[str, Any], operator_cidrs: Sequence[str], public_key: str) -> list[str]:
    """Returns what is wrong with a plan, a line each.

    Args:
        plan: as `terraform show -json` prints it.
        operator_cidrs: networks that may reach the hosts, beside the VPC's own.
        public_key: the only key that may be let in.
    """
    resources = list(_resources(plan["planned_values"]["root_module"]))
    return [
        *_reachability(resources, operator_cidrs),
        *_instances(resources),
        *_keys(plan, resources, public_key),
        *_permissions(resources, plan),
        *_outputs(plan),
    ]


def _resources(module: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    yield from module.get("resources", [])
    for child in module.get("child_modules", []):
        yield from _resources(child)


def _of(resources: Iterable[dict[str, Any]], *types: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields addresses and values of the resources of some types."""
    for resource in resources:
        if resource["type"] in types:
            yield resource["address"], resource["values"]


# --- who may reach what ----------------------------------------------------------------------------------------------


def _reachability(resources: Sequence[dict[str, Any]], operator_cidrs: Sequence[str]) -> Iterator[str]:
    vpcs = [values["cidr_block"] for _address, values in _of(resources, "aws_vpc")]
    trusted = {*operator_cidrs, *vpcs}
    seen = set()
    for address, protocol, ports, sources in _ingress(resources):
        if not sources:
            yield f"{address}: sources that cannot be read"
        for source in sources:
            if source in _WORLD or ipaddress.ip_network(source).prefixlen < 8:
                yield f"{address}: open to the world"
            elif source not in trusted:
                yield f"{address}: open to {source}, which is neither the operator's nor the VPC's"
            seen.add(source)
        if not ports or not set(ports) <= OPEN_PORTS.get(protocol, set()):
            yield f"{address}: {protocol} {ports} is not to be reached"
    if seen < trusted:
        yield f"nothing is open to {', '.join(sorted(trusted - seen))}"


def _ingress(resources: Sequence[dict[str, Any]]) -> Iterator[tuple[str, str, range, list[str]]]:
    """Yields address, protocol, ports and sources of every rule that lets something in, whatever it is written as."""
    for address, values in _of(resources, _INGRESS):
        yield address, values["ip_protocol"], _ports(values), _sources(values, "cidr_ipv4", "cidr_ipv6")
    for address, values in _of(resources, "aws_security_group_rule"):
        if values["type"] == "ingress":
            yield address, values["protocol"], _ports(values), _sources(values, "cidr_blocks", "ipv6_cidr_blocks")
    for address, values in _of(resources, "aws_security_group", "aws_default_security_group"):
        for rule in values.get("ingress") or []:
            yield address, rule["protocol"], _ports(rule), _sources(rule, "cidr_blocks", "ipv6_cidr_blocks")


def _ports(rule: Mapping[str, Any]) -> range:
    first, last = rule.get("from_port"), rule.get("to_port")
    return range(0) if first is None or last is None or first < 0 else range(first, last + 1)


def _sources(rule: Mapping[str, Any], *names: str) -> list[str]:
    found: list[str] = []
    for name in names:
        value = rule.get(name)
        found += [value] if isinstance(value, str) else value or []
    return found


# --- instances -------------------------------------------------------------------------------------------------------


def _instances(resources: Sequence[dict[str, Any]]) -> Iterator[str]:
    instances = list(_of(resources, "aws_instance"))
    if not instances:
        yield "no instances"
    for address, values in instances:
        if [each.get("http_tokens") for each in values.get("metadata_options") or []] != ["required"]:
            yield f"{address}: takes IMDSv1"
        disks = [*values.get("root_block_device", []), *values.get("ebs_block_device", [])]
        if not values.get("root_block_device") or not all(disk.get("encrypted") for disk in disks):
            yield f"{address}: a disk is not encrypted"
        yield from _user_data(address, values)
    for address, values in _of(resources, "aws_ebs_volume"):
        if not values.get("encrypted"):
            yield f"{address}: not encrypted"


def _user_data(address: str, values: Mapping[str, Any]) -> Iterator[str]:
    if values.get("user_data"):
        yield f"{address}: user data that a plan shows a checksum of only; write user_data_base64"
        return
    data = user_data(values)
    if len(data) > MAX_USER_DATA_BYTES:
        yield f"{address}: {len(data)} bytes of user data, {MAX_USER_DATA_BYTES} are allowed"
    for name, text in {"user data": gzip.decompress(data), **embedded_files(values)}.items():
        match = _SECRET.search(text)
        if match:
            yield f"{address}: {name}: a secret: {match[0].decode(errors='replace')}"
        if _PRIVATE_KEY.encode() in text:
            yield f"{address}: {name}: a private key"


# --- keys, permissions, outputs --------------------------------------------------------------------------------------


def _keys(plan: Mapping[str, Any], resources: Sequence[dict[str, Any]], public_key: str) -> Iterator[str]:
    pairs = list(_of(resources, "aws_key_pair"))
    for address, values in pairs:
        if values["public_key"] != public_key.strip():
            yield f"{address}: another key than the operator's"
    if not pairs:
        yield "no key pair"
    for resource in resources:
        if resource["type"].startswith(("tls_", "random_password")):
            yield f"{resource['address']}: its secret would be in the state"
    if _PRIVATE_KEY in json.dumps(plan):
        yield "a private key in the plan"


def _permissions(resources: Sequence[dict[str, Any]], plan: Mapping[str, Any]) -> Iterator[str]:
    actions = [
        action
        for _address, values in _of(resources, "aws_iam_role_policy", "aws_iam_policy")
        for statement in json.loads(values["policy"])["Statement"]
        for action in ([statement["Action"]] if isinstance(statement["Action"], str) else statement["Action"])
    ]
    if actions != ["ec2:DescribeInstances"]:
        yield f"permissions: {actions}"
    for address, _values in _of(resources, "aws_iam_role_policy_attachment", "aws_iam_user", "aws_iam_access_key"):
        yield f"{address}: not wanted"
    for address, values in _of(resources, "aws_instance"):
        if "target" in address and (
            values.get("iam_instance_profile") or _is_unknown(plan, address, "iam_instance_profile")
        ):
            yield f"{address}: has a role"


def _is_unknown(plan: Mapping[str, Any], address: str, name: str) -> bool:
    """Whether an attribute is set, to something that is known after apply only."""
    configured = {
        f"{resource['type']}.{resource['name']}": resource["expressions"]
        for resource in plan["configuration"]["root_module"]["resources"]
    }
    return name in configured.get(address.split("[")[0], {})


def _outputs(plan: Mapping[str, Any]) -> Iterator[str]:
    outputs = plan["planned_values"]["outputs"]
    if set(outputs) != OUTPUTS:
        yield f"outputs: missing {sorted(OUTPUTS - set(outputs))}, unexpected {sorted(set(outputs) - OUTPUTS)}"
    secret = [name for name, output in outputs.items() if output.get("sensitive") or re.search("password|secret", name)]
    if secret:
        yield f"outputs: {secret}: what is secret stays on the hosts"
    # Addresses are known after apply only; the rest of each host is there.
    change = plan["output_changes"].get("inventory", {})
    hosts = change.get("after") or []
    unknown = change.get("after_unknown") or []
    for number, host in enumerate(hosts if isinstance(hosts, list) else []):
        later = unknown[number] if isinstance(unknown, list) else {}
        fields = set(host) | {name for name, is_unknown in later.items() if is_unknown}
        if fields != HOST_FIELDS:
            yield f"output inventory: host {number + 1} has {sorted(fields)}"
    if not hosts or not isinstance(hosts, list):
        yield "output inventory: no hosts"
