import dagster as dg
import pytest

from annotation_platform.labeling.results import LabelledBox, boxes_to_result
from sensors.attempts import CAUSE, next_attempt
from sensors.labeling import labeling_complete_sensor
from sensors.landing import new_images_sensor
from sensors.releases import new_version_sensor, review_complete_sensor


def keys(result):
    return [request.run_key for request in result.run_requests or []]


@pytest.fixture
def patient(platform):
    """The platform with files that have lain long enough to make a round."""
    policy = platform.settings.params_path
    policy.write_text(policy.read_text().replace("settle_seconds: 1.0", "settle_seconds: 0.0"))
    return platform


def finish(platform, request, status):
    """Record that the run a sensor asked for ended so."""
    job, _, _ = request.run_key.split(":", 2)
    run = dg.DagsterRun(
        job_name=job, tags={**request.tags, "dagster/partition": request.partition_key}
    )
    platform.instance.add_run(run)
    platform.instance.handle_run_event(run.run_id, _event(job, status))


def _event(job, status):
    kinds = {
        dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
        dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
    }
    return dg.DagsterEvent(event_type_value=kinds[status].value, job_name=job)


def test_landed_files_make_one_round_however_often_the_sensor_ticks(patient):
    patient.land(1)
    first = patient.tick(new_images_sensor)
    assert [request.partition_key for request in first.run_requests] == ["round-0001"]
    # The daemon dies before it stores anything: the same tick comes again, without a cursor.
    again = patient.tick(new_images_sensor)
    assert keys(again) == keys(first)
    assert patient.lake.manifests.rounds() == ["round-0001"]
    landed = {item.key for item in patient.lake.manifests.read("round-0001")}
    assert len(landed) == len(patient.material.batches[0])


def test_a_round_that_has_its_tasks_is_not_started_again(patient):
    patient.land(1)
    patient.tick(new_images_sensor)
    patient.run("start_round", "round-0001")
    idle = patient.tick(new_images_sensor)
    assert keys(idle) == []
    assert idle.skip_reason.skip_message.startswith("No new image among")


def test_rounds_start_in_order(patient):
    patient.land(1)
    patient.tick(new_images_sensor)
    patient.land(2)
    second = patient.tick(new_images_sensor)
    assert patient.lake.manifests.rounds() == ["round-0001", "round-0002"]
    assert [request.partition_key for request in second.run_requests] == ["round-0001"]


def test_a_missing_landing_folder_is_a_sentence(patient):
    patient.settings.landing_path.rmdir()
    result = patient.tick(new_images_sensor)
    assert "landing folder cannot be read" in result.skip_message


def test_a_failed_run_is_asked_for_again_under_a_new_key_after_a_pause(patient):
    patient.land(1)
    first = patient.tick(new_images_sensor).run_requests[0]
    finish(patient, first, dg.DagsterRunStatus.FAILURE)
    paused = patient.tick(new_images_sensor)
    assert keys(paused) == []
    assert "failed 1 times" in paused.skip_reason.skip_message
    cause = first.tags[CAUSE].split(":", 1)[1]
    records = patient.instance.get_run_records(dg.RunsFilter(job_name="start_round"))
    assert len(records) == 1
    done = next_attempt(patient.instance, "start_round", "round-0001", "another" + cause)
    assert done.request.run_key.endswith(":1")


def test_a_round_is_merged_when_its_last_answer_is_in_and_again_when_one_is_edited(patient):
    patient.land(1)
    patient.tick(new_images_sensor)
    patient.run("start_round", "round-0001")
    waiting = patient.tick(labeling_complete_sensor)
    assert waiting.skip_reason.skip_message.startswith("round-0001: 0 of 24 answers.")
    patient.answer("round-0001")
    ready = patient.tick(labeling_complete_sensor)
    assert [request.partition_key for request in ready.run_requests] == ["round-0001"]
    assert keys(patient.tick(labeling_complete_sensor)) == keys(ready)
    patient.run("merge_round", "round-0001")
    finish(patient, ready.run_requests[0], dg.DagsterRunStatus.SUCCESS)
    settled = patient.tick(labeling_complete_sensor)
    assert keys(settled) == []
    said = patient.labeling.submissions("round-0001")[0]
    other = boxes_to_result([LabelledBox("boat", 5, 5, 60, 60)], 320, 240)
    patient.labeling.submit(said.backend_task, said.author, other, 3.0, annotation=said.annotation)
    edited = patient.tick(labeling_complete_sensor, settled.cursor)
    assert len(edited.run_requests) == 1
    assert keys(edited) != keys(ready)


def test_labels_that_fail_a_gate_are_not_released(patient):
    patient.land(1)
    patient.tick(new_images_sensor)
    patient.run("start_round", "round-0001")
    patient.answer("round-0001")
    patient.run("merge_round", "round-0001")
    assert len(patient.tick(review_complete_sensor).run_requests) == 1
    tables = patient.lake.tables
    labels = tables.read("consensus_labels", "round-0001")
    labels.loc[labels.index[0], "x2"] = 9999.0
    tables.write("consensus_labels", "round-0001", labels)
    held = patient.tick(review_complete_sensor)
    assert keys(held) == []
    assert "held back: 1 boxes outside their image" in held.skip_reason.skip_message


def test_nothing_is_trained_before_there_is_a_version(patient):
    assert patient.tick(new_version_sensor).skip_message == "No version was published yet."
