"""What people, reviewers and the policy can do to a round, on real tables, ledger and runs."""

import dagster as dg
import pytest

from annotation_platform.demo.annotators import EXPERT
from annotation_platform.errors import LabelingError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.backends.protocol import Progress
from annotation_platform.labeling.backends.regions import write_decision, write_regions
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.reviews import review_round
from annotation_platform.labeling.round_decisions import RoundRecord
from annotation_platform.labeling.rounds import close_round, fetch_annotations, seen_annotations
from annotation_platform.labeling.skills import QUALIFIED, Skills
from annotation_platform.reporting.status import round_progress
from annotation_platform.schema.shapes import UNSURE, Label
from annotation_platform.schema.tables import (
    Annotations,
    AnnotatorQuality,
    ConsensusLabels,
    HumanLabels,
    LabelTasks,
    ReviewedLabels,
    ReviewTasks,
    RoundTasks,
    TrainingSet,
)
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.versioning.registry import list_versions
from sensors.labeling import labeling_complete_sensor
from sensors.releases import review_complete_sensor

ONE, TWO = "round-0001", "round-0002"


def start(platform, batch, round_id, *, review=None, **sections):
    """Start a round under a changed policy; ``review`` changes after it, for the merge to come.

    Rounds that differ in their reviews alone are started once in a session.
    """
    platform.land(batch)
    platform.change_policy(**sections)
    assert platform.start_round(round_id).success
    platform.change_policy(**({"review": review} if review else {}))
    return platform.lake.tables.read(LabelTasks, round_id)


def box(name, x):
    return write_regions([Label.box(name, x, 20, x + 60, 80)])


def requested(result):
    assert isinstance(result, dg.SensorResult)
    return [(each.job_name, each.partition_key) for each in result.run_requests or []]


def reason(result):
    return result.skip_message if isinstance(result, dg.SkipReason) else str(result.skip_reason)


def read(platform, table, round_id=ONE):
    return platform.lake.tables.read(table, round_id)


ACCEPT, REJECT = "accept", "reject"
decision = write_decision


def classes(platform):
    return platform.policy.ontology.names


@pytest.fixture
def disputed(platform):
    """A merged round: everybody names the first image's object differently, one cannot tell."""
    tasks = start(platform, 1, ONE, review={"gate": "manual"}, labeling={"annotations_per_task": 3})
    images = sorted(tasks["image_id"].unique())
    names, named, unsure = classes(platform), [], []

    def what(image, person):
        if image == images[0]:
            named.append(person)
            return box(names[len(named) - 1], 40)
        if image == images[1] and not unsure:
            unsure.append(person)
            return write_regions([UNSURE])
        return box(names[0], 40)

    platform.submit(ONE, what)
    assert platform.run("merge_round", ONE).success
    return platform, images


def _now():
    from datetime import UTC, datetime

    return datetime.now(UTC)


