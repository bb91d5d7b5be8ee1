"""A configuration checked where nothing but its repository is: no key, no network, no program, no name look-up."""

import glob
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from fleetmem.config import Problem, Settings, split_shard
from fleetmem.config.paths import folder_of
from fleetmem.connect.openssh.config_file import SshConfig
from fleetmem.connect.ssh_settings import HostKeyPolicy
from fleetmem.errors import ConfigError, InventoryError, reason_of
from fleetmem.inventory.ansible.templates import ENCRYPTED, FOR_ANSIBLE
from fleetmem.inventory.documents import path_of
from fleetmem.inventory.listing import AnsibleReader, Listing, Means
from fleetmem.inventory.patterns import check_syntax, select
from fleetmem.inventory.programs import NotRunError, Programs
from fleetmem.inventory.sources import NAMES, Source, parse_source, parse_sources
from fleetmem.inventory.union import unite
from fleetmem.model import Host
from fleetmem.rendezvous import shard_of
from fleetmem.runtime import bounded_file
from fleetmem.runtime.pattern import Pattern
from fleetmem.shape.budget import reserved_series

_ELSEWHERE = {"ec2": "asks AWS", "http_sd": "asks a server", "command": "runs a program"}
_ONLY_ANSIBLE = (ENCRYPTED, FOR_ANSIBLE, "this is for a plugin of Ansible")
_RELATIVE = "a path is relative to the configuration file"
_TRUST = "host_keys is strict, so no host would be trusted: add the file, or correct its name"
_OUTSIDE = "not checked: it lies outside the folder of the configuration"
_CORRECT_ENTRY = "correct the entry, or remove it: `run` leaves it out"


@dataclass(slots=True)
class OfflineReport:
    """What was found.

    Attributes:
        errors: what is wrong.
        warnings: what was not checked, and why.
        hosts: of the inventories that were read.
        is_whole: whether all of them were.
    """

    errors: list[Problem] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    hosts: list[Host] = field(default_factory=list)
    is_whole: bool = True


def check_offline(settings: Settings, path: Path | None) -> OfflineReport:
    """Returns what is wrong with a configuration whose types and ranges are right.

    Inventory files are read where they lie below the folder of the configuration, or are named relative to it.

    Args:
        settings: the configuration.
        path: its file, None where there is none.
    """
    report = OfflineReport()
    folder = folder_of(path)
    _check_inventories(settings, folder, report)
    _check_ssh_config(settings, folder, report)
    _check_known_hosts(settings, folder, report)
    _check_web_config(settings, folder, report)
    _check_patterns(settings, report)
    _check_room(settings, report)
    return report


def _check_inventories(settings: Settings, folder: Path, report: OfflineReport) -> None:
    means = Means(
        settings.inventory.timeout_seconds,
        settings.inventory.ansible_labels,
        AnsibleReader.BUILTIN,
        frozenset(settings.inventory.ignore),
        Programs(may_run=False),
    )
    listings: list[tuple[str, list[Host]]] = []
    for key, source in _sources(settings, folder, report):
        listing = _read(key, source, folder, means, report)
        if listing is None:
            report.is_whole = False
            continue
        listings.append((str(source), listing.hosts))
        for reason in listing.left_out:
            is_error = not any(word in reason for word in _ONLY_ANSIBLE)
            report.is_whole = False  # patterns that only it matches are right
            found = report.errors if is_error else report.warnings
            found.append(Problem(key, reason, _CORRECT_ENTRY if is_error else "only Ansible can read it"))
    contradicted: list[str] = []
    try:
        report.hosts = unite(listings, contradicted)
    except InventoryError as error:
        report.errors.append(Problem("inventory.sources", str(error)))
    report.errors += [Problem("inventory.sources", reason, _CORRECT_ENTRY) for reason in contradicted]
    if listings and report.is_whole and not report.hosts and not report.errors:
        names = ", ".join(name for name, _hosts in listings)
        report.errors.append(Problem("inventory.sources", f"no hosts in {names}"))


def _sources(settings: Settings, folder: Path, report: OfflineReport) -> Iterator[tuple[str, Source]]:
    """Yields inventories, each with its key."""
    for number, spec in enumerate(settings.inventory.hosts):
        for source in parse_sources([spec], ()):
            yield f"inventory.hosts.{number}", source
    for number, text in enumerate(settings.inventory.sources):
        key = f"inventory.sources.{number}"
        try:
            yield key, parse_source(text)
        except InventoryError as error:
            is_elsewhere = text.startswith(("/", "~")) and not _is_ours(text, folder)
            report.is_whole = False
            found = report.warnings if is_elsewhere else report.errors
            fix = _RELATIVE if "is not there" in str(error) else ""
            found.append(Problem(key, str(error), _OUTSIDE if is_elsewhere else fix))


def _is_ours(text: str, folder: Path) -> bool:
    """Whether a path belongs to the configuration: it lies below its folder, or was named relative to it."""
    is_relative = not text.startswith(("/", "~"))  # in a flag or variable
    return is_relative or any(f"{text}/".startswith(f"{start}/") for start in (folder, glob.escape(str(folder))))


