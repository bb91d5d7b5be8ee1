"""TLS and passwords of a page that is served, as clients meet them."""

import asyncio
import base64
import http.client
import socket
import ssl
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from urllib.parse import urlsplit

import bcrypt
import pytest

from fleetmem.model import CollectorStats, Host
from fleetmem.sinks.pages import http_server, passwords
from fleetmem.sinks.pages.http_request import Refusal
from fleetmem.sinks.pages.http_server import json_answer
from fleetmem.sinks.pages.metrics_page import PrometheusSink
from fleetmem.sinks.pages.web_guard import WebGuardFiles
from unit.builders import process, sample

from .certificates import Authority

_HASH = bcrypt.hashpw(b"right", bcrypt.gensalt(4)).decode()
USERS = f"basic_auth_users: {{ann: {_HASH}}}\n"
TLS = "tls_server_config: {cert_file: page.crt, key_file: page.key"


class Site:
    """A page that is served, and how to ask for it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self.authority = Authority(folder)
        self.authority.issue(folder, "page")
        self.path = folder / "web.yml"
        self.path.write_text(text)
        pages = {"/healthz": lambda _encodings: json_answer({}, is_good=True)}
        self.files = WebGuardFiles(self.path)
        self.sink = PrometheusSink("127.0.0.1", 0, "fleetmem", other_pages=pages, guard=self.files)
        self.sink.listen()

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.sink.address).port or 0

    def client(self, certificate: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """Returns what a client trusts, and what it shows."""
        context = ssl.create_default_context(cafile=self.authority.path)
        context.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def get(
        self, path: str = "/metrics", user: str = "ann:right", certificate: tuple[Path, Path] | None = None
    ) -> http.client.HTTPResponse:
        """Returns what a client gets, read to its end into `body`."""
        where = ("127.0.0.1", self.port)
        connection: http.client.HTTPConnection
        if self.sink.address.startswith("https:"):
            connection = http.client.HTTPSConnection(*where, timeout=20, context=self.client(certificate))
        else:
            connection = http.client.HTTPConnection(*where, timeout=20)
        headers = {"Authorization": f"Basic {base64.b64encode(user.encode()).decode()}"} if user else {}
        with suppress_close(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            answer.body = answer.read()  # type: ignore[attr-defined]
            return answer

    async def ask(
        self, path: str = "/metrics", user: str = "ann:right", certificate: tuple[Path, Path] | None = None
    ) -> int:
        """Returns the status that a client gets."""
        return (await asyncio.to_thread(self.get, path, user, certificate)).status


def suppress_close(connection: http.client.HTTPConnection) -> ExitStack:
    """Closes a connection in the end."""
    stack = ExitStack()
    stack.callback(connection.close)
    return stack


def serve(folder: Path, text: str, test: Callable[[Site], Awaitable[None]]) -> None:
    """Runs a test against a page that is guarded so."""

    async def main() -> None:
        site = Site(folder, text)
        running = asyncio.create_task(site.sink.run())
        try:
            await test(site)
        finally:
            running.cancel()
            await site.sink.close()
            await asyncio.sleep(0.05)

    asyncio.run(main())


@pytest.mark.parametrize("tls", [f"{TLS}}}\n", ""], ids=["tls", "plain"])
def test_a_password(tls: str, tmp_path: Path) -> None:
    """Every path wants it; no page without it, and the page says how to log in."""

    async def test(site: Site) -> None:
        site.sink.put(sample(process(7, "nginx", 4096)))
        assert site.sink.address.startswith("https://" if tls else "http://")
        for path in ("/metrics", "/healthz", "/", "/none"):
            assert await site.ask(path, "") == await site.ask(path, "ann:wrong") == 401
            assert await site.ask(path, "bob:right") == 401
            assert await site.ask(path) == (404 if path == "/none" else 200)
        assert site.files.refused == {Refusal.PASSWORD: 12}
        refused = await asyncio.to_thread(site.get, "/metrics", "")
        assert refused.getheader("WWW-Authenticate") == "Basic"
        good = await asyncio.to_thread(site.get)
        assert b'fleetmem_process_rss_bytes{host="web01"' in good.body  # type: ignore[attr-defined]

    serve(tmp_path, f"{tls}{USERS}", test)


def test_what_is_shown_of_it(tmp_path: Path) -> None:
    """Refused clients by reason, and whether the file is in force: on the page itself, from the next cycle on."""

    async def values(site: Site) -> list[str]:
        site.sink.put_stats(CollectorStats("here", 0.0, ()))
        answer = await asyncio.to_thread(site.get)
        lines = answer.body.decode().splitlines()  # type: ignore[attr-defined]
        return [line for line in lines if line.startswith("fleetmem_web_")]

    async def test(site: Site) -> None:
        assert await site.ask(user="ann:wrong") == 401
        assert await values(site) == [
            "fleetmem_web_config_last_reload_successful 1.0",
            'fleetmem_web_requests_refused_total{reason="handshake"} 0.0',
            'fleetmem_web_requests_refused_total{reason="certificate"} 0.0',
            'fleetmem_web_requests_refused_total{reason="password"} 1.0',
            'fleetmem_web_requests_refused_total{reason="busy"} 0.0',
        ]
        site.path.write_text("nonsense")
        assert await site.ask() == 200
        assert (await values(site))[0] == "fleetmem_web_config_last_reload_successful 0.0"
        site.path.write_text(USERS)
        assert await site.ask() == 200
        assert (await values(site))[0] == "fleetmem_web_config_last_reload_successful 1.0"

    serve(tmp_path, USERS, test)


def test_headers(tmp_path: Path) -> None:
    """Those of the file are in each answer, those of errors too."""

    async def test(site: Site) -> None:
        for path, user in (("/metrics", "ann:right"), ("/healthz", "ann:right"), ("/metrics", "")):
            answer = await asyncio.to_thread(site.get, path, user)
            assert answer.getheader("X-Frame-Options") == "deny"

    serve(tmp_path, f"http_server_config: {{headers: {{X-Frame-Options: deny}}}}\n{USERS}", test)


def test_client_certificates(tmp_path: Path) -> None:
    """One of another authority, none, and one with another name get nothing."""

    async def test(site: Site) -> None:
        good, named = (site.authority.issue(tmp_path, name) for name in ("prometheus", "other"))
        foreign = Authority(tmp_path, "foreign").issue(tmp_path, "prometheus2")
        expired = site.authority.issue(tmp_path, "expired", days=-1.0)
        assert await site.ask(user="", certificate=good) == 200
        for certificate in (foreign, expired, named, None):
            with pytest.raises((OSError, http.client.RemoteDisconnected)):
                await site.ask(user="", certificate=certificate)
        async with asyncio.timeout(10):  # a client may hear of it before it is counted
            while sum(site.files.refused.values()) < 4:  # noqa: ASYNC110 - counters tell nobody that they changed
                await asyncio.sleep(0.01)
        assert site.files.refused == {Refusal.HANDSHAKE: 3, Refusal.CERTIFICATE: 1}

    wanted = "client_auth_type: RequireAndVerifyClientCert, client_ca_file: ca.pem, client_allowed_sans: [prometheus]"
    serve(tmp_path, f"{TLS}, {wanted}}}", test)


def test_versions_of_tls(tmp_path: Path) -> None:
    """One below the lowest is refused."""

    async def test(site: Site) -> None:
        context = site.client()
        context.maximum_version = ssl.TLSVersion.TLSv1_2

        def shake_hands() -> None:
            with socket.create_connection(("127.0.0.1", site.port)) as plain:
                context.wrap_socket(plain, server_hostname="127.0.0.1").close()

        with pytest.raises(ssl.SSLError):
            await asyncio.to_thread(shake_hands)
        assert await site.ask(user="") == 200

    serve(tmp_path, f"{TLS}, min_version: TLS13}}", test)


def test_a_renewed_certificate(tmp_path: Path) -> None:
    """The next client sees it; one that is expired is shown all the same, and clients refuse it."""

    def serial(site: Site) -> str:
        with socket.create_connection(("127.0.0.1", site.port)) as plain:
            connection = site.client().wrap_socket(plain, server_hostname="127.0.0.1")
            with connection:
                return str((connection.getpeercert() or {})["serialNumber"])

    async def test(site: Site) -> None:
        before = await asyncio.to_thread(serial, site)
        site.authority.issue(tmp_path, "page")
        assert await asyncio.to_thread(serial, site) != before
        site.authority.issue(tmp_path, "page", days=-1.0)
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await asyncio.to_thread(serial, site)
        (tmp_path / "page.key").write_text("half")
        with pytest.raises(ssl.SSLCertVerificationError, match="expired"):
            await asyncio.to_thread(serial, site)
        site.authority.issue(tmp_path, "page")
        assert await asyncio.to_thread(serial, site) != before

    serve(tmp_path, f"{TLS}}}", test)


def test_a_long_page(tmp_path: Path) -> None:
    """It comes whole through TLS, and a request in pieces is understood."""

    async def test(site: Site) -> None:
        for number in range(40):
            host = Host(f"web{number}", "10.0.0.1")
            site.sink.put(sample(*(process(pid, f"c{pid}") for pid in range(1, 300)), host=host))
        answer = await asyncio.to_thread(site.get, user="")
        body = answer.body  # type: ignore[attr-defined]
        assert len(body) == int(answer.getheader("Content-Length") or 0) > 2_000_000
        assert body.count(b"\nfleetmem_process_rss_bytes{") == 40 * 299

        def in_pieces() -> bytes:
            plain = socket.create_connection(("127.0.0.1", site.port))
            with site.client().wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                for piece in (b"GET /healthz", b" HTTP/1.1\r\nX: ", b"x" * 15_000, b"\r\n\r", b"\n"):
                    connection.sendall(piece)
                    time.sleep(0.01)
                return b"".join(iter(lambda: connection.recv(4096), b""))  # to the end that TLS tells of

        assert (await asyncio.to_thread(in_pieces)).startswith(b"HTTP/1.0 200 OK\r\n")

    serve(tmp_path, f"{TLS}}}", test)


@pytest.mark.timing
@pytest.mark.slow
def test_clients_that_waste_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a handshake, no TLS at all, half a request, a reader that stops: others get their pages meanwhile."""
    monkeypatch.setattr(http_server, "_HEAD_SECONDS", 1.0)
    monkeypatch.setattr(http_server, "_CLIENT_TIMEOUT_SECONDS", 1.0)

    def connect(first: bytes) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", site_port[0]))
        client.sendall(first)
        return client

    def stop_reading(site: Site) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", site.port))
        connection = site.client().wrap_socket(client, server_hostname="127.0.0.1")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        given = base64.b64encode(b"ann:right").decode()
        connection.sendall(f"GET /metrics HTTP/1.1\r\nAuthorization: Basic {given}\r\n\r\n".encode())
        return connection

    site_port = [0]

    async def test(site: Site) -> None:
        site_port[0] = site.port
        for number in range(60):
            host = Host(f"web{number}", "10.0.0.1")
            site.sink.put(sample(*(process(pid, f"c{pid}") for pid in range(1, 500)), host=host))
        assert await site.ask() == 200
        hello = b"\x16\x03\x01\x02\x00\x01"
        with ExitStack() as stack:
            for first in [b"", hello, b"GET / HTTP/1.1\r\n\r\n", b"\x16"] * 30:
                stack.enter_context(await asyncio.to_thread(connect, first))
            for _ in range(10):
                stack.enter_context(await asyncio.to_thread(stop_reading, site))
            slowest = 0.0
            for _ in range(10):
                begun = time.monotonic()
                assert await site.ask("/healthz") == 200
                slowest = max(slowest, time.monotonic() - begun)
            assert slowest < 1
            assert await site.ask() == 200
            await asyncio.sleep(1.5)
            assert await site.ask() == 200

    serve(tmp_path, f"{TLS}}}\n{USERS}", test)


