"""Webhooks are change signals: any request causes at worst one superfluous poll."""

import json
import socket
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.webhooks import (
    SECRET_HEADER,
    check_webhooks,
    register_webhooks,
)
from annotation_platform.servers.webhooks import change_signal_receiver
from tests.core.labeling import faulty_label_studio as faulty
from tests.core.labeling.faulty_label_studio import TOKEN, running

SECRET = "CANARY-0123456789abcdef"
SIGNED = {SECRET_HEADER: SECRET}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["action", "project", "id"]), inner)
    ),
    max_leaves=8,
)
NEWS = {"action": "ANNOTATION_CREATED", "annotation": {"id": 3}, "project": {"id": 7}}


@contextmanager
def receiving(**options):
    hints = []
    with (
        change_signal_receiver(secret=SECRET, on_change=hints.append, **options) as port,
        httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as sender,
    ):
        yield sender, hints


@pytest.fixture(scope="module")
def receiver():
    with receiving(longest_body=2_000) as (sender, hints):
        yield sender, hints


def test_a_hint_names_the_project_each_time_that_it_comes(receiver):
    sender, hints = receiver
    hints.clear()
    for project in (7, 7, 3):
        news = NEWS | {"project": {"id": project, "title": "round-0001"}}
        assert sender.post("/", headers=SIGNED, json=news).status_code == 204
    assert hints == [7, 7, 3]


def test_news_that_name_no_project_are_a_hint_too(receiver):
    sender, hints = receiver
    hints.clear()
    news = {"action": "ANNOTATION_CREATED"}
    assert sender.post("/", headers=SIGNED, json=news).status_code == 204
    assert hints == [0]


def test_what_label_studio_really_sends_is_understood(public):
    recorded = json.loads((public("label_studio_samples") / "webhooks.json").read_text())
    with receiving() as (sender, hints):
        for hook in recorded.values():
            assert sender.post("/", headers=SIGNED, json=hook["body"]).status_code == 204
    assert hints == [hook["body"]["project"]["id"] for hook in recorded.values()]


@pytest.mark.parametrize(
    ("headers", "body", "status"),
    [
        pytest.param({}, NEWS, 401, id="no secret"),
        pytest.param({SECRET_HEADER: SECRET[:-1]}, NEWS, 401, id="part of the secret"),
        pytest.param({SECRET_HEADER: b"\xff" * 30}, NEWS, 401, id="no text"),
        pytest.param({}, "x" * 9_999, 401, id="a long body of a stranger"),
        pytest.param(SIGNED, "x" * 2_001, 413, id="too long"),
        pytest.param(SIGNED | {"Transfer-Encoding": "chunked"}, "", 411, id="no length"),
        pytest.param(SIGNED, "", 400, id="nothing"),
        pytest.param(SIGNED, "{", 400, id="half a document"),
        pytest.param(SIGNED, b"\xff\xfe", 400, id="not UTF-8"),
        pytest.param(SIGNED, "[" * 2_000, 400, id="too deep"),
        pytest.param(SIGNED, [NEWS], 400, id="a list"),
        pytest.param(SIGNED, {"project": {"id": 7}}, 400, id="no action"),
        pytest.param(SIGNED, NEWS | {"project": 7}, 400, id="no project"),
        pytest.param(SIGNED, NEWS | {"project": {"id": "7"}}, 400, id="a text for a number"),
        pytest.param(SIGNED, NEWS | {"project": {"id": True}}, 400, id="a truth for a number"),
        pytest.param(SIGNED, NEWS | {"project": {"id": -7}}, 400, id="negative number"),
    ],
)
def test_what_is_no_hint_is_refused_and_nobody_is_told(receiver, headers, body, status):
    sender, hints = receiver
    hints.clear()
    content = body if isinstance(body, str | bytes) else json.dumps(body)
    # A body that is refused unread ends the connection while it is still being sent.
    try:
        assert sender.post("/", headers=headers, content=content).status_code == status
    except httpx.TransportError:
        assert status in {401, 413}
    assert hints == []


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_only_posts_are_taken(receiver, method):
    assert receiver[0].request(method, "/", headers=SIGNED).status_code == 501


