"""Owners and column schemas of assets, for the Dagster catalogue."""

import dagster as dg

from annotation_platform.schema.tables import TABLES

_OWNERS = {
    "ingestion": "team:data",
    "prediction": "team:models",
    "labeling": "team:annotation",
    "consensus": "team:annotation",
    "release": "team:data",
    "training": "team:models",
    "reporting": "team:data",
}
_TYPES = {
    "string[pyarrow]": "text",
    "int64": "integer",
    "Int64": "integer",
    "float64": "float",
    "datetime64[us, UTC]": "timestamp",
    "object": "vector",
}


def described(spec: dg.AssetSpec) -> dg.AssetSpec:
    """Return an asset spec with the team that owns its group, and the columns of its table."""
    columns = [
        dg.TableColumn(
            name,
            _TYPES.get(column.dtype, column.dtype),
            column.about,
            dg.TableColumnConstraints(nullable=column.nullable),
        )
        for name, column in TABLES[spec.key.to_user_string()].columns.items()
    ]
    schema = dg.TableSchema(columns)
    return spec.replace_attributes(
        owners=[_OWNERS[spec.group_name or ""]],
        metadata={**spec.metadata, "dagster/column_schema": schema},
    )
