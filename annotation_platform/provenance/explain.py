"""Why a label is what it is: where its image is from, who said what, and how that was decided.

Everything is read from what was kept when the version was published. A label is resolved again
from the answers to its image and from what its round had in common (``consensus/common.py``), so
what its explanation says is what made it; and what it would be without some of the answers can be
tried, everybody weighing what they did.
"""

import itertools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from annotation_platform.consensus.common import Common
from annotation_platform.consensus.conflicts import conflicts_in_task
from annotation_platform.consensus.matching import match_pairs
from annotation_platform.consensus.objects import LabelledObjects, Resolved
from annotation_platform.consensus.overlap import overlap_matrix
from annotation_platform.consensus.resolve import counting_annotations, resolve_task
from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.errors import DataError
from annotation_platform.governance.erasure.record import Erasures
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.snapshots import as_of
from annotation_platform.provenance.rebuilding.recipes import derive_consensus
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING, REGIONS, Label
from annotation_platform.schema.tables import SelectedImages, records
from annotation_platform.schema.tables.shared import LABEL_COLUMNS
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs
from annotation_platform.versioning.label_tree import LabelProof, prove_label

_EXHAUSTIVE = 7
"""So many answers to one image, at most, are tried in every combination."""
_ROUNDED = 1e-6
"""Labels are kept to a millionth of a pixel."""


@dataclass(frozen=True)
class Vote:
    """What one counted answer says of a label.

    ``says`` is the class that the annotator gave it, empty if they did not see it; ``weight`` what
    their word on its being there counts for, as log odds.
    """

    annotator: str
    annotation_id: str
    submitted_at: str
    says: str
    weight: float
    overlap: float | None  # of what they drew with the label
    proposed_by: str  # weights of the proposal that the answer began from; empty: none
    seconds: float | None


@dataclass(frozen=True)
class LabelProvenance:
    """How one label came about.

    Attributes:
        label_id: in the version.
        label: what it is, by the columns of a label.
        origin: ``people``, ``auto`` or where it came along from.
        decision: what became of it in review; empty where there was none.
        decided_by: the reviewer's pseudonym; empty: a rule.
        votes: what each counted answer says of it.
        there: probability that the object is there, by these votes; None: nobody was asked.
        class_agreement: share of those who saw it who named this class.
        conflicts: where answers contradict each other about it, and how that was settled.
        rests_on: the smallest set of answers to this image without which it would be another
            label, or none: their ids; ``review`` stands for the reviewer's decision.
        is_smallest: whether no smaller set does; else it is the smallest that was found.
        certificate: what an accepted proposal was accepted under.
    """

    label_id: str
    label: dict[str, Any]
    origin: str
    decision: str = ""
    decided_by: str = ""
    votes: list[Vote] = field(default_factory=list)
    there: float | None = None
    class_agreement: float | None = None
    conflicts: list[str] = field(default_factory=list)
    rests_on: list[str] = field(default_factory=list)
    is_smallest: bool = True
    certificate: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ImageProvenance:
    """How the labels of one image in a version came about, from its landing on."""

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
        """Return it as JSON knows it."""
        return asdict(self)


def explain_image(
    state: VersionState, image_id: str, *, label: int | None = None
) -> ImageProvenance:
    """Return how an image of a version and its labels came about.

    Args:
        state: the version.
        image_id: all 64 digits.
        label: the number of a label of the image, from 0; by default all.

    Raises:
        DataError: the version has not got the image, or the image no such label; or what its
            labels were made of was not kept.
    """
    rows = state.labels_of(image_id)
    if rows.empty:
        erased = Erasures(state.lake.store).find(image_id) if state.lake else None
        if erased is not None:
            raise DataError(
                f"{image_id}: was {erased.sentence}. Nothing of it is known any more; {state.tag} "
                "is without it."
            )
        raise DataError(
            f"{image_id}: is not in {state.tag}. `annotation-platform image history "
            f"{image_id[:12]}` shows what became of it."
        )
    said = rows[rows["shape"] != NOTHING.shape].reset_index(drop=True)
    if label is not None:
        if not 0 <= label < len(said):
            raise DataError(
                f"{image_id[:12]} has {len(said)} labels in {state.tag}, and no number {label}: "
                "they are counted from 0."
            )
        said = said.iloc[[label]]
    first = rows.iloc[0]
    round_id, origin = str(first["round_id"]), str(first["origin"])
    if origin == PEOPLE:
        asked = Asked.read(state, round_id, image_id)
        labels = [asked.story(row) for row in records(said)]
        guideline = asked.guideline
    else:
        labels = [_without_people(state, row) for row in records(said)]
        guideline = ""
    landed_in = state.rounds_about("raw_images", image_id)
    return ImageProvenance(
        image_id=image_id,
        version=state.tag,
        round_id=round_id,
        split=str(first["split"]),
        landed=_landed(state, image_id, landed_in),
        cleaned=_cleaned(state, image_id, landed_in),
        selected=_selected(state, round_id, image_id),
        guideline=guideline,
        labels=labels,
    )