@pytest.mark.timing
@pytest.mark.slow
def test_clients_that_guess(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Who is known gets the pages at once, and the loop has its turns; too many guesses at a time are refused."""
    monkeypatch.setattr(passwords, "_MOST_WAITING", 1)

    async def test(site: Site) -> None:
        hash_ = bcrypt.hashpw(b"right", bcrypt.gensalt(10)).decode()
        site.path.write_text(f"basic_auth_users: {{ann: {hash_}}}")
        assert await site.ask("/healthz") == 200
        guesses = [asyncio.create_task(site.ask("/healthz", f"ann:{number}")) for number in range(20)]
        await asyncio.sleep(0.05)
        longest_turn, last = 0.0, time.monotonic()
        for _ in range(50):
            await asyncio.sleep(0.001)
            longest_turn, last = max(longest_turn, time.monotonic() - last), time.monotonic()
        assert await site.ask("/healthz") == 200
        answers = await asyncio.gather(*guesses)
        assert set(answers) == {401, 503}
        counts = answers.count(401), answers.count(503)
        assert (site.files.refused[Refusal.PASSWORD], site.files.refused[Refusal.BUSY]) == counts
        assert longest_turn < 0.5
        assert "too many passwords are being checked" in caplog.text
        assert "a wrong user or password, from 127.0.0.1" in caplog.text

    serve(tmp_path, USERS, test)


def test_the_end_with_clients_on_their_way(tmp_path: Path) -> None:
    """A handshake that is under way is no reason to wait, and leaves nothing open."""

    async def test(site: Site) -> None:
        clients = [socket.create_connection(("127.0.0.1", site.port)) for _ in range(5)]
        await asyncio.sleep(0.05)
        await site.sink.close()
        for client in clients:
            with client, suppress(ConnectionResetError):
                assert client.recv(10) == b""

    serve(tmp_path, f"{TLS}}}", test)
