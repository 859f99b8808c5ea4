import io
import math
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from annotation_platform.demo.material import drawn_material
from annotation_platform.images.accepted import accepted_images
from annotation_platform.labeling.backends.regions import write_regions
from annotation_platform.labeling.change_signals import ChangeSignals
from annotation_platform.reporting.status import round_states
from annotation_platform.schema.shapes import Label
from annotation_platform.schema.tables import (
    BatchDrift,
    CleanedImages,
    ConsensusLabels,
    LabelTasks,
    RoundReports,
    SelectedImages,
)
from annotation_platform.versioning.registry import list_versions
from resources.causes import record_further_work
from resources.instance import end_dead_runs
from sensors.attempts import next_attempt
from sensors.labeling import labeling_complete_sensor
from sensors.landing import new_images_sensor
from sensors.releases import new_version_sensor, review_complete_sensor


def keys(result):
    return [request.run_key for request in result.run_requests or []]


def finish(platform, request, status):
    """Record that the run a sensor asked for ended so."""
    job, _, _ = request.run_key.split(":", 2)
    run = dg.DagsterRun(
        job_name=job,
        tags={
            **request.tags,
            "dagster/partition": request.partition_key,
            "dagster/run_key": request.run_key,
        },
    )
    platform.instance.add_run(run)
    platform.instance.handle_run_event(run.run_id, _event(job, status))
    return run.run_id


