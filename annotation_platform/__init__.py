"""Annotate images in rounds, settle what people disagree on, publish dataset versions.

An ordinary library: nothing in here but the composition root ``definitions.py`` knows Dagster.
"""

__version__ = "0.1.0"