def prove(state: VersionState, label_id: str) -> LabelProof:
    """Return what proves that a label is in a version, to whoever has the version's manifest.

    Raises:
        DataError: the version was published by code that made no tree of its labels, or by other
            code than this, that writes them otherwise.
    """
    root = state.manifest.labels_root
    if not root:
        raise DataError(
            f"{state.tag}: its manifest has no labels_root: it was published by earlier code. "
            "Versions published from now on have it."
        )
    found = prove_label(state.labels, label_id)
    if found.root != root:
        raise DataError(
            f"{state.tag}: its labels come out under {found.root[:12]} and its manifest has "
            f"{root[:12]}: other code wrote them. Use that of the version's commit."
        )
    return found


@dataclass(frozen=True)
class Asked:
    """What people said of one image in one round, and what the round knew beside it."""

    image_id: str
    annotations: pd.DataFrame  # human_labels of the image
    reviewed: pd.DataFrame
    images: pd.DataFrame
    common: Common
    iou_threshold: float
    ontology: Ontology | None
    guideline: str
    successors: dict[str, tuple[str, ...]]  # today's names of classes
    tried: dict[frozenset[str], tuple[list[str], list[Resolved]]] = field(default_factory=dict)

    @classmethod
    def read(cls, state: VersionState, round_id: str, image_id: str) -> "Asked":
        """Return it as it was when a version was made; DataError if that was not kept."""
        made_of = state.made_of("consensus_labels", round_id)
        if made_of is None or state.lake is None:
            raise DataError(
                f"{state.tag}: what the labels of {round_id} were made of was not kept, or not "
                "here. Set ANNOTATION_LAKE to the lake that it was published from."
            )
        annotations = state.rows("human_labels", round_id, image_id)
        annotations = counting_annotations(annotations, made_of.settings.get("disregarded", ()))
        guideline = str(annotations["guideline"].iloc[0]) if len(annotations) else ""
        ontology = read_guideline(state.lake.store, guideline) if guideline else None
        return cls(
            image_id=image_id,
            annotations=annotations,
            reviewed=state.rows("reviewed_labels", round_id, image_id),
            images=state.rows("cleaned_images", round_id, image_id),
            common=_common(round_id, state.lake, made_of),
            iou_threshold=float(made_of.settings["iou_threshold"]),
            ontology=ontology,
            guideline=guideline,
            successors=state.policy.ontology.successors,
        )

    @cached_property
    def resolved(self) -> tuple[LabelledObjects, list[Resolved]]:
        """What was said, and what became of it."""
        return self._resolve(self.annotations)

    def labels(self) -> list[Resolved]:
        """Return the labels that all answers together give."""
        return self._without(())[1]

    def story(self, row: dict[str, Any]) -> LabelProvenance:
        """Return how one label of the image came about."""
        reviewed = self.reviewed.iloc[0]
        wanted = _label(row)
        found = self._find(wanted)
        if str(reviewed["decided_by"]) or reviewed["decision"] != "undisputed":
            rests_on, is_smallest = ["review"], True
        elif found is None:
            rests_on, is_smallest = [], False
        else:
            rests_on, is_smallest = self.smallest_set(str(found.label_id))
        share = None
        if found is not None and found.label is not None:
            names = [each.class_name for each in found.candidate.labels]
            share = names.count(found.label.class_name) / len(names)
        return LabelProvenance(
            label_id=str(row["label_id"]),
            label=_shown(row),
            origin=PEOPLE,
            decision=str(reviewed["decision"]),
            decided_by=str(reviewed["decided_by"]),
            votes=list(self._votes(found, wanted)) if found else [],
            there=round(found.there, 6) if found else None,
            class_agreement=share,
            conflicts=self._conflicts(found.label_id) if found else [],
            rests_on=rests_on,
            is_smallest=is_smallest,
        )

    def smallest_set(self, label_id: str) -> tuple[list[str], bool]:
        """Return the fewest answers without which a label of the consensus is gone, or renamed.

        Where it has moved so far that it overlaps less than the round takes for the same object,
        it is gone as well. Labels of one class are paired one to one, so that none stands in for
        another that is near. Sets of one size are tried in the order of their ids; the flag says
        whether all smaller ones were.
        """
        ids = sorted(self.annotations["annotation_id"].unique())
        if len(ids) > _EXHAUSTIVE:
            return self._greedy(label_id, ids), False
        for size in range(1, len(ids) + 1):
            for several in itertools.combinations(ids, size):
                if label_id not in self.stay(several):
                    return list(several), True
        return [], True

    def _greedy(self, label_id: str, ids: Sequence[str]) -> list[str]:
        """Return a set found by leaving out whoever says it most firmly, then what it can spare."""
        (found,) = [each for each in self.labels() if each.label_id == label_id]
        owner_of = dict(
            zip(self.annotations["annotation_id"], self.annotations["annotator"], strict=True)
        )
        order = sorted(
            ids,
            key=lambda each: (
                owner_of[each] not in found.candidate.owners,
                -self.common.weights.reliability.get(owner_of[each], 0.0),
                each,
            ),
        )
        chosen: list[str] = []
        for each in order:
            chosen.append(each)
            if label_id not in self.stay(chosen):
                break
        for each in tuple(chosen):
            fewer = [other for other in chosen if other != each]
            if fewer and label_id not in self.stay(fewer):
                chosen = fewer
        return sorted(chosen)

    def stay(self, left_out: Collection[str]) -> list[str]:
        """Return the labels of the consensus that are still there without these answers."""
        return self._without(left_out)[0]

    def _without(self, left_out: Collection[str]) -> tuple[list[str], list[Resolved]]:
        """Return what stays without these answers, weights as they are, and all there is then."""
        key = frozenset(left_out)
        if key not in self.tried:
            annotations = self.annotations[~self.annotations["annotation_id"].isin(key)]
            resolved: list[Resolved] = []
            if len(annotations):
                _, resolved = self._resolve(annotations) if key else self.resolved
            labels = [each for each in resolved if each.label is not None]
            whole = self._without(())[1] if key else labels
            self.tried[key] = (self._paired(whole, labels), labels)
        return self.tried[key]

    def _resolve(self, annotations: pd.DataFrame) -> tuple[LabelledObjects, list[Resolved]]:
        return resolve_task(
            annotations,
            self.common,
            iou_threshold=self.iou_threshold,
            ontology=self.ontology,
            images=self.images,
        )

    def _paired(self, whole: Sequence[Resolved], rest: Sequence[Resolved]) -> list[str]:
        """Return the ids of those labels that have a partner of their shape and class."""

        def kind(each: Resolved) -> tuple[str, str]:
            assert each.label is not None
            return each.label.shape, str(each.label.class_name)

        stay = []
        for wanted in {kind(each) for each in whole}:
            sides = [[each for each in side if kind(each) == wanted] for side in (whole, rest)]
            labels = [[each.label for each in side if each.label is not None] for side in sides]
            if wanted[0] in REGIONS:
                extent = whole[0].candidate.task.extent
                overlap = overlap_matrix(*labels, image_size=extent)
            else:
                overlap = np.ones((len(labels[0]), len(labels[1])))
            pairs = match_pairs(overlap, threshold=self.iou_threshold)
            stay += [str(sides[0][row].label_id) for row, _ in pairs]
        return stay

    def _find(self, wanted: Label) -> Resolved | None:
        """Return the label of the consensus that a label of the version is; None if it is none."""
        best, most = None, 0.0
        for each in self.labels():
            label = each.label
            if label is None or (label.shape, self._today(label.class_name)) != (
                wanted.shape,
                wanted.class_name,
            ):
                continue
            overlap = 1.0
            if label.shape in REGIONS:
                extent = each.candidate.task.extent
                overlap = float(overlap_matrix([label], [wanted], image_size=extent)[0, 0])
            if overlap >= self.iou_threshold - _ROUNDED and overlap > most:
                best, most = each, overlap
        return best

    def _conflicts(self, label_id: str | None) -> list[str]:
        """Return what contradicts what about a label, and how that was settled."""
        said, resolved = self.resolved
        return [
            f"{each.kind}: {each.detail}{' (settled by rule)' if each.settled else ''}"
            for each in conflicts_in_task(said, resolved, self.ontology)
            if each.label_id == label_id
        ]

    def _today(self, name: str | None) -> str | None:
        now = self.successors.get(name or "", ())
        return now[0] if len(now) == 1 else name

    def _votes(self, found: Resolved, wanted: Label) -> Iterator[Vote]:
        candidate = found.candidate
        said = dict(zip(candidate.owners, candidate.labels, strict=True))
        first = self.annotations.drop_duplicates("annotation_id").sort_values("annotator")
        for annotation in first.to_dict("records"):
            person = str(annotation["annotator"])
            label = said.get(person)
            overlap = None
            if label is not None and label.shape in REGIONS:
                extent = candidate.task.extent
                overlap = float(overlap_matrix([label], [wanted], image_size=extent)[0, 0])
            seconds = annotation["lead_time_seconds"]
            yield Vote(
                annotator=person,
                annotation_id=str(annotation["annotation_id"]),
                submitted_at=str(annotation["submitted_at"]),
                says="" if label is None else label.class_name or "several",
                weight=round(self.common.weights.reliability.get(person, 0.0), 6),
                overlap=overlap,
                proposed_by=str(annotation["weights_sha256"]),
                seconds=None if pd.isna(seconds) else float(seconds),
            )


