import os
import time
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fleetmem.connect.openssh import config_file as ssh_config
from fleetmem.connect.openssh.config_file import HostDirectives, SshConfig, expand, matches_list
from fleetmem.errors import ConfigError
from fleetmem.runtime.bounded_file import read_text


def _ask(
    folder: Path, text: str, host: str = "web01", user: str | None = None, port: int | None = None
) -> HostDirectives:
    path = folder / "config"
    path.write_text(text)
    return SshConfig([path]).ask(host, user, port)


def _value(answer: HostDirectives, keyword: str) -> tuple[str, ...] | None:
    setting = answer.get(keyword)
    return setting.arguments if setting else None


def test_no_file() -> None:
    """Without any file nothing is set."""
    assert list(SshConfig([]).ask("web01", None, None)) == []


def test_the_first_value_counts(tmp_path: Path) -> None:
    """Of several files and blocks the first that sets something wins; IdentityFile and CertificateFile add up."""
    first, second = tmp_path / "first", tmp_path / "second"
    first.write_text("Host web*\n User a\n IdentityFile one\nHost *\n User b\n IdentityFile two\n IdentityFile one\n")
    second.write_text("User c\nPort 22\nIdentityFile three\n")
    answer = SshConfig([first, second]).ask("web01", None, None)
    assert _value(answer, "user") == ("a",)
    assert _value(answer, "port") == ("22",)
    assert [setting.arguments for setting in answer.all("identityfile")] == [("one",), ("two",), ("three",)]


@pytest.mark.parametrize(
    ("line", "arguments"),
    [
        ("User ubuntu", ("ubuntu",)),
        ("  user=ubuntu", ("ubuntu",)),
        ("USER = ubuntu", ("ubuntu",)),
        ("User\tubuntu  # not root", ("ubuntu",)),
        ('User "two words"', ("two words",)),
        ("User 'two words'", ("two words",)),
        (r"User two\ words", ("two words",)),
        (r'User "a \"quoted\" word"', ('a "quoted" word',)),
        (r"User a\b", (r"a\b",)),
        ("User a#b", ("a#b",)),
        ('User "a b"c', ("a bc",)),
        ('User "#a"', ("#a",)),
        ("UserKnownHostsFile a 'b c' d", ("a", "b c", "d")),
        ('ProxyCommand sh -c "nc %h %p" # all of it', ('sh -c "nc %h %p" # all of it',)),
    ],
)
def test_lines(tmp_path: Path, line: str, arguments: tuple[str, ...]) -> None:
    """Words, quotes, escapes, equals signs and comments are taken apart as ssh does."""
    answer = _ask(tmp_path, f"# first\n\n{line}\n")
    (setting,) = answer
    assert setting.arguments == arguments
    assert str(setting.place) == f"{tmp_path / 'config'} line 3"


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("User", "User has no value"),
        ("User # nobody", "User has no value"),
        ('User "ubuntu', "a quote is not closed"),
        ("= x", "is not `Keyword value`"),
        ("Match user", "Match user has no value"),
        ("Match colour red", "Match has no condition 'colour'"),
        ("User %q", "%q stands for nothing there"),
        ("HostName %n", "%n stands for nothing there"),
        ("User ${FLEETMEM_NOT_SET}", "$FLEETMEM_NOT_SET is not set"),
    ],
)
def test_bad_lines(tmp_path: Path, line: str, what: str) -> None:
    """What ssh would stop at is an error with file and line."""
    with pytest.raises(ConfigError) as caught:
        _use(_ask(tmp_path, f"\n{line}\n"))
    assert what in str(caught.value)
    assert f"{tmp_path / 'config'} line 2" in str(caught.value)


def _use(answer: HostDirectives) -> None:
    """Does what makes use of a name and a user."""
    assert answer.address
    setting = answer.get("user")
    assert setting
    expand(setting, setting.arguments[0], answer)


@pytest.mark.parametrize(
    ("line", "matches"),
    [
        ("Host web01", True),
        ("Host db* web*", True),
        ("Host web?1", True),
        ("Host web?", False),
        ("Host web* !web01", False),
        ("Host !web01 web*", False),
        ("Host !db01", False),
        ("Host * !db01", True),
        ("Host Web01", False),
        ("Host [w]eb01", False),
        ("Match all", True),
        ("Match host web*", True),
        ("Match host WEB*,db*", True),
        ("Match !host web*", False),
        ("Match host *,!web01", False),
        ("Match originalhost web01 user ubuntu", True),
        ("Match originalhost web01 user root", False),
        ("Match user=ubuntu", True),
        ("Match sessiontype exec", True),
        ("Match sessiontype shell", False),
        ('Match exec "test %n = web01"', True),
        ("Match exec false", False),
        ("Match exec fleetmem-no-such-program", False),
        ("Match canonical", False),
        ("Match !canonical all", True),
        ("Match final", True),
    ],
)
def test_blocks(tmp_path: Path, line: str, matches: bool) -> None:
    """Host and Match lines say whom the lines below are about."""
    answer = _ask(tmp_path, f"{line}\n Port 2222\n", user="ubuntu")
    assert (_value(answer, "port") == ("2222",)) is matches


