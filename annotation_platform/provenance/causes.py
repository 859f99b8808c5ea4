"""Why two versions differ: one cause for each change.

What each version was made of was kept when it was published, so a cause is looked up, not guessed:
it is what differs of all that an image's labels rest on. Where several things differ, the first of
``CAUSES`` is named.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import LABEL_COLUMNS

CAUSES = [
    "erasure",
    "ontology",
    "policy",
    "guideline",
    "review decision",
    "new or edited answer",
    "re-weighted annotator",
    "model",
    "split rule",
    "new round",
    "code",
    "unknown",
]
"""Every cause, in the order in which they are named where several hold.

``code``: all is as it was, and other code made something else of it. ``unknown``: it was not kept
what one of the versions was made of.
"""

_OUT = ["rejected", "undecided"]
_SHOWN = 3


def with_causes(
    changes: pd.DataFrame,
    before: VersionState,
    now: VersionState,
    *,
    erased: Mapping[str, str] | None = None,
) -> pd.DataFrame:
    """Return the changes with a ``cause`` for each, and its ``detail`` as a sentence.

    Args:
        changes: of ``find_changes``.
        before: the older version.
        now: the newer one.
        erased: the images that were erased since, and why.
    """
    moved = changes["kind"] == "image_moved"
    versions = _Versions(before, now)
    ids = changes.loc[~moved, "image_id"].unique()
    of_image = {image: versions.cause(image) for image in ids}
    said = changes["image_id"].map(of_image)
    split = versions.cause_of_moves()
    said = said.where(~moved, pd.Series([split] * len(changes), index=changes.index))
    by_class = _by_class(changes, before.policy.ontology, now.policy.ontology)
    said = by_class.where(by_class.notna(), said)
    gone = changes["image_id"].map({key: ("erasure", why) for key, why in (erased or {}).items()})
    said = gone.where(gone.notna(), said)
    return changes.assign(
        cause=said.str[0].astype("str").astype(changes["kind"].dtype),
        detail=said.str[1].astype("str").astype(changes["kind"].dtype),
    )


def _by_class(changes: pd.DataFrame, before: Ontology, now: Ontology) -> "pd.Series[Any]":
    """Return the changes that classes explain, each with cause and detail; missing elsewhere."""
    if before == now:
        return pd.Series([None] * len(changes), index=changes.index, dtype=object)
    columns = ["kind", "class_name_before", "class_name_now"]
    different = changes[columns].drop_duplicates()
    said = {
        (kind, was, is_): _said_of_classes(kind, was, is_, before, now)
        for kind, was, is_ in different.fillna("").itertuples(index=False, name=None)
    }
    rows = changes[columns].fillna("").itertuples(index=False, name=None)
    found = [("ontology", said[row]) if said[row] else None for row in rows]
    return pd.Series(found, index=changes.index, dtype=object)


def _said_of_classes(kind: str, was: str, is_: str, before: Ontology, now: Ontology) -> str:
    """Return what the ontology did to a class, as a sentence; empty if nothing."""
    if not kind.startswith("label") or (kind == "label_added" and is_ in before.names):
        return ""
    if kind == "label_added":
        return f"There was no class {is_} before."
    successors = now.successors.get(was)
    if successors is None:
        return f"Class {was} is not in the ontology any more."
    if successors == (was,):
        return "" if is_ in {"", *before.names} else f"There was no class {is_} before."
    if len(successors) == 1:
        return f"Class {was} is {successors[0]} now."
    if not successors:
        return f"Class {was} was retired, and its labels left out."
    return f"Class {was} was split into {', '.join(successors)}: its images are asked about again."


@dataclass(frozen=True)
class _Image:
    """An image in one version: the round of its labels and where they are from."""

    round_id: str = ""  # empty: it is not in it
    origin: str = ""


class _Versions:
    """Two versions, and what differs between them of all that an image's labels rest on."""

    def __init__(self, before: VersionState, now: VersionState) -> None:
        self._before, self._now = before, now
        self._images = [_images(before.labels), _images(now.labels)]
        self._rounds: dict[str, _Round] = {}
        self._is_kept = before.inputs is not None and now.inputs is not None
        self._cancelled = [_set_of(state).get("cancelled", {}) for state in (before, now)]

    def cause(self, image: str) -> tuple[str, str]:
        """Return the cause of what became of an image and its labels, and a sentence about it."""
        was, is_ = (side.get(image, _Image()) for side in self._images)
        round_ = self._round(is_.round_id or was.round_id)
        for cause, detail in (
            ("ontology", self._asked_again(image, was, is_)),
            ("policy", round_.policy or self._held(was, is_) or self._use_of_auto(was, is_)),
            ("guideline", self._guideline(image, was, is_)),
            ("review decision", self._cancellation(was, is_) or round_.reviews.get(image, "")),
            ("new or edited answer", round_.answers.get(image, "")),
            ("re-weighted annotator", round_.weights.get(image, "")),
            ("model", self._model(was, is_)),
            ("split rule", self._left_out(was, is_)),
            ("new round", self._new_round(was, is_)),
        ):
            if detail:
                return cause, detail
        return self._rest()

    def cause_of_moves(self) -> tuple[str, str]:
        """Return why images are in another split."""
        was, is_ = (_set_of(state).get("splits") for state in (self._before, self._now))
        if was != is_ and was is not None and is_ is not None:
            return "policy", _said_of_keys("splits", was, is_)
        return "split rule", "What keeps images together has put it there since."

    def _rest(self) -> tuple[str, str]:
        if not self._is_kept:
            return "unknown", "It was not kept what one of the versions was made of."
        return "code", "All that it rests on is as it was: other code made something else of it."

    def _round(self, round_id: str) -> "_Round":
        if round_id not in self._rounds:
            self._rounds[round_id] = _Round(self._before, self._now, round_id)
        return self._rounds[round_id]

    def _asked_again(self, image: str, was: _Image, is_: _Image) -> str:
        if is_.round_id or not was.round_id or image not in self._split_classes:
            return ""
        return self._split_classes[image]

    @cached_property
    def _split_classes(self) -> dict[str, str]:
        """The images with a label whose class became none or several, and what is said of it."""
        labels, today = self._before.labels, self._now.policy.ontology.successors
        open_ = [
            name for name in self._before.policy.ontology.names if len(today.get(name, ())) != 1
        ]
        rows = labels[labels["class_name"].isin(open_)].drop_duplicates("image_id")
        return {
            str(image): f"Class {name} became {', '.join(today.get(name, ())) or 'nothing'}."
            for image, name in zip(rows["image_id"], rows["class_name"], strict=True)
        }

    def _held(self, was: _Image, is_: _Image) -> str:
        """Return that a gate holds a round back now."""
        key = was.round_id
        out = {*self._now.manifest.rounds, *self._cancelled[1]}
        if key and not is_.round_id and key not in out:
            return f"{key} is held back by a gate now."
        return ""

    def _use_of_auto(self, was: _Image, is_: _Image) -> str:
        if AUTO not in {was.origin, is_.origin}:
            return ""
        settings = [_set_of(state).get("use_auto") for state in (self._before, self._now)]
        if settings[0] == settings[1] or None in settings:
            return ""
        return f"Labels without a person are {'' if settings[1] else 'not '}used now."

    def _guideline(self, image: str, was: _Image, is_: _Image) -> str:
        if not was.round_id or not is_.round_id:
            return ""
        sides = [
            _guidelines(state, each.round_id, self._known_guidelines).get(image, "")
            for state, each in ((self._before, was), (self._now, is_))
        ]
        if not all(sides) or sides[0] == sides[1]:
            return ""
        return (
            f"It was asked about again under guideline {sides[1][:12]} instead of {sides[0][:12]}."
        )

    @cached_property
    def _known_guidelines(self) -> dict[tuple[str, str], dict[str, str]]:
        return {}

    def _cancellation(self, was: _Image, is_: _Image) -> str:
        cancelled, reopened = (
            one.keys() - other.keys() for one, other in (self._cancelled[::-1], self._cancelled)
        )
        if was.round_id in cancelled and not is_.round_id:
            return f"{was.round_id} was cancelled: {self._cancelled[1][was.round_id]}."
        if is_.round_id in reopened:
            return f"{is_.round_id} counts again."
        return ""

    @staticmethod
    def _model(was: _Image, is_: _Image) -> str:
        if is_.origin == AUTO and was.origin != AUTO:
            return f"Its labels were accepted without a person in {is_.round_id}."
        if was.origin == AUTO and not is_.round_id:
            return f"Its labels, accepted without a person in {was.round_id}, were withdrawn."
        if was.origin == AUTO == is_.origin and was.round_id != is_.round_id:
            return f"Another certificate stands: that of {is_.round_id}."
        return ""

    def _left_out(self, was: _Image, is_: _Image) -> str:
        """Return that an image is out of it, or in it, though what people say of it is the same."""
        if bool(was.round_id) == bool(is_.round_id):
            return ""
        key = was.round_id or is_.round_id
        rounds = self._before.manifest.rounds.keys() & self._now.manifest.rounds.keys()
        if key not in rounds or not self._is_kept:
            return ""
        return (
            f"It {'joins images of two splits' if was.round_id else 'joins such images no more'}."
        )

    def _new_round(self, was: _Image, is_: _Image) -> str:
        if is_.round_id and is_.round_id not in self._before.manifest.rounds:
            return f"{is_.round_id} is in it now."
        if is_.round_id and was.round_id and is_.round_id != was.round_id:
            return f"Its labels are those of {is_.round_id} now."
        return ""


