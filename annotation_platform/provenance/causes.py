"""Find one cause for each change between two versions.

The inputs of each version were stored when it was published, so a cause is looked up, not inferred:
it is the input of an image's labels that differs. If several inputs differ, the first of ``CAUSES``
is the cause.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pandas as pd

from annotation_platform.curation.auto_accept import AUTO
from annotation_platform.provenance.class_changes import causes_by_class
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.tables import (
    HumanLabels,
    ImportedLabels,
    ReviewedLabels,
    TrainingSet,
)
from annotation_platform.schema.tables.shared import LABEL_COLUMNS

CAUSES = [
    "erasure",
    "ontology",
    "policy",
    "guideline",
    "review decision",
    "new or edited annotation",
    "re-weighted annotator",
    "model",
    "split rule",
    "new round",
    "code",
    "unknown",
]
"""Every cause, by precedence.

``code``: all inputs are the same, and other code gave another result. ``unknown``: the inputs of
one of the versions were not stored.
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
        changes: the table from ``find_changes``.
        before: the older version.
        now: the newer version.
        erased: sentence about the erasure of each image that was erased since.
    """
    moved = changes["kind"] == "image_moved"
    versions = _Versions(before, now)
    ids = changes.loc[~moved, "image_id"].unique()
    of_image = {image: versions.cause(image) for image in ids}
    causes = changes["image_id"].map(of_image)
    split = versions.cause_of_moves()
    causes = causes.where(~moved, pd.Series([split] * len(changes), index=changes.index))
    by_class = causes_by_class(changes, before.policy.ontology, now.policy.ontology)
    causes = by_class.where(by_class.notna(), causes)
    gone = changes["image_id"].map({key: ("erasure", why) for key, why in (erased or {}).items()})
    causes = gone.where(gone.notna(), causes)
    return changes.assign(
        cause=causes.str[0].astype("str").astype(changes["kind"].dtype),
        detail=causes.str[1].astype("str").astype(changes["kind"].dtype),
    )


@dataclass(frozen=True)
class _Image:
    """An image in one version: the round and the origin of its labels."""

    round_id: str = ""  # empty: the version does not hold it
    origin: str = ""


class _Versions:
    """Two versions, and the differences between the inputs of an image's labels."""

    def __init__(self, before: VersionState, now: VersionState) -> None:
        self._before, self._now = before, now
        self._images = [_images(before.labels), _images(now.labels)]
        self._rounds: dict[str, _Round] = {}
        self._has_inputs = before.inputs is not None and now.inputs is not None
        self._cancelled = [
            _training_settings(state).get("cancelled", {}) for state in (before, now)
        ]

    def cause(self, image: str) -> tuple[str, str]:
        """Return the cause of the changes of an image and its labels, and a sentence about it."""
        old, new = (side.get(image, _Image()) for side in self._images)
        round_ = self._round(new.round_id or old.round_id)
        checks: dict[str, Callable[[], str]] = {
            "ontology": lambda: self._asked_again(image, old, new),
            "policy": lambda: round_.policy or self._held(old, new) or self._use_of_auto(old, new),
            "guideline": lambda: self._guideline(image, old, new),
            "review decision": lambda: (
                self._cancellation(old, new) or round_.reviews.get(image, "")
            ),
            "new or edited annotation": lambda: round_.annotations.get(image, ""),
            "re-weighted annotator": lambda: round_.weights.get(image, ""),
            "model": lambda: self._model(old, new),
            "split rule": lambda: self._left_out(image, old, new),
            "new round": lambda: self._new_round(old, new),
        }
        for cause, check in checks.items():
            detail = check()
            if detail:
                return cause, detail
        return self._remaining_cause(round_)

    def cause_of_moves(self) -> tuple[str, str]:
        """Return the cause of images in another split, and a sentence about it."""
        old, new = (_training_settings(state).get("splits") for state in (self._before, self._now))
        if old != new and old is not None and new is not None:
            return "policy", _changed_keys("splits", old, new)
        return "split rule", "Its group of images that stay together has changed."

    def _remaining_cause(self, round_: "_Round") -> tuple[str, str]:
        if not self._has_inputs:
            return "unknown", "The inputs of one of the versions were not stored."
        if round_.other_tables:
            return "unknown", f"Tables of its round differ: {', '.join(round_.other_tables)}."
        return "code", "All inputs are the same: other code gave another result."

    def _round(self, round_id: str) -> "_Round":
        if round_id not in self._rounds:
            self._rounds[round_id] = _Round(self._before, self._now, round_id)
        return self._rounds[round_id]

    def _asked_again(self, image: str, old: _Image, new: _Image) -> str:
        if new.round_id or not old.round_id or image not in self._split_classes:
            return ""
        return self._split_classes[image]

    @cached_property
    def _split_classes(self) -> dict[str, str]:
        """A sentence for each image with a label whose class became none or several."""
        labels, today = self._before.labels, self._now.policy.ontology.successors
        unclear = [
            name for name in self._before.policy.ontology.names if len(today.get(name, ())) != 1
        ]
        rows = labels[labels[TrainingSet.class_name].isin(unclear)].drop_duplicates("image_id")
        return {
            str(image): f"Class {name} became {', '.join(today.get(name, ())) or 'nothing'}."
            for image, name in zip(
                rows[TrainingSet.image_id], rows[TrainingSet.class_name], strict=True
            )
        }

    def _held(self, old: _Image, new: _Image) -> str:
        """Return a sentence if a gate now holds the round back."""
        if not self._has_inputs:
            return ""
        key = old.round_id
        explained = {*self._now.manifest.rounds, *self._cancelled[1]}
        if key and not new.round_id and key not in explained:
            return f"{key} is held back by a gate now."
        return ""

    def _use_of_auto(self, old: _Image, new: _Image) -> str:
        if AUTO not in {old.origin, new.origin}:
            return ""
        settings = [
            _training_settings(state).get("use_auto") for state in (self._before, self._now)
        ]
        if settings[0] == settings[1] or None in settings:
            return ""
        return f"Automatically accepted labels are {'' if settings[1] else 'not '}used now."

    def _guideline(self, image: str, old: _Image, new: _Image) -> str:
        if not old.round_id or not new.round_id:
            return ""
        if old.round_id == new.round_id and self._round(old.round_id).same_annotations:
            return ""
        sides = [
            _guidelines(state, each.round_id, self._known_guidelines).get(image, "")
            for state, each in ((self._before, old), (self._now, new))
        ]
        if not all(sides) or sides[0] == sides[1]:
            return ""
        return f"It was annotated again under guideline {sides[1][:12]} instead of {sides[0][:12]}."

    @cached_property
    def _known_guidelines(self) -> dict[tuple[str, str], dict[str, str]]:
        return {}

    def _cancellation(self, old: _Image, new: _Image) -> str:
        cancelled, reopened = (
            one.keys() - other.keys() for one, other in (self._cancelled[::-1], self._cancelled)
        )
        if old.round_id in cancelled and not new.round_id:
            return f"{old.round_id} was cancelled: {self._cancelled[1][old.round_id]}."
        if new.round_id in reopened:
            return f"{new.round_id} counts again."
        return ""

    @staticmethod
    def _model(old: _Image, new: _Image) -> str:
        if new.origin == AUTO and old.origin != AUTO:
            return f"Its labels were accepted automatically in {new.round_id}."
        if old.origin == AUTO and not new.round_id:
            return f"Its labels, accepted automatically in {old.round_id}, were withdrawn."
        if old.origin == AUTO == new.origin and old.round_id != new.round_id:
            return f"Its labels are accepted under another certificate: that of {new.round_id}."
        return ""

    def _left_out(self, image: str, old: _Image, new: _Image) -> str:
        """Return a sentence if an image is left out, or no longer, with labels in both versions.

        Every publishable image is published, except late ones that join images of two splits.
        """
        if bool(old.round_id) == bool(new.round_id) or not self._has_inputs:
            return ""
        key = old.round_id or new.round_id
        if not all(image in images for images in self._round(key).publishable):
            return ""
        return f"It {'joins' if old.round_id else 'no longer joins'} images of two splits."

    def _new_round(self, old: _Image, new: _Image) -> str:
        if new.round_id and new.round_id not in self._before.manifest.rounds:
            return f"{new.round_id} is in it now."
        if new.round_id and old.round_id and new.round_id != old.round_id:
            return f"Its labels are those of {new.round_id} now."
        return ""


