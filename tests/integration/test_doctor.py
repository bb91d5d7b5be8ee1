"""`fleetmem doctor` against real servers: each planted fault is found, and gone when its mend was applied."""

import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from . import servers
from .receivers import CarbonCache, GraphiteWebServer
from .servers import PATIENT, TOOLS, Cli, Result, Sshd, StatsD, find_tool, make_key, missing, started

HOST = "127.0.1.1"
HEALTHY = {"deleteGauges": True, "gaugesMaxTTL": 3, "flushInterval": 1000}


@dataclass(frozen=True)
class Diagnosis:
    """What the doctor said."""

    status: int
    findings: list[dict[str, Any]]
    result: Result

    def faults(self, check: str = "") -> list[dict[str, Any]]:
        """Returns problems and warnings, all or those of one check."""
        bad = [finding for finding in self.findings if finding["severity"] in ("problem", "warning")]
        return [finding for finding in bad if check in ("", finding["check"])]

    def fault(self, check: str) -> dict[str, Any]:
        """Returns the one problem or warning that there is, which has to be of this check."""
        assert [finding["check"] for finding in self.faults()] == [check], self.result.stdout
        (found,) = self.faults()
        assert found["why"]
        assert found["mend"]
        return found

    def assert_well(self) -> None:
        """Fails the test where there is a problem or a warning."""
        assert (self.status, self.faults()) == (0, []), self.result.stdout

    def value(self, check: str) -> float:
        """Returns the number of a finding."""
        (found,) = [finding["value"] for finding in self.findings if finding["check"] == check]
        return float(found)


class Doctor:
    """The command, with flags that stay the same."""

    def __init__(self, cli: Cli, *flags: object) -> None:
        self.cli = cli
        self.flags = flags

    def __call__(self, *flags: object, seconds: float = 60.0, **env: str) -> Diagnosis:
        """Returns what it says with these flags, too; where a flag comes twice, the last one counts."""
        result = self.cli("doctor", *self.flags, *flags, "--format", "jsonl", seconds=seconds, **env)
        findings = [json.loads(line) for line in result.stdout.splitlines()]
        assert findings, result.stderr
        return Diagnosis(result.status, findings, result)


def _command(mend: str) -> str:
    """Returns the command in a mend, without the comment behind it."""
    return mend.partition("   # ")[0]


def _remote_command(mend: str) -> str:
    """Returns what a mend runs on the host, with ssh, as root would type it."""
    words = shlex.split(_command(mend))
    assert words[0] == "ssh"
    return words[-1].replace("sudo ", "")


# --- hosts -----------------------------------------------------------------------------------------------------------


def _for_hosts(cli: Cli, sshd: Sshd, *flags: object) -> Doctor:
    return Doctor(cli, "-i", HOST, "-p", sshd.port, "-k", sshd.key, *PATIENT, *flags)


def test_a_host_that_is_well(fleet: Sshd, cli: Cli) -> None:
    """All that the doctor knows of a host is right, and the exit status is 0."""
    diagnosis = _for_hosts(cli, fleet)()
    diagnosis.assert_well()
    said = {finding["check"]: finding["what"] for finding in diagnosis.findings if finding["subject"] == HOST}
    assert said["host.login"] == f"logs in as {servers.USER}, uid {os.getuid()}"
    assert f"Linux {os.uname().release} has MemAvailable, anonymous memory per process" in said["host.kernel"]
    assert said["host.probe"] == "the probe works, kind status"
    assert abs(diagnosis.value("host.clock")) < 2
    assert 0 < diagnosis.value("host.cost") < 200
    assert 0 < diagnosis.value("host.round_trip") < 2000


def test_with_the_probe_as_forced_command(cli: Cli, tmp_path: Path) -> None:
    """A key that may run nothing but the probe is enough for all of it."""
    key = make_key(tmp_path / "key")
    line = cli("probe", "--authorized-keys", f"{key}.pub").stdout
    with servers.sshd(tmp_path / "sshd", public_keys=[line]) as sshd:
        diagnosis = Doctor(cli, "-i", HOST, "-p", sshd.port, "-k", key, *PATIENT)()
    diagnosis.assert_well()
    checks = {finding["check"] for finding in diagnosis.findings if finding["subject"] == HOST}
    assert checks >= {"host.kernel", "host.hidepid", "host.clock", "host.cost", "host.awk", "host.shell"}


