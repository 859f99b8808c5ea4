"""Derive every table of a version and its folder again, and report the differences.

Each table is derived from its stored inputs, so a difference is reported where it first occurs, and
the tables that depend on it are checked independently.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pandas as pd

from annotation_platform.errors import AnnotationPlatformError, DataError
from annotation_platform.labeling.guidelines import read_guideline
from annotation_platform.labeling.ledger import AnnotationsLedger, as_revision
from annotation_platform.provenance.rebuilding.inputs import DERIVED, Inputs
from annotation_platform.provenance.rebuilding.recipes import derive_table
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import HumanLabels, LabelTasks, TrainingSet, table_named
from annotation_platform.storage.journal import ERASED, entry_key
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import (
    JournalEntries,
    SnapshotStore,
    TableInputs,
    entries_of,
    input_key,
)
from annotation_platform.storage.table_files import read_table, table_digest
from annotation_platform.versioning.folder import ImageFile, build_folder
from annotation_platform.versioning.objects import FolderObjects, name_objects

_LEDGER = "ledger/answers/"
_THREADS = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """A difference in an object of the lake, a table, or a file of the version."""

    where: str
    what: str


@dataclass(frozen=True)
class Derived:
    """The result of a derivation.

    ``taken`` has the number of files of each table that was taken from storage, as it is not
    derived; ``images`` is the number of images with the bytes of the version.
    """

    folder_md5: str  # empty: the folder could not be rendered
    rounds: int  # rounds whose annotations were read from the ledger
    annotations: int
    labels: int
    images: int
    files: int
    taken: dict[str, int]
    differences: tuple[Difference, ...]


def derive_version(
    lake: Lake,
    inputs: Inputs,
    ontology: Ontology,
    *,
    dataset: str,
    folder_md5: str,
    progress: Progress,
) -> Derived:
    """Derive a version again and return the result with all differences; nothing is written.

    Args:
        lake: the lake with the ledger, stored tables and images.
        inputs: the inputs of the version.
        ontology: the ontology under which it was rendered.
        dataset: name of the dataset.
        folder_md5: MD5 of the published folder.
        progress: called with the tables and images done and their total.
    """
    order = [name for table in DERIVED for name in sorted(inputs.made) if _table(name) == table]
    damaged = dict(_damaged_tables(lake, inputs))
    broken = dict(_broken_journals(lake, inputs))
    changed = dict(_changed_guidelines(lake, inputs, damaged))
    found = [*damaged.values(), *(each for several in broken.values() for each in several)]
    found += dict.fromkeys(changed.values())
    made: dict[str, pd.DataFrame] = {}
    for number, name in enumerate(order, start=1):
        each = inputs.made[name]
        # A training set stores its classes.
        is_unclear = _round(name) in changed and name != inputs.training_set
        if each.made_of is None:
            found += _unexplained(lake, name)
        elif ERASED in each.made_of.settings:
            # The annotations behind its weights were erased, so the stored table is used.
            pass
        elif not is_unclear and not _depends_on(each.made_of, damaged, broken):
            try:
                made[name] = derive_table(name, lake, each.made_of)
            except AnnotationPlatformError as error:
                found.append(Difference(name, f"cannot be derived: {error}"))
            else:
                found += _compared(name, made[name], lake, each.sha256)
        progress(number, len(order))
    stored = None
    digest = inputs.made[inputs.training_set].sha256
    if digest not in damaged:
        stored = read_table(TrainingSet, lake.tables.lineage.load(digest))
    training_set = made.get(inputs.training_set, stored)
    if training_set is None:
        return _result(made, inputs, None, 0, found)
    content = build_folder(training_set, ontology, name=dataset)
    folder = name_objects(content, lake.image_path)
    if folder.md5 != folder_md5:
        found += _other_files(folder, stored, ontology, dataset, lake, folder_md5)
    others = list(_changed_images(lake, content.images, len(order), progress))
    return _result(made, inputs, folder, len(content.images) - len(others), [*found, *others])


def _result(
    made: dict[str, pd.DataFrame],
    inputs: Inputs,
    folder: FolderObjects | None,
    images: int,
    found: list[Difference],
) -> Derived:
    annotations = [frame for name, frame in made.items() if _table(name) == "human_labels"]
    taken: dict[str, int] = {}
    for name, digests in sorted(inputs.tables.items()):
        if name not in made:
            taken[_table(name)] = taken.get(_table(name), 0) + len(digests)
    return Derived(
        folder_md5=folder.md5 if folder else "",
        rounds=len(annotations),
        annotations=sum(frame[HumanLabels.annotation_id].nunique() for frame in annotations),
        labels=len(made.get(inputs.training_set, ())),
        images=images,
        files=len(folder.files) if folder else 0,
        taken=taken,
        differences=tuple(found),
    )


def _damaged_tables(lake: Lake, inputs: Inputs) -> Iterator[tuple[str, Difference]]:
    """Yield the missing or damaged stored tables, by digest."""

    def problem(digest: str) -> str:
        try:
            lake.tables.lineage.load(digest)
        except DataError as error:
            return str(error)
        return ""

    tables = sorted(inputs.tables.items())
    name_of = {digest: name for name, several in tables for digest in sorted(several)}
    with ThreadPoolExecutor(_THREADS) as pool:
        for digest, message in zip(name_of, pool.map(problem, name_of), strict=True):
            if message:
                yield digest, Difference(f"{name_of[digest]} ({input_key(digest)})", message)


def _broken_journals(lake: Lake, inputs: Inputs) -> Iterator[tuple[str, list[Difference]]]:
    """Yield the journals with missing or changed entries."""
    recorded: dict[str, set[JournalEntries]] = {}
    for each in inputs.made.values():
        for folder, entries in (each.made_of.journals if each.made_of else {}).items():
            recorded.setdefault(folder, set()).add(entries)
    for folder, several in sorted(recorded.items()):
        count = max(entries.count for entries in several)
        found = list(_broken_entries(lake, folder, count))
        if not found and folder.startswith(_LEDGER):
            found = list(_changed_annotations(lake, folder, several))
        if not found:
            data = [lake.store.get(entry_key(folder, at + 1)) for at in range(count)]
            wrong = [each for each in several if entries_of(data[: each.count]) != each]
            if wrong:
                first = min(each.count for each in wrong)
                found = [Difference(folder, f"its first {first} entries have changed.")]
        if found:
            yield folder, found


def _broken_entries(lake: Lake, folder: str, count: int) -> Iterator[Difference]:
    """Yield the missing and unreadable entries of a journal."""
    for number in range(1, count + 1):
        key = entry_key(folder, number)
        if not lake.store.exists(key):
            yield Difference(key, "is missing; restore it from a backup.")
            continue
        for line, text in enumerate(lake.store.get(key).rstrip(b"\n").split(b"\n"), start=1):
            try:
                json.loads(text)
            except ValueError:
                yield Difference(f"{key}:{line}", "is not JSON; restore it from a backup.")


def _changed_annotations(
    lake: Lake, folder: str, several: Collection[JournalEntries]
) -> Iterator[Difference]:
    """Yield the changed lines of the ledger."""
    longest = max(several, key=lambda entries: entries.count)
    ledger = AnnotationsLedger(SnapshotStore(lake.store, TableInputs({}, {folder: longest})))
    try:
        revisions = ledger.read(folder.removeprefix(_LEDGER))
    except (KeyError, TypeError, ValueError) as error:
        yield Difference(folder, f"holds a line that is not an annotation ({error}).")
        return
    for revision in revisions:
        submission = revision.submission
        if as_revision(submission).digest != revision.digest:
            yield Difference(
                entry_key(folder, revision.entry),
                f"annotation {submission.backend}:{submission.annotation} differs from its digest.",
            )


def _changed_guidelines(
    lake: Lake, inputs: Inputs, damaged: Collection[str]
) -> Iterator[tuple[str, Difference]]:
    """Yield the rounds whose guideline is missing or differs from its digest."""
    for name, digests in inputs.tables.items():
        if _table(name) != "label_tasks":
            continue
        for digest in digests - set(damaged):
            tasks = read_table(LabelTasks, lake.tables.lineage.load(digest))
            for guideline in tasks[LabelTasks.guideline].unique():
                try:
                    is_whole = read_guideline(lake.store, guideline).guideline == guideline
                except (DataError, ValueError):
                    is_whole = False
                if not is_whole:
                    problem = "is missing or differs from its digest; restore it from a backup."
                    yield _round(name), Difference(f"guidelines/{guideline}.json", problem)


def _depends_on(inputs: TableInputs, damaged: Mapping[str, Any], broken: Mapping[str, Any]) -> bool:
    """Return whether an input of a table is damaged."""
    used = {*inputs.tables.values(), *inputs.journals}
    return not used.isdisjoint({*damaged, *broken})


def _unexplained(lake: Lake, name: str) -> list[Difference]:
    """Return the difference of a table without recorded inputs.

    A table from before inputs were recorded has none.
    """
    table, _, round_id = name.partition("/")
    if not lake.tables.lineage.is_recorded(table, round_id):
        return []
    return [Difference(name, "was not made by the platform: it was written by other means.")]


def _compared(name: str, made: pd.DataFrame, lake: Lake, digest: str) -> list[Difference]:
    table = table_named(_table(name))
    derived = table_digest(table, made)
    if derived == digest:
        return []
    try:
        stored = read_table(table, lake.tables.lineage.load(digest))
    except DataError:
        # The damage is reported already.
        return []
    if table_digest(table, stored) == derived:
        # An older release wrote the same rows under its schema version.
        return []
    key = list(table.key_columns)
    sides = [frame.set_index(key).astype(str) for frame in (stored, made)]
    both = sides[0].index.intersection(sides[1].index)
    stored_rows, made_rows = (side.loc[both] for side in sides)
    changed = both[(stored_rows != made_rows).any(axis=1)]
    rows = [*changed, *sides[0].index.symmetric_difference(sides[1].index)]
    example = f", e.g. {', '.join(key)} {rows[0]}" if rows else " in their order or types"
    count = f"{len(rows) or 'all'} of {len(stored)} rows"
    return [Difference(name, f"derived again, {count} differ{example}")]


def _other_files(
    folder: FolderObjects,
    stored: pd.DataFrame | None,
    ontology: Ontology,
    dataset: str,
    lake: Lake,
    folder_md5: str,
) -> list[Difference]:
    """Return the files of the version that differ from the published ones."""
    published = folder
    if stored is not None:
        published = name_objects(build_folder(stored, ontology, name=dataset), lake.image_path)
    if published.md5 != folder_md5:
        # The manifest has no list of files; that list is in the remote.
        return [
            Difference(
                "the folder",
                f"is {folder.md5}, but was published as {folder_md5}. Without another difference, "
                "other packages or uncommitted code rendered it.",
            )
        ]
    paths = sorted({path for path, _ in folder.files.items() ^ published.files.items()})
    return [Difference(path, "differs from the published file.") for path in paths]


def _changed_images(
    lake: Lake, images: list[ImageFile], before: int, progress: Progress
) -> Iterator[Difference]:
    def check(image: ImageFile) -> str:
        key = image_key(image.image_id, image.extension)
        if not lake.store.exists(key):
            return f"{key} is not in the lake."
        md5 = hashlib.md5(lake.store.get(key), usedforsecurity=False).hexdigest()
        return "" if md5 == image.md5 else f"{key} has changed since it was cleaned."

    with ThreadPoolExecutor(_THREADS) as pool:
        for number, (image, problem) in enumerate(
            zip(images, pool.map(check, images), strict=True), start=1
        ):
            if problem:
                yield Difference(image.path, problem)
            progress(before + number, before + len(images))


def _table(name: str) -> str:
    return name.partition("/")[0]


def _round(name: str) -> str:
    return name.partition("/")[2]
