"""No fault of Label Studio repeats or loses an assignment, hides annotations or reveals a token.

A scripted server (`faulty_label_studio.py`) has the faults; the client is the real one.
"""

import json
import logging
import multiprocessing
import os
import random
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import LabelingError, SettingsError
from annotation_platform.labeling.backends.label_studio import http as label_studio_http
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.http import LabelStudioHttp
from annotation_platform.labeling.backends.label_studio.image_sources import FolderImages
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.labeling.counting import count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.rate_limiter import Timing
from annotation_platform.schema.annotations import PreAnnotation
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import LabelTasks
from annotation_platform.storage.objects import LocalObjectStore
from tests.core.labeling import faulty_label_studio as faulty
from tests.core.labeling.faulty_label_studio import ADMINISTRATOR, PERSONAL_TOKEN, TOKEN, running

ROUND = "round-0001"
ONTOLOGY = Ontology.from_names(["cat"])
LAKE = Path("/nowhere")
IMPORT = "POST /api/projects/.*/import"
TASKS = "GET /api/tasks/"
NOW = datetime(2026, 1, 1, tzinfo=UTC)


def client(server, token=TOKEN, **options):
    patience = {"timeout_seconds": 5.0, "retry_seconds": 0.001, "settle_seconds": 0.2}
    timing = Timing(**patience | options)
    return LabelStudioClient(server.url, token, images=FolderImages(LAKE), timing=timing)


def replicas(tasks=4):
    proposal = PreAnnotation(Label.box("cat", 10, 20, 60, 70), score=0.75)
    return [
        Replica(
            task_id=f"task-{number}",
            image_id=f"image-{number}",
            assignment=assignment,
            assignee=f"p{assignment}@example.org",
            image_key="images/one.jpg",
            width=200,
            height=100,
            weights_sha256="c0ffee",
            pre_annotations=(proposal,),
        )
        for number in range(tasks)
        for assignment in (1, 2)
    ]


def publish(server, tasks=4, **options):
    return client(server).publish(ROUND, ONTOLOGY, replicas(tasks), **options)


def wanted(tasks=4):
    return sorted((replica.task_id, replica.assignment) for replica in replicas(tasks))


def requests_of(act):
    """Return how many requests ``act(server)`` takes where nothing goes wrong."""
    with running() as server:
        publish(server)
        before = len(server.requests)
        act(server)
        return len(server.requests) - before


def annotated(server, tasks=4):
    ids = publish(server, tasks)
    for task in ids.values():
        server.annotate(int(task), ADMINISTRATOR, [{"value": {"x": 1.5}}])
    return ids


PUBLISHING = 16  # requests; a test below counts them

PASSING = {
    "429": faulty.says(429, Retry_After="0"),
    "500": faulty.says(500),
    "502": faulty.says(502, "<html>", Content_Type="text/html"),
    "503": faulty.says(503, Retry_After="0.01"),
    "504 although done": lambda exchange: (exchange.perform(), exchange.response(504, "")),
    "reset before": faulty.dropped,
    "reply lost": faulty.lost,
    "cut body": faulty.cut,
    "reset in the body": faulty.reset_midway,
    "slow": faulty.delayed(0.02),
}


def test_a_round_is_published_with_a_known_number_of_requests():
    with running() as server:
        publish(server)
        assert len(server.requests) == PUBLISHING - 2
    assert requests_of(publish) < PUBLISHING


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_passing_fault_in_any_request_leaves_every_place_there_once(fault):
    for number in range(1, PUBLISHING + 1):
        with running() as server:
            server.fault(fault, at=number)
            ids = publish(server)
            assert server.assignments() == wanted(), number
            assert sorted(map(int, ids.values())) == sorted(server.tasks), number
            assert len(server.projects) == 1, number


def test_an_import_that_outlasts_the_patience_is_waited_for_and_not_sent_again():
    with running() as server:
        server.fault(faulty.late(0.1), on=IMPORT)
        ids = client(server, settle_seconds=5.0).publish(ROUND, ONTOLOGY, replicas())
        assert server.assignments() == wanted()
        assert len(ids) == len(wanted())
        assert sum(exchange.path.endswith("/import") for exchange in server.requests) == 1