def test_with_an_old_probe_as_forced_command(cli: Cli, tmp_path: Path) -> None:
    """A probe that knows no facts is told to be old; the host is sampled all the same."""
    key = make_key(tmp_path / "key")
    line = cli("probe", "--authorized-keys", f"{key}.pub").stdout.replace("facts.host.", "facts.none.")
    with servers.sshd(tmp_path / "sshd", public_keys=[line]) as sshd:
        fault = Doctor(cli, "-i", HOST, "-p", sshd.port, "-k", key, *PATIENT)().fault("host.probe")
    assert (fault["severity"], fault["what"]) == ("warning", "the probe there is an older one")


def test_a_wrong_key(cli: Cli, tmp_path: Path) -> None:
    """A key that the host does not let in; the mend names the key and the account."""
    key = make_key(tmp_path / "key")
    with servers.sshd(tmp_path / "sshd") as sshd:
        doctor = Doctor(cli, "-i", HOST, "-p", sshd.port, "-k", key, *PATIENT)
        diagnosis = doctor()
        assert diagnosis.status == 3
        line, ssh = diagnosis.fault("host.login")["mend"].partition("   #")[0].split(" | ")
        assert shlex.split(ssh)[:-1] == ["ssh", "-p", str(sshd.port), f"{servers.USER}@{HOST}"]
        with (sshd.folder / "authorized_keys").open("a") as file:  # which that would do, with a key that is let in
            file.write(cli(*shlex.split(line)[1:]).stdout)
        doctor().assert_well()


def test_a_changed_host_key(cli: Cli, tmp_path: Path) -> None:
    """Both fingerprints are told; the mend as it is printed removes the old key."""
    known_hosts = cli.home / ".ssh" / "known_hosts"
    known_hosts.parent.mkdir()
    other = make_key(tmp_path / "other").with_suffix(".pub").read_text()
    with servers.sshd(tmp_path / "sshd") as sshd:
        known_hosts.write_text(f"[{HOST}]:{sshd.port} {other}")
        doctor = _for_hosts(cli, sshd)
        diagnosis = doctor()
        assert diagnosis.status == 3
        fault = diagnosis.fault("host.key")
        assert fault["what"].count("SHA256:") == 2
        subprocess.run(["sh", "-ec", fault["mend"]], check=True, capture_output=True, stdin=subprocess.DEVNULL)
        doctor().assert_well()
        assert sshd.host_public_key in known_hosts.read_text()


# A copy of a folder that can be written, as far as this namespace sees it; what is written is gone with it.
_COPY = "mount -t tmpfs tmpfs {layer} && mkdir {layer}/up {layer}/work && "
_COPY += "mount -t overlay overlay -o lowerdir={folder},upperdir={layer}/up,workdir={layer}/work {folder}"


@contextmanager
def _sshd_apart(folder: Path, copied: str, prelude: str, options: str = "") -> Iterator[Sshd]:
    """Starts an sshd in a mount namespace with a folder of its own, of which it has a copy to change."""
    release = tuple(int(number) for number in os.uname().release.split(".")[:2])
    if os.getuid() != 0 or release < (5, 8):  # before it, hidepid was the same for every mount of /proc
        pytest.skip("needs root, to mount, and Linux 5.8")
    layer = folder / "layer"
    layer.mkdir()
    commands = f'{_COPY.format(layer=layer, folder=copied)}\n{prelude}\nexec "$@"'
    wrapper = [find_tool("unshare"), "--mount", "--propagation", "private", "sh", "-ec", commands, "sh"]
    with servers.sshd(folder / "sshd", options=options, wrapper=wrapper) as server:
        yield server


def _run_inside(sshd: Sshd, command: str) -> None:
    """Runs a shell command as root in the mount namespace of an sshd."""
    enter = [find_tool("nsenter"), "--target", str(sshd.pid), "--mount", "sh", "-ec", command]
    subprocess.run(enter, check=True, stdin=subprocess.DEVNULL)


