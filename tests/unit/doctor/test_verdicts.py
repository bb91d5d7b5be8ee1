"""What the answers of StatsD, carbon and Graphite mean."""

from dataclasses import replace

import pytest

from fleetmem.doctor.findings import Check, Finding, Severity
from fleetmem.doctor.management import StatsdConfig
from fleetmem.doctor.verdicts import (
    CarbonAnswer,
    Creations,
    PipelineAnswers,
    Sighting,
    StatsdAnswer,
    judge_pipeline,
)
from fleetmem.sinks.series import Retire

CONFIG = StatsdConfig(10.0, True, 3, "stats.gauges.", "", "graphite:2003")
SIGHTING = Sighting("stats.gauges.p.doctor.ops1.statsd", 10)
SERVER = StatsdAnswer(
    address="statsd:8125",
    management="statsd:8126",
    config=CONFIG,
    has_canary=True,
    sighting=SIGHTING,
    waited_seconds=11,
)
WATCHED = StatsdAnswer("statsd:8125", sighting=replace(SIGHTING, flush_seconds=10, repeats=False), waited_seconds=30)
WELL = PipelineAnswers(
    interval_seconds=10,
    retire=Retire.NONE,
    statsd=(SERVER,),
    web="http://graphite",
    creations=Creations(asked=64, made=64, names="p.doctor.ops1.new_1.*"),
)
ALWAYS = {Check.GRAPHITE_AGGREGATION}
"""Noted whenever something is read back: it cannot be seen."""


def faults(answers: PipelineAnswers, series: int = 0) -> list[Finding]:
    """Returns what is not well, but for what is always noted."""
    findings = judge_pipeline(answers, series)
    bad = [finding for finding in findings if finding.severity is not Severity.OK and finding.check not in ALWAYS]
    assert all(finding.why and finding.mend for finding in bad)
    return bad


def the_fault(answers: PipelineAnswers, series: int = 0) -> Finding:
    """Returns the one that there is."""
    (found,) = faults(answers, series)
    return found


def with_server(**changes: object) -> PipelineAnswers:
    """Returns the answers of a pipeline with another StatsD."""
    return replace(WELL, statsd=(replace(SERVER, **changes),))  # type: ignore[arg-type]


def with_config(**changes: object) -> PipelineAnswers:
    """Returns the answers of a pipeline whose StatsD is configured otherwise."""
    return with_server(config=replace(CONFIG, **changes))  # type: ignore[arg-type]


def test_a_pipeline_that_is_well() -> None:
    """Asked or watched, nothing is to be mended."""
    assert not faults(WELL)
    assert not faults(replace(WELL, statsd=(WATCHED,)))
    assert not faults(replace(WELL, statsd=(), carbon=CarbonAnswer("carbon:2003", sighting=SIGHTING)))


def test_nothing_to_send_to() -> None:
    """Then there is nothing to tell."""
    assert not judge_pipeline(PipelineAnswers(10, Retire.ZERO), 0)


def test_without_graphite_to_ask() -> None:
    """That is noted, and where StatsD cannot be asked either, that nobody knows whether anything arrives."""
    asked = replace(WELL, web="", statsd=(replace(SERVER, sighting=None),), creations=Creations())
    assert [(fault.check, fault.severity) for fault in faults(asked)] == [(Check.GRAPHITE_WEB, Severity.NOTE)]
    unknown = replace(asked, statsd=(StatsdAnswer("statsd:8125"),))
    assert [(fault.check, fault.severity) for fault in faults(unknown)] == [
        (Check.STATSD_CANARY, Severity.NOTE),
        (Check.GRAPHITE_WEB, Severity.NOTE),
    ]


def test_a_statsd_that_refuses() -> None:
    """Nothing that depends on it is told."""
    fault = the_fault(with_server(error="connection refused", config=None, has_canary=None, sighting=None))
    assert (fault.check, fault.severity, fault.what) == (Check.STATSD_SERVER, Severity.PROBLEM, "connection refused")


