"""Which keys are offered to which host, and in which order."""

import copy
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

from fleetmem.connect.agent import Agent, AgentError, AgentKey, Signing, public_keys
from fleetmem.connect.backoff import NotTriedError, OwnError
from fleetmem.connect.host_words import HostWords
from fleetmem.connect.keys import AskPassphrase, BrokenKey, CertificateFile, KeyFile, beside, open_mode
from fleetmem.connect.openssh.algorithms import import_certificate, rsa_bits
from fleetmem.connect.ssh import asyncssh
from fleetmem.connect.target import Identities, KeyOrigin, Target
from fleetmem.errors import Cause, HostError, Kind, Stage, UsageError

log = logging.getLogger(__name__)

_ENDED_MEANWHILE = (Kind.LOGIN_TIMEOUT, Kind.DISCONNECTED)
_NAMED = (KeyOrigin.TOLD, KeyOrigin.INVENTORY)
_LOOK_SECONDS = 2.0  # what there is to offer is not looked at more often for hosts that wait
_AGENT_SECONDS = 10.0  # while files are read, what the agent has is not asked for again
_MOST_OFFERS = 6
"""sshd hangs up after so many refused keys (sshd_config(5), MaxAuthTries)."""


class Candidate(NamedTuple):
    """A key that may be offered, and what it is called."""

    key: asyncssh.SSHKeyPair
    name: str


class Offer:
    """The keys that one login offers, one after the other, those first that are likely to be taken.

    Args:
        target: who is logged in to.
        candidates: the keys.
        experience: of other logins; it grows meanwhile.
        away: why the agent's keys are not among them, where there is an agent.
        problems: why the keys of files are not.

    Attributes:
        offered: the keys that have been offered.
        signing: what the agent does for this login.
    """

    def __init__(
        self,
        target: Target,
        candidates: list[Candidate],
        experience: "Experience",
        away: AgentError | None = None,
        problems: Sequence[str] = (),
    ) -> None:
        self.offered: list[Candidate] = []
        self.signing = Signing()
        self._away = away
        self._problems = problems
        self._server = target.server
        self._user = target.user
        self._left = candidates
        self._experience = experience
        self._is_accepted = False
        self._is_over = False

    @property
    def left(self) -> tuple[Candidate, ...]:
        """The keys that have not been offered."""
        return tuple(self._left)

    @property
    def taken(self) -> Candidate | None:
        """The key that let us in, once something has; None where that was no key."""
        return self.offered[-1] if self.offered and not self._is_over else None

    @property
    def is_likely(self) -> bool:
        """Whether the host will take the key that was offered last, as far as other logins can tell."""
        return self._experience.is_likely(self._server, self.offered[-1].key.public_data)

    @property
    def signs_unasked(self) -> bool:
        """Whether the key that was offered last may sign before the host has asked for it.

        A token has to be touched for it, and an agent may ask its owner: not for a host that refuses that key.
        """
        key = self.offered[-1].key
        return b"sk-" not in key.algorithm and (key.get_key_type() == "local" or self.is_likely)

    def blame_agent(self, error: HostError, limit_seconds: float) -> HostError | None:
        """Returns the agent's failure behind that of a login, which is not the host's then; None where there is none.

        Args:
            error: how the login ended.
            limit_seconds: of the login; of less than half of it nobody can say that the agent took it.
        """
        problem = self.signing.overdue(limit_seconds) if error.kind in _ENDED_MEANWHILE else None
        if error.kind is Kind.AUTH_FAILED:
            # An agent that was never there has nothing to show: it matters only where there is no other key.
            is_meant = self._away and not (self._away.is_absent and self.offered)
            problem = self.signing.problem or (self._away if is_meant else None)
        if not problem:
            return None
        message = str(problem)
        if self.offered and not self.signing.problem and error.kind is Kind.AUTH_FAILED:
            message += f"; {self._refusal()}"
        return OwnError(Stage.LOGIN, Kind.AGENT_UNAVAILABLE, message)

    def next(self) -> asyncssh.SSHKeyPair | None:
        """Returns the next key; None when there is none, or sshd would take no more."""
        if self.offered and not self._is_accepted and not self.signing.problem:
            self._experience.note_refused(self.offered[-1].key.public_data)
        self._is_accepted = False
        if not self._left or len(self.offered) == _MOST_OFFERS:
            self._is_over = True
            return None
        best = min(self._left, key=lambda each: self._experience.rank(self._server, each.key.public_data))
        self._left.remove(best)
        self.offered.append(best)
        key = copy.copy(best.key)  # a login notes in it which signature its host wants
        if isinstance(key, AgentKey):
            key.signing = self.signing
        return key

    def note_accepted(self) -> list[str]:
        """Takes it that the host accepted the last key and wants more; returns the key's name, if there is a key."""
        self._is_accepted = True
        return [] if self._is_over else [candidate.name for candidate in self.offered[-1:]]

    def refused(self, words: HostWords) -> HostError:
        """Returns the failure of a login that the host let nobody in with, and what there is evidence for."""
        listed = words.refusal(self._user, [candidate.name for candidate in self.offered])
        if listed:
            return HostError(Stage.LOGIN, Kind.AUTH_FAILED, *listed)
        if not self.offered:
            why = "; ".join(self._problems) or "no -k, none in an agent, none in ~/.ssh"
            message = f"{self._user} has no key to log in with: {why}"
            return OwnError(Stage.LOGIN, Kind.AUTH_FAILED, message, Cause.NO_KEY)
        return HostError(Stage.LOGIN, Kind.AUTH_FAILED, self._refusal())

    def _refusal(self) -> str:
        names = ", ".join(candidate.name for candidate in self.offered)
        rest = f"; {len(self._left)} more were not tried: sshd hangs up after {_MOST_OFFERS}" if self._left else ""
        problems = "".join(f"; {problem}" for problem in self._problems)
        return f"{self._user} is refused with {names}{rest}{problems}"