def next_due(instance, job, round_id):
    """Return what is asked for, for one cause, once the pause after a failure is over."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sensors.attempts._FIRST_PAUSE_SECONDS", 0.0)
        return next_attempt(instance, job, round_id, "cause").request


def _event(job, status):
    kinds = {
        dg.DagsterRunStatus.STARTED: dg.DagsterEventType.RUN_START,
        dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
        dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
    }
    return dg.DagsterEvent(event_type_value=kinds[status].value, job_name=job)


def test_landed_files_make_one_round_however_often_the_sensor_ticks(platform):
    platform.land(1)
    first = platform.tick(new_images_sensor)
    assert [request.partition_key for request in first.run_requests] == ["round-0001"]
    # The daemon dies before it stores anything: the same tick comes again, without a cursor.
    again = platform.tick(new_images_sensor)
    assert keys(again) == keys(first)
    assert platform.lake.manifests.rounds() == ["round-0001"]
    landed = {item.key for item in platform.lake.manifests.read("round-0001")}
    assert len(landed) == len(platform.material.batches[0])


def test_a_round_that_has_its_tasks_is_not_started_again(platform):
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")
    idle = platform.tick(new_images_sensor)
    assert keys(idle) == []
    assert idle.skip_reason.skip_message.startswith("No new image among")


def test_rounds_start_in_order(platform):
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.land(2)
    second = platform.tick(new_images_sensor)
    assert platform.lake.manifests.rounds() == ["round-0001", "round-0002"]
    assert [request.partition_key for request in second.run_requests] == ["round-0001"]


def test_a_missing_landing_folder_is_a_sentence(platform):
    platform.settings.landing_path.rmdir()
    result = platform.tick(new_images_sensor)
    assert "landing folder cannot be read" in result.skip_message


def test_a_failed_run_is_asked_for_again_under_a_new_key_after_a_pause(platform):
    platform.land(1)
    first = platform.tick(new_images_sensor).run_requests[0]
    finish(platform, first, dg.DagsterRunStatus.FAILURE)
    paused = platform.tick(new_images_sensor)
    assert keys(paused) == []
    assert "attempt 1 of start_round failed" in paused.skip_reason.skip_message


def test_every_attempt_has_a_key_of_its_own_and_only_the_last_state_counts(platform):
    instance, asked = platform.instance, []
    # Causes may differ at their very end: digest and state.
    a, b, c = (f"{'0' * 64}-{state}" for state in ("open", "closed", "cancelled"))
    outcomes = [
        (a, dg.DagsterRunStatus.SUCCESS),
        (b, dg.DagsterRunStatus.FAILURE),
        (c, dg.DagsterRunStatus.SUCCESS),
        (a, dg.DagsterRunStatus.SUCCESS),
    ]
    for cause, status in outcomes:
        attempt = next_attempt(instance, "merge_round", "round-0001", cause)
        asked.append(attempt.request.run_key.split(":"))
        finish(platform, attempt.request, status)
    # The first state came back after another one: it is merged again, under a new key.
    jobs, keys, causes, numbers = zip(*asked, strict=True)
    assert {*jobs, *keys} == {"merge_round", "round-0001"}
    assert causes[0] == causes[3]
    assert len(set(causes)) == 3
    assert numbers == ("1", "1", "1", "2")
    assert next_attempt(instance, "merge_round", "round-0001", a).done
    assert next_attempt(instance, "merge_round", "round-0001", c).request
    assert next_attempt(instance, "merge_round", "round-0002", a).request


def test_a_merge_that_went_on_uses_up_no_key_of_the_release(platform):
    instance, where = platform.instance, ("release_round", "round-0001")
    for _ in range(2):
        finish(platform, next_due(instance, *where), dg.DagsterRunStatus.FAILURE)
    merging = next_due(instance, "merge_round", "round-0001")
    run = finish(platform, merging, dg.DagsterRunStatus.STARTED)
    record_further_work(instance, run, *where, "cause")
    assert "release_round is under way" in next_attempt(instance, *where, "cause").waits_for
    instance.handle_run_event(run, _event("merge_round", dg.DagsterRunStatus.FAILURE))
    assert next_attempt(instance, "merge_round", "round-0001", "cause").done
    assert next_due(instance, *where).run_key.endswith(":3")


def test_runs_that_died_with_their_servers_are_ended_before_the_next_start(platform):
    request = next_attempt(platform.instance, "train_model", "round-0001", "a").request
    run = dg.DagsterRun(
        job_name="train_model",
        status=dg.DagsterRunStatus.STARTED,
        tags={**request.tags, "dagster/partition": "round-0001", "dagster/run_key": "x:1"},
    )
    platform.instance.add_run(run)
    stuck = next_attempt(platform.instance, "train_model", "round-0001", "a")
    assert "under way" in stuck.waits_for
    assert end_dead_runs(platform.instance) == 1
    failed = next_attempt(platform.instance, "train_model", "round-0001", "a")
    assert "attempt 1 of train_model failed" in failed.waits_for
    assert end_dead_runs(platform.instance) == 0


def test_a_round_is_merged_when_its_last_annotation_is_in_and_again_when_one_is_edited(platform):
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")
    waiting = platform.tick(labeling_complete_sensor)
    assert waiting.skip_reason.skip_message.startswith("round-0001: 0 of 24 annotations.")
    platform.annotate("round-0001")
    ready = platform.tick(labeling_complete_sensor)
    assert [request.partition_key for request in ready.run_requests] == ["round-0001"]
    assert keys(platform.tick(labeling_complete_sensor)) == keys(ready)
    platform.merge("round-0001")
    finish(platform, ready.run_requests[0], dg.DagsterRunStatus.SUCCESS)
    settled = platform.tick(labeling_complete_sensor)
    assert keys(settled) == []
    submission = platform.labeling.collect("round-0001")[0]
    other = write_regions([Label.box("boat", 5, 5, 60, 60)])
    task, author = submission.backend_task, submission.author
    platform.labeling.submit(task, author, other, 3.0, annotation=submission.annotation)
    edited = platform.tick(labeling_complete_sensor, settled.cursor)
    assert len(edited.run_requests) == 1
    assert keys(edited) != keys(ready)


def test_between_two_looks_only_a_hint_makes_one(platform):
    platform.settings = platform.settings.model_copy(update={"labeling_poll_seconds": 3600.0})
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")
    first = platform.tick(labeling_complete_sensor)
    platform.annotate("round-0001")
    between = platform.tick(labeling_complete_sensor, first.cursor)
    assert "no change signal since then" in between.skip_message
    ChangeSignals(platform.settings.change_signals_path).give()
    hinted = platform.tick(labeling_complete_sensor, first.cursor)
    assert [request.partition_key for request in hinted.run_requests] == ["round-0001"]


def test_labels_that_fail_a_gate_are_not_released(platform):
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")
    platform.annotate("round-0001")
    platform.merge("round-0001")
    assert versions(platform) == ["1.0.0"]
    tables = platform.lake.tables
    labels = tables.read(ConsensusLabels, "round-0001")
    labels.loc[labels.index[0], "x2"] = 9999.0
    tables.write(ConsensusLabels, "round-0001", labels)
    held = platform.tick(review_complete_sensor)
    assert keys(held) == []
    assert "held back: 1 regions outside their image" in held.skip_reason.skip_message


def as_asked(platform, sensor, **options):
    """Run what a sensor requests, as its daemon would."""
    (request,) = platform.tick(sensor).run_requests
    tags = {**request.tags, "dagster/run_key": request.run_key}
    return platform.run(request.job_name, request.partition_key, tags=tags, **options)


def annotated(platform, **policy):
    """Collect the annotations of the first round, under another policy."""
    platform.change_policy(**policy)
    platform.land(1)
    as_asked(platform, new_images_sensor)
    platform.annotate("round-0001")


def versions(platform):
    return [each.version for each in list_versions(platform.settings.registry_path)]


def skip_reason(platform, sensor):
    result = platform.tick(sensor)
    assert keys(result) == []
    return result.skip_reason.skip_message


def test_a_merge_that_leaves_nothing_to_decide_is_a_release(platform):
    annotated(platform, review={"gate": "auto"})
    assert as_asked(platform, labeling_complete_sensor).success
    assert versions(platform) == ["1.0.0"]
    for sensor in (labeling_complete_sensor, review_complete_sensor):
        assert "release_round" not in skip_reason(platform, sensor)
        assert "merge_round" not in skip_reason(platform, sensor)


def test_a_merge_that_leaves_something_to_decide_ends_there(platform):
    annotated(platform, review={"gate": "manual", "sample_share": 1.0})
    merged = as_asked(platform, labeling_complete_sensor)
    assert merged.success
    assert not merged.asset_materializations_for_node("reviewed_labels")
    assert "0 of 8 images are reviewed" in skip_reason(platform, review_complete_sensor)
    platform.decide("round-0001")
    assert as_asked(platform, review_complete_sensor).success
    assert versions(platform) == ["1.0.0"]
    assert "1 rounds are resolved" in skip_reason(platform, review_complete_sensor)


def test_a_release_that_fails_in_the_run_of_a_merge_is_tried_again_without_merging(
    platform, monkeypatch
):
    annotated(platform, review={"gate": "auto"})
    remote = Path(platform.settings.remote_url)
    kept = remote.rename(remote.with_name("away")) if remote.exists() else None
    remote.write_text("no folder")
    assert not as_asked(platform, labeling_complete_sensor, raise_on_error=False).success
    assert versions(platform) == []
    assert "1 rounds are merged" in skip_reason(platform, labeling_complete_sensor)
    assert "attempt 1 of release_round failed" in skip_reason(platform, review_complete_sensor)
    remote.unlink()
    if kept:
        kept.rename(remote)
    monkeypatch.setattr("sensors.attempts._FIRST_PAUSE_SECONDS", 0.0)
    assert as_asked(platform, review_complete_sensor).success
    assert versions(platform) == ["1.0.0"]
    assert "1 rounds are resolved" in skip_reason(platform, review_complete_sensor)


def test_while_a_round_is_merged_no_release_of_it_is_asked_for(platform):
    annotated(platform, review={"gate": "manual", "sample_share": 1.0})
    as_asked(platform, labeling_complete_sensor)
    platform.decide("round-0001")
    merging = dg.DagsterRun(
        job_name="merge_round",
        status=dg.DagsterRunStatus.STARTED,
        tags={"dagster/partition": "round-0001"},
    )
    platform.instance.add_run(merging)
    assert "round-0001: its merge is under way" in skip_reason(platform, review_complete_sensor)
    assert end_dead_runs(platform.instance) == 1
    assert len(keys(platform.tick(review_complete_sensor))) == 1


def test_nothing_is_trained_before_there_is_a_version(platform):
    assert platform.tick(new_version_sensor).skip_message == "No version is published yet."


def test_a_round_in_which_nothing_is_new_ends_by_itself(platform):
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")
    for name, data in platform.material.batches[0].items():
        (platform.settings.landing_path / f"again-{name}").write_bytes(data)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0002")
    cleaned = platform.lake.tables.read(CleanedImages, "round-0002")
    assert set(cleaned["outcome"]) == {"duplicate", "quarantined"}
    result = platform.tick(labeling_complete_sensor)
    assert keys(result) == []
    states = {state["round"]: state["waits_for"] for state in round_states(platform.lake)}
    assert states == {"round-0001": "people", "round-0002": "– (nothing new to label)"}
    # It does not hold up what comes after it.
    platform.land(2)
    later = platform.tick(new_images_sensor)
    assert [request.partition_key for request in later.run_requests] == ["round-0003"]


def darker(data):
    """Return an image as it would be at night; what is no whole image stays as it is."""
    try:
        with Image.open(io.BytesIO(data)) as image:
            sink = io.BytesIO()
            image.convert("RGB").point(lambda value: value // 3).save(sink, "PNG")
    except OSError:
        return data
    return sink.getvalue()


def test_a_round_that_is_held_waits_for_somebody_and_the_next_ones_go_on(platform):
    policy = platform.settings.policy_path
    policy.write_text(policy.read_text().replace("gate: warn", "gate: hold"))
    assert platform.policy.drift.gate == "hold"
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")

    for name, data in platform.material.batches[1].items():
        platform.lake.landing.put(f"night/{name}.png", darker(data))
    request = platform.tick(new_images_sensor).run_requests[0]
    assert not platform.run("start_round", "round-0002", raise_on_error=False).success
    finish(platform, request, dg.DagsterRunStatus.FAILURE)
    tables = platform.lake.tables
    assert "sharpness" in set(tables.read(BatchDrift, "round-0002").query("drifted")["feature"])
    waiting = platform.tick(new_images_sensor)
    assert keys(waiting) == []
    assert waiting.skip_reason.skip_message.startswith("round-0002 is held: ")
    states = {state["round"]: state["waits_for"] for state in round_states(
        platform.lake, drift_gate="hold")}  # fmt: skip
    assert states["round-0002"].startswith("a release by hand: its images have drifted")
    assert states["round-0001"] == "people"

    (third,) = drawn_material(1, 8, seed=5).batches
    for name, data in third.items():
        platform.lake.landing.put(f"third/{name}", data)
    later = platform.tick(new_images_sensor)
    assert [request.partition_key for request in later.run_requests] == ["round-0003"]
    platform.run("start_round", "round-0003")
    # The images of a held round have no tasks, and are not part of the known images.
    night = tables.read(CleanedImages, "round-0002")
    night = set(night.loc[night["outcome"] == "accepted", "image_id"])
    assert not night & set(tables.read(SelectedImages, "round-0003")["image_id"])
    known = len(accepted_images(platform.lake.tables).query("round_id == 'round-0001'"))
    assert set(tables.read(BatchDrift, "round-0003")["reference_images"]) == {known}
    assert keys(platform.tick(new_images_sensor)) == []

    platform.run("start_round", "round-0002", only=["selected_images", "label_tasks"])
    assert set(tables.read(SelectedImages, "round-0002")["image_id"]) == night
    assert "held" not in platform.tick(new_images_sensor).skip_reason.skip_message


def test_assignments_are_fixed_before_tasks_are_published(platform):
    platform.land(1)
    platform.tick(new_images_sensor)
    platform.run("start_round", "round-0001")
    before = platform.lake.tables.read(LabelTasks, "round-0001")
    platform.labeling.add_annotator("aaron@example.org")
    platform.run("start_round", "round-0001")
    assert before.equals(platform.lake.tables.read(LabelTasks, "round-0001"))


def test_an_overtaken_version_is_reported_without_a_model(platform):
    for batch, round_id in enumerate(["round-0001", "round-0002"], start=1):
        platform.land(batch)
        platform.tick(new_images_sensor)
        platform.run("start_round", round_id)
        platform.annotate(round_id)
        platform.release(round_id, platform.merge(round_id))
    asked = {r.partition_key: r.job_name for r in platform.tick(new_version_sensor).run_requests}
    assert asked == {"round-0001": "report_round", "round-0002": "train_model"}
    platform.run("report_round", "round-0001")
    report = platform.lake.tables.read(RoundReports, "round-0001").iloc[0]
    assert (report["version"], math.isnan(report["model_map50"])) == ("1.0.0", True)


def test_with_manual_gates_people_launch_and_sensors_say_what_is_due(platform):
    manual = {"gate": "manual"}
    platform.change_policy(rounds=manual, release=manual, training=manual)
    platform.land(1)
    # The round is formed all the same: what landed stays together.
    platform.tick(new_images_sensor)
    assert platform.lake.manifests.rounds() == ["round-0001"]
    assert "start_round must be launched manually (rounds.gate is manual)" in skip_reason(
        platform, new_images_sensor
    )
    platform.run("start_round", "round-0001")
    assert "start_round" not in skip_reason(platform, new_images_sensor)
    platform.annotate("round-0001")
    # The annotations are merged: no decision is open.
    assert len(keys(platform.tick(labeling_complete_sensor))) == 1
    platform.merge("round-0001")
    assert "release_round must be launched manually (release.gate is manual)" in skip_reason(
        platform, review_complete_sensor
    )
    platform.run("release_round", "round-0001")
    assert "manually" not in skip_reason(platform, review_complete_sensor)
    assert "train_model must be launched manually (training.gate is manual)" in skip_reason(
        platform, new_version_sensor
    )
