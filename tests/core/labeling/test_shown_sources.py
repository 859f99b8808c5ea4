"""That originals are out of Label Studio's reach, by what a scripted server and S3 let through."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import (
    image_source,
    shown_source,
)
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.schema.ontology import Ontology

KEY = "shown/images/ä b-0123456789ab.jpg"
LISTED = """<?xml version="1.0" encoding="UTF-8"?>
<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><IsTruncated>false</IsTruncated>
<Contents><Key>{key}</Key><LastModified>2026-05-01T12:00:00.000Z</LastModified>
<ETag>"0"</ETag><Size>7</Size></Contents></ListBucketResult>"""


@contextmanager
def serving(respond):
    """A server whose answers, a status and a text, are those of ``respond(method, url, body)``."""

    class Handler(BaseHTTPRequestHandler):
        def handle_request(self):
            length = int(self.headers.get("Content-Length", 0))
            status, text = respond(self, urlsplit(self.path), self.rfile.read(length))
            data = text.encode()
            self.send_response(status)
            kind = "application/xml" if text.startswith("<") else "application/json"
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        do_GET = do_POST = do_HEAD = handle_request  # noqa: N815

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


@contextmanager
def label_studio(root=None, buckets=()):
    """A Label Studio with this document root and these records: (project, bucket, account)."""
    made = []

    def respond(request, url, body):
        if url.path == "/api/projects/":
            titles = [{"id": n, "title": record[0]} for n, record in enumerate(buckets)]
            return 200, json.dumps({"results": titles, "count": len(titles)})
        if request.command == "GET" and url.path == "/api/storages/s3/":
            project = int(parse_qs(url.query)["project"][0])
            names = [record for n, record in enumerate(buckets) if n == project]
            return 200, json.dumps([{"bucket": b, "description": a} for _, b, a in names])
        if request.command == "GET":
            return 200, "[]"
        record = json.loads(body)
        local = url.path.startswith("/api/storages/localfiles/")
        # As Label Studio checks it for any member.
        if local and (root is None or root not in Path(record["path"]).parents):
            return 400, json.dumps({"detail": "must be a subdirectory of the document root"})
        if not url.path.endswith("validate"):
            made.append((url.path, record))
        return 201, "{}"

    with serving(respond) as url:
        yield LabelStudioHttp(url, "0" * 40, timeout_seconds=2.0, retry_seconds=0.001), made


@pytest.fixture
def account(monkeypatch, tmp_path):
    """The platform's account, and one in a profile with fewer rights."""
    for name, value in (
        ("AWS_DEFAULT_REGION", "eu-west-1"),
        ("AWS_ACCESS_KEY_ID", "platform"),
        ("AWS_SECRET_ACCESS_KEY", "CANARY-SECRET"),
        ("AWS_CONFIG_FILE", str(tmp_path / "none")),
        ("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials")),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    (tmp_path / "credentials").write_text(
        "[annotators]\naws_access_key_id = annotators\naws_secret_access_key = CANARY-THEIRS\n"
    )


@pytest.fixture
def s3(account, monkeypatch):
    """An S3 server that holds one image and shows it to the account ``platform`` alone."""

    def respond(request, url, body):
        if request.command == "GET":
            return 200, LISTED.format(key="lake/images/one.jpg")
        by = request.headers["Authorization"].partition("Credential=")[2].partition("/")[0]
        return (200 if by == "platform" else 403), ""

    with serving(respond) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        yield url


def test_the_server_gets_the_folder_of_shown_images_and_no_original_has_an_address(tmp_path):
    lake = tmp_path / "lake"
    place = shown_source(str(lake), str(lake / "shown"))
    assert place.address(KEY) == "/data/local-files/?d=images/%C3%A4%20b-0123456789ab.jpg"
    with pytest.raises(ValueError, match="original"):
        place.address("images/one.jpg")
    with label_studio(lake / "shown") as (http, made):
        place.grant(http, 7)
    [(path, record)] = made
    assert path == "/api/storages/localfiles/"
    assert record["path"] == str(lake / "shown" / "images")


@pytest.mark.parametrize("above", ["lake", ""])
def test_a_server_that_reaches_originals_is_refused_with_the_way_out(tmp_path, above):
    lake = tmp_path / "lake"
    with (
        label_studio(tmp_path / above) as (http, made),
        pytest.raises(LabelingError, match=f"DOCUMENT_ROOT={lake / 'shown'}"),
    ):
        shown_source(str(lake), str(lake / "shown")).grant(http, 7)
    assert made == []


def test_accounts_that_earlier_rounds_left_on_the_server_are_named(account, tmp_path):
    place = shown_source("s3://images/lake", str(tmp_path / "shown"))
    kept = [("round-0001", "images", "account 1"), ("theirs", "another", "")]
    with (
        label_studio(tmp_path / "shown", kept) as (http, made),
        pytest.raises(LabelingError, match=r"projects round-0001, so .*delete their source"),
    ):
        place.grant(http, 7)
    assert made == []
    with label_studio(tmp_path / "shown", kept[1:]) as (http, made):
        place.grant(http, 7)
    assert [record["path"] for _, record in made] == [str(tmp_path / "shown" / "images")]


def test_an_account_that_reads_the_originals_is_not_sent(s3):
    place = shown_source("s3://images/lake", "s3://shown/here")
    with (
        label_studio() as (http, made),
        pytest.raises(LabelingError, match="ANNOTATION_SHOWN_PROFILE") as caught,
    ):
        place.grant(http, 7)
    assert made == []
    assert "CANARY" not in str(caught.value)


def test_an_account_of_its_own_is_sent_and_known_again(s3):
    place = shown_source("s3://images/lake", "s3://images/lake/shown", "annotators")
    assert place.address(KEY) == "s3://images/lake/shown/images/ä b-0123456789ab.jpg"
    with label_studio() as (http, made):
        place.grant(http, 7)
    [(_, record)] = made
    assert (record["bucket"], record["prefix"]) == ("images", "lake/shown/images")
    assert record["aws_access_key_id"] == "annotators"
    assert record["aws_secret_access_key"] == "CANARY-THEIRS"
    # One bucket may hold both: a record with this account gives nothing else away.
    ours = [("round-0002", "images", record["description"])]
    with label_studio(buckets=ours) as (http, made):
        place.grant(http, 7)
    assert len(made) == 1


def test_a_profile_that_is_not_there_is_named(s3):
    place = shown_source("s3://images/lake", "s3://shown/here", "unknown")
    with label_studio() as (http, _), pytest.raises(SettingsError, match="unknown"):
        place.grant(http, 7)


def test_a_round_with_masks_needs_a_place_for_them(tmp_path):
    replica = Replica("task", "image", 1, "", image_key=KEY, width=9, height=9)
    with label_studio(tmp_path) as (http, made):
        client = LabelStudioClient(http.url, "0" * 40, images=image_source(str(tmp_path)))
        with pytest.raises(LabelingError, match="ANNOTATION_SHOWN"):
            client.publish("round-0001", Ontology.from_names(["cat"]), [replica])
    assert made == []
