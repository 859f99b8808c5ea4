"""The platform and a real Label Studio: what is sent is there once, what people say comes back."""

import os
import re
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.formats.label_studio.results import read_result, write_result
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import FolderImages
from annotation_platform.labeling.backends.label_studio.people import (
    add_person,
    delete_account,
    members,
    remove_person,
)
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.labeling.rate_limiter import Timing
from annotation_platform.schema.annotations import PreAnnotation
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.servers.label_studio import LabelStudioServer

ONTOLOGY = Ontology.from_names(["cat", 'dog "big" & <small>'])
IMAGE = bytes(range(256)) * 4
PROPOSAL = PreAnnotation(Label.box("cat", 10, 20, 60, 70), score=0.75)


def first_label(result):
    return read_result(result, width=200, height=100, ontology=ONTOLOGY).labels[0]


PROJECT_ROOT = Path(__file__).parents[2]


def task_copy(number=0, place=0, assignee="", **changes):
    fields = {
        "task_id": f"task-{number}",
        "image_id": f"image-{number}",
        "assignment": place,
        "assignee": assignee,
        "image_key": "images/one.jpg",
        "width": 200,
        "height": 100,
        "weights_sha256": "c0ffee",
        "pre_annotations": (PROPOSAL,),
    }
    return Replica(**fields | changes)


@pytest.fixture
def client(label_studio, lake):
    (lake / "images" / "one.jpg").write_bytes(IMAGE)
    return LabelStudioClient(
        label_studio.url,
        label_studio.administrator.token,
        images=FolderImages(lake),
        timing=Timing(retry_seconds=0.01),
    )


@pytest.fixture
def api(label_studio):
    with asking(label_studio, label_studio.administrator.token) as http:
        yield http


@contextmanager
def asking(label_studio, token=""):
    signed = {"Authorization": f"Token {token}"} if token else {}
    with httpx.Client(
        base_url=label_studio.url, headers=signed, timeout=60, trust_env=False
    ) as http:
        yield http


def person(label_studio, name):
    return add_person(label_studio.url, label_studio.administrator.token, f"{name}@example.org")


def response(label_studio, who, task, result, **fields):
    with asking(label_studio, who.token) as http:
        sent = {"result": result, "lead_time": 12.5, **fields}
        said = http.post(f"/api/tasks/{task}/annotations/", json=sent)
    assert said.status_code == 201
    return said.json()["id"]


def tasks_in(api, client, round_id):
    project = int(re.search(r"/projects/(\d+)/", client.round_url(round_id)).group(1))
    found = api.get("/api/tasks/", params={"project": project, "page_size": 10_000}).json()
    return [(task["data"]["task_id"], task["data"]["place"]) for task in found["tasks"]]


def test_publishing_twice_makes_each_place_once(client, api):
    copies = [task_copy(n, place) for n in range(60) for place in range(2)]
    first = client.publish("round-0001", ONTOLOGY, copies)
    again = client.publish("round-0001", ONTOLOGY, copies)
    assert again == first
    assert len(set(first.values())) == 120
    assert sorted(tasks_in(api, client, "round-0001")) == sorted(first)


def test_a_round_adds_what_is_missing_and_tasks_that_were_deleted(client, api):
    copies = [task_copy(n) for n in range(5)]
    half = client.publish("round-0002", ONTOLOGY, copies[:3])
    api.delete(f"/api/tasks/{half['task-0', 0]}/")
    whole = client.publish("round-0002", ONTOLOGY, copies)
    assert whole["task-1", 0] == half["task-1", 0]
    assert sorted(tasks_in(api, client, "round-0002")) == [(f"task-{n}", 0) for n in range(5)]


PUBLISH = """
import os, sys
from pathlib import Path
sys.path.insert(0, "tests/system")
from test_label_studio import ONTOLOGY, task_copy
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import FolderPictures
images = FolderPictures(Path(sys.argv[2]))
client = LabelStudioClient(sys.argv[1], os.environ["TOKEN"], images=images)
client.publish("round-0003", ONTOLOGY, [task_copy(n) for n in range(700)])
"""


