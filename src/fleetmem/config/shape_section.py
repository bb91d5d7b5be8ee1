"""`[shape]`: what is worth storing."""

from typing import Annotated, Self

from pydantic import (
    BeforeValidator,
    Field,
    ValidationInfo,
    field_validator,
)

from fleetmem.config.fields import PatternText, PatternTexts, Section, Size, UserPatternTexts, split_all
from fleetmem.model import PROCESS_MEASURES, Detail, Measure
from fleetmem.runtime.pattern import Pattern
from fleetmem.shape.budget import reserved_series
from fleetmem.shape.limits import CommandGroup, Filter, Limits, TopBy


class ShapeGroup(Section):
    """A rule that gives many processes one name."""

    match: PatternText
    name: str = Field(min_length=1)

    @field_validator("name")
    @classmethod
    def _check_name(cls, value: str, info: ValidationInfo) -> str:
        if "match" in info.data:  # else that is wrong, and told
            CommandGroup(Pattern(info.data["match"]), value)
        return value


class Shape(Section):
    """What is worth storing. What is left out is summed into `other`, so totals still match."""

    detail: Annotated[tuple[Detail, ...], BeforeValidator(split_all), Field(min_length=1)] = (Detail.PROCESS,)
    """process: a series per process; command: one per command and host; or both"""
    measures: Annotated[tuple[Measure, ...], BeforeValidator(split_all), Field(min_length=1)] = tuple(
        map(Measure, PROCESS_MEASURES)
    )
    """series of each process and command; peak_rss_bytes, anon_bytes, swap_bytes only where they are named here"""
    top: int | None = Field(default=None, ge=1, examples=[20])
    """keep the largest ones: how many per host and level of detail"""
    top_by: TopBy = TopBy.RSS
    """rank by rss, swap or growth (RSS less its average over ten minutes)"""
    min_rss: Size = Field(default=0, ge=0)
    """leave out processes that are smaller (64k, 10MiB)"""
    include_commands: PatternTexts = Field(default=(), examples=[("^postgres", "^nginx$")])
    """keep only these commands; regular expressions, found anywhere in the kernel's name of a process (15 bytes)"""
    exclude_commands: PatternTexts = Field(default=(), examples=[("^systemd", "^sshd")])
    """leave out these commands, also where they are included"""
    include_users: UserPatternTexts = Field(default=(), examples=[("^0$", "^1[0-9]{3}$")])
    """keep only these users; regular expressions on the user id in decimal: hosts send numbers, not names"""
    exclude_users: UserPatternTexts = Field(default=(), examples=[("^0$",)])
    """leave out these users"""
    include_hosts: PatternTexts = Field(default=(), examples=[("^db",)])
    """keep only the processes of these hosts; regular expressions on the name in the inventory"""
    exclude_hosts: PatternTexts = Field(default=(), examples=[("^test",)])
    """leave out the processes of these hosts"""
    groups: tuple[ShapeGroup, ...] = Field(
        default=(),
        examples=[({"match": "^postgres", "name": "postgres"}, {"match": "^(?P<app>[a-z]+)-[0-9]+", "name": "{app}"})],
    )
    """names for processes, also as [[shape.groups]]; the first rule whose regular expression is found in the command"""
    max_series_per_host: int = Field(default=10_000, ge=0)
    """for `run`: series of a host, also those that ended within the hour; 0 is no limit"""
    max_series: int = Field(default=0, ge=0)
    """for `run`: the same for all hosts together; 0 is no limit"""

    @field_validator("max_series_per_host")
    @classmethod
    def _check_max_series_per_host(cls, value: int, info: ValidationInfo) -> int:
        least = reserved_series(info.data.get("detail", ()), info.data.get("measures", ()))
        if 0 < value < least:
            raise ValueError(f"a host has {least} series of its own and of `other`: {least} or more, 0 for no limit")
        return value

    def limits(self) -> Limits:
        """Returns the plain values that `shape` takes."""
        return Limits(
            detail=frozenset(self.detail),
            top=self.top,
            min_rss_bytes=self.min_rss,
            top_by=self.top_by,
            commands=_filter(self.include_commands, self.exclude_commands),
            users=_filter(self.include_users, self.exclude_users),
            hosts=_filter(self.include_hosts, self.exclude_hosts),
            groups=tuple(CommandGroup(Pattern(group.match), group.name) for group in self.groups),
            measures=self.measure_names(),
        )

    def measure_names(self) -> tuple[str, ...]:
        """Returns the series of a process, each once, in the order in which they are sent."""
        return tuple(str(measure) for measure in Measure if measure in self.measures)

    def without_budget(self) -> Self:
        """Returns the same for a single cycle: a budget is about series over time."""
        return self.model_copy(update={"max_series_per_host": 0, "max_series": 0})


def _filter(include: tuple[str, ...], exclude: tuple[str, ...]) -> Filter:
    return Filter(tuple(map(Pattern, include)), tuple(map(Pattern, exclude)))