def test_a_management_port_that_does_not_answer() -> None:
    """A note: other servers have none."""
    answers = replace(WELL, statsd=(replace(WATCHED, management="statsd:8126", management_error="refused"),))
    fault = the_fault(answers)
    assert (fault.check, fault.severity) == (Check.STATSD_MANAGEMENT, Severity.NOTE)


def test_a_canary_that_statsd_does_not_have() -> None:
    """It was lost on the way."""
    fault = the_fault(with_server(has_canary=False))
    assert (fault.check, fault.severity) == (Check.STATSD_CANARY, Severity.PROBLEM)


@pytest.mark.parametrize(
    ("config", "mend"),
    [
        (CONFIG, "nc -vz graphite 2003   # on StatsD's machine"),
        (replace(CONFIG, carbon=""), 'backends: ["./backends/graphite"], graphiteHost: "CARBON"   # in StatsD'),
        (None, "tail -f /opt/graphite/storage/log/carbon-cache/"),
    ],
)
def test_a_canary_that_graphite_does_not_have(config: StatsdConfig | None, mend: str) -> None:
    """Where to look depends on where StatsD says that it sends to."""
    answers = with_server(config=config, sighting=None, waited_seconds=30, management="")
    (fault,) = [fault for fault in faults(answers) if fault.check is Check.GRAPHITE_CANARY]
    assert fault.severity is Severity.PROBLEM
    assert "waited for 30 s" in fault.why
    assert fault.mend.startswith(mend)


def test_a_canary_that_carbon_dropped() -> None:
    """What carbon says itself is a hint."""
    answers = replace(with_server(sighting=None), creations=Creations(dropped=7))
    (fault,) = [fault for fault in faults(answers) if fault.check is Check.GRAPHITE_CANARY]
    assert "dropped 7 points of new series" in fault.why


# --- intervals -------------------------------------------------------------------------------------------------------


def test_an_interval_shorter_than_the_flush() -> None:
    """What is lost is told as a share."""
    answers = replace(WELL, interval_seconds=2)
    fault = the_fault(answers)
    assert (fault.check, fault.severity) == (Check.STATSD_FLUSH, Severity.WARNING)
    assert fault.what == "flushes every 10 s, hosts are sampled every 2 s"
    assert "80% of them" in fault.why
    assert fault.mend == "--interval 10   # or flushInterval: 2000 in StatsD's configuration"


def test_an_interval_that_was_only_watched_may_be_a_little_off() -> None:
    """Read from a configuration it may not; and from Graphite, flush and step look the same."""
    near = replace(WATCHED, sighting=replace(SIGHTING, flush_seconds=10.9, repeats=False))
    assert not faults(replace(WELL, statsd=(near,)))
    far = replace(WATCHED, sighting=replace(SIGHTING, flush_seconds=30.0, step_seconds=30, repeats=False))
    assert the_fault(replace(WELL, statsd=(far,))).what.startswith("flushes, or Graphite stores, every 30 s")
    assert faults(with_config(flush_seconds=10.5))


def test_gauges_that_are_deleted_before_the_next_sample() -> None:
    """Sampled once a minute, three flushes are too few; the mend is enough."""
    fault = the_fault(replace(WELL, interval_seconds=60))
    assert (fault.check, fault.severity) == (Check.STATSD_FLUSH, Severity.WARNING)
    assert fault.mend.startswith("gaugesMaxTTL: 7 ")
    assert not faults(replace(with_config(gauges_max_ttl=7), interval_seconds=60))


@pytest.mark.parametrize(("step", "why"), [(60, "only the last one is stored"), (5, "is a gap in graphs")])
def test_a_step_that_does_not_fit(step: int, why: str) -> None:
    """Longer than what comes, or shorter."""
    fault = the_fault(with_server(sighting=replace(SIGHTING, step_seconds=step)))
    assert (fault.check, fault.severity, fault.value) == (Check.GRAPHITE_RETENTION, Severity.WARNING, step)
    assert why in fault.why
    assert fault.mend.startswith("retentions = 10s:")


def test_a_step_against_samples_that_go_to_carbon() -> None:
    """Without StatsD in between, the interval is what counts."""
    carbon = replace(WELL, statsd=(), carbon=CarbonAnswer("carbon:2003", sighting=SIGHTING), interval_seconds=60)
    assert the_fault(carbon).what == "the finest step is 10 s, points come every 60 s"


