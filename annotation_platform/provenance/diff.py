"""The difference between two versions: changes, their causes, and counts by cause."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import pandas as pd

from annotation_platform.policy import Policy
from annotation_platform.provenance.causes import CAUSES, with_causes
from annotation_platform.provenance.changes import KINDS, find_changes
from annotation_platform.provenance.state import VersionState
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.setting_changes import changed_settings
from annotation_platform.storage.erasures import Erasures


@dataclass(frozen=True)
class Diff:
    """All differences between two versions.

    Attributes:
        before: tag of the older one.
        now: tag of the newer one.
        changes: ``CHANGE_COLUMNS`` of ``changes.py``, with ``cause`` and ``detail``.
        ontology: a sentence for each change of the ontology.
        policy: old and new value of each changed setting, by its key, such as ``review.gate``;
            without the ontology.
    """

    before: str
    now: str
    changes: pd.DataFrame
    ontology: tuple[str, ...]
    policy: dict[str, tuple[Any, Any]]

    @property
    def is_empty(self) -> bool:
        """Whether both versions have the same labels and policy."""
        return self.changes.empty and not self.ontology and not self.policy

    def counts(self) -> dict[str, dict[str, int]]:
        """Return the number of changes by cause and kind; they add up to all changes."""
        table = pd.crosstab(self.changes["cause"], self.changes["kind"])
        table = table.reindex(index=CAUSES, columns=KINDS, fill_value=0)
        return {
            str(cause): {str(kind): int(count) for kind, count in row.items() if count}
            for cause, row in table.iterrows()
            if row.any()
        }

    def counts_by_class(self) -> dict[str, dict[str, int]]:
        """Return the number of added, removed and changed labels by class and kind."""
        labels = self.changes[self.changes["kind"].str.startswith("label")]
        names = labels["class_name_now"].fillna(labels["class_name_before"])
        table = pd.crosstab(names, labels["kind"])
        return {
            str(name): {str(kind): int(count) for kind, count in row.items() if count}
            for name, row in table.sort_index().iterrows()
        }


def diff_versions(
    before: VersionState, now: VersionState, *, erased: Mapping[str, str] | None = None
) -> Diff:
    """Return the changes from one version to another, each with its cause.

    Args:
        before: the older one.
        now: the newer one.
        erased: sentence about the erasure of each image that was erased since; by default from the
            lake of the newer version.
    """
    changes = find_changes(before.labels, now.labels)
    if erased is None and now.lake is not None:
        erasures = Erasures(now.lake.store)
        found = {image: erasures.find(image) for image in set(changes["image_id"])}
        erased = {image: each.sentence for image, each in found.items() if each is not None}
    return Diff(
        before=before.tag,
        now=now.tag,
        changes=with_causes(changes, before, now, erased=erased),
        ontology=tuple(_classes(before.policy.ontology, now.policy.ontology)),
        policy=_settings(before.policy, now.policy),
    )


def _classes(before: Ontology, now: Ontology) -> list[str]:
    """Return a sentence for each change of classes, guidelines and the choice of classes."""
    today = {each.id: each for each in now.classes}
    retired = {each.id: each for each in now.retired}
    sentences = []
    for each in before.classes:
        if each.id in retired:
            into = [today[class_id].name for class_id in retired[each.id].into]
            sentences.append(
                f"{each.name} was retired{', into ' + ', '.join(into) if into else ''}"
            )
        elif each.id not in today:
            sentences.append(f"{each.name} is gone")
        else:
            then = each.model_dump(exclude={"was"})
            for field, value in today[each.id].model_dump(exclude={"was"}).items():
                if then[field] != value:
                    sentences.append(f"{each.name}: {field} is {value!r}, was {then[field]!r}")
    known = {each.id for each in before.classes}
    sentences += [f"{each.name} is new" for each in now.classes if each.id not in known]
    for field in ("choose", "guidelines"):
        was, is_ = getattr(before, field), getattr(now, field)
        if was != is_:
            sentences.append(f"{field} are {is_!r}, were {was!r}")
    return sentences


def _settings(before: Policy, now: Policy) -> dict[str, tuple[Any, Any]]:
    """Return the old and new value of each setting that differs."""
    was, is_ = (each.model_dump(mode="json", exclude={"ontology"}) for each in (before, now))
    return changed_settings(was, is_)
