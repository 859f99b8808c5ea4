from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.errors import NotReadyError
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.labeling.annotation_tables import (
    annotations_table,
    human_labels,
    round_tasks,
)
from annotation_platform.labeling.backends.protocol import Submission
from annotation_platform.labeling.counting import Rules, count_annotations, require_complete
from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision
from annotation_platform.schema.annotations import Payload
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import UNSURE, Label
from annotation_platform.storage.objects import LocalObjectStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ROUND = "round-0001"
IMAGE = "a" * 64
TASK = f"{ROUND}/labels/{IMAGE}"
CAT = Label.box("cat", 10, 10, 20, 20)


def asked(assignments=3, *, expertise="", image=IMAGE, purpose="label"):
    """The ``label_tasks`` rows of one image, as far as counting goes."""
    return pd.DataFrame(
        {
            "task_id": f"{ROUND}/labels/{image}",
            "step": "labels",
            "image_id": image,
            "assignment": range(1, assignments + 1),
            "fills_assignment": range(1, assignments + 1),
            "purpose": purpose,
            "without_predictions": [assignment == 2 for assignment in range(1, assignments + 1)],
            "expertise": expertise,
            "guideline": "e" * 64,
        }
    )


TASKS = asked()


def drawn(labels):
    return Payload("label-studio/1", write_result(labels, 100, 50))


def submission(annotation, author, *, assignment=1, minutes=0, edited=0, labels=(CAT,), **changes):
    made = Submission(
        backend="simulated",
        backend_task=str(assignment),
        annotation=str(annotation),
        task_id=TASK,
        image_id=IMAGE,
        assignment=assignment,
        author=author,
        created_at=NOW + timedelta(minutes=minutes),
        updated_at=NOW + timedelta(minutes=minutes + edited),
        lead_time_seconds=30.0,
        skipped=False,
        payload=drawn(labels),
    )
    return replace(made, **changes)


def count(*submissions, **rules):
    return count_annotations(map(as_revision, submissions), TASKS, Rules(**rules))


def seen(*batches):
    """What a ledger gives back that was fed these submissions, one entry a batch."""
    return [
        replace(as_revision(each), entry=entry)
        for entry, batch in enumerate(batches, start=1)
        for each in batch
    ]


def holders(counted):
    return {assignment: held.submission.author for (_, assignment), held in counted.counted.items()}


def reasons(counted):
    return {item.revision.submission.annotation: item.state for item in counted.not_counted}


def test_an_annotation_takes_a_place_and_everything_else_is_surplus_with_a_reason():
    counted = count(
        submission(1, "ada", assignment=1),
        submission(2, "ben", assignment=1, minutes=1),
        submission(3, "ada", assignment=2, minutes=2),
        submission(4, "cam", assignment=2, minutes=3, skipped=True),
        submission(5, "dee", assignment=9, minutes=4),
        submission(6, "dee", assignment=3, minutes=5),
        submission(7, "Ada", assignment=1, minutes=6),
    )
    assert holders(counted) == {1: "ada", 3: "dee"}
    assert reasons(counted) == {
        "2": "late", "3": "repeated", "4": "skipped", "5": "unassigned", "7": "repeated"
    }  # fmt: skip
    assert all(item.detail for item in counted.not_counted)
    assert len(counted.annotations) == 7
    with pytest.raises(NotReadyError, match="2 of 3 assignments"):
        require_complete(ROUND, counted)


@given(st.permutations(range(4)))
def test_the_order_in_which_annotations_are_read_does_not_matter(order):
    submissions = [
        submission(1, "ada"),
        submission(2, "ben", minutes=1),
        submission(2, "ben", minutes=1, edited=5, labels=()),
        submission(3, "cam", assignment=2, minutes=2),
    ]
    assert count(*(submissions[i] for i in order)) == count(*submissions)