def test_a_step_that_nobody_knows() -> None:
    """Is not told."""
    answers = with_server(sighting=replace(SIGHTING, step_seconds=None))
    assert Check.GRAPHITE_RETENTION not in {finding.check for finding in judge_pipeline(answers, 0)}


# --- gauges that stick -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retire", "severity"), [(Retire.ZERO, Severity.WARNING), (Retire.NONE, Severity.PROBLEM)])
def test_sticky_gauges(retire: Retire, severity: Severity) -> None:
    """With a final 0 they are a nuisance, without they lie."""
    for server in (
        replace(SERVER, config=replace(CONFIG, deletes_gauges=False)),
        replace(WATCHED, sighting=replace(SIGHTING, flush_seconds=10, repeats=True)),
    ):
        fault = the_fault(replace(WELL, statsd=(server,), retire=retire))
        assert (fault.check, fault.severity) == (Check.STATSD_STICKY, severity)


def test_a_final_zero_that_is_not_needed() -> None:
    """And a gauge that is deleted at once: both are notes."""
    fault = the_fault(replace(WELL, retire=Retire.ZERO))
    assert (fault.severity, fault.what) == (Severity.NOTE, "the final 0 of a process is not needed")
    fault = the_fault(with_config(gauges_max_ttl=1))
    assert (fault.severity, fault.what) == (Severity.NOTE, "gauges are deleted after one flush")


def test_what_nobody_waited_for() -> None:
    """Whether gauges stick is not told then."""
    server = replace(WATCHED, sighting=SIGHTING)
    checks = {finding.check for finding in judge_pipeline(replace(WELL, statsd=(server,)), 0)}
    assert not checks & {Check.STATSD_STICKY, Check.STATSD_FLUSH}


# --- carbon, Graphite, new files -------------------------------------------------------------------------------------


def test_carbon_that_refuses() -> None:
    """A broken pipeline, whatever StatsD does."""
    fault = the_fault(replace(WELL, carbon=CarbonAnswer("carbon:2003", error="connection refused")))
    assert (fault.check, fault.severity) == (Check.CARBON_SERVER, Severity.PROBLEM)


def test_a_graphite_that_does_not_answer() -> None:
    """One problem, not one for each thing that was to be read back."""
    answers = replace(with_server(sighting=None, waited_seconds=0), web_error="refused", creations=Creations())
    assert the_fault(answers).check is Check.GRAPHITE_WEB


def test_a_creation_limit() -> None:
    """How long the fleet takes at that pace is told."""
    fault = the_fault(replace(WELL, creations=Creations(64, 50, names="p.new_1.*")), series=22_500)
    assert (fault.check, fault.severity, fault.value) == (Check.GRAPHITE_CREATIONS, Severity.WARNING, 50)
    assert "the 22500 of this fleet take 450 minutes" in fault.why
    assert fault.mend.startswith("sed -i 's/^MAX_CREATES_PER_MINUTE.*/MAX_CREATES_PER_MINUTE = inf/' ")
    assert the_fault(replace(WELL, creations=Creations(64, 0, names="p.new_1.*"))).value == 0


@pytest.mark.parametrize(
    ("creations", "is_well"),
    [
        (Creations(dropped=3), False),
        (Creations(64, 64, is_earlier=True, dropped=3), False),
        (Creations(64, 64, dropped=3), True),
        (Creations(64, 64, is_earlier=True, dropped=0), True),
        (Creations(dropped=0), True),
        (Creations(), True),
    ],
)
def test_carbons_own_count_of_what_it_dropped(creations: Creations, is_well: bool) -> None:
    """It counts unless new series were made just now: then the limit has been raised since."""
    assert (not faults(replace(WELL, creations=creations))) is is_well


def test_new_series_that_were_not_sent_are_not_told() -> None:
    """Nothing is known then."""
    checks = {finding.check for finding in judge_pipeline(replace(WELL, creations=Creations()), 0)}
    assert Check.GRAPHITE_CREATIONS not in checks
