import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fleetmem.errors import ConfigError, HostError, Kind, LabError, SinkError, Stage
from fleetmem.safe_text import cell, printable, redact

SECRET = "hunter2"  # noqa: S105 - the one that must not be shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", ""),
        ("nginx: worker", "nginx: worker"),
        ("café", "café"),
        ("a\nb", r"a\x0ab"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("caf\udce9", r"caf\xe9"),
        ("\u202egpj.exe", r"\u202egpj.exe"),
        ("\U000e0041", r"\U000e0041"),
    ],
)
def test_printable(text: str, shown: str) -> None:
    """Every character that a terminal could mind, or that turns text around, becomes its number."""
    assert printable(text) == shown


@given(st.text())
def test_printable_is_so_for_any_text(text: str) -> None:
    """Nothing else comes out, and what is shown twice is not changed again."""
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown


@given(st.text(st.sampled_from("=+-@\t\r\n\0 a1'\"")))
@example("=cmd|'/C calc'!A0")
@example("\t=1+1")
def test_no_cell_is_a_formula(text: str) -> None:
    """A spreadsheet takes what begins with one of these for a formula; nothing else is changed."""
    shown = cell(text)
    assert not shown.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))
    assert shown[-1:] == printable(text)[-1:] or len(text) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http_sd:https://ops:hunter2@sd.example.com/targets", "http_sd:https://***@sd.example.com/targets"),
        ("https://hunter2@sd.example.com: refused", "https://***@sd.example.com: refused"),
        ("https://ops:p@ss/hunter2@sd.example.com", "https://***@sd.example.com"),
        ("jump host ops:hunter2@bastion.example.com:22: refused", "jump host ops:***@bastion.example.com:22: refused"),
        (
            "https://sd.example.com/?region=eu&token=hunter2&page=2",
            "https://sd.example.com/?region=eu&token=***&page=2",
        ),
        ("list-hosts --api-key hunter2 --all", "list-hosts --api-key *** --all"),
        ("list-hosts --password=hunter2", "list-hosts --password=***"),
        ("VAULT_TOKEN='hunter2 and more' list-hosts", "VAULT_TOKEN=*** list-hosts"),
        ('{"user": "ops", "password": "hunter2"}', '{"user": "ops", "password": ***}'),
        ("curl -H 'Authorization: Bearer hunter2' x", "curl -H 'Authorization: Bearer ***' x"),
    ],
)
def test_redact(text: str, shown: str) -> None:
    """Passwords and tokens are hidden where people write them; what is around them stays."""
    assert redact(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "key /home/ops/.ssh/id_ed25519: wrong passphrase",
        "key k is encrypted and nobody is there to type its passphrase: load it with ssh-add and leave -k out",
        "host key is ssh-ed25519 SHA256:abc, but /k/known_hosts has ssh-ed25519 SHA256:def for [web01]:2222",
        "ubuntu@web01.example.com:22",
        "sampling 2 hosts every 10 s, to statsd tcp://10.0.0.9:8125, graphite 10.0.0.9:2003",
        "2026-01-31T12:00:00.250Z aes128-gcm@openssh.com",
        "[fe80::1%eth0]:22",
        r"^(?P<app>[a-z]+)-[0-9]+@example$",
    ],
)
def test_what_holds_no_secret_stays(text: str) -> None:
    """Messages are not made unreadable."""
    assert redact(text) == text


@pytest.mark.parametrize(
    "make", [ConfigError, SinkError, LabError, lambda text: HostError(Stage.LOGIN, Kind.BAD_FRAME, text)]
)
def test_no_error_of_ours_holds_a_secret(make: type[ConfigError]) -> None:
    """Wherever it is shown."""
    error = make(f"https://ops:{SECRET}@sd.example.com: refused")
    assert str(error) == "https://***@sd.example.com: refused"


def test_a_failure_of_a_host_is_short() -> None:
    """A host may say megabytes."""
    assert len(HostError(Stage.COMMAND, Kind.COMMAND_FAILED, "no " * 1_000_000).message) == 1000


def test_a_failure_of_a_host_steers_no_terminal() -> None:
    """What a host says is on one line, in each way that a failure is shown."""
    error = HostError(Stage.COMMAND, Kind.COMMAND_FAILED, "no\x1b[2J\nshell")
    assert error.message == str(error) == r"no\x1b[2J\x0ashell"
