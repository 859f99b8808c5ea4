"""Run the command line as ``python -m annotation_platform.cli``."""

from annotation_platform.cli.application import main

main()
