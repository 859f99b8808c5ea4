"""Publishing a round's training set as a dataset version."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import pandas as pd

from annotation_platform.audit_log.recording import record_policy, record_release
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.errors import NotReadyError
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.result import Figure, Markdown, OwnPage, Result, TableRows
from annotation_platform.provenance.rebuilding.inputs import keep_inputs
from annotation_platform.schema.shapes import AREAS
from annotation_platform.schema.tables import (
    AutoLabels,
    DatasetVersions,
    ErrorBars,
    Frame,
    HumanLabels,
    TrainingRounds,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import Split
from annotation_platform.storage.erasures import refuse_meanwhile
from annotation_platform.versioning.manifest import LabelError
from annotation_platform.versioning.publisher import Published, VersionInputs, publish_version
from annotation_platform.versioning.store import VersionStore, image_source


@dataclass(frozen=True, kw_only=True)
class VersionPublished(Result):
    """The version of a round."""

    dataset_version: Frame[DatasetVersions]


def publish(
    context: RoundContext,
    training_set: Frame[TrainingSet],
    training_rounds: Frame[TrainingRounds],
    error_bars: Frame[ErrorBars],
    versions: VersionStore,
) -> VersionPublished:
    """Publish the training set and return the round's ``dataset_version`` row.

    Content that is already published makes no new version; the row names the existing one.

    Args:
        context: of the round.
        training_set: of the round.
        training_rounds: recorded with the training set; a round may have been merged again since.
        error_bars: of the training set; empty if none were measured.
        versions: the registry and remote to publish to.

    Raises:
        NotReadyError: the training set is empty.
    """
    round_id, lake, policy, now = context.round_id, context.lake, context.policy, context.now
    if training_set.empty:
        raise NotReadyError(
            f"the training set of {round_id} is empty: no finished round passes the gates. "
            "See held_rounds on training_set."
        )
    refuse_meanwhile(lake.store)
    use = f"dataset_version of {round_id}"
    record_policy(policy, lake, used_for=use, now=now, actor=context.actor)
    included = training_rounds[TrainingRounds.included_round]
    digests = training_rounds[TrainingRounds.labels_sha256]
    rounds = dict(zip(included, digests, strict=True))
    published = publish_version(
        versions.open(),
        VersionInputs(
            training_set=training_set,
            ontology=policy.ontology,
            params_text=policy.to_yaml(),
            policy_digest=policy.digest,
            rounds=rounds,
            weights=_weights(context, training_set, rounds),
            inputs_digest=keep_inputs(round_id, lake),
            label_errors=_label_errors(error_bars),
            keep_together=policy.splits.keep_together,
        ),
        remote_url=versions.remote_url,
        source_root=versions.source_root,
        image_path=image_source(lake),
        now=now,
    )
    row = _version_row(round_id, training_set, published)
    record_release(round_id, row, lake, now=now, actor=context.actor)
    return VersionPublished(
        dataset_version=DatasetVersions.from_rows([row]),
        data_version=published.folder_md5,
        figures=_figures(row, published, versions),
    )


def _figures(
    row: dict[str, Any], published: Published, versions: VersionStore
) -> dict[str, Figure]:
    """Return the figures of a version: its size, its name, and how to get it."""
    return {
        "card": OwnPage(f"versions/{published.version}/card.html"),
        "images": row["images"],
        "boxes": row["boxes"],
        "uploaded_files": published.uploaded_files,
        "version": published.version,
        "tag": published.tag,
        "checkout": Markdown(
            f"```\ngit clone {versions.shown} dataset && cd dataset\n"
            f"git checkout {published.tag} && dvc pull\n```"
        ),
        "preview": TableRows(pd.DataFrame([row]), ["version", "images", "boxes", "new_version"]),
    }


def _weights(
    context: RoundContext, training_set: Frame[TrainingSet], rounds: Collection[str]
) -> list[str]:
    """Return the sorted digests of the weights whose predictions contributed to the labels."""
    is_auto = training_set[TrainingSet.origin] == AUTO
    accepted = training_set.loc[is_auto, TrainingSet.image_id]
    auto_labels = context.tables.read_all(AutoLabels)
    is_accepted = auto_labels[AutoLabels.image_id].isin(accepted)
    weights = {
        *context.tables.values(HumanLabels, HumanLabels.weights_sha256, rounds),
        *auto_labels.loc[is_accepted, AutoLabels.weights_sha256],
    }
    return sorted(weights - {""})


def _version_row(
    round_id: str, training_set: Frame[TrainingSet], published: Published
) -> dict[str, Any]:
    images = training_set.drop_duplicates(TrainingSet.image_id)
    splits = images[TrainingSet.split].value_counts()
    return {
        "round_id": round_id,
        "version": published.version,
        "tag": published.tag,
        "commit": published.commit,
        "folder_md5": published.folder_md5,
        "images": len(images),
        "boxes": int(training_set[TrainingSet.shape].isin(AREAS).sum()),
        **{f"{split}_images": int(splits.get(split, 0)) for split in Split},
        "new_version": published.new_version,
    }


def _label_errors(error_bars: Frame[ErrorBars]) -> list[LabelError]:
    """Return error bars in the form of a manifest."""
    bars = error_bars.sort_values([ErrorBars.origin, ErrorBars.class_name])
    return [
        LabelError(
            origin=str(bar["origin"]),
            class_name=str(bar["class_name"]),
            labels=int(bar["labels"]),
            audited=int(bar["reviewed"]),
            rate=None if pd.isna(bar["rate"]) else round(float(bar["rate"]), 4),
            low=round(float(bar["low"]), 4),
            high=round(float(bar["high"]), 4),
            level=float(bar["level"]),
        )
        for bar in bars.to_dict("records")
    ]
