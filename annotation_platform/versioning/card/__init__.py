"""The card of a version: what is in it, how far it can be trusted, and what it should not be for.

Facts about content only: no times, no version number. ``facts.py`` counts, ``limits.py`` judges,
``examples.py`` chooses images, ``charts.py`` draws, ``render.py`` writes the files.
"""

from annotation_platform.versioning.card.facts import FolderFacts
from annotation_platform.versioning.card.render import Card, render_card

__all__ = ["Card", "FolderFacts", "render_card"]
