"""Ingestion of images into the lake: sources, landing zone, rounds, metadata, quarantine."""
