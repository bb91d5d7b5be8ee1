import textwrap
from pathlib import Path

import bcrypt
import pytest

from fleetmem.errors import ConfigError
from fleetmem.sinks.pages import web_guard
from fleetmem.sinks.pages.passwords import parse_authorization
from fleetmem.sinks.pages.web_config import read_web_config
from fleetmem.sinks.pages.web_guard import WebGuardFiles, make_guard

from .certificates import Authority

# With this salt, not one by chance: it is part of tests' names, which must be alike in all processes of pytest.
HASH = bcrypt.hashpw(b"secret", b"$2b$04$" + b"a" * 21 + b"e").decode()
_TLS = "tls_server_config: {cert_file: a.crt, key_file: b.key"


def write(folder: Path, text: str) -> Path:
    """Returns a web configuration."""
    path = folder / "web.yml"
    path.write_text(text)
    return path


def test_all_that_there_is(tmp_path: Path) -> None:
    """The keys of the exporter toolkit; paths are relative to the file."""
    config = read_web_config(
        write(
            tmp_path,
            f"""
tls_server_config:
  cert_file: a.crt
  key_file: /etc/b.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ca.pem
  client_allowed_sans: [prometheus]
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256]
  prefer_server_cipher_suites: false
http_server_config:
  http2: false
  headers: {{X-Frame-Options: deny, Strict-Transport-Security: max-age=300}}
basic_auth_users:
  prometheus: {HASH}
  other: {HASH.replace("2b", "2y")}
""",
        )
    )
    assert config.tls
    assert (config.tls.cert_file, config.tls.key_file) == (tmp_path / "a.crt", Path("/etc/b.key"))
    assert config.tls.client_ca_file == tmp_path / "ca.pem"
    assert config.tls.openssl_suites == "ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-CHACHA20-POLY1305"
    assert list(config.users) == ["prometheus", "other"]
    assert config.headers["X-Frame-Options"] == "deny"
    assert config.locks == (True, True, True, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "neither tls_server_config nor basic_auth_users"),
        ("[]", "valid dictionary"),
        ("a: [", "line 1: "),
        ("&a [*a]", "valid dictionary"),
        (f"tls_config: {{}}\nbasic_auth_users: {{a: {HASH}}}", "tls_config: no such key"),
        ("tls_server_config: {cert_flie: x, key_file: y}", "tls_server_config.cert_file: is missing"),
        (
            "tls_server_config: {cert_flie: x, key_file: y}",
            "tls_server_config.cert_flie: no such key, or not supported",
        ),
        ("tls_server_config: {cert: x, key: y}", "tls_server_config.cert: no such key, or not supported"),
        (
            f"{_TLS}, curve_preferences: [X25519]}}",
            "tls_server_config.curve_preferences: no such key, or not supported",
        ),
        (f"{_TLS}, min_version: TLS10}}", "tls_server_config.min_version: input should be 'TLS12' or 'TLS13'"),
        (f"{_TLS}, min_version: TLS13, max_version: TLS12}}", "min_version is above max_version"),
        (f"{_TLS}, client_auth_type: RequireAnyClientCert}}", "nobody has verified"),
        (f"{_TLS}, client_auth_type: RequireAndVerifyClientCert}}", "needs client_ca_file"),
        (f"{_TLS}, client_ca_file: ca.pem}}", "client_ca_file needs client_auth_type"),
        (f"{_TLS}, client_allowed_sans: [a]}}", "client_allowed_sans needs client_auth_type"),
        (f"{_TLS}, cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]}}", "not supported: TLS_RSA_WITH_RC4_128_SHA"),
        ("http_server_config: {http2: true}", "HTTP/1 only"),
        ("http_server_config: {headers: {X-Other: a}}", "not supported: X-Other"),
        (
            'http_server_config: {headers: {X-Frame-Options: "deny\\r\\nSet-Cookie: a"}}',
            "not a value of X-Frame-Options",
        ),
        ("basic_auth_users: {a: secret}", "basic_auth_users.a: not a bcrypt hash"),
        (f"basic_auth_users: {{a: {HASH.replace('$04$', '$31$')}}}", "of cost 4 to 16"),
        (f"basic_auth_users: {{a: {HASH}, a: {HASH}}}", "the key a is there twice"),
        ("basic_auth_users: {a: 5}", "basic_auth_users.a: "),
        ("basic_auth_users: {a: !!python/object/apply:os.system [ls]}", "line 1"),
        ("rate_limit: {interval: 1s}", "rate_limit: no such key, or not supported"),
    ],
)
def test_what_is_wrong_is_said(text: str, message: str, tmp_path: Path) -> None:
    """With the file and the key, and without a hash."""
    with pytest.raises(ConfigError) as error:
        read_web_config(write(tmp_path, text))
    assert str(error.value).startswith(f"prometheus.web_config: {tmp_path}/web.yml: ")
    assert message in str(error.value)
    assert HASH[7:] not in str(error.value)
    assert "secret" not in str(error.value)


