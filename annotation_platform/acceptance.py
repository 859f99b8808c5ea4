"""Which of a round's pictures need no person: what its audit certifies, and nothing else."""

import numpy as np
import pandas as pd

from annotation_platform.curation.auto_accept import Audit, AutoAccepted, accept_labels
from annotation_platform.images.embedding import PictureEmbedder, features_for
from annotation_platform.lake import Lake
from annotation_platform.params import Params
from annotation_platform.schema.rounds import round_number
from annotation_platform.schema.tables import empty_table
from annotation_platform.selection.batch import select_batch
from annotation_platform.selection.pins import Pins

_COMPARED = ("brightness", "sharpness")


def accept_proposals(round_id: str, *, lake: Lake, policy: Params) -> AutoAccepted:
    """Return the labels of a round that no person gives, with the certificate they rest on.

    The audit of the round is a random sample of its pool, but what is accepted is never what the
    rules of selection chose: those pictures went to people. So the certificate is made for the
    rest, that is for the pool without what the same rules would have chosen had nobody been
    audited. That choice knows nothing of the audit, so the audited pictures among the rest are a
    random sample of it. An audited picture of which no answer stands counts with all its proposals
    wrong: leaving out what people cannot agree on would flatter the model.

    Args:
        round_id: a round that is reviewed.
        lake: where everything is kept.
        policy: ``auto_accept`` says how sure it must be; where that is off, nothing is accepted.
    """
    if not policy.auto_accept.enabled:
        nothing = empty_table("auto_labels"), empty_table("certificates")
        return AutoAccepted(*nothing, held={}, seen_again=[], seconds_saved=0.0, p_values={})
    tables = lake.tables
    pool = lake.unasked_images(
        round_id, policy.ontology, ask_about_imported=policy.labeling.ask_about_imported
    )
    predictions = tables.read("model_predictions", round_id)
    predictions = predictions[predictions["class_name"].isin(policy.ontology.names)]
    selected = tables.read("selected_images", round_id).sort_values("rank")
    vectors = features_for(
        pool, PictureEmbedder(), store=lake.store, load=lake.picture, round_id=round_id
    )
    by_rule = _chosen_without_audit(round_id, pool, selected, vectors, predictions, lake, policy)
    drawn = selected.loc[selected["audit"], "image_id"]
    blind = tables.read("label_tasks", round_id).groupby("image_id")["blind"].all()
    audit = [image for image in drawn if image not in by_rule and blind.get(image, False)]
    rest = pool[~pool["image_id"].isin({*by_rule, *selected["image_id"]})]
    described = pool.set_index("image_id")
    features = {name: described[name] for name in _COMPARED}
    features["look"] = vectors.set_index("image_id")["vector"]
    return accept_labels(
        predictions,
        rest["image_id"].tolist(),
        Audit(audit, _answers(round_id, audit, lake)),
        features,
        round_id=round_id,
        policy=policy.auto_accept,
        seconds_per_picture=_seconds_per_picture(round_id, lake),
        rng=np.random.default_rng([policy.seed, round_number(round_id)]),
    )


def _chosen_without_audit(
    round_id: str,
    pool: pd.DataFrame,
    selected: pd.DataFrame,
    vectors: pd.DataFrame,
    predictions: pd.DataFrame,
    lake: Lake,
    policy: Params,
) -> set[str]:
    """Return what is never accepted: what the rules choose of the pool, and what somebody pinned.

    It rests on what was known before the round was asked, so not on what the audit found.
    """
    pins = Pins(lake.store).read()
    pinned = {image for image in pool["image_id"] if image in pins}
    budget = len(selected) - int(selected["audit"].sum())
    if budget == 0:
        return pinned
    known = lake.accepted_images()
    known = known[known["round_id"] <= round_id]
    labels = lake.tables.read_all("reviewed_labels")
    chosen = select_batch(
        pool,
        vectors,
        policy=policy.selection.model_copy(update={"audit_share": 0.0, "budget": budget}),
        round_id=round_id,
        seed=policy.seed,
        pins=pins,
        predictions=predictions,
        labels=labels[labels["round_id"] < round_id],
        asked=known[~known["image_id"].isin(pool["image_id"])],
    )
    return pinned | set(chosen.images["image_id"])


def _answers(round_id: str, images: list[str], lake: Lake) -> pd.DataFrame:
    """Return the labels that stand of these pictures."""
    reviewed = lake.tables.read("reviewed_labels", round_id)
    stands = ~reviewed["decision"].isin(["rejected", "undecided"])
    return reviewed[stands & reviewed["image_id"].isin(images)]


def _seconds_per_picture(round_id: str, lake: Lake) -> float:
    """Return the seconds of people that a picture takes: all its answers together."""
    said = lake.tables.read("human_labels", round_id)
    said = said[said["purpose"] == "label"].drop_duplicates("answer_id")
    return float(said.groupby("image_id")["lead_time_seconds"].sum().median())
