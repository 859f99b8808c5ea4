"""Why two versions differ: one cause for each change.

What each version was made of was kept when it was published, so a cause is looked up, not guessed:
it is what differs of all that an image's labels rest on. Where several things differ, the first of
``CAUSES`` is named.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables.shared import LABEL_COLUMNS

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
    if not kind.startswith("label"):
        return ""
    known = {name for each in before.ever for name in each.names}
    names = {name for each in now.ever if is_ in each.names for name in each.names}
    is_new = bool(is_) and known.isdisjoint(names)
    if kind == "label_added":
        return f"There was no class {is_} before." if is_new else ""
    successors = now.successors.get(was)
    if successors is None:
        return f"Class {was} is not in the ontology any more."
    if not successors:
        return f"Class {was} was retired, and its labels left out."
    if len(successors) > 1:
        several = ", ".join(successors)
        return f"Class {was} was split into {several}: its images are asked about again."
    # What was renamed is there under its new name; that alone takes no label away.
    renamed = successors != (was,) and kind == "label_changed"
    if renamed:
        return f"Class {was} is {successors[0]} now."
    return f"There was no class {is_} before." if is_new else ""


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
        looks: dict[str, Callable[[], str]] = {
            "ontology": lambda: self._asked_again(image, was, is_),
            "policy": lambda: round_.policy or self._held(was, is_) or self._use_of_auto(was, is_),
            "guideline": lambda: self._guideline(image, was, is_),
            "review decision": lambda: (
                self._cancellation(was, is_) or round_.reviews.get(image, "")
            ),
            "new or edited answer": lambda: round_.annotations.get(image, ""),
            "re-weighted annotator": lambda: round_.weights.get(image, ""),
            "model": lambda: self._model(was, is_),
            "split rule": lambda: self._left_out(image, was, is_),
            "new round": lambda: self._new_round(was, is_),
        }
        for cause, look in looks.items():
            detail = look()
            if detail:
                return cause, detail
        return self._rest(round_)

    def cause_of_moves(self) -> tuple[str, str]:
        """Return why images are in another split."""
        was, is_ = (_set_of(state).get("splits") for state in (self._before, self._now))
        if was != is_ and was is not None and is_ is not None:
            return "policy", _said_of_keys("splits", was, is_)
        return "split rule", "What keeps images together has put it there since."

    def _rest(self, round_: "_Round") -> tuple[str, str]:
        if not self._is_kept:
            return "unknown", "It was not kept what one of the versions was made of."
        if round_.other_tables:
            return "unknown", f"{', '.join(round_.other_tables)} of its round are other ones."
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
        if not self._is_kept:
            return ""
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
        if was.round_id == is_.round_id and self._round(was.round_id).same_annotations:
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

    def _left_out(self, image: str, was: _Image, is_: _Image) -> str:
        """Return that an image is left out, or not any more, though its labels stand in both.

        Of what can be published everything is but what arrived late and belongs with images of two
        splits.
        """
        if bool(was.round_id) == bool(is_.round_id) or not self._is_kept:
            return ""
        key = was.round_id or is_.round_id
        if not all(image in standing for standing in self._round(key).standing):
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
        """The images about which somebody decided otherwise, or for the first time."""
        columns = ["image_id", "decision", "decided_by", "decided_at"]
        if not self._both:
            return {}
        sides = [self._rows("reviewed_labels", side, columns) for side in self._both]
        decided = pd.concat([side[side["decided_by"] != ""] for side in sides])
        differ = set(decided.drop_duplicates(keep=False)["image_id"])
        return dict.fromkeys(differ, "A reviewer decided about it since.")

    @cached_property
    def standing(self) -> list[set[str]]:
        """The images whose labels of this round can be published: before, and now."""
        columns = ["image_id", "decision"]
        found = []
        for side in self._sides:
            said = side.table("reviewed_labels", self._id, columns)
            brought = side.table("imported_labels", self._id, ["image_id", "problem"])
            found.append(
                {
                    *said.loc[~said["decision"].isin(_OUT), "image_id"],
                    *brought.loc[brought["problem"] == "", "image_id"],
                }
            )
        return found

    @cached_property
    def same_annotations(self) -> bool:
        """Whether the same answers count in both."""
        was, is_ = (side.digests("human_labels", self._id) for side in self._sides)
        return was == is_

    @cached_property
    def other_tables(self) -> list[str]:
        """The tables of the round that are other ones now."""
        was, is_ = (set(side.inputs.tables if side.inputs else ()) for side in self._sides)
        names = {key.partition("/")[0] for key in was | is_ if key.endswith(f"/{self._id}")}
        return sorted(
            name
            for name in names - {"training_set"}
            if len({frozenset(side.digests(name, self._id)) for side in self._sides}) > 1
        )

    @property
    def _both(self) -> tuple[VersionState, ...]:
        """Both versions, or neither, where only one was made of what people said in the round."""
        has_both = all(side.digests("reviewed_labels", self._id) for side in self._sides)
        return self._sides if has_both else ()

    @cached_property
    def annotations(self) -> dict[str, str]:
        """The images of which other answers count."""
        if self.same_annotations or not self._both:
            return {}
        key, columns = ["image_id", "annotation_id"], ["image_id", "annotation_id", "revision"]
        was, is_ = (self._rows("human_labels", side, columns) for side in self._sides)
        both = was.merge(is_, on=key, how="outer", suffixes=("_was", "_is"))
        kinds = {
            "new": both["revision_was"].isna(),
            "edited": both["revision_was"].notna()
            & both["revision_is"].notna()
            & (both["revision_was"] != both["revision_is"]),
            "counted no longer": both["revision_is"].isna(),
        }
        counts = pd.DataFrame(kinds).groupby(both["image_id"]).sum()
        counts = counts[counts.any(axis=1)]
        return {
            str(image): "Other answers count: "
            + ", ".join(f"{number} {what}" for what, number in row.items() if number)
            + "."
            for image, row in zip(counts.index, counts.to_dict("records"), strict=True)
        }

    @cached_property
    def weights(self) -> dict[str, str]:
        """The images whose consensus is another one though the same answers count."""
        made = [side.made_of("consensus_labels", self._id) for side in self._sides]
        common = [each.settings.get("common") if each else None for each in made]
        if common[0] is not None and common[0] == common[1]:
            # Nobody's word counts for more or less: something else did it.
            return {}
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
        return side.table(name, self._id, columns).drop_duplicates()


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
        said = state.table("human_labels", round_id, ["image_id", "guideline"])
        said = said.drop_duplicates("image_id")
        known[state.tag, round_id] = dict(zip(said["image_id"], said["guideline"], strict=True))
    return known[state.tag, round_id]


def _said_of_keys(section: str, was: Mapping[str, Any], is_: Mapping[str, Any]) -> str:
    keys: Iterable[str] = sorted(key for key in {*was, *is_} if was.get(key) != is_.get(key))
    told = [f"{section}.{key} is {is_.get(key)} instead of {was.get(key)}" for key in keys]
    return f"{'; '.join(told)}."
