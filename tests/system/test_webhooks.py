"""Webhooks of a real Label Studio: there once, refused where they must be, and quick where not."""

import socket
import time
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.webhooks import (
    SECRET_HEADER,
    check_webhooks,
    register_webhooks,
)
from annotation_platform.labeling.change_signals import ChangeSignals
from annotation_platform.schema.rounds import Arrival
from annotation_platform.servers.child import usable_port
from annotation_platform.servers.webhooks import received_change_signals, registered_webhooks
from annotation_platform.settings import Settings
from tests.system.prepared_label_studio import PreparedLabelStudio

pytestmark = pytest.mark.long

SECRET = "CANARY-0123456789abcdef"
ANOTHER = "CANARY-fedcba9876543210"
LABELS = '<View><Text name="t" value="$t"/><TextArea name="a" toName="t"/></View>'
PUBLIC = "https://8.8.8.8/hints"


class OpenLabelStudio(PreparedLabelStudio):
    """One that sends webhooks to this machine too: only a test may do that."""

    def _environment(self):
        return {**super()._environment(), "SSRF_PROTECTION_ENABLED": "false"}


@pytest.fixture(scope="module")
def open_label_studio(label_studio_template, tmp_path_factory):
    place = tmp_path_factory.mktemp("open-label-studio")
    with OpenLabelStudio(
        place / "data",
        document_root=None,
        secrets_path=place / "secrets.json",
        database=label_studio_template,
    ) as server:
        yield server


def http_of(server):
    return LabelStudioHttp(server.url, server.administrator.token, retry_seconds=0.01)


def project(http, title):
    return http.post("/api/projects/", {"title": title, "label_config": LABELS})["id"]


def hooks_of(http, project):
    return http.get("/api/webhooks/", project=project)


@pytest.fixture
def api(label_studio):
    """The protected server, without a project or webhook of another test."""
    http = http_of(label_studio)
    for hook in http.get("/api/webhooks/"):
        http.delete(f"/api/webhooks/{hook['id']}/")
    for each in http.pages("/api/projects/"):
        http.patch(f"/api/projects/{each['id']}/", {"title": "of another test"})
    return http


def test_a_webhook_that_is_registered_twice_is_there_once(api):
    mine, foreign = project(api, "round-0001"), project(api, "somebody else's")
    for _ in range(2):
        register_webhooks(api, {"round-0001", "round-0002"}, url=PUBLIC, secret=SECRET)
    [hook] = hooks_of(api, mine)
    assert (hook["url"], hook["headers"]) == (PUBLIC, {SECRET_HEADER: SECRET})
    # People's answers do not travel with a hint, and a project's making is none.
    assert not hook["send_payload"]
    assert not hook["send_for_all_actions"]
    assert "ANNOTATION_CREATED" in hook["actions"]
    assert hooks_of(api, foreign) == []
    register_webhooks(api, {"round-0001"}, url=PUBLIC, secret=SECRET)
    assert hooks_of(api, mine) == [hook]


def test_another_address_or_secret_replaces_it_and_what_is_not_ours_stays(api):
    mine = project(api, "round-0001")
    theirs = {"project": mine, "url": "https://8.8.4.4/theirs", "headers": {"X-Theirs": "1"}}
    api.post("/api/webhooks/", theirs)
    register_webhooks(api, ["round-0001"], url=PUBLIC, secret=SECRET)
    # As after a reply that was lost.
    twin = {"project": mine, "url": PUBLIC, "headers": {SECRET_HEADER: SECRET}}
    api.post("/api/webhooks/", twin)
    for url, secret in ((PUBLIC, ANOTHER), (f"{PUBLIC}/2", ANOTHER), (PUBLIC, SECRET)):
        register_webhooks(api, ["round-0001"], url=url, secret=secret)
        kept, ours = sorted(hooks_of(api, mine), key=lambda hook: hook["id"])
        assert (ours["url"], ours["headers"]) == (url, {SECRET_HEADER: secret})
        assert "ANNOTATION_UPDATED" in ours["actions"]
        assert kept["url"] == theirs["url"]


