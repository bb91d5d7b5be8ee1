import re
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from fleetmem.errors import Kind
from fleetmem.model import Detail, Host, ProcessMemory, Sample
from fleetmem.shape.limits import Limits
from fleetmem.sinks.pages.exposition import FAMILIES, Exposition, HostState, command_label, label_value
from unit.builders import TOTAL_BYTES, WEB, process, sample

Labels = dict[str, str]
_ESCAPED = re.compile(r"\\(\\|x([0-9a-f]{2})|u([0-9a-f]{4}))")


def written(*states: tuple[Host, HostState], prefix: str = "fleetmem") -> str:
    """Returns the exposition of these hosts."""
    exposition = Exposition(prefix)
    texts = [exposition.host(host, state) for host, state in states]
    return "".join(
        (exposition.header(family) + b"".join(text.get(family, b"") for text in texts)).decode("utf-8")
        for family in FAMILIES
    )


def parsed(text: str) -> dict[str, list[tuple[Labels, float]]]:
    """Returns the samples by name, as prometheus_client reads them."""
    found: dict[str, list[tuple[Labels, float]]] = {}
    for family in text_string_to_metric_families(text):
        assert family.type in ("counter", "gauge")
        assert family.documentation
        for one in family.samples:
            assert one.timestamp is None
            assert (family.type == "counter") is one.name.endswith("_total")
            found.setdefault(one.name, []).append((dict(one.labels), one.value))
    return found


def shown(outcome: Sample) -> dict[str, list[tuple[Labels, float]]]:
    """Returns the samples that a host has after a good outcome."""
    return parsed(written((outcome.host, HostState().after(outcome))))


def original(label: str) -> str:
    """Returns the name that a label was made of."""

    def one(match: re.Match[str]) -> str:
        if match[1] == "\\":
            return "\\"
        code = int(match[2] or match[3], 16)
        return chr(code + 0xDC00 if match[2] and code > 0x7F else code)

    return _ESCAPED.sub(one, label)


