"""Exactly k answers on every task, whatever people, networks and processes do meanwhile."""

import importlib.util
import json
import re
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial

import pandas as pd
import pytest

from annotation_platform.labeling.assignment_plan import AnnotationRequest, plan_assignments
from annotation_platform.labeling.backends.label_studio.client import LabelStudioClient
from annotation_platform.labeling.backends.label_studio.image_sources import FolderImages
from annotation_platform.labeling.backends.label_studio.people import add_person
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.counting import count_annotations
from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision
from annotation_platform.labeling.tasks import TaskContent, task_replicas, tasks_table
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import ModelPredictions
from annotation_platform.storage.pseudonyms import pseudonym_of
from tests.invariants import check_annotations
from tests.system import postgres
from tests.system.faulty_people import FAULTS, Crowd, start
from tests.system.prepared_label_studio import PreparedLabelStudio

ROUND = "round-0001"
ONTOLOGY = Ontology.from_names(["cat"])
K = 3


def publish(client, lake, places):
    """Ask these places; return the round's ``label_tasks``."""
    ids = sorted({place.image_id for place in places})
    images = pd.DataFrame(
        {"image_id": ids, "outcome": "accepted", "extension": "jpg", "width": 100, "height": 100}
    )
    predictions = ModelPredictions.empty()
    content = TaskContent(images, predictions, ONTOLOGY, minimum_score=0.5)
    copies = task_replicas(ROUND, places, content)
    return tasks_table(
        ROUND,
        copies,
        client.publish(ROUND, ONTOLOGY, copies),
        backend_of=lambda _: client.name,
        guideline="e" * 64,
        pseudonym=partial(pseudonym_of, lake.store),
    )


def wanted(first, last):
    return [AnnotationRequest(f"{n:064x}", K) for n in range(first, last)]


def work(crowd, folder, tasks, *, seconds, meanwhile=lambda: None):
    """Let the crowd answer everything while the ledger is looked at; return its entries."""
    lake, entries = crowd.open_lake(), {}
    process = start(crowd, folder)
    try:
        deadline = time.monotonic() + seconds
        while process.running:
            assert time.monotonic() < deadline, process.last_line()
            process.wait(3.0)
            entries = check_annotations(lake, ROUND, tasks, before=entries)
            meanwhile()
        assert process.exit_code == 0, process.log_path.read_text()[-4000:]
    finally:
        process.stop()
    return entries


def check_round(crowd, tasks, before):
    """The claim: k answers on every task, by k people, and nothing lost. Returns the count."""
    lake, shown = crowd.open_lake(), crowd.client().collect(ROUND)
    AnnotationsLedger(lake.store).append(ROUND, shown, now=datetime.now(UTC))
    check_annotations(lake, ROUND, tasks, before=before)
    revisions = AnnotationsLedger(lake.store).read(ROUND)
    count = count_annotations(revisions, tasks)

    assert count.complete
    authors = {}
    for (task, _), annotation in count.counted.items():
        authors.setdefault(task, []).append(annotation.submission.author)
    assert set(authors) == set(tasks["task_id"])
    assert all(len(names) == len(set(names)) == K for names in authors.values())

    # Whatever the back end shows in the end is in the ledger as it stands there, and whatever
    # anybody was told is done is there too, unless they deleted it before it was seen.
    assert {as_revision(each).digest for each in shown} <= {each.digest for each in revisions}
    known = {each.submission.annotation for each in revisions}
    notes = crowd.notes()
    deleted = {note["annotation"] for note in notes if note["what"] == "deleting"}
    said = {note["annotation"] for note in notes if note["what"] == "said"}
    assert said - known <= deleted
    return count


def report(crowd, folder, count, begun, **more):
    """Print what happened, for whoever measures it: ``pytest -s``."""
    noted = Counter(note["what"] for note in crowd.notes())
    last = (folder / "crowd.log").read_text().splitlines()[-1]
    numbers = {
        "seconds": round(time.monotonic() - begun, 1),
        "counted": len(count.counted),
        "surplus": dict(Counter(annotation.state for annotation in count.not_counted)),
        "annotations": len(count.annotations),
        "faults": {fault: noted[fault] for fault in FAULTS},
        "entries": AnnotationsLedger(crowd.open_lake().store).entries(ROUND),
        **json.loads(last),
        **more,
    }
    print(json.dumps(numbers, indent=1))
    return noted


