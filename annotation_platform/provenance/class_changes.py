"""Changes between two versions that a change of the ontology explains."""

from typing import Any

import pandas as pd

from annotation_platform.schema.ontology import Ontology


def causes_by_class(changes: pd.DataFrame, before: Ontology, now: Ontology) -> "pd.Series[Any]":
    """Return the cause and detail of each change that the ontology explains; missing elsewhere."""
    if before == now:
        return pd.Series([None] * len(changes), index=changes.index, dtype=object)
    columns = ["kind", "class_name_before", "class_name_now"]
    different = changes[columns].drop_duplicates()
    sentences = {
        (kind, old, new): _class_change(kind, old, new, before, now)
        for kind, old, new in different.fillna("").itertuples(index=False, name=None)
    }
    rows = changes[columns].fillna("").itertuples(index=False, name=None)
    found = [("ontology", sentences[row]) if sentences[row] else None for row in rows]
    return pd.Series(found, index=changes.index, dtype=object)


def _class_change(kind: str, old: str, new: str, before: Ontology, now: Ontology) -> str:
    """Return the change of a class in the ontology as a sentence; empty without one."""
    if not kind.startswith("label"):
        return ""
    known = {name for each in before.ever for name in each.names}
    names = {name for each in now.ever if new in each.names for name in each.names}
    is_new = bool(new) and known.isdisjoint(names)
    if kind == "label_added":
        return f"Class {new} is new." if is_new else ""
    successors = now.successors.get(old)
    if successors is None:
        return f"Class {old} is no longer in the ontology."
    if not successors:
        return f"Class {old} was retired, and its labels are left out."
    if len(successors) > 1:
        several = ", ".join(successors)
        return f"Class {old} was split into {several}: its images are annotated again."
    # A renamed class keeps its labels, under the new name.
    renamed = successors != (old,) and kind == "label_changed"
    if renamed:
        return f"Class {old} is now {successors[0]}."
    return f"Class {new} is new." if is_new else ""
