"""The Label Studio client beside the bare API, on a real server with SQLite, in one run.

    python benchmarks/label_studio.py
    python benchmarks/label_studio.py --tasks 1000 --pairs 1

Import: ``publish`` of a new round (project, image storage, a tab for each person, looking
up what is there, the tasks, and the check that each is there once) beside nothing but POSTs of the
same JSON in batches of the same size, and beside bare calls that make the same round. Pull:
``submissions`` beside the same pages asked for by a bare client, the JSON export (which lacks the
proposals) and a snapshot (made, downloaded, deleted). Every answer is decoded. Each pair runs all
sides, forwards and backwards in turn; the ratio is the median over pairs. The server runs on the
same machine, so its time is in all of them.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from functools import partial
from pathlib import Path

import httpx

from annotation_platform.formats.label_studio.results import write_pre_annotations
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import FolderImages
from annotation_platform.labeling.backends.label_studio.interface import tasks_tab
from annotation_platform.labeling.backends.label_studio.messages import task_of
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.schema.annotations import PreAnnotation
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from tests.system.prepared_label_studio import PreparedLabelStudio, make_template

BATCH = PAGE = 500
ONTOLOGY = Ontology.from_names(["cat", "dog"])
SAID = "id,completed_by,created_username,created_at,updated_at,lead_time,was_cancelled,result"


def draw(round_id, tasks, people):
    """Return copies with three proposals each, for so many people."""
    boxes = [
        PreAnnotation(Label.box("cat", 10 + n, 20, 60.125 + n, 70.5), score=0.75) for n in range(3)
    ]
    return [
        Replica(
            task_id=f"{round_id}/boxes/{number:064x}",
            image_id=f"{number:064x}",
            assignment=1,
            assignee=f"person-{number % people}@example.org",
            image_key=f"images/{number:064x}.jpg",
            width=640,
            height=480,
            weights_sha256="c" * 64,
            pre_annotations=tuple(boxes),
        )
        for number in range(tasks)
    ]


class Bare:
    """What somebody would write who trusts the server and the line."""

    def __init__(self, url, token):
        signed = {"Authorization": f"Token {token}"}
        self.http = httpx.Client(base_url=url, headers=signed, timeout=600, trust_env=False)

    def json(self, method, path, **options):
        """Return the JSON of an answer."""
        response = self.http.request(method, path, **options).raise_for_status()
        return response.json() if response.content else None

    def send(self, project, tasks):
        """Import tasks, and return how many there are by the server's word."""
        path = f"/api/projects/{project}/import"
        batches = [tasks[start : start + BATCH] for start in range(0, len(tasks), BATCH)]
        return sum(self.json("POST", path, json=batch)["task_count"] for batch in batches)

    def make_round(self, round_id, settings, storage, tabs, tasks):
        """Make a round as the client does, and return how many tasks it has."""
        project = self.json("POST", "/api/projects/", json={**settings, "title": round_id})["id"]
        self.json("POST", "/api/storages/localfiles/", json={**storage, "project": project})
        for tab in tabs:
            self.json("POST", "/api/dm/views/", json={"project": project, "data": tab})
        return self.send(project, tasks)

    def pages(self, project, total, **query):
        """Return the number of answers in numbered pages of all tasks."""
        found = 0
        for page in range(1, -(-total // PAGE) + 1):
            asked = {"project": project, "page": page, "page_size": PAGE, **query}
            tasks = self.json("GET", "/api/tasks/", params=asked)["tasks"]
            found += sum(len(task["annotations"]) for task in tasks)
        return found

    def same_pages(self, project, total):
        """Return the number of answers in what the client asks for, and fetch the proposals."""
        names = ",".join(f"annotations.{name}" for name in SAID.split(","))
        query = {"fields": "all", "expand": "annotations", "resolve_uri": "false"}
        found = self.pages(project, total, include=f"id,data,{names}", **query)
        self.json("GET", "/api/predictions/", params={"project": project})
        return found

    def export(self, project, total):
        """Return the number of answers in the JSON export."""
        query = {"exportType": "JSON", "download_all_tasks": "true"}
        tasks = self.json("GET", f"/api/projects/{project}/export", params=query)
        assert len(tasks) == total
        return sum(len(task["annotations"]) for task in tasks)

    def snapshot(self, project, total):
        """Return the number of answers in a snapshot with everything that the client reads."""
        options = {"predictions": {"only_id": False}, "drafts": {"only_id": True}}
        kinds = {"usual": True, "ground_truth": True, "skipped": True}
        body = {"serialization_options": options, "annotation_filter_options": kinds}
        path = f"/api/projects/{project}/exports/"
        made = self.json("POST", path, json=body)["id"]
        tasks = self.json("GET", f"{path}{made}/download", params={"exportType": "JSON"})
        self.json("DELETE", f"{path}{made}")
        assert len(tasks) == total
        return sum(len(task["annotations"]) for task in tasks)


def timed(work, expected):
    """Return the seconds that ``work()`` takes to return what is expected."""
    start = time.perf_counter()
    found = work()
    seconds = time.perf_counter() - start
    assert found == expected, (found, expected)
    return seconds


def counted(work):
    """Return the number of what ``work()`` returns."""
    return len(work())


def project_of(client, round_id):
    """Return a round's project."""
    return int(client.round_url(round_id).split("/")[-2])


def measure_import(client, bare, images, tasks, people, pairs):
    """Return the seconds of each pair: ours, the bare API's."""
    measured = []
    for number in range(pairs):
        ours, theirs = f"import-{number}-client", f"import-{number}-bare"
        copies = draw(ours, tasks, people)
        # The bare project is there already; ours makes its own.
        client.publish(theirs, ONTOLOGY, [])
        project = project_of(client, theirs)
        settings = bare.json("GET", f"/api/projects/{project}/")
        asked = {"params": {"project": project}}
        storage = bare.json("GET", "/api/storages/localfiles/", **asked)[0]
        sent = [task_of(copy, theirs, images.address(copy.image_key)) for copy in copies]
        names = sorted({copy.assignee for copy in copies})
        tabs = [tasks_tab("Everybody"), *(tasks_tab(name, assignee=name) for name in names)]
        sides = {
            "client": partial(counted, partial(client.publish, ours, ONTOLOGY, copies)),
            "bare import": partial(bare.send, project, sent),
            "bare round": partial(
                bare.make_round,
                f"import-{number}-round",
                {"label_config": settings["label_config"]},
                {"path": storage["path"], "use_blob_urls": True},
                tabs,
                sent,
            ),
        }
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        measured.append({name: timed(sides[name], tasks) for name in order})
    return measured


def measure_pull(client, bare, images, tasks, people, pairs):
    """Return the seconds of each pair: ours, and of each bare way."""
    round_id = "pull"
    client.publish(round_id, ONTOLOGY, [])
    project = project_of(client, round_id)
    sent = []
    for copy in draw(round_id, tasks, people):
        drawn = write_pre_annotations(copy.pre_annotations, copy.width, copy.height)
        said = {"result": drawn, "lead_time": 12.5}
        task = task_of(copy, round_id, images.address(copy.image_key))
        sent.append({**task, "annotations": [said]})
    bare.send(project, sent)
    sides = {
        "client": lambda: len(client.collect(round_id)),
        "same pages": lambda: bare.same_pages(project, tasks),
        "JSON export": lambda: bare.export(project, tasks),
        "snapshot": lambda: bare.snapshot(project, tasks),
    }
    measured = []
    for number in range(pairs):
        order = list(sides) if number % 2 == 0 else list(reversed(sides))
        measured.append({name: timed(sides[name], tasks) for name in order})
    # As the API's own client library does it: for scale, once.
    plain = timed(lambda: bare.pages(project, tasks, fields="all"), tasks)
    return measured, plain


def report(work, measured, tasks):
    """Print one JSON object for each side that the client is measured beside."""
    for name in measured[0]:
        seconds = [pair[name] for pair in measured]
        ratios = [pair["client"] / pair[name] for pair in measured]
        line = {"work": work, "tasks": tasks, "side": name, "seconds": statistics.median(seconds)}
        if name != "client":
            line |= {"client_to_it": statistics.median(ratios), "pairs": ratios}
        print(json.dumps(line, default=float), flush=True)


def main():
    """Boot a server, measure, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", type=int, default=5_000)
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=3)
    arguments = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        lake = place / "lake"
        with PreparedLabelStudio(
            place / "label-studio",
            document_root=lake,
            secrets_path=place / "secrets.json",
            database=make_template(place / "template"),
        ) as server:
            images, token = FolderImages(lake), server.administrator.token
            client = LabelStudioClient(server.url, token, images=images)
            bare = Bare(server.url, token)
            sizes = (arguments.tasks, arguments.people, arguments.pairs)
            given = (client, bare, images, *sizes)
            report("import", measure_import(*given), arguments.tasks)
            pulled, plain = measure_pull(*given)
            report("pull", pulled, arguments.tasks)
            print(json.dumps({"work": "pull", "side": "pages, fields=all", "seconds": plain}))
    print(json.dumps({"load": [round(each, 1) for each in os.getloadavg()]}))


if __name__ == "__main__":
    main()
