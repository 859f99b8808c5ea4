"""Labelling rounds: assignments, back ends, the append-only ledger, and reviews."""
