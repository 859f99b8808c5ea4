"""Catalog: SQL access to every table of the lake, with DuckDB (local) or Athena (AWS)."""
