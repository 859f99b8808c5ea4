"""Commands about published dataset versions."""

import typer

from annotation_platform.cli.version.changes import apply, diff
from annotation_platform.cli.version.files import checkout, export
from annotation_platform.cli.version.impact import impact
from annotation_platform.cli.version.integrity import gc, rebuild, verify
from annotation_platform.cli.version.listing import list_versions, stage

app = typer.Typer(help="Work with published dataset versions.", no_args_is_help=True)
app.command("list")(list_versions)
for command in (diff, verify, checkout, export, stage, rebuild, impact, gc, apply):
    app.command()(command)