def test_an_import_killed_half_way_is_completed(client, api, label_studio, lake):
    publisher = subprocess.Popen(
        [sys.executable, "-c", PUBLISH, label_studio.url, str(lake)],
        env={**os.environ, "TOKEN": label_studio.administrator.token, "PYTHONPATH": "."},
        cwd=PROJECT_ROOT,
    )
    try:
        while publisher.poll() is None and not (
            client.round_url("round-0003") and tasks_in(api, client, "round-0003")
        ):
            time.sleep(0.01)
    finally:
        publisher.kill()
        publisher.wait()
    copies = [task_copy(n) for n in range(700)]
    ids = client.publish("round-0003", ONTOLOGY, copies)
    assert len(set(ids.values())) == 700
    assert len(tasks_in(api, client, "round-0003")) == 700


@contextmanager
def proxied(url, meddle):
    """A proxy to ``url`` that asks ``meddle(path)`` first, and loses the answer if that is true."""

    class Handler(BaseHTTPRequestHandler):
        def forward(self):
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            lose = meddle(self.path)
            said = httpx.request(
                self.command,
                url + self.path,
                content=body,
                headers={
                    key: self.headers[key]
                    for key in ("Authorization", "Content-Type")
                    if key in self.headers
                },
                trust_env=False,
                timeout=60,
            )
            if lose:
                self.close_connection = True
                return
            self.send_response(said.status_code)
            self.send_header("Content-Type", said.headers.get("Content-Type", ""))
            self.send_header("Content-Length", str(len(said.content)))
            self.end_headers()
            self.wfile.write(said.content)

        do_GET = do_POST = do_PATCH = do_DELETE = forward  # noqa: N815

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield f"http://127.0.0.1:{proxy.server_port}"
        finally:
            proxy.shutdown()


def test_an_import_whose_response_was_lost_is_not_done_twice(client, api, label_studio, lake):
    copies = [task_copy(n) for n in range(10)]
    imports = []

    def lose_the_first(path):
        if "/import?" in path:
            imports.append(path)
        return len(imports) == 1 and "/import?" in path

    with proxied(label_studio.url, lose_the_first) as url:
        LabelStudioClient(url, label_studio.administrator.token, images=FolderImages(lake)).publish(
            "round-0004", ONTOLOGY, copies
        )
    assert len(imports) == 1
    assert len(tasks_in(api, client, "round-0004")) == 10


def test_of_a_place_that_is_there_twice_what_nobody_touched_goes(client, api, label_studio):
    copies = [task_copy(n) for n in range(4)]
    ids = client.publish("round-0005", ONTOLOGY, copies)
    project = client.round_url("round-0005").split("/")[-2]
    said = api.get("/api/tasks/", params={"project": project, "include": "id,data"}).json()
    again = [{"data": task["data"]} for task in said["tasks"]]
    sent = {"params": {"return_task_ids": "true"}, "json": again}
    made = api.post(f"/api/projects/{project}/import", **sent).json()["task_ids"]
    ina = person(label_studio, "ina")
    # The second twin is answered, of the third both are, the fourth has a draft.
    for task in (made[1], made[2], int(ids["task-2", 0])):
        response(label_studio, ina, task, [])
    with asking(label_studio, ina.token) as http:
        http.post(f"/api/tasks/{made[3]}/drafts", json={"result": []})

    found = client.publish("round-0005", ONTOLOGY, copies)
    assert found == ids | {("task-1", 0): str(made[1])}
    left = api.get("/api/tasks/", params={"project": project, "page_size": 100}).json()
    assert {task["id"] for task in left["tasks"]} == {
        *(int(task) for task in found.values()),
        made[2],
        made[3],
    }
    assert len(client.collect("round-0005")) == 3


def test_four_publishers_at_once_make_each_place_once(client, api, label_studio, lake):
    copies = [task_copy(n, place) for n in range(30) for place in range(2)]
    start = threading.Barrier(4)

    def publish(_):
        mine = LabelStudioClient(
            label_studio.url, label_studio.administrator.token, images=FolderImages(lake)
        )
        start.wait()
        return mine.publish("round-0014", ONTOLOGY, copies)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(publish, number) for number in range(4)]
    # Whoever met the others half-way says so, and comes again.
    assert {type(job.exception()) for job in jobs} <= {type(None), LabelingError}
    ids = client.publish("round-0014", ONTOLOGY, copies)
    assert sorted(tasks_in(api, client, "round-0014")) == sorted(ids)
    # The server still does what it does when an account is made: its signals are on.
    assert person(label_studio, "lou").token