def test_whoever_was_seen_first_keeps_the_place_though_an_earlier_annotation_is_found_later():
    # Two clocks, or a page that was not read: what comes second says that it was first.
    early = submission(1, "ada", minutes=0)
    known = submission(2, "ben", minutes=30)
    counted = count_annotations(seen([known], [early]), TASKS)
    assert holders(counted) == {1: "ben"}
    assert reasons(counted) == {"1": "late"}
    # What the ledger has not yet is behind all that it has.
    assert holders(count_annotations([*seen([known]), as_revision(early)], TASKS)) == {1: "ben"}
    # Seen together, the first to answer is the first.
    assert holders(count_annotations(seen([known, early]), TASKS)) == {1: "ada"}


def test_whoever_skips_gives_the_place_up_and_does_not_take_it_back():
    first = submission(1, "ada")
    skipped = submission(1, "ada", edited=5, skipped=True, labels=())
    after_all = submission(1, "ada", edited=20)
    other = submission(2, "ben", minutes=10)
    batches = [[first], [skipped], [other], [after_all]]
    held = [holders(count_annotations(seen(*batches[:n]), TASKS)) for n in range(1, 5)]
    assert held == [{1: "ada"}, {}, {1: "ben"}, {1: "ben"}]
    assert reasons(count_annotations(seen(*batches), TASKS)) == {"1": "late"}
    # The same if everything is read at once, by creation time, and without other annotations.
    assert holders(count_annotations(seen([first, skipped, other, after_all]), TASKS)) == {1: "ben"}
    assert holders(count_annotations(seen([first], [skipped], [after_all]), TASKS)) == {1: "ada"}


def test_an_edit_is_a_new_revision_and_the_old_one_stays(tmp_path):
    ledger = AnnotationsLedger(LocalObjectStore(tmp_path))
    first, edited = submission(1, "ada"), submission(1, "ada", edited=5, labels=())
    assert ledger.append(ROUND, [first], now=NOW) == 1
    assert ledger.append(ROUND, [first], now=NOW) == 0
    assert ledger.append(ROUND, [first, edited], now=NOW) == 1
    read = ledger.read(ROUND)
    assert [(r.entry, r.submission) for r in read] == [(1, first), (2, edited)]
    counted = count_annotations(read, TASKS)
    assert counted.counted[TASK, 1].submission == edited
    assert counted.annotations[0].revisions == 2
    assert counted.digest != count(first).digest
    assert counted.digest == count(edited, submission(2, "ben", minutes=9)).digest


def test_what_comes_after_a_round_was_closed_is_late_and_an_edit_is_not():
    known = submission(1, "ada"), submission(2, "ben", assignment=2, skipped=True, labels=())
    edited = submission(1, "ada", edited=90, labels=())
    fresh = submission(3, "cam", assignment=3, minutes=60)
    after_all = submission(2, "ben", assignment=2, edited=80)
    read = seen(known, [fresh, edited, after_all])
    assert holders(count_annotations(read, TASKS)) == {1: "ada", 2: "ben", 3: "cam"}
    counted = count_annotations(read, TASKS, Rules(entries=1))
    assert holders(counted) == {1: "ada"}
    assert counted.counted[TASK, 1].submission == edited
    assert {item.revision.submission.annotation: item.detail for item in counted.not_counted} == {
        "2": "it came after the round was closed",
        "3": "it came after the round was closed",
    }
    # Not in the ledger at all yet: later still.
    assert holders(count_annotations([as_revision(fresh)], TASKS, Rules(entries=1))) == {}


