"""The use cases of a round, one a file: each takes its context and tables, and returns tables."""
