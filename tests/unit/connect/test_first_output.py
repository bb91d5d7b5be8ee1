"""What tells the probe from something that runs in its place."""

import pytest

from fleetmem.connect.first_output import FirstOutput
from fleetmem.errors import Cause

REQUEST = b"sample 1 status user\n"
COMMAND = b'exec /bin/sh -c \'eval "$(printf %b "$0")"\' \'' + b"x" * 3000 + b"' sample 1 status user\n"


def _output(stdout: bytes = b"", stderr: bytes = b"", request: bytes = REQUEST) -> FirstOutput:
    output = FirstOutput(request)
    for data, is_stderr in ((stdout, False), (stderr, True)):
        for at in range(0, len(data), 7):  # in pieces
            output.add(data[at : at + 7], is_stderr=is_stderr)
    return output


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        (b"sample 1 status user\r\n", b""),
        (b"$ sample 1 status user\r\n", b""),
        (b"", b"sh: 1: sample: not found\n"),
        (b"", b"bash: line 1: sample: command not found\n"),
        (b"", b"fish: Unknown command: sample\n"),
        (b"", b"zsh: command not found: sample\n"),
        (b"> ", b"sample: No such file or directory\n"),
        (b"", b"xonsh: subprocess mode: command not found: 'sample'\n"),
        (b"% Invalid input: sample\n", b""),
        (b"", b"bash: ligne 1: sample : commande introuvable\n"),
        (b">>> ", b'  File "<stdin>", line 1\n    sample 1 status user\n'),
    ],
)
def test_what_is_not_the_probe(stdout: bytes, stderr: bytes) -> None:
    """It repeats the request, or complains of it; the words are in the message."""
    output = _output(stdout, stderr)
    assert output.is_other
    error = output.error()
    assert error.cause is Cause.OTHER_OUTPUT
    assert error.message.startswith("something other than the probe answered: ")


@pytest.mark.parametrize(
    ("stdout", "stderr"),
    [
        (b"Welcome to web01\n", b""),
        (b"Linux 6.1, for example\n", b"perl: warning: Setting locale failed.\n"),
        (b"", b"this sample of a banner ends here\n"),
        (COMMAND, b""),
        (b"", b"+ " + COMMAND),
        (b"no such sampler: samples\n", b""),
    ],
)
def test_what_may_come_before_the_probe(stdout: bytes, stderr: bytes) -> None:
    """Start-up files print what they like, also the command that they were given."""
    assert not _output(stdout, stderr).is_other


def test_a_terminal() -> None:
    """The probe's own line ends otherwise there."""
    assert _output(b"BEGIN fleetmem/1 1\r\n").is_terminal
    assert not _output(b"BEGIN fleetmem/1 1\n").is_terminal
    assert _output(b"BEGIN fleetmem/1 1\r\n").error().cause is Cause.TERMINAL


def test_words_are_clean_and_short() -> None:
    """Colours and titles of a prompt are left out, and what is long is cut."""
    output = _output(b"\x1b]0;web01\x07\x1b[?2004h\x1b[01;32mroot@web01\x1b[0m# " + b"z" * 5000)
    message = output.error(" within 3 s").message
    assert message.startswith("something other than the probe answered within 3 s: root@web01 # zzz")
    assert len(message) < 300


def test_facts_are_asked_for_by_another_word() -> None:
    """What complains of the doctor's first request is told apart, too."""
    assert _output(b"", b"sh: facts: not found\n", b"facts 1 host\n").is_other


def test_a_flood_is_no_news_for_long() -> None:
    """Behind what is kept there is nothing to search: a host that prints for ever costs no search for each packet."""
    output = FirstOutput(REQUEST)
    assert output.add(b"x" * 1500, is_stderr=False)
    assert output.add(b"x" * 1500, is_stderr=False)
    assert not output.add(b"x" * 1500, is_stderr=False)
    assert output.add(b"words", is_stderr=True)
    assert not output.add(b"", is_stderr=True)
    assert output.stdout_bytes == 4500
