"""The use cases of a round, one per module: each takes a context and tables, and returns tables."""