def _read(key: str, source: Source, folder: Path, means: Means, report: OfflineReport) -> Listing | None:
    """Returns the hosts of an inventory; None where it is not read, which is reported."""
    text = source.argument
    if source.kind != NAMES:
        if why := _ELSEWHERE.get(source.kind):
            report.warnings.append(Problem(key, f"not read: {source.kind} {why}"))
            return None
        if not text or not _is_ours(text, folder):
            report.warnings.append(Problem(key, f"{source}: {_OUTSIDE}"))
            return None
        if source.kind == "terraform" and path_of(text).is_dir():
            report.warnings.append(Problem(key, "not read: terraform runs a program; terraform:FILE.json does not"))
            return None
    try:
        return source.read(means)
    except NotRunError as error:
        report.warnings.append(Problem(key, str(error)))
    except InventoryError as error:
        needs_ansible = source.kind == "ansible" and any(word in str(error) for word in _ONLY_ANSIBLE)
        fix = _RELATIVE if "no such file" in str(error) else ""
        (report.warnings if needs_ansible else report.errors).append(Problem(key, str(error), fix))
    return None


def _check_ssh_config(settings: Settings, folder: Path, report: OfflineReport) -> None:
    given = settings.ssh.config_file
    named = {source.argument for _key, source in _sources(settings, folder, OfflineReport()) if source.kind == "ssh"}
    if given is None and len(named - {""}) > 1:
        message = f"several inventories are ssh configurations: {', '.join(sorted(named - {''}))}"
        report.errors.append(Problem("ssh.config_file", message, "set it to the one that is used, or to none"))
    if given is None or str(given) == "none" or not _is_ours(str(given), folder):
        return
    try:
        SshConfig((given,))
    except ConfigError as error:
        report.errors.append(Problem("ssh.config_file", str(error)))


def _check_known_hosts(settings: Settings, folder: Path, report: OfflineReport) -> None:
    """Looks whether the files are there; what is in them is for the time of a login."""
    sections = [("ssh", settings.ssh), *((f"overrides.{number}", one) for number, one in enumerate(settings.overrides))]
    for name, section in sections:
        path = section.known_hosts
        if path is None or not _is_ours(str(path), folder):
            continue
        policy = section.host_keys or settings.ssh.host_keys or HostKeyPolicy.ACCEPT_NEW
        key = f"{name}.known_hosts"
        try:
            bounded_file.read_bytes(path.expanduser())
        except FileNotFoundError as error:
            is_fatal = policy is HostKeyPolicy.STRICT
            found, fix = (report.errors, _TRUST) if is_fatal else (report.warnings, "keys of new hosts begin the file")
            found.append(Problem(key, f"{path}: {reason_of(error)}", fix))
        except OSError as error:
            report.errors.append(Problem(key, f"{path}: {reason_of(error)}", "name a file that can be read"))


def _check_web_config(settings: Settings, folder: Path, report: OfflineReport) -> None:
    """Looks at the file itself: certificate and key are where it is used."""
    path = settings.prometheus.web_config
    if path is None:
        return
    if not _is_ours(str(path), folder):
        report.warnings.append(Problem("prometheus.web_config", f"{path}: {_OUTSIDE}"))
        return
    # Imported here: nobody else needs YAML.
    from fleetmem.sinks.pages.web_config import read_web_config

    try:
        read_web_config(path.expanduser())
    except ConfigError as error:
        message = str(error).removeprefix("prometheus.web_config: ")
        report.errors.append(
            Problem("prometheus.web_config", message, "correct it; docs/how-to/protect-metrics.md has an example")
        )


def _check_patterns(settings: Settings, report: OfflineReport) -> None:
    for number, override in enumerate(settings.overrides):
        _select(f"overrides.{number}.match", override.match, report)
    if settings.inventory.limit is not None:
        report.hosts = _select("inventory.limit", settings.inventory.limit, report)
    if settings.inventory.shard and report.is_whole and report.hosts:
        index, count = split_shard(settings.inventory.shard)
        share = [host for host in report.hosts if shard_of(host.name, count) == index]
        if share:
            report.hosts = share
        else:
            message = f"{settings.inventory.shard} has none of {len(report.hosts)} hosts"
            report.errors.append(Problem("inventory.shard", message, "use fewer shards"))


def _select(key: str, pattern: str, report: OfflineReport) -> list[Host]:
    """Returns the hosts that a pattern matches; where not all are known, only how it is written is checked."""
    try:
        if not report.is_whole or not report.hosts:
            check_syntax(pattern, Pattern)
            return report.hosts
        chosen = select(pattern, report.hosts, Pattern)
    except InventoryError as error:
        report.errors.append(Problem(key, str(error)))
        return report.hosts
    if not chosen:
        message = f"{pattern!r} matches none of {len(report.hosts)} hosts"
        report.errors.append(Problem(key, message, "`fleetmem hosts` prints hosts, groups and labels"))
    return chosen or report.hosts


def _check_room(settings: Settings, report: OfflineReport) -> None:
    most = settings.shape.max_series
    least = reserved_series(settings.shape.detail) * len(report.hosts)
    if most and most < least:
        message = f"{len(report.hosts)} hosts have {least} series of their own and of `other` (given: {most})"
        report.errors.append(Problem("shape.max_series", message, f"set {least} or more, or 0 for no limit"))
