"""Explain the labels of an image in a version: its landing, annotations, votes and decisions.

Everything is read from the stored inputs of the version.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.errors import DataError
from annotation_platform.provenance.annotated_image import (
    AnnotatedImage,
    LabelProvenance,
    plain_values,
    shown_label,
)
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.shapes import NOTHING
from annotation_platform.schema.tables import (
    AutoLabels,
    Certificates,
    CleanedImages,
    SelectedImages,
    TrainingSet,
    records,
)
from annotation_platform.schema.tables.shared import Outcome
from annotation_platform.storage.erasures import Erasures
from annotation_platform.versioning.label_tree import LabelProof, prove_label


@dataclass(frozen=True)
class ImageProvenance:
    """The provenance of an image in a version and of its labels, from its landing on."""

    image_id: str
    version: str
    round_id: str
    split: str
    landed: list[dict[str, Any]]
    cleaned: dict[str, Any]
    selected: dict[str, Any]
    guideline: str
    labels: list[LabelProvenance]

    def to_dict(self) -> dict[str, Any]:
        """Return the provenance as JSON values."""
        return asdict(self)


def explain_image(
    state: VersionState, image_id: str, *, label: int | None = None
) -> ImageProvenance:
    """Return the provenance of an image of a version and of its labels.

    Args:
        state: the version.
        image_id: all 64 digits.
        label: number of one label of the image, from 0; by default all.

    Raises:
        DataError: the version does not hold the image, the image has no such label, or the inputs
            of its labels were not stored.
    """
    rows = state.labels_of(image_id)
    if rows.empty:
        erased = Erasures(state.lake.store).find(image_id) if state.lake else None
        if erased is not None:
            raise DataError(
                f"{image_id}: was {erased.sentence}. No data of it is left; {state.tag} does not "
                "hold it."
            )
        raise DataError(
            f"{image_id}: is not in {state.tag}. `annotation-platform image history "
            f"{image_id[:12]}` shows its history."
        )
    shown = rows[rows[TrainingSet.shape] != NOTHING.shape].reset_index(drop=True)
    if label is not None:
        if not 0 <= label < len(shown):
            raise DataError(
                f"{image_id[:12]} has {len(shown)} labels in {state.tag}, and no number {label}. "
                "Numbers begin at 0."
            )
        shown = shown.iloc[[label]]
    first = rows.iloc[0]
    round_id, origin = str(first[TrainingSet.round_id]), str(first[TrainingSet.origin])
    if origin == PEOPLE:
        annotated = AnnotatedImage.read(state, round_id, image_id)
        labels = [annotated.explain(row) for row in records(shown)]
        guideline = annotated.guideline
    else:
        labels = [_without_people(state, row) for row in records(shown)]
        guideline = ""
    landed_in = state.landed_in(image_id)
    return ImageProvenance(
        image_id=image_id,
        version=state.tag,
        round_id=round_id,
        split=str(first[TrainingSet.split]),
        landed=_landed(state, image_id, landed_in),
        cleaned=_cleaned(state, image_id, landed_in),
        selected=_selected(state, round_id, image_id),
        guideline=guideline,
        labels=labels,
    )


def prove(state: VersionState, label_id: str) -> LabelProof:
    """Return a proof that a label is in a version, verifiable with the version's manifest.

    Raises:
        DataError: the version has no tree of its labels, or was published by code that writes
            labels in another form.
    """
    root = state.manifest.labels_root
    if not root:
        raise DataError(
            f"{state.tag}: its manifest has no labels_root, as it is of an earlier release. "
            "Versions published from now on have it."
        )
    found = prove_label(state.labels, label_id)
    if found.root != root:
        raise DataError(
            f"{state.tag}: the root of its labels is {found.root[:12]}, but its manifest has "
            f"{root[:12]}: other code wrote them. Use the code of the version's commit."
        )
    return found


def _without_people(state: VersionState, row: dict[str, Any]) -> LabelProvenance:
    """Return the provenance of an imported label, or of an automatically accepted one."""
    origin, round_id = str(row["origin"]), str(row["round_id"])
    certificate: dict[str, Any] = {}
    if origin == AUTO:
        found = state.table("certificates", round_id)
        overall = found[found[Certificates.class_name] == ""]
        certificate = plain_values(overall.iloc[0].to_dict()) if len(overall) else {}
        accepted = state.rows("auto_labels", round_id, str(row["image_id"]))
        own = accepted[accepted[AutoLabels.label_id] == row[AutoLabels.label_id]]
        if len(own):
            certificate |= {"score": float(own[AutoLabels.score].iloc[0])}
    return LabelProvenance(
        label_id=str(row["label_id"]),
        label=shown_label(row),
        origin=origin,
        certificate=certificate,
    )


def _landed(state: VersionState, image_id: str, rounds: Sequence[str]) -> list[dict[str, Any]]:
    """Return the names under which an image landed, with the metadata of its sidecar."""
    columns = ["round_id", "source_key", "byte_size", "source", "captured_at", "licence", "consent"]
    rows = [state.rows("raw_images", round_id, image_id)[columns] for round_id in rounds]
    return [plain_values(row) for each in rows for row in each.to_dict("records")]


def _cleaned(state: VersionState, image_id: str, rounds: Sequence[str]) -> dict[str, Any]:
    """Return the outcome of cleaning in the round that accepted the image."""
    columns = ["round_id", "outcome", "flags", "width", "height", "extension", "group_id",
               "similar_to", "stored_sha256"]  # fmt: skip
    for round_id in rounds:
        rows = state.rows("cleaned_images", round_id, image_id)
        rows = rows[rows[CleanedImages.outcome] == Outcome.ACCEPTED]
        if len(rows):
            return plain_values(rows[columns].iloc[0].to_dict())
    return {}


def _selected(state: VersionState, round_id: str, image_id: str) -> dict[str, Any]:
    """Return why the image was selected for annotation, from the present table of the lake."""
    if state.lake is None:
        return {}
    rows = state.lake.tables.read_rounds(SelectedImages, [round_id])
    rows = rows[rows[SelectedImages.image_id] == image_id]
    columns = ["rank", "rule", "reason", "score", "calibration_sample"]
    return plain_values(rows[columns].iloc[0].to_dict()) if len(rows) else {}
