"""The landed objects of a round, fixed once by one atomic create."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from math import inf

from annotation_platform.errors import NotReadyError
from annotation_platform.policy import RoundPolicy
from annotation_platform.schema.rounds import Arrival, next_round
from annotation_platform.storage.objects import ObjectStore


@dataclass(frozen=True)
class Arrivals:
    """The objects in the landing zone, by name, and the seconds since each last changed."""

    objects: list[Arrival]
    ages: dict[Arrival, float]


@dataclass(frozen=True)
class RoundPlan:
    """The objects of the next round or, if there are none yet, a sentence on what is missing.

    ``poll_again_seconds`` is the time after which the same objects may form a round; None if only
    new objects can.
    """

    objects: list[Arrival]
    waits_for: str
    poll_again_seconds: float | None = None


@dataclass(frozen=True)
class TakenArrivals:
    """The objects that belong to rounds, and the key of the next round."""

    objects: set[Arrival]
    next_round: str


class RoundManifests:
    """The manifests in the lake: the objects of each round, fixed before the round exists."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def rounds(self) -> list[str]:
        """Return the rounds that have a manifest, in order."""
        keys = self._store.list("manifests")
        return [key.rsplit("/", 1)[1].removesuffix(".json") for key in keys]

    def read(self, round_id: str) -> list[Arrival]:
        """Return the objects of a round; NotReadyError if it has no manifest."""
        key = f"manifests/{round_id}.json"
        if not self._store.exists(key):
            raise NotReadyError(
                f"{round_id} has no manifest. Put images into the landing zone: the sensor "
                "new_images_sensor forms rounds from them."
            )
        return [Arrival(**entry) for entry in json.loads(self._store.get(key))["objects"]]

    def digest(self, round_id: str) -> str:
        """Return the SHA-256 of a round's manifest."""
        return hashlib.sha256(self._store.get(f"manifests/{round_id}.json")).hexdigest()

    def taken(self) -> TakenArrivals:
        """Return the objects that belong to a round already, and the key of the next round."""
        rounds = self.rounds()
        objects = {landed for round_id in rounds for landed in self.read(round_id)}
        return TakenArrivals(objects, next_round(rounds))

    def policy_digest(self, round_id: str) -> str:
        """Return the digest of the policy under which a round was formed.

        It is empty for rounds of v0.1.0, which do not record it.
        """
        manifest = json.loads(self._store.get(f"manifests/{round_id}.json"))
        return str(manifest.get("policy_digest", ""))

    def create(self, round_id: str, objects: Sequence[Arrival], *, policy_digest: str = "") -> bool:
        """Write the manifest of a round unless it exists; return whether this call wrote it.

        ``round_id`` and the objects must come from the same call of ``taken``: of two processes
        that select objects from the same state, one wins here, and the other polls again.
        ``policy_digest`` is recorded unless it is empty.
        """
        entries = [asdict(landed) for landed in sorted(objects)]
        policy = {"policy_digest": policy_digest} if policy_digest else {}
        manifest = {"round": round_id, **policy, "objects": entries}
        text = json.dumps(manifest, indent=1, ensure_ascii=False)
        return self._store.create(f"manifests/{round_id}.json", text.encode())


def pair_sidecars(objects: Sequence[Arrival]) -> list[Arrival]:
    """Return the images with the keys of their sidecars, and the JSON files without an image.

    The sidecar of ``a.jpg`` is ``a.jpg.json`` or, if it does not exist, ``a.json``.
    """
    # Different names that are not UTF-8 may have the same printable form.
    objects = list(dict.fromkeys(objects))
    names = {item.key for item in objects if item.key.endswith(".json")}
    paired = []
    used = set()
    for item in objects:
        if item.key in names:
            continue
        sidecar = next((each for each in _sidecar_names(item.key) if each in names), "")
        used.add(sidecar)
        paired.append(item if sidecar == item.sidecar else replace(item, sidecar=sidecar))
    return sorted([*paired, *(item for item in objects if item.key in names - used)])


def _sidecar_names(key: str) -> tuple[str, str]:
    name = key[key.rfind("/") + 1 :]
    dot = name.rfind(".")
    # A name that begins or ends with its only dot has no suffix.
    stem = key[: len(key) - len(name) + dot] if 0 < dot < len(name) - 1 else key
    return f"{key}.json", f"{stem}.json"


def new_objects(landed: Arrivals, known: Collection[Arrival]) -> list[Arrival]:
    """Return the objects that belong to no round, without the sidecars of images in rounds."""
    sidecars = {item.sidecar for item in known}
    return [item for item in landed.objects if item not in known and item.key not in sidecars]


def plan_round(landed: Arrivals, known: Collection[Arrival], policy: RoundPolicy) -> RoundPlan:
    """Return the objects of the next round, or a sentence on what is missing.

    A round takes objects that have been unchanged, with their sidecars, for ``settle_seconds``.
    It starts when there are ``minimum_images`` of them, or when one has waited for
    ``maximum_wait_seconds``. A JSON file waits that long for its image; after that it is treated
    like any other object.
    """
    new = new_objects(landed, known)
    early = [item for item in new if _waits_for_image(item, landed.ages, policy)]
    ready = [item for item in new if item not in set(early)]
    unpaired = f", {len(early)} metadata files without their image" if early else ""
    if not ready:
        waits = f"No new image among {len(landed.objects)} landed{unpaired}."
        return RoundPlan([], waits, policy.maximum_wait_seconds if early else None)
    by_key = {item.key: age for item, age in landed.ages.items()}
    ages = {item: min(landed.ages[item], by_key.get(item.sidecar, inf)) for item in ready}
    stable = [item for item in ready if ages[item] >= policy.settle_seconds]
    if not stable:
        newest = min(ages.values())
        waits = f"{len(ready)} new images, still changing {newest:.1f} s ago."
        return RoundPlan([], waits, policy.settle_seconds - newest)
    oldest = max(ages[item] for item in stable)
    if len(stable) < policy.minimum_images and oldest < policy.maximum_wait_seconds:
        waits = f"{len(ready)} new images; a round starts at {policy.minimum_images}{unpaired}."
        left = policy.maximum_wait_seconds - oldest
        if len(stable) < len(ready):
            left = min(left, policy.settle_seconds)
        return RoundPlan([], waits, left)
    return RoundPlan(stable[: policy.maximum_images], "")


def _waits_for_image(item: Arrival, ages: Mapping[Arrival, float], policy: RoundPolicy) -> bool:
    return item.key.endswith(".json") and ages[item] < policy.maximum_wait_seconds