def test_without_the_expertise_at_the_time_an_annotation_does_not_count():
    since = {"ada": NOW + timedelta(minutes=10), "ben": NOW}
    knows = Rules(qualified=lambda name, skill, at: not skill or since.get(name, at) < at)
    tagged = pd.concat([asked(2, expertise="agronomy"), asked(1, image="b" * 64)])
    free = submission(9, "cam", task_id=f"{ROUND}/labels/{'b' * 64}", minutes=3)
    too_early = submission(1, "ada", minutes=5)
    counted = count_annotations(
        seen(
            [too_early, submission(2, "ben", minutes=6), submission(3, "cam", assignment=2), free]
        ),
        tagged,
        knows,
    )
    assert {assignment: r.submission.author for assignment, r in counted.counted.items()} == {
        (TASK, 1): "ben",
        (free.task_id, 1): "cam",
    }
    assert {item.detail for item in counted.not_counted} == {
        "its author lacks the expertise agronomy"
    }
    # With the skill granted since, the same person may annotate again.
    again = submission(4, "ada", assignment=2, minutes=11)
    assert holders(count_annotations(seen([too_early], [again]), tagged, knows)) == {2: "ada"}


def test_who_judges_no_work_of_their_own_is_foreign_there_and_only_there():
    other = f"{ROUND}/labels/{'b' * 64}"
    tasks = pd.concat([TASKS, asked(1, image="b" * 64)])
    submissions = [submission(1, "Ada"), submission(2, "ben", minutes=1),
            submission(3, "ada", task_id=other)]  # fmt: skip
    counted = count_annotations(map(as_revision, submissions), tasks, Rules(barred={TASK: {"ada"}}))
    assert {assignment: r.submission.author for assignment, r in counted.counted.items()} == {
        (TASK, 1): "ben",
        (other, 1): "ada",
    }
    assert reasons(counted) == {"1": "unassigned"}


def test_of_a_thousand_annotations_none_counts_for_somebody_who_lacks_the_expertise():
    rng = np.random.default_rng(4)
    people = [f"person-{n}" for n in range(20)]
    knows = {skill: set(rng.choice(people, 7)) for skill in ("agronomy", "birds")} | {"": people}
    images = [f"{n:064d}" for n in range(120)]
    tasks = pd.concat(
        [asked(3, image=image, expertise=rng.choice(list(knows))) for image in images]
    )
    assignments = tasks[["task_id", "image_id", "assignment", "expertise"]].to_dict("records")
    submissions = []
    for number in range(1000):
        assignment = assignments[rng.integers(len(assignments))]
        ids = {key: assignment[key] for key in ("task_id", "image_id")}
        ids["assignment"] = assignment["assignment"]
        submissions.append(submission(number, rng.choice(people), minutes=number, **ids))
    rules = Rules(qualified=lambda name, skill, _: name in knows[skill])
    counted = count_annotations(map(as_revision, submissions), tasks, rules)
    skill_of = {
        (assignment["task_id"], assignment["assignment"]): assignment["expertise"]
        for assignment in assignments
    }
    states = Counter()
    for entry in counted.annotations:
        said_ = entry.revision.submission
        able = said_.author in knows[skill_of[said_.task_id, said_.assignment]]
        assert (entry.state == "unassigned") == (not able)
        states[entry.state] += 1
    assert states.total() == 1000
    assert min(states[state] for state in ("counted", "unassigned", "late", "repeated")) > 0


@st.composite
def histories(draw):
    """Waves of what a back end shows: answers, edits, skips and second thoughts, in any order."""
    submissions, states = [], {}
    for minute in range(draw(st.integers(1, 25))):
        number = draw(st.integers(0, 8))
        new = (draw(st.sampled_from("abcd")), draw(st.integers(1, 4)), minute)
        author, assignment, begun = states.setdefault(number, new)
        submissions.append(
            submission(
                number, author, assignment=assignment, minutes=begun, edited=minute - begun,
                skipped=draw(st.integers(0, 3)) == 0,
            )
        )  # fmt: skip
    cuts = sorted(
        draw(st.sets(st.integers(1, len(submissions)), max_size=5)) | {0, len(submissions)}
    )
    return [submissions[begin:end] for begin, end in pairwise(cuts)]


