"""AWS EC2: running instances by region and tag, several regions at once. Needs boto3: `pip install 'fleetmem[aws]'`."""

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from fleetmem.errors import InventoryError, reason_of
from fleetmem.inventory.entries import make_host, one_entry
from fleetmem.inventory.listing import Listing, Means
from fleetmem.inventory.side_by_side import run_all
from fleetmem.model import Host

_PAGE_SIZE = 1000  # the most that DescribeInstances gives
_LIMITS = {"connect_timeout": 3, "read_timeout": 10, "retries": {"max_attempts": 3, "mode": "standard"}}
_NO_HOST_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_EXPECTED = "region=REGION, tag:KEY=VALUE, address=private|public, name=tag|id, profile=NAME"


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked for.

    Attributes:
        regions: none means the one of the AWS configuration.
        tags: values by key; one of each key's.
        is_public: whether the public address is taken where there is one.
        has_tag_names: whether hosts are called by their tag `Name`.
        profile: of the AWS configuration.
    """

    regions: list[str] = field(default_factory=list)
    tags: dict[str, list[str]] = field(default_factory=dict)
    is_public: bool = False
    has_tag_names: bool = True
    profile: str | None = None


def parse_query(argument: str) -> Query:
    """Returns what `region=eu-west-1,tag:Role=web,address=public` asks for.

    Raises:
        InventoryError: a part cannot be read.
    """
    given: dict[str, list[str]] = {}
    for part in filter(None, map(str.strip, argument.split(","))):
        name, sign, value = part.partition("=")
        if not sign or not value or not (name in _CHOICES or re.fullmatch(r"tag:.+", name)):
            raise InventoryError(f"ec2: {part!r}: expected {_EXPECTED}, comma-separated")
        if _CHOICES.get(name) and value not in _CHOICES[name]:
            raise InventoryError(f"ec2: {part!r}: expected {name}={'|'.join(_CHOICES[name])}")
        given.setdefault(name, []).append(value)
    return Query(
        regions=list(dict.fromkeys(given.get("region", []))),
        tags={name.removeprefix("tag:"): values for name, values in given.items() if name.startswith("tag:")},
        is_public=given.get("address", [""])[-1] == "public",
        has_tag_names=given.get("name", [""])[-1] != "id",
        profile=given.get("profile", [None])[-1],
    )


_CHOICES: dict[str, tuple[str, ...]] = {
    "region": (),
    "address": ("private", "public"),
    "name": ("tag", "id"),
    "profile": (),
}


def read(argument: str, means: Means) -> Listing:
    """Returns the running instances. Raises InventoryError."""
    query = parse_query(argument)
    try:
        import boto3
        import botocore.exceptions
    except ImportError as error:
        raise InventoryError("ec2: needs boto3: pip install 'fleetmem[aws]'") from error
    try:
        session = boto3.session.Session(profile_name=query.profile)
        regions = query.regions or [session.region_name]
        if regions == [None]:
            raise InventoryError("ec2: no region: write ec2:region=eu-west-1, or set AWS_DEFAULT_REGION")
        clients = [_client(session, region) for region in regions]  # only these may be shared with threads
        works = [partial(_instances, client, query.tags) for client in clients]
        found = run_all(works, means.timeout_seconds)
    except InventoryError:
        raise
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError, ValueError) as error:
        raise InventoryError(f"ec2: {_explain(error)}") from error
    except TimeoutError as error:
        raise InventoryError(f"ec2: no answer within {means.timeout_seconds:g} s") from error
    except OSError as error:
        raise InventoryError(f"ec2: {reason_of(error)}") from error
    instances = [
        instance | {"Region": region} for region, some in zip(regions, found, strict=True) for instance in some
    ]
    return listing_of(instances, query)


def _client(session: Any, region: str) -> Any:
    from botocore.config import Config

    return session.client("ec2", region_name=region, config=Config(**_LIMITS))


def _instances(client: Any, tags: dict[str, list[str]]) -> list[dict[str, Any]]:
    """Returns the running instances of a region that have these tags; page by page."""
    filters = [{"Name": f"tag:{key}", "Values": values} for key, values in tags.items()]
    filters.append({"Name": "instance-state-name", "Values": ["running"]})
    pages = client.get_paginator("describe_instances").paginate(
        Filters=filters, PaginationConfig={"PageSize": _PAGE_SIZE}
    )
    return [instance for page in pages for reservation in page["Reservations"] for instance in reservation["Instances"]]


def _explain(error: Exception) -> str:
    hint = ""
    if "Credentials" in type(error).__name__:
        hint = "; AWS_PROFILE, AWS_ACCESS_KEY_ID or a role of this machine gives them"
    elif "UnauthorizedOperation" in str(error):
        hint = "; the role needs ec2:DescribeInstances, and nothing else"
    return f"{error}{hint}"


def listing_of(instances: Iterable[dict[str, Any]], query: Query) -> Listing:
    """Returns the hosts of instances as the API describes them, by name; pure."""
    # The order of the API is not stable, and the series of a host shall not move with it.
    instances = sorted(instances, key=lambda instance: str(instance["InstanceId"]))
    names = [_name(instance) if query.has_tag_names else "" for instance in instances]
    count = Counter(names)
    hosts: list[Host] = []
    left_out: list[str] = []
    for instance, tag_name in zip(instances, names, strict=True):
        id_ = instance["InstanceId"]
        name = id_ if not tag_name else tag_name if count[tag_name] == 1 else f"{tag_name}-{id_}"
        with one_entry(left_out):
            hosts.append(_host(instance, name, _address(instance, is_public=query.is_public)))
    return Listing(sorted(hosts, key=lambda host: host.name)).without(left_out)


def _host(instance: dict[str, Any], name: str, address: str | None) -> Host:
    if not address:
        raise InventoryError(f"ec2: {instance['InstanceId']} ({name}): no address")
    labels = {
        "ec2_region": instance.get("Region"),
        "ec2_zone": instance.get("Placement", {}).get("AvailabilityZone"),
        "ec2_instance_id": instance["InstanceId"],
        "ec2_instance_type": instance.get("InstanceType"),
        **_tags(instance),
    }
    return make_host(f"ec2: {instance['InstanceId']}", name=name, address=address, labels=labels)


def _tags(instance: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}


def _name(instance: dict[str, Any]) -> str:
    """Returns the tag `Name` as a host name, empty where there is none: anyone may write anything there."""
    return _NO_HOST_NAME.sub("_", _tags(instance).get("Name", "")).strip("._-")


def _address(instance: dict[str, Any], *, is_public: bool) -> str | None:
    """Returns the address to connect to; the keys are absent, or empty, where there is none."""
    order = ("PublicIpAddress", "PrivateIpAddress", "Ipv6Address")
    return next((instance[key] for key in order[0 if is_public else 1 :] if instance.get(key)), None)