class _Round:
    """The differences of a round between two versions that both hold it, by image."""

    def __init__(self, before: VersionState, now: VersionState, round_id: str) -> None:
        self._sides, self._id = (before, now), round_id

    @cached_property
    def policy(self) -> str:
        """The changed settings under which the labels of the round were resolved, as a sentence."""
        made = [side.inputs_of("consensus_labels", self._id) for side in self._sides]
        if None in made:
            return ""
        # `common` is computed from the annotations, not set by the policy.
        old, new = ({**each.settings, "common": None} for each in made if each)
        return "" if old == new else _changed_keys("consensus", old, new)

    @cached_property
    def reviews(self) -> dict[str, str]:
        """A sentence for each image with a new or changed review decision."""
        columns = ["image_id", "decision", "decided_by", "decided_at"]
        if not self._both:
            return {}
        sides = [self._rows("reviewed_labels", side, columns) for side in self._both]
        decided = pd.concat([side[side[ReviewedLabels.decided_by] != ""] for side in sides])
        differ = set(decided.drop_duplicates(keep=False)[ReviewedLabels.image_id])
        return dict.fromkeys(differ, "A reviewer has decided on it since.")

    @cached_property
    def publishable(self) -> list[set[str]]:
        """The images whose labels of this round can be published: before and now."""
        columns = ["image_id", "decision"]
        found = []
        for side in self._sides:
            reviewed = side.table("reviewed_labels", self._id, columns)
            imported = side.table("imported_labels", self._id, ["image_id", "problem"])
            found.append(
                {
                    *reviewed.loc[
                        ~reviewed[ReviewedLabels.decision].isin(_OUT), ReviewedLabels.image_id
                    ],
                    *imported.loc[imported[ImportedLabels.problem] == "", ImportedLabels.image_id],
                }
            )
        return found

    @cached_property
    def same_annotations(self) -> bool:
        """Whether the same annotations count in both versions."""
        old, new = (side.digests("human_labels", self._id) for side in self._sides)
        return old == new

    @cached_property
    def other_tables(self) -> list[str]:
        """The names of the tables of the round that differ."""
        old, new = (set(side.inputs.tables if side.inputs else ()) for side in self._sides)
        names = {key.partition("/")[0] for key in old | new if key.endswith(f"/{self._id}")}
        return sorted(
            name
            for name in names - {"training_set"}
            if len({frozenset(side.digests(name, self._id)) for side in self._sides}) > 1
        )

    @property
    def _both(self) -> tuple[VersionState, ...]:
        """Both versions, or neither if only one was made from annotations of the round."""
        has_both = all(side.digests("reviewed_labels", self._id) for side in self._sides)
        return self._sides if has_both else ()

    @cached_property
    def annotations(self) -> dict[str, str]:
        """A sentence for each image with other counted annotations."""
        if self.same_annotations or not self._both:
            return {}
        key, columns = ["image_id", "annotation_id"], ["image_id", "annotation_id", "revision"]
        old, new = (self._rows("human_labels", side, columns) for side in self._sides)
        both = old.merge(new, on=key, how="outer", suffixes=("_was", "_is"))
        kinds = {
            "new": both["revision_was"].isna(),
            "edited": both["revision_was"].notna()
            & both["revision_is"].notna()
            & (both["revision_was"] != both["revision_is"]),
            "no longer counted": both["revision_is"].isna(),
        }
        counts = pd.DataFrame(kinds).groupby(both["image_id"]).sum()
        counts = counts[counts.any(axis=1)]
        return {
            str(image): "Counted annotations changed: "
            + ", ".join(f"{number} {change}" for change, number in row.items() if number)
            + "."
            for image, row in zip(counts.index, counts.to_dict("records"), strict=True)
        }

    @cached_property
    def weights(self) -> dict[str, str]:
        """A sentence for each image with another consensus from the same annotations."""
        made = [side.inputs_of("consensus_labels", self._id) for side in self._sides]
        common = [each.settings.get("common") if each else None for each in made]
        if common[0] is not None and common[0] == common[1]:
            # No annotator was re-weighted: there is another cause.
            return {}
        differ = self._differing("consensus_labels", ["image_id", *LABEL_COLUMNS, "support"])
        columns = ["annotator", "quality", "gold_quality"]
        people = self._differing("annotator_quality", columns, by="annotator")
        named = ", ".join(sorted(people)[:_SHOWN]) + (" and others" if len(people) > _SHOWN else "")
        why = (
            f"The weight of {named} changed."
            if people
            else "Annotations of other images changed the weights of the annotators."
        )
        return dict.fromkeys(differ, why)

    def _differing(self, name: str, columns: Sequence[str], *, by: str = "image_id") -> set[str]:
        """Return the images whose rows in a table differ; none if one version lacks the table."""
        digests = [side.digests(name, self._id) for side in self._sides]
        if not all(digests) or digests[0] == digests[1]:
            return set()
        both = pd.concat([self._rows(name, side, columns) for side in self._sides])
        return set(both.drop_duplicates(keep=False)[by])

    def _rows(self, name: str, side: VersionState, columns: Sequence[str]) -> pd.DataFrame:
        return side.table(name, self._id, columns).drop_duplicates()


