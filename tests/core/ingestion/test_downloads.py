"""Fetching from a server that misbehaves, and from names that lead where nobody should go."""

import http.server
import socket
import ssl
import threading
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from ipaddress import IPv4Address

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from annotation_platform.errors import DataError, SettingsError
from annotation_platform.ingestion.downloads import Downloads

PUBLIC = "93.184.216.34"
SECRET = "X-Amz-Signature=c0ffee"


class Script:
    """The answers to give, in order, and the requests that came; the last answer repeats."""

    def __init__(self, *responses):
        self.responses, self.requests = list(responses), []

    def next(self):
        return self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]


def response(status=200, body=b"image", **headers):
    return status, body, headers


@contextmanager
def server(*responses, drip_seconds=0.0, tls=None):
    """Serve a script on the loopback interface; give its ``host:port`` and what was asked."""
    script, over = Script(*responses), threading.Event()

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            script.requests.append((self.path, dict(self.headers)))
            status, body, headers = script.next()
            self.send_response(status)
            for key, value in {"Content_Length": len(body), **headers}.items():
                if value is not None:
                    self.send_header(key.replace("_", "-"), str(value))
            self.end_headers()
            for start in range(0, len(body), 1 if drip_seconds else len(body)):
                self.wfile.write(body[start : start + 1] if drip_seconds else body)
                if drip_seconds and over.wait(drip_seconds):
                    break
            self.close_connection = True

        def log_message(self, *args):
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *args):
            pass

    with Server(("127.0.0.1", 0), Handler) as running:
        if tls:
            running.socket = tls.wrap_socket(running.socket, server_side=True)
        threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"127.0.0.1:{running.server_port}", script
        finally:
            over.set()
            running.shutdown()


class Names:
    """A name server: the addresses of a name, one answer after the other; the last repeats."""

    def __init__(self, *responses):
        self.responses, self.asked = list(responses), []

    def __call__(self, host, port, **_):
        self.asked.append(host)
        found = self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in found]


def nobody(host, *_, **__):
    raise AssertionError(f"{host} was looked up")


def downloads(*allowed, maximum_bytes=1000, sleep=lambda _: None, resolve=nobody, **options):
    return Downloads(allowed, maximum_bytes=maximum_bytes, sleep=sleep, resolve=resolve, **options)


def echo(request):
    """Answer with where the request goes, which name it names and which certificate it wants."""
    name = request.extensions.get("sni_hostname", "")
    said = f"{request.url.host} {request.headers['Host']} {name}"
    return httpx.Response(200, content=iter([said.encode()]))


def elsewhere(allowed, names, respond=echo):
    """Return downloads whose requests end at ``respond``: nothing is sent to real addresses."""
    return downloads(allowed, resolve=names, transport=httpx.MockTransport(respond))


def refusal(parts, url):
    with pytest.raises(DataError) as refused:
        parts.fetch(url)
    message = str(refused.value)
    assert SECRET not in message
    assert "pass@" not in message
    assert message.isprintable()
    return message


def test_a_file_of_an_allowed_host_comes_as_it_is(caplog):
    caplog.set_level("INFO")
    with server(response(body=b"x" * 1000)) as (host, script):
        assert downloads(host).fetch(f"http://{host}/a%20b/c.jpg?{SECRET}") == b"x" * 1000
    path, headers = script.requests[0]
    assert path == f"/a%20b/c.jpg?{SECRET}"
    assert headers["Host"] == host
    assert headers["Accept-Encoding"] == "identity"
    assert SECRET not in caplog.text


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://images.example.org/a.jpg",
        "//images.example.org/a.jpg",
        "a.jpg",
        "http://user:pass@images.example.org/a.jpg",
        f"http://user:p?{SECRET}@[images/a.jpg",
        "http://localhost/a.jpg",
        "http://localhost:8080/",
        "http://169.254.169.254/latest/meta-data",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://0177.0.0.1/",
        "http://127.1/",
        "http://[::1]/",
        "http://[::ffff:127.0.0.1]/",
        "http://images.example.org:8080/other-port.jpg",
        "http://images.example.org./",
        "http://images.example.org.evil.net/",
        "http://images.example.org@evil.net/",
        "http://evil.net\\@images.example.org@evil.net/",
        "http://example.net/not-below-itself.jpg",
        "http://notexample.net/",
        f"http://evil.net/?{SECRET}",
    ],
)
def test_only_addresses_on_allowed_hosts_are_even_looked_up(url):
    refusal(downloads("images.example.org", "*.example.net"), url)


