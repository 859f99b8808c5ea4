"""What a model changes in a round: who is audited, what is suspect, what needs no person."""

from datetime import UTC, datetime

import dagster as dg
import pytest
import yaml

from annotation_platform.pipeline.selectable import selectable_images
from annotation_platform.schema.tables import (
    AnnotatorPace,
    AutoLabels,
    BatchDrift,
    Certificates,
    HeldOutImages,
    HeldOutPredictions,
    LabelIssues,
    LabelTasks,
    MissedByModel,
    ModelAgreement,
    SelectedImages,
    TrainedModels,
    TrainingSet,
    table_named,
)
from annotation_platform.selection.overrides import SelectionOverrides


def set_policy(platform, **sections):
    path = platform.settings.policy_path
    policy = yaml.safe_load(path.read_text())
    for name, values in sections.items():
        policy[name] = {**policy.get(name, {}), **values}
    path.write_text(yaml.safe_dump(policy))


def people_agreed_until(tables, round_id):
    """Let a round's agreement be that of a model as good as people."""
    last = tables.read(ModelAgreement, round_id)
    figures = {"f1": 0.99, "f1_low": 0.98, "f1_high": 1.0}
    tables.write(ModelAgreement, round_id, last.assign(**figures))


def play(platform, batch, round_id):
    platform.land(batch)
    started = platform.start_round(round_id)
    platform.annotate(round_id)
    merged = platform.merge(round_id)
    assert platform.release(round_id, merged).success
    trained = platform.run("train_model", round_id)
    runs = (started, merged, trained)
    found = [each for run in runs for each in run.get_asset_check_evaluations()]
    return {each.check_name: each for each in found}


def test_an_audit_is_drawn_annotated_blind_and_too_small_to_certify_anything(platform):
    set_policy(
        platform,
        auto_accept={"enabled": True},
        selection={"budget": 6, "calibration_share": 0.5},
        splits={"train": 0.4, "val": 0.3, "test": 0.3},
    )
    tables = platform.lake.tables
    first = play(platform, 1, "round-0001")
    people_agreed_until(tables, "round-0001")
    second = play(platform, 2, "round-0002")

    tasks, selected = (
        tables.read_all(LabelTasks),
        tables.read_all(SelectedImages),
    )
    audited = set(selected.loc[selected["calibration_sample"], "image_id"])
    assert len(audited) == 6
    assert tasks[tasks["image_id"].isin(audited)]["without_predictions"].all()

    nothing_known = first["round_resembles_earlier_rounds"]
    assert nothing_known.passed
    assert "There are no earlier images" in nothing_known.description
    drift = tables.read(BatchDrift, "round-0002").set_index("feature")
    assert {"brightness", "appearance", "objects", "classes"} <= set(drift.index)
    assert (drift["reference_images"] == 8).all()
    # The two batches are drawn alike.
    assert second["round_resembles_earlier_rounds"].passed
    # They are looked at once, for the drift and for what is suspect.
    learned = tables.read(TrainingSet, "round-0001")
    held_out = set(learned.loc[learned["split"] != "train", "image_id"])
    looked_at = tables.read(HeldOutImages, "round-0002").set_index("image_id")
    assert set(looked_at.index) == held_out
    # What is stored of them is what the model proposed in these images, not in those of the round.
    proposed = tables.read(HeldOutPredictions, "round-0002")["image_id"].value_counts()
    assert proposed.sum() > 0
    assert (looked_at["predictions"] == proposed.reindex(looked_at.index, fill_value=0)).all()
    assert set(proposed.index) <= held_out
    assert tables.read(LabelIssues, "round-0001").empty
    assert tables.exists(LabelIssues, "round-0002")

    pace = first["annotators_as_fast_as_before"]
    assert pace.passed
    assert "No annotator has enough annotations" in pace.description
    assert second["annotators_as_fast_as_before"].severity == dg.AssetCheckSeverity.WARN
    assert tables.exists(AnnotatorPace, "round-0002")

    assert first["agreement_with_people_holds"].passed
    fallen = second["agreement_with_people_holds"]
    assert (fallen.passed, fallen.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert "0.990 on average in the 1 rounds before: a drop beyond chance" in fallen.description
    assert fallen.metadata["difference"].value < -0.3

    verdicts = tables.read_all(Certificates).set_index(["round_id", "class_name"])
    for round_id in ("round-0001", "round-0002"):
        overall = verdicts.loc[round_id, ""]
        assert not overall["granted"]
        assert "audited images" in overall["reason"]
    assert tables.read_all(AutoLabels).empty
    labels = tables.read(TrainingSet, "round-0002")
    assert set(labels["origin"]) == {"people"}
    assert set(labels["image_id"]) == set(selected["image_id"])

    # Proposals are compared with what people settled on, and with each blind annotation.
    compared = tables.read(ModelAgreement, "round-0002").set_index(["annotations", "class_name"])
    settled, own = (
        tables.read(table_named(name), "round-0002")
        for name in ("consensus_labels", "human_labels")
    )
    blind = own[own["without_predictions"]]
    for annotations, rows in (("consensus", settled), ("without_predictions", blind)):
        assert compared.loc[(annotations, ""), "labels"] == (rows["shape"] == "box").sum() > 0
    check_training_looks_again_at_what_the_last_model_missed(platform, labels)


def check_training_looks_again_at_what_the_last_model_missed(platform, labels):
    """With a fixed number of steps, other weights of images are all that can change a model."""
    set_policy(platform, training={"steps": 2})
    tables = platform.lake.tables
    box = labels[(labels["split"] == "train") & (labels["shape"] == "box")].iloc[0]
    row = {name: box[name] for name in ("image_id", "class_name", "x1", "y1", "x2", "y2")}
    row |= {"round_id": "round-0001", "missed_id": f"{box['image_id']}:0000", "nearest_iou": 0.0}
    row |= {"image_boxes": 1, "weights_sha256": "0" * 64}
    one, none = MissedByModel.from_rows([row]), MissedByModel.from_rows([])

    def train(**missed):
        for key, table in missed.items():
            tables.write(MissedByModel, key.replace("_", "-"), table)
        assert platform.run("train_model", "round-0002", only=["trained_model"]).success
        return tables.read(TrainedModels, "round-0002")["weights_sha256"].iloc[0]

    evenly = train(round_0001=none)
    again = train(round_0001=one)
    assert again != evenly
    # Neither an earlier model's nor a later one's are looked at.
    assert train(round_0000=none, round_0003=none) == again


@pytest.mark.long
def test_a_image_pinned_after_it_was_asked_about_is_asked_about_once_more(platform):
    play(platform, 1, "round-0001")
    image = platform.lake.tables.read(SelectedImages, "round-0001")["image_id"].iloc[0]
    SelectionOverrides(platform.lake.store).set(
        image, wanted=True, reason="missed by the model", by="ada", now=datetime.now(UTC)
    )
    play(platform, 2, "round-0002")
    again = platform.lake.tables.read(SelectedImages, "round-0002").set_index("image_id")
    assert again.loc[image, "reason"] == "wanted by ada: missed by the model"
    assert len(again) == 9
    pool = selectable_images("round-0003", platform.lake, platform.policy.ontology)
    assert image not in set(pool["image_id"])