def test_annotations_are_read_whole_while_tasks_before_them_are_deleted(
    client, api, label_studio, lake
):
    copies = [task_copy(n) for n in range(515)]
    ids = client.publish("round-0015", ONTOLOGY, copies)
    jim = person(label_studio, "jim")
    last = [ids[f"task-{n}", 0] for n in range(500, 515)]
    for task in last:
        response(label_studio, jim, task, [])
    pages = []

    def delete_before_the_second_page(path):
        if path.startswith("/api/tasks/?"):
            pages.append(path)
        if len(pages) == 2 and path == pages[-1]:
            for n in range(10):
                api.delete(f"/api/tasks/{ids[f'task-{n}', 0]}/")

    with proxied(label_studio.url, delete_before_the_second_page) as url:
        reader = LabelStudioClient(url, label_studio.administrator.token, images=FolderImages(lake))
        read = [said.backend_task for said in reader.collect("round-0015")]
    # Two pages, and two more because their number and the project's did not agree.
    assert len(pages) == 4
    assert read == last


def test_closed_places_are_not_made_again_and_lost_ones_are_shown(client, api):
    copies = [task_copy(n) for n in range(3)]
    ids = client.publish("round-0016", ONTOLOGY, copies)
    for n in range(2):
        api.delete(f"/api/tasks/{ids[f'task-{n}', 0]}/")
    assert client.held_assignments("round-0016") == {("task-2", 0)}
    again = client.publish("round-0016", ONTOLOGY, copies, closed={("task-0", 0)})
    assert again["task-0", 0] == ""
    assert client.held_assignments("round-0016") == {("task-1", 0), ("task-2", 0)}


def test_what_people_say_comes_back_as_theirs(client, label_studio):
    ada, bob = person(label_studio, "ada"), person(label_studio, "bob")
    copies = [
        task_copy(0, 0, ada.email),
        task_copy(0, 1, bob.email),
        task_copy(1, 0, ada.email, pre_annotations=(), weights_sha256=""),
    ]
    ids = client.publish("round-0006", ONTOLOGY, copies)
    assert client.collect("round-0006") == []
    assert client.progress("round-0006").annotations == 0

    drawn = write_result([Label.box("cat", 12, 20, 60, 70)], 200, 100)
    by_ada = response(label_studio, ada, ids["task-0", 0], drawn)
    response(label_studio, bob, ids["task-0", 1], [], was_cancelled=True)
    response(label_studio, ada, ids["task-1", 0], [])
    with asking(label_studio, bob.token) as http:
        # A draft is no answer.
        http.post(f"/api/tasks/{ids['task-1', 0]}/drafts", json={"result": drawn})
    before = client.change_token("round-0006")
    assert client.progress("round-0006").annotations == 3

    redrawn = write_result([Label.box("cat", 14, 20, 60, 70)], 200, 100)
    with asking(label_studio, ada.token) as http:
        http.patch(f"/api/annotations/{by_ada}/", json={"result": redrawn})
    assert client.progress("round-0006").annotations == 3
    assert client.change_token("round-0006") != before

    first, skipped, nothing = client.collect("round-0006")
    assert (first.task_id, first.assignment, first.image_id) == ("task-0", 0, "image-0")
    assert (first.author, first.skipped, first.lead_time_seconds) == (ada.email, False, 12.5)
    assert first.updated_at > first.created_at
    assert first_label(first.payload.content).x1 == pytest.approx(14)
    assert first.weights_sha256 == "c0ffee"
    assert first_label(first.pre_annotations.content).x1 == pytest.approx(10)
    assert (skipped.author, skipped.skipped, skipped.assignment) == (bob.email, True, 1)
    assert (nothing.author, nothing.skipped, nothing.payload.content) == (ada.email, False, [])
    assert (nothing.weights_sha256, nothing.pre_annotations) == ("", None)


def test_each_person_has_a_tab_with_their_own_places(client, api):
    copies = [task_copy(n, assignee=f"p{n % 2}@example.org") for n in range(5)]
    for _ in range(2):
        client.publish("round-0007", ONTOLOGY, copies)
    project = client.round_url("round-0007").split("/")[-2]
    tabs = api.get("/api/dm/views/", params={"project": project}).json()
    assert [tab["data"]["title"] for tab in tabs] == [
        "Everybody",
        "p0@example.org",
        "p1@example.org",
    ]
    shown = [api.get("/api/tasks/", params={"view": tab["id"]}).json()["total"] for tab in tabs]
    assert shown == [5, 3, 2]


