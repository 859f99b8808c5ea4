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
def proposing(registry, policy, trained, drawn, tmp_path):
    """Proposes for the drawn images and for one with nothing in it, by names as in the lake."""
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


def test_before_the_first_model_nothing_is_proposed(proposing):
    proposed = proposing()
    assert proposed.predictions.empty
    assert proposed.images.empty
    assert proposed.model.startswith("none yet")


def test_every_proposal_says_what_made_it_and_every_image_what_it_took(
    proposing, registry, trained
):
    weights = promote(registry, trained)
    proposed = proposing()
    boxes, images = proposed.predictions, proposed.images
    assert set(boxes["weights_sha256"]) == {weights}
    assert set(boxes["profile"]) == {"labelling@" + boxes["profile"].iloc[0][-8:]}
    assert boxes["score"].tolist() == boxes["raw_score"].tolist()
    assert set(boxes["calibration"]) == {""}
    assert "no calibration is known" in proposed.scores
    counts = boxes["image_id"].value_counts()
    assert images["proposals"].tolist() == [int(counts.get(i, 0)) for i in images["image_id"]]
    assert (len(images), set(images["passes"]), set(images["weights"])) == (
        12,
        {1},
        {weights},
    )
    assert (images["seconds"] > 0).all()


def test_scores_become_probabilities_and_their_own_stays(proposing, registry, policy, trained):
    promote(registry, trained)
    detector = prediction_detector(registry, policy)
    curve = Curve(rise=2.0, fall=0.5, offset=-1.0)
    one = ClassCurve(kind="own", curve=curve, boxes=90, right=40)
    meant = identity_calibration().model_copy(update={"pooled": one, "classes": {"red": one}})
    digest = registry.calibrate(detector.weights, detector.profile, meant)
    proposed = proposing()
    boxes = proposed.predictions
    assert set(boxes["calibration"]) == {digest}
    assert boxes["score"].to_numpy() == pytest.approx(curve.at(boxes["raw_score"].to_numpy()))
    assert proposed.scores.startswith("probabilities, from 0 images")
    # A profile of other settings is another instrument.
    other = proposing(prediction=PredictionPolicy(labelling=ProfilePolicy(flips=True)))
    assert set(other.predictions["calibration"]) == {""}
    assert set(other.images["passes"]) == {2}


def test_classes_that_the_ontology_lost_are_not_proposed(proposing, registry, policy, trained):
    promote(registry, trained)
    red = policy.ontology.model_copy(update={"classes": policy.ontology.classes[1:]})
    proposed = proposing(ontology=red)
    assert set(proposed.predictions["class_name"]) == {"red"}
    assert proposed.images["proposals"].sum() == len(proposed.predictions)


def test_new_weights_are_calibrated_as_they_would_propose(registry, policy, trained, drawn):
    paths = {one.image_id: one.path for one in drawn.examples}
    meaning = calibrate_new(registry, trained.state, drawn.dataset, paths, policy=policy)
    assert meaning.calibration.images == 12
    assert meaning.calibration.error_before is not None
    promote(registry, trained)
    known = stored_calibration(registry, prediction_detector(registry, policy))
    assert known == meaning
    # Two images later teach nothing, and what was known is kept.
    few = drawn.dataset.images["image_id"].iloc[:2].tolist()
    part = type(drawn.dataset)(
        drawn.dataset.images[drawn.dataset.images["image_id"].isin(few)],
        drawn.dataset.labels[drawn.dataset.labels["image_id"].isin(few)],
        drawn.dataset.ontology,
    )
    some = {image_id: paths[image_id] for image_id in few}
    calibrate_new(registry, trained.state, part, some, policy=policy)
    assert stored_calibration(registry, prediction_detector(registry, policy)) == meaning


def test_what_proposed_once_can_be_asked_again_while_the_registry_has_it(
    registry, policy, trained, card
):
    proposed = hashlib.sha256(trained.state).hexdigest()
    registry.promote(registry.add(b"newer", card), "better")
    known = prediction_detector(registry, policy, [proposed, "0" * 64])
    assert known.weights == (proposed,)
    # Otherwise it is today's, which is no detector here.
    with pytest.raises(ModelError):
        prediction_detector(registry, policy, ["0" * 64, proposed])


def test_probabilities_keep_the_order_within_a_class(proposing, registry, policy, trained, drawn):
    paths = {one.image_id: one.path for one in drawn.examples}
    calibrate_new(registry, trained.state, drawn.dataset, paths, policy=policy)
    promote(registry, trained)
    boxes = proposing().predictions
    for _, rows in boxes.groupby("class_name"):
        ordered = rows.sort_values("raw_score")
        assert (np.diff(ordered["score"]) >= 0).all()
