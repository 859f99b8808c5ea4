"""Which images a round asks about: chosen once, and with them what the audit speaks of."""

import pandas as pd

from annotation_platform.curation.held import held_rounds
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import Embedder, features_for
from annotation_platform.labeling.places import PlacePlan
from annotation_platform.params import Params, SelectionPolicy
from annotation_platform.schema.tables import empty_table, make_table
from annotation_platform.selection.batch import Selection, select_batch
from annotation_platform.selection.pins import Pins
from annotation_platform.storage.lake import Lake


def choose_images(
    round_id: str,
    pool: pd.DataFrame,
    predictions: pd.DataFrame,
    *,
    lake: Lake,
    embedder: Embedder,
    policy: Params,
) -> Selection:
    """Return which images of its pool a round asks about.

    Once people are asked, the choice stands: it is read, and nothing more is said of it. Where
    auto-accept is on, ``audit_frame`` is written beside it.

    Args:
        round_id: the round.
        pool: what ``unasked_images`` gives for it.
        predictions: its ``model_predictions``.
        lake: where everything is kept.
        embedder: by whose vectors images are alike.
        policy: of the moment.
    """
    tables = lake.tables
    if PlacePlan(lake.store, round_id).read().waves and tables.exists("selected_images", round_id):
        kept = tables.read("selected_images", round_id)
        return Selection(kept, {}, {}, (), (), 0, {})
    known = accepted_images(lake.tables)
    held = set(held_rounds(lake.tables, policy.drift.gate)) - {round_id}
    known = known[(known["round_id"] <= round_id) & ~known["round_id"].isin(held)]
    vectors = features_for(known, embedder, store=lake.store, load=lake.picture, round_id=round_id)
    pins, labels = Pins(lake.store).read(), tables.read_all("reviewed_labels")
    asked = known[~known["image_id"].isin(pool["image_id"])]
    unseen = _to_be_seen_again(round_id, pool, lake)

    def select(selection: SelectionPolicy) -> Selection:
        return select_batch(
            pool,
            vectors,
            policy=selection,
            round_id=round_id,
            seed=policy.seed,
            pins=pins,
            predictions=predictions,
            labels=labels,
            asked=asked,
            again=unseen,
            choose=policy.ontology.choose,
        )

    chosen = select(policy.selection)
    frame = empty_table("audit_frame")
    if policy.auto_accept.enabled and not pool.empty:
        budget = int((~chosen.images["audit"]).sum())
        by_rule = {*pins, *unseen}
        if len(chosen.images) < len(pool) and budget:
            # 0 would be everything.
            bare = policy.selection.model_copy(update={"audit_share": 0.0, "budget": budget})
            by_rule |= set(select(bare).images["image_id"])
        digest = tables.digest("model_predictions", round_id)
        frame = make_table(
            "audit_frame",
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
    tables.write("audit_frame", round_id, frame)
    return chosen


def _to_be_seen_again(round_id: str, pool: pd.DataFrame, lake: Lake) -> list[str]:
    """Return the images of the pool that were accepted without a person and drawn to be asked."""
    accepted = lake.tables.read_all("auto_labels")
    drawn = accepted[accepted["seen_again"] & (accepted["round_id"] < round_id)]
    return sorted(set(drawn["image_id"]) & set(pool["image_id"]))
