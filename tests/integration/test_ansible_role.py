"""The role of deploy/ansible, by Ansible itself, on hosts with accounts of their own, behind a bastion."""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from fleetmem.probe import script

from . import documents, servers
from .networks import line_of_machines
from .own_root import ADMIN, OwnRoot, own_root
from .servers import REPOSITORY, USER, Cli, Running, Sshd, environment, make_key, missing, wait_for

PLAYBOOKS = REPOSITORY / "deploy" / "ansible"
PYTHON = "/usr/bin/python3" if Path("/usr/bin/python3").exists() else sys.executable
OTHERS = {"etc/passwd-", "etc/group-", "etc/shadow-", "etc/gshadow-", "etc/subuid-", "etc/subgid-", "etc/.pwd.lock"}
OTHERS |= {f"home/{ADMIN}/.ansible", f"home/{ADMIN}/.ansible/tmp", "var/log/btmp"}
"""Not the role's: what useradd and its like write for themselves, Ansible's folder, sshd's log of failed logins."""

BY_HAND = "useradd --system --create-home --shell /bin/sh fleetmem"
"""As in docs/how-to/least-privilege.md."""

OTHERS_OF_ROOT = {"root/.ansible", "root/.ansible/tmp"}
"""What Ansible leaves where it logs in as root."""


@dataclass(frozen=True)
class Site:
    """Hosts, and a control node with an inventory that says `ansible_user: ops`.

    Attributes:
        folder: of the control node, with the inventory and the key that goes with it.
        hosts: by name.
        key: the public one is what the role is to let in.
        cli: fleetmem there.
        bastion: lets in both keys, that one to pass on to the hosts; None where hosts are reached directly.
    """

    folder: Path
    hosts: dict[str, OwnRoot]
    key: Path
    cli: Cli
    bastion: Sshd | None = None

    def play(self, playbook: str, *arguments: str, **variables: object) -> tuple[dict[str, dict[str, int]], str]:
        """Runs a playbook; returns Ansible's recapitulation of each host, and all that it printed."""
        program = Path(sys.executable).parent / "ansible-playbook"
        if not program.is_file():
            missing("ansible-core")
        own = {
            "ANSIBLE_PIPELINING": "1",
            "ANSIBLE_FORKS": "10",
            "ANSIBLE_NOCOLOR": "1",
            "ANSIBLE_SSH_EXECUTABLE": str(self.folder / "ssh"),
            "ANSIBLE_SSH_ARGS": "-o ControlMaster=auto -o ControlPersist=20s",
            "ANSIBLE_SSH_CONTROL_PATH_DIR": str(self.folder / "cp"),
            "ANSIBLE_LOCAL_TEMP": str(self.folder / "tmp"),
            "LC_ALL": "C.UTF-8",
        }
        given = {"fleetmem_public_keys": [f"{self.key}.pub"], "fleetmem_program": str(self.folder / "fleetmem")}
        extra = json.dumps(given | variables)
        done = subprocess.run(
            [*self.cli.wrapper, program, "-i", self.folder / "inventory.yml", "-e", extra, *arguments, playbook],
            cwd=PLAYBOOKS,
            env=environment(self.cli.home) | own,
            capture_output=True,
            text=True,
            timeout=500,
            check=False,
        )
        sys.stdout.write(done.stdout + done.stderr)  # for whoever looks why a test failed
        recap = re.findall(r"^(\S+)\s+: (ok=\d+.*)$", done.stdout.rpartition("PLAY RECAP")[2], re.MULTILINE)
        counts = {name: {key: int(value) for key, value in re.findall(r"(\w+)=(\d+)", text)} for name, text in recap}
        return counts, done.stdout + done.stderr

    def changed(self, playbook: str, *arguments: str, **variables: object) -> set[int]:
        """Runs a playbook, which has to end well on all hosts; returns how many changes each made."""
        recap, _ = self.play(playbook, *arguments, **variables)
        assert recap.keys() == self.hosts.keys()
        assert not any(counts["failed"] or counts["unreachable"] for counts in recap.values()), recap
        return {counts["changed"] for counts in recap.values()}

    def refused(self, reason: str, playbook: str, **variables: object) -> None:
        """Runs a playbook, which has to fail with this reason and without any change on all hosts."""
        before = {name: host.changes() for name, host in self.hosts.items()}
        recap, text = self.play(playbook, **variables)
        assert recap.keys() == self.hosts.keys()
        assert all(counts["failed"] and not counts["changed"] for counts in recap.values()), recap
        assert reason in " ".join(text.split())
        for name, host in self.hosts.items():
            assert host.left_since(before[name]) <= OTHERS | OTHERS_OF_ROOT

    @contextmanager
    def running(self, *arguments: object) -> Iterator[Running]:
        """Runs fleetmem by the same inventory, with its own account, key and jump host."""
        assert self.bastion
        configuration = self.folder / "fleetmem.toml"
        configuration.write_text(
            f"""
[inventory]
sources = ["ansible:{self.folder}/inventory.yml"]
ignore = ["user", "key", "jump"]
[ssh]
user = "fleetmem"
key = "{self.key}"
jump = "{USER}@10.219.0.1:{self.bastion.port}"
"""
        )
        with self.cli.run("-c", configuration, *servers.PATIENT, "-o", "-", "--interval", 1, *arguments) as running:
            yield running

    def address(self, name: str) -> str:
        """Returns that of a host."""
        number = int(name.removeprefix("web"))
        return f"10.219.1.{number}" if self.bastion else f"127.0.5.{number}"

    def write(self) -> None:
        """Writes what an administrator has: an inventory, and ssh with a key."""
        jump = f"-o ProxyJump={USER}@10.219.0.1:{self.bastion.port}" if self.bastion else ""
        hosts = {
            name: {"ansible_host": self.address(name), "ansible_port": host.sshd.port}
            for name, host in self.hosts.items()
        }
        variables = {"ansible_user": ADMIN, "ansible_python_interpreter": PYTHON, "ansible_ssh_common_args": jump}
        inventory = {"all": {"hosts": hosts, "vars": variables}}
        (self.folder / "inventory.yml").write_text(json.dumps(inventory))  # which is YAML, too
        options = f"IdentityFile {self.folder}/admin\nIdentitiesOnly yes\nStrictHostKeyChecking no\nLogLevel ERROR\n"
        (self.folder / "ssh_config").write_text(f"{options}UserKnownHostsFile {self.folder}/known\n")
        self.script("ssh", f'exec {servers.find_tool("ssh")} -F {self.folder}/ssh_config "$@"')
        self.script("fleetmem", f'exec {sys.executable} -m fleetmem "$@"')

    def script(self, name: str, line: str) -> Path:
        """Writes a program."""
        path = self.folder / name
        path.write_text(f"#!/bin/sh\n{line}\n")
        path.chmod(0o755)
        return path