def _common(round_id: str, lake: Lake, made_of: TableInputs) -> Common:
    """Return what a round has in common; where earlier code did not keep it, all is resolved."""
    known = made_of.settings.get("common")
    if known:
        return Common.from_dict(known)
    return derive_consensus(round_id, as_of(lake, made_of), made_of.settings).common


def _without_people(state: VersionState, row: dict[str, Any]) -> LabelProvenance:
    """Return how a label came about that came along with its image, or was accepted as proposed."""
    origin, round_id = str(row["origin"]), str(row["round_id"])
    certificate: dict[str, Any] = {}
    if origin == AUTO:
        found = state.table("certificates", round_id)
        overall = found[found["class_name"] == ""]
        certificate = _plain(overall.iloc[0].to_dict()) if len(overall) else {}
        accepted = state.rows("auto_labels", round_id, str(row["image_id"]))
        own = accepted[accepted["label_id"] == row["label_id"]]
        if len(own):
            certificate |= {"score": float(own["score"].iloc[0])}
    return LabelProvenance(
        label_id=str(row["label_id"]),
        label=_shown(row),
        origin=origin,
        certificate=certificate,
    )


def _landed(state: VersionState, image_id: str, rounds: Sequence[str]) -> list[dict[str, Any]]:
    """Return under which names an image landed, and when its sidecar says it was taken."""
    columns = ["round_id", "source_key", "byte_size", "source", "captured_at", "licence", "consent"]
    rows = [state.rows("raw_images", round_id, image_id)[columns] for round_id in rounds]
    return [_plain(row) for each in rows for row in each.to_dict("records")]


