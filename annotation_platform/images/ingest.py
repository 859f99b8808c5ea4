"""From the landing place into the lake: which objects make a round, and their bytes by digest."""

import hashlib
import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

import pandas as pd

from annotation_platform.errors import DataError, NotReadyError
from annotation_platform.params import RoundPolicy
from annotation_platform.schema.rounds import LandedObject, next_round
from annotation_platform.schema.tables import make_table
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.storage.regular import (
    NOT_UTF8,
    is_unfinished,
    open_regular,
    printable_name,
)


@dataclass(frozen=True)
class Landed:
    """What lies in the landing place, by name, and for how many seconds it has not changed."""

    objects: list[LandedObject]
    ages: dict[LandedObject, float]


@dataclass(frozen=True)
class RoundPlan:
    """The objects of the next round, or, where there are none yet, what it waits for."""

    objects: list[LandedObject]
    waits_for: str


@dataclass(frozen=True)
class Taken:
    """The objects that belong to rounds, and the key of the round after those."""

    objects: set[LandedObject]
    next_round: str


class RoundManifests:
    """The manifests in the lake: what landed for each round, fixed before the round exists."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def rounds(self) -> list[str]:
        """Return the rounds that have a manifest, in order."""
        keys = self._store.list("manifests")
        return [key.rsplit("/", 1)[1].removesuffix(".json") for key in keys]

    def read(self, round_id: str) -> list[LandedObject]:
        """Return the objects of a round; NotReadyError if it has no manifest."""
        key = f"manifests/{round_id}.json"
        if not self._store.exists(key):
            raise NotReadyError(
                f"{round_id} has no manifest. Put images into the landing folder: the sensor "
                "new_images_sensor forms rounds from them."
            )
        return [LandedObject(**entry) for entry in json.loads(self._store.get(key))["objects"]]

    def digest(self, round_id: str) -> str:
        """Return the SHA-256 of a round's manifest."""
        return hashlib.sha256(self._store.get(f"manifests/{round_id}.json")).hexdigest()

    def taken(self) -> Taken:
        """Return every object that belongs to a round already, and the key of the next round."""
        rounds = self.rounds()
        objects = {landed for round_id in rounds for landed in self.read(round_id)}
        return Taken(objects, next_round(rounds))

    def create(self, round_id: str, objects: Sequence[LandedObject]) -> bool:
        """Fix a round, unless it exists; return whether this call did it.

        ``round_id`` must come from the same ``taken`` as the choice of objects: of two processes
        that chose from the same state one wins here, and the other looks again.
        """
        entries = [asdict(landed) for landed in sorted(objects)]
        text = json.dumps({"round": round_id, "objects": entries}, indent=1, ensure_ascii=False)
        return self._store.create(f"manifests/{round_id}.json", text.encode())


def list_landed(folder: Path, *, now: datetime) -> Landed:
    """Return what lies in ``folder`` and below it.

    Hidden files and those with the name of an unfinished transfer (``.part``, ``.tmp``, …) are
    left alone. Links and devices are listed, so that they end in quarantine, but never followed.
    """
    objects, ages = [], {}
    for path in sorted(_walk(folder)):
        try:
            info = path.lstat()
        except FileNotFoundError:  # moved away between the listing and the look
            continue
        key = printable_name(path, folder)
        stamp = f"{info.st_size}-{info.st_mtime_ns}"
        landed = LandedObject(key=key, stamp=stamp, byte_size=info.st_size)
        objects.append(landed)
        # The time of the last change here; what a camera or a copy says of itself may lie ahead.
        ages[landed] = max(0.0, now.timestamp() - info.st_ctime)
    return Landed(objects, ages)


def plan_round(landed: Landed, known: Collection[LandedObject], policy: RoundPolicy) -> RoundPlan:
    """Return the objects of the next round, or a sentence that says what it waits for.

    A round starts when nothing has changed for ``settle_seconds`` and there are either
    ``minimum_images`` new objects or some that have waited ``maximum_wait_seconds``.
    """
    new = [item for item in landed.objects if item not in known]
    if not new:
        return RoundPlan([], f"No new image among {len(landed.objects)} landed.")
    ages = [landed.ages[item] for item in new]
    if min(ages) < policy.settle_seconds:
        return RoundPlan([], f"{len(new)} new images, still changing {min(ages):.1f} s ago.")
    if len(new) < policy.minimum_images and max(ages) < policy.maximum_wait_seconds:
        return RoundPlan([], f"{len(new)} new images; a round starts at {policy.minimum_images}.")
    return RoundPlan(new[: policy.maximum_images], "")


