"""One turn of the learning loop: train on a version, test, promote or keep."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pandas as pd

from annotation_platform.models.detector import empty_predictions, predict_files
from annotation_platform.models.evaluation import Evaluation, evaluate, figure_intervals
from annotation_platform.models.learning import train_model
from annotation_platform.models.metrics_files import metrics_files
from annotation_platform.models.pictures import PicturePath, picture_paths
from annotation_platform.models.promotion import Promotion, best_of, decide_promotion
from annotation_platform.models.proposals import calibrate_new
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.params import Params
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import make_table

_NO_TEST_IMAGE = Promotion(
    False,
    "Not promoted: the test split has no image yet, so no model can be judged. "
    "It grows with every round; label more images, or raise splits.test in params.yaml.",
)


@dataclass(frozen=True)
class EvaluatedRound:
    """The ``model_evaluation`` of a round, and what it rests on."""

    table: pd.DataFrame  # schema.tables.MODEL_EVALUATIONS
    per_class: dict[str, float]  # mAP@0.5 by class
    evaluation: Evaluation | None  # of the new model; None: there is no test image
    predictions: pd.DataFrame  # of the new model on the test images


def train_round(
    round_id: str,
    training_set: pd.DataFrame,
    *,
    dataset_tag: str,
    registry: ModelRegistry,
    picture_path: PicturePath,
    policy: Params,
    report: Callable[[str], None],
    weights: Mapping[str, float] | None = None,
) -> pd.DataFrame:
    """Train on the train split, put the weights into the registry, return ``trained_model``.

    Learning goes on from ``starting_weights``, whose knowledge of the classes that both know is
    kept. What the scores mean is learned from the val split. ``report`` is told in sentences how
    far it is; ``weights`` say how often pictures are learned from, as in ``train_detector``.
    Files for TensorBoard or DVCLive, if the policy asks for them, are in ``runs/<round>`` of the
    registry.
    """
    train = training_set[training_set["split"] == "train"]
    held_out = training_set[training_set["split"] == "val"]
    before = starting_weights(registry, dataset_tag)
    with metrics_files(policy.training, registry.folder / "runs" / round_id) as record:
        model = train_model(
            Dataset.from_training_set(train, policy.ontology),
            picture_paths(train, picture_path),
            policy=policy.training,
            seed=policy.seed,
            dataset_tag=dataset_tag,
            start_from=registry.weights_path(before) if before else None,
            progress=_in_quarters(report),
            weights=weights,
            record=record,
        )
    trained = model.detector
    meaning = calibrate_new(
        registry,
        trained.state,
        Dataset.from_training_set(held_out, policy.ontology),
        picture_paths(held_out, picture_path),
        policy=policy,
    )
    card = model.card.model_copy(update={"calibrations": {meaning.profile: meaning.digest}})
    row: dict[str, object] = {
        "round_id": round_id,
        "dataset_tag": dataset_tag,
        "weights_sha256": registry.add(trained.state, card),
        "started_from": trained.started_from,
        "train_images": trained.images,
        "epochs": trained.epochs,
        "cpu_seconds": trained.cpu_seconds,
        "final_loss": trained.final_loss,
        "steps": trained.steps,
        "seed": policy.seed,
        "policy_digest": card.policy_digest,
        "profile": meaning.profile,
        "calibration": meaning.digest,
        "calibration_images": meaning.calibration.pictures,
        "calibration_error_before": meaning.calibration.error_before,
        "calibration_error": meaning.calibration.error_after,
    }
    return make_table("trained_model", [row])


def starting_weights(registry: ModelRegistry, dataset_tag: str) -> str | None:
    """Return the weights from which learning on a version goes on; None: from scratch.

    They are those promoted last among those that learned from another version. A model of this
    very version is what an earlier run of the same job left: the run after it starts where that
    one did.
    """
    return _promoted_last(registry, lambda one: registry.card(one).dataset_tag != dataset_tag)


def evaluate_round(
    round_id: str,
    trained_model: pd.DataFrame,
    training_set: pd.DataFrame,
    *,
    registry: ModelRegistry,
    picture_path: PicturePath,
    ontology: Ontology,
    evaluations: pd.DataFrame | None = None,
) -> EvaluatedRound:
    """Test the new model and those before it on the same test images; promote it or not.

    It is compared with the promoted model and with the best of those ever promoted, as the
    ``evaluations`` of other rounds (``model_evaluation``) have it. With no test image nothing is
    promoted and the figures are missing. A model that an earlier run of this job promoted is
    compared with the one promoted before it, as it was then.
    """
    weights = str(trained_model["weights_sha256"].iloc[0])
    test = training_set[training_set["split"] == "test"]
    truth = Dataset.from_training_set(test, ontology).boxes()
    paths = picture_paths(test, picture_path)
    last = _promoted_last(registry, lambda one: one != weights)
    best = _best_before(last, evaluations)
    if test.empty:
        row = {"test_images": 0, "best_sha256": best or ""} | _judged(_NO_TEST_IMAGE)
        table = make_table("model_evaluation", [_row(round_id, trained_model, row)])
        return EvaluatedRound(table, {}, None, empty_predictions())

    def test_of(one: str) -> tuple[Evaluation, pd.DataFrame]:
        predictions = predict_files(registry.load(one), paths)
        return evaluate(truth, predictions), predictions

    new, predictions = test_of(weights)
    before = {one: test_of(one)[0] for one in dict.fromkeys((best, last)) if one}
    names = {best: "the best model so far", last: "the promoted model"}
    decision = decide_promotion(new, {names[one]: found for one, found in before.items()})
    if decision.promoted:
        registry.promote(weights, decision.reason)
        best = best_of(before | {weights: new})
    row = {
        "test_images": new.images,
        "promoted_map": before[last].map if last else None,
        "promoted_map50": before[last].map50 if last else None,
        "best_sha256": best or "",
    }
    row |= _judged(decision) | _figures(new)
    table = make_table("model_evaluation", [_row(round_id, trained_model, row)])
    return EvaluatedRound(table, new.per_class, new, predictions)


def _best_before(last: str | None, evaluations: pd.DataFrame | None) -> str | None:
    """Return the best model as it was known when the one promoted last took over."""
    if last is None or evaluations is None:
        return last
    known = evaluations.loc[evaluations["weights_sha256"] == last, "best_sha256"]
    return str(known.iloc[-1]) if len(known) and known.iloc[-1] else last


def _row(
    round_id: str, trained_model: pd.DataFrame, figures: dict[str, object]
) -> dict[str, object]:
    learned = trained_model.iloc[0]
    names = {name: str(learned[name]) for name in ("dataset_tag", "weights_sha256")}
    return {"round_id": round_id} | names | figures


def _judged(decision: Promotion) -> dict[str, object]:
    found = decision.comparison.map if decision.comparison else None
    return {
        "difference": found.value if found else None,
        "difference_low": found.low if found else None,
        "difference_high": found.high if found else None,
        "promoted": decision.promoted,
        "reason": decision.reason,
    }


def _figures(new: Evaluation) -> dict[str, object]:
    found = figure_intervals(new.coco).overall
    return {
        "map50": new.map50,
        "map50_low": found["ap50"].low,
        "map50_high": found["ap50"].high,
        "map": new.map,
        "map_low": found["ap"].low,
        "map_high": found["ap"].high,
    }


def _promoted_last(registry: ModelRegistry, wanted: Callable[[str], bool]) -> str | None:
    promoted = (record.weights_sha256 for record in reversed(registry.history()))
    return next(filter(wanted, promoted), None)


def _in_quarters(report: Callable[[str], None]) -> Callable[[float], None]:
    """Return a progress callback that reports each quarter of the budget once."""
    told = 0

    def progress(share: float) -> None:
        nonlocal told
        if int(share * 4) > told:
            told = int(share * 4)
            report(f"{told * 25} % of the training budget used")

    return progress
