"""All sections, as one frozen object."""

from contextvars import ContextVar
from typing import Any, Self

from pydantic import (
    Field,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from fleetmem.config.doctor_section import Doctor
from fleetmem.config.fields import Section
from fleetmem.config.inventory_section import InventorySection
from fleetmem.config.plugin_sections import PluginSections
from fleetmem.config.probe_section import Probe
from fleetmem.config.run_section import Run
from fleetmem.config.shape_section import Shape
from fleetmem.config.sink_sections import File, Graphite, Prometheus, Statsd
from fleetmem.config.ssh_section import Override, Ssh
from fleetmem.sinks.naming import check_prefix

ENV_PREFIX = "FLEETMEM_"


class Settings(BaseSettings):
    """Everything that can be set."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        enable_decoding=False,  # lists are comma-separated there, not JSON
    )

    prefix: str = "fleetmem"
    """first part of every metric name; for Graphite alone it may hold - and begin with a digit (hosted Graphite)"""
    overrides: tuple[Override, ...] = Field(
        default=(), examples=[({"match": "db:&eu", "user": "admin", "jump": "bastion.example.com", "sudo": True},)]
    )
    """for hosts that `match`, also as [[overrides]]: keys of [ssh] and [probe]; later ones and flags are stronger"""
    inventory: InventorySection = InventorySection()
    ssh: Ssh = Ssh()
    probe: Probe = Probe()
    shape: Shape = Shape()
    statsd: Statsd = Statsd()
    graphite: Graphite = Graphite()
    prometheus: Prometheus = Prometheus()
    file: File = File()
    sinks: PluginSections = Field(default_factory=dict)
    """sinks of one's own: a section [sinks.NAME] for each plug-in of that name"""
    run: Run = Run()
    doctor: Doctor = Doctor()

    def for_one_cycle(self) -> Self:
        """Returns the same for a command that samples once: without budget, spool and pages, which are about time."""
        graphite = self.graphite.model_copy(update={"spool": False})
        changes = {"shape": self.shape.without_budget(), "graphite": graphite, **self._without_pages()}
        return self.model_copy(update=changes)

    def without_sinks(self) -> Self:
        """Returns the same with nowhere to send to."""
        nowhere = {"statsd": Statsd(), "graphite": Graphite(), "file": File(), "sinks": {}, **self._without_pages()}
        return self.model_copy(update=nowhere)

    def for_worker(self) -> Self:
        """Returns the same for a worker process, without what there is once: pages, spool, files, plug-ins."""
        once = {"graphite": Graphite(), "file": File(), "sinks": {}, **self._without_pages()}
        return self.model_copy(update=once)

    def _without_pages(self) -> dict[str, Section]:
        return {"prometheus": Prometheus(), "run": self.run.model_copy(update={"health_listen": None})}

    @model_validator(mode="after")
    def _check_prefix(self) -> Self:
        others = self.statsd.server or self.prometheus.listen
        check_prefix(self.prefix, is_for_graphite=self.graphite.server is not None and not others)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Returns the sources, strongest first: flags, environment, file."""
        return init_settings, env_settings, _FileSource(settings_cls)


file_values: ContextVar[dict[str, Any]] = ContextVar("file_values")


class _FileSource(PydanticBaseSettingsSource):
    """What the configuration file says."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return file_values.get({}).get(field_name), field_name, False

    def __call__(self) -> dict[str, Any]:
        return file_values.get({})
