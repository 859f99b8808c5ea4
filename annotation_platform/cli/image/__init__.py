"""Commands about one image: its provenance, its history, its selection, its erasure."""

import typer

from annotation_platform.cli.image.erasure import erase
from annotation_platform.cli.image.provenance import explain, history
from annotation_platform.cli.image.selection import exclude, include, relabel

app = typer.Typer(
    help="Explain, select and erase single images.",
    no_args_is_help=True,
)
for command in (explain, history, include, exclude, relabel, erase):
    app.command()(command)