def test_what_no_rule_settles_waits_for_a_reviewer_and_carries_their_decision(disputed):
    platform, images = disputed
    tasks = read(platform, ReviewTasks)
    assert tasks.set_index("image_id").loc[images[0], "kinds"].split(", ").count("tied") == 1
    assert "unsure" in dict(zip(tasks["image_id"], tasks["kinds"], strict=True)).get(images[1], "")
    waiting = platform.tick(review_complete_sensor)
    assert f"{ONE}: 0 of {len(tasks)} images are reviewed" in reason(waiting)
    early = platform.run("release_round", ONE, raise_on_error=False)
    assert "waits for reviewers" in str(early.failure_data_for_node("reviewed_labels").error)

    # Somebody who answered an image tries to review it.
    author = read(platform, Annotations).query("image_id == @images[0]")
    people = {pseudonym_of(platform.lake.store, p): p for p in platform.labeling.annotators()}
    fixed = write_regions([Label.box(classes(platform)[1], 50, 30, 90, 70)])
    places = {p.image_id: p for p in platform.labeling.open_assignments(EXPERT)}
    assert set(places) == set(tasks["image_id"])
    first = places[images[0]]
    platform.labeling.submit(
        first.backend_task, people[author["annotator"].iloc[0]], decision(ACCEPT), 3.0
    )
    assert "0 of" in reason(platform.tick(review_complete_sensor))

    platform.labeling.submit(
        first.backend_task, EXPERT, [*decision(ACCEPT, "the hull"), *fixed], 9.0
    )
    for image, place in places.items():
        if image == images[1]:
            platform.labeling.submit(place.backend_task, EXPERT, decision(REJECT, "too dark"), 9.0)
        elif image != images[0]:
            said = [*decision(ACCEPT), *place.pre_annotations.content]
            platform.labeling.submit(place.backend_task, EXPERT, said, 9.0)
    assert requested(platform.tick(review_complete_sensor)) == [("release_round", ONE)]
    assert platform.run("release_round", ONE).success

    reviewed = read(platform, ReviewedLabels).set_index("image_id")
    mine = reviewed.loc[[images[0]]]
    assert mine["decision"].tolist() == ["fixed"]
    assert mine["class_name"].tolist() == [classes(platform)[1]]
    assert mine["x1"].tolist() == [50.0]
    assert mine["comment"].tolist() == ["the hull"]
    assert mine["decided_by"].tolist() == [pseudonym_of(platform.lake.store, EXPERT)]
    assert set(reviewed.loc[[images[1]], "decision"]) == {"rejected"}
    published = read(platform, TrainingSet)
    assert images[1] not in set(published["image_id"])
    assert published.set_index("image_id").loc[images[0], "class_name"] == classes(platform)[1]

    # What was rejected is asked about again in the next round.
    again = start(platform, 2, TWO)
    assert images[1] in set(again["image_id"])
    assert images[0] not in set(again["image_id"])


def test_a_release_may_go_without_the_images_under_review(disputed):
    platform, images = disputed
    platform.change_policy(review={"undecided": "hold_out"})
    assert requested(platform.tick(review_complete_sensor)) == [("release_round", ONE)]
    assert platform.run("release_round", ONE).success
    published = set(read(platform, TrainingSet)["image_id"])
    assert not published & {images[0], images[1]}
    assert published
    first = list_versions(platform.settings.registry_path)

    assert platform.decide(ONE)
    assert platform.run("release_round", ONE).success
    assert {images[0], images[1]} <= set(read(platform, TrainingSet)["image_id"])
    versions = list_versions(platform.settings.registry_path)
    assert len(versions) == len(first) + 1
    assert [v.commit for v in versions[: len(first)]] == [v.commit for v in first]


def test_with_the_gate_on_auto_nobody_is_asked_and_ties_stay_out(disputed):
    platform, images = disputed
    platform.change_policy(review={"gate": "auto"})
    assert platform.run("merge_round", ONE).success
    assert (read(platform, ReviewTasks)["backend"] == "").all()
    result = platform.run("release_round", ONE)
    held = result.asset_materializations_for_node("reviewed_labels")[-1].metadata
    assert held["held_out_images"].value >= 2
    assert not set(read(platform, TrainingSet)["image_id"]) & set(images[:2])


def shares_of(round_id, lake):
    """Return percentages: cleaned, asked, annotated, resolved, reviewed, released."""
    return [each["percent"] for each in round_progress(lake, round_id)["stages"]]


def test_a_partial_round_reports_its_share_per_stage_and_is_merged_when_it_is_complete(platform):
    tasks = start(platform, 1, ONE, labeling={"annotations_per_task": 2})
    images = sorted(tasks["image_id"].unique())
    landed = len(platform.lake.manifests.read(ONE))
    asked = round(100 * len(images) / len(accepted_images(platform.lake.tables)), 1)
    assert shares_of(ONE, platform.lake) == [100.0, asked, 0.0, 0.0, 0.0, 0.0]
    assert round_progress(platform.lake, ONE)["stages"][0]["all"] == landed
    names = classes(platform)
    platform.submit(ONE, lambda image, _: box(names[0], 40) if image in images[:5] else None)
    fetch_annotations(ONE, platform.labeling, platform.lake, now=_now())
    assert shares_of(ONE, platform.lake) == [100.0, asked, 62.5, 0.0, 0.0, 0.0]
    assert "of 16" in reason(platform.tick(labeling_complete_sensor))
    platform.submit(ONE, lambda *_: box(names[0], 40))
    fetch_annotations(ONE, platform.labeling, platform.lake, now=_now())
    assert shares_of(ONE, platform.lake) == [100.0, asked, 100.0, 0.0, 0.0, 0.0]
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.release(ONE, platform.run("merge_round", ONE)).success
    assert shares_of(ONE, platform.lake)[3] == 100.0
    assert shares_of(ONE, platform.lake)[5] == 100.0


