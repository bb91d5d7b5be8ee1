from typing import Any

import pytest

from fleetmem.errors import InventoryError
from fleetmem.inventory.ec2 import Query, listing_of, parse_query


def _instance(id_: str, name: str | None = None, **more: Any) -> dict[str, Any]:
    tags = [{"Key": "Name", "Value": name}] if name is not None else []
    return {"InstanceId": id_, "PrivateIpAddress": "10.0.0.1", "Tags": tags, **more}


def _names(*instances: dict[str, Any], **query: Any) -> list[str]:
    return [host.name for host in listing_of(instances, Query(**query)).hosts]


def test_a_query() -> None:
    """Regions and values of one tag may be several; a tag's key may hold colons."""
    query = parse_query("region=eu-west-1, region=us-east-1,tag:Role=web,tag:Role=db,tag:a:b=c,address=public,name=id")
    assert query == Query(["eu-west-1", "us-east-1"], {"Role": ["web", "db"], "a:b": ["c"]}, True, False)
    assert parse_query("") == Query()
    assert parse_query("profile=ops") == Query(profile="ops")


@pytest.mark.parametrize("part", ["eu-west-1", "region=", "tag:=x", "tags:Role=x", "address=both", "name=Name", "=x"])
def test_what_is_no_query(part: str) -> None:
    """The message shows what is."""
    with pytest.raises(InventoryError, match=r"expected (region=REGION|address=private|name=tag)"):
        parse_query(f"region=eu-west-1,{part}")


def test_hosts_are_called_by_their_tag() -> None:
    """Else by their id; a name that several have gets the id, and what is in no host name becomes _."""
    instances = [
        _instance("i-3", "web"),
        _instance("i-1", "web"),
        _instance("i-2"),
        _instance("i-4", ""),
        _instance("i-5", "My DB (old)"),
        _instance("i-6", "\x1b[31m"),
        _instance("i-7", "…"),
    ]
    assert _names(*instances) == ["31m", "My_DB_old", "i-2", "i-4", "i-7", "web-i-1", "web-i-3"]
    assert _names(*instances, has_tag_names=False) == [f"i-{number}" for number in range(1, 8)]


def test_addresses() -> None:
    """Private unless public is asked for, and where there is no public one; keys may be absent or empty."""
    instances = [
        _instance("i-1", PublicIpAddress="54.0.0.1"),
        _instance("i-2", PublicIpAddress=""),
        _instance("i-3", PrivateIpAddress="", Ipv6Address="2001:db8::1"),
        _instance("i-4", PrivateIpAddress=""),
    ]
    private, public = (listing_of(instances, Query(is_public=is_public)) for is_public in (False, True))
    assert [host.address for host in private.hosts] == ["10.0.0.1", "10.0.0.1", "2001:db8::1"]
    assert [host.address for host in public.hosts] == ["54.0.0.1", "10.0.0.1", "2001:db8::1"]
    assert private.left_out == public.left_out == ("ec2: i-4 (i-4): no address",)


def test_tags_are_labels() -> None:
    """With region, zone, id and type beside them."""
    instance = _instance(
        "i-1",
        "web",
        Region="eu-west-1",
        Placement={"AvailabilityZone": "eu-west-1a"},
        InstanceType="t3.micro",
    )
    (host,) = listing_of([instance], Query()).hosts
    assert host.labels == {
        "Name": "web",
        "ec2_region": "eu-west-1",
        "ec2_zone": "eu-west-1a",
        "ec2_instance_id": "i-1",
        "ec2_instance_type": "t3.micro",
    }