@pytest.mark.parametrize(
    ("entry", "url"),
    [
        ("images.example.org", "HTTPS://IMAGES.example.org/a.jpg"),
        ("images.example.org", "http://images.example.org:80/a.jpg"),
        ("images.example.org:8443", "https://images.example.org:8443/a.jpg"),
        ("*.example.org", "https://a.b.example.org/a.jpg"),
        ("bücher.example", "https://xn--bcher-kva.example/a.jpg"),
        ("XN--BCHER-KVA.example", "https://bücher.example/a.jpg"),
    ],
)
def test_allowed_hosts_match_whatever_their_spelling(entry, url):
    assert elsewhere(entry, Names([PUBLIC])).fetch(url).startswith(PUBLIC.encode())


def test_the_connection_goes_to_the_address_that_was_checked():
    parts = elsewhere("Images.Example.org:8443", Names([PUBLIC]))
    said = parts.fetch("https://images.example.org:8443/a.jpg").decode()
    assert said == f"{PUBLIC} images.example.org:8443 images.example.org"


def test_a_name_that_changes_its_address_is_asked_once_for_all_attempts():
    seen = []

    def busy_at_first(request):
        seen.append(request.url.host)
        return httpx.Response(503 if len(seen) < 3 else 200, content=iter([b"image"]))

    names = Names([PUBLIC, "2606:2800:220:1::1"], ["169.254.169.254"])
    parts = elsewhere("rebind.net", names, busy_at_first)
    assert parts.fetch("http://rebind.net/") == b"image"
    assert names.asked == ["rebind.net"]
    assert seen == [PUBLIC, "2606:2800:220:1::1", PUBLIC]
    assert "169.254.169.254, which is not public" in refusal(parts, "http://rebind.net/")
    assert len(seen) == 3


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1%2",
        "fc00::1",
        "fec0::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "::ffff:a9fe:a9fe",
        "2002:7f00:1::",
        "64:ff9b::169.254.169.254",
        "64:ff9b:1::1",
        "2001:db8::1",
    ],
)
def test_one_address_that_is_not_public_is_enough_to_refuse_a_host(address):
    parts = elsewhere("mixed.net", Names([PUBLIC, address]), nobody)
    assert "which is not public" in refusal(parts, "http://mixed.net/")


@pytest.mark.parametrize("address", ["::ffff:93.184.216.34", "64:ff9b::93.184.216.34"])
def test_other_forms_of_public_addresses_are_public(address):
    parts = elsewhere("six.net", Names([address]))
    assert parts.fetch("http://six.net/")


def test_a_private_address_must_be_allowed_itself_and_not_by_a_name():
    with server(response()) as (host, script):
        port = host.partition(":")[2]
        named = downloads(f"localhost:{port}", "127.0.0.1", resolve=socket.getaddrinfo)
        assert "which is not public" in refusal(named, f"http://localhost:{port}/")
        # Without a port it is allowed on the default port alone.
        assert "is not an allowed host" in refusal(named, f"http://{host}/")
        assert script.requests == []
        assert downloads(host).fetch(f"http://{host}/") == b"image"


