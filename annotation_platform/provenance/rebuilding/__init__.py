"""Rebuild a published version from the ledger and the lake, by its own code."""