def test_an_import_that_is_done_after_all_is_undone_by_the_next_publishing():
    with running() as server:
        server.fault(faulty.late(0.3), on=IMPORT)
        ids = client(server, settle_seconds=0.0).publish(ROUND, ONTOLOGY, replicas())
        server.settle()
        assert len(server.tasks) == 2 * len(wanted())
        assert publish(server) == ids
        assert server.assignments() == wanted()


def publish_in_a_process(url):
    images = FolderImages(LAKE)
    patience = {"timeout_seconds": 5.0, "retry_seconds": 0.001, "settle_seconds": 0.2}
    labeling = LabelStudioClient(url, TOKEN, images=images, timing=Timing(**patience))
    labeling.publish(ROUND, ONTOLOGY, replicas())


@pytest.fixture(scope="module")
def processes():
    """Processes forked from one that has imported all and runs no thread."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def killing(process, moment):
    """Return a fault that kills a process before, while or after a request of it is done."""

    def fault(exchange):
        if moment == "done":
            exchange.perform()
        os.kill(process.pid, signal.SIGKILL)
        exchange.hang_up()
        if moment == "under way":
            exchange.server.later(0.02, exchange.perform)

    return fault


@pytest.mark.parametrize("moment", ["not done", "done", "under way"])
def test_a_publisher_killed_at_any_request_leaves_work_that_the_next_one_completes(
    processes, moment
):
    for number in range(1, PUBLISHING - 1):
        with running() as server:
            process = processes.Process(target=publish_in_a_process, args=(server.url,))
            server.fault(killing(process, moment), at=number)
            process.start()
            process.join(30)
            assert process.exitcode == -signal.SIGKILL, number
            publish(server)
            # What the killed one had under way may come after the next one has looked.
            server.settle()
            ids = publish(server)
            assert server.assignments() == wanted(), number
            assert sorted(map(int, ids.values())) == sorted(server.tasks), number


def test_publishers_at_the_same_moment_agree_on_one_task_for_each_place():
    for _ in range(5):
        with running() as server, ThreadPoolExecutor(4) as pool:
            start = threading.Barrier(4)

            def go(server=server, start=start):
                labeling = client(server)
                start.wait()
                return labeling.publish(ROUND, ONTOLOGY, replicas(30))

            running_now = [pool.submit(go) for _ in range(4)]
            # A client that cannot read a list that keeps changing raises an error, and tries again.
            errors = [job.exception() for job in running_now]
            assert {type(error) for error in errors} <= {type(None), LabelingError}
            ids = publish(server, 30)
            assert server.assignments() == wanted(30)
            assert all(job.result() == ids for job in running_now if not job.exception())
            # Deleting a project would do harm: see where the client tells the needless ones apart.
            assert not [exchange for exchange in server.requests if exchange.method == "DELETE"]
            titles = sorted(project["title"] for project in server.projects.values())
            assert titles[0] == ROUND
            assert set(titles[1:]) <= {f"{ROUND} (not used)"}


def test_of_two_projects_of_a_round_the_one_with_tasks_is_used():
    with running() as server:
        empty = server.make_project(body={"title": ROUND})[1]["id"]
        full = server.make_project(body={"title": ROUND})[1]["id"]
        task = {"data": {"task_id": "task-0", "place": 1, "image_id": "image-0"}}
        server.import_tasks(full, query={}, body=[task])
        publish(server)
        assert server.assignments() == wanted()
        assert {task["project"] for task in server.tasks.values()} == {full}
        # Who made it may still need it.
        assert empty in server.projects


def test_a_publisher_whose_tasks_another_one_removed_goes_on_with_those_of_the_other():
    with running() as server:

        def overtake(server):
            project = next(iter(server.projects))
            ours = dict(server.tasks)
            _, made = server.import_tasks(project, query={}, body=list(ours.values()))
            assert made["task_count"] == len(ours)
            for task in ours:
                server.delete_task(task)

        # Just before it counts what it has made.
        server.fault(faulty.obey, on="GET /api/projects/1/")
        server.fault(faulty.after(overtake), on="GET /api/projects/1/")
        ids = publish(server)
        assert sorted(map(int, ids.values())) == sorted(server.tasks)
        assert server.assignments() == wanted()


def test_of_a_place_that_is_there_twice_what_nobody_touched_goes_and_annotations_stay():
    with running() as server:
        ids = publish(server, 2)
        project = next(iter(server.projects))
        again = [server.tasks[int(task)] for task in ids.values()]
        _, made = server.import_tasks(project, query={"return_task_ids": "true"}, body=again)
        first, second, third, fourth = made["task_ids"]
        server.annotate(second, ADMINISTRATOR, [])
        server.annotate(third, ADMINISTRATOR, [])
        server.annotate(int(ids["task-1", 1]), ADMINISTRATOR, [])
        server.tasks[fourth]["drafts"] = 1
        found = publish(server, 2)
        assert first not in server.tasks
        # The second is answered and its twin is not; of the third, both are answered.
        assert found == ids | {("task-0", 2): str(second)}
        assert int(ids["task-0", 2]) not in server.tasks
        assert {third, fourth} <= set(server.tasks)
        assert len(client(server).collect(ROUND)) == 3


# What is read


def test_no_annotation_is_hidden_by_tasks_that_go_while_pages_are_read():
    with running(page_size_max=3) as server:
        ids = annotated(server)
        going = int(ids["task-0", 1])
        pages = []

        def second_page(server):
            pages.append(1)
            if len(pages) == 2:
                server.delete_task(going)

        server.fault(faulty.after(second_page), on=TASKS, times=99)
        read = {submission.backend_task for submission in client(server).collect(ROUND)}
        assert read == set(ids.values()) - {str(going)}


def test_a_round_is_found_though_other_projects_go_while_they_are_listed():
    with running() as server:
        for number in range(200):
            server.make_project(body={"title": f"{ROUND}-{number}"})
        ids = publish(server)
        listed = []

        def second_page(server):
            listed.append(1)
            if len(listed) == 2:
                server.delete_project(min(server.projects))

        server.fault(faulty.after(second_page), on="GET /api/projects/", times=99)
        assert publish(server) == ids
        assert len(listed) == 3
        assert sum(r.method == "POST" and r.path == "/api/projects/" for r in server.requests) == 1


def test_proposals_that_are_not_all_there_are_not_taken_for_all():
    with running() as server:
        annotated(server)
        short = faulty.edited(lambda payload: payload[1:])
        server.fault(short, on="GET /api/predictions/", times=2)
        assert all(
            submission.pre_annotations.content for submission in client(server).collect(ROUND)
        )
        server.fault(short, on="GET /api/predictions/", times=99)
        with pytest.raises(LabelingError, match=r"7 predictions .* which holds 8"):
            client(server).collect(ROUND)


def test_a_list_that_never_holds_still_is_not_taken_for_complete():
    with running(page_size_max=3) as server:
        annotated(server, 40)
        server.fault(
            faulty.before_answering(lambda server: server.delete_task(min(server.tasks))),
            on=TASKS,
            times=999,
        )
        with pytest.raises(LabelingError, match="keeps changing"):
            client(server).collect(ROUND)


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(["keep", "delete", "add", "answer"]), max_size=12),
    st.integers(0, 2**32),
)
def test_whatever_changes_between_pages_every_annotation_that_stays_is_read(changes, seed):
    drawn = random.Random(seed)
    with running(page_size_max=3) as server:
        annotated(server)
        project = next(iter(server.projects))
        plan = list(changes)

        def change(server):
            kind = plan.pop() if plan else "keep"
            if kind == "delete" and server.tasks:
                server.delete_task(drawn.choice(sorted(server.tasks)))
            if kind == "add":
                data = {"task_id": "more", "image_id": "more", "place": len(server.tasks)}
                server.import_tasks(project, query={}, body=[{"data": data}])
            if kind == "answer" and server.tasks:
                server.annotate(drawn.choice(sorted(server.tasks)), ADMINISTRATOR, [])

        before = set(server.annotations)
        server.fault(faulty.after(change), on=TASKS, times=99)
        try:
            read = {int(submission.annotation) for submission in client(server).collect(ROUND)}
        except LabelingError:
            return
        assert read >= before & set(server.annotations)


def test_one_number_that_is_none_hides_no_other_annotation_and_is_not_passed_on(tmp_path):
    with running() as server:
        ids = publish(server, 1)
        values = [{"x": float("nan"), "y": float("inf")}, {"x": 1.0}]
        for task, value in zip(ids.values(), values, strict=True):
            server.annotate(int(task), ADMINISTRATOR, [{"value": value}], lead_time=float("nan"))
        first, second = client(server).collect(ROUND)
        assert first.payload.content == [{"value": {"x": "NaN", "y": "Infinity"}}]
        assert first.lead_time_seconds == 0.0
        assert second.payload.content == [{"value": {"x": 1.0}}]
        AnnotationsLedger(LocalObjectStore(tmp_path)).append(ROUND, [first], now=NOW)
        lines = [line for path in tmp_path.rglob("*.jsonl") for line in path.open()]
        assert lines
        for line in lines:
            json.loads(line, parse_constant=pytest.fail)


def test_annotations_once_fetched_outlive_the_task_and_the_project(tmp_path):
    ledger = AnnotationsLedger(LocalObjectStore(tmp_path))
    asked = pd.DataFrame(wanted(2), columns=["task_id", "assignment"])
    tasks = asked.reindex(columns=LabelTasks.empty().columns, fill_value="")
    with running() as server:
        ids = publish(server, 2)
        for number, task in enumerate(ids.values()):
            server.annotate(int(task), server.sign_up(f"p{number}", f"token-{number}"), [])
        labeling = client(server)
        ledger.append(ROUND, labeling.collect(ROUND), now=NOW)
        server.delete_task(int(ids["task-0", 1]))
        ledger.append(ROUND, labeling.collect(ROUND), now=NOW)
        assert len(labeling.collect(ROUND)) == 3
        assert labeling.held_assignments(ROUND) == set(wanted(2)) - {("task-0", 1)}
        server.delete_project(next(iter(server.projects)))
        assert labeling.collect(ROUND) == []
        assert labeling.held_assignments(ROUND) == set()
        live = [*ledger.read(ROUND)]
        assert count_annotations(live, tasks).complete


def test_a_place_that_is_closed_is_not_asked_for_again():
    with running() as server:
        ids = publish(server, 2)
        server.delete_task(int(ids["task-0", 1]))
        server.delete_task(int(ids["task-1", 1]))
        again = publish(server, 2, closed={("task-0", 1), ("task-0", 2)})
        assert again["task-0", 1] == ""
        assert again["task-0", 2] == ids["task-0", 2]
        assert server.assignments() == [("task-0", 2), ("task-1", 1), ("task-1", 2)]


# What is not Label Studio's

NOT_LABEL_STUDIO = {
    "login page": faulty.LOGIN_PAGE,
    "half a document": faulty.HALF_A_DOCUMENT,
    "redirect": faulty.says(302, "", Location="https://sso.example.org/login?ticket=CANARY"),
    "not UTF-8": faulty.says(200, b'{"tasks": "\xff\xfe"}'),
    "too deep": faulty.says(200, "[" * 100_000),
    "a list": faulty.says(200, "[1]"),
    "a text": faulty.says(200, '"ok"'),
    "nothing": faulty.says(200, ""),
}


@pytest.mark.parametrize("fault", NOT_LABEL_STUDIO.values(), ids=NOT_LABEL_STUDIO)
def test_a_response_that_is_not_label_studios_ends_it_and_names_the_variable(fault):
    act = partial(LabelStudioClient.collect, round_id=ROUND)
    for number in range(1, requests_of(lambda server: act(client(server))) + 1):
        with running() as server:
            annotated(server)
            asked = len(server.requests)
            server.fault(fault, at=asked + number)
            with pytest.raises(LabelingError, match="ANNOTATION_LABEL_STUDIO_URL") as caught:
                act(client(server))
            assert len(server.requests) == asked + number
            assert "CANARY" not in str(caught.value)
            assert len(act(client(server))) == len(wanted())


def spoiled(payload, drawn):
    """Return JSON like ``payload`` with one value, somewhere, gone or replaced."""
    if isinstance(payload, dict) and payload and drawn.random() < 0.9:
        key = drawn.choice(sorted(payload))
        changed = {**payload, key: spoiled(payload[key], drawn)}
        if drawn.random() < 0.2:
            del changed[key]
        return changed
    if isinstance(payload, list) and payload and drawn.random() < 0.9:
        assignment = drawn.randrange(len(payload))
        return [
            *payload[:assignment],
            spoiled(payload[assignment], drawn),
            *payload[assignment + 1 :],
        ]
    return drawn.choice([None, "", -1, 2.5, True, [], {}, [[]], "x", {"id": 1}, payload])


@settings(max_examples=30, deadline=None)
@given(st.integers(1, PUBLISHING + 9), st.integers(0, 2**32))
def test_json_of_any_other_shape_ends_in_our_error_or_does_no_harm(number, seed):
    drawn = random.Random(seed)
    with running() as server:
        spoiling = faulty.edited(lambda payload: spoiled(payload, drawn))
        server.fault(spoiling, at=number)
        labeling = client(server)
        try:
            publish(server)
            labeling.collect(ROUND)
            labeling.progress(ROUND)
            labeling.change_token(ROUND)
        except LabelingError:
            pass
        server.heal()
        publish(server)
        assert server.assignments() == wanted()


# Refusals


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize("token", [TOKEN, PERSONAL_TOKEN], ids=["legacy", "personal"])
def test_a_token_that_ends_midway_stops_it_at_once_and_is_never_shown(status, token, caplog):
    caplog.set_level(logging.DEBUG)
    for number in range(PUBLISHING - 2):
        with running() as server:
            refusal = faulty.says(status, json.dumps({"detail": f"Invalid token {token}"}))
            server.fault(faulty.obey, on=".*", times=number)
            server.fault(refusal, on=".*", times=999)
            with pytest.raises(LabelingError, match="ANNOTATION_LABEL_STUDIO_TOKEN") as caught:
                client(server, token).publish(ROUND, ONTOLOGY, replicas())
            # A personal token is tried once more: what it buys ends every few minutes.
            assert len(server.requests) <= number + 2
            assert "CANARY" not in str(caught.value)
            server.heal()
            publish(server)
            assert server.assignments() == wanted()
    assert TOKEN not in caplog.text
    assert PERSONAL_TOKEN not in caplog.text


@pytest.mark.parametrize("access", ["", "a\nb", "schlüssel", 5, None])
def test_what_is_bought_for_a_personal_token_and_is_no_token_is_not_sent(access):
    with running() as server:
        server.fault(faulty.says(200, {"access": access}), on=".*/refresh/")
        with pytest.raises(LabelingError, match="ANNOTATION_LABEL_STUDIO_URL"):
            client(server, PERSONAL_TOKEN).collect(ROUND)
        assert len(server.requests) == 1


def test_a_server_that_repeats_the_token_in_a_refusal_does_not_spread_it():
    with running() as server:
        server.fault(faulty.says(400, json.dumps({"detail": f"bad header {TOKEN}"})), on=".*")
        with pytest.raises(LabelingError, match="bad header …"):
            client(server).collect(ROUND)


@pytest.mark.parametrize("url", ["http://ada:CANARY@x:1", "https://CANARY@x"])
def test_an_address_with_a_password_is_refused_and_not_repeated(url):
    with pytest.raises(SettingsError, match="ANNOTATION_LABEL_STUDIO_URL") as caught:
        LabelStudioHttp(url, TOKEN)
    assert "CANARY" not in str(caught.value)


# A server that is not there, or not in time


@pytest.fixture
def full():
    """The port of a socket whose queue is full: it answers no handshake."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:
            each.setblocking(False)
            each.connect_ex(listening.getsockname())
        yield listening.getsockname()[1]
        for each in waiting:
            each.close()


