"""How far an erasure is: kept in the lake until it is done, so that anybody can go on with it."""

import base64
import json
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np

from annotation_platform.governance.erasure.record import PLAN
from annotation_platform.governance.erasure.rewriting import Rewriting
from annotation_platform.images.signature import SIGNATURE, SignatureTable
from annotation_platform.storage.objects import ObjectStore
from annotation_platform.versioning.reissue import Move, Reissue

_COUNTS_OF_0_1 = {"answers": "annotations"}


@dataclass(frozen=True)
class Plan:
    """One erasure under way.

    Attributes:
        asked: what was asked for, for people.
        reason, by, at: why, by whom, when (UTC).
        images: ids of all that goes.
        landed: name, stamp and sidecar of every object that landed with one of them.
        sidecars: SHA-256 of the sidecars that describe nothing else.
        sizes: how many bytes landed of each image.
        models: of the models that learned from them, the digest of their weights and the version.
        bits: how much near-duplicates may differ; 0: only what shows the very same goes.
        signatures: of the images, to look for them at the end.
        tokens: by what is replaced, what replaces it.
        words: of a person, the names that are replaced, and what replaces them.
        person: the name where people label; empty where images are erased.
        old: keys of what was replaced by something under another key; None before that was written.
        reissue: what is left to be done about versions; None before they were written.
        done: the steps that are done.
        counts: how much was found where.
    """

    asked: str
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
        """What goes, and what takes the place of what."""
        names = frozenset((key, stamp) for key, stamp, _ in self.landed)
        return Rewriting(frozenset(self.images), names, dict(self.tokens), self.words)

    def with_done(self, step: str, **counts: int) -> "Plan":
        """Return the plan after a step."""
        return replace(self, done=(*self.done, step), counts=self.counts | counts)

    def save(self, store: ObjectStore) -> None:
        """Keep the plan as it stands."""
        content = asdict(self)
        content["at"] = self.at.isoformat()
        content["signatures"] = base64.b64encode(self.signatures.tobytes()).decode()
        data = json.dumps(content).encode()
        # Who it is about stands in it.
        if not store.create(PLAN, data, private=True):
            store.put(PLAN, data)
        store.purge(PLAN)


def read_plan(store: ObjectStore) -> Plan | None:
    """Return the erasure that is under way; None if there is none."""
    if not store.exists(PLAN):
        return None
    content: dict[str, Any] = json.loads(store.get(PLAN))
    content["at"] = datetime.fromisoformat(content["at"])
    # v0.1.0 wrote `likenesses`, and `answers` among the counts.
    encoded = content.pop("likenesses", None) or content["signatures"]
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
        said = content["reissue"]
        content["reissue"] = Reissue(
            versions=said["versions"],
            withdrawn=tuple(said["withdrawn"]),
            moves=tuple(Move(**move) for move in said["moves"]),
            commits=said["commits"],
            folders=said["folders"],
            objects=tuple((url, name) for url, name in said["objects"]),
        )
    return Plan(**content)