def test_match_sees_what_is_set_before_it(tmp_path: Path) -> None:
    """HostName, User and Tag that are set above a Match line count there; those below do not."""
    text = """
Host web01
  HostName %h.example.com
  User deploy
  Tag prod
Match host web01.example.com user deploy tagged pr*
  Port 2222
Match host web01.example.org
  Compression yes
Host *
  HostName web01.example.org
"""
    answer = _ask(tmp_path, text)
    assert answer.address == "web01.example.com"
    assert _value(answer, "port") == ("2222",)
    assert _value(answer, "compression") is None


def test_match_final_is_asked_last(tmp_path: Path) -> None:
    """Its lines see what the whole file has set, and take the place of nothing."""
    text = "Match final host *.example.com\n Port 2222\n User late\nHost *\n HostName %h.example.com\n User early\n"
    answer = _ask(tmp_path, text)
    assert (_value(answer, "port"), _value(answer, "user")) == (("2222",), ("early",))


def test_match_exec_runs_the_same_command_once(tmp_path: Path) -> None:
    """A fleet of hosts with one question has one answer."""
    path = tmp_path / "config"
    path.write_text(f"Match exec 'echo x >> {tmp_path}/log'\n Port 2222\n")
    config = SshConfig([path])
    for number in range(10):
        assert config.ask(f"web{number}", None, None).get("port")
    assert (tmp_path / "log").read_text() == "x\n"


def test_what_is_never_asked_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Match localnetwork needs to know this machine's networks: its block never holds, and the log says so once."""
    assert _ask(tmp_path, "Match localnetwork 10.0.0.0/8\n Port 2222\n").get("port") is None
    (message,) = caplog.messages
    assert message.endswith("config line 1: Match localnetwork is not supported: it counts as not met")


def test_only_the_first_of_proxy_jump_and_proxy_command_counts(tmp_path: Path) -> None:
    """They take each other's place; that there is no jump host says nothing against a command."""

    def both(text: str) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        answer = _ask(tmp_path, text)
        return _value(answer, "proxyjump"), _value(answer, "proxycommand")

    assert both("ProxyJump bastion\nProxyCommand nc %h %p\n") == (("bastion",), None)
    assert both("ProxyCommand nc %h %p\nProxyJump bastion\n") == (None, ("nc %h %p",))
    assert both("ProxyCommand none\nProxyJump bastion\n") == (None, ("none",))
    assert both("ProxyJump none\nProxyCommand nc %h %p\n") == (("none",), ("nc %h %p",))


def test_includes(home: Path, tmp_path: Path) -> None:
    """Files are found below ~/.ssh or anywhere, by pattern, in order; they hold where the Include line holds."""
    folder = home / ".ssh"
    (folder / "conf.d").mkdir(parents=True)
    (folder / "conf.d" / "2.conf").write_text("User two\nPort 2\n")
    (folder / "conf.d" / "1.conf").write_text("User one\nHost db*\n Compression yes\n")
    (tmp_path / "else").write_text("IdentityFile else\n")
    text = f"Host web*\n Include conf.d/*.conf\n ConnectTimeout 3\nHost db*\n Include ~/none {tmp_path}/else\n"
    answer = _ask(tmp_path, text)
    assert [_value(answer, keyword) for keyword in ("user", "port", "connecttimeout")] == [("one",), ("2",), ("3",)]
    assert answer.get("compression") is None
    assert answer.get("identityfile") is None
    answer = _ask(tmp_path, text, "db1")
    assert _value(answer, "identityfile") == ("else",)
    assert answer.get("user") is None


def test_files_that_include_themselves(tmp_path: Path) -> None:
    """That ends with an error, as with ssh."""
    with pytest.raises(ConfigError, match="files include each other 16 deep"):
        _ask(tmp_path, f"Include {tmp_path}/config\n")


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """A folder is none, and a missing one was asked for by name."""
    with pytest.raises(ConfigError, match="is a directory"):
        SshConfig([tmp_path])
    with pytest.raises(ConfigError, match="no such file"):
        SshConfig([tmp_path / "missing"])