@contextmanager
def behind_a_bastion(folder: Path, cli: Cli, count: int) -> Iterator[Site]:
    """Starts so many hosts that only a bastion reaches, and only it is reached from the control node."""
    admin, key = make_key(folder / "admin"), make_key(folder / "key")
    passing_on = cli("probe", "--authorized-keys", f"{key}.pub", "--bastion", "--permit-open", "10.219.1.1:*").stdout
    several = passing_on.replace(
        'permitopen="10.219.1.1:*"', ",".join(f'permitopen="10.219.1.{number}:*"' for number in range(1, count + 1))
    )
    with line_of_machines(3, hosts=count) as (ours, middle, last), ExitStack() as stack:
        keys = [admin.with_suffix(".pub").read_text(), several]
        bastion = stack.enter_context(
            servers.sshd(folder / "bastion", public_keys=keys, options="MaxStartups 100", wrapper=middle.wrapper)
        )
        hosts = {
            f"web{number}": stack.enter_context(own_root(folder / f"web{number}", admin, last.wrapper))
            for number in range(1, count + 1)
        }
        site = Site(folder, hosts, key, Cli(cli.home, wrapper=ours.wrapper), bastion)
        site.write()
        yield site


@pytest.fixture
def one(tmp_path: Path, cli: Cli) -> Iterator[Site]:
    """One host, without a bastion."""
    admin, key = make_key(tmp_path / "admin"), make_key(tmp_path / "key")
    with own_root(tmp_path / "web1", admin) as host:
        site = Site(tmp_path, {"web1": host}, key, cli)
        site.write()
        yield site


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, pytest.param(30, marks=pytest.mark.long)])
def test_the_life_of_an_account(count: int, tmp_path: Path, cli: Cli) -> None:
    """Made, used, renewed, unchanged by another run, and removed with nothing left of it."""
    with behind_a_bastion(tmp_path, cli, count) as site:
        digest = script.digest()
        old = site.script("old", f"{site.folder}/fleetmem \"$@\" | sed 's/{digest}/{'0' * 64}/'")
        with_sudo = {"fleetmem_sudo": True, "fleetmem_from": ["10.219.1.254"]}
        before = {name: host.changes() for name, host in site.hosts.items()}

        assert site.changed("site.yml", **with_sudo, fleetmem_program=str(old)) == {5}
        assert site.changed("site.yml", **with_sudo) == {2}, "the key line and the sudo rule have another digest"
        assert site.changed("site.yml", **with_sudo) == {0}
        line = cli("probe", "--authorized-keys", f"{site.key}.pub", "--from", "10.219.1.254", "--sudo").stdout
        for host in site.hosts.values():
            accounts = host.read("etc/passwd")
            assert re.search(r"^fleetmem:x:\d+:\d+:fleetmem .*:/home/fleetmem:/bin/sh$", accounts, re.MULTILINE)
            assert host.read("home/fleetmem/.ssh/authorized_keys") == line
            assert host.read("etc/sudoers.d/fleetmem") == script.sudoers("fleetmem")

        with site.running("--sudo") as running:
            wait_for(
                "all hosts answer", lambda: {outcome["host"] for outcome in running.outcomes()} == site.hosts.keys()
            )
            assert all(outcome["ok"] for outcome in running.outcomes()), running.outcomes()
            assert all(0 in {row["uid"] for row in outcome["processes"]} for outcome in running.outcomes())
            assert site.changed("remove.yml") == {5}, "keys, rule, sessions, home, account"
        assert site.changed("remove.yml") == {0}
        for name, host in site.hosts.items():
            assert host.left_since(before[name]) <= OTHERS
            assert not host.sshd.probes()