def test_a_host_that_cannot_be_looked_up_is_named():
    def unknown(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    assert "cannot be resolved" in refusal(downloads("no.net", resolve=unknown), "http://no.net/")
    assert "has no address" in refusal(downloads("no.net", resolve=Names([])), "http://no.net/")


@pytest.mark.parametrize(
    ("location", "target"),
    [
        ("http://169.254.169.254/latest/meta-data", "169.254.169.254"),
        (f"https://evil.net/?{SECRET}", "evil.net"),
        ("/elsewhere.jpg", "127.0.0.1"),
        ("file:///etc/passwd", "no host"),
        ("http://[x]/", "no host"),
    ],
)
@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_not_followed_and_its_target_named(status, location, target):
    with server(response(status, Location=location)) as (host, script):
        assert f"redirects to {target};" in refusal(downloads(host), f"http://{host}/?{SECRET}")
        assert len(script.requests) == 1


@pytest.mark.parametrize("declared", [True, False])
def test_a_file_over_the_limit_is_cut_off(declared):
    endless = {} if declared else {"Content_Length": 10**9}
    with server(response(body=b"x" * 1001, **endless)) as (host, script):
        assert "more than 1000 bytes" in refusal(downloads(host), f"http://{host}/?{SECRET}")
        assert len(script.requests) == 1


@pytest.mark.parametrize("headers", [{}, {"Content_Length": None}])
def test_a_file_that_drips_in_is_given_up_at_the_deadline(headers):
    with server(response(body=b"x" * 900, **headers), drip_seconds=0.05) as (host, script):
        parts = downloads(host, timeout_seconds=5, deadline_seconds=0.4)
        assert "deadline of 0.4 s has passed" in refusal(parts, f"http://{host}/")
        assert len(script.requests) == 1


def test_headers_that_drip_in_are_given_up_at_the_deadline():
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def drip():
            connection, _ = listening.accept()
            # That the other side gives up is what the test is about.
            with connection, suppress(OSError):
                connection.sendall(b"HTTP/1.1 200 OK\r\nX: ")
                while not over.wait(0.05):
                    connection.sendall(b"x")

        thread = threading.Thread(target=drip, daemon=True)
        thread.start()
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        parts = downloads(host, timeout_seconds=5, deadline_seconds=0.4)
        assert "deadline of 0.4 s has passed" in refusal(parts, f"http://{host}/")
        over.set()


def test_a_server_that_says_nothing_is_given_up_after_four_timeouts():
    with socket.create_server(("127.0.0.1", 0)) as listening:
        host = f"127.0.0.1:{listening.getsockname()[1]}"
        message = refusal(downloads(host, timeout_seconds=0.1), f"http://{host}/")
        assert "does not respond (timed out), 4 times" in message
    assert "does not respond" in refusal(downloads(host), f"http://{host}/")


def test_what_passes_is_tried_again_and_a_cut_off_file_is_no_file():
    cut_off = response(Content_Length=500)
    busy = response(503, Retry_After="7")
    waits = []
    with server(cut_off, busy, response()) as (host, script):
        assert downloads(host, sleep=waits.append).fetch(f"http://{host}/") == b"image"
    assert len(script.requests) == 3
    assert 0.25 <= waits[0] <= 0.75
    assert waits[1] == 7
    with server(cut_off) as (host, script):
        assert "4 times" in refusal(downloads(host), f"http://{host}/?{SECRET}")
        assert len(script.requests) == 4


def test_a_wait_that_the_server_asks_for_is_kept_within_bounds():
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    waits = []
    busy = [response(429, Retry_After=asked) for asked in (tomorrow, "1e9", "soon")]
    with server(*busy, response()) as (host, _):
        downloads(host, sleep=waits.append).fetch(f"http://{host}/")
        assert waits[:2] == [30, 30]
        assert 1 <= waits[2] <= 3
    with server(busy[0]) as (host, script):
        message = refusal(downloads(host, deadline_seconds=20), f"http://{host}/")
        assert "responds with 429, and the deadline of 20 s has passed" in message
        assert len(script.requests) == 1


@pytest.mark.parametrize("status", [201, 204, 206, 304, 400, 401, 403, 404, 410, 501])
def test_other_responses_are_final(status):
    with server(response(status, b"")) as (host, script):
        refusal(downloads(host), f"http://{host}/?{SECRET}")
        assert len(script.requests) == 1


def test_a_file_that_comes_compressed_all_the_same_is_refused():
    with server(response(Content_Encoding="gzip")) as (host, _):
        assert "compressed" in refusal(downloads(host), f"http://{host}/")


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path):
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path / "server.pem"
    pem.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + signed.public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with server(response(), tls=context) as (host, script):
        assert "certificate verify failed" in refusal(downloads(host), f"https://{host}/")
        assert script.requests == []


def test_proxies_of_the_environment_are_not_used(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with server(response()) as (host, _):
        assert downloads(host).fetch(f"http://{host}/") == b"image"


@pytest.mark.parametrize(
    "entry",
    ["", "*", "*.", "*.org", "*.127.0.0.1", "https://a.org", "a.org/x", "u@a.org", "a:b", "a*.org"],
)
def test_an_entry_that_is_no_host_is_refused_at_once(entry):
    with pytest.raises(SettingsError, match="is not a host"):
        downloads(entry)