def test_files_that_cannot_be_used(tmp_path: Path) -> None:
    """The message names the file, and what is wrong with it."""
    authority = Authority(tmp_path)
    authority.issue(tmp_path, "one")
    authority.issue(tmp_path, "two")
    (tmp_path / "text").write_text("text")
    for text, message in (
        ("{cert_file: none, key_file: one.key}", f"{tmp_path}/none: no such file or directory"),
        ("{cert_file: one.crt, key_file: two.key}", f"{tmp_path}/two.key is not the key of {tmp_path}/one.crt"),
        ('{cert_file: "a\\0b", key_file: one.key}', "is no path"),
        ("{cert_file: text, key_file: one.key}", "are no certificate and key in PEM"),
        (
            "{cert_file: one.crt, key_file: one.key, client_auth_type: VerifyClientCertIfGiven, client_ca_file: text}",
            f"{tmp_path}/text holds no certificates in PEM",
        ),
    ):
        with pytest.raises(ConfigError) as error:
            make_guard(write(tmp_path, f"tls_server_config: {text}"))
        assert message in str(error.value)


@pytest.mark.parametrize(
    "value",
    [
        "{ann: *hunter2}",
        "{ann: &hunter2 x, bob: &hunter2 y}",
        "{ann: !hunter2 x}",
        "{ann: !hunter'2'hunter2 x}",
        "{ann: !hunter2!x y}",
        "{ann: !!int hunter2}",
        "{ann: !!float hunter2}",
        "{ann: !!bool hunter2}",
        "{ann: !!timestamp hunter2}",
        "{ann: !!binary hünter2}",
        "{ann: 2024-13-45}",
        "{ann: 0b}",
        "{$2b$hunter2: ann}",
        "{$2b$hunter2: ann, $2b$hunter2: bob}",
        "{ann: {hunter2: x}}",
        "{<<: hunter2}",
        "{[hunter2]: x}",
        "{ann: `hunter2}",
        "{ann: 'hunter2}",
        "ann:hunter2",
    ],
)
def test_secrets_are_in_no_error(value: str, tmp_path: Path) -> None:
    """Nor is an error one of YAML's own: what a password looks like is for nobody to know."""
    with pytest.raises(ConfigError) as error:
        read_web_config(write(tmp_path, f"basic_auth_users: {value}"))
    assert "nter2" not in str(error.value)
    assert error.value.__cause__ is None


def test_the_example_of_the_docs(tmp_path: Path) -> None:
    """People copy it. Its password is in the example of a probe."""
    text = (Path(__file__).parents[4] / "docs/how-to/protect-metrics.md").read_text(encoding="utf-8")
    example = textwrap.dedent(text.partition("```yaml\n")[2].partition("```")[0])
    config = read_web_config(write(tmp_path, example))
    assert config.locks == (True, False, False, True)
    given = parse_authorization(text.partition("value: ")[2].partition(" }")[0])
    assert given
    assert bcrypt.checkpw(given.password, config.users[given.user.decode()].encode())


def test_changes_are_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A renewed certificate and another user are; what is wrong, or lets in more, is logged once and is not."""
    caplog.set_level("INFO")
    authority = Authority(tmp_path)
    authority.issue(tmp_path, "one")
    tls = "tls_server_config: {cert_file: one.crt, key_file: one.key}\n"
    path = write(tmp_path, f"{tls}basic_auth_users: {{a: {HASH}}}")
    files = WebGuardFiles(path)
    first = files.current()
    assert files.current() is first
    authority.issue(tmp_path, "one")
    second = files.current()
    assert second.context is not first.context
    write(tmp_path, f"{tls}basic_auth_users: {{ab: {HASH}}}")
    assert list(files.current().config.users) == ["ab"]
    for wrong, message in (
        (tls, "lets in who is kept out now"),
        (f"basic_auth_users: {{ab: {HASH}}}", "lets in who is kept out now"),
        ("", "neither"),
        ("tls_", "the one before stays"),
    ):
        write(tmp_path, wrong)
        caplog.clear()
        assert [list(files.current().config.users) for _ in range(3)] == [["ab"]] * 3
        assert files.current().context
        assert caplog.text.count("ERROR") == 1
        assert message in caplog.text
        assert not files.is_latest
    path.unlink()
    assert files.current().context
    write(tmp_path, f"{tls}basic_auth_users: {{abc: {HASH}}}")
    assert list(files.current().config.users) == ["abc"]
    assert files.is_latest


def test_a_certificate_that_comes_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file itself has not changed since it was refused."""
    monkeypatch.setattr(web_guard, "_AGAIN_SECONDS", 0.0)
    authority = Authority(tmp_path)
    authority.issue(tmp_path, "one")
    files = WebGuardFiles(write(tmp_path, "tls_server_config: {cert_file: one.crt, key_file: one.key}"))
    first = files.current()
    write(tmp_path, "tls_server_config: {cert_file: two.crt, key_file: two.key}")
    assert files.current() is first
    assert not files.is_latest
    authority.issue(tmp_path, "two")
    assert files.current() is not first
    assert files.is_latest
