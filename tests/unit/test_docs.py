"""The documents say what the code does."""

import hashlib
import importlib
import json
import pkgutil
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from typer.main import get_command
from typer.testing import CliRunner

from fleetmem import config, model
from fleetmem.cli import make_app
from fleetmem.connect import guard
from fleetmem.connect.openssh import directives
from fleetmem.doctor.findings import Check
from fleetmem.errors import Kind
from fleetmem.inventory.ansible import ansible_config as ansible_settings
from fleetmem.inventory.ansible import connection
from fleetmem.inventory.ansible.arguments import FATES, Fate
from fleetmem.inventory.entries import parse_hosts
from fleetmem.inventory.patterns import select
from fleetmem.inventory.sources import KINDS
from fleetmem.model import CollectorStats, Counter
from fleetmem.probe import frame, parse, script
from fleetmem.runtime.exit_status import ExitStatus
from fleetmem.sinks import records
from fleetmem.sinks.pages import exposition

DOCS = Path(__file__).parents[2] / "docs"
METRICS = (DOCS / "reference" / "metrics.md").read_text(encoding="utf-8")
INVENTORY = (DOCS / "reference" / "inventory.md").read_text(encoding="utf-8")
SSH = (DOCS / "reference" / "ssh.md").read_text(encoding="utf-8")
SECURITY = (DOCS / "explanation" / "security.md").read_text(encoding="utf-8")
TROUBLESHOOTING = (DOCS / "troubleshooting.md").read_text(encoding="utf-8")
ARCHITECTURE = (DOCS / "explanation" / "architecture.md").read_text(encoding="utf-8")


def documented(heading: str) -> set[str]:
    """Returns the measures in the table below a heading of metrics.md."""
    section = METRICS.split(f"## {heading}", 1)[1].split("\n## ", 1)[0]
    return set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))


def test_every_process_measure_is_documented() -> None:
    """metrics.md lists the measures of a process, and no others."""
    assert documented("Processes") == set(model.Measure) == {*model.PROCESS_MEASURES, *model.MORE_MEASURES}


def test_every_command_measure_is_documented() -> None:
    """metrics.md lists the measures of a command, and no others."""
    assert documented("Commands") == set(model.measures_of_sum(list(model.Measure)))


def test_every_host_measure_is_documented() -> None:
    """metrics.md lists the measures of a host, and no others."""
    assert documented("Hosts") == set(model.HOST_MEASURES)