def test_a_process() -> None:
    """Bytes, and a ratio from 0 to 1, with host, command and pid as labels."""
    found = shown(sample(process(7, "nginx", TOTAL_BYTES // 4, 8192)))
    labels = {"host": "web01", "command": "nginx", "pid": "7"}
    assert found["fleetmem_process_rss_bytes"] == [(labels, TOTAL_BYTES // 4)]
    assert found["fleetmem_process_vsz_bytes"] == [(labels, 8192)]
    assert found["fleetmem_process_mem_ratio"] == [(labels, 0.25)]
    assert "fleetmem_command_rss_bytes" not in found


def test_a_command() -> None:
    """Sums, and how many processes there are."""
    found = shown(sample(process(1, "nginx", 4096), process(2, "nginx", 8192), limits=Limits(Detail.COMMAND)))
    labels = {"host": "web01", "command": "nginx"}
    assert found["fleetmem_command_rss_bytes"] == [(labels, 12288)]
    assert found["fleetmem_command_vsz_bytes"] == [(labels, 16384)]
    assert found["fleetmem_command_procs"] == [(labels, 2)]
    [(ratio_labels, ratio)] = found["fleetmem_command_mem_ratio"]
    assert ratio_labels == labels
    assert ratio == pytest.approx(12288 / TOTAL_BYTES, abs=1e-8)
    assert "fleetmem_process_rss_bytes" not in found


def test_a_host() -> None:
    """What is known of the host itself, in base units, and when it was taken."""
    found = shown(sample(process(1), process(2)))
    hosts = {name: rows[0][1] for name, rows in found.items() if rows[0][0] == {"host": "web01"}}
    assert hosts == {
        "fleetmem_up": 1,
        "fleetmem_host_sample_unix_seconds": 1_700_000_000.25,
        "fleetmem_host_mem_total_bytes": TOTAL_BYTES,
        "fleetmem_host_mem_available_bytes": 3 * 1024**3,
        "fleetmem_host_swap_total_bytes": 1024**3,
        "fleetmem_host_swap_free_bytes": 1024**2,
        "fleetmem_host_processes": 2,
        "fleetmem_host_collect_seconds": 0.125,
        "fleetmem_host_oom_kills_total": 2,
    }


def test_the_prefix_has_no_dots() -> None:
    """A dot is not legal in a metric name."""
    text = written((WEB, HostState().after(sample(process()))), prefix="ops.memory")
    assert all(name.startswith("ops_memory_") for name in parsed(text))


def test_what_was_left_out_is_other() -> None:
    """Under pid 0, which no process has; a real `other` is spelled so that it is none."""
    processes = [process(1, "other", 300), process(2, "big", 200), process(3, "small", 1)]
    found = shown(sample(*processes, limits=Limits(top=2)))["fleetmem_process_rss_bytes"]
    assert [(labels["command"], labels["pid"], value) for labels, value in found] == [
        (r"\x6fther", "1", 300),
        ("big", "2", 200),
        ("other", "0", 1),
    ]
    found = shown(sample(*processes, limits=Limits(Detail.COMMAND, top=2)))["fleetmem_command_rss_bytes"]
    by_command = sorted((labels["command"], value) for labels, value in found)
    assert by_command == [(r"\x6fther", 300), ("big", 200), ("other", 1)]


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("café", "café"),
        ('a "b"\nc', 'a "b"\nc'),
        ("caf\udce9", r"caf\xe9"),
        (r"a\b", r"a\\b"),
        (r"caf\xe9", r"caf\\xe9"),
        ("\ud800", r"\ud800"),
        ("", ""),
        ("Other", "Other"),
        ("other", r"\x6fther"),
        (r"\x6fther", r"\\x6fther"),
    ],
)
def test_label_values(name: str, label: str) -> None:
    """A name is shown as it is, where that is UTF-8 and cannot be taken for another one."""
    assert command_label(name) == label
    assert original(label) == name


def test_a_host_called_other_is_called_so() -> None:
    """Only among commands the word has a meaning."""
    assert label_value("other") == "other"


def raw_names() -> st.SearchStrategy[str]:
    """Any name that a kernel can hold, as the parser decodes it."""
    byte_lists = st.lists(st.integers(1, 255), max_size=15) | st.lists(st.sampled_from(b'\\x6fther"\n\xe9\xc3\xa9 u'))
    return byte_lists.map(lambda codes: bytes(codes).decode("utf-8", "surrogateescape"))


def all_named(names: Iterable[str]) -> list[ProcessMemory]:
    """Returns a process of each name."""
    return [process(pid, name, pid * 4096, pid * 9000) for pid, name in enumerate(names, start=1)]


@given(st.lists(raw_names(), unique=True, max_size=20), st.sampled_from(Detail), st.none() | st.integers(1, 5))
@example(["other", r"\x6fther", r"\\x6fther", "\udce9", r"\xe9", "é", "", "\n", r"\n"], Detail.COMMAND, None)
@example([bytes([code]).decode("utf-8", "surrogateescape") for code in range(1, 256)], Detail.COMMAND, None)
@example([bytes([code]).decode("utf-8", "surrogateescape") for code in range(1, 256)], Detail.PROCESS, 200)
def test_every_name_can_be_scraped(names: list[str], detail: Detail, top: int | None) -> None:
    """The text parses, no two things share their labels, each name can be had back, and the values are the sample's."""
    outcome = sample(*all_named(names), limits=Limits(detail, top=top))
    shaped = outcome.shaped
    kept = shaped.processes or shaped.commands
    other = shaped.other_processes or shaped.other_commands
    found = shown(outcome)
    measures = ("rss_bytes", "rss_bytes", 1), ("vsz_bytes", "vsz_bytes", 1), ("mem_ratio", "mem_percent", 100)
    for measure, field, divisor in measures:
        rows = found.get(f"fleetmem_{detail}_{measure}", [])
        assert len({frozenset(labels.items()) for labels, _value in rows}) == len(rows)
        told = {original(labels["command"]): value for labels, value in rows if labels["command"] != "other"}
        assert told == {row.command: pytest.approx(getattr(row, field) / divisor, abs=1e-9) for row in kept}
        rest = [value for labels, value in rows if labels["command"] == "other"]
        assert rest == ([pytest.approx(getattr(other, field) / divisor, abs=1e-9)] if other else [])


@given(raw_names(), raw_names())
def test_two_names_never_share_a_label(one: str, another: str) -> None:
    """Nothing can pose as something else."""
    assert (command_label(one) == command_label(another)) == (one == another)
    assert "other" not in (command_label(one), command_label(another))
    command_label(one).encode("utf-8")


@given(st.lists(raw_names(), unique=True, min_size=1, max_size=5))
def test_hosts_of_any_name_are_kept_apart(names: list[str]) -> None:
    """Each host has its own series, whatever it is called."""
    hosts = [Host(name, "10.0.0.1") for name in names]
    text = written(*((host, HostState().after(sample(process(), host=host))) for host in hosts))
    labels = [labels["host"] for labels, _value in parsed(text)["fleetmem_up"]]
    assert [original(label) for label in labels] == names


@pytest.mark.slow
@given(st.lists(st.booleans(), max_size=8))
def test_series_are_counted(answers: list[bool]) -> None:
    """`series` is what the text holds, whatever came before."""
    state = HostState()
    for is_good in answers:
        outcome = sample(process(1, "a"), process(2, "b"), process(3, "c"), limits=Limits(top=2))
        state = state.after(outcome) if is_good else state.after_failure(Kind.UNREACHABLE)
        assert sum(map(len, parsed(written((WEB, state))).values())) == state.series


def test_a_host_that_is_away() -> None:
    """`up` is 0 at once; the last sample is shown for two cycles, then the time it was taken alone."""
    state = HostState().after(sample(process()))
    for _cycle in range(2):
        state = state.after_failure(Kind.UNREACHABLE)
        found = parsed(written((WEB, state)))
        assert found["fleetmem_up"][0][1] == 0
        assert found["fleetmem_process_rss_bytes"]
    found = parsed(written((WEB, state.after_failure(Kind.UNREACHABLE))))
    assert {name: rows[0][1] for name, rows in found.items()} == {
        "fleetmem_up": 0,
        "fleetmem_host_failure": 1,
        "fleetmem_host_sample_unix_seconds": 1_700_000_000.25,
    }
    again = state.after_failure(Kind.UNREACHABLE).after(sample(process()))
    assert parsed(written((WEB, again)))["fleetmem_up"][0][1] == 1
    assert again.failures == 0


def test_a_host_that_never_answered() -> None:
    """There is no time of a sample that there never was."""
    assert list(parsed(written((WEB, HostState().after_failure(Kind.UNREACHABLE))))) == [
        "fleetmem_up",
        "fleetmem_host_failure",
    ]


def test_unknown_memory_is_not_shown() -> None:
    """What an old kernel does not tell is no 0."""
    memory = sample().shaped.memory
    unknown = type(memory)(memory.total_bytes, None, None, None, None, None)
    found = shown(sample(process(), memory=unknown))
    assert "fleetmem_host_mem_available_bytes" not in found
    assert "fleetmem_host_mem_total_bytes" in found


def test_labels_of_the_inventory() -> None:
    """Those that are wanted, with their own values, on every sample of the host; one that it lacks is left out."""
    host = Host("web01", "10.0.0.1", labels={"env": 'pr"o\\d', "Cost Center": "é", "other": "x"})
    state = HostState().after(sample(process(7, "nginx"), host=host))
    texts = Exposition("fleetmem", ["Cost Center", "env", "none"]).host(host, state)
    found = parsed(
        "".join(Exposition("fleetmem").header(family).decode() + text.decode() for family, text in texts.items())
    )
    expected = {"host": "web01", "Cost_Center": "é", "env": 'pr"o\\\\d'}
    assert all(expected.items() <= labels.items() for samples in found.values() for labels, _value in samples)
    assert found["fleetmem_process_rss_bytes"][0][0] == {**expected, "command": "nginx", "pid": "7"}
