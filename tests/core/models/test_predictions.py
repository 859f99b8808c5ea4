import hashlib

import numpy as np
import pandas as pd
import pytest

from annotation_platform.errors import ModelError
from annotation_platform.models.detection.calibration import ClassCurve, Curve, identity_calibration
from annotation_platform.models.predictions import (
    calibrate_new,
    predict_pool,
    prediction_detector,
    stored_calibration,
)
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.policy import Policy, PredictionPolicy, ProfilePolicy

ONCE = PredictionPolicy(labelling=ProfilePolicy())


@pytest.fixture
def registry(tmp_path, card, trained):
    registry = ModelRegistry(tmp_path / "models")
    registry.add(trained.state, card)
    return registry


@pytest.fixture
def policy(drawn):
    return Policy(ontology=drawn.dataset.ontology, prediction=ONCE)


@pytest.fixture
def predict(registry, policy, trained, drawn, tmp_path):
    """Predicts on the drawn images, with ids as in the lake."""
    ids = {f"{number:064x}": one.path for number, one in enumerate(drawn.examples)}
    pool = pd.DataFrame({"image_id": list(ids), "extension": "png"})

    def run(**changes):
        changed = policy.model_copy(update=changes)
        return predict_pool(
            registry, pool, lambda i, _: ids[i], round_id="round-0001", policy=changed
        )

    return run


def promote(registry, trained):
    weights = hashlib.sha256(trained.state).hexdigest()
    registry.promote(weights, "the only one")
    return weights


def test_before_the_first_model_nothing_is_predicted(predict):
    predicted = predict()
    assert predicted.predictions.empty
    assert predicted.images.empty
    assert predicted.model.startswith("none yet")


def test_every_prediction_records_its_origin_and_every_image_its_cost(predict, registry, trained):
    weights = promote(registry, trained)
    predicted = predict()
    boxes, images = predicted.predictions, predicted.images
    assert set(boxes["weights_sha256"]) == {weights}
    assert set(boxes["profile"]) == {"labelling@" + boxes["profile"].iloc[0][-8:]}
    assert boxes["score"].tolist() == boxes["raw_score"].tolist()
    assert set(boxes["calibration"]) == {""}
    assert "no calibration is known" in predicted.scores
    counts = boxes["image_id"].value_counts()
    assert images["predictions"].tolist() == [int(counts.get(i, 0)) for i in images["image_id"]]
    assert (len(images), set(images["passes"]), set(images["weights"])) == (
        12,
        {1},
        {weights},
    )
    assert (images["seconds"] > 0).all()


def test_scores_become_probabilities_and_raw_scores_stay(predict, registry, policy, trained):
    promote(registry, trained)
    detector = prediction_detector(registry, policy)
    curve = Curve(rise=2.0, fall=0.5, offset=-1.0)
    one = ClassCurve(kind="own", curve=curve, boxes=90, right=40)
    meant = identity_calibration().model_copy(update={"pooled": one, "classes": {"red": one}})
    digest = registry.calibrate(detector.weights, detector.profile, meant)
    predicted = predict()
    boxes = predicted.predictions
    assert set(boxes["calibration"]) == {digest}
    assert boxes["score"].to_numpy() == pytest.approx(curve.at(boxes["raw_score"].to_numpy()))
    assert predicted.scores.startswith("probabilities, from 0 images")
    # Scores of a profile with other settings are not comparable.
    other = predict(prediction=PredictionPolicy(labelling=ProfilePolicy(flips=True)))
    assert set(other.predictions["calibration"]) == {""}
    assert set(other.images["passes"]) == {2}


def test_classes_that_the_ontology_lost_are_not_predicted(predict, registry, policy, trained):
    promote(registry, trained)
    red = policy.ontology.model_copy(update={"classes": policy.ontology.classes[1:]})
    predicted = predict(ontology=red)
    assert set(predicted.predictions["class_name"]) == {"red"}
    assert predicted.images["predictions"].sum() == len(predicted.predictions)


def test_new_weights_are_calibrated_as_they_would_predict(registry, policy, trained, drawn):
    paths = {one.image_id: one.path for one in drawn.examples}
    calibrated = calibrate_new(registry, trained.state, drawn.dataset, paths, policy=policy)
    assert calibrated.calibration.images == 12
    assert calibrated.calibration.error_before is not None
    promote(registry, trained)
    known = stored_calibration(registry, prediction_detector(registry, policy))
    assert known == calibrated
    # Two images give no calibration, and the stored one stays.
    few = drawn.dataset.images["image_id"].iloc[:2].tolist()
    part = type(drawn.dataset)(
        drawn.dataset.images[drawn.dataset.images["image_id"].isin(few)],
        drawn.dataset.labels[drawn.dataset.labels["image_id"].isin(few)],
        drawn.dataset.ontology,
    )
    some = {image_id: paths[image_id] for image_id in few}
    calibrate_new(registry, trained.state, part, some, policy=policy)
    assert stored_calibration(registry, prediction_detector(registry, policy)) == calibrated


def test_predictions_of_earlier_weights_can_be_repeated_while_the_registry_has_them(
    registry, policy, trained, card
):
    predicted = hashlib.sha256(trained.state).hexdigest()
    registry.promote(registry.add(b"newer", card), "better")
    known = prediction_detector(registry, policy, [predicted, "0" * 64])
    assert known.weights == (predicted,)
    # Otherwise it is the promoted one, whose file is not a detector here.
    with pytest.raises(ModelError):
        prediction_detector(registry, policy, ["0" * 64, predicted])


def test_probabilities_keep_the_order_within_a_class(predict, registry, policy, trained, drawn):
    paths = {one.image_id: one.path for one in drawn.examples}
    calibrate_new(registry, trained.state, drawn.dataset, paths, policy=policy)
    promote(registry, trained)
    boxes = predict().predictions
    for _, rows in boxes.groupby("class_name"):
        ordered = rows.sort_values("raw_score")
        assert (np.diff(ordered["score"]) >= 0).all()
