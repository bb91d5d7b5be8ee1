"""Asks a host all that the doctor wants to know, over one connection, as the collector would."""

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial

from fleetmem.connect.link import Link
from fleetmem.connect.openssh.targets import USUAL_KEY_PATHS, USUAL_KNOWN_HOSTS_PATHS
from fleetmem.connect.reach import Reach
from fleetmem.doctor.hosts import ClockReading, Examination, ReachFlags
from fleetmem.errors import HostError, Kind
from fleetmem.model import Host, Snapshot
from fleetmem.probe import script
from fleetmem.probe.dialogue import Dialogue
from fleetmem.probe.facts import ProbeCpu, parse_cpu, parse_host_facts
from fleetmem.probe.script import FactsKind, ProbeKind, Processes

_DOUBT_SECONDS = 0.6
_SAMPLES = 5
_SAMPLES_SECONDS = 2.0
_STARTED_BY_THEN = 3  # two shells, and the one that reads or an awk


class Examiner:
    """Examines hosts.

    Args:
        make_link: makes the connection to a host.
        access_of: says how a host is reached.
        kind: of the probe, as configured.
        processes: which ones the probe reports, as configured.
        protocol: that the probe is asked to speak, as configured.
    """

    def __init__(
        self,
        make_link: Callable[[Host], Link],
        access_of: Callable[[Host], ReachFlags],
        kind: ProbeKind,
        processes: Processes,
        protocol: int = script.USUAL,
    ) -> None:
        self._make_link = make_link
        self._access_of = access_of
        self._kind = kind
        self._processes = processes
        self._protocol = protocol

    async def examine(self, host: Host) -> Examination:
        """Returns what a host answers. It is disconnected from afterwards."""
        link = self._make_link(host)
        link.is_last_visit = True
        try:
            return await self._examine(Examination(self._access_of(host), self._kind), link)
        finally:
            await link.close()

    async def _examine(self, so_far: Examination, link: Link) -> Examination:
        try:
            so_far = await _ask_facts(so_far, link)
        except HostError as error:
            return replace(so_far, error=error)
        for kind in (self._kind, *(other for other in ProbeKind if other is not self._kind)):
            dialogue = Dialogue(kind, self._processes, self._protocol)
            try:
                so_far = await self._sample(so_far, link, kind, dialogue)
            except HostError as error:
                so_far = replace(so_far, error=so_far.error or error)
            else:
                break
        if so_far.kind:
            with suppress(HostError):  # an old probe, or a host that is gone since: what is known already stays
                so_far = await self._measure(so_far, link, dialogue)
                if so_far.clock and so_far.clock.doubt_seconds > _DOUBT_SECONDS:  # the probe was just being started
                    so_far = await _ask_facts(so_far, link)
        return so_far

    async def _sample(self, so_far: Examination, link: Link, kind: ProbeKind, dialogue: Dialogue) -> Examination:
        snapshot, seconds = await _ask_sample(link, dialogue)
        is_older = kind is ProbeKind.STATUS and dialogue.protocol < self._protocol
        return replace(
            so_far,
            kind=kind,
            has_old_probe=so_far.has_old_probe or is_older,
            memory=snapshot.memory,
            processes=len(snapshot.processes),
            has_anon=any(process.anon_bytes is not None for process in snapshot.processes),
            sample_seconds=seconds,
        )

    async def _measure(self, so_far: Examination, link: Link, dialogue: Dialogue) -> Examination:
        """Takes some samples more, and what they cost: less what it costs to ask for that."""
        first, _ = await _ask_cpu(link)
        before, round_trip_seconds = await _ask_cpu(link)
        asking_seconds = before.seconds - first.seconds
        begun, samples = time.monotonic(), 0
        slowest = so_far.sample_seconds or 0.0
        while samples < _SAMPLES and (not samples or time.monotonic() - begun < _SAMPLES_SECONDS):
            _, seconds = await _ask_sample(link, dialogue)
            slowest = max(slowest, seconds) if samples else seconds  # awk was started for the one before
            samples += 1
        after, again_seconds = await _ask_cpu(link)
        used_seconds = max(0.0, after.seconds - before.seconds - asking_seconds)
        return replace(
            so_far,
            sample_seconds=slowest,
            round_trip_seconds=min(round_trip_seconds, again_seconds),
            cost_seconds=used_seconds / samples if after.processes >= _STARTED_BY_THEN else None,
        )


async def _ask_sample(link: Link, dialogue: Dialogue) -> tuple[Snapshot, float]:
    begun = time.monotonic()
    answer = await link.ask(dialogue.request)
    seconds = time.monotonic() - begun
    return dialogue.parse(answer.frame, answer.asked_unix_seconds), seconds


def access_of(host: Host, reach: Reach, *, runs_by_sudo: bool, protocol: int = script.USUAL) -> ReachFlags:
    """Returns how a host is reached, as far as commands for people need it."""
    target = reach.target(host)
    key_paths, known_hosts = target.access.identities.paths, target.access.trust.paths
    return ReachFlags(
        name=host.name,
        address=target.address,
        port=target.port,
        user=target.user,
        key_path=next(
            (path for path in key_paths if path.is_file()),
            key_paths[0] if key_paths else USUAL_KEY_PATHS[0].expanduser(),
        ),
        known_hosts_path=known_hosts[0] if known_hosts else USUAL_KNOWN_HOSTS_PATHS[0].expanduser(),
        known_hosts_entry=target.known_as,
        jump=",".join(map(str, target.jumps)),
        runs_by_sudo=runs_by_sudo,
        proxy_command=target.proxy_command or "",
        protocol=protocol,
    )


async def _ask_facts(so_far: Examination, link: Link) -> Examination:
    """Connects where that is to be done, and asks what the host tells of itself.

    Raises:
        HostError: it cannot be asked anything.
    """
    answer = await link.ask(partial(script.facts_request, kind=FactsKind.HOST))
    answered_unix_seconds = time.time()
    try:
        facts = parse_host_facts(answer.frame)
    except HostError as error:
        if error.kind is not Kind.COMMAND_FAILED:
            raise
        return replace(so_far, has_old_probe=True)
    if facts.unix_seconds is None:
        return replace(so_far, facts=facts)
    clock = ClockReading(facts.unix_seconds, answer.asked_unix_seconds, answered_unix_seconds)
    return replace(so_far, facts=facts, clock=clock)


async def _ask_cpu(link: Link) -> tuple[ProbeCpu, float]:
    begun = time.monotonic()
    answer = await link.ask(partial(script.facts_request, kind=FactsKind.COST))
    seconds = time.monotonic() - begun
    return parse_cpu(answer.frame), seconds
