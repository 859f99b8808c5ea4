"""The catalog: every table of the lake, open to SQL here (DuckDB) and on AWS (Athena)."""
