"""Names in subscripts are columns of some table: a misspelt column is found without data."""

import ast
from pathlib import Path

import pytest

from annotation_platform.schema.tables import TABLES

ROOT = Path(__file__).parents[3]
PACKAGES = ("annotation_platform", "assets", "resources", "sensors")
# Their subscripts are keys of other programs' files, and of what commands print.
OTHER_KEYS = ("annotation_platform/formats/", "annotation_platform/versioning/audited_files.py",
              "annotation_platform/cli")  # fmt: skip
COLUMNS = {name for table in TABLES.values() for name in table.columns}

INTERMEDIATE = {
    *("item", "probability", "weight"),  # samples of labels, drawn to estimate errors
    *("known", "regions", "unsure", "size", "batch"),  # annotations while they are compared
    *("truth", "worth", "first"),  # predictions while they are matched
    *("revision_is", "revision_was", "cause"),  # differences between two versions
    *("agreed", "annotator_other", "kappa", "label", "label_of_others", "others", "people"),
    *("reference", "row", "shown", "task", "unit", "votes", "worker"),  # agreement of annotators
    *("error", "number"),  # learning curves and samples
    *("x", "y"),  # edges of a region in a check
    "grey",  # vectors of images
}
"""Columns of frames that are never stored."""

RECORDS = {
    *("made", "made_of", "sha256", "training_set", "cancelled", "iou_threshold", "ontology"),
    *("splits", "digest", "submission"),  # lineage and the ledger, as JSON
    *("ap", "ap50"),  # figures of COCO
    *("count", "right", "return"),  # journals, qualification, and annotations of functions
    *("box", "image", "round", "waits_for", "how", "duplicate", "names", "msg"),
    *("classes", "counts", "small", "train"),  # figures of cards and pages
    *("consensus_f1", "minutes_without"),  # the demonstration's
    "",
}
"""Keys of dictionaries in modules that read tables."""


def subscripts(source):
    """Yield the line and text of every name in a subscript that is read: ``x["a"]``,
    ``x[["a", "b"]]`` and ``x.loc[rows, "a"]``.
    """
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Subscript) or not isinstance(node.ctx, ast.Load):
            continue
        # Other subscripts with commas are types.
        is_rows = isinstance(node.value, ast.Attribute) and node.value.attr in ("loc", "at")
        if isinstance(node.slice, ast.Tuple) and not is_rows:
            continue
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        for part in inner:
            for each in part.elts if isinstance(part, ast.List) else [part]:
                if isinstance(each, ast.Constant) and isinstance(each.value, str):
                    yield node.lineno, each.value


def unknown_names(source):
    allowed = COLUMNS | INTERMEDIATE | RECORDS
    return [(line, name) for line, name in subscripts(source) if name not in allowed]


@pytest.mark.parametrize("package", PACKAGES)
def test_every_column_that_is_read_is_declared(package):
    found, scanned = [], 0
    for path in sorted((ROOT / package).rglob("*.py")):
        name, source = path.relative_to(ROOT).as_posix(), path.read_text()
        if "schema.tables" not in source or name.startswith(OTHER_KEYS):
            continue
        scanned += 1
        found += [f"{name}:{line}: {text!r}" for line, text in unknown_names(source)]
    assert scanned or package == "resources"
    assert not found, "no table has such a column; if no table is meant, list it above"


@pytest.mark.parametrize(
    "line",
    ['f["imgae_id"]', 'f[["image_id", "lable_id"]]', 'f.loc[f["calibration_sample"], "scroe"]'],
)
def test_a_misspelt_column_is_found(line):
    assert len(unknown_names(line)) == 1