def _cleaned(state: VersionState, image_id: str, rounds: Sequence[str]) -> dict[str, Any]:
    """Return what cleaning made of an image where it landed first."""
    columns = ["round_id", "outcome", "flags", "width", "height", "extension", "group_id",
               "similar_to", "stored_sha256"]  # fmt: skip
    for round_id in rounds:
        rows = state.rows("cleaned_images", round_id, image_id)
        rows = rows[rows["outcome"] == "accepted"]
        if len(rows):
            return _plain(rows[columns].iloc[0].to_dict())
    return {}


def _selected(state: VersionState, round_id: str, image_id: str) -> dict[str, Any]:
    """Return why people were asked about an image, as the lake says today."""
    if state.lake is None:
        return {}
    rows = state.lake.tables.read_rounds(SelectedImages, [round_id])
    rows = rows[rows["image_id"] == image_id]
    columns = ["rank", "rule", "reason", "score", "audit"]
    return _plain(rows[columns].iloc[0].to_dict()) if len(rows) else {}


def _label(row: dict[str, Any]) -> Label:
    x1, y1, x2, y2 = (None if pd.isna(row[edge]) else float(row[edge]) for edge in BOX_COLUMNS)
    name = None if pd.isna(row["class_name"]) else str(row["class_name"])
    return Label(str(row["shape"]), name, str(row["geometry"]), x1, y1, x2, y2)


def _shown(row: dict[str, Any]) -> dict[str, Any]:
    return _plain({name: row[name] for name in (*LABEL_COLUMNS, "support", "annotations")})


def _plain(values: dict[Any, Any]) -> dict[str, Any]:
    """Return values as JSON knows them; what is missing is None."""
    return {str(key): None if pd.isna(value) else _native(value) for key, value in values.items()}


def _native(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return value if isinstance(value, str | int | float | bool) else str(value)