def test_a_server_that_is_not_there_is_an_error_at_once_and_nothing_is_lost(full):
    with running() as server:
        closed = server.url
        assignments = {
            "https of a plain server": server.url.replace("http:", "https:"),
            "no such host": "http://label-studio.invalid:8080",
            "no handshake": f"http://127.0.0.1:{full}",
        }
        for why, url in assignments.items():
            http = LabelStudioHttp(url, TOKEN, timeout_seconds=0.3)
            for send in (http.get, partial(http.post, body=[])):
                started = time.monotonic()
                with pytest.raises(LabelingError, match=r"cannot be reached.*no data is lost"):
                    send("/api/x/")
                assert time.monotonic() - started < 5.0, why
        ids = publish(server)
        server.stop()
        with pytest.raises(LabelingError, match=f"{closed} cannot be reached"):
            publish(server)
        server.start()
        assert publish(server) == ids


@pytest.mark.parametrize(("fault", "requests"), [(faulty.hangs, 2), (faulty.trickles, 2)])
def test_a_server_that_never_ends_its_response_is_left_after_two_requests(fault, requests):
    with running() as server:
        server.fault(fault, on=".*", times=99)
        http = LabelStudioHttp(server.url, TOKEN, timeout_seconds=0.1, retry_seconds=0.001)
        with pytest.raises(LabelingError, match="did not respond to GET"):
            http.get("/api/projects/")
        assert len(server.requests) == requests


