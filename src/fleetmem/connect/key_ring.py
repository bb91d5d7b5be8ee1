"""Which keys are offered to which host, and in which order."""

import copy
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import asyncssh
from asyncssh.public_key import decode_ssh_certificate

from fleetmem.connect.agent import Agent, public_keys
from fleetmem.connect.keys import AskPassphrase, KeyFile, file_stamp
from fleetmem.connect.target import Identities, KeyOrigin, Target
from fleetmem.errors import UsageError

log = logging.getLogger("fleetmem.connect")

_MOST_OFFERS = 6
"""sshd hangs up after so many refused keys (sshd_config(5), MaxAuthTries)."""


class Candidate(NamedTuple):
    """A key that may be offered, and what it is called."""

    key: asyncssh.SSHKeyPair
    name: str


class Offer:
    """The keys that one login offers, one after the other, those first that are likely to be taken.

    Args:
        user: who logs in.
        candidates: the keys.
        rank: low for keys that are likely to be taken. What is likely changes as other hosts let us in.
    """

    def __init__(self, user: str, candidates: list[Candidate], rank: Callable[[Candidate], tuple[bool, int]]) -> None:
        self.offered: list[Candidate] = []
        self._user = user
        self._left = candidates
        self._rank = rank

    def next(self) -> asyncssh.SSHKeyPair | None:
        """Returns the next key; None when there is none, or sshd would take no more."""
        if not self._left or len(self.offered) == _MOST_OFFERS:
            return None
        best = min(self._left, key=self._rank)
        self._left.remove(best)
        self.offered.append(best)
        return copy.copy(self.offered[-1].key)  # a login notes in it which signature its host wants

    def refusal(self) -> str:
        """Returns what to say when the host let nobody in."""
        if not self.offered:
            return f"{self._user} has no key to log in with: no -k, none in an agent, none in ~/.ssh"
        names = ", ".join(candidate.name for candidate in self.offered)
        rest = f"; {len(self._left)} more were not tried: sshd hangs up after {_MOST_OFFERS}" if self._left else ""
        return f"{self._user} is refused with {names}{rest}"


class KeyRing:
    """The keys of a fleet: files are read, and passphrases asked for, once.

    Args:
        ask_passphrase: see there.
        previous: a ring that this one takes the place of. Its keys are taken over, so that nobody is asked again.
    """

    def __init__(self, ask_passphrase: AskPassphrase, previous: "KeyRing | None" = None) -> None:
        self._ask_passphrase = ask_passphrase
        self._files: dict[Path, KeyFile] = {}
        self._known_files = dict(previous._files) if previous else {}
        self._certificates: dict[Path, tuple[object, asyncssh.SSHCertificate | None]] = {}
        self._agents: dict[str, Agent] = {}
        self._accepted: dict[tuple[str, str, int], bytes] = {}
        self._accepted_total: Counter[bytes] = Counter()
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
            known.refresh()
            self._files[path] = known
            return
        origin, agent_path = identities.origin, identities.agent_path
        if origin is not KeyOrigin.TOLD and not path.exists():
            return
        try:
            file = KeyFile(
                path,
                (lambda _path: None) if origin is KeyOrigin.USUAL else self._ask_passphrase,
                lambda public: agent_path is not None and public in public_keys(agent_path),
            )
            if file.problem and origin is KeyOrigin.TOLD:
                raise UsageError(file.problem)
            self._files[path] = file
            problem = None if origin is KeyOrigin.USUAL else file.problem
        except UsageError as error:
            if origin is KeyOrigin.TOLD:
                raise
            problem = str(error)
        if problem and path not in self._told:
            self._told.add(path)
            log.warning("%s; it is skipped", problem)

    async def offer(self, target: Target) -> Offer:
        """Returns the keys for a login: the one first that the host took before, then those that others took."""
        last = self._accepted.get(target.server)

        def rank(candidate: Candidate) -> tuple[bool, int]:
            public_data = candidate.key.public_data
            return public_data != last, -self._accepted_total[public_data]

        return Offer(target.user, _once(await self._candidates(target.access.identities)), rank)

    def note_accepted(self, target: Target, offer: Offer) -> None:
        """Remembers which key a host has taken: the last one that was offered."""
        if not offer.offered:  # it lets everybody in
            return
        public_data = offer.offered[-1].key.public_data
        if self._accepted.get(target.server) != public_data:
            self._accepted[target.server] = public_data
            self._accepted_total[public_data] += 1

    async def _candidates(self, identities: Identities) -> list[Candidate]:
        """Returns keys in ssh's order: named ones that the agent has, the agent's others, named ones that it has not.

        Where there are but named ones: in the order in which they are named. Those with a certificate come first.
        """
        keys = await self._agent(identities.agent_path).keys() if identities.agent_path else ()
        in_agent = [Candidate(key, f"{_comment(key)} (agent)") for key in keys]
        files = [self._files[path] for path in identities.paths if path in self._files]
        held, ours = {}, {}
        for file in files:
            file.refresh()
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
        beside = [Path(f"{path}-cert.pub") for path in identities.paths]
        for path in [*identities.certificate_paths, *beside]:
            certificate = self._certificate(path)
            for key, _name in candidates if certificate else ():
                if certificate and key.key_public_data == certificate.key.public_data and not key.has_cert:
                    certified = copy.copy(key)
                    certified.set_certificate(certificate)
                    yield Candidate(certified, str(path))

    def _certificate(self, path: Path) -> asyncssh.SSHCertificate | None:
        """Returns the certificate in a file as it is now; None where there is none."""
        stamp = file_stamp(path)
        if stamp is None:
            return None
        if path not in self._certificates or self._certificates[path][0] != stamp:
            self._certificates[path] = stamp, None
            try:
                self._certificates[path] = stamp, asyncssh.read_certificate(str(path))
            except (asyncssh.KeyImportError, OSError) as error:
                log.warning("certificate %s cannot be read: %s", path, error)
        return self._certificates[path][1]

    def _agent(self, path: str) -> Agent:
        if path not in self._agents:
            self._agents[path] = Agent(path)
        return self._agents[path]

    def close(self) -> None:
        """Closes the connections to agents."""
        for agent in self._agents.values():
            agent.close()


def _public_data(key: asyncssh.SSHKeyPair) -> bytes:
    """Returns the public key of one that the agent has, also of one with a certificate."""
    return decode_ssh_certificate(key.public_data).key.public_data if key.has_cert else key.public_data


def _comment(key: asyncssh.SSHKeyPair) -> str:
    return (key.get_comment_bytes() or key.algorithm).decode("utf-8", "replace")


def _once(candidates: Iterable[Candidate]) -> list[Candidate]:
    by_key: dict[bytes, Candidate] = {}
    for candidate in candidates:
        by_key.setdefault(candidate.key.public_data, candidate)
    return list(by_key.values())