@given(histories())
def test_every_annotation_ends_in_one_way_and_whoever_holds_a_place_keeps_it(batches):
    before = {}
    for number in range(1, len(batches) + 1):
        revisions = seen(*batches[:number])
        counted = count_annotations(revisions, TASKS)
        ids = [entry.revision.submission.annotation for entry in counted.annotations]
        assert sorted(ids) == sorted({r.submission.annotation for r in revisions})
        assert len(counted.counted) + len(counted.not_counted) == len(ids)
        authors = [held.submission.author for held in counted.counted.values()]
        assert len(set(authors)) == len(authors)
        now = {
            assignment: held.submission.annotation for assignment, held in counted.counted.items()
        }
        skipped = {r.submission.annotation for r in seen(*batches[:number]) if r.entry == number
                   and r.submission.skipped}  # fmt: skip
        for assignment, annotation in before.items():
            assert now.get(assignment) == annotation or annotation in skipped
        before = now


def test_a_back_end_that_was_set_up_anew_and_counts_from_1_again_takes_nobodys_annotation():
    old = [submission(1, "ada", assignment=1), submission(2, "ben", assignment=2, minutes=1)]
    # The next one begins again: one annotation on the assignment of an old one, one elsewhere.
    new = [
        submission(1, "cam", assignment=3, minutes=9),
        submission(2, "dee", assignment=2, minutes=10),
    ]
    counted = count_annotations(seen(old, new), TASKS)
    assert holders(counted) == {1: "ada", 2: "ben", 3: "cam"}
    names = [entry.revision.annotation_id for entry in counted.annotations]
    assert names == ["simulated:1", "simulated:2", "simulated:1.2", "simulated:2.2"]
    assert [entry.state for entry in counted.annotations] == ["counted"] * 3 + ["late"]


def test_a_place_is_lost_once_none_of_its_copies_can_be_annotated_any_more():
    replaced = asked(2).assign(assignment=[4, 5], fills_assignment=[1, 2])
    tasks = pd.concat([TASKS, replaced])
    # Place 1 was answered twice by one person and assignment 3 is held: nothing of them is lost.
    submissions = [
        submission(1, "ada", assignment=3),
        submission(2, "ada", assignment=1, minutes=1),
    ]
    counted = count_annotations(map(as_revision, submissions), tasks)
    replicas = [(TASK, number) for number in range(1, 6)]
    assert counted.lost(replicas) == []
    assert counted.lost([(TASK, 1), (TASK, 4), (TASK, 5)]) == []
    assert counted.lost([(TASK, 1), (TASK, 5)]) == [(TASK, 4)]
    assert counted.lost([]) == [(TASK, 2), (TASK, 4), (TASK, 5)]


def test_whatever_people_paste_the_ledger_stays_readable(tmp_path):
    ledger = AnnotationsLedger(LocalObjectStore(tmp_path))
    note = [{"type": "rectanglelabels", "meta": {"text": ["a\u2028b\u2029c\x85d\ud800"]}}]
    ledger.append(ROUND, [submission(1, "ada", payload=Payload("label-studio/1", note))], now=NOW)
    assert ledger.read(ROUND)[0].submission.payload.content == note


def test_an_annotation_keeps_its_first_author_when_the_account_is_deleted(tmp_path):
    ledger = AnnotationsLedger(LocalObjectStore(tmp_path))
    submissions = [submission(n, f"person-{n}", assignment=n, minutes=n) for n in (1, 2, 3)]
    ledger.append(ROUND, submissions, now=NOW)
    forgotten = [replace(entry, author="unknown") for entry in submissions]
    assert ledger.append(ROUND, forgotten, now=NOW) == 0
    edited = [submission(1, "unknown", minutes=1, edited=9, labels=())]
    ledger.append(ROUND, edited, now=NOW)
    counted = count_annotations(ledger.read(ROUND), TASKS)
    assert counted.complete
    assert counted.counted[TASK, 1].submission.author == "person-1"
    assert counted.counted[TASK, 1].submission.payload.content == []


