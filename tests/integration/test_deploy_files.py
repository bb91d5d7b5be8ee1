"""The files in deploy/, as those who read them do: Docker Compose, hadolint, kubectl, Kubernetes' schemas, systemd."""

import asyncio
import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from fleetmem import config
from fleetmem.sinks.pages.http_server import Site
from fleetmem.telemetry.health import Health

from .servers import REPOSITORY, find_tool

DEPLOY = REPOSITORY / "deploy"
PASSWORDS = {"GRAPHITE_SECRET_KEY": "one", "GRAFANA_ADMIN_PASSWORD": "two"}
EXPOSURE_TENTHS = 15  # 11 with systemd 252; others look at a few things more or less


def run(*command: object, text: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end."""
    words = [str(word) for word in command]
    return subprocess.run(words, env=os.environ | env, input=text, capture_output=True, text=True, check=False)


# --- containers ------------------------------------------------------------------------------------------------------


def compose(text: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Has Docker Compose read a text in place of deploy/docker-compose.yml; it starts nothing.

    Its exit status says nothing: the package that it comes in drops it. Where something is wrong, stdout is empty.
    """
    command = (find_tool("docker-compose"), "--project-directory", DEPLOY, "-f", "-", "config", "--format", "json")
    return run(*command, text=text, **env)


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    """The services, as Docker Compose has them when it has read the file."""
    done = compose((DEPLOY / "docker-compose.yml").read_text(), **PASSWORDS)
    assert done.stderr == ""
    services = json.loads(done.stdout)["services"]
    assert set(services) == {"fleetmem", "graphite", "grafana"}
    return dict(services)


@pytest.mark.parametrize("name", PASSWORDS)
def test_compose_has_no_default_password(name: str) -> None:
    """Without one, or with an empty one, nothing starts, and the message says which and where to read on."""
    done = compose((DEPLOY / "docker-compose.yml").read_text(), **PASSWORDS | {name: ""})
    assert done.stdout == ""
    assert f"required variable {name} is missing a value: is not set; see docs/how-to/deploy.md" in done.stderr


@pytest.mark.parametrize(
    ("right", "wrong", "complaint"),
    [
        ("image: grafana", "imag: grafana", "additional properties 'imag' not allowed"),
        ("graphite: { condition", "nobody: { condition", 'undefined service "nobody"'),
        ("[hosts, storage]", "[nowhere]", "undefined network nowhere"),
    ],
)
def test_compose_finds_what_is_wrong(right: str, wrong: str, complaint: str) -> None:
    """The check is one: an unknown key, a service and a network that are not there."""
    text = (DEPLOY / "docker-compose.yml").read_text()
    assert right in text
    done = compose(text.replace(right, wrong), **PASSWORDS)
    assert (done.stdout, complaint in done.stderr) == ("", True), done.stderr


def test_compose_mounts_what_is_there(services: dict[str, Any]) -> None:
    """All but what the user makes, by docs/how-to/deploy.md."""
    mounts = [mount for service in services.values() for mount in service["volumes"] if mount["type"] == "bind"]
    missing = {mount["source"] for mount in mounts if not Path(mount["source"]).exists()}
    assert missing <= {str(DEPLOY / "config")}
    assert all(mount["read_only"] for mount in mounts)


def test_compose_confines_its_services(services: dict[str, Any]) -> None:
    """Nobody gains rights; but for Graphite's image all are read-only, without capabilities, and not root."""
    for name, service in services.items():
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "privileged" not in service
        assert re.search(r":(?!latest$)[\w.-]+$", service["image"]), "no version"
        if name != "graphite":
            assert service["read_only"] is True
            assert service["cap_drop"] == ["ALL"]
    assert services["grafana"]["user"].startswith("472:")
    published = {name: service.get("ports", []) for name, service in services.items()}
    assert [port["host_ip"] for port in published.pop("grafana")] == ["127.0.0.1"]
    assert not any(published.values())
    assert list(services["graphite"]["networks"]) == ["storage"]


def test_health_checks_of_containers(services: dict[str, Any]) -> None:
    """Each container has one that its image has the program for; fleetmem's, which its image has, works."""
    for name in ("graphite", "grafana"):
        assert services[name]["healthcheck"]["test"][:2] == ["CMD", "wget"]
    assert services["fleetmem"]["depends_on"]["graphite"]["condition"] == "service_healthy"
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    found = re.search(r"^HEALTHCHECK .*\\\n +CMD (\[.*\])$", dockerfile, re.MULTILINE)
    listen = re.search(r"FLEETMEM_RUN__HEALTH_LISTEN=127\.0\.0\.1:(\d+)", dockerfile)
    assert found
    assert listen
    program, *arguments = json.loads(found[1])
    assert program == "python"
    health = Health()

    def is_healthy() -> bool:
        here = [argument.replace(f":{listen[1]}/", f":{site.address.rpartition(':')[2]}/") for argument in arguments]
        return run(sys.executable, *here).returncode == 0

    async def main() -> None:
        site.listen()
        serving = asyncio.create_task(site.run())
        assert await asyncio.to_thread(is_healthy)
        health.begin(0.0, 0.0)
        assert not await asyncio.to_thread(is_healthy)
        serving.cancel()
        await site.close()
        assert not is_healthy()

    site = Site("test", "127.0.0.1", 0, health.pages())
    asyncio.run(main())


def test_the_dockerfile() -> None:
    """Hadolint has nothing to say; the image is not root's."""
    done = run(find_tool("hadolint"), DEPLOY / "Dockerfile")
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    assert run(find_tool("hadolint"), "-", text="FROM python\nRUN cd / && sudo ls\n").returncode != 0
    assert re.findall(r"^USER (.*)$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE) == ["10001:10001"]


def test_the_labels_of_the_image() -> None:
    """Those of the OCI, with what pyproject.toml says; version and revision are given to the build by name."""
    dockerfile = (DEPLOY / "Dockerfile").read_text()
    final = dockerfile.rpartition("\nFROM ")[2]
    labels = dict(re.findall(r'org\.opencontainers\.image\.(\w+)="([^"]*)"', final))
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert labels == {
        "title": project["name"],
        "description": project["description"],
        "licenses": "MIT",
        "version": "$VERSION",
        "revision": "$REVISION",
    }
    assert (REPOSITORY / "LICENSE").read_text().startswith("MIT License")
    assert re.findall(r"^ARG (\w+)=$", final, re.MULTILINE) == ["VERSION", "REVISION"]


# --- Kubernetes ------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def manifests() -> str:
    """What `kubectl apply -k` would send to a cluster."""
    done = run(find_tool("kubectl"), "kustomize", DEPLOY / "kubernetes")
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.fixture
def validate(tmp_path: Path) -> Callable[[str], subprocess.CompletedProcess[str]]:
    """Checks manifests against the schemas of the newest Kubernetes that it has."""

    def check(text: str) -> subprocess.CompletedProcess[str]:
        path = tmp_path / "manifests.yaml"
        path.write_text(text)
        return run(find_tool("kubernetes-validate"), "--strict", path)

    return check


def test_kubernetes(manifests: str, validate: Callable[[str], subprocess.CompletedProcess[str]]) -> None:
    """Each manifest is what its schema says, and planted mistakes are none."""
    done = validate(manifests)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall("passed for resource", done.stdout + done.stderr)) == manifests.count("\nkind: ") == 5
    for right, wrong in (("replicas: 1", "replicas: one"), ("runAsNonRoot: true", "runAsNoRoot: true")):
        assert right in manifests
        assert validate(manifests.replace(right, wrong)).returncode != 0


def resource(manifests: str, kind: str) -> Any:
    """Returns the only resource of a kind."""
    (found,) = (one for one in yaml.safe_load_all(manifests) if one["kind"] == kind)
    return found


def test_the_pod_is_restricted(manifests: str) -> None:
    """As Kubernetes' restricted standard demands, which the namespace enforces; and read-only, without a token."""
    labels = resource(manifests, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    pod = resource(manifests, "StatefulSet")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    (container,) = pod["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"configMap", "secret"} >= {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert pod["securityContext"]["runAsUser"] == 10001, "as in the Dockerfile"


def test_the_probes_ask_what_fleetmem_answers(manifests: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages and port are those of the configuration that the pod has; nobody is let in anywhere else."""
    (container,) = resource(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    given = {variable["name"]: variable["value"] for variable in container["env"] if "value" in variable}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = config.load(DEPLOY / "kubernetes" / "config.toml", {})
    assert settings.run.health_address() == settings.prometheus.address() == ("0.0.0.0", 9877)  # noqa: S104
    assert container["ports"] == [{"name": "http", "containerPort": 9877}]
    probes = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in probes.values()} == {"http"}
    assert {probe["path"] for probe in probes.values()} == set(Health().pages())
    assert probes["liveness"]["path"] == "/healthz"
    (ingress,) = resource(manifests, "NetworkPolicy")["spec"]["ingress"]
    assert [port["port"] for port in ingress["ports"]] == ["http"]
    mounts = {mount["mountPath"] for mount in container["volumeMounts"]}
    assert settings.ssh.key[0].parent in map(Path, mounts)


def test_each_pod_has_the_share_of_its_ordinal(manifests: str) -> None:
    """Pod 0 of one has all hosts; the number of shards is that of the pods."""
    stateful = resource(manifests, "StatefulSet")["spec"]
    (container,) = stateful["template"]["spec"]["containers"]
    (ordinal,) = [variable for variable in container["env"] if variable["name"] == "SHARD"]
    label = ordinal["valueFrom"]["fieldRef"]["fieldPath"]
    assert label == "metadata.labels['apps.kubernetes.io/pod-index']"
    share = container["args"][container["args"].index("--shard") + 1]
    assert share == f"$(SHARD)/{stateful['replicas']}"
    assert config.split_shard(share.replace("$(SHARD)", "0")) == (0, stateful["replicas"])


# --- systemd ---------------------------------------------------------------------------------------------------------


def test_units(tmp_path: Path) -> None:
    """Systemd has nothing to say about them, and finds them little exposed."""
    for name in ("fleetmem.service", "fleetmem@.service"):
        text = (DEPLOY / "systemd" / name).read_text()
        unit = tmp_path / name.replace("@", "@db")
        unit.write_text(text.replace("/opt/fleetmem/bin/fleetmem", sys.executable))  # it wants a program that is there
        done = run(find_tool("systemd-analyze"), "verify", "--man=no", unit)
        assert (done.returncode, done.stdout + done.stderr) == (0, "")
        security = ("security", "--offline=yes", f"--threshold={EXPOSURE_TENTHS}")
        done = run(find_tool("systemd-analyze"), *security, unit)
        assert done.returncode == 0, done.stdout
    unit.write_text("[Service]\nExecStart=/bin/true\nTyp=notify\n")
    assert "Unknown key" in run(find_tool("systemd-analyze"), "verify", unit).stderr


def test_the_template_is_the_unit() -> None:
    """But for what makes one of several, they are the same."""
    unit, template = ((DEPLOY / "systemd" / name).read_text() for name in ("fleetmem.service", "fleetmem@.service"))
    made = template.replace(" (%i)", "").replace("%i.toml", "config.toml").replace("fleetmem/%i", "fleetmem")
    assert made.split("\n")[1:] == unit.split("\n")[1:]


def test_the_limits_of_the_units() -> None:
    """Ten thousand hosts fit, with a ProxyCommand in a shell for each."""
    unit = (DEPLOY / "systemd" / "fleetmem.service").read_text()
    measured = (REPOSITORY / "docs" / "reference" / "benchmarks.md").read_text()
    rows = re.findall(r"^\| RSS, MB \|.*", measured, re.MULTILINE)
    highest_mb = max(int(number) for number in re.findall(r"\d+", "".join(rows)))
    limits = dict(re.findall(r"^(\w+Max)=(\d+)", unit, re.MULTILINE))
    assert int(limits["MemoryMax"]) * 1024 > 2 * highest_mb
    assert int(limits["TasksMax"]) > 2 * 10_000
    assert "\nDocumentation=man:fleetmem(1)\n" in unit
