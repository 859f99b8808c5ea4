"""The state of an erasure, stored in the lake until it is done, so that it can be resumed."""

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np

from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.images.signature import SIGNATURE, SignatureTable
from annotation_platform.schema.rounds import Arrival
from annotation_platform.storage.erasures import PLAN
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.versioning.reissue import Move, Reissue

_FIELDS_OF_0_1 = {"likenesses": "signatures", "asked": "request"}
_COUNTS_OF_0_1 = {"answers": "annotations", "asked": "named"}


@dataclass(frozen=True)
class ErasurePlan:
    """One erasure in progress.

    Attributes:
        request: the request, for people.
        reason, by, at: reason, actor and time (UTC).
        images: ids of all images to erase.
        landed: name, change stamp and sidecar of every arrival with one of them.
        sidecars: SHA-256 of the sidecars that describe no other image.
        sizes: byte sizes of the images as they landed.
        models: SHA-256 of weights that were trained on the images, with the version.
        bits: of 64, the most in which near-duplicates may differ; 0: only images with the same
            content are erased.
        signatures: of the images, for the final search.
        tokens: replacement of each id or digest.
        words: replacement of each name of a person.
        person: account name in the labelling back end; empty where images are erased.
        old: keys of objects that were replaced under another key; None before that step.
        reissue: remaining work on versions; None before that step.
        done: names of the steps that are done.
        counts: objects cleared by location.
    """

    request: str
    reason: str
    by: str
    at: datetime
    images: tuple[str, ...]
    landed: tuple[tuple[str, str, str], ...]
    sidecars: tuple[str, ...]
    sizes: tuple[int, ...]
    models: tuple[tuple[str, str], ...]
    bits: int
    signatures: SignatureTable = field(repr=False)
    tokens: dict[str, str] = field(repr=False)
    words: dict[str, str] = field(default_factory=dict, repr=False)
    person: str = ""
    old: tuple[str, ...] | None = field(default=None, repr=False)
    reissue: Reissue | None = field(default=None, repr=False)
    done: tuple[str, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)

    @property
    def rewriting(self) -> Rewriting:
        """The rewriting of objects of the lake that this erasure needs."""
        landed = frozenset((key, stamp) for key, stamp, _ in self.landed)
        return Rewriting(frozenset(self.images), landed, dict(self.tokens), self.words)

    def with_done(self, step: str, **counts: int) -> "ErasurePlan":
        """Return the plan after a step."""
        return replace(self, done=(*self.done, step), counts=self.counts | counts)

    def save(self, store: ObjectStore) -> None:
        """Store the plan, readable by its owner only, without earlier states of it."""
        content = asdict(self)
        content["at"] = self.at.isoformat()
        content["signatures"] = base64.b64encode(self.signatures.tobytes()).decode()
        data = json.dumps(content).encode()
        # It holds the name of the person.
        if not store.create(PLAN, data, private=True):
            store.put(PLAN, data)
        store.purge(PLAN)


def read_plan(store: ObjectStore) -> ErasurePlan | None:
    """Return the erasure in progress; None if there is none."""
    if not store.exists(PLAN):
        return None
    content: dict[str, Any] = json.loads(store.get(PLAN))
    content["at"] = datetime.fromisoformat(content["at"])
    for earlier, name in _FIELDS_OF_0_1.items():
        if earlier in content:
            content[name] = content.pop(earlier)
    encoded = content.pop("signatures")
    content["signatures"] = np.frombuffer(base64.b64decode(encoded), dtype=SIGNATURE)
    counts = content["counts"]
    content["counts"] = {_COUNTS_OF_0_1.get(name, name): counts[name] for name in counts}
    for name in ("images", "sidecars", "sizes", "done"):
        content[name] = tuple(content[name])
    for name in ("landed", "models"):
        content[name] = tuple(tuple(each) for each in content[name])
    if content["old"] is not None:
        content["old"] = tuple(content["old"])
    if content["reissue"] is not None:
        reissue = content["reissue"]
        content["reissue"] = Reissue(
            versions=reissue["versions"],
            withdrawn=tuple(reissue["withdrawn"]),
            moves=tuple(Move(**move) for move in reissue["moves"]),
            commits=reissue["commits"],
            folders=reissue["folders"],
            objects=tuple((url, name) for url, name in reissue["objects"]),
        )
    return ErasurePlan(**content)


def as_arrival(landed: tuple[str, str, str]) -> Arrival:
    """Return the arrival with this name, change stamp and sidecar, as in ``ErasurePlan.landed``."""
    key, stamp, sidecar = landed
    return Arrival(key, stamp, 0, sidecar)