def test_a_closed_round_releases_what_is_annotated_and_asks_the_rest_later(platform):
    tasks = start(platform, 1, ONE, labeling={"annotations_per_task": 2})
    images = sorted(tasks["image_id"].unique())
    names = classes(platform)
    platform.submit(ONE, lambda image, _: box(names[0], 40) if image in images[:5] else None)
    assert "of 16" in reason(platform.tick(labeling_complete_sensor))
    with pytest.raises(LabelingError, match="a reason is missing"):
        close_round(ONE, " ", "ada", platform.labeling, platform.lake, now=_now())
    close_round(ONE, "the vendor left", "ada", platform.labeling, platform.lake, now=_now())
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.release(ONE, platform.run("merge_round", ONE)).success
    assert set(read(platform, TrainingSet)["image_id"]) == set(images[:5])
    assert read(platform, RoundTasks)["state"].value_counts().to_dict() == {
        "annotated": 5,
        "abandoned": 3,
    }
    # Late answers are kept and named, and count for nothing.
    platform.submit(ONE, lambda *_: box(names[0], 40))
    assert platform.run("merge_round", ONE).success
    annotations = read(platform, Annotations)
    assert annotations["state"].value_counts().to_dict() == {"counted": 10, "late": 6}
    assert set(annotations.loc[annotations["state"] == "late", "detail"]) == {
        "it came after the round was closed"
    }
    assert set(start(platform, 2, TWO)["image_id"]) >= set(images[5:])
    record = round_progress(platform.lake, ONE)
    assert [each["reason"] for each in record["decisions"]] == ["the vendor left"]
    stages = {each["stage"]: each for each in record["stages"]}
    assert (stages["annotated"]["all"], stages["annotated"]["of"]) == (16, "assignments")
    assert stages["annotated"]["done"] < 16
    assert shares_of(ONE, platform.lake)[2] == 62.5

    entries = AnnotationsLedger(platform.lake.store).entries(ONE)
    RoundRecord(platform.lake.store, ONE).write(
        "reopened", reason="they came back", by="ada", now=_now(), entries=entries
    )
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.run("merge_round", ONE).success
    assert set(read(platform, Annotations)["state"]) == {"counted"}


def test_a_cancelled_round_counts_nothing_and_keeps_every_annotation(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1})
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    assert platform.run("merge_round", ONE).success
    entries = AnnotationsLedger(platform.lake.store).entries(ONE)
    RoundRecord(platform.lake.store, ONE).write(
        "cancelled", reason="wrong guidelines", by="ada", now=_now(), entries=entries
    )
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.run("merge_round", ONE).success
    assert read(platform, HumanLabels).empty
    assert set(read(platform, RoundTasks)["state"]) == {"cancelled"}
    assert len(read(platform, Annotations)) == 8
    asked = start(platform, 2, TWO)
    assert asked["image_id"].nunique() == 16


def test_what_was_said_in_a_cancelled_round_is_in_no_further_version(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1})
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    assert platform.release(ONE, platform.run("merge_round", ONE)).success
    first = set(read(platform, TrainingSet)["image_id"])
    RoundRecord(platform.lake.store, ONE).write(
        "cancelled", reason="wrong guidelines", by="ada", now=_now(), entries=0
    )
    # Another round is released before the cancelled one is merged again.
    asked = start(platform, 2, TWO)
    platform.submit(TWO, lambda image, _: None if image in first else box(classes(platform)[1], 40))
    close_round(TWO, "enough", "a test", platform.labeling, platform.lake, now=_now())
    assert platform.run("merge_round", TWO).success
    released = platform.run("release_round", TWO)
    published = set(read(platform, TrainingSet, TWO)["image_id"])
    assert published == set(asked["image_id"]) - first
    held = released.asset_materializations_for_node("training_set")[-1].metadata["held_rounds"]
    assert held.value == {ONE: "cancelled by ada: wrong guidelines"}


