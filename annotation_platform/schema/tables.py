"""Every table: its columns, types, units and ranges. Checked on every write and every read.

Their columns are declared in ``picture_tables.py``, ``label_tables.py``, ``version_tables.py`` and
``model_tables.py``; ``docs/reference/tables.md`` lists them all.
"""

from functools import cache

import pandas as pd

from annotation_platform.errors import TableError
from annotation_platform.schema.label_tables import (
    ANNOTATOR_PACE,
    ANNOTATOR_QUALITY,
    ANSWERS,
    AUDIT_FRAME,
    CONFLICTS,
    CONSENSUS_LABELS,
    HUMAN_LABELS,
    LABEL_ISSUES,
    LABEL_TASKS,
    REVIEW_TASKS,
    REVIEWED_LABELS,
    ROUND_TASKS,
    SELECTED_IMAGES,
)
from annotation_platform.schema.model_tables import (
    CHOICE_FIGURES,
    MISSED_BY_MODEL,
    MODEL_AGREEMENT,
    MODEL_EVALUATIONS,
    MODEL_FINDINGS,
    MODEL_SLICES,
    ROUND_REPORTS,
    TRAINED_MODELS,
)
from annotation_platform.schema.picture_tables import (
    BATCH_DRIFT,
    CLEANED_IMAGES,
    HELD_OUT_IMAGES,
    HELD_OUT_PREDICTIONS,
    IMAGE_EMBEDDINGS,
    IMPORTED_LABELS,
    MODEL_PREDICTIONS,
    ODD_IMAGES,
    PREDICTED_IMAGES,
    RAW_IMAGES,
)
from annotation_platform.schema.version_tables import (
    AUTO_LABELS,
    CERTIFICATES,
    DATASET_VERSIONS,
    ERROR_BARS,
    REAUDITS,
    SPLIT_TABLE,
    TRAINING_ROUNDS,
    TRAINING_SET,
)

TABLES = {
    table.name: table
    for table in (
        RAW_IMAGES,
        CLEANED_IMAGES,
        IMPORTED_LABELS,
        IMAGE_EMBEDDINGS,
        MODEL_PREDICTIONS,
        PREDICTED_IMAGES,
        HELD_OUT_PREDICTIONS,
        HELD_OUT_IMAGES,
        BATCH_DRIFT,
        ODD_IMAGES,
        SELECTED_IMAGES,
        AUDIT_FRAME,
        LABEL_TASKS,
        HUMAN_LABELS,
        ANSWERS,
        ROUND_TASKS,
        ANNOTATOR_QUALITY,
        ANNOTATOR_PACE,
        CONSENSUS_LABELS,
        CONFLICTS,
        REVIEW_TASKS,
        REVIEWED_LABELS,
        TRAINING_SET,
        CERTIFICATES,
        REAUDITS,
        AUTO_LABELS,
        LABEL_ISSUES,
        ERROR_BARS,
        SPLIT_TABLE,
        TRAINING_ROUNDS,
        DATASET_VERSIONS,
        TRAINED_MODELS,
        MODEL_EVALUATIONS,
        CHOICE_FIGURES,
        MODEL_SLICES,
        MODEL_FINDINGS,
        MISSED_BY_MODEL,
        MODEL_AGREEMENT,
        ROUND_REPORTS,
    )
}


def check_table(name: str, frame: pd.DataFrame, *, where: str = "") -> pd.DataFrame:
    """Return ``frame`` if it is a ``name`` table; otherwise raise a TableError naming the column.

    An empty frame is given the declared types first, because pandas cannot infer them.
    """
    if frame.empty:
        frame = empty_table(name)
    if TABLES[name].plainly_fits(frame):
        return frame.copy(deep=False)
    from pandera.errors import SchemaError, SchemaErrors

    try:
        return TABLES[name].checked.validate(frame, lazy=False)
    except (SchemaError, SchemaErrors) as error:
        place = f" ({where})" if where else ""
        first = error.schema_errors[0] if isinstance(error, SchemaErrors) else error
        detail = str(first).splitlines()[0]
        raise TableError(
            f"table {name}{place} is not as declared: {detail}. "
            "See docs/reference/tables.md for its columns."
        ) from error


def empty_table(name: str) -> pd.DataFrame:
    """Return the table ``name`` with no rows and the declared columns and types."""
    return _empty_table(name).copy(deep=False)


@cache
def _empty_table(name: str) -> pd.DataFrame:
    columns = TABLES[name].columns
    return pd.DataFrame({key: pd.Series([], dtype=column.dtype) for key, column in columns.items()})


def records(frame: pd.DataFrame) -> list[dict[str, object]]:
    """Return the rows as dictionaries by column name."""
    return [{str(name): value for name, value in row.items()} for row in frame.to_dict("records")]


def make_table(name: str, rows: list[dict[str, object]]) -> pd.DataFrame:
    """Return ``rows`` as the checked table ``name``; no rows give the empty table."""
    if not rows:
        return empty_table(name)
    return as_table(name, pd.DataFrame(rows, columns=list(TABLES[name].columns)))


def as_table(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return ``frame`` as the checked table ``name``: its columns in order, of their types.

    Further columns are left out, those that are missing have no values.
    """
    if frame.empty:
        return empty_table(name)
    frame = frame.reindex(columns=list(TABLES[name].columns)).reset_index(drop=True)
    for key, column in TABLES[name].columns.items():
        if column.dtype.startswith("datetime64"):
            # A column in which all are missing has no time zone to start from.
            frame[key] = pd.to_datetime(frame[key], utc=True)
        if column.dtype != "object":
            frame[key] = frame[key].astype(pd.api.types.pandas_dtype(column.dtype))
    return check_table(name, frame)
