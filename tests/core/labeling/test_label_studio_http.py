"""What the client does with a server that misbehaves; a scripted one on the loopback interface."""

import json
import socket
import threading
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp, UncertainError

TOKEN = "0123456789abcdef0123456789abcdef01234567"
PERSONAL_TOKEN = "eyJhbGciOiJIUzI1NiJ9.eyJ1c2VyIjoxfQ.c2lnbmF0dXJl"


class Script:
    """The answers to give, in order, and the requests that came; the last answer repeats."""

    def __init__(self, *responses):
        self.responses = list(responses)
        self.requests = []

    def next(self):
        return self.responses.pop(0) if len(self.responses) > 1 else self.responses[0]


def response(status=200, body="{}", **headers):
    return status, body, {"Content-Type": "application/json", **headers}


CUT_OFF = response(body='{"a": 1}', **{"Content-Length": "100"})


@contextmanager
def server(*responses):
    script = Script(*responses)

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            script.requests.append((self.command, self.path, self.headers["Authorization"]))
            status, body, headers = script.next()
            self.send_response(status)
            for key, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(key, value)
            self.end_headers()
            self.wfile.write(body.encode())

        do_GET = do_POST = do_PATCH = do_DELETE = respond  # noqa: N815

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        threading.Thread(target=http.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{http.server_port}", script
        finally:
            http.shutdown()


def client(url, token=TOKEN):
    return LabelStudioHttp(url, token, timeout_seconds=2.0, retry_seconds=0.001)


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param(response(429), id="too many requests"),
        pytest.param(response(429, **{"Retry-After": "0"}), id="asked to wait"),
        pytest.param(response(503, **{"Retry-After": "Fri, 20 Nov 2020 08:00:00 GMT"}), id="date"),
        pytest.param(response(503, **{"Retry-After": "soon"}), id="unreadable wait"),
        pytest.param(response(500), id="server error"),
        pytest.param(response(502, "<html>"), id="bad gateway"),
        pytest.param(CUT_OFF, id="cut body"),
    ],
)
def test_reading_is_tried_again_after_passing_trouble(trouble):
    with server(trouble, trouble, response(body='{"a": 1}')) as (url, script):
        assert client(url).get("/api/x/") == {"a": 1}
        assert len(script.requests) == 3


def test_lasting_trouble_ends_after_four_attempts():
    with server(response(502)) as (url, script):
        with pytest.raises(LabelingError, match="responds with 502 to GET /api/x/"):
            client(url).get("/api/x/")
        assert len(script.requests) == 4


@pytest.mark.parametrize("trouble", [response(502), response(504), CUT_OFF])
def test_what_must_not_be_done_twice_is_sent_once(trouble):
    with server(trouble) as (url, script):
        with pytest.raises(UncertainError):
            client(url).post("/api/projects/1/import", [])
        assert len(script.requests) == 1


def test_an_import_that_was_not_looked_at_is_sent_again():
    with server(response(429), response(201, '{"task_count": 1}')) as (url, _):
        assert client(url).post("/api/projects/1/import", []) == {"task_count": 1}


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", [TOKEN, PERSONAL_TOKEN])
def test_a_refused_token_ends_it_at_once_and_is_not_printed(status, token):
    with server(response(status, json.dumps({"detail": f"Invalid token {token}"}))) as (
        url,
        script,
    ):
        with pytest.raises(LabelingError, match="ANNOTATION_LABEL_STUDIO_TOKEN") as caught:
            client(url, token).get("/api/x/")
        assert len(script.requests) == 1
    assert token not in str(caught.value)


def test_a_personal_token_is_exchanged_once_and_again_when_it_expires():
    responses = [
        response(body='{"access": "first"}'),
        response(),
        response(401),
        response(body='{"access": "second"}'),
        response(),
    ]
    with server(*responses) as (url, script):
        http = client(url, PERSONAL_TOKEN)
        http.get("/api/x/")
        http.get("/api/x/")
    assert [(path, signed) for _, path, signed in script.requests] == [
        ("/api/token/refresh/", None),
        ("/api/x/", "Bearer first"),
        ("/api/x/", "Bearer first"),
        ("/api/token/refresh/", None),
        ("/api/x/", "Bearer second"),
    ]


@pytest.mark.parametrize("token", ["", "  ", "a\nb", "schlüssel"])
def test_what_is_no_token_is_not_sent(token):
    with server(response()) as (url, script):
        with pytest.raises(LabelingError, match="ANNOTATION_LABEL_STUDIO_TOKEN"):
            client(url, token).get("/api/x/")
        assert script.requests == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        pytest.param(
            response(body="<html>Log in</html>", **{"Content-Type": "text/html"}),
            "a web page instead",
            id="login page",
        ),
        pytest.param(response(body='{"a": '), "no JSON instead", id="half a document"),
        pytest.param(
            response(302, Location="https://sso.example.org/login?ticket=secret"),
            r"redirects to https://sso\.example\.org/login\. ",
            id="redirect",
        ),
        pytest.param(response(400, '{"detail": "No such\\nfield"}'), "No such field", id="refused"),
    ],
)
def test_a_response_that_is_not_label_studios_says_so(given, message):
    with server(given) as (url, script):
        with pytest.raises(LabelingError, match=message):
            client(url).get("/api/x/")
        assert len(script.requests) == 1


def test_a_server_that_is_not_there_is_named_with_the_way_to_start_it():
    with closing(socket.create_server(("127.0.0.1", 0))) as free:
        port = free.getsockname()[1]
    with pytest.raises(LabelingError, match=rf":{port} cannot be reached.*annotation-platform up"):
        client(f"http://127.0.0.1:{port}").get("/api/x/")


@pytest.mark.parametrize("url", ["", "localhost:8080", "ftp://x", "http://", "http://x:99999"])
def test_an_address_that_is_none_is_refused_before_anything_is_sent(url):
    with pytest.raises(SettingsError, match="ANNOTATION_LABEL_STUDIO_URL"):
        client(url)