def test_a_deadline_closes_a_round_that_has_enough_annotations(platform):
    tasks = start(
        platform, 1, ONE,
        labeling={"annotations_per_task": 1, "deadline_hours": 1e-9, "minimum_share": 0.5},
    )  # fmt: skip
    images = sorted(tasks["image_id"])
    platform.submit(
        ONE, lambda image, _: box(classes(platform)[0], 9) if image < images[3] else None
    )
    assert "3 of 8 assignments" in reason(platform.tick(labeling_complete_sensor))
    platform.submit(
        ONE, lambda image, _: box(classes(platform)[0], 9) if image < images[5] else None
    )
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.run("merge_round", ONE).success
    (closed,) = RoundRecord(platform.lake.store, ONE).read()
    assert (closed.action, closed.by) == ("closed", "policy")
    assert "62% of the annotations are in" in closed.reason


def test_annotations_are_asked_for_until_they_lead(platform):
    tasks = start(platform, 1, ONE, labeling={"vote_margin": 2, "maximum_annotations": 4})
    assert (tasks.groupby("task_id").size() == 2).all()
    image = sorted(tasks["image_id"].unique())[0]
    names = classes(platform)
    dissent = []

    def what(which, person):
        if which == image and not dissent:
            dissent.append(person)
            return box(names[1], 40)
        return box(names[0], 40)

    platform.submit(ONE, what)
    assert requested(platform.tick(labeling_complete_sensor)) == [("ask_again", ONE)]
    assert platform.run("ask_again", ONE).success
    more = read(platform, LabelTasks).query("image_id == @image")
    assert more["assignment"].tolist() == [1, 2, 3, 4]
    assert more["assignee"].nunique() == 4
    platform.submit(ONE, what)
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.run("merge_round", ONE).success
    assert len(read(platform, Annotations)) == 2 * 7 + 4


def test_known_annotations_hide_among_the_others_and_measure_people(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 2}, review={"gate": "manual",
          "sample_share": 1.0})  # fmt: skip
    platform.annotate(ONE)
    assert platform.run("merge_round", ONE).success
    assert platform.decide(ONE) == 8
    assert platform.run("release_round", ONE).success
    tasks = start(platform, 2, TWO, labeling={"gold_share": 0.5, "without_predictions_share": 0.5})
    gold = tasks[tasks["purpose"] == "gold"]
    assert gold["image_id"].nunique() == 4
    assert set(gold["image_id"]) <= set(read(platform, TrainingSet)["image_id"])
    assert gold["task_id"].str.fullmatch(f"{TWO}/labels/[0-9a-f]{{64}}").all()
    assert 0 < tasks["without_predictions"].sum() < len(tasks)
    assert not any(EXPERT in str(value) for value in tasks.to_numpy().ravel()), (
        "addresses stay in the ledger"
    )
    platform.annotate(TWO)
    assert platform.run("merge_round", TWO).success
    quality = read(platform, AnnotatorQuality, TWO)
    assert quality["gold_annotations"].sum() == 8
    assert quality["gold_quality"].notna().any()
    # What is known already is not resolved, nor published, again.
    assert not set(read(platform, ConsensusLabels, TWO)["image_id"]) & set(gold["image_id"])


def test_only_people_with_the_expertise_count(platform):
    names = sorted(platform.labeling.annotators())
    Skills(platform.lake.store).set(names[0], "harbours", granted=True, now=_now())
    tasks = start(platform, 1, ONE, labeling={"annotations_per_task": 1, "expertise": "harbours"})
    assert set(tasks["assignee"]) == {pseudonym_of(platform.lake.store, names[0])}
    places = platform.labeling.open_assignments(names[0])
    platform.labeling.submit(places[0].backend_task, names[1], box(classes(platform)[0], 9), 1.0)
    platform.tick(labeling_complete_sensor)
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    platform.labeling.submit(places[0].backend_task, names[0], box(classes(platform)[0], 9), 1.0)
    assert platform.run("merge_round", ONE).success
    annotations = read(platform, Annotations)
    foreign = annotations[annotations["state"] == "unassigned"]
    assert foreign["detail"].tolist() == ["its author lacks the expertise harbours"]


