"""Publishing a round's training set as a dataset version."""

from dataclasses import dataclass
from datetime import datetime

import pandas as pd

from annotation_platform.audit_log.noting import note_policy, note_release
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.erasing.record import refuse_meanwhile
from annotation_platform.errors import NotReadyError
from annotation_platform.params import Params
from annotation_platform.rebuilding.inputs import keep_inputs
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.lake import Lake
from annotation_platform.versioning.manifest import LabelError
from annotation_platform.versioning.publisher import (
    publish_version,
)
from annotation_platform.versioning.store import VersionStore, picture_source


@dataclass(frozen=True)
class PublishedRound:
    """The version of a round and what a reader needs to get it."""

    table: pd.DataFrame  # schema.tables.DATASET_VERSIONS
    uploaded_files: int
    instructions: str  # Markdown


def publish_round(
    round_id: str,
    training_set: pd.DataFrame,
    lake: Lake,
    policy: Params,
    versions: VersionStore,
    *,
    now: datetime,
) -> PublishedRound:
    """Publish the training set and return the round's ``dataset_version`` row.

    Content that is published already makes no new version; its row names the existing one.
    """
    if training_set.empty:
        raise NotReadyError(
            f"the training set of {round_id} is empty: no finished round passes the gates. "
            "See held_rounds on training_set."
        )
    refuse_meanwhile(lake.store)
    note_policy(policy, lake, used_for=f"dataset_version of {round_id}", now=now)
    # As the training set was built: a round may have been merged anew since then.
    included = lake.tables.read("training_rounds", round_id)
    rounds = dict(zip(included["included_round"], included["labels_sha256"], strict=True))
    accepted = training_set.loc[training_set["origin"] == AUTO, "image_id"]
    proposed = lake.tables.read_all("auto_labels")
    weights = {
        *lake.tables.values("human_labels", "weights_sha256", rounds),
        *proposed.loc[proposed["image_id"].isin(accepted), "weights_sha256"],
    }
    published = publish_version(
        versions.open(),
        remote_url=versions.remote_url,
        training_set=training_set,
        ontology=policy.ontology,
        params_text=policy.to_yaml(),
        rounds=rounds,
        policy_digest=policy.digest,
        weights=sorted(weights - {""}),
        source_root=versions.source_root,
        image_path=picture_source(lake),
        keep_together=policy.splits.keep_together,
        inputs=keep_inputs(round_id, lake),
        label_errors=_label_errors(round_id, lake),
        now=now,
    )
    images = training_set.drop_duplicates("image_id")
    splits = images["split"].value_counts()
    row: dict[str, object] = {
        "round_id": round_id,
        "version": published.version,
        "tag": published.tag,
        "commit": published.commit,
        "folder_md5": published.folder_md5,
        "images": len(images),
        "boxes": int(training_set["shape"].isin(AREAS).sum()),
        **{f"{split}_images": int(splits.get(split, 0)) for split in ("train", "val", "test")},
        "new_version": published.new_version,
    }
    note_release(round_id, row, lake, now=now)
    instructions = (
        f"```\ngit clone {versions.shown} dataset && cd dataset\n"
        f"git checkout {published.tag} && dvc pull\n```"
    )
    table = make_table("dataset_version", [row])
    return PublishedRound(table, published.uploaded_files, instructions)


def _label_errors(round_id: str, lake: Lake) -> list[LabelError]:
    """Return the error bars of a round's training set; none where the round measured none."""
    bars = lake.tables.read_rounds("error_bars", [round_id]).sort_values(["origin", "class_name"])
    return [
        LabelError(
            origin=str(bar["origin"]),
            class_name=str(bar["class_name"]),
            labels=int(bar["labels"]),
            audited=int(bar["audited"]),
            rate=None if pd.isna(bar["rate"]) else round(float(bar["rate"]), 4),
            low=round(float(bar["low"]), 4),
            high=round(float(bar["high"]), 4),
            level=float(bar["level"]),
        )
        for bar in bars.to_dict("records")
    ]
