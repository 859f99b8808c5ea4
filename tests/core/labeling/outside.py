"""Material for tests of vendors: a round, what people say in it, and Pybossa as it exports."""

import csv
import hashlib
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pandas as pd

from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.formats.label_studio.results import read_result, write_result
from annotation_platform.labeling.annotation_tables import human_labels
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.labeling.backends.regions import write_regions
from annotation_platform.labeling.counting import count_annotations
from annotation_platform.labeling.ledger import as_revision
from annotation_platform.labeling.tasks import tasks_table
from annotation_platform.schema.annotations import PreAnnotation
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label

ROUND = "round-0001"
ONTOLOGY = Ontology.from_names(["boat", "Seezeichen, „7“"])
NOON = datetime(2026, 5, 1, 12, tzinfo=UTC)
LATER = NOON + timedelta(days=2)
WIDTH, HEIGHT = 320, 240


@dataclass(frozen=True)
class LabelledObjects:
    """The objects that a person labels in an assignment of a task."""

    task_id: str
    assignment: int
    author: str
    result: list
    began_at: datetime
    ended_at: datetime

    @property
    def seconds(self):
        return (self.ended_at - self.began_at).total_seconds()


def image_id(number):
    # The seed of the recorded data in tests/data/labeling-0.1.0.
    return hashlib.sha256(f"picture {number}".encode()).hexdigest()


def put_images(store, images):
    for number in range(images):
        key = image_key(image_id(number), "jpg")
        if not store.exists(key):
            store.put(key, f"the pixels of picture {number}".encode() * 50)


def make_copies(images=4, assignments=3, **changes):
    return [
        Replica(
            task_id=f"{ROUND}/labels/{image_id(number)}",
            image_id=image_id(number),
            assignment=assignment,
            assignee="",
            image_key=image_key(image_id(number), "jpg"),
            width=WIDTH,
            height=HEIGHT,
            **changes,
        )
        for number in range(images)
        for assignment in range(1, assignments + 1)
    ]


def boxes(*corners, class_name="boat"):
    return write_result([Label.box(class_name, *each) for each in corners], WIDTH, HEIGHT)


def in_pixels(result):
    """Return the regions of a vendor as the simulated back end stores them."""
    labels = read_result(result, width=WIDTH, height=HEIGHT, ontology=ONTOLOGY).labels
    return write_regions(labels)


def proposal(*corners, class_name="boat", score=0.9):
    return PreAnnotation(Label.box(class_name, *corners), score)


def what_people_say(replicas, *, seed=0):
    """Return an answer for each replica: jittered boxes, some missed, some of another class."""
    rng = np.random.default_rng(seed)
    truth = {}
    drawn = []
    for position, replica in enumerate(replicas):
        if replica.task_id not in truth:
            corners = rng.uniform(20, 120, (rng.integers(0, 4), 2))
            truth[replica.task_id] = [(*each, *(each + rng.uniform(20, 90, 2))) for each in corners]
        labels = [
            Label.box(
                ONTOLOGY.names[int(rng.random() < 0.3)], *(np.array(box) + rng.normal(0, 2, 4))
            )
            for box in truth[replica.task_id]
            if rng.random() > 0.15
        ]
        began = NOON + timedelta(minutes=position, microseconds=int(rng.integers(1_000_000)))
        ended = began + timedelta(seconds=float(rng.uniform(5, 50)))
        # As a browser sends it: keys in an order of their own, whole numbers among the others.
        result = write_result(labels, WIDTH, HEIGHT)
        drawn.append(
            LabelledObjects(
                replica.task_id, replica.assignment, f"p{replica.assignment}", result, began, ended
            )
        )
    return drawn


def tasks_of(client, replicas):
    """Return the ``label_tasks`` table of replicas that a back end published."""
    return tasks_table(
        ROUND,
        replicas,
        {(replica.task_id, replica.assignment): "1" for replica in replicas},
        backend_of=client.backend_of,
        guideline="0" * 64,
        pseudonym=str,
    )


def consensus_of(client, replicas):
    """Return the consensus of what a back end holds, and the labels it was made from."""
    tasks = tasks_of(client, replicas)
    images = pd.DataFrame(
        [(image, WIDTH, HEIGHT) for image in sorted({replica.image_id for replica in replicas})],
        columns=["image_id", "width", "height"],
    )
    count = count_annotations(map(as_revision, client.collect(ROUND)), tasks)
    assert count.complete
    # Back ends call people differently; here everybody has the same assignment of every task.
    names = {held.submission.author: f"annotator-{n}" for (_, n), held in count.counted.items()}
    assert len(names) == len(set(names.values()))
    labels = human_labels(ROUND, count, tasks, images, ONTOLOGY, names)
    provenance = ["annotation_id", "revision", "label_id"]
    return resolve_consensus(labels).labels, labels.drop(columns=provenance)


