"""The training set: every label of every finished round, with the split of its image.

Labels that were accepted without a person are trained on only: they never validate or test.

Imported labels are in it as soon as their round is cleaned, whether or not annotators have finished
that round. Where an image has human labels, they take precedence.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
from pydantic import BaseModel, ConfigDict

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.curation.carry_over import carry_over
from annotation_platform.curation.gates import (
    OPEN_DECISIONS,
    boxes_outside_image,
    labels_outside_ontology,
    unresolved_tasks,
)
from annotation_platform.curation.imported import PEOPLE
from annotation_platform.curation.splits import DrawnSplits, draw_splits, split_keys
from annotation_platform.policy import SplitPolicy
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import (
    AutoLabels,
    CertificateRechecks,
    Certificates,
    CleanedImages,
    ConsensusLabels,
    Frame,
    ImportedLabels,
    RawImages,
    ReviewedLabels,
    RoundTasks,
    Splits,
    Table,
    TrainingRounds,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import METADATA_COLUMNS, Outcome
from annotation_platform.storage.lineage import TableInputs
from annotation_platform.storage.round_tables import RoundTables
from annotation_platform.storage.table_files import table_bytes, table_digest

_LABELS: tuple[type[Table], ...] = (ReviewedLabels, AutoLabels)


@dataclass(frozen=True)
class BuiltTrainingSet:
    """The labels that may be published, and the rounds held back with the reason."""

    labels: Frame[TrainingSet]
    rounds: dict[str, str]  # round with labels in the set -> digest of these labels
    held: dict[str, str]  # round -> why it is held back
    held_images: dict[str, str]  # image of a released round -> why it is left out
    splits: Frame[Splits]  # of this round, with the new ones; empty if none are new

    def included(self, round_id: str) -> Frame[TrainingRounds]:
        """Return the rounds with labels in the set and their digests, as ``training_rounds``."""
        rows: list[dict[str, object]] = [
            {"round_id": round_id, "included_round": key, "labels_sha256": digest}
            for key, digest in self.rounds.items()
        ]
        return TrainingRounds.from_rows(rows)


class TrainingSetSettings(BaseModel):
    """The settings of a training set, as its lineage records them.

    Annotations of ``cancelled`` rounds (round to reason) do not count, whether merged or not. With
    ``use_auto``, images without human labels have the labels of the current certificate.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    ontology: Ontology
    splits: SplitPolicy
    seed: int
    cancelled: dict[str, str] = {}
    # Missing in records from before automatic acceptance.
    use_auto: bool = False


def build_training_set(
    tables: RoundTables, round_id: str, settings: TrainingSetSettings
) -> BuiltTrainingSet:
    """Return the labels of all rounds finished by now, with the new splits.

    Every input file is kept and recorded as lineage of the training set. So are the new splits,
    which the caller writes. See ``assemble_training_set`` for the contents.
    """
    recorded: dict[str, str] = {}
    built = assemble_training_set(tables.recording(recorded), round_id, settings)
    if not built.splits.empty:
        recorded.pop(f"{Splits.table_name}/{round_id}", None)
    tables.lineage.keep_tables(recorded)
    if not built.splits.empty:
        data = table_bytes(Splits, built.splits, where=round_id)
        recorded[f"{Splits.table_name}/{round_id}"] = tables.lineage.keep(data)
    inputs = TableInputs(recorded, settings=settings.model_dump(mode="json"))
    digest = table_digest(TrainingSet, built.labels)
    tables.lineage.write(TrainingSet.table_name, round_id, digest, inputs)
    return built


def assemble_training_set(
    tables: RoundTables, round_id: str, settings: TrainingSetSettings
) -> BuiltTrainingSet:
    """Return the labels of all rounds finished by now, and draw the splits of what has none.

    A round whose labels fail a gate (a region outside its image, a class outside the ontology, an
    annotated task without a label) is held back as a whole, with the reason. An image labelled in
    several rounds has the labels of the latest round whose labels are valid. An image that is in
    dispute, was rejected or has to be annotated again is left out with the reason, and so is one
    that arrived late and belongs with images of two splits. Rounds may finish in any order.

    Imported labels count once their round is cleaned, for images without human labels. Labels of
    retired classes are mapped to the current ones.

    Labels of the current certificate are in the train split only. The current certificate is the
    latest granted one whose round counts and that was not contradicted since. The pool of its round
    held all other images without human labels as well, so labels of earlier certificates are
    withdrawn, with the reason.
    """
    images = tables.read_all(CleanedImages)
    images = images[images[CleanedImages.outcome] == Outcome.ACCEPTED].drop_duplicates(
        CleanedImages.image_id
    )
    ontology = settings.ontology
    labels, included, held, left_out = _included(
        tables, images, ontology, settings.cancelled, use_auto=settings.use_auto
    )
    described = _with_metadata(images, tables.read_all(RawImages))
    described = described[described[CleanedImages.image_id].isin(labels["image_id"].unique())]
    splits, stored = _splits(tables, round_id, described, labels, settings)
    left_out |= splits.left_out
    joined = labels.merge(
        described.drop(columns=["round_id", "flags", "joins"]),
        on="image_id",
        how="left",
        validate="m:1",
    )
    joined = joined[joined[TrainingSet.image_id].isin(splits.split_of)]
    joined[TrainingSet.split] = joined[TrainingSet.image_id].map(splits.split_of)
    joined[TrainingSet.class_id] = joined[TrainingSet.class_name].map(ontology.id_of)
    joined = joined.sort_values(["image_id", "label_id"])
    return BuiltTrainingSet(TrainingSet.conform(joined), included, held, left_out, stored)