def _images(labels: pd.DataFrame) -> dict[str, _Image]:
    first = labels.drop_duplicates("image_id")
    rows = zip(
        first[TrainingSet.image_id],
        first[TrainingSet.round_id],
        first[TrainingSet.origin],
        strict=True,
    )
    return {str(image): _Image(str(key), str(origin)) for image, key, origin in rows}


def _training_settings(state: VersionState) -> dict[str, Any]:
    """Return the settings under which a version's training set was assembled."""
    if state.inputs is None:
        return {}
    inputs = state.inputs.made[state.inputs.training_set].made_of
    return inputs.settings if inputs else {}


def _guidelines(
    state: VersionState, round_id: str, known: dict[tuple[str, str], dict[str, str]]
) -> dict[str, str]:
    """Return the guideline of each annotated image of a round."""
    if (state.tag, round_id) not in known:
        rows = state.table("human_labels", round_id, ["image_id", "guideline"])
        rows = rows.drop_duplicates("image_id")
        known[state.tag, round_id] = dict(
            zip(rows[HumanLabels.image_id], rows[HumanLabels.guideline], strict=True)
        )
    return known[state.tag, round_id]


def _changed_keys(section: str, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    keys: Iterable[str] = sorted(key for key in {*old, *new} if old.get(key) != new.get(key))
    changed = [f"{section}.{key} is {new.get(key)} instead of {old.get(key)}" for key in keys]
    return f"{'; '.join(changed)}."