def test_no_awk(cli: Cli, tmp_path: Path) -> None:
    """A host without awk is told so, and how this system installs one."""
    with _sshd_apart(tmp_path, "/usr/bin", "rm /usr/bin/awk") as sshd:
        doctor = _for_hosts(cli, sshd)
        diagnosis = doctor()
        assert diagnosis.status == 3
        fault = diagnosis.fault("host.awk")
        assert fault["what"] == "awk is missing"
        assert re.search(r"install -y (mawk|gawk)'$", fault["mend"])
        _run_inside(sshd, "ln -s mawk /usr/bin/awk")  # what the package does
        doctor().assert_well()


def test_hidepid(cli: Cli) -> None:
    """An account that sees its own processes only; the mend lets it see all, without root."""
    with ExitStack() as stack:
        # Below /tmp: sshd reads authorized_keys as the user, who may not look into a test's own folder.
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o755)
        user = "useradd -M -d / -s /bin/sh -p '*' watcher && mount -t proc -o hidepid=2 proc /proc"
        sshd = stack.enter_context(_sshd_apart(folder, "/etc", user, "AllowUsers watcher"))
        doctor = _for_hosts(cli, sshd, "-u", "watcher")
        diagnosis = doctor()
        assert diagnosis.status == 1
        fault = diagnosis.fault("host.hidepid")
        assert (fault["severity"], fault["unit"]) == ("problem", "processes seen")
        assert fault["value"] < 10
        _run_inside(sshd, _remote_command(fault["mend"]))
        mended = doctor()
        mended.assert_well()
        (seen,) = [finding["what"] for finding in mended.findings if finding["check"] == "host.hidepid"]
        assert seen == "hidepid is set, and we are let through"


@pytest.mark.parametrize(("offset", "direction", "seconds"), [("+1h", "ahead", 3600), ("-100s", "behind", 100)])
def test_a_clock_that_is_wrong(cli: Cli, tmp_path: Path, offset: str, direction: str, seconds: float) -> None:
    """A host whose clock is off says by how much."""
    faketime = next(iter((TOOLS / "root").glob("usr/lib/*/faketime/libfaketime.so.1")), None) or missing("libfaketime")
    with servers.sshd(tmp_path / "sshd", options=f"SetEnv LD_PRELOAD={faketime} FAKETIME={offset}") as sshd:
        diagnosis = _for_hosts(cli, sshd)()
        assert diagnosis.status == 1
        fault = diagnosis.fault("host.clock")
        assert (fault["what"], fault["unit"]) == (f"the clock is {direction}", "s")
        assert fault["value"] == pytest.approx(seconds, abs=2)
        assert _remote_command(fault["mend"]) == "timedatectl set-ntp true"
        config = sshd.folder / "sshd_config"
        config.write_text(re.sub("^SetEnv.*", "", config.read_text(), flags=re.MULTILINE))
        sshd.stop()
        sshd.start()
        _for_hosts(cli, sshd)().assert_well()


def test_our_own_clock_that_is_wrong(cli: Cli, tmp_path: Path) -> None:
    """Where all hosts agree against us, it is our own clock, and theirs are right."""
    faketime = next(iter((TOOLS / "root").glob("usr/lib/*/faketime/libfaketime.so.1")), None) or missing("libfaketime")
    with servers.sshd(tmp_path / "sshd", options=f"SetEnv LD_PRELOAD={faketime} FAKETIME=+1h") as sshd:
        diagnosis = Doctor(cli, "-i", "127.0.1.[1-4]", "-p", sshd.port, "-k", sshd.key, *PATIENT)()
    fault = diagnosis.fault("machine.clock")
    assert fault["what"] == "the clock is behind that of most hosts"
    assert fault["value"] == pytest.approx(3600, abs=2)