@pytest.fixture
def waits(monkeypatch):
    """The seconds that the client would have waited, in order."""
    waited = []
    monkeypatch.setattr(label_studio_http.time, "sleep", waited.append)
    return waited


def test_attempts_are_further_and_further_apart_up_to_thirty_seconds(waits):
    with running() as server:
        server.fault(faulty.says(502), on=".*", times=99)
        http = LabelStudioHttp(server.url, TOKEN, attempts=12, retry_seconds=0.5)
        with pytest.raises(LabelingError, match="responds with 502"):
            http.get("/api/projects/")
        assert len(server.requests) == 12
    meant = [0.5 * 2**number for number in range(11)]
    for wait, mean in zip(waits, meant, strict=True):
        assert min(0.5 * mean, 30.0) <= wait <= min(1.5 * mean, 30.0)
    # Clients that failed together do not come back together.
    assert len({round(wait / mean, 6) for wait, mean in zip(waits[:5], meant, strict=False)}) > 1


@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_a_server_asks_for_is_kept(status, waits):
    at = datetime.fromtimestamp(time.time() + 20, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")
    with running() as server:
        for asked in ("7", at):
            server.fault(faulty.says(status, Retry_After=asked), on=".*")
        LabelStudioHttp(server.url, TOKEN, retry_seconds=0.001).get("/api/projects/")
    assert waits[0] == 7.0
    assert waits[1] == pytest.approx(20, abs=2)


@pytest.mark.parametrize("status", [429, 503])
def test_a_wait_that_is_too_long_is_named_and_not_cut_short(status, waits):
    with running() as server:
        server.fault(faulty.says(status, Retry_After="3600"), on=IMPORT, times=99)
        with pytest.raises(LabelingError, match="in 3600 s, as it requests"):
            LabelStudioHttp(server.url, TOKEN).post("/api/projects/1/import", [])
        assert len(server.requests) == 1
    assert waits == []


def test_no_more_requests_are_sent_in_a_second_than_allowed():
    with running() as server:
        http = LabelStudioHttp(server.url, TOKEN, requests_per_second=100)
        http.get("/api/projects/")
        started = time.monotonic()
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(http.get, ["/api/projects/"] * 20))
        assert time.monotonic() - started >= 19 / 100
    with pytest.raises(SettingsError, match="above 0"):
        LabelStudioHttp("http://127.0.0.1", TOKEN, requests_per_second=0)