def round_digest(tables: RoundTables, round_id: str, *, of: Sequence[type[Table]] = _LABELS) -> str:
    """Return the digest of a round's labels: of these tables and of the imported labels."""
    every: list[type[Table]] = [*of, ImportedLabels]
    present = [table for table in every if tables.exists(table, round_id)]
    digests = {table.table_name: tables.digest(table, round_id) for table in present}
    return digest_of_round(digests, of=of)


def digest_of_round(digests: Mapping[str, str], *, of: Sequence[type[Table]] = _LABELS) -> str:
    """Return the same digest, from the digests of a round's tables by name."""
    names = [*(table.table_name for table in of), ImportedLabels.table_name]
    text = "".join(digests[name] for name in names if name in digests)
    return hashlib.sha256(text.encode()).hexdigest()


def round_problem(
    tables: RoundTables,
    round_id: str,
    images: pd.DataFrame,
    ontology: Ontology,
    *,
    labels_table: type[ReviewedLabels | ConsensusLabels] = ReviewedLabels,
) -> str:
    """Return why the labels of a round may not be released; empty if they may.

    A round that is not merged has only imported labels. ``images`` holds the accepted images of all
    rounds. ``labels_table`` may be ``ConsensusLabels``, to check labels before their review.
    """
    labels = usable_imports(tables, [round_id])
    found = [
        (labels_outside_ontology(labels, ontology), "imported labels outside the ontology"),
        (boxes_outside_image(labels, images), "imported boxes outside their image"),
    ]
    if tables.exists(labels_table, round_id):
        labels = tables.read(labels_table, round_id)
        tasks = tables.read(RoundTasks, round_id)
        found += [
            (unresolved_tasks(labels, tasks), "annotated tasks without a label"),
            (labels_outside_ontology(labels, ontology), "labels outside the ontology"),
            (boxes_outside_image(labels, images), "regions outside their image"),
        ]
    return next((f"{len(ids)} {problem}, e.g. {ids[0]}" for ids, problem in found if ids), "")


def usable_imports(tables: RoundTables, rounds: Sequence[str]) -> pd.DataFrame:
    """Return the rows of ``imported_labels`` of these rounds that have no problem."""
    imported = tables.read_rounds(ImportedLabels, rounds)
    return imported[imported[ImportedLabels.problem] == ""].reset_index(drop=True)


def _included(
    tables: RoundTables,
    images: pd.DataFrame,
    ontology: Ontology,
    cancelled: Mapping[str, str],
    *,
    use_auto: bool,
) -> tuple[pd.DataFrame, dict[str, str], dict[str, str], dict[str, str]]:
    """Return the labels to publish, the digest of each round, and the held rounds and images.

    Held rounds, and left-out images of the other rounds, map to the reason.
    """
    merged = tables.rounds(ReviewedLabels)
    imported = usable_imports(tables, tables.rounds(ImportedLabels))
    held: dict[str, str] = {}
    for round_id in sorted({*merged, *imported[ImportedLabels.round_id]}):
        problem = round_problem(tables, round_id, images, ontology)
        if problem:
            held[round_id] = problem
    finished = [round_id for round_id in merged if round_id not in {*held, *cancelled}]
    reviewed = tables.read_rounds(ReviewedLabels, finished)
    is_open = reviewed[ReviewedLabels.decision].isin(OPEN_DECISIONS)
    refused = reviewed[is_open]
    left_out = dict(
        zip(refused[ReviewedLabels.image_id], refused[ReviewedLabels.comment], strict=True)
    )
    human = carry_over(_latest_round(reviewed[~is_open]), ontology)
    landed = carry_over(imported[~imported[ImportedLabels.round_id].isin(held)], ontology)
    own = landed.labels[~landed.labels["image_id"].isin(human.labels["image_id"].unique())]
    # Imported labels have no annotations.
    own = own.assign(support=0, annotations=0)
    auto, unfit = own.iloc[:0], dict[str, str]()
    if use_auto:
        auto, unfit = _auto_labels(tables, images, ontology, out={**held, **cancelled})
    by_people = human.labels["image_id"].unique()
    known = {*by_people, *own[ImportedLabels.image_id], *left_out, *human.ask_again}
    auto = auto[~auto[AutoLabels.image_id].isin(known)]
    labelled = human.labels.assign(origin=PEOPLE)
    parts = [part for part in (labelled, own, auto) if not part.empty]
    labels = pd.concat(parts, ignore_index=True) if parts else labelled
    rounds = sorted({*finished, *own[ImportedLabels.round_id], *auto[AutoLabels.round_id]})
    left_out = unfit | left_out
    left_out |= human.ask_again | landed.ask_again
    labelled_now = set(labels["image_id"].unique())
    left_out = {key: why for key, why in left_out.items() if key not in labelled_now}
    digests = {key: round_digest(tables, key) for key in rounds}
    return labels, digests, {**held, **cancelled}, left_out