def fill_in(template, drawn):
    """Return answers.json as the vendor fills it in."""
    by_place = {(each.task_id, each.assignment): each for each in drawn}
    annotations = []
    for entry in template["answers"]:
        annotation = by_place.get((entry["task_id"], entry["place"]))
        if annotation is None:
            annotations.append(entry)
            continue
        times = {"started_at": annotation.began_at, "finished_at": annotation.ended_at}
        annotations.append(
            {
                **entry,
                **{name: time.isoformat() for name, time in times.items()},
                "annotator": annotation.author,
                "result": annotation.result,
            }
        )
    return {**template, "answers": annotations}


def in_pybossa(tasks, drawn, *, pack=lambda result: result):
    """Return the rows that Pybossa holds once these tasks are answered: tasks, task runs.

    The fields are those of its models ``Task`` and ``TaskRun``.
    """
    rows = []
    for number, task in enumerate(tasks, start=101):
        rows.append(
            {"id": number, "created": _utc(NOON), "project_id": 7, "state": "completed",
             "quorum": 0, "calibration": 0, "priority_0": 0.0, "n_answers": task["n_answers"],
             "fav_user_ids": None, "info": task["info"]}
        )  # fmt: skip
    number_of = {(row["info"]["task_id"], assignment): row["id"] for row in rows
                 for assignment in row["info"]["places"]}  # fmt: skip
    runs = []
    for number, annotation in enumerate(sorted(drawn, key=lambda each: each.ended_at), start=5001):
        user = int(annotation.author.removeprefix("p"))
        # The third of them never logged in.
        who = (
            {"user_id": None, "user_ip": "127.0.0.3"}
            if user == 3
            else {"user_id": user, "user_ip": None}
        )
        runs.append(
            {"id": number, "created": _utc(annotation.began_at), "project_id": 7,
             "task_id": number_of[annotation.task_id, annotation.assignment], **who,
             "finish_time": _utc(annotation.ended_at), "timeout": None, "calibration": None,
             "external_uid": None, "media_url": None, "info": pack(annotation.result)}
        )  # fmt: skip
    return rows, runs


def as_json(rows, kind):
    return json.dumps(rows).encode()


def as_flat_csv(rows, kind):
    """Write rows as Pybossa does since 2017: one column for each leaf, by pandas."""
    text = pd.DataFrame([_flat(row) for row in rows]).to_csv(index=False)
    return text.encode()


def as_shown_csv(rows, kind):
    """Write rows as Bloomberg's fork does: values as Python shows them, and once more in parts."""
    heads = sorted({head for row in rows for head in _heads(row, f"{kind}__")})
    cells = [[_cell(row, head.split("__", 1)[1]) for head in heads] for row in rows]
    return pd.DataFrame(cells, columns=heads).to_csv(index=False).encode()


def as_old_csv(rows, kind):
    """Write rows as Pybossa did before 2015: ``task_run__id``, ``task_runinfo__key``."""
    sink = io.StringIO(newline="")
    writer = csv.writer(sink)
    heads = sorted(
        {f"{kind}__{key}" for row in rows for key in row}
        | {f"{kind}info__{key}" for row in rows if isinstance(row["info"], dict)
           for key in row["info"]}
    )  # fmt: skip
    writer.writerow(heads)
    for row in rows:
        cells = []
        for head in heads:
            assignment, key = head.split("__")
            inner = row["info"] if assignment.endswith("info") else row
            value = inner.get(key) if isinstance(inner, dict) else None
            cells.append("" if value is None else str(value))
        writer.writerow(cells)
    return sink.getvalue().encode()


def _flat(value, key=""):
    """Return leaves by their keys joined with an underscore; empty values are leaves."""
    if not value or not isinstance(value, dict | list):
        return {key: value}
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = {}
    for name, inner in pairs:
        found |= _flat(inner, f"{key}_{name}" if key else str(name))
    return found


def _heads(row, prefix):
    for key, value in row.items():
        yield f"{prefix}{key}"
        if isinstance(value, dict):
            yield from _heads(value, f"{prefix}{key}__")


def _cell(row, path):
    if path in row:
        return row[path]
    head, _, rest = path.partition("__")
    inner = row.get(head)
    value = _cell(inner, rest) if isinstance(inner, dict) else None
    return json.dumps(value) if isinstance(value, list) else value


def _utc(time):
    return time.replace(tzinfo=None).isoformat()
