"""The card of a version: its content, the quality of its labels, and its known limits.

The card depends on content only: it has no times and no version number. ``facts.py`` counts,
``limits.py`` derives limits, ``examples.py`` chooses images, ``charts.py`` draws, ``readme.py`` and
``render.py`` write the files.
"""

from annotation_platform.versioning.card.facts import FolderFacts
from annotation_platform.versioning.card.render import Card, render_card

__all__ = ["Card", "FolderFacts", "render_card"]
