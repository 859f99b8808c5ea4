"""Forgetting: an image, everything from a source, or who an annotator was, wherever they are."""