class _Round:
    """What differs of a round between two versions that both hold it, by image."""

    def __init__(self, before: VersionState, now: VersionState, round_id: str) -> None:
        self._sides, self._id = (before, now), round_id

    @cached_property
    def policy(self) -> str:
        """Settings under which the labels of the round were resolved, as a sentence."""
        made = [side.made_of("consensus_labels", self._id) for side in self._sides]
        if None in made:
            return ""
        # What the round has in common comes of the answers, not of the policy.
        was, is_ = ({**each.settings, "common": None} for each in made if each)
        return "" if was == is_ else _said_of_keys("consensus", was, is_)

    @cached_property
    def reviews(self) -> dict[str, str]:
        """The images about which reviewers decided otherwise."""
        columns = ["image_id", "decision", "decided_by", "comment", "decided_at"]
        differ = self._differing("reviewed_labels", columns)
        return dict.fromkeys(differ, "A reviewer decided about it since.")

    @cached_property
    def answers(self) -> dict[str, str]:
        """The images of which other answers count."""
        columns = ["image_id", "answer_id", "revision"]
        was, is_ = (self._rows("human_labels", side, columns) for side in self._sides)
        said = {}
        for image in sorted(self._differing("human_labels", columns)):
            old, new = (_revisions(side[side["image_id"] == image]) for side in (was, is_))
            edited = [key for key in old.keys() & new.keys() if old[key] != new[key]]
            counts = {
                "new": len(new.keys() - old.keys()),
                "edited": len(edited),
                "counted no longer": len(old.keys() - new.keys()),
            }
            told = [f"{number} {what}" for what, number in counts.items() if number]
            said[image] = f"Other answers count: {', '.join(told)}."
        return said

    @cached_property
    def weights(self) -> dict[str, str]:
        """The images whose consensus is another one though the same answers count."""
        differ = self._differing("consensus_labels", ["image_id", *LABEL_COLUMNS, "support"])
        columns = ["annotator", "quality", "gold_quality"]
        people = self._differing("annotator_quality", columns, by="annotator")
        named = ", ".join(sorted(people)[:_SHOWN]) + (" and others" if len(people) > _SHOWN else "")
        why = (
            f"The weight of {named} is another one."
            if people
            else ("What was said of other images changed how much each person's word counts.")
        )
        return dict.fromkeys(differ, why)

    def _differing(self, name: str, columns: Sequence[str], *, by: str = "image_id") -> set[str]:
        """Return the images of which a table says something else; none if one side lacks it."""
        digests = [side.digests(name, self._id) for side in self._sides]
        if not all(digests) or digests[0] == digests[1]:
            return set()
        both = pd.concat([self._rows(name, side, columns) for side in self._sides])
        return set(both.drop_duplicates(keep=False)[by])

    def _rows(self, name: str, side: VersionState, columns: Sequence[str]) -> pd.DataFrame:
        return side.table(name, self._id)[list(columns)].drop_duplicates()