def simulated(tmp_path, people, tasks, *, shared):
    """A round in the simulated back end, the first tasks of it open to anybody."""
    names = [f"person-{n}@example.org" for n in range(people)]
    client = SimulatedLabeling(tmp_path / "labeling.sqlite")
    crowd = Crowd(
        place=str(tmp_path / "labeling.sqlite"),
        lake=str(tmp_path / "lake"),
        logs=str(tmp_path / "logs"),
        people=dict.fromkeys(names, ""),
        round_id=ROUND,
        # Without a pause 64 writers starve each other: SQLite lets in whoever asks at the moment.
        think_seconds=people / 160,
    )
    # Asked while there were fewer people than a task has places.
    few = plan_assignments(wanted(0, shared), names[: K - 1])
    places = [*few, *plan_assignments(wanted(shared, tasks), names, taken=few)]
    table = publish(client, crowd.open_lake(), places)
    ids = zip(table["assignment"], table["image_id"], table["backend_task"], strict=True)
    of_all = {(place.assignment, place.image_id) for place in few}
    open_to_all = tuple(task for place, image, task in ids if (place, image) in of_all)
    return replace(crowd, shared=open_to_all), table


def test_eight_people_with_faults_give_three_annotations_to_each_of_sixty_tasks(tmp_path):
    begun = time.monotonic()
    crowd, tasks = simulated(tmp_path, 8, 60, shared=0)
    entries = work(crowd, tmp_path, tasks, seconds=120)
    count = check_round(crowd, tasks, entries)
    report(crowd, tmp_path, count, begun)
    assert count.not_counted


@pytest.mark.parametrize(
    ("people", "wanted_tasks", "least"),
    [(32, 300, 5), pytest.param(64, 1000, 20, marks=pytest.mark.long)],
)
def test_people_with_faults_give_three_annotations_to_each_task(
    tmp_path, people, wanted_tasks, least
):
    begun = time.monotonic()
    crowd, tasks = simulated(tmp_path, people, wanted_tasks, shared=wanted_tasks // 20)
    entries = work(crowd, tmp_path, tasks, seconds=250)
    count = check_round(crowd, tasks, entries)
    # Some were deleted after they were seen: they count on.
    gone = {annotation.submission.annotation for annotation in count.counted.values()} - {
        each.annotation for each in crowd.client().collect(ROUND)
    }
    noted = report(crowd, tmp_path, count, begun, deleted_but_counted=len(gone))
    assert gone
    assert all(noted[fault] > least for fault in FAULTS)
    reasons = Counter(annotation.state for annotation in count.not_counted)
    assert all(reasons[reason] > 0 for reason in ("late", "repeated", "skipped"))
    # The load was spread: nobody was asked for more than one place more than somebody else.
    load = Counter(tasks["assignee"])
    del load[""]
    assert len(load) == people
    assert max(load.values()) - min(load.values()) <= 1


@pytest.fixture
def label_studio(tmp_path):
    """A running Label Studio on a PostgreSQL of its own."""
    if importlib.util.find_spec("label_studio") is None:
        pytest.skip("Label Studio is not installed: pip install label-studio==1.23.2")
    if missing := postgres.missing_programs():
        pytest.skip(f"{', '.join(missing)} not installed: {postgres.INSTALL}")
    with (
        postgres.running_postgres() as database,
        PreparedLabelStudio(
            tmp_path / "label-studio",
            document_root=tmp_path / "lake",
            secrets_path=tmp_path / "secrets.json",
            database=database,
        ) as server,
    ):
        yield server


@pytest.mark.long
@pytest.mark.timeout(1500)
def test_eight_people_in_label_studio_on_postgresql_give_three_annotations_to_each_of_200_tasks(
    label_studio, tmp_path
):
    server = (label_studio.url, label_studio.administrator.token)
    people = [add_person(*server, f"person-{n}@example.org") for n in range(8)]
    client = LabelStudioClient(*server, images=FolderImages(tmp_path / "lake"))
    assert client.annotators() == sorted(person.email for person in people)
    begun = time.monotonic()
    crowd = Crowd(
        place=label_studio.url,
        token=label_studio.administrator.token,
        lake=str(tmp_path / "lake"),
        logs=str(tmp_path / "logs"),
        people={person.email: person.token for person in people},
        round_id=ROUND,
        kill_seconds=2.0,
    )
    places = plan_assignments(wanted(0, 200), client.annotators())
    tasks = publish(client, crowd.open_lake(), places)
    assert set(Counter(tasks["assignee"]).values()) == {75}
    project = int(re.search(r"/projects/(\d+)/", client.round_url(ROUND)).group(1))
    crowd = replace(crowd, project=project)
    published = time.monotonic() - begun
    restarts = []

    def meanwhile():
        if not restarts and len(crowd.notes()) > 200:
            label_studio.stop()
            label_studio.start()
            restarts.append(round(time.monotonic() - begun))

    entries = work(crowd, tmp_path, tasks, seconds=1200, meanwhile=meanwhile)
    count = check_round(crowd, tasks, entries)
    noted = report(crowd, tmp_path, count, begun, published=published, restarted_at=restarts)
    assert len(restarts) == 1
    assert all(noted[fault] > 0 for fault in FAULTS)
    assert set(Counter(annotation.state for annotation in count.not_counted)) >= {
        "repeated",
        "skipped",
    }