def ingest_round(
    round_id: str,
    folder: Path,
    manifests: RoundManifests,
    store: ObjectStore,
    *,
    progress: Callable[[int], None] = lambda _: None,
) -> pd.DataFrame:
    """Copy the landed bytes of a round into the lake and return its ``raw_images`` table.

    An object that is gone, unreadable, not a regular file or no longer what the manifest says
    keeps its row, with the problem in it; what replaced it belongs to a later round.
    """
    rows: list[dict[str, object]] = []
    for count, landed in enumerate(manifests.read(round_id), start=1):
        row = {"round_id": round_id, "source_key": landed.key, "stamp": landed.stamp}
        try:
            image_id = _store_landed(folder, landed, store)
        except DataError as error:
            rows.append({**row, "image_id": None, "problem": str(error)})
        else:
            rows.append({**row, "image_id": image_id, "problem": ""})
        rows[-1]["byte_size"] = landed.byte_size
        progress(count)
    return make_table("raw_images", rows)


def _store_landed(folder: Path, landed: LandedObject, store: ObjectStore) -> str:
    """Return the image id of a landed object, whose bytes are in the lake when this returns.

    What was stored once is not asked of the landing place again: people may empty it.
    """
    name = hashlib.sha256(f"{landed.key}\0{landed.stamp}".encode()).hexdigest()
    receipt = f"landed/{name[:2]}/{name}"
    if store.exists(receipt):
        return store.get(receipt).decode()
    data = _read_landed(folder, landed)
    image_id = hashlib.sha256(data).hexdigest()
    store.create(raw_key(image_id), data)
    store.create(receipt, image_id.encode())
    return image_id


def copy_to_landing(source: Path, landing: Path) -> int:
    """Copy a file, or the files of a folder, into the landing place; return how many were new.

    Folders keep their layout under the name of ``source``. A file that lies there already with
    the same bytes is left alone; one whose name is taken by other bytes gets a name of its own.

    Raises:
        DataError: there is nothing to copy, or it cannot be read or written.
    """
    if source.is_dir():
        names = sorted(path.relative_to(source) for path in _walk(source))
        files = {Path(source.resolve().name) / name: source / name for name in names}
    else:
        files = {Path(source.name): source}
    if not files:
        raise DataError(f"{source}: holds no file. Pass a picture or a folder of pictures.")
    try:
        return sum(_copy(origin, landing / name) for name, origin in files.items())
    except OSError as error:
        raise DataError(
            f"{error.filename or source}: cannot be copied ({error.strerror or error}). "
            "Check the path and its rights."
        ) from error


def _copy(origin: Path, target: Path) -> bool:
    if not origin.is_file():
        raise DataError(f"{origin}: is no regular file, so it cannot be an image. Leave it out.")
    data = origin.read_bytes()
    if target.exists():
        if target.read_bytes() == data:
            return False
        target = target.with_stem(f"{target.stem}-{hashlib.sha256(data).hexdigest()[:8]}")
        if target.exists():
            return False
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f"{target.name}.part")
    unfinished.write_bytes(data)
    unfinished.replace(target)
    return True


def raw_key(image_id: str) -> str:
    """Return the lake's key of the bytes of an image as they landed."""
    return f"raw/{image_id[:2]}/{image_id}"


def image_key(image_id: str, extension: str) -> str:
    """Return the lake's key of the cleaned picture: what people and models see."""
    return f"images/{image_id}.{extension}"


def _walk(folder: Path) -> list[Path]:
    found: list[Path] = []
    try:
        # os.walk does not follow links to folders; they come among the folders' names.
        for root, folders, files in os.walk(folder, onerror=_refuse):
            folders[:] = [name for name in folders if not name.startswith(".")]
            linked = [name for name in folders if (Path(root) / name).is_symlink()]
            names = [*files, *linked]
            found += [Path(root) / name for name in names if _is_finished(name)]
    except OSError as error:
        raise DataError(
            f"{error.filename}: the landing folder cannot be read ({error.strerror}). "
            "Check that it exists and its permissions."
        ) from error
    return found


def _refuse(error: OSError) -> None:
    raise error


def _is_finished(name: str) -> bool:
    return not name.startswith(".") and not is_unfinished(name)


def _read_landed(folder: Path, landed: LandedObject) -> bytes:
    path = folder / landed.key
    if "\\x" in landed.key and not path.exists():
        raise DataError(NOT_UTF8)
    with open_regular(path) as (stream, info):
        if f"{info.st_size}-{info.st_mtime_ns}" != landed.stamp:
            raise DataError("replaced after its round was formed")
        return stream.read()