NAMED = {"fleetmem_user": "fleetmem.2", "fleetmem_home": "/srv/fleetmem2"}


@pytest.mark.slow
def test_check_mode(one: Site) -> None:
    """It says what would change, and changes nothing: on a host without the account, and on one that has it."""
    host = one.hosts["web1"]
    with_sudo = {**NAMED, "fleetmem_sudo": True}
    before = host.changes()
    assert one.changed("site.yml", "--check", "--diff", **with_sudo) == {4}, "group, account, home, sudo rule"
    assert one.changed("remove.yml", "--check", **NAMED) == {0}
    assert one.changed("remove.yml", **NAMED) == {0}, "there never was one"
    assert host.left_since(before) <= OTHERS

    assert one.changed("site.yml", **with_sudo) == {5}
    then = host.changes()
    renewed = one.script("renewed", f"{one.folder}/fleetmem \"$@\" | sed 's/{script.digest()}/{'0' * 64}/'")
    assert one.changed("site.yml", "--check", **with_sudo, fleetmem_program=str(renewed)) == {2}
    assert one.changed("site.yml", "--check", **with_sudo) == {0}
    assert one.changed("remove.yml", "--check", **NAMED) != {0}
    assert not host.left_since(then)
    assert one.changed("remove.yml", **NAMED) == {4}
    assert host.left_since(before) <= OTHERS


@pytest.mark.slow
def test_several_keys(one: Site) -> None:
    """Two keys that are good from one address, then another one alone, on a bastion; files of others stay."""
    host, lines_of = one.hosts["web1"], "srv/fleetmem2/.ssh/authorized_keys"
    before = host.changes()
    keys = [f"{make_key(one.folder / name)}.pub" for name in ("second", "third")]
    assert one.changed("site.yml", **NAMED, fleetmem_public_keys=keys, fleetmem_from="127.0.0.1") == {4}
    lines = host.read(lines_of).splitlines(keepends=True)
    assert lines == [one.cli("probe", "--authorized-keys", key, "--from", "127.0.0.1").stdout for key in keys]
    assert not (host.root / "etc/sudoers.d/fleetmem-fleetmem_2").exists()

    targets = ["10.0.0.1:22", "db:5022"]
    assert one.changed("site.yml", **NAMED, fleetmem_permit_open=targets, fleetmem_sudo=True) == {1}
    line = one.cli("probe", "--authorized-keys", f"{one.key}.pub", "--bastion", "--permit-open", ",".join(targets))
    assert host.read(lines_of) == line.stdout
    assert not (host.root / "etc/sudoers.d/fleetmem-fleetmem_2").exists()

    (host.root / "srv/fleetmem2/note").write_text("of somebody else\n")
    assert one.changed("remove.yml", **NAMED) == {3}
    assert host.left_since(before) - OTHERS == {"srv/fleetmem2", "srv/fleetmem2/note"}