def test_a_limit_of_open_files_that_is_too_low(fleet: Sshd, cli: Cli) -> None:
    """Ten hosts and 70 files; the mend as it is printed is enough."""
    doctor = ["doctor", "-i", "127.0.1.[1-10]", "-p", fleet.port, "-k", fleet.key, "--format", "jsonl"]

    def diagnose(limit: str) -> dict[str, Any]:
        done = subprocess.run(
            ["sh", "-c", f'{limit}; exec "$@"', "sh", *cli.command(*doctor)],
            env=servers.environment(cli.home),
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=60,
            check=False,
        )
        findings = [json.loads(line) for line in done.stdout.splitlines()]
        (found,) = [finding for finding in findings if finding["check"] == "machine.files"]
        return dict(found, status=done.returncode)

    fault = diagnose("ulimit -n 70")
    assert (fault["severity"], fault["status"]) == ("problem", 1)
    assert fault["what"] == "70 open files are allowed, 10 hosts need 74"
    mended = diagnose(_command(fault["mend"]))
    assert (mended["severity"], mended["status"]) == ("ok", 0)


# --- the pipeline ----------------------------------------------------------------------------------------------------


class Servers:
    """StatsD, carbon and graphite-web; what a test changes is changed back after it."""

    def __init__(self, statsd: StatsD, carbon: CarbonCache, web: GraphiteWebServer) -> None:
        self.statsd = statsd
        self.carbon = carbon
        self.web = web
        self._well = dict(statsd.settings)
        self._has_carbon_changed = False

    def restart_statsd(self, **settings: object) -> None:
        """Starts StatsD again, with other settings."""
        self.statsd.stop()
        self.statsd.settings.update(settings)
        self.statsd.start()

    def restart_carbon(self, **values: object) -> None:
        """Starts carbon again, with other values in carbon.conf."""
        self._has_carbon_changed = True
        self.carbon.stop()
        self.carbon.configure(**values)
        self.carbon.start()

    def mend(self) -> None:
        """Has all be as it was."""
        if self.statsd.settings != self._well:
            self.restart_statsd(**self._well)
        if self._has_carbon_changed:
            self.carbon.stop()
            shutil.rmtree(self.carbon.whisper)  # what it counted is stored there, too
            self.carbon.whisper.mkdir()
            self.restart_carbon(MAX_CREATES_PER_MINUTE="inf", CARBON_METRIC_INTERVAL=0)
            self._has_carbon_changed = False


@pytest.fixture(scope="module")
def well_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """A pipeline that is well: all intervals are a second."""
    folder = tmp_path_factory.mktemp("pipeline")
    with ExitStack() as running:
        carbon = running.enter_context(started(CarbonCache(folder / "carbon")))
        web = running.enter_context(started(GraphiteWebServer(folder / "web", carbon)))
        statsd = StatsD(folder / "statsd")
        graphite = {"backends": ["./backends/graphite"], "graphiteHost": "127.0.0.1", "graphitePort": carbon.line_port}
        statsd.settings.update(HEALTHY, **graphite)
        running.enter_context(started(statsd))
        yield Servers(statsd, carbon, web)


@dataclass(frozen=True)
class Stack:
    """The pipeline and a doctor that knows it, and has never seen it."""

    servers: Servers
    doctor: Doctor
    prefix: str

    @property
    def statsd(self) -> StatsD:
        """Its StatsD."""
        return self.servers.statsd

    @property
    def carbon(self) -> CarbonCache:
        """Its carbon."""
        return self.servers.carbon

    def left(self) -> set[str]:
        """Returns the series that the doctor has left, without what differs from machine to machine."""
        names = {name for name in self.carbon.names() if f"{self.prefix}.doctor." in name}
        return {re.sub(r"doctor\.\w+", "doctor.x", name) for name in names}


@pytest.fixture
def stack(well_servers: Servers, fleet: Sshd, cli: Cli) -> Iterator[Stack]:
    """The pipeline for one test, with a prefix of its own."""
    statsd, prefix = well_servers.statsd, f"test_{secrets.token_hex(4)}"
    places = ("-g", statsd.address, "--graphite-url", well_servers.web.url)
    flags = ("--statsd-management", statsd.management_port, "--interval", 1, "--prefix", prefix)
    yield Stack(well_servers, _for_hosts(cli, fleet, *places, *flags), prefix)
    well_servers.mend()