def test_tokens(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They stand for what ssh_config(5) says; variables are those of the environment."""
    monkeypatch.setenv("FLEETMEM_TEST", "from outside")
    answer = _ask(tmp_path, "HostName %h.example.com\nUser deploy\nPort 2222\nHostKeyAlias alias\n")
    setting = answer.get("user")
    assert setting
    expanded = expand(setting, "%% %h %n %p %r %k %d ${FLEETMEM_TEST}", answer)
    assert expanded == f"% web01.example.com web01 2222 deploy alias {home} from outside"
    answer = _ask(tmp_path, "Port 2222\nUser deploy\n", user="root", port=22)
    assert expand(setting, "%r %p", answer) == "root 22", "what was asked for is stronger than the file"


@pytest.mark.slow
@given(st.text(alphabet="ab*?!,[]", max_size=8), st.text(alphabet="ab[]", max_size=5))
def test_patterns_have_two_signs(patterns: str, text: str) -> None:
    """Stars and question marks match, a bracket is a bracket, and an exclamation mark denies; nothing else happens."""

    def matches(pattern: str, rest: str) -> bool:
        if not pattern:
            return not rest
        if pattern[0] == "*":
            return any(matches(pattern[1:], rest[cut:]) for cut in range(len(rest) + 1))
        return bool(rest) and pattern[0] in ("?", rest[0]) and matches(pattern[1:], rest[1:])

    words = patterns.split(",")
    is_denied = any(word.startswith("!") and matches(word[1:], text) for word in words)
    is_named = any(not word.startswith("!") and matches(word, text) for word in words)
    assert matches_list(text, patterns) is (is_named and not is_denied)


@pytest.mark.slow
@given(st.text(max_size=200))
def test_nothing_but_a_configuration_error_comes_out(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a file holds."""
    path = tmp_path_factory.mktemp("any") / "config"
    path.write_text("".join(line for line in text.splitlines(keepends=True) if "exec" not in line), encoding="utf-8")
    try:
        list(SshConfig([path]).ask("web01", None, None))
    except ConfigError:
        return


@pytest.mark.slow
def test_match_exec_is_ended_with_its_children(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes too long is false, and nothing of it runs on; it knows no setting of fleetmem."""
    monkeypatch.setattr(ssh_config, "_EXEC_SECONDS", 1.0)
    monkeypatch.setenv("FLEETMEM_SSH__USER", "secret")
    path, said = tmp_path / "config", tmp_path / "said"
    path.write_text(f"Match exec 'env > {said}; sleep 3; echo late >> {said}'\n Port 2222\n")
    assert SshConfig((path,)).ask("web01", None, None).get("port") is None
    assert "FLEETMEM" not in said.read_text()
    time.sleep(2.5)
    assert "late" not in said.read_text()


@pytest.mark.slow
def test_a_match_exec_that_hangs_is_not_run_for_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of a fleet two hosts wait for it; one that answers for most hosts is run for all of them."""
    monkeypatch.setattr(ssh_config, "_EXEC_SECONDS", 0.3)
    path = tmp_path / "config"
    path.write_text(
        f"Match exec 'echo %n >>{tmp_path}/slow; sleep 60'\n Port 1\nMatch exec 'echo %n >>{tmp_path}/fast'\n Port 2\n"
    )
    config = SshConfig([path])
    begun = time.monotonic()
    answers = [config.ask(f"web{number}", None, None) for number in range(20)]
    assert time.monotonic() - begun < 15
    assert (tmp_path / "slow").read_text().split() == ["web0", "web1"]
    assert len((tmp_path / "fast").read_text().split()) == 20
    assert {_value(answer, "port") for answer in answers} == {("2",)}
    assert sum("is not run for other hosts" in message for message in caplog.messages) == 1


def test_what_is_no_file_is_not_included(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A pipe, a device and a folder are passed over, and each is told with file and line."""
    os.mkfifo(tmp_path / "1")
    (tmp_path / "2").symlink_to("/dev/zero")
    (tmp_path / "3").mkdir()
    (tmp_path / "4").write_text("Port 2222\n")
    answer = _ask(tmp_path, f"User u\nInclude {tmp_path}/[1-4]\n")
    assert _value(answer, "port") == ("2222",)
    assert [message.partition("; ")[0] for message in caplog.messages] == [
        f"ssh configuration {tmp_path}/config line 2: {tmp_path}/{number} is no file" for number in (1, 2, 3)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["pipe", "/dev/zero", "huge", "many"])
def test_a_configuration_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """A pipe that nobody writes to, an endless and a huge file, many that are huge together: an error each, in time."""
    monkeypatch.setattr(ssh_config, "read_text", partial(read_text, limit_seconds=0.3))
    path = tmp_path / "config"
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "huge":
            path.write_text("# " + "x" * (17 << 20))
        case "many":
            path.write_text(f"Include {tmp_path}/part*\n")
            for number in range(5):
                (tmp_path / f"part{number}").write_text("# " + "x" * (4 << 20))
        case _:
            path.symlink_to(kind)
    with pytest.raises(ConfigError, match=r"its end did not come within|it holds more than"):
        SshConfig([path])


def test_many_includes_and_a_circle(tmp_path: Path) -> None:
    """2,000 files are read; those that include each other are an error, however many ways there are."""
    folder = tmp_path / "many"
    folder.mkdir()
    for number in range(2000):
        (folder / str(number)).write_text(f"Host web{number}\n Port {number + 1}\n")
    path = tmp_path / "config"
    path.write_text(f"Include {folder}/*\n")
    assert _value(SshConfig([path]).ask("web1999", None, None), "port") == ("2000",)
    path.write_text(f"Include {path} {path}\n")
    with pytest.raises(ConfigError, match="files include each other 16 deep"):
        SshConfig([path])
