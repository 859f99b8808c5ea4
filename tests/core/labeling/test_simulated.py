import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from annotation_platform.errors import LabelingError
from annotation_platform.labeling.backends.protocol import LabelingBackend, Replica
from annotation_platform.labeling.backends.regions import shown_regions
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.schema.annotations import PreAnnotation
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label

ONTOLOGY = Ontology.from_names(["boat", "buoy"])
ROUND = "round-0001"
PROPOSAL = PreAnnotation(Label.box("boat", 10, 10, 60, 40), 0.9)
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def replicas(images=2, assignments=2, assignees=("ada", "ben"), pre_annotations=()):
    return [
        Replica(
            task_id=f"{ROUND}/boxes/{n}",
            image_id=f"{n:064d}",
            assignment=assignment,
            assignee=assignees[assignment - 1] if assignees else "",
            image_key=f"images/{n}.jpg",
            width=320,
            height=240,
            pre_annotations=pre_annotations,
        )
        for n in range(images)
        for assignment in range(1, assignments + 1)
    ]


@pytest.fixture
def labeling(tmp_path):
    return SimulatedLabeling(tmp_path / "made" / "labeling.sqlite")


def test_publishing_again_gives_the_same_tasks(labeling):
    client: LabelingBackend = labeling
    first = client.publish(ROUND, ONTOLOGY, replicas())
    assert len(set(first.values())) == 4
    assert client.publish(ROUND, ONTOLOGY, replicas()) == first
    assert len(labeling.open_assignments("ada")) == 2


def test_publishing_after_half_of_it_adds_the_rest(labeling):
    half = labeling.publish(ROUND, ONTOLOGY, replicas()[:2])
    whole = labeling.publish(ROUND, ONTOLOGY, replicas())
    assert {key: whole[key] for key in half} == half
    assert len(set(whole.values())) == 4


def test_what_was_submitted_comes_back_as_it_was_said(labeling):
    ids = labeling.publish(ROUND, ONTOLOGY, replicas(pre_annotations=(PROPOSAL,)))
    shown = shown_regions([PROPOSAL])
    task = ids[f"{ROUND}/boxes/1", 2]
    annotation = labeling.submit(task, "ben", shown.content, 7.5, now=NOON)
    (submission,) = labeling.collect(ROUND)
    assert (submission.backend, submission.backend_task, submission.annotation) == (
        "simulated",
        task,
        annotation,
    )
    assert (submission.task_id, submission.assignment, submission.author) == (
        f"{ROUND}/boxes/1",
        2,
        "ben",
    )
    assert submission.payload == submission.pre_annotations == shown
    assert submission.created_at == submission.updated_at == NOON
    assert (submission.lead_time_seconds, submission.skipped) == (7.5, False)


def test_an_edit_changes_the_annotation_and_keeps_its_birth(labeling):
    task = labeling.publish(ROUND, ONTOLOGY, replicas())[f"{ROUND}/boxes/0", 1]
    annotation = labeling.submit(task, "ada", [], 5, now=NOON)
    later = NOON + timedelta(hours=1)
    shown = shown_regions([PROPOSAL])
    edited = labeling.submit(task, "ada", shown.content, 3, annotation=annotation, now=later)
    assert edited == annotation
    (submission,) = labeling.collect(ROUND)
    assert (submission.created_at, submission.updated_at) == (NOON, later)
    assert (submission.payload, submission.lead_time_seconds) == (shown, 8)


def test_the_stamp_changes_with_every_annotation_and_edit_and_only_then(labeling):
    ids = labeling.publish(ROUND, ONTOLOGY, replicas())
    task = ids[f"{ROUND}/boxes/0", 1]
    stamps = [labeling.change_token(ROUND)]
    annotation = labeling.submit(task, "ada", [], 1, now=NOON)
    stamps.append(labeling.change_token(ROUND))
    for _ in range(2):
        labeling.submit(task, "ada", [], 1, annotation=annotation, now=NOON)
        stamps.append(labeling.change_token(ROUND))
    assert len(set(stamps)) == 4
    labeling.publish("round-0002", ONTOLOGY, replicas())
    assert labeling.change_token(ROUND) == stamps[-1]


