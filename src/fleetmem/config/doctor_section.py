"""`[doctor]`: what `fleetmem doctor` asks."""

from pydantic import (
    Field,
    field_validator,
)

from fleetmem.config.fields import Section
from fleetmem.config.network import split_address

_MANAGEMENT_PORT = 8126


class Doctor(Section):
    """For `fleetmem doctor`."""

    graphite_url: str | None = Field(default=None, examples=["http://graphite.example.com"])
    """graphite-web, where what was sent is read back; http://USER:PASSWORD@HOST where it asks for one"""
    statsd_management: str = str(_MANAGEMENT_PORT)
    """Node StatsD's management port: PORT of each StatsD server, or HOST:PORT; none asks none"""
    wait_seconds: float = Field(default=30.0, gt=0)
    """for a canary to arrive in Graphite; three intervals where those are longer"""
    new_series: int = Field(default=64, ge=0, le=1000)
    """sent at once to see how many files carbon makes, until all are made; each stays as a file. 0 sends none"""

    @field_validator("graphite_url")
    @classmethod
    def _check_graphite_url(cls, value: str | None) -> str | None:
        if value is not None:
            from fleetmem.sinks.graphite_web import (
                GraphiteWeb,  # here: Python's HTTP is a good part of a start without it
            )

            GraphiteWeb(value)
        return value

    @field_validator("statsd_management", mode="before")
    @classmethod
    def _check_statsd_management(cls, value: object) -> str:
        text = str(value)
        try:
            _management_address(text, "localhost")
        except ValueError as error:
            raise ValueError(f"{text!r} is not PORT, HOST:PORT or none") from error
        return text

    def management(self, statsd_host: str) -> tuple[str, int] | None:
        """Returns the management port of a StatsD server, None where it is not to be asked."""
        return _management_address(self.statsd_management, statsd_host)


def _management_address(text: str, statsd_host: str) -> tuple[str, int] | None:
    if text == "none":
        return None
    if text.isdigit():
        return statsd_host, split_address(f"x:{text}", 0)[1]
    return split_address(text, _MANAGEMENT_PORT)
