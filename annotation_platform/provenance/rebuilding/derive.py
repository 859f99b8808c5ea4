"""Making every table of a version again, and its folder, and naming what comes out otherwise.

Each table is made from what it was made of, as it was kept; so what differs is named where it
first does, and what rests on it is judged by itself.
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
from annotation_platform.provenance.rebuilding.inputs import MADE, Inputs
from annotation_platform.provenance.rebuilding.recipes import make_again
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import LabelTasks, TrainingSet, table_named
from annotation_platform.storage.journal import ERASED
from annotation_platform.storage.keys import image_key
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import (
    JournalEntries,
    SnapshotStore,
    TableInputs,
    entries_of,
    entry_key,
    input_key,
)
from annotation_platform.storage.table_files import read_table, table_digest
from annotation_platform.versioning.folder import ImageFile, build_folder
from annotation_platform.versioning.publisher import FolderObjects, name_objects

_LEDGER = "ledger/answers/"
_THREADS = 16

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Difference:
    """Something that is not as it was: an object of the lake, a table, or a file of the version."""

    where: str
    what: str


@dataclass(frozen=True)
class Derived:
    """What came out.

    ``taken`` are the tables that cannot be made again, taken as they were kept, and how many files
    of each; ``images`` the images whose bytes are those of the version.
    """

    folder_md5: str  # empty: nothing could be rendered
    rounds: int  # whose answers were read from the ledger again
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
    """Make a version again and return what came out, and what differs; nothing is written.

    Args:
        lake: ledger, kept tables and images.
        inputs: what the version was made of.
        ontology: under which it was rendered.
        dataset: its name.
        folder_md5: the digest that its folder has.
        progress: told the tables and images done, and all of them.
    """
    order = [name for table in MADE for name in sorted(inputs.made) if _table(name) == table]
    damaged = dict(_damaged_tables(lake, inputs))
    broken = dict(_broken_journals(lake, inputs))
    changed = dict(_changed_guidelines(lake, inputs, damaged))
    found = [*damaged.values(), *(each for several in broken.values() for each in several)]
    found += dict.fromkeys(changed.values())
    made: dict[str, pd.DataFrame] = {}
    for number, name in enumerate(order, start=1):
        each = inputs.made[name]
        # A training set has its classes with it.
        is_unclear = _round(name) in changed and name != inputs.training_set
        if each.made_of is None:
            found += _unexplained(lake, name)
        elif ERASED in each.made_of.settings:
            # What its weights were learned from is gone, so it is taken as it was kept.
            pass
        elif not is_unclear and not _rests_on(each.made_of, damaged, broken):
            try:
                made[name] = make_again(name, lake, each.made_of)
            except AnnotationPlatformError as error:
                found.append(Difference(name, f"cannot be made again: {error}"))
            else:
                found += _compared(name, made[name], lake, each.sha256)
        progress(number, len(order))
    kept = None
    digest = inputs.made[inputs.training_set].sha256
    if digest not in damaged:
        kept = read_table(TrainingSet, lake.tables.lineage.load(digest))
    training_set = made.get(inputs.training_set, kept)
    if training_set is None:
        return _told(made, inputs, None, 0, found)
    content = build_folder(training_set, ontology, name=dataset)
    folder = name_objects(content, lake.image_path)
    if folder.md5 != folder_md5:
        found += _other_files(folder, kept, ontology, dataset, lake, folder_md5)
    others = list(_changed_images(lake, content.images, len(order), progress))
    return _told(made, inputs, folder, len(content.images) - len(others), [*found, *others])


def _told(
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
        annotations=sum(frame["annotation_id"].nunique() for frame in annotations),
        labels=len(made.get(inputs.training_set, ())),
        images=images,
        files=len(folder.files) if folder else 0,
        taken=taken,
        differences=tuple(found),
    )


def _damaged_tables(lake: Lake, inputs: Inputs) -> Iterator[tuple[str, Difference]]:
    """Yield the kept tables that are no longer what they were, by digest."""

    def problem(digest: str) -> str:
        try:
            lake.tables.lineage.load(digest)
        except DataError as error:
            return str(error)
        return ""

    tables = sorted(inputs.tables.items())
    name_of = {digest: name for name, several in tables for digest in sorted(several)}
    with ThreadPoolExecutor(_THREADS) as pool:
        for digest, said in zip(name_of, pool.map(problem, name_of), strict=True):
            if said:
                yield digest, Difference(f"{name_of[digest]} ({input_key(digest)})", said)


def _broken_journals(lake: Lake, inputs: Inputs) -> Iterator[tuple[str, list[Difference]]]:
    """Yield the journals of which entries are gone or are not what they were."""
    noted: dict[str, set[JournalEntries]] = {}
    for each in inputs.made.values():
        for folder, entries in (each.made_of.journals if each.made_of else {}).items():
            noted.setdefault(folder, set()).add(entries)
    for folder, several in sorted(noted.items()):
        count = max(entries.count for entries in several)
        found = list(_broken_entries(lake, folder, count))
        if not found and folder.startswith(_LEDGER):
            found = list(_changed_annotations(lake, folder, several))
        if not found:
            data = [lake.store.get(entry_key(folder, at + 1)) for at in range(count)]
            wrong = [each for each in several if entries_of(data[: each.count]) != each]
            if wrong:
                first = min(each.count for each in wrong)
                found = [Difference(folder, f"its first {first} entries are not what they were.")]
        if found:
            yield folder, found


def _broken_entries(lake: Lake, folder: str, count: int) -> Iterator[Difference]:
    """Yield the entries of a journal that are gone or cannot be read."""
    for number in range(1, count + 1):
        key = entry_key(folder, number)
        if not lake.store.exists(key):
            yield Difference(key, "is gone; restore it from a backup.")
            continue
        for line, text in enumerate(lake.store.get(key).rstrip(b"\n").split(b"\n"), start=1):
            try:
                json.loads(text)
            except ValueError:
                yield Difference(f"{key}:{line}", "is no JSON; restore it from a backup.")


def _changed_annotations(
    lake: Lake, folder: str, several: Collection[JournalEntries]
) -> Iterator[Difference]:
    """Yield the lines of the ledger that do not say what they said when they were written."""
    most = max(several, key=lambda entries: entries.count)
    ledger = AnnotationsLedger(SnapshotStore(lake.store, TableInputs({}, {folder: most})))
    try:
        revisions = ledger.read(folder.removeprefix(_LEDGER))
    except (KeyError, TypeError, ValueError) as error:
        yield Difference(folder, f"holds a line that is no answer ({error}).")
        return
    for revision in revisions:
        said = revision.submission
        if as_revision(said).digest != revision.digest:
            yield Difference(
                entry_key(folder, revision.entry),
                f"answer {said.backend}:{said.annotation} is not what its digest says.",
            )


def _changed_guidelines(
    lake: Lake, inputs: Inputs, damaged: Collection[str]
) -> Iterator[tuple[str, Difference]]:
    """Yield the rounds whose guideline is gone or is not what its digest says."""
    for name, digests in inputs.tables.items():
        if _table(name) != "label_tasks":
            continue
        for digest in digests - set(damaged):
            tasks = read_table(LabelTasks, lake.tables.lineage.load(digest))
            for guideline in tasks["guideline"].unique():
                try:
                    is_whole = read_guideline(lake.store, guideline).guideline == guideline
                except (DataError, ValueError):
                    is_whole = False
                if not is_whole:
                    what = "is gone or not what its name says; restore it from a backup."
                    yield _round(name), Difference(f"guidelines/{guideline}.json", what)


def _rests_on(made_of: TableInputs, damaged: Mapping[str, Any], broken: Mapping[str, Any]) -> bool:
    """Return whether a table was made of something that is not whole any more."""
    used = {*made_of.tables.values(), *made_of.journals}
    return not used.isdisjoint({*damaged, *broken})


def _unexplained(lake: Lake, name: str) -> list[Difference]:
    """Return what is to be said of a table of which nobody noted what it was made of.

    Nothing, if it is from before there were notes.
    """
    table, _, round_id = name.partition("/")
    if not lake.tables.lineage.is_recorded(table, round_id):
        return []
    return [Difference(name, "is not what the platform made: somebody wrote it by other means.")]


def _compared(name: str, made: pd.DataFrame, lake: Lake, digest: str) -> list[Difference]:
    table = table_named(_table(name))
    now = table_digest(table, made)
    if now == digest:
        return []
    try:
        kept = read_table(table, lake.tables.lineage.load(digest))
    except DataError:
        # That it is damaged is said already.
        return []
    if table_digest(table, kept) == now:
        # An older release wrote the same rows under its schema version.
        return []
    key = list(table.key_columns)
    sides = [frame.set_index(key).astype(str) for frame in (kept, made)]
    both = sides[0].index.intersection(sides[1].index)
    changed = both[(sides[0].loc[both] != sides[1].loc[both]).any(axis=1)]
    rows = [*changed, *sides[0].index.symmetric_difference(sides[1].index)]
    what = f", e.g. {', '.join(key)} {rows[0]}" if rows else " in their order or types"
    return [Difference(name, f"made again, {len(rows) or 'all'} of {len(kept)} rows differ{what}")]


def _other_files(
    folder: FolderObjects,
    kept: pd.DataFrame | None,
    ontology: Ontology,
    dataset: str,
    lake: Lake,
    folder_md5: str,
) -> list[Difference]:
    """Return the files of the version that come out otherwise than they were published."""
    published = folder
    if kept is not None:
        published = name_objects(build_folder(kept, ontology, name=dataset), lake.image_path)
    if published.md5 != folder_md5:
        # Of a version the manifest names no file, and the list of them is with the remote.
        return [
            Difference(
                "the folder",
                f"is {folder.md5} and was published as {folder_md5}. Where nothing else is named, "
                "other packages rendered it, or code that was not committed.",
            )
        ]
    paths = sorted({path for path, _ in folder.files.items() ^ published.files.items()})
    return [Difference(path, "is not as published.") for path in paths]


def _changed_images(
    lake: Lake, images: list[ImageFile], before: int, progress: Progress
) -> Iterator[Difference]:
    def look(image: ImageFile) -> str:
        key = image_key(image.image_id, image.extension)
        if not lake.store.exists(key):
            return f"{key} is not in the lake."
        md5 = hashlib.md5(lake.store.get(key), usedforsecurity=False).hexdigest()
        return "" if md5 == image.md5 else f"{key} is not what it was when it was cleaned."

    with ThreadPoolExecutor(_THREADS) as pool:
        for number, (image, problem) in enumerate(
            zip(images, pool.map(look, images), strict=True), start=1
        ):
            if problem:
                yield Difference(image.path, problem)
            progress(before + number, before + len(images))


def _table(name: str) -> str:
    return name.partition("/")[0]


def _round(name: str) -> str:
    return name.partition("/")[2]