def test_a_pipeline_that_is_well(stack: Stack) -> None:
    """Nothing to be mended: status 0; the canaries were read back on both ways, and few series are left."""
    diagnosis = stack.doctor("--graphite", stack.carbon.line_address)
    diagnosis.assert_well()
    read_back = [finding for finding in diagnosis.findings if finding["check"] == "graphite.canary"]
    assert [finding["subject"] for finding in read_back] == [stack.statsd.address, stack.carbon.line_address]
    assert not stack.statsd.gauges()
    new = {f"{stack.prefix}.doctor.x.new_1.s{number:03d}" for number in range(64)}
    left = {f"stats.gauges.{stack.prefix}.doctor.x.statsd", f"{stack.prefix}.doctor.x.graphite"} | new
    assert stack.left() == left
    stack.doctor("--graphite", stack.carbon.line_address).assert_well()
    assert stack.left() == left, "a second time leaves nothing more"


@pytest.mark.slow
def test_what_is_seen_without_management_port(stack: Stack) -> None:
    """Flush interval and what becomes of gauges, as they show in Graphite: the same as StatsD says."""
    diagnosis = stack.doctor("--statsd-management", "none")
    diagnosis.assert_well()
    assert diagnosis.value("statsd.flush") == pytest.approx(1, abs=0.3)
    assert "forgets gauges that are sent no more" in diagnosis.result.stdout
    assert "carbon makes files for 64 new series at once" in diagnosis.result.stdout


def test_sticky_gauges(stack: Stack) -> None:
    """A StatsD that repeats gauges for ever; with the settings of the mend it does not."""
    stack.servers.restart_statsd(deleteGauges=False)
    diagnosis = stack.doctor()
    assert diagnosis.status == 1
    settings = re.findall(r"(\w+): (\w+)[,\s]", _command(diagnosis.fault("statsd.sticky")["mend"]) + " ")
    assert dict(settings) == {"deleteGauges": "true", "gaugesMaxTTL": "3"}
    stack.servers.restart_statsd(**{name: json.loads(value) for name, value in settings})
    mended = stack.doctor(FLEETMEM_STATSD__RETIRE="none")
    mended.assert_well()
    assert not [finding for finding in mended.findings if "final 0" in finding["what"]]


@pytest.mark.slow
def test_sticky_gauges_are_seen_without_management_port(stack: Stack) -> None:
    """The same, found out by watching Graphite."""
    stack.servers.restart_statsd(deleteGauges=False)
    stack.doctor("--statsd-management", "none").fault("statsd.sticky")


def test_sticky_gauges_that_nothing_ends(stack: Stack) -> None:
    """Without the final 0 it is worse: graphs show what nobody uses."""
    stack.servers.restart_statsd(deleteGauges=False)
    fault = stack.doctor(FLEETMEM_STATSD__RETIRE="none").fault("statsd.sticky")
    assert fault["severity"] == "problem"


@pytest.mark.slow
@pytest.mark.parametrize("to_carbon", [True, False], ids=["to carbon", "through StatsD"])
def test_a_creation_limit(stack: Stack, *, to_carbon: bool) -> None:
    """A carbon that makes 50 files a minute; the mend as it is printed, on its own file."""
    flags = ("--graphite", stack.carbon.line_address) if to_carbon else ()
    stack.servers.restart_carbon(MAX_CREATES_PER_MINUTE=50)
    diagnosis = stack.doctor(*flags)
    assert diagnosis.status == 1
    fault = diagnosis.fault("graphite.creations")
    assert 30 < fault["value"] < 60
    conf = stack.carbon.folder / "graphite" / "conf" / "carbon.conf"
    mend = _command(fault["mend"]).replace("/opt/graphite/conf/carbon.conf", str(conf))
    subprocess.run(["sh", "-ec", mend], check=True, stdin=subprocess.DEVNULL)
    stack.servers.restart_carbon()
    stack.doctor(*flags).assert_well()


@pytest.mark.slow
def test_carbon_that_says_itself_that_it_drops(stack: Stack) -> None:
    """Its own counter is believed where the doctor sends no new series."""
    stack.servers.restart_carbon(MAX_CREATES_PER_MINUTE=50, CARBON_METRIC_INTERVAL=1)
    whisper = stack.carbon.whisper
    servers.wait_for("carbon has its own series", lambda: list(whisper.rglob("droppedCreates.wsp")))
    now = int(time.time())
    with socket.create_connection(("127.0.0.1", stack.carbon.line_port)) as connection:
        connection.sendall(b"".join(b"some.new.series_%d 1 %d\n" % (number, now) for number in range(100)))
    servers.wait_for("its limit is reached", lambda: list((whisper / "some").rglob("*.wsp")))
    fault = stack.doctor(FLEETMEM_DOCTOR__NEW_SERIES="0").fault("graphite.creations")
    assert fault["what"] == "carbon drops points of new series"
    assert fault["value"] > 30


