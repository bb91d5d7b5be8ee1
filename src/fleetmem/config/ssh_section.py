"""`[ssh]` and `[[overrides]]`: how to reach hosts."""

from collections.abc import Set
from pathlib import Path
from typing import Annotated, Self

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
)

from fleetmem.config.fields import HomePath, Section, SectionT, check_jumps, split
from fleetmem.connect.ssh_settings import (
    CONNECT_SECONDS,
    KEEPALIVE_SECONDS,
    HostKeyPolicy,
    LoginLimits,
    ReachSettings,
    SshSettings,
    parse_jumps,
)
from fleetmem.probe.script import ProbeKind, Processes

_SSH, _LIMITS = SshSettings(), LoginLimits()
_SSH_CONFIGS = (Path("~/.ssh/config"), Path("/etc/ssh/ssh_config"))


class _HostSsh(Section):
    """How to reach a host: what may differ from host to host."""

    user: str | None = Field(default=None, examples=["ubuntu"])
    """login name; by default the ssh configuration's, then yours"""
    port: int | None = Field(default=None, ge=1, le=65535, examples=[2222])
    """TCP port; by default the ssh configuration's, then 22"""
    key: Annotated[tuple[HomePath, ...], BeforeValidator(split)] = ()
    """private keys; by default the ssh configuration's, the agent's, then those in ~/.ssh"""
    jump: Annotated[str | None, AfterValidator(check_jumps)] = Field(
        default=None, examples=["ubuntu@bastion.example.com"]
    )
    """jump hosts as [user@]host[:port],...; one connection to each carries all; none for none; by default ProxyJump"""
    known_hosts: HomePath | None = Field(default=None, examples=["~/.ssh/known_hosts"])
    """host keys are checked against this file; by default UserKnownHostsFile, then ~/.ssh/known_hosts"""
    host_keys: HostKeyPolicy | None = Field(default=None, examples=["accept-new"])
    """accept-new records unknown keys, strict refuses them, insecure checks none; by default StrictHostKeyChecking's"""
    connect_timeout_seconds: float | None = Field(default=None, gt=0, examples=[CONNECT_SECONDS])
    """for the TCP connection; by default ConnectTimeout, then 5"""
    login_timeout_seconds: float | None = Field(default=None, gt=0, examples=[CONNECT_SECONDS])
    """for key exchange and authentication; by default ConnectTimeout, then 5"""
    command_timeout_seconds: float = Field(default=_SSH.command_timeout_seconds, gt=0)
    """for one sample"""
    keepalive_seconds: float | None = Field(default=None, ge=0, examples=[KEEPALIVE_SECONDS])
    """seconds between keepalives on an idle connection, 0 for none; by default ServerAliveInterval, then 15"""
    compression: bool | None = Field(default=None, examples=[False])
    """compress what is sent: less traffic, more CPU on both sides; by default Compression, then false"""

    def settings(self) -> SshSettings:
        """Returns the plain values that `connect` takes, for a host that nothing else is said of."""
        return SshSettings(
            user=self.user,
            port=self.port,
            key_paths=self.key,
            jumps=parse_jumps(self.jump) if self.jump else None,
            known_hosts_path=self.known_hosts,
            host_key_policy=self.host_keys,
            connect_timeout_seconds=self.connect_timeout_seconds,
            login_timeout_seconds=self.login_timeout_seconds,
            command_timeout_seconds=self.command_timeout_seconds,
            keepalive_seconds=self.keepalive_seconds,
            is_compressed=self.compression,
        )


class Ssh(_HostSsh):
    """How to reach them."""

    config_file: HomePath | None = Field(default=None, examples=["~/.ssh/config"])
    """ssh client configuration, or none; by default ~/.ssh/config, then /etc/ssh/ssh_config"""
    concurrency: int = Field(default=_LIMITS.max_handshakes, ge=1)
    """logins at the same time, over all hosts"""
    handshakes_per_second: float = Field(default=_LIMITS.handshakes_per_second, ge=0)
    """logins begun in a second, over all hosts; 0 is no limit"""
    jump_handshakes: int = Field(default=_LIMITS.jump_handshakes, ge=1)
    """logins at the same time through one jump host; behind it may be one sshd, which lets 10 wait (MaxStartups)"""
    jump_handshakes_per_second: float = Field(default=_LIMITS.jump_handshakes_per_second, ge=0)
    """logins begun in a second through one jump host; 0 is no limit"""
    most_refusals: int = Field(default=_LIMITS.most_refusals, ge=0)
    """hosts that may refuse a user and keys while none lets them in; then only one is tried at a time; 0 is no limit"""

    def reach(self) -> ReachSettings:
        """Returns the plain values that `connect` takes, for a fleet."""
        limits = LoginLimits(
            max_handshakes=self.concurrency,
            handshakes_per_second=self.handshakes_per_second,
            jump_handshakes=self.jump_handshakes,
            jump_handshakes_per_second=self.jump_handshakes_per_second,
            most_refusals=self.most_refusals,
        )
        return ReachSettings(self.settings(), limits, self._config_paths())

    def _config_paths(self) -> tuple[Path, ...]:
        """Returns the files that ssh would read (ssh_config(5), FILES)."""
        if self.config_file is None:
            return tuple(path for path in _SSH_CONFIGS if path.expanduser().is_file())
        return () if str(self.config_file) == "none" else (self.config_file,)


class Override(_HostSsh):
    """What is different for some hosts: the keys of [ssh] that are about a host, and those of [probe]."""

    match: str = Field(min_length=1)
    kind: ProbeKind | None = None
    sudo: bool | None = None
    processes: Processes | None = None

    def without(self, keys: Set[str]) -> Self:
        """Returns the same without some keys."""
        kept = self.model_fields_set - keys
        return type(self)(**{name: getattr(self, name) for name in kept})

    def over(self, section: SectionT) -> SectionT:
        """Returns a section with the keys that are different."""
        fields = self.model_fields_set & type(section).model_fields.keys()
        return section.model_copy(update={name: getattr(self, name) for name in fields})