def test_nothing_is_enforced_and_everything_is_stored(labeling):
    task = labeling.publish(ROUND, ONTOLOGY, replicas())[f"{ROUND}/boxes/0", 1]
    nonsense = [{"type": "polygon", "value": None}, {}]
    for author in ("ada", "ada", "stranger"):
        labeling.submit(task, author, nonsense, 1)
    assert [submission.author for submission in labeling.collect(ROUND)] == [
        "ada",
        "ada",
        "stranger",
    ]
    assert labeling.collect(ROUND)[0].payload.content == nonsense


def test_skips_are_submissions_but_no_annotations(labeling):
    task = labeling.publish(ROUND, ONTOLOGY, replicas())[f"{ROUND}/boxes/0", 1]
    labeling.submit(task, "ada", [], 1, skipped=True)
    assert [submission.skipped for submission in labeling.collect(ROUND)] == [True]
    assert labeling.progress(ROUND).annotations == 0
    assert task not in {assignment.backend_task for assignment in labeling.open_assignments("ada")}


def test_a_person_sees_their_own_places_until_they_annotated(labeling):
    labeling.publish(ROUND, ONTOLOGY, replicas(pre_annotations=(PROPOSAL,)))
    before = labeling.open_assignments("ada")
    assert [(assignment.assignment, assignment.image_id) for assignment in before] == [
        (1, f"{n:064d}") for n in range(2)
    ]
    assert (before[0].round_id, before[0].width, before[0].height) == (ROUND, 320, 240)
    assert before[0].pre_annotations == shown_regions([PROPOSAL])
    labeling.submit(before[0].backend_task, "ada", [], 1)
    assert labeling.open_assignments("ada") == before[1:]
    assert labeling.open_assignments("stranger") == []


def test_a_place_for_anybody_goes_to_whoever_comes_first_and_each_task_once(labeling):
    labeling.publish(ROUND, ONTOLOGY, replicas(images=1, assignees=()))
    first, second = labeling.open_assignments("ada")
    labeling.submit(first.backend_task, "ada", [], 1)
    assert labeling.open_assignments("ada") == []
    assert labeling.open_assignments("ben") == [second]


def test_annotators_are_those_who_were_added(labeling):
    for name in ("ben", "ada", "ben"):
        labeling.add_annotator(name)
    assert labeling.annotators() == ["ada", "ben"]


def test_an_unknown_round_is_empty(labeling):
    assert labeling.collect("round-0009") == []
    assert labeling.progress("round-0009").annotations == 0
    assert labeling.round_url("round-0009") == ""


def test_a_task_or_annotation_that_is_not_there_is_refused(labeling):
    task = labeling.publish(ROUND, ONTOLOGY, replicas())[f"{ROUND}/boxes/0", 1]
    with pytest.raises(LabelingError, match="no task 99"):
        labeling.submit("99", "ada", [], 1)
    with pytest.raises(LabelingError, match="no annotation 99"):
        labeling.submit(task, "ada", [], 1, annotation="99")
    assert labeling.collect(ROUND) == []


def test_a_file_of_something_else_is_an_error_that_names_it(tmp_path):
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be looked at as one" * 40)
    with pytest.raises(LabelingError, match=r"notes\.txt"):
        SimulatedLabeling(path).annotators()


WORKER = """
import sys
from pathlib import Path
from annotation_platform.labeling.backends.protocol import Replica
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.schema.ontology import Ontology

labeling = SimulatedLabeling(Path(sys.argv[1]))
author = sys.argv[2]
labeling.add_annotator(author)
replicas = [Replica(f"t{n}", f"i{n}", 1, "", f"k{n}", 10, 10) for n in range(40)]
labeling.publish("round-0001", Ontology.from_names(["boat"]), replicas)
for assignment in labeling.open_assignments(author):
    labeling.submit(assignment.backend_task, author, [], 1)
"""


def test_two_processes_make_publish_and_annotate_at_once_and_nothing_is_lost(tmp_path):
    path = tmp_path / "labeling.sqlite"
    workers = [
        subprocess.Popen([sys.executable, "-c", WORKER, str(path), author], stderr=subprocess.PIPE)
        for author in ("ada", "ben")
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=60)
        assert worker.returncode == 0, errors.decode()
    labeling = SimulatedLabeling(path)
    assert labeling.annotators() == ["ada", "ben"]
    submissions = labeling.collect("round-0001")
    assert {one.task_id for one in submissions} == {f"t{n}" for n in range(40)}
    assert len({one.backend_task for one in submissions}) == 40
    assert len({one.annotation for one in submissions}) == len(submissions) >= 40
    assert list(tmp_path.glob(".*")) == []