class Experience:
    """Which keys hosts have taken and refused so far."""

    def __init__(self) -> None:
        self._taken: dict[tuple[str, str, int], bytes] = {}
        self._taken_total: Counter[bytes] = Counter()
        self._refused_total: Counter[bytes] = Counter()

    def rank(self, server: tuple[str, str, int], public_data: bytes) -> tuple[bool, int]:
        """Returns where a key belongs: the one first that the host took before, then those that most others took."""
        return public_data != self._taken.get(server), -self._taken_total[public_data]

    def is_likely(self, server: tuple[str, str, int], public_data: bytes) -> bool:
        """Whether a host took a key before; or ten times as many have taken it as have refused it."""
        is_usual = self._taken_total[public_data] > 10 * self._refused_total[public_data]
        return is_usual or self._taken.get(server) == public_data

    def note_taken(self, server: tuple[str, str, int], public_data: bytes) -> None:
        """Remembers that a host has taken a key."""
        if self._taken.get(server) != public_data:
            self._taken[server] = public_data
            self._taken_total[public_data] += 1

    def note_refused(self, public_data: bytes) -> None:
        """Remembers that a host has refused a key."""
        self._refused_total[public_data] += 1


class KeyRing:
    """The keys of a fleet: files are read, and passphrases asked for, once.

    Args:
        ask_passphrase: asks a person for the passphrase of a key.
        previous: a ring that this one takes the place of. Its keys are taken over, so that nobody is asked again.
    """

    def __init__(self, ask_passphrase: AskPassphrase, previous: "KeyRing | None" = None) -> None:
        self._ask_passphrase = ask_passphrase
        self._files: dict[Path, KeyFile] = {}
        self._known_files = dict(previous._files) if previous else {}
        self._broken: dict[Path, BrokenKey] = {}
        self._certificates: dict[Path, CertificateFile] = {}
        self._agents: dict[str, Agent] = {}
        self._public_keys: dict[str, tuple[float, frozenset[bytes] | None]] = {}
        self._experience = Experience()
        self._looks: dict[tuple[Identities, int], tuple[float, frozenset[bytes]]] = {}
        self._told: set[Path] = set()

    def prepare(self, identities: Identities) -> None:
        """Reads the files that are named.

        Raises:
            UsageError: one that flags, configuration or inventory name cannot be used.
        """
        for path in identities.paths:
            if path not in self._files:
                self._load(path, identities)

    def _load(self, path: Path, identities: Identities) -> None:
        if known := self._known_files.get(path):
            known.refresh_now()
            self._files[path] = known
            return
        origin = identities.origin
        if origin not in _NAMED and not path.exists():
            return
        try:
            file = self._read(path, identities, _nobody if origin is KeyOrigin.USUAL else self._ask_passphrase)
            if file.problem and origin in _NAMED:
                raise UsageError(file.problem)
            self._files[path] = file
            if file.pairs and (mode := open_mode(path)):
                log.warning(
                    "key %s can be read by others (mode %04o): ssh refuses it; `chmod 600 %s`", path, mode, path
                )
            problem = None if origin is KeyOrigin.USUAL else file.problem
        except UsageError as error:
            if origin is KeyOrigin.TOLD:
                raise
            problem = str(error)
            if origin is KeyOrigin.INVENTORY:
                again = partial(self._read, path, identities, _nobody)
                self._broken[path] = BrokenKey(path, problem, again, self._mend)
        if problem and path not in self._told:
            self._told.add(path)
            log.warning("%s; it is skipped", problem)

    def _read(self, path: Path, identities: Identities, ask_passphrase: AskPassphrase) -> KeyFile:
        """Returns a file. Raises UsageError where it cannot be used."""
        return KeyFile(path, ask_passphrase, lambda public: self._is_in_agent(identities.agent_path, public))

    def _mend(self, file: KeyFile) -> None:
        """Takes a file that could not be used so far."""
        log.info("key %s can be used now", file.path)
        self._files[file.path] = file
        self._broken.pop(file.path, None)

    def _is_in_agent(self, path: str | None, public_data: bytes) -> bool | None:
        """Whether an agent has a key; None where it does not say. It is asked once for all files."""
        if path is None:
            return False
        asked_at, keys = self._public_keys.get(path, (-_AGENT_SECONDS, None))
        if time.monotonic() >= asked_at + _AGENT_SECONDS:
            keys = public_keys(path)
            self._public_keys[path] = time.monotonic(), keys
        return None if keys is None else public_data in keys

    async def check(self, target: Target) -> None:
        """Waits for the agent where it did not answer last time, and where no other key would do.

        Raises:
            NotTriedError: it still does not; then the host is spared a login that could only fail.
        """
        identities = target.access.identities
        if identities.agent_path and not any(self._can_sign(identities)) and self._agent(identities.agent_path).problem:
            _candidates, away = await self._in_agent(identities)
            if away:
                raise NotTriedError(Stage.LOGIN, Kind.AGENT_UNAVAILABLE, f"not tried: {away}")

    def _can_sign(self, identities: Identities) -> list[bool]:
        return [path in self._files and bool(self._files[path].pairs) for path in identities.paths]

    async def offer(self, target: Target) -> Offer:
        """Returns the keys for a login."""
        identities = target.access.identities
        await self._refresh(identities)
        in_agent, away = await self._in_agent(identities)
        least_bits = target.access.algorithms.rsa_bits
        candidates = [
            each
            for each in _once(self._candidates(identities, in_agent))
            if (rsa_bits(each.key.key_public_data) or least_bits) >= least_bits
        ]
        problems = [self._broken[path].problem for path in identities.paths if path in self._broken]
        return Offer(target, candidates, self._experience, away, problems)

    async def public_keys(self, target: Target) -> frozenset[bytes]:
        """Returns the public keys and certificates that `offer` would offer, as of the last seconds."""
        key = target.access.identities, target.access.algorithms.rsa_bits
        asked_at, found = self._looks.get(key, (-_LOOK_SECONDS, frozenset()))
        if time.monotonic() >= asked_at + _LOOK_SECONDS:
            offer = await self.offer(target)
            found = frozenset(each.key.public_data for each in offer.left)
            self._looks[key] = time.monotonic(), found
        return found

    async def _refresh(self, identities: Identities) -> None:
        """Looks at the files again, side by side: those that have changed since are read."""
        files: list[KeyFile | BrokenKey | CertificateFile] = [
            each[path] for path in identities.paths for each in (self._files, self._broken) if path in each
        ]
        files += [self._certificate(path) for path in _certificate_paths(identities)]
        for file in files:
            file.refresh.begin()
        for file in files:
            await file.refresh.wait()

    def _certificate(self, path: Path) -> CertificateFile:
        if path not in self._certificates:
            self._certificates[path] = CertificateFile(path)
        return self._certificates[path]

    def note_accepted(self, target: Target, offer: Offer) -> None:
        """Remembers which key a host has taken: the last one that was offered."""
        if offer.taken:
            self._experience.note_taken(target.server, offer.taken.key.public_data)

    async def _in_agent(self, identities: Identities) -> tuple[list[Candidate], AgentError | None]:
        """Returns the keys that the agent has, where it may be of use, and what kept it from telling."""
        can_sign = self._can_sign(identities)
        if not identities.agent_path or (identities.is_only and can_sign and all(can_sign)):
            return [], None
        try:
            keys = await self._agent(identities.agent_path).keys(is_needed=not any(can_sign))
        except AgentError as error:
            return [], error
        return [Candidate(key, f"{_comment(key)} (agent)") for key in keys], None

    def _candidates(self, identities: Identities, in_agent: list[Candidate]) -> list[Candidate]:
        """Returns keys in ssh's order: named ones that the agent has, the agent's others, named ones that it has not.

        Where there are but named ones: in the order in which they are named. Those with a certificate come first.
        """
        files = [self._files[path] for path in identities.paths if path in self._files]
        held, ours = {}, {}
        for file in files:
            held[file.path] = [each for each in in_agent if _public_data(each.key) == file.public_data]
            ours[file.path] = [Candidate(key, str(file.path)) for key in file.pairs]
        if identities.is_only:
            candidates = [each for file in files for each in ours[file.path] or held[file.path]]
        else:
            candidates = [each for file in files for each in held[file.path]]
            candidates += [*in_agent, *(each for file in files for each in ours[file.path])]
        return [*self._certified(candidates, identities), *candidates]

    def _certified(self, candidates: list[Candidate], identities: Identities) -> Iterator[Candidate]:
        """Yields the keys that have a certificate in a file of its own, with it."""
        for path in _certificate_paths(identities):
            certificate = self._certificate(path).certificate
            for key, _name in candidates if certificate else ():
                if certificate and key.key_public_data == certificate.key.public_data and not key.has_cert:
                    certified = copy.copy(key)
                    certified.set_certificate(certificate)
                    yield Candidate(certified, str(path))

    def _agent(self, path: str) -> Agent:
        if path not in self._agents:
            self._agents[path] = Agent(path)
        return self._agents[path]

    @property
    def passphrases(self) -> dict[Path, str]:
        """Those of the files that needed one."""
        return {path: file.passphrase for path, file in list(self._files.items()) if file.passphrase is not None}


def _nobody(_path: Path) -> str | None:
    return None


def _certificate_paths(identities: Identities) -> list[Path]:
    return [*identities.certificate_paths, *(beside(path) for path in identities.paths)]


def _public_data(key: asyncssh.SSHKeyPair) -> bytes:
    """Returns the public key of one that the agent has, also of one with a certificate."""
    return import_certificate(key.public_data).key.public_data if key.has_cert else key.public_data


def _comment(key: asyncssh.SSHKeyPair) -> str:
    return (key.get_comment_bytes() or key.algorithm).decode("utf-8", "replace")


def _once(candidates: Iterable[Candidate]) -> list[Candidate]:
    by_key: dict[bytes, Candidate] = {}
    for candidate in candidates:
        by_key.setdefault(candidate.key.public_data, candidate)
    return list(by_key.values())
