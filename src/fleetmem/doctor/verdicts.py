"""What the answers of StatsD, carbon and Graphite mean. Pure."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.doctor.management import StatsdConfig
from fleetmem.sinks.series import Retire

_TOLERANCE = 1.25
"""By so much an interval that was observed, not read, may differ from another and still be the same."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A canary in Graphite.

    Attributes:
        name: as it is there.
        step_seconds: of the finest archive, None where too little is there to tell.
        flush_seconds: between two values that differ, None where there were no two.
        repeats: whether the last one went on after it was no longer sent; None where nobody waited for that.
    """

    name: str
    step_seconds: int | None
    flush_seconds: float | None = None
    repeats: bool | None = None


@dataclass(frozen=True, slots=True)
class StatsdAnswer:
    """What came of a StatsD server.

    Attributes:
        address: of the server.
        error: why it does not take the canary, empty where it does, as far as that is known.
        management: of its management port, empty where it is not to be asked.
        management_error: why that does not answer.
        config: what it is configured to do, None where unknown.
        has_canary: whether it has it, None where unknown.
        sighting: of the canary in Graphite, None where there is none.
        waited_seconds: for it, 0 where there is no Graphite to ask.
    """

    address: str
    error: str = ""
    management: str = ""
    management_error: str = ""
    config: StatsdConfig | None = None
    has_canary: bool | None = None
    sighting: Sighting | None = None
    waited_seconds: float = 0.0

    @property
    def flush_seconds(self) -> float | None:
        """As configured, or as seen."""
        return self.config.flush_seconds if self.config else self.sighting.flush_seconds if self.sighting else None

    @property
    def repeats(self) -> bool | None:
        """Whether it repeats gauges that are sent no more, as configured, or as seen."""
        if self.config:
            return not self.config.deletes_gauges
        return self.sighting.repeats if self.sighting else None


@dataclass(frozen=True, slots=True)
class CarbonAnswer:
    """What came of carbon: attributes as those of StatsD."""

    address: str
    error: str = ""
    sighting: Sighting | None = None
    waited_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Creations:
    """How carbon makes files for new series.

    Attributes:
        asked: how many new series were sent at once, now or when that was tried last; 0 for never.
        made: of these.
        is_earlier: whether that was tried earlier.
        dropped: points that carbon says it dropped for their series being new, in the last ten minutes; None where it
            says nothing.
        names: of the series, as a pattern.
    """

    asked: int = 0
    made: int = 0
    is_earlier: bool = False
    dropped: int | None = None
    names: str = ""


@dataclass(frozen=True, slots=True)
class PipelineAnswers:
    """What came of all of it.

    Attributes:
        interval_seconds: between two samples, as configured.
        retire: what StatsD is sent when a process is gone.
        web: address of Graphite's web API, empty where it is not known.
        web_error: why it does not answer.
    """

    interval_seconds: float
    retire: Retire
    statsd: tuple[StatsdAnswer, ...] = ()
    carbon: CarbonAnswer | None = None
    web: str = ""
    web_error: str = ""
    creations: Creations = field(default_factory=Creations)


def judge_pipeline(answers: PipelineAnswers, series: int) -> list[Finding]:
    """Returns the findings about the pipeline.

    Args:
        answers: what came of it.
        series: that the fleet begins with, about; 0 where unknown.
    """
    return [finding for part in _parts(answers, series) for finding in part]


def _parts(answers: PipelineAnswers, series: int) -> Iterator[Iterator[Finding]]:
    for server in answers.statsd:
        yield _judge_statsd(server, answers)
    if answers.carbon:
        yield _judge_carbon(answers.carbon, answers)
    if answers.statsd or answers.carbon:
        yield _judge_web(answers)
    if answers.web and not answers.web_error:
        yield _judge_retention(answers)
        yield _judge_creations(answers, series)


# --- StatsD ----------------------------------------------------------------------------------------------------------


def _judge_statsd(server: StatsdAnswer, answers: PipelineAnswers) -> Iterator[Finding]:
    if server.error:
        yield Finding(
            Check.STATSD_SERVER,
            Severity.PROBLEM,
            server.address,
            server.error,
            "nothing of what is collected arrives, and UDP keeps nothing for later",
            "-g HOST:PORT   # where StatsD listens: `ss -lunp` on its machine shows that; or start it there",
        )
        return
    yield Finding(Check.STATSD_SERVER, Severity.OK, server.address, "takes the canary, or at least refuses nothing")
    yield from _judge_management(server)
    yield from _judge_canary_in_statsd(server, answers)
    yield from _judge_sighting(server, answers, server.config)
    yield from _judge_flush(server, answers.interval_seconds)
    yield from _judge_sticky(server, answers)


def _judge_management(server: StatsdAnswer) -> Iterator[Finding]:
    if not server.management:
        return
    if server.config:
        yield Finding(Check.STATSD_MANAGEMENT, Severity.OK, server.address, "the management port answers")
        return
    yield Finding(
        Check.STATSD_MANAGEMENT,
        Severity.NOTE,
        server.address,
        f"no management port: {server.management_error}",
        "only Node's StatsD has one; without it the doctor watches Graphite for what StatsD does, which takes longer",
        "FLEETMEM_DOCTOR__STATSD_MANAGEMENT=HOST:PORT   # mgmt_port in StatsD's configuration; none asks no more",
    )


def _judge_canary_in_statsd(server: StatsdAnswer, answers: PipelineAnswers) -> Iterator[Finding]:
    if server.has_canary:
        yield Finding(Check.STATSD_CANARY, Severity.OK, server.address, "the canary was read back from StatsD")
    elif server.has_canary is False:
        yield Finding(
            Check.STATSD_CANARY,
            Severity.PROBLEM,
            server.address,
            "the canary was sent, and StatsD does not have it",
            "datagrams are lost on the way, or another StatsD answers at the management port",
            "ss -lunp | grep 8125; nstat -az UdpRcvbufErrors   # on StatsD's machine: who listens, what is dropped",
        )
    elif not answers.web:
        yield Finding(
            Check.STATSD_CANARY,
            Severity.NOTE,
            server.address,
            "nobody can say whether the canary arrived",
            "UDP is not acknowledged: a StatsD that is away without a word looks like one that works",
            "fleetmem doctor --graphite-url http://GRAPHITE_WEB ...",
        )


def _judge_flush(server: StatsdAnswer, interval_seconds: float) -> Iterator[Finding]:
    flush_seconds = server.flush_seconds
    if flush_seconds is None:
        return
    tolerance = 1.0 if server.config else _TOLERANCE
    who = "flushes" if server.config else "flushes, or Graphite stores,"  # from there both look the same
    finding = Finding(
        Check.STATSD_FLUSH,
        Severity.WARNING,
        server.address,
        f"{who} every {flush_seconds:.3g} s, hosts are sampled every {interval_seconds:g} s",
        "of the samples between two flushes only the last one is stored: "
        f"{1 - interval_seconds / flush_seconds:.0%} of them are taken for nothing",
        f"--interval {flush_seconds:.3g}   # or flushInterval: {interval_seconds * 1000:g} in StatsD's configuration",
        round(flush_seconds, 2),
        "s",
    )
    if interval_seconds * tolerance < flush_seconds:
        yield finding
    elif _has_gaps(server, interval_seconds, flush_seconds):
        flushes = math.ceil(interval_seconds / flush_seconds) + 1
        yield Finding(
            Check.STATSD_FLUSH,
            Severity.WARNING,
            server.address,
            finding.what,
            "gauges are deleted before the next sample comes: graphs have gaps",
            f"gaugesMaxTTL: {flushes}   # in StatsD's configuration; or --interval {flush_seconds:.3g}",
            finding.value,
            "s",
        )
    else:
        what = f"the flush interval of {flush_seconds:.3g} s fits the interval of {interval_seconds:g} s"
        yield Finding(Check.STATSD_FLUSH, Severity.OK, server.address, what, value=finding.value, unit="s")


def _has_gaps(server: StatsdAnswer, interval_seconds: float, flush_seconds: float) -> bool:
    if not server.config or not server.config.deletes_gauges:
        return False
    return server.config.gauges_max_ttl * flush_seconds < interval_seconds


def _judge_sticky(server: StatsdAnswer, answers: PipelineAnswers) -> Iterator[Finding]:
    if server.repeats:
        is_ended = answers.retire is Retire.ZERO
        last = "the final 0 of" if is_ended else "the last value of"
        yield Finding(
            Check.STATSD_STICKY,
            Severity.WARNING if is_ended else Severity.PROBLEM,
            server.address,
            "repeats gauges that are sent no more",
            f"{last} each process that is gone is stored in every flush, until StatsD is started again"
            + ("" if is_ended else ": graphs show memory that nobody uses"),
            'deleteGauges: true, gaugesMaxTTL: 3   # in StatsD\'s configuration, and [statsd] retire = "none" here',
        )
    elif server.repeats is False:
        yield Finding(Check.STATSD_STICKY, Severity.OK, server.address, "forgets gauges that are sent no more")
        yield from _judge_ends(server, answers)


def _judge_ends(server: StatsdAnswer, answers: PipelineAnswers) -> Iterator[Finding]:
    if answers.retire is Retire.ZERO:
        yield Finding(
            Check.STATSD_STICKY,
            Severity.NOTE,
            server.address,
            "the final 0 of a process is not needed",
            "StatsD forgets it anyway; with the 0 its graph falls to the ground where it could end",
            'FLEETMEM_STATSD__RETIRE=none   # or in the configuration: [statsd] retire = "none"',
        )
    if server.config and server.config.gauges_max_ttl < 2:
        yield Finding(
            Check.STATSD_STICKY,
            Severity.NOTE,
            server.address,
            "gauges are deleted after one flush",
            "a sample that comes a moment late leaves a gap",
            "gaugesMaxTTL: 3   # in StatsD's configuration",
        )


# --- carbon and Graphite ---------------------------------------------------------------------------------------------


def _judge_carbon(carbon: CarbonAnswer, answers: PipelineAnswers) -> Iterator[Finding]:
    if carbon.error:
        yield Finding(
            Check.CARBON_SERVER,
            Severity.PROBLEM,
            carbon.address,
            carbon.error,
            "`run` keeps points on disk until carbon takes them, `collect` loses them",
            "--graphite HOST:PORT   # where carbon listens: `ss -ltnp` on its machine shows that; or start it there",
        )
        return
    yield Finding(Check.CARBON_SERVER, Severity.OK, carbon.address, "takes the canary")
    yield from _judge_sighting(carbon, answers, None)


def _judge_sighting(
    sender: StatsdAnswer | CarbonAnswer, answers: PipelineAnswers, config: StatsdConfig | None
) -> Iterator[Finding]:
    """Judges whether a canary came as far as Graphite."""
    if not answers.web or answers.web_error or sender.error:
        return
    if sender.sighting:
        what = "the canary was read back from Graphite"
        yield Finding(Check.GRAPHITE_CANARY, Severity.OK, sender.address, what)
        return
    mend = "tail -f /opt/graphite/storage/log/carbon-cache/*/*.log   # on Graphite's machine: what does carbon say?"
    if config and not config.carbon:
        mend = 'backends: ["./backends/graphite"], graphiteHost: "CARBON"   # in StatsD\'s configuration'
    elif config:
        mend = f"nc -vz {config.carbon.replace(':', ' ')}   # on StatsD's machine: that is where it flushes to"
    dropped = answers.creations.dropped
    yield Finding(
        Check.GRAPHITE_CANARY,
        Severity.PROBLEM,
        sender.address,
        "the canary was sent, and is not in Graphite",
        f"it was waited for {sender.waited_seconds:.0f} s; what is collected ends up nowhere, or elsewhere"
        + (
            f". Carbon has just dropped {dropped} points of new series: its limit of new files, perhaps"
            if dropped
            else ""
        ),
        mend,
    )


def _judge_web(answers: PipelineAnswers) -> Iterator[Finding]:
    if not answers.web:
        yield Finding(
            Check.GRAPHITE_WEB,
            Severity.NOTE,
            "Graphite",
            "what arrives in Graphite was not looked at",
            "the way to it, its retention and its limit of new files are seen by reading back only",
            "fleetmem doctor --graphite-url http://GRAPHITE_WEB ...   # or [doctor] graphite_url in the configuration",
        )
    elif answers.web_error:
        yield Finding(
            Check.GRAPHITE_WEB,
            Severity.PROBLEM,
            answers.web,
            answers.web_error,
            "nobody sees graphs, and the doctor cannot read the canary back",
            "--graphite-url http://HOST:PORT   # where graphite-web listens; or start it there",
        )
    else:
        yield Finding(Check.GRAPHITE_WEB, Severity.OK, answers.web, "answers queries")


def _judge_retention(answers: PipelineAnswers) -> Iterator[Finding]:
    for sender in (*answers.statsd, answers.carbon):
        if sender and sender.sighting and sender.sighting.step_seconds:
            flush_seconds = sender.flush_seconds if isinstance(sender, StatsdAnswer) else None
            every_seconds = flush_seconds or answers.interval_seconds  # StatsD sends what it has in each flush
            yield _judge_step(answers.web, sender.sighting.step_seconds, every_seconds)
            yield Finding(
                Check.GRAPHITE_AGGREGATION,
                Severity.NOTE,
                answers.web,
                "how points are aggregated cannot be seen from here",
                "the usual average hides the peak of a leak, the usual xFilesFactor drops processes that lived shortly",
                f"whisper-info.py /opt/graphite/storage/whisper/{sender.sighting.name.replace('.', '/')}.wsp"
                "   # on Graphite's machine: aggregationMethod should be max, xFilesFactor 0; docs/how-to/graphite.md",
            )
            return


def _judge_step(web: str, step_seconds: int, every_seconds: float) -> Finding:
    if step_seconds / _TOLERANCE <= every_seconds <= step_seconds * _TOLERANCE:
        what = f"the finest step of {step_seconds} s fits points that come every {every_seconds:.3g} s"
        return Finding(Check.GRAPHITE_RETENTION, Severity.OK, web, what, value=step_seconds, unit="s")
    return Finding(
        Check.GRAPHITE_RETENTION,
        Severity.WARNING,
        web,
        f"the finest step is {step_seconds} s, points come every {every_seconds:.3g} s",
        "of all points in a step only the last one is stored"
        if every_seconds < step_seconds
        else "each step without a point is a gap in graphs",
        f"retentions = {every_seconds:.3g}s:6h,60s:7d,10m:1y   # for fleetmem in storage-schemas.conf, and "
        f"whisper-resize.py for files that are there; or --interval {step_seconds}, and StatsD's flushInterval too",
        step_seconds,
        "s",
    )


def _judge_creations(answers: PipelineAnswers, series: int) -> Iterator[Finding]:
    about = answers.creations
    mend = (
        "sed -i 's/^MAX_CREATES_PER_MINUTE.*/MAX_CREATES_PER_MINUTE = inf/' /opt/graphite/conf/carbon.conf"
        "   # on carbon's machine, then restart carbon-cache"
    )
    if about.made < about.asked:
        minutes = series / max(about.made, 1)
        fleet = f"; at {about.made} a minute the {series} of this fleet take {minutes:.0f} minutes" if series else ""
        yield Finding(
            Check.GRAPHITE_CREATIONS,
            Severity.WARNING,
            answers.web,
            f"carbon made files for {about.made} of {about.asked} new series",
            f"points of the others are dropped without an error until their turn comes{fleet}. "
            f"({about.names} are the doctor's)",
            mend,
            about.made,
            "series at once",
        )
    elif about.dropped and (about.is_earlier or not about.asked):
        yield Finding(
            Check.GRAPHITE_CREATIONS,
            Severity.WARNING,
            answers.web,
            "carbon drops points of new series",
            "MAX_CREATES_PER_MINUTE is reached: carbon.agents.*.droppedCreates counted them in the last ten minutes",
            mend,
            about.dropped,
            "points",
        )
    elif about.asked:
        when = "when that was tried last" if about.is_earlier else f"as {about.names}, which stay"
        what = f"carbon makes files for {about.asked} new series at once, {when}"
        yield Finding(Check.GRAPHITE_CREATIONS, Severity.OK, answers.web, what)
