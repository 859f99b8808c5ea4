"""Which images a round asks about: chosen once, and with them what the audit speaks of."""

from dataclasses import dataclass

import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import features_for
from annotation_platform.labeling.assignment_plan import PlacePlan
from annotation_platform.models.embedder import embedder_for
from annotation_platform.models.registry import ModelRegistry
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.predict import selectable_images
from annotation_platform.pipeline.result import Counts, Result, Rows
from annotation_platform.policy import SelectionPolicy
from annotation_platform.schema.tables import (
    AuditFrame,
    AutoLabels,
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
    """The images that a round has annotated, and the pool that its random sample is about."""

    selected_images: pd.DataFrame
    audit_frame: pd.DataFrame


def select(
    context: RoundContext, model_predictions: pd.DataFrame, models: ModelRegistry
) -> Selected:
    """Return the images that are annotated in the round, in order."""
    pool = selectable_images(context)
    selection, frame = _choose(context, pool, model_predictions, models)
    selected = selection.images
    return Selected(
        selected_images=selected,
        audit_frame=frame,
        figures={
            "images": len(selected),
            "passed_over": int((~pool["image_id"].isin(selected["image_id"])).sum()),
            "chosen_by": Counts(selected["rule"]),
            "outliers": dict(list(selection.outliers.items())[:50]),
            "kept_out": dict(list(selection.kept_out.items())[:50]),
            "pinned_but_not_in_the_pool": list(selection.overridden_elsewhere)[:50],
            "without_vector": len(selection.without_vector),
            "proposals_without_score": selection.unscored_predictions,
            "preview": Rows(selected, ["rank", "image_id", "rule", "reason"]),
        },
    )


def _choose(
    context: RoundContext, pool: pd.DataFrame, predictions: pd.DataFrame, models: ModelRegistry
) -> tuple[Selection, pd.DataFrame]:
    """Return what is selected of the pool, and the ``audit_frame``; empty without auto-accept.

    Once annotators are asked, the selection is final: it is read again, without any remark.
    """
    round_id, lake, policy = context.round_id, context.lake, context.policy
    tables = lake.tables
    if PlacePlan(lake.store, round_id).read().waves and tables.exists(SelectedImages, round_id):
        kept = tables.read(SelectedImages, round_id)
        frame = tables.read_rounds(AuditFrame, [round_id])
        return Selection(kept, {}, {}, (), (), 0, {}), frame
    embedder = embedder_for(policy.selection.embedder, models)
    known = accepted_images(lake.tables)
    held = set(held_rounds(lake.tables, policy.drift.gate)) - {round_id}
    known = known[(known["round_id"] <= round_id) & ~known["round_id"].isin(held)]
    vectors = features_for(known, embedder, store=lake.store, load=lake.image, round_id=round_id)
    pins, labels = SelectionOverrides(lake.store).read(), tables.read_all(ReviewedLabels)
    asked = known[~known["image_id"].isin(pool["image_id"])]
    unseen = _to_be_seen_again(round_id, pool, lake)

    def chosen_by(selection: SelectionPolicy) -> Selection:
        return select_batch(
            SelectionInputs(pool, vectors, predictions, labels, asked),
            policy=selection,
            round_id=round_id,
            seed=policy.seed,
            pins=pins,
            again=unseen,
            choose=policy.ontology.choose,
        )

    chosen = chosen_by(policy.selection)
    frame = AuditFrame.empty()
    if policy.auto_accept.enabled and not pool.empty:
        budget = int((~chosen.images["audit"]).sum())
        by_rule = {*pins, *unseen}
        if len(chosen.images) < len(pool) and budget:
            # 0 would be everything.
            bare = policy.selection.model_copy(update={"audit_share": 0.0, "budget": budget})
            by_rule |= set(chosen_by(bare).images["image_id"])
        digest = tables.digest(ModelPredictions, round_id)
        frame = AuditFrame.from_rows(
            [
                {
                    "round_id": round_id,
                    "image_id": image,
                    "by_rule": image in by_rule,
                    "predictions_sha256": digest,
                }
                for image in dict.fromkeys(pool["image_id"])
            ],
        )
    return chosen, frame


def _to_be_seen_again(round_id: str, pool: pd.DataFrame, lake: Lake) -> list[str]:
    """Return the images of the pool that were accepted without a person and drawn to be asked."""
    accepted = lake.tables.read_all(AutoLabels)
    drawn = accepted[accepted["seen_again"] & (accepted["round_id"] < round_id)]
    return sorted(set(drawn["image_id"]) & set(pool["image_id"]))