@pytest.mark.parametrize("url", ["http://127.0.0.1:8090/", "http://10.1.2.3/hints?key=CANARY"])
def test_a_private_receiver_is_refused_with_a_sentence_that_names_the_setting(api, url):
    project(api, "round-0001")
    for act in (
        lambda: check_webhooks(api, url, SECRET),
        lambda: register_webhooks(api, ["round-0001"], url=url, secret=SECRET),
    ):
        with pytest.raises(LabelingError, match="SSRF_PROTECTION_ENABLED") as caught:
            act()
        assert "leave that protection on" in str(caught.value)
        assert "polling" in str(caught.value)
        assert "token is wrong" not in str(caught.value)
        assert "CANARY" not in str(caught.value)
    assert api.get("/api/webhooks/") == []


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        pytest.param("http://platform:8090/", "valid URL", id="a name without a dot"),
        pytest.param(
            "http://receiver.invalid/", "responds with 500", id="a name that nobody knows"
        ),
    ],
)
def test_an_address_that_cannot_be_is_said_with_the_servers_reason(api, url, reason):
    with pytest.raises(LabelingError, match=rf"{reason}.*ANNOTATION_WEBHOOK_URL"):
        check_webhooks(api, url, SECRET)


def test_a_public_address_is_fine_and_asking_makes_nothing(api):
    check_webhooks(api, PUBLIC, SECRET)
    assert api.get("/api/webhooks/") == []


@contextmanager
def hastened(server, tmp_path, **changes):
    """The platform's half of webhooks, as `annotation-platform up` starts it."""
    port = usable_port(0, remedy="")
    settings = Settings(
        home=tmp_path, webhook_url=f"http://127.0.0.1:{port}/", webhook_port=port, **changes
    )
    lake, said = lake_of(settings), []
    lake.manifests.create("round-0001", [Arrival("one.jpg", "1", 1)])
    with ExitStack() as stack:
        secret = stack.enter_context(received_change_signals(settings))
        stack.enter_context(
            registered_webhooks(
                http_of(server),
                lake,
                url=settings.webhook_url,
                secret=secret,
                say=said.append,
                register_seconds=0.2,
            )
        )
        yield settings, secret, said


def wait_for(done, seconds):
    ends_at = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


@pytest.mark.parametrize("given", ["", SECRET])
def test_a_submitted_annotation_is_hinted_at_within_five_seconds(
    open_label_studio, tmp_path, given
):
    api = http_of(open_label_studio)
    for each in api.pages("/api/projects/"):
        api.patch(f"/api/projects/{each['id']}/", {"title": "of another test"})
    with hastened(open_label_studio, tmp_path, webhook_secret=given) as (settings, secret, said):
        hints = ChangeSignals(settings.change_signals_path)
        assert secret == given or (not given and len(secret) == 40)
        # The round's project is made while the platform runs.
        mine = project(api, "round-0001")
        wait_for(lambda: hooks_of(api, mine), 10)
        [task] = api.post(
            f"/api/projects/{mine}/import", [{"data": {"t": "a"}}], return_task_ids="true"
        )["task_ids"]
        assert hints.last() is None
        api.post(f"/api/tasks/{task}/annotations/", {"result": []})
        wait_for(hints.last, 5)
        stranger = httpx.post(settings.webhook_url, json={"action": "X"}, trust_env=False)
        assert stranger.status_code == 401
        assert said == []
    holding = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert all(secret.encode() not in path.read_bytes() for path in holding)
    assert secret not in open_label_studio.log_path.read_text()
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", settings.webhook_port), timeout=1)


def test_where_the_receiver_is_refused_one_sentence_comes_and_the_platform_goes_on(
    label_studio, api, tmp_path
):
    project(api, "round-0001")
    with hastened(label_studio, tmp_path) as (_, secret, said):
        time.sleep(1.5)
        [sentence] = said
        assert "SSRF_PROTECTION_ENABLED" in sentence
        assert secret not in sentence
    assert api.get("/api/webhooks/") == []


def test_without_an_address_nothing_listens_and_nobody_is_asked(tmp_path):
    settings = Settings(home=tmp_path)
    nobody = LabelStudioHttp("http://127.0.0.1:1", "0" * 40)
    with (
        received_change_signals(settings) as secret,
        registered_webhooks(nobody, lake_of(settings), url="", secret=secret, say=pytest.fail),
    ):
        assert secret == ""


def test_a_taken_port_is_an_error_that_names_the_setting(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        settings = Settings(home=tmp_path, webhook_url=PUBLIC, webhook_port=port)
        with (
            pytest.raises(SettingsError, match=f"{port}.*ANNOTATION_WEBHOOK_PORT"),
            received_change_signals(settings),
        ):
            pass