def _auto_labels(
    tables: RoundTables, images: pd.DataFrame, ontology: Ontology, *, out: Mapping[str, str]
) -> tuple[pd.DataFrame, dict[str, str]]:
    """Return the automatic labels under current classes, and the images left out with the reason.

    Certificates of rounds in ``out`` (round to reason) depend on annotations that do not count.
    """
    accepted = tables.read_all(AutoLabels)
    accepted = accepted[accepted[AutoLabels.image_id].isin(images[CleanedImages.image_id])]
    current, withdrawn = _current_certificate(tables, out)
    others = accepted[accepted[AutoLabels.round_id] != current]
    gone = {
        str(image): withdrawn[key]
        for image, key in zip(others[AutoLabels.image_id], others[AutoLabels.round_id], strict=True)
    }
    accepted = accepted[accepted[AutoLabels.round_id] == current].reset_index(drop=True)
    wrong = {
        **dict.fromkeys(labels_outside_ontology(accepted, ontology), "class outside the ontology"),
        **dict.fromkeys(boxes_outside_image(accepted, images), "box outside the image"),
    }
    bad = accepted[accepted[AutoLabels.label_id].isin(wrong)]
    unfit = {
        str(image): f"an accepted prediction has a {wrong[label]}"
        for image, label in zip(bad[AutoLabels.image_id], bad[AutoLabels.label_id], strict=True)
    }
    carried = carry_over(accepted[~accepted[AutoLabels.image_id].isin(unfit)], ontology)
    labels = carried.labels.assign(origin=AUTO, support=0, annotations=0)
    return labels, gone | unfit | carried.ask_again


def _current_certificate(tables: RoundTables, out: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Return the round of the current certificate, and why those of other rounds do not hold.

    The round is empty if no certificate holds. There is one certificate at a time: the images
    that an earlier one accepted and a later one does not are not a random sample of the images
    that the earlier one is about.
    """
    certificates = tables.read_all(Certificates)
    is_overall = certificates[Certificates.class_name] == ""
    overall = certificates[is_overall & certificates[Certificates.granted]]
    judged = tables.read_all(CertificateRechecks)
    contradicted = set(
        judged.loc[judged[CertificateRechecks.contradicted], CertificateRechecks.certified_round]
    )
    granted = sorted(overall[Certificates.round_id])
    sound = [key for key in granted if key not in {*out, *contradicted}]
    current = sound[-1] if sound else ""
    reasons: dict[str, str] = {}
    for key in tables.rounds(AutoLabels):
        by = f"accepted without a person in {key}"
        if key in out:
            reasons[key] = f"{by}, whose annotations do not count: {out[key]}"
        elif key not in granted:
            reasons[key] = f"{by}, whose certificate is no longer granted"
        elif key in contradicted:
            reasons[key] = f"{by}, and later annotations contradict its certificate"
        else:
            reasons[key] = f"{by}, and the certificate of {current} does not cover it"
    return current, reasons


def _with_metadata(images: pd.DataFrame, raw: pd.DataFrame) -> pd.DataFrame:
    """Return the images with the metadata that they landed with."""
    one_object = [CleanedImages.round_id, CleanedImages.source_key, CleanedImages.arrival_version]
    described = images.merge(raw[[*one_object, *METADATA_COLUMNS]], on=one_object, how="left")
    described["other_metadata"] = described["other_metadata"].fillna("")
    return described


def _latest_round(labels: pd.DataFrame) -> pd.DataFrame:
    latest = labels.groupby("image_id")["round_id"].transform("max")
    return labels[labels["round_id"] == latest].reset_index(drop=True)


def _splits(
    tables: RoundTables,
    round_id: str,
    images: pd.DataFrame,
    labels: pd.DataFrame,
    settings: TrainingSetSettings,
) -> tuple[DrawnSplits, pd.DataFrame]:
    """Return the split of every image, and the ``splits`` of this round; empty if none are new."""
    known = tables.read_all(Splits)
    named = labels[["image_id", "class_name"]].dropna().drop_duplicates()
    classes = {str(image): set(names) for image, names in named.groupby("image_id")["class_name"]}
    keys, seed = split_keys(images, settings.splits), settings.seed
    automatic = set(labels.loc[labels["origin"] == AUTO, "image_id"])
    drawn = draw_splits(
        keys, classes, known, settings.splits, seed=seed, round_id=round_id, train_only=automatic
    )
    if drawn.rows.empty:
        return drawn, drawn.rows
    own = known[known[Splits.round_id] == round_id]
    return drawn, pd.concat([own, drawn.rows], ignore_index=True)
