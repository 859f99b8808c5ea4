"""Dagster resources: adapters of the library, built from settings, without logic."""