def _revisions(answers: pd.DataFrame) -> dict[str, str]:
    return dict(zip(answers["answer_id"], answers["revision"], strict=True))


def _images(labels: pd.DataFrame) -> dict[str, _Image]:
    first = labels.drop_duplicates("image_id")
    rows = zip(first["image_id"], first["round_id"], first["origin"], strict=True)
    return {str(image): _Image(str(key), str(origin)) for image, key, origin in rows}


def _set_of(state: VersionState) -> dict[str, Any]:
    """Return the settings under which a version's training set was put together."""
    if state.inputs is None:
        return {}
    made_of = state.inputs.made[state.inputs.training_set].made_of
    return made_of.settings if made_of else {}


def _guidelines(
    state: VersionState, round_id: str, known: dict[tuple[str, str], dict[str, str]]
) -> dict[str, str]:
    """Return under which guideline each image of a round was answered."""
    if (state.tag, round_id) not in known:
        said = state.table("human_labels", round_id).drop_duplicates("image_id")
        known[state.tag, round_id] = dict(zip(said["image_id"], said["guideline"], strict=True))
    return known[state.tag, round_id]


def _said_of_keys(section: str, was: Mapping[str, Any], is_: Mapping[str, Any]) -> str:
    keys: Iterable[str] = sorted(key for key in {*was, *is_} if was.get(key) != is_.get(key))
    told = [f"{section}.{key} is {is_.get(key)} instead of {was.get(key)}" for key in keys]
    return f"{'; '.join(told)}."