def test_classes_that_are_renamed_and_split_carry_over_by_their_mapping(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1})
    names = classes(platform)
    images = sorted(read(platform, LabelTasks)["image_id"])
    platform.submit(ONE, lambda image, _: box(names[0] if image < images[4] else names[1], 40))
    assert platform.release(ONE, platform.run("merge_round", ONE)).success
    before = platform.policy.ontology.model_dump(mode="json")
    kept = [dict(each) for each in before["classes"]]
    kept[0]["name"], kept[0]["was"] = "vessel", [names[0]]
    split = kept.pop(1)
    new = [{"id": 100, "name": "left half"}, {"id": 101, "name": "right half"}]
    retired = [{"id": split["id"], "name": split["name"], "into": [100, 101]}]
    tasks = start(platform, 2, TWO, ontology={"classes": [*kept, *new], "retired": retired})
    assert set(images[4:]) <= set(tasks["image_id"])
    assert not set(images[:4]) & set(tasks["image_id"])
    assert tasks["guideline"].nunique() == 1
    assert set(tasks["guideline"]) != set(read(platform, LabelTasks)["guideline"])
    platform.submit(TWO, lambda *_: box("left half", 40))
    assert platform.release(TWO, platform.run("merge_round", TWO)).success
    published = read(platform, TrainingSet, TWO).set_index("image_id")
    assert set(published.loc[images[:4], "class_name"]) == {"vessel"}
    assert set(published.loc[images[4:], "class_name"]) == {"left half"}


def test_reviews_and_labels_of_a_round_never_mix(disputed):
    platform, _ = disputed
    assert {s.task_id.split("/")[1] for s in platform.labeling.collect(ONE)} == {"labels"}
    assert platform.labeling.collect(review_round(ONE)) == []


def test_a_task_that_was_deleted_is_made_again_only_if_policy_says_so(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1})
    names = sorted(platform.labeling.annotators())
    first, second, *_ = platform.labeling.open_assignments(names[0])
    platform.labeling.submit(first.backend_task, names[0], box(classes(platform)[0], 9), 1.0)
    # Seen by the platform, and then deleted in the back end, one answered and one not.
    platform.run("merge_round", ONE, raise_on_error=False)
    for place in (first, second):
        platform.labeling.delete_task(place.backend_task)
    waiting = platform.tick(labeling_complete_sensor)
    assert "1 tasks without a counted annotation were deleted in the back end" in reason(waiting)
    again = platform.tick(labeling_complete_sensor, waiting.cursor)
    assert reason(again) == reason(waiting)

    platform.change_policy(labeling={"republish_deleted": True})
    assert requested(platform.tick(labeling_complete_sensor, again.cursor)) == [("ask_again", ONE)]
    assert platform.run("ask_again", ONE).success
    assert (first.task_id, first.assignment) not in platform.labeling.held_assignments(ONE)
    assert (second.task_id, second.assignment) in platform.labeling.held_assignments(ONE)
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.run("merge_round", ONE).success
    assert read(platform, HumanLabels)["image_id"].nunique() == 8


def test_a_round_annotated_before_its_project_was_deleted_is_merged(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1})
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    seen_annotations(ONE, platform.labeling, platform.lake, names=False, now=_now())
    for said in platform.labeling.collect(ONE):
        platform.labeling.delete_task(said.backend_task)
    assert platform.labeling.progress(ONE) == Progress(0, 0)
    assert requested(platform.tick(labeling_complete_sensor)) == [("merge_round", ONE)]
    assert platform.run("merge_round", ONE).success


