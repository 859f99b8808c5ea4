"""The difference between two versions as one page: counts, and images before and after."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files

import pandas as pd

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode
from annotation_platform.pages import as_base64, render_page
from annotation_platform.provenance.causes import CAUSES
from annotation_platform.provenance.changes import KINDS
from annotation_platform.provenance.diff import Diff
from annotation_platform.provenance.state import VersionState
from annotation_platform.reporting.previews import thumbnail
from annotation_platform.schema.ontology import class_colors
from annotation_platform.schema.tables import TrainingSet

TITLES = {
    "image_added": "images added",
    "image_removed": "images removed",
    "image_moved": "in another split",
    "label_added": "labels added",
    "label_removed": "labels removed",
    "label_changed": "labels changed",
}
"""Titles of the kinds of changes."""

_EXAMPLES = 8
_SIDE = 420

Load = Callable[[str, str], bytes]
"""Return the bytes of a stored image by its id and extension; DataError if it is missing."""


@dataclass(frozen=True)
class _Example:
    image_id: str
    before: str  # JPEG, base64; empty: the version does not hold it
    now: str
    summary: str
    detail: str
    legend: list[tuple[str, str]]  # class and colour


def render_diff(found: Diff, before: VersionState, now: VersionState, load: Load) -> str:
    """Return the page: HTML without external resources, with embedded images for each cause.

    Images with the most changes come first. All names are escaped.
    """
    style = files(__package__).joinpath("templates", "diff.css").read_text("utf-8")
    counted = found.changes["kind"].value_counts()
    return render_page(
        __package__,
        "diff.html.jinja",
        style=style,
        before=found.before,
        now=found.now,
        same=found.is_empty,
        kinds=TITLES,
        totals={kind: int(counted[kind]) for kind in KINDS if kind in counted},
        label_kinds=[kind for kind in KINDS if kind in counted and kind.startswith("label")],
        by_cause=found.counts(),
        by_class=found.counts_by_class(),
        ontology=found.ontology,
        policy=found.policy,
        examples=_examples(found, before, now, load),
    )  # fmt: skip


def _examples(
    found: Diff, before: VersionState, now: VersionState, load: Load
) -> dict[str, list[_Example]]:
    chosen: dict[str, list[_Example]] = {}
    for cause in CAUSES:
        rows = found.changes[found.changes["cause"] == cause]
        # Images by descending number of changes, then by id.
        images = rows["image_id"].value_counts(sort=False)
        images = images.sort_index().sort_values(ascending=False, kind="stable").head(_EXAMPLES)
        several = [_example(str(image), rows, before, now, load) for image in images.index]
        if several:
            chosen[cause] = several
    return chosen


def _example(
    image_id: str, changes: pd.DataFrame, before: VersionState, now: VersionState, load: Load
) -> _Example:
    own = changes[changes["image_id"] == image_id]
    kinds = own["kind"].value_counts()
    colors = {**class_colors(before.policy.ontology), **class_colors(now.policy.ontology)}
    sides = [
        state.labels[state.labels[TrainingSet.image_id] == image_id] for state in (before, now)
    ]
    names = dict.fromkeys(name for side in sides for name in side[TrainingSet.class_name].dropna())
    old, new = (_image(side, colors, load) for side in sides)
    return _Example(
        image_id=image_id,
        before=old,
        now=new,
        summary=", ".join(_counted(kind, int(kinds[kind])) for kind in KINDS if kind in kinds)
        + ".",
        detail=str(own["detail"].iloc[0]),
        legend=[(str(name), colors.get(str(name), "#888888")) for name in names],
    )


def _counted(kind: str, count: int) -> str:
    if kind.startswith("image"):
        return TITLES[kind].replace("images", "image")
    return f"{count} {TITLES[kind] if count != 1 else TITLES[kind].replace('labels', 'label')}"


def _image(labels: pd.DataFrame, colors: dict[str, str], load: Load) -> str:
    """Return the image with these labels as JPEG in base64; empty if it is not available."""
    if labels.empty:
        return ""
    first = labels.iloc[0]
    try:
        pixels = decode(load(str(first[TrainingSet.image_id]), str(first[TrainingSet.extension])))
    except DataError:
        return ""
    return as_base64(thumbnail(pixels, labels.dropna(subset=["x1"]), colors, side=_SIDE))
