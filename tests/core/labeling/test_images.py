"""How Label Studio gets the address of images; a scripted server on the loopback interface."""

import json
import threading
import traceback
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import (
    image_source,
    private_endpoint,
)

SECRET = "CANARY-SECRET-0123456789abcdef"
SESSION = "CANARY-SESSION-0123456789abcdef"
LAKE = "s3://images/some/lake"
ECHO = object()


@pytest.fixture(autouse=True)
def account(monkeypatch, tmp_path):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION)
    # No other account: neither this user's files nor the machine's own.
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@contextmanager
def label_studio(records=(), *, status=201, says=None):
    """A server that holds these records, and answers so to one more; and what it was sent."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def respond(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            if self.command == "GET":
                code, text = 200, json.dumps(list(records)).encode()
            else:
                sent.append((self.command, self.path, json.loads(body)))
                code, text = status, body if says is ECHO else json.dumps(says or {}).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_PATCH = respond  # noqa: N815

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            url = f"http://127.0.0.1:{server.server_port}"
            yield LabelStudioHttp(url, "0" * 40, timeout_seconds=2.0, retry_seconds=0.001), sent
        finally:
            server.shutdown()


def record_for(lake):
    with label_studio() as (http, sent):
        image_source(lake).grant(http, 7)
    [(method, path, body)] = sent
    assert (method, path) == ("POST", "/api/storages/s3/")
    return body


def without_secrets(body):
    """Return a record as Label Studio shows it."""
    shown = {key: value for key, value in body.items() if not key.startswith("aws_")}
    return {**shown, "id": 3, "s3_endpoint": shown["s3_endpoint"] or None}


@pytest.mark.parametrize(
    ("lake", "expected"),
    [
        ("/srv/lake", "/data/local-files/?d=images/%C3%A4%20b.jpg"),
        ("s3://images", "s3://images/images/ä b.jpg"),
        ("s3://images/some/lake/", "s3://images/some/lake/images/ä b.jpg"),
    ],
)
def test_a_task_holds_an_address_without_a_secret(lake, expected):
    assert image_source(lake).address("images/ä b.jpg") == expected


@pytest.mark.parametrize(
    ("endpoint", "in_the_record", "private"),
    [
        pytest.param("", "", "", id="Amazon"),
        pytest.param("https://8.8.8.8", "https://8.8.8.8", "", id="public"),
        pytest.param("http://127.0.0.1:9000", "", "http://127.0.0.1:9000", id="loopback"),
        pytest.param("http://localhost:9000", "", "http://localhost:9000", id="loopback name"),
        pytest.param("http://10.1.2.3:9000", "", "http://10.1.2.3:9000", id="private"),
        pytest.param("http://[fd00::1]:9000", "", "http://[fd00::1]:9000", id="private IPv6"),
    ],
)
def test_a_record_names_what_label_studio_may_reach(monkeypatch, endpoint, in_the_record, private):
    if endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    assert record_for(LAKE)["s3_endpoint"] == in_the_record
    assert private_endpoint() == private


def test_a_record_lets_the_bytes_through_and_gives_no_address_away():
    body = record_for(LAKE)
    assert (body["project"], body["bucket"], body["prefix"]) == (7, "images", "some/lake/images")
    assert (body["presign"], body["synchronizable"], body["region_name"]) == (
        False,
        False,
        "eu-west-1",
    )
    assert body["aws_access_key_id"] == "someone"
    assert (body["aws_secret_access_key"], body["aws_session_token"]) == (SECRET, SESSION)
    assert "someone" not in body["description"]


def test_the_account_is_sent_once():
    with label_studio([without_secrets(record_for(LAKE))]) as (http, sent):
        image_source(LAKE).grant(http, 7)
    assert sent == []


@pytest.mark.parametrize(
    ("variable", "value"),
    [("AWS_ACCESS_KEY_ID", "another"), ("AWS_DEFAULT_REGION", "us-east-1")],
)
def test_another_account_or_region_replaces_what_the_record_holds(monkeypatch, variable, value):
    old = without_secrets(record_for(LAKE))
    monkeypatch.setenv(variable, value)
    with label_studio([old]) as (http, sent):
        image_source(LAKE).grant(http, 7)
    [(method, path, body)] = sent
    assert (method, path) == ("PATCH", "/api/storages/s3/3")
    assert body["aws_secret_access_key"] == SECRET


def test_a_record_of_another_place_stays_as_it_is():
    with label_studio([without_secrets(record_for("s3://images/other"))]) as (http, sent):
        image_source(LAKE).grant(http, 7)
    assert [method for method, _, _ in sent] == ["POST"]


@pytest.mark.parametrize("status", [400, 403, 500, 504])
def test_what_a_foreign_servers_administrator_must_set_is_said(monkeypatch, status):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://10.1.2.3:9000")
    with (
        label_studio(status=status, says={"detail": "no such bucket"}) as (http, sent),
        pytest.raises(LabelingError, match=r"S3_ENDPOINT=http://10\.1\.2\.3:9000") as caught,
    ):
        image_source(LAKE).grant(http, 7)
    assert len(sent) == 1
    assert "wrong" not in str(caught.value)
    assert ("no such bucket" in str(caught.value)) == (status == 400)


@pytest.mark.parametrize("status", [400, 403, 500])
def test_a_server_that_repeats_what_it_was_sent_repeats_no_secret_here(status):
    with (
        label_studio(status=status, says=ECHO) as (http, _),
        pytest.raises(LabelingError) as caught,
    ):
        image_source(LAKE).grant(http, 7)
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_without_an_account_the_variables_are_named(monkeypatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    with label_studio() as (http, sent), pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID"):
        image_source(LAKE).grant(http, 7)
    assert sent == []


def test_a_folder_is_granted_once(tmp_path):
    images = {"path": str(tmp_path / "images")}
    for records, granted in (((), ["POST"]), ((images,), [])):
        with label_studio(records) as (http, sent):
            image_source(str(tmp_path)).grant(http, 7)
        assert [method for method, _, _ in sent] == granted
        assert all(Path(body["path"]) == tmp_path / "images" for _, _, body in sent)