def test_people_do_live_work_once_they_were_right_where_the_annotation_is_known(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1}, review={"gate": "manual",
          "sample_share": 1.0})  # fmt: skip
    names = sorted(set(platform.labeling.annotators()) - {EXPERT})
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    assert platform.run("merge_round", ONE).success
    for place in platform.labeling.open_assignments(EXPERT):
        decided = [*decision(ACCEPT), *place.pre_annotations.content]
        platform.labeling.submit(place.backend_task, EXPERT, decided, 1.0)
    assert platform.run("release_round", ONE).success

    skills = Skills(platform.lake.store)
    skills.set(names[0], QUALIFIED, granted=True, now=_now())
    skills.set(names[1], QUALIFIED, granted=True, now=_now())
    skills.set(names[1], QUALIFIED, granted=False, now=_now())
    rules = {
        "qualify_annotations": 3,
        "qualify_share": 0.9,
        "gold_share": 0.5,
        "annotations_per_task": 3,
    }
    tasks = start(platform, 2, TWO, labeling=rules)
    live = tasks[tasks["purpose"] == "label"]
    assert set(live["expertise"]) == {QUALIFIED}
    assert set(tasks.loc[tasks["purpose"] == "gold", "expertise"]) == {""}
    # Who is not qualified answers a live place all the same; the bad one is wrong about gold.
    gold = set(tasks.loc[tasks["purpose"] == "gold", "image_id"])
    tried = next(p for p in platform.labeling.open_assignments(names[0]) if p.image_id not in gold)
    platform.labeling.submit(tried.backend_task, names[2], box(classes(platform)[0], 40), 1.0)
    for name in names:
        for image in sorted(gold):
            at = 200 if name == names[3] else 40
            _annotation_first(platform, TWO, image, name, box(classes(platform)[0], at))
    close_round(TWO, "enough", "a test", platform.labeling, platform.lake, now=_now())
    assert platform.run("merge_round", TWO).success
    annotations = read(platform, Annotations, TWO)
    assert annotations.loc[annotations["state"] == "unassigned", "detail"].tolist() == [
        "its author lacks the expertise qualified"
    ]
    # One by hand, one was refused by hand, one has earned it, one was wrong.
    assert Skills(platform.lake.store).people(QUALIFIED) == sorted([names[0], names[2]])


def _annotation_first(platform, round_id, image, name, result):
    """Let somebody answer the first copy of an image that nobody answered, whosever it is."""
    said = {each.backend_task for each in platform.labeling.collect(round_id)}
    for owner in platform.labeling.annotators():
        for place in platform.labeling.open_assignments(owner):
            mine = place.round_id == round_id and place.image_id == image
            if mine and place.backend_task not in said:
                platform.labeling.submit(place.backend_task, name, result, 20.0)
                return


def test_only_a_reviewer_decides_and_what_they_reject_goes_back_with_their_words(platform):
    start(platform, 1, ONE, labeling={"annotations_per_task": 1}, review={"gate": "manual",
          "sample_share": 1.0})  # fmt: skip
    platform.submit(ONE, lambda *_: box(classes(platform)[0], 40))
    assert platform.run("merge_round", ONE).success
    places = platform.labeling.open_assignments(EXPERT)
    authors = read(platform, Annotations).set_index("image_id")["annotator"]
    names = {pseudonym_of(platform.lake.store, n): n for n in platform.labeling.annotators()}
    for place in places:
        other = next(n for p, n in names.items() if p != authors[place.image_id] and n != EXPERT)
        platform.labeling.submit(place.backend_task, other, decision(ACCEPT), 1.0)
    assert "0 of 8 images are reviewed" in reason(platform.tick(review_complete_sensor))
    for place in places:
        said = decision(REJECT, "draw the whole hull") if place is places[0] else decision(ACCEPT)
        platform.labeling.submit(
            place.backend_task, EXPERT, [*said, *place.pre_annotations.content], 1.0
        )
    released = platform.run("release_round", ONE)
    said = released.asset_materializations_for_node("reviewed_labels")[0].metadata
    # Everything was looked at, so how many were wrong is known.
    wrong = [said[f"wrong_share{end}"].value for end in ("_low", "", "_high")]
    assert wrong == [0.125, 0.125, 0.125]

    start(platform, 2, TWO)
    notes = {
        place.image_id: place.note
        for name in platform.labeling.annotators()
        for place in platform.labeling.open_assignments(name)
        if place.round_id == TWO
    }
    told = "A reviewer rejected the last labels of this image: draw the whole hull"
    assert notes.pop(places[0].image_id) == told
    assert set(notes.values()) == {""}