@settings(max_examples=200, deadline=None)
@given(JSON)
def test_no_json_brings_it_down(receiver, news):
    sender, _ = receiver
    assert sender.post("/", headers=SIGNED, json=news).status_code in {204, 400, 413}


def test_many_at_once_are_all_taken():
    with receiving() as (sender, hints):
        with ThreadPoolExecutor(16) as pool:
            responses = pool.map(lambda _: sender.post("/", headers=SIGNED, json=NEWS), range(200))
            assert {response.status_code for response in responses} == {204}
        assert hints == [7] * 200


def test_who_sends_nothing_or_half_of_it_holds_up_nobody():
    with receiving(timeout_seconds=0.2) as (sender, hints):
        address = (sender.base_url.host, sender.base_url.port)
        head = f"POST / HTTP/1.1\r\n{SECRET_HEADER}: {SECRET}\r\nContent-Length: 99\r\n\r\n"
        with socket.create_connection(address), socket.create_connection(address) as half:
            half.sendall(f"{head}{{".encode())
            assert sender.post("/", headers=SIGNED, json=NEWS).status_code == 204
            assert half.recv(99).startswith(b"HTTP/1.1 400")
        assert hints == [7]


@pytest.mark.parametrize("length", ["-1", "1_0", "9" * 9_999])
def test_a_length_that_is_none_is_refused(receiver, length):
    _, hints = receiver
    hints.clear()
    address = (receiver[0].base_url.host, receiver[0].base_url.port)
    head = f"POST / HTTP/1.1\r\n{SECRET_HEADER}: {SECRET}\r\nContent-Length: {length}\r\n\r\n"
    with socket.create_connection(address) as sender:
        sender.sendall(head.encode())
        assert sender.recv(99).startswith(b"HTTP/1.1 400")
    assert hints == []


def test_it_ends_and_can_begin_again():
    port = 0
    for _ in range(2):
        with change_signal_receiver(secret=SECRET, on_change=lambda _: None, port=port) as port:
            assert httpx.post(f"http://127.0.0.1:{port}/", trust_env=False).status_code == 401
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", port), timeout=1)


def test_a_taken_port_is_an_error_that_names_it():
    with change_signal_receiver(secret=SECRET, on_change=lambda _: None) as port:
        again = change_signal_receiver(secret=SECRET, on_change=lambda _: None, port=port)
        with pytest.raises(SettingsError, match=f":{port}"), again:
            pass


@pytest.mark.parametrize("secret", ["", "short", "schlüssel-0123456789", "line\nbreak-0123456789"])
def test_a_weak_secret_is_refused_and_not_repeated(secret):
    with (
        pytest.raises(SettingsError, match="16 printable") as caught,
        change_signal_receiver(secret=secret, on_change=lambda _: None),
    ):
        pass
    assert not secret or secret not in str(caught.value)


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_server_that_repeats_what_it_was_sent_repeats_no_secret_here(status):
    url = "https://labels.example.org/hints?key=CANARY"
    echo = faulty.says(status, json.dumps({"url": url, "detail": f"{SECRET} 'url'"}))
    with running() as server:
        http = LabelStudioHttp(server.url, TOKEN, retry_seconds=0.001)
        http.post("/api/projects/", {"title": "round-0001"})
        server.fault(faulty.says(200, "[]"), on="GET /api/webhooks/", times=9)
        server.fault(echo, on="POST /api/webhooks/", times=9)
        for act in (
            lambda: check_webhooks(http, url, SECRET),
            lambda: register_webhooks(http, ["round-0001"], url=url, secret=SECRET),
        ):
            with pytest.raises(LabelingError, match="ANNOTATION_WEBHOOK_URL") as caught:
                act()
            assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("body", [{"results": []}, [{"id": 1, "url": SECRET}], [SECRET], None])
def test_a_list_of_webhooks_that_is_none_is_an_error_that_says_where(body):
    with running() as server:
        http = LabelStudioHttp(server.url, TOKEN)
        server.fault(faulty.says(200, json.dumps(body)), on="GET /api/webhooks/")
        with pytest.raises(LabelingError, match="/api/webhooks/ returned JSON") as caught:
            register_webhooks(http, ["round-0001"], url="https://8.8.8.8/", secret=SECRET)
        assert SECRET not in str(caught.value)