@pytest.mark.slow
def test_accounts_of_others(one: Site) -> None:
    """They are left as they are. One that was made by hand for fleetmem can be handed over."""
    host = one.hosts["web1"]
    before = host.changes()
    in_root(one, BY_HAND)
    for playbook, user in (("site.yml", "fleetmem"), ("site.yml", ADMIN), ("remove.yml", ADMIN)):
        one.refused(f"{user} is an account that this role did not make", playbook, fleetmem_user=user)
    in_root(one, "usermod --comment 'fleetmem collects process memory' fleetmem")  # what the message says
    one.refused("its keys would stay there", "site.yml", fleetmem_home="/srv/elsewhere")
    assert one.changed("site.yml") == {3}
    assert host.read("home/fleetmem/.ssh/authorized_keys")
    in_root(one, "rm -f /home/fleetmem/.bash* /home/fleetmem/.profile")
    one.changed("remove.yml")
    assert host.left_since(before) <= OTHERS


@pytest.mark.slow
def test_a_host_without_sudo(one: Site) -> None:
    """It is reached as root. What needs sudo is refused before anything is changed; the rest works."""
    host = one.hosts["web1"]
    in_root(one, "rm -rf /etc/sudoers.d /usr/bin/sudo /usr/sbin/visudo")
    before = host.changes()
    one.refused("there is no /usr/sbin/visudo here", "site.yml", fleetmem_sudo=True, ansible_user="root")
    assert one.changed("site.yml", ansible_user="root") == {4}
    assert one.changed("site.yml", ansible_user="root") == {0}
    assert one.changed("remove.yml", ansible_user="root") == {3}
    assert host.left_since(before) <= OTHERS | OTHERS_OF_ROOT


@pytest.mark.slow
def test_what_fleetmem_refuses(one: Site) -> None:
    """No key, one that is none, a user with an odd name, no fleetmem: the reason is shown, and no account is made."""
    one.refused("name a file of the control node", "site.yml", fleetmem_public_keys=[])
    one.refused("not a public key", "site.yml", fleetmem_public_keys=[str(one.key)])
    one.refused("is not the name of a user", "site.yml", fleetmem_user="a/b")
    one.refused("/srv/no/fleetmem", "site.yml", fleetmem_program="/srv/no/fleetmem")


@pytest.mark.slow
def test_an_account_made_and_removed_by_hand(one: Site) -> None:
    """Made as docs/how-to/least-privilege.md says, and removed while fleetmem is connected, as remove.md says."""
    host = one.hosts["web1"]
    before = host.changes()
    line = one.cli("probe", "--authorized-keys", f"{one.key}.pub", "--sudo").stdout
    in_root(one, f"{BY_HAND}; usermod --password '*' fleetmem")  # as sshd runs without PAM here
    in_root(one, "install -d -o fleetmem -m 700 ~fleetmem/.ssh; cat >~fleetmem/.ssh/authorized_keys", line)
    in_root(one, "umask 227; cat >/etc/sudoers.d/fleetmem; visudo -c", script.sudoers("fleetmem"))
    flags = ("-i", one.address("web1"), "-p", host.sshd.port, "-u", "fleetmem", "-k", one.key, "--sudo", "-o", "-")
    with one.cli.run(*flags, *servers.PATIENT, "--interval", 1) as running:
        wait_for("it answers", running.outcomes)
        assert running.outcomes()[0]["ok"], json.dumps(running.outcomes()[0])
        (block,) = (block for block in documents.blocks("docs/how-to/remove.md") if "userdel" in block.text)
        in_root(one, block.text)
        assert host.left_since(before) <= OTHERS
        wait_for("the session has ended", lambda: not host.sshd.probes())


def in_root(site: Site, command: str, text: str = "") -> None:
    """Runs a command as root on the only host, over SSH."""
    ((name, host),) = site.hosts.items()
    words = [str(site.folder / "ssh"), "-p", str(host.sshd.port), f"root@{site.address(name)}", f"set -eu\n{command}"]
    done = subprocess.run(words, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_arguments_are_the_defaults() -> None:
    """Each variable is declared with its type, has the same default in both files, and is in the documentation."""
    role = PLAYBOOKS / "roles" / "fleetmem"
    defaults = yaml.safe_load((role / "defaults" / "main.yml").read_text())
    specs = yaml.safe_load((role / "meta" / "argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert {name: spec["default"] for name, spec in specs.items()} == defaults
    kinds = {"str": str, "list": list, "bool": bool}
    assert all(isinstance(defaults[name], kinds[spec["type"]]) for name, spec in specs.items())
    page = (REPOSITORY / "docs" / "how-to" / "ansible.md").read_text()
    assert [name for name in defaults if f"`{name}`" not in page] == []