# Everything together


@settings(max_examples=20, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.sampled_from(sorted(PASSING | NOT_LABEL_STUDIO)))),
    st.lists(st.sampled_from(["publish", "pull", "answer", "edit", "restart"]), max_size=8),
    st.integers(0, 2**32),
)
def test_after_any_faults_every_place_is_there_once_and_every_annotation_was_read(
    faults, acts, seed
):
    drawn = random.Random(seed)
    with running(page_size_max=3) as server:
        for number, name in faults:
            server.fault((PASSING | NOT_LABEL_STUDIO)[name], at=number)
        labeling, seen = client(server), {}
        for act in acts:
            try:
                if act == "publish":
                    publish(server)
                if act == "pull":
                    seen |= {
                        submission.annotation: submission for submission in labeling.collect(ROUND)
                    }
            except LabelingError:
                pass
            if act == "answer" and server.tasks:
                server.annotate(drawn.choice(sorted(server.tasks)), ADMINISTRATOR, [])
            if act == "edit" and server.annotations:
                server.edit(drawn.choice(sorted(server.annotations)), body={"result": ["more"]})
            if act == "restart":
                server.stop()
                server.start()
        server.heal()
        publish(server)
        # A second replica that holds an annotation stays; it is no assignment any more.
        assert set(server.assignments()) == set(wanted())
        assert len(server.tasks) == len(wanted())
        seen |= {submission.annotation: submission for submission in labeling.collect(ROUND)}
        assert seen.keys() == {str(key) for key in server.annotations}
        for key, submission in seen.items():
            assert submission.payload.content == server.annotations[int(key)]["result"]
