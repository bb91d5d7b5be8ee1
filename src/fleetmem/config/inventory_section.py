"""`[inventory]`: which hosts."""

import re
from typing import Annotated

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    field_validator,
)

from fleetmem.config.fields import Section, split, split_all, split_lines
from fleetmem.inventory.inventory import Shard
from fleetmem.inventory.listing import READ_TIMEOUT_SECONDS, AnsibleReader, LoginPart
from fleetmem.sinks.naming import check_tags


class InventorySection(Section):
    """Which hosts."""

    hosts: Annotated[tuple[str, ...], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = ()
    """[user@]host[:port], ranges as web[01-50], files as @hosts.txt"""
    sources: Annotated[tuple[str, ...], BeforeValidator(split_lines)] = Field(
        default=(), examples=[["ansible:/etc/ansible/hosts", "ec2:region=eu-west-1,tag:Role=web"]]
    )
    """more hosts, as KIND:ARGUMENT: hosts, ssh, ansible, ec2, terraform, file_sd, http_sd, json, command"""
    limit: str | None = Field(default=None, examples=["web:&eu:!old"])
    """only hosts that this pattern matches: Ansible's patterns, and label=value"""
    shard: str | None = Field(default=None, examples=["0/3"])
    """this collector's share of these hosts, as NUMBER/COUNT: 0/3, 1/3 and 2/3 together have each host once"""
    ignore: Annotated[tuple[LoginPart, ...], BeforeValidator(split_all)] = Field(
        default=(), examples=[["user", "key", "jump"]]
    )
    """user, key, jump: ignore what inventories say of these; flags, [[overrides]] and [ssh] decide. -i stays"""
    tags: Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(check_tags)] = Field(
        default=(), examples=[["role", "env"]]
    )
    """labels of hosts that become tags, where names have tags: StatsD's dialects, graphite.tags, Prometheus"""
    ansible_labels: Annotated[tuple[str, ...], BeforeValidator(split)] = Field(default=(), examples=[["role", "env"]])
    """variables of Ansible that become labels; the others are not taken, as they may hold secrets"""
    ansible_reader: AnsibleReader = AnsibleReader.AUTO
    """auto has Ansible read its inventories where it is installed, builtin never, ansible always"""
    refresh_seconds: float = Field(default=60.0, ge=0)
    """for `run`: time between two readings of what can change; 0 reads at the start only"""
    timeout_seconds: float = Field(default=READ_TIMEOUT_SECONDS, gt=0)
    """time limit for reading one inventory"""

    @field_validator("shard")
    @classmethod
    def _check_shard(cls, value: str | None) -> str | None:
        if value is not None:
            split_shard(value)
        return value


def split_shard(text: str) -> Shard:
    """Returns what `NUMBER/COUNT` says.

    Raises:
        ValueError: it is no share of anything.
    """
    match = re.fullmatch(r"([0-9]{1,4})/([0-9]{1,4})", text)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"{text!r} is not NUMBER/COUNT; of three collectors the first has 0/3, the last 2/3")
    return Shard(int(match[1]), int(match[2]))
