"""Selection: the images that a round has annotated, and the population of its random sample."""

from collections.abc import Collection
from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import features_for
from annotation_platform.labeling.assignment_plan import AssignmentPlan
from annotation_platform.models.embedder import embedder_for
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.predict import selection_pool
from annotation_platform.pipeline.result import Counts, Result, TableRows
from annotation_platform.policy import SelectionPolicy
from annotation_platform.schema.tables import (
    AutoLabels,
    CalibrationFrame,
    CleanedImages,
    Frame,
    ModelPredictions,
    ReviewedLabels,
    SelectedImages,
)
from annotation_platform.selection.batch import Selection, select_batch
from annotation_platform.selection.overrides import SelectionOverrides
from annotation_platform.selection.pool import SelectionInputs
from annotation_platform.storage.lake import Lake


@dataclass(frozen=True, kw_only=True)
class Selected(Result):
    """The images that a round has annotated, and the pool of its random sample."""

    selected_images: Frame[SelectedImages]
    calibration_frame: Frame[CalibrationFrame]


def select(
    context: RoundContext, model_predictions: Frame[ModelPredictions], models: ModelRegistry
) -> Selected:
    """Return the images that are annotated in the round, in order."""
    pool = selection_pool(context)
    selection, frame = _choose(context, pool, model_predictions, models)
    selected = selection.images
    return Selected(
        selected_images=selected,
        calibration_frame=frame,
        figures={
            "images": len(selected),
            "not_selected": int(
                (~pool[CleanedImages.image_id].isin(selected[SelectedImages.image_id])).sum()
            ),
            "rules": Counts(selected[SelectedImages.rule]),
            "outliers": dict(list(selection.outliers.items())[:50]),
            "excluded": dict(list(selection.excluded.items())[:50]),
            "included_but_not_in_the_pool": list(selection.overridden_elsewhere)[:50],
            "without_vector": len(selection.without_vector),
            "predictions_without_score": selection.unscored_predictions,
            "preview": TableRows(selected, ["rank", "image_id", "rule", "reason"]),
        },
    )


def _choose(
    context: RoundContext, pool: pd.DataFrame, predictions: pd.DataFrame, models: ModelRegistry
) -> tuple[Selection, pd.DataFrame]:
    """Return the selection from the pool, and the ``calibration_frame``; empty without auto-accept.

    After the first tasks are published the selection is final: the stored one is returned.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    tables = lake.tables
    if AssignmentPlan(lake.store, round_id).read().batches and tables.exists(
        SelectedImages, round_id
    ):
        stored = tables.read(SelectedImages, round_id)
        frame = tables.read_rounds(CalibrationFrame, [round_id])
        return Selection(stored, {}, {}, (), (), 0, {}), frame
    embedder = embedder_for(policy.selection.embedder, models)
    known = accepted_images(lake.tables)
    held = set(held_rounds(lake.tables, policy.drift.gate)) - {round_id}
    known = known[
        (known[CleanedImages.round_id] <= round_id) & ~known[CleanedImages.round_id].isin(held)
    ]
    vectors = features_for(known, embedder, store=lake.store, load=lake.image, round_id=round_id)
    overrides, labels = SelectionOverrides(lake.store).read(), tables.read_all(ReviewedLabels)
    selected_before = known[~known[CleanedImages.image_id].isin(pool[CleanedImages.image_id])]
    again = _images_to_recheck(round_id, pool, lake)

    def chosen_by(selection: SelectionPolicy) -> Selection:
        return select_batch(
            SelectionInputs(pool, vectors, predictions, labels, selected_before),
            policy=selection,
            round_id=round_id,
            seed=policy.seed,
            overrides=overrides,
            again=again,
            choose=policy.ontology.choose,
        )

    chosen = chosen_by(policy.selection)
    frame = CalibrationFrame.empty()
    if policy.auto_accept.enabled and not pool.empty:
        budget = int((~chosen.images[SelectedImages.calibration_sample]).sum())
        by_rule = {*overrides, *again}
        if len(chosen.images) < len(pool) and budget:
            # A budget of 0 means no limit.
            bare = policy.selection.model_copy(update={"calibration_share": 0.0, "budget": budget})
            by_rule |= set(chosen_by(bare).images["image_id"])
        frame = _calibration_frame(context, pool, by_rule)
    return chosen, frame


def _calibration_frame(
    context: RoundContext, pool: Frame[CleanedImages], by_rule: Collection[str]
) -> Frame[CalibrationFrame]:
    """Return the pool, with the images that the rules choose without an audit."""
    digest = context.tables.digest(ModelPredictions, context.round_id)
    return CalibrationFrame.from_rows(
        [
            {
                "round_id": context.round_id,
                "image_id": image,
                "by_rule": image in by_rule,
                "predictions_sha256": digest,
            }
            for image in dict.fromkeys(pool[CleanedImages.image_id])
        ],
    )


def _images_to_recheck(round_id: str, pool: pd.DataFrame, lake: Lake) -> list[str]:
    """Return the images of the pool that were accepted without a person and drawn for a recheck."""
    accepted = lake.tables.read_all(AutoLabels)
    drawn = accepted[
        accepted[AutoLabels.recheck_sample] & (accepted[AutoLabels.round_id] < round_id)
    ]
    return sorted(set(drawn[AutoLabels.image_id]) & set(pool[CleanedImages.image_id]))