def test_every_reason_is_documented() -> None:
    """metrics.md lists why a process may be left out, in the order in which it is asked."""
    section = METRICS.split("## `other`", 1)[1].split("\n## ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(model.LeftOut)


def test_the_tables_of_counters_are_made_from_the_code() -> None:
    """metrics.md has what `make docs-tables` writes."""
    subprocess.run([sys.executable, "scripts/docs_tables.py", "--check"], cwd=DOCS.parent, check=True)


def test_every_family_of_prometheus_is_documented() -> None:
    """metrics.md lists what Prometheus can scrape, and nothing else."""
    assert documented("Prometheus") == set(exposition.FAMILIES)


def test_labels_of_prometheus_are_documented() -> None:
    """metrics.md says which labels the series of a metric have."""
    section = METRICS.split("## Prometheus", 1)[1]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", section, re.MULTILINE)
    told = {name: re.findall(r"`(\w+)`", labels) for name, labels in rows}
    levels = {"process": ["host", "command", "pid"], "command": ["host", "command"], "host": ["host"], "up": ["host"]}
    expected = {family: levels[family.split("_")[0]] for family in exposition.FAMILIES}
    assert told == expected | {"host_failure": ["host", "kind"]}


def test_the_records_of_counters_are_documented() -> None:
    """metrics.md shows a record of counters as it is written, and names the columns that only files have."""
    section = METRICS.split("## Files", 1)[1]
    counters = (Counter("", "hosts_up", 50), Counter("statsd", "points_sent_total", 1200))
    assert records.json_line(records.stats_to_json(CollectorStats("ops1", 1_700_000_000.25, counters))) in section
    columns = records.FILE_CSV_COLUMNS[len(records.CSV_COLUMNS) :]
    assert "`{}`, `{}` and `{}`".format(*columns) in section


def test_what_the_deployment_guide_names_is_there() -> None:
    """deploy.md can be followed: its files exist, and so do the settings and flags that it mentions."""
    guide = (DOCS / "how-to" / "deploy.md").read_text(encoding="utf-8")
    paths = set(re.findall(r"\bdeploy/[\w.@*/-]*[\w*]", guide))
    assert {"deploy/systemd/*.service", "deploy/kubernetes/config.toml", "deploy/Dockerfile"} <= paths
    for path in paths:
        assert list(DOCS.parent.glob(path)), path
    sections = {name: field.default for name, field in config.Settings.model_fields.items()}
    keys = re.findall(rf"\b({'|'.join(sections)})\.(?!md\b)(\w+)", guide)
    assert ("run", "health_listen") in keys
    assert all(key in type(sections[section]).model_fields for section, key in keys)


def test_every_kind_of_inventory_is_documented() -> None:
    """inventory.md has a row for each, and no others."""
    section = INVENTORY.split("## Kinds", 1)[1].split("\n### ", 1)[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE) == list(KINDS)


@pytest.mark.parametrize("key", config.InventorySection.model_fields)
def test_every_setting_of_inventories_is_documented(key: str) -> None:
    """inventory.md names the keys of its section."""
    assert f"inventory.{key}" in INVENTORY


def _ansible_row(what: str) -> list[set[str]]:
    """Returns the names in each column of the table of Ansible's inventories."""
    (line,) = [line for line in INVENTORY.splitlines() if line.startswith(f"| {what} |")]
    return [set(re.findall(r"`([\w-]+)`", column)) for column in line.split("|")[2:5]]


def test_what_becomes_of_ansible_variables_is_documented() -> None:
    """The table has what the code has, column by column."""
    taken, reported, _left_out = _ansible_row("variables")
    assert (taken, reported) == (set(connection.TAKEN), set(connection.REPORTED))
    taken, reported, _left_out = _ansible_row("ansible.cfg, environment")
    assert (taken, reported) == (set(ansible_settings.TAKEN), set(ansible_settings.REPORTED))


def test_what_becomes_of_arguments_of_ssh_is_documented() -> None:
    """Each option that is known has its place; every other one is reported."""
    taken, _reported, left_out = _ansible_row("arguments of ssh")
    (silent,) = [part for part in INVENTORY.split("\n\n") if part.startswith("These options of ssh make no difference")]
    documented = {
        Fate.TAKEN: taken,
        Fate.LEAVES_OUT: left_out - {"ProxyCommand", "-F"},
        Fate.SILENT: set(re.findall(r"`([\w-]+)`", silent)),
    }
    assert {fate: {option for option, its in FATES.items() if its is fate} for fate in documented} == documented


def test_the_examples_of_inventories_are_right() -> None:
    """The JSON in inventory.md is read, the patterns of its table can be."""
    example = re.findall(r"```json\n(.*?)```", INVENTORY, re.DOTALL)[0]
    hosts = parse_hosts(json.loads(example), "inventory.md")
    assert hosts[0].jump == "ops@bastion:22"
    fleet = [replace(hosts[0], groups=frozenset({"web", "db", "eu", "old"}), labels={"env": "prod", "role": "web"})]
    section = INVENTORY.split("## Patterns", 1)[1].split("\n## ", 1)[0]
    terms = [
        term for row in re.findall(r"^\| (`.*?`) \|", section, re.MULTILINE) for term in re.findall(r"`(.*?)`", row)
    ]
    assert len(terms) >= 14
    for term in (*terms, "web:db:&eu:!old"):
        select(term.replace("\\|", "|"), fleet)


def digest(*words: str) -> str:
    """Returns the SHA-256 of what `fleetmem probe` prints with these flags."""
    done = CliRunner().invoke(make_app(), ["probe", *words])
    assert done.exit_code == 0
    return hashlib.sha256(done.stdout_bytes).hexdigest()


@pytest.mark.parametrize("protocol", [(), ("--protocol", "2")])
@pytest.mark.parametrize("words", [(), ("--command",), ("--command", "--sudo")])
def test_what_runs_on_hosts_is_documented_byte_for_byte(words: tuple[str, ...], protocol: tuple[str, ...]) -> None:
    """security.md has what the program prints of either protocol: people renew keys and sudoers by these digests."""
    assert f"| `{' '.join(('fleetmem probe', *words, *protocol))}` | `{digest(*words, *protocol)}` |" in SECURITY


@pytest.mark.parametrize("protocol", [(), ("--protocol", "2")])
def test_the_script_that_sudo_allows_is_documented(protocol: tuple[str, ...]) -> None:
    """security.md has the digest that is in the rule and in the command."""
    rule = " ".join(("fleetmem probe --sudoers USER", *protocol))
    (shown,) = re.findall(rf"\| the script that `{rule}` allows \| `(\w+)` \|", SECURITY)
    for words in (("--sudoers", "ops"), ("--command", "--sudo")):
        assert shown in CliRunner().invoke(make_app(), ["probe", *words, *protocol]).output


def test_the_usual_probe_stays_as_it_is() -> None:
    """Keys and sudoers rules on hosts are limited to it by its digest: another digest is another probe."""
    assert script.digest() == script.digest(1) == "483275877ca520f449a7eb901f97aa7ac6d53433281397b79890e0b55f47d436"


def test_the_limits_of_a_host_are_documented() -> None:
    """security.md has the numbers that the code has."""
    assert f"more than {parse.MAX_PROCESSES:,} processes in a frame" in SECURITY
    assert f"at {frame.MAX_FRAME_BYTES // 1024**2} MiB after it" in SECURITY
    assert guard.ALLOWANCE_SECONDS == 0.5
    assert "after half a second of our CPU" in SECURITY
    assert f"more than {guard.SHARE:.0%} of a core".replace("%", " %") in SECURITY
    assert f"the same at {guard.MAX_UNREAD_BYTES // 1024**2} MiB of answers" in SECURITY


def steps() -> list[str]:
    """Returns the functions that architecture.md names on the way of a row."""
    return re.findall(r"^\| \d \| `([\w.]+)` \|", ARCHITECTURE, re.MULTILINE)


def test_a_row_passes_at_most_seven_functions_and_no_module_twice() -> None:
    """The main path stays as short as architecture.md promises."""
    modules = [name.removeprefix("fleetmem.").split(".")[:2] for name in steps()]
    assert len(steps()) == 7
    assert len({tuple(module) for module in modules}) == 7


@pytest.mark.parametrize("name", steps())
def test_the_functions_of_the_main_path_exist(name: str) -> None:
    """A function that architecture.md names can be imported under that name."""
    assert callable(pkgutil.resolve_name(name))


def test_the_collector_fits_a_page() -> None:
    """collector.py stays thin: what owns everything grows for ever."""
    source = Path(importlib.import_module("fleetmem.collector").__file__ or "")
    assert len(source.read_text(encoding="utf-8").splitlines()) <= 140


def test_every_check_of_the_doctor_is_documented() -> None:
    """doctor.md lists what is looked at, and nothing else, in the order in which it is told."""
    section = (DOCS / "reference" / "doctor.md").read_text(encoding="utf-8").split("## Checks", 1)[1]
    assert re.findall(r"^\| `([\w.]+)` \|", section, re.MULTILINE) == list(Check)


def test_settings_of_ssh_that_are_not_honoured_are_documented() -> None:
    """The table of the ssh configuration names each one that gets a warning."""
    (line,) = [line for line in SSH.splitlines() if line.startswith("| `CanonicalizeHostname`")]
    assert {word.lower() for word in re.findall(r"`(\w+)`", line)} == set(directives.OTHERS)
    honoured = SSH[SSH.index("Honoured: ") : SSH.index("| what stands there |")]
    assert {word.lower() for word in re.findall(r"`(\w+)`", honoured)} >= directives.HONOURED


def test_every_kind_of_failure_has_its_part_in_troubleshooting() -> None:
    """troubleshooting.md has a heading for each kind, and none that is no kind."""
    assert re.findall(r"^### `(\w+)`$", TROUBLESHOOTING, re.MULTILINE) == list(Kind)


def _quoted_messages() -> list[str]:
    """Returns the words of messages that troubleshooting.md explains."""
    log = TROUBLESHOOTING.split("## The log says", 1)[1].split("\n## ", 1)[0]
    rows = TROUBLESHOOTING.split("### `auth_failed`", 1)[1].split("\n### ", 1)[0] + log
    return re.findall(r"^\| `([^`]+)` \|", rows, re.MULTILINE)


@pytest.mark.parametrize("words", _quoted_messages())
def test_troubleshooting_quotes_messages_that_exist(words: str) -> None:
    """A message that is reworded is reworded in troubleshooting.md, too."""
    sources = Path(config.__file__).parents[1].rglob("*.py")
    # A message may be put together of several literals, line by line.
    assert any(words in re.sub(r'"\s+f?"', "", path.read_text(encoding="utf-8")) for path in sources)


def test_every_command_is_listed() -> None:
    """commands.md has each command of fleetmem, and no other."""
    table = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8").split("\n## ", 1)[0]
    assert set(re.findall(r"^\| `fleetmem (\w+)` \|", table, re.MULTILINE)) == set(get_command(make_app()).commands)  # type: ignore[attr-defined]


def test_the_exit_statuses_are_documented() -> None:
    """commands.md lists each status that collect or run can end with."""
    table = (DOCS / "reference" / "commands.md").read_text(encoding="utf-8").split("## Exit status", 1)[1]
    statuses = {int(status) for status in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)}
    assert statuses == set(ExitStatus) - {ExitStatus.TERMINATED}


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "SECURITY.md", "examples/README.md"])
def test_pages_of_contributors_name_what_is_there(page: str) -> None:
    """Files in backticks, links, and targets of the Makefile exist."""
    root = DOCS.parent
    text = (root / page).read_text(encoding="utf-8")
    named = re.findall(r"`((?:src|tests|docs|tools|scripts|deploy|examples|\.github)/[\w./-]*)`", text)
    linked = re.findall(r"\]\((?!https?:)([^)#]+)", text)
    assert linked
    assert not [path for path in named if not (root / path).exists()]
    assert not [path for path in linked if not (root / page).parent.joinpath(path).exists()]
    makefile = (root / "Makefile").read_text(encoding="utf-8")
    assert not [name for name in re.findall(r"\bmake ([a-z][a-z-]+)`", text) if f"\n{name}:" not in makefile]