def test_the_classes_and_guidelines_are_shown(client, api):
    client.publish("round-0008", ONTOLOGY, [])
    project = client.round_url("round-0008").split("/")[-2]
    shown = api.get(f"/api/projects/{project}/").json()
    assert shown["parsed_label_config"]["label"]["labels"] == ONTOLOGY.names
    assert shown["expert_instruction"] == ONTOLOGY.guidelines

    more = Ontology.from_names([*ONTOLOGY.names, "yak"])
    client.publish("round-0008", more, [])
    shown = api.get(f"/api/projects/{project}/").json()
    assert shown["parsed_label_config"]["label"]["labels"] == more.names


def test_a_round_that_was_never_published_is_empty(client):
    assert client.collect("round-9999") == []
    assert client.progress("round-9999").annotations == 0
    assert client.change_token("round-9999") == ""
    assert client.round_url("round-9999") == ""


def test_images_are_shown_to_members_only(client, api, label_studio, lake):
    client.publish("round-0010", ONTOLOGY, [task_copy()])
    (lake / "ledger.parquet").write_bytes(b"not an image")
    project = client.round_url("round-0010").split("/")[-2]
    task = api.get("/api/tasks/", params={"project": project}).json()["tasks"][0]
    with asking(label_studio) as stranger:
        assert stranger.get(task["data"]["image"]).status_code in {302, 401, 403}
    assert api.get(task["data"]["image"]).content == IMAGE
    for outside in ("ledger.parquet", "images/../ledger.parquet", "../secrets.json"):
        assert api.get("/data/local-files/", params={"d": outside}).status_code >= 400


def test_without_an_invitation_nobody_gets_in(label_studio):
    with asking(label_studio) as stranger:
        page = stranger.get("/user/signup/").text
        form = {
            "csrfmiddlewaretoken": re.search(r'csrfmiddlewaretoken" value="([^"]+)', page).group(1),
            "email": "eve@example.org",
            "password": "correct-horse-battery",
        }
        for path in ("/user/signup/", "/user/signup/?token=guessed"):
            headers = {"Referer": label_studio.url + path}
            assert stranger.post(path, data=form, headers=headers).status_code == 403
        assert stranger.get("/api/projects/").status_code == 401
    server = LabelStudioHttp(label_studio.url, label_studio.administrator.token)
    assert "eve@example.org" not in members(server)


def test_a_used_invitation_is_void_so_the_log_holds_no_secret(label_studio, api):
    fay = person(label_studio, "fay")
    log = label_studio.log_path.read_text()
    administrator = label_studio.administrator
    secrets = [administrator.password, administrator.token, fay.password, fay.token]
    secrets.append(api.get("/api/invite").json()["token"])
    assert not [secret for secret in secrets if secret in log]
    assert not [secret for secret in secrets if secret in repr((fay, administrator))]


def test_people_are_added_listed_and_removed_and_their_annotations_stay(client, label_studio):
    server = (label_studio.url, label_studio.administrator.token)
    gil, hal = person(label_studio, "gil"), person(label_studio, "hal")
    assert {gil.email, hal.email} <= set(client.annotators())
    assert label_studio.administrator.email not in client.annotators()
    with pytest.raises(LabelingError, match="already exists"):
        add_person(*server, gil.email)

    ids = client.publish("round-0011", ONTOLOGY, [task_copy(), task_copy(1)])
    response(label_studio, gil, ids["task-0", 0], [])
    response(label_studio, hal, ids["task-1", 0], [])
    remove_person(*server, gil.email)
    assert delete_account(LabelStudioHttp(*server), hal.email) == 1

    assert not {gil.email, hal.email} & set(client.annotators())
    assert [s.author for s in client.collect("round-0011")] == [gil.email, "unknown"]
    for gone in (gil, hal):
        with asking(label_studio, gone.token) as http:
            assert http.get(f"/api/tasks/{ids['task-0', 0]}/").status_code in {401, 403, 404}
            assert http.get("/data/local-files/?d=images/one.jpg").status_code in {401, 404}
    with pytest.raises(LabelingError, match=r"has no account with the address gil@example\.org"):
        remove_person(*server, gil.email)
    with pytest.raises(LabelingError, match="administrator"):
        remove_person(*server, label_studio.administrator.email)


@pytest.mark.parametrize("email", ["", "ada", "a@b, c@d", "ada@example.org\nx"])
def test_what_is_no_address_gets_no_account(label_studio, email):
    with pytest.raises(LabelingError, match="not an e-mail address"):
        add_person(label_studio.url, label_studio.administrator.token, email)


