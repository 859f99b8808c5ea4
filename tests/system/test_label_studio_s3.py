"""A lake in a private bucket: members see its images through Label Studio, strangers nothing."""

import re
import shutil
import subprocess
import time
from urllib.parse import quote, urljoin

import boto3
import httpx
import pytest

from annotation_platform.demo.scenes import ONTOLOGY, draw_batch
from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import (
    image_source,
    private_endpoint,
)
from annotation_platform.labeling.backends.label_studio.people import add_person
from annotation_platform.labeling.backends.label_studio.running import running_label_studio
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.policy import LabelingPolicy, Policy, RoundPolicy
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.servers.child import usable_port
from annotation_platform.servers.up import serve
from annotation_platform.settings import Settings
from annotation_platform.storage.s3 import Bucket
from tests.system.prepared_label_studio import PreparedLabelStudio
from tests.system.radosgw import INSTALL, missing_programs, running_radosgw

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

LAKE = "s3://images/a lake+%20é"
IMAGES = {"images/one.jpg": bytes(range(256)) * 4, "images/two.png": b"another" * 1000}
PATIENCE_SECONDS = 300


@pytest.fixture(scope="module")
def s3(tmp_path_factory):
    """A real S3 server with a bucket, the environment set as a user would."""
    if missing := missing_programs():
        pytest.skip(f"A real S3 server needs {', '.join(missing)}: {INSTALL}")
    with (
        running_radosgw(tmp_path_factory.mktemp("radosgw")) as server,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("AWS_ENDPOINT_URL", server.endpoint)
        environment.setenv("AWS_DEFAULT_REGION", "us-east-1")
        environment.setenv("AWS_ACCESS_KEY_ID", server.access_key)
        environment.setenv("AWS_SECRET_ACCESS_KEY", server.secret_key)
        boto3.Session().client("s3").create_bucket(Bucket="images")
        for key, data in IMAGES.items():
            Bucket(LAKE).put(key, data)
        yield server


@pytest.fixture(scope="module")
def label_studio(s3, label_studio_template, tmp_path_factory):
    place = tmp_path_factory.mktemp("label-studio")
    with PreparedLabelStudio(
        place / "data",
        document_root=None,
        secrets_path=place / "secrets.json",
        s3_endpoint=private_endpoint(),
        database=label_studio_template,
    ) as server:
        yield server


@pytest.fixture
def client(label_studio):
    token = label_studio.administrator.token
    return LabelStudioClient(label_studio.url, token, images=image_source(LAKE))


@pytest.fixture
def api(label_studio):
    return LabelStudioHttp(label_studio.url, label_studio.administrator.token)


def copies():
    return [
        Replica(f"task-{key}", key, place, "", image_key=key, width=200, height=100)
        for key in IMAGES
        for place in (1, 2)
    ]


def project_of(client, round_id):
    return int(re.search(r"/projects/(\d+)/", client.round_url(round_id)).group(1))


def tasks_as_stored(api, project):
    return api.get("/api/tasks/", project=project, page_size=100, resolve_uri="false")["tasks"]


def image_of(api, task):
    """Return where the browser fetches the image of a task, as the task's JSON says."""
    address = api.get(f"/api/tasks/{task}/")["data"]["image"]
    assert f"/tasks/{task}/resolve/?fileuri=" in address
    return urljoin(api.url, address)


def fetch(address, token=""):
    signed = {"Authorization": f"Token {token}"} if token else {}
    return httpx.get(address, headers=signed, trust_env=False, timeout=60)


def test_a_member_sees_the_stored_bytes_and_strangers_nothing(client, api, label_studio, s3):
    ids = client.publish("round-0001", ONTOLOGY, copies())
    member = add_person(label_studio.url, label_studio.administrator.token, "ada@example.org")
    for (task_id, _), task in ids.items():
        key = task_id.removeprefix("task-")
        address = image_of(api, task)
        seen = fetch(address, member.token)
        assert (seen.status_code, seen.content) == (200, IMAGES[key])
        assert seen.headers["Content-Type"] == ("image/jpeg" if "jpg" in key else "image/png")
        assert fetch(address).status_code == 401
        assert fetch(address, "0" * 40).status_code == 401
    for key in IMAGES:
        assert fetch(f"{s3.endpoint}/{quote(LAKE.removeprefix('s3://'))}/{key}").status_code == 403


def test_publishing_twice_makes_one_record_and_no_task_of_a_image(client, api):
    first = client.publish("round-0002", ONTOLOGY, copies())
    assert client.publish("round-0002", ONTOLOGY, copies()) == first
    project = project_of(client, "round-0002")
    [record] = api.get("/api/storages/s3/", project=project)
    assert (record["presign"], record["synchronizable"]) == (False, False)
    assert record["last_sync"] is None
    assert len(tasks_as_stored(api, project)) == len(copies())


def test_the_secret_is_in_no_task_annotation_or_log(client, api, label_studio, s3, caplog, capfd):
    client.publish("round-0003", ONTOLOGY, copies())
    project = project_of(client, "round-0003")
    tasks = tasks_as_stored(api, project)
    assert {task["data"]["image"] for task in tasks} == {f"{LAKE}/{key}" for key in IMAGES}
    told = [tasks, api.get("/api/tasks/", project=project, fields="all")]
    told += [api.get("/api/storages/s3/", project=project), api.get(f"/api/projects/{project}/")]
    said = [caplog.text, *capfd.readouterr(), label_studio.log_path.read_text(), str(told)]
    assert not [text for text in said if s3.secret_key in text]
    assert s3.access_key not in str(told)
    assert "X-Amz-" not in str(told)


def test_a_replaced_account_replaces_the_one_in_the_record(client, api, label_studio):
    ids = client.publish("round-0004", ONTOLOGY, copies())
    [before] = api.get("/api/storages/s3/", project=project_of(client, "round-0004"))
    # As after a change of keys: what the record holds is not this process's account any more.
    api.patch(f"/api/storages/s3/{before['id']}", {"description": "account of yesterday"})
    client.publish("round-0004", ONTOLOGY, copies())
    [after] = api.get("/api/storages/s3/", project=project_of(client, "round-0004"))
    assert after["description"] == before["description"]
    address = image_of(api, next(iter(ids.values())))
    assert fetch(address, label_studio.administrator.token).status_code == 200


def test_a_wrong_account_is_an_error_without_the_secret(client, label_studio, monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "CANARY-AWS-SECRET")
    with pytest.raises(LabelingError, match=r"cannot show images.*AWS credentials") as caught:
        client.publish("round-0005", ONTOLOGY, copies())
    assert "CANARY" not in str(caught.value)
    assert "CANARY" not in label_studio.log_path.read_text()


def test_no_record_may_name_a_private_address(client, api, s3):
    client.publish("round-0006", ONTOLOGY, copies())
    for endpoint in (s3.endpoint, "http://127.0.0.1:1", "http://10.0.0.1:9000"):
        record = {"project": project_of(client, "round-0006"), "bucket": "images"}
        with pytest.raises(LabelingError, match="403"):
            api.post("/api/storages/s3/", {**record, "s3_endpoint": endpoint})


def test_a_server_that_was_not_told_of_the_address_says_what_to_set(
    s3, label_studio_template, tmp_path
):
    with PreparedLabelStudio(
        tmp_path / "data",
        document_root=None,
        secrets_path=tmp_path / "secrets.json",
        database=label_studio_template,
    ) as foreign:
        client = LabelStudioClient(
            foreign.url, foreign.administrator.token, images=image_source(LAKE)
        )
        with pytest.raises(LabelingError, match=f"S3_ENDPOINT={s3.endpoint}") as caught:
            client.publish("round-0001", ONTOLOGY, copies())
    assert s3.secret_key not in str(caught.value)


@pytest.fixture
def settings(s3, label_studio_template, tmp_path):
    """A deployment whose places are in S3, with a prepared database so that it boots soon."""
    registry, data = tmp_path / "registry", tmp_path / "home" / "label-studio"
    for arguments in (
        ["init", "--quiet", "--initial-branch=main", str(registry)],
        ["-C", str(registry), "config", "user.name", "Ada"],
        ["-C", str(registry), "config", "user.email", "ada@example.org"],
        ["-C", str(registry), "commit", "--quiet", "--allow-empty", "-m", "Begin"],
    ):
        subprocess.run(["git", *arguments], check=True)
    data.mkdir(parents=True)
    shutil.copy(label_studio_template / "label_studio.sqlite3", data)
    policy = Policy(
        ontology=ONTOLOGY,
        rounds=RoundPolicy(minimum_images=2, settle_seconds=0.0),
        labeling=LabelingPolicy(annotations_per_task=1),
    )
    (tmp_path / "home" / "params.yaml").write_text(policy.to_yaml())
    return Settings(
        home=tmp_path / "home",
        landing="s3://images/landing",
        lake="s3://images/up",
        registry=str(registry),
    )


def up(settings, say=print, forever=None):
    ports = {name: usable_port(0, remedy="") for name in ("port", "label_studio_port", "page_port")}
    serve(settings, say=say, forever=forever, **ports)


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("AWS_SECRET_ACCESS_KEY", "CANARY-AWS-SECRET"),
        ("AWS_ACCESS_KEY_ID", "nobody"),
        ("AWS_ENDPOINT_URL", "http://127.0.0.1:1"),
    ],
)
def test_up_with_a_wrong_account_fails_before_anything_is_started(
    settings, monkeypatch, variable, value
):
    monkeypatch.setenv(variable, value)
    begun = time.monotonic()
    with pytest.raises(SettingsError, match=variable) as caught:
        up(settings)
    assert time.monotonic() - begun < 5
    assert "CANARY" not in str(caught.value)
    assert not settings.secrets_path.exists()
    assert not (settings.home_path / "lake").exists()


def test_up_shows_what_landed_in_s3(settings, s3):
    said = []
    batch = draw_batch(1, 3, seed=2)

    def watch(dagster):
        lake = lake_of(settings)
        for name, data in batch.files.items():
            lake.landing.put(name, data)
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not lake.tables.exists(LabelTasks, "round-0001"):
            dagster.check()
            assert time.monotonic() < deadline
            time.sleep(0.5)
        url, token = running_label_studio(settings)
        task = lake.tables.read(LabelTasks, "round-0001").iloc[0]
        address = image_of(LabelStudioHttp(url, token), task["backend_task"])
        stored = lake.store.get(f"images/{task['image_id']}.jpg")
        assert fetch(address, token).content == stored
        assert fetch(address).status_code == 401

    up(settings, said.append, watch)
    assert "put images into  s3://images/landing" in said
    kept = [path for path in settings.home_path.rglob("*") if path.is_file()]
    # Label Studio alone keeps it, in its database, which its owner alone may read.
    holding = [path.name for path in kept if s3.secret_key.encode() in path.read_bytes()]
    assert set(holding) == {"label_studio.sqlite3"}
    assert not (settings.home_path / "lake").exists()
