"""The command line: a noun, then a verb, one file per noun.

A command parses its arguments, calls the library and prints the result. Modules that are slow to
import (torch, dagster, dvc, pandas) are imported inside the commands that need them.
"""

from annotation_platform.cli.application import app, main

__all__ = ["app", "main"]