def test_a_short_password_is_refused_with_the_servers_reason(label_studio):
    with pytest.raises(LabelingError, match="8–128 characters"):
        add_person(label_studio.url, label_studio.administrator.token, "kim@example.org", "short")


def test_a_personal_access_token_works_too(label_studio, lake, api):
    token = api.post("/api/token/").json()["token"]
    client = LabelStudioClient(label_studio.url, token, images=FolderImages(lake))
    assert client.publish("round-0012", ONTOLOGY, [task_copy()])
    assert client.collect("round-0012") == []


@pytest.mark.parametrize("token", ["0" * 40, "eyJ.eyJ.sig"])
def test_a_wrong_token_is_named_by_its_variable(label_studio, lake, token):
    client = LabelStudioClient(label_studio.url, token, images=FolderImages(lake))
    with pytest.raises(LabelingError, match="ANNOTATION_LABEL_STUDIO_TOKEN") as caught:
        client.collect("round-0001")
    assert token not in str(caught.value)


def test_a_folder_the_server_may_not_serve_is_named(label_studio, tmp_path):
    client = LabelStudioClient(
        label_studio.url, label_studio.administrator.token, images=FolderImages(tmp_path)
    )
    with pytest.raises(LabelingError, match=r"cannot serve images.*DOCUMENT_ROOT"):
        client.publish("round-0013", ONTOLOGY, [task_copy()])


def test_a_image_is_forgotten_with_all_that_was_said_of_it(client, label_studio, api):
    ada = person(label_studio, "ada-forgets")
    copies = [task_copy(n, place) for n in range(3) for place in range(2)]
    first = client.publish("round-0021", ONTOLOGY, copies)
    client.publish("round-0022", ONTOLOGY, copies[:1])
    for number in range(3):
        response(
            label_studio, ada, first[f"task-{number}", 0], write_result([PROPOSAL.label], 200, 100)
        )
    assert client.delete({"image-0"}) >= 3
    assert client.delete({"image-0"}) == 0
    left = {(task, place) for task, place in first if task != "task-0"}
    assert client.held_assignments("round-0021") == left
    assert client.held_assignments("round-0022") == set()
    assert {each.image_id for each in client.collect("round-0021")} == {"image-1", "image-2"}
    assert api.get(f"/api/tasks/{first['task-0', 0]}/").status_code == 404


def test_a_person_is_forgotten_and_what_they_said_stays(client, label_studio, api):
    eve, name = person(label_studio, "eve-forgets"), "eve-forgets@example.org"
    copies = [task_copy(n, assignee=name) for n in range(2)]
    first = client.publish("round-0023", ONTOLOGY, copies)
    response(label_studio, eve, first["task-0", 0], write_result([PROPOSAL.label], 200, 100))
    assert name in client.annotators()
    # Two tasks, a tab and an account.
    assert client.delete_person(name.upper()) == 4
    assert client.delete_person(name) == 0
    assert name not in client.annotators()
    said = client.collect("round-0023")
    assert [each.image_id for each in said] == ["image-0"]
    assert name not in str(said)
    project = re.search(r"/projects/(\d+)/", client.round_url("round-0023")).group(1)
    for path in ("/api/tasks/", "/api/dm/views/"):
        shown = api.get(path, params={"project": project, "page_size": 100, "fields": "all"}).text
        assert name not in shown
    with pytest.raises(LabelingError, match="administrator"):
        client.delete_person(label_studio.administrator.email)


def test_every_file_is_its_owners_alone(label_studio):
    place = label_studio.log_path.parent
    assert place.stat().st_mode & 0o777 == 0o700
    files = [path for path in place.rglob("*") if path.is_file()]
    assert {".env", "label_studio.sqlite3", "server.log"} <= {path.name for path in files}
    files.append(place.parent / "secrets.json")
    assert not [path for path in files if path.stat().st_mode & 0o077]


def test_no_secret_is_on_a_command_line(label_studio):
    commands = subprocess.run(
        ["ps", "-eo", "args"], check=True, capture_output=True, text=True
    ).stdout
    assert label_studio.administrator.token not in commands
    assert label_studio.administrator.password not in commands


def test_data_of_other_secrets_are_refused_rather_than_locked_out_of(label_studio, tmp_path):
    server = LabelStudioServer(
        label_studio.log_path.parent,
        document_root=tmp_path,
        secrets_path=tmp_path / "other.json",
    )
    with pytest.raises(SettingsError, match=r"does not match the secrets.*other\.json"):
        server.start()
    assert not server.running