def test_many_writers_at_once_lose_nothing_and_count_nothing_twice(tmp_path):
    ledger = AnnotationsLedger(LocalObjectStore(tmp_path))
    annotations = [submission(n, f"person-{n}") for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(
            pool.map(
                lambda n: ledger.append(ROUND, annotations[n % 5 :: 5] + annotations[:3], now=NOW),
                range(20),
            )
        )
    read = [r.submission.annotation for r in ledger.read(ROUND)]
    assert sorted(read, key=int) == [str(n) for n in range(40)]


def test_the_annotations_table_lists_everything_and_the_round_says_how_far_it_is():
    tasks = pd.concat([TASKS, asked(1, image="b" * 64, purpose="gold")])
    gold = f"{ROUND}/labels/{'b' * 64}"
    counted = count_annotations(
        seen([submission(1, "ada"), submission(2, "ben"), submission(4, "ada", task_id=gold)],
             [submission(1, "ada", edited=7), submission(3, "cam", assignment=8)]),
        tasks,
    )  # fmt: skip
    names = {"ada": "annotator-1", "ben": "annotator-2", "cam": "annotator-3"}
    table = annotations_table(ROUND, counted, tasks, names).set_index("annotation_id")
    assert table["state"].to_dict() == {
        "simulated:1": "counted",
        "simulated:2": "late",
        "simulated:3": "unassigned",
        "simulated:4": "counted",
    }
    assert (table["detail"] == "").tolist() == [True, False, False, True]
    assert table["revisions"].tolist() == [2, 1, 1, 1]
    assert table["purpose"].tolist() == ["label", "label", "label", "gold"]
    assert table["annotator"].tolist() == [f"annotator-{n}" for n in (1, 2, 3, 1)]
    for state, left in (("open", "waiting"), ("closed", "abandoned"), ("cancelled", "cancelled")):
        progress = round_tasks(ROUND, counted, tasks, state=state).set_index("task_id")
        assert progress.loc[TASK, ["assignments", "counted", "state"]].tolist() == [3, 1, left]
        assert progress.loc[gold, ["assignments", "counted"]].tolist() == [1, 1]
        done = "cancelled" if state == "cancelled" else "annotated"
        assert progress.loc[gold, "state"] == done


def test_labels_carry_pixels_and_say_what_could_not_be_used():
    ontology = Ontology.from_names(["cat"])
    images = pd.DataFrame({"image_id": [IMAGE], "width": [100], "height": [50]})
    tasks = asked(4)
    bad = drawn([Label.box("unicorn", 1, 1, 9, 9)])
    submissions = [
        submission(1, "ada", assignment=1, pre_annotations=drawn([CAT]),
                   weights_sha256="c" * 64),
        submission(2, "ben", assignment=2, labels=()),
        submission(3, "cam", assignment=3, payload=bad),
        submission(4, "dee", assignment=4, labels=(CAT, UNSURE)),
    ]  # fmt: skip
    names = {"ada": "annotator-1", "ben": "annotator-2", "cam": "annotator-3", "dee": "x"}
    counted = count_annotations(map(as_revision, submissions), tasks)
    labels = human_labels(ROUND, counted, tasks, images, ontology, names)
    box = labels.iloc[0]
    assert box[["x1", "y1", "x2", "y2"]].tolist() == pytest.approx([10, 10, 20, 20])
    assert not box["changed"]
    assert labels["shape"].tolist() == ["box", "none", "none", "unsure"]
    assert labels["refused_regions"].tolist() == [0, 0, 1, 0]
    assert (labels["problems"] == "").tolist() == [True, True, False, True]
    assert "unicorn" in labels["problems"].iloc[2]
    assert labels["without_predictions"].tolist() == [False, True, False, False]
    # A task of which an answer is missing gives no labels yet.
    waiting = count_annotations(map(as_revision, submissions[:3]), tasks)
    assert human_labels(ROUND, waiting, tasks, images, ontology, names).empty