def test_a_statsd_that_is_not_there(stack: Stack) -> None:
    """Nothing listens on the port: status 4, and not another word on what depends on it; started, all is well."""
    stack.statsd.stop()
    diagnosis = stack.doctor()
    assert diagnosis.status == 4
    fault = diagnosis.fault("statsd.server")
    assert (fault["severity"], fault["subject"]) == ("problem", stack.statsd.address)
    assert "refused" in fault["what"]
    stack.statsd.start()
    stack.doctor().assert_well()


def test_an_interval_shorter_than_the_flush(stack: Stack) -> None:
    """Samples every second, flushes every two; with the interval of the mend they fit."""
    stack.servers.restart_statsd(flushInterval=2000)
    diagnosis = stack.doctor()
    assert diagnosis.status == 1
    (fault,) = diagnosis.faults("statsd.flush")
    assert fault["what"] == "flushes every 2 s, hosts are sampled every 1 s"
    assert {finding["check"] for finding in diagnosis.faults()} == {"statsd.flush", "graphite.retention"}
    mended = stack.doctor(*shlex.split(_command(fault["mend"])))
    assert not mended.faults("statsd.flush")


def test_a_statsd_that_sends_to_nowhere(stack: Stack) -> None:
    """It has the canary, and Graphite never gets it: that, and why, is told."""
    stack.servers.restart_statsd(backends=["./backends/console"])
    diagnosis = stack.doctor(FLEETMEM_DOCTOR__WAIT_SECONDS="2")
    assert diagnosis.status == 4
    fault = diagnosis.fault("graphite.canary")
    assert 'backends: ["./backends/graphite"]' in fault["mend"]


def test_a_graphite_web_that_is_not_there(stack: Stack, cli: Cli) -> None:
    """The rest is checked all the same."""
    diagnosis = stack.doctor("--graphite-url", f"http://127.0.0.1:{servers.free_port()}")
    assert diagnosis.status == 4
    assert diagnosis.fault("graphite.web")["severity"] == "problem"
    assert "the canary was read back from StatsD" in diagnosis.result.stdout


# --- what people see -------------------------------------------------------------------------------------------------


def test_the_table_tells_equal_things_once(fleet: Sshd, cli: Cli) -> None:
    """Twenty hosts are one line for each thing that is well; numbers are told as a range."""
    flags = ("-p", fleet.port, "-k", fleet.key, *PATIENT)
    result = cli("doctor", "-i", "127.0.1.[1-20]", *flags)
    assert result.status == 0, result.stdout
    assert f"ok       20 hosts: logs in as {servers.USER}" in result.stdout
    assert re.search(
        r"^ok       20 hosts: round trip: [\d.]+ to [\d.]+ ms, median [\d.]+$", result.stdout, re.MULTILINE
    )
    assert result.stdout.startswith("note     this machine: data goes nowhere\n         why  ")
    assert result.stderr.startswith("0 problems, 0 warnings, 1 note; 20 of 20 hosts can be sampled; ")


def test_a_host_that_is_down(fleet: Sshd, cli: Cli) -> None:
    """One host of two: status 1, the other one is examined."""
    nobody = servers.free_port()
    result = cli("doctor", "-i", f"{HOST},127.0.1.2:{nobody}", "-p", fleet.port, "-k", fleet.key, *PATIENT)
    assert result.status == 1
    first, _why, mend = result.stdout.splitlines()[:3]
    assert first == f"problem  127.0.1.2:{nobody}: connection refused"
    assert mend.split(maxsplit=1)[1] == f"ssh -v -p {nobody} {servers.USER}@127.0.1.2 true"
    assert "1 of 2 hosts can be sampled" in result.stderr
    assert find_tool("ssh")
