from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.errors import NotReadyError
from annotation_platform.labeling.client import Submission
from annotation_platform.labeling.ledger import (
    AnswersLedger,
    as_revision,
    count_answers,
    human_labels,
    require_complete,
)
from annotation_platform.labeling.results import LabelledBox, boxes_to_result
from annotation_platform.labeling.tasks import assign_places
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.objects import LocalObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
IMAGE = "a" * 64
TASK = f"round-0001/boxes/{IMAGE}"
TASKS = pd.DataFrame({"task_id": [TASK] * 3, "place": [1, 2, 3]})


def submission(annotation, author, *, place=1, minutes=0, edited=0, **changes):
    made = Submission(
        backend="simulated",
        backend_task=str(place),
        annotation=str(annotation),
        task_id=TASK,
        image_id=IMAGE,
        place=place,
        author=author,
        created_at=NOW + timedelta(minutes=minutes),
        updated_at=NOW + timedelta(minutes=minutes + edited),
        lead_time_seconds=30.0,
        skipped=False,
        result=boxes_to_result([LabelledBox("cat", 10, 10, 20, 20)], 100, 50),
    )
    return replace(made, **changes)


def count(*submissions):
    return count_answers(map(as_revision, submissions), TASKS)


def test_an_answer_takes_a_place_and_everything_else_is_surplus_with_a_reason():
    counted = count(
        submission(1, "ada", place=1),
        submission(2, "ben", place=1, minutes=1),
        submission(3, "ada", place=2, minutes=2),
        submission(4, "cam", place=2, minutes=3, skipped=True),
        submission(5, "dee", place=9, minutes=4),
        submission(6, "dee", place=3, minutes=5),
    )
    assert {place[1]: r.submission.author for place, r in counted.counted.items()} == {
        1: "ada",
        3: "dee",
    }
    reasons = {item.revision.submission.annotation: item.reason for item in counted.surplus}
    assert reasons == {"2": "late", "3": "repeated", "4": "skipped", "5": "foreign"}
    with pytest.raises(NotReadyError, match="2 of 3 answers"):
        require_complete("round-0001", counted)


@given(st.permutations(range(4)))
def test_the_order_in_which_answers_are_read_does_not_matter(order):
    said = [
        submission(1, "ada"),
        submission(2, "ben", minutes=1),
        submission(2, "ben", minutes=1, edited=5, result=[]),
        submission(3, "cam", place=2, minutes=2),
    ]
    assert count(*(said[i] for i in order)).digest == count(*said).digest


def test_an_edit_is_a_new_revision_and_the_old_one_stays(tmp_path):
    ledger = AnswersLedger(LocalObjectStore(tmp_path))
    first, edited = submission(1, "ada"), submission(1, "ada", edited=5, result=[])
    assert ledger.append("round-0001", [first], now=NOW) == 1
    assert ledger.append("round-0001", [first], now=NOW) == 0
    assert ledger.append("round-0001", [first, edited], now=NOW) == 1
    assert [r.submission for r in ledger.read("round-0001")] == [first, edited]
    counted = count_answers(ledger.read("round-0001"), TASKS)
    assert counted.counted[TASK, 1].submission == edited
    assert counted.digest != count(first).digest


def test_whatever_people_paste_the_ledger_stays_readable(tmp_path):
    ledger = AnswersLedger(LocalObjectStore(tmp_path))
    note = [{"type": "rectanglelabels", "meta": {"text": ["a\u2028b\u2029c\x85d\ud800"]}}]
    ledger.append("round-0001", [submission(1, "ada", result=note)], now=NOW)
    assert ledger.read("round-0001")[0].submission.result == note


def test_an_answer_keeps_its_first_author_when_the_account_is_deleted(tmp_path):
    ledger = AnswersLedger(LocalObjectStore(tmp_path))
    said = [submission(n, f"person-{n}", place=n, minutes=n) for n in (1, 2, 3)]
    ledger.append("round-0001", said, now=NOW)
    forgotten = [replace(answer, author="unknown") for answer in said]
    assert ledger.append("round-0001", forgotten, now=NOW) == 0
    edited = [submission(1, "unknown", minutes=1, edited=9, result=[])]
    ledger.append("round-0001", edited, now=NOW)
    counted = count_answers(ledger.read("round-0001"), TASKS)
    assert counted.complete
    assert counted.counted[TASK, 1].submission.author == "person-1"
    assert counted.counted[TASK, 1].submission.result == []


def test_many_writers_at_once_lose_nothing_and_count_nothing_twice(tmp_path):
    ledger = AnswersLedger(LocalObjectStore(tmp_path))
    answers = [submission(n, f"person-{n}") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: ledger.append("round-0001", answers[n % 5 :: 5] + answers[:3], now=NOW),
                range(20),
            )
        )
    read = [r.submission.annotation for r in ledger.read("round-0001")]
    assert sorted(read, key=int) == [str(n) for n in range(40)]


def test_pseudonyms_are_stable_and_do_not_hold_the_name(tmp_path):
    ledger = AnswersLedger(LocalObjectStore(tmp_path / "one"))
    name = ledger.pseudonym("ada@example.org")
    assert name == ledger.pseudonym("Ada@Example.org")
    assert "ada" not in name
    assert name != AnswersLedger(LocalObjectStore(tmp_path / "two")).pseudonym("ada@example.org")


def test_labels_carry_pixels_and_say_what_could_not_be_used():
    ontology = Ontology.from_names(["cat"])
    images = pd.DataFrame({"image_id": [IMAGE], "width": [100], "height": [50]})
    bad = boxes_to_result([LabelledBox("unicorn", 1, 1, 9, 9)], 100, 50)
    proposed = boxes_to_result([LabelledBox("cat", 10, 10, 20, 20)], 100, 50)
    counted = count(
        submission(1, "ada", place=1, proposed=proposed, weights_sha256="c" * 64),
        submission(2, "ben", place=2, result=[]),
        submission(3, "cam", place=3, result=bad),
    )
    names = {"ada": "annotator-1", "ben": "annotator-2", "cam": "annotator-3"}
    labels, problems = human_labels("round-0001", counted, images, ontology, names)
    box = labels[labels["shape"] == "box"].iloc[0]
    assert box[["x1", "y1", "x2", "y2"]].tolist() == pytest.approx([10, 10, 20, 20])
    assert not box["changed"]
    assert labels["shape"].tolist() == ["box", "none", "none"]
    assert labels["refused_regions"].tolist() == [0, 0, 1]
    assert len(problems) == 1
    assert "unicorn" in problems[0]


@given(st.integers(0, 30), st.integers(1, 6), st.integers(1, 5))
def test_places_are_spread_evenly_and_nobody_gets_an_image_twice(images, people, k):
    names = [f"person-{n}" for n in range(people)]
    ids = [f"{n:064x}" for n in range(images)]
    assigned = assign_places(ids, names, answers_per_task=k)
    assert set(assigned) == {(image, place) for image in ids for place in range(1, k + 1)}
    if people < k:
        assert set(assigned.values()) <= {""}
        return
    load = [list(assigned.values()).count(name) for name in names]
    assert max(load) - min(load) <= 1
    for image in ids:
        asked = [assigned[image, place] for place in range(1, k + 1)]
        assert len(set(asked)) == k
