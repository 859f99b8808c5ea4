"""The command that rewrites a lake of an older release."""

from typing import Annotated

import typer

from annotation_platform.cli.options import AsJson
from annotation_platform.cli.output import print_json, print_line, print_rows, progress_bar
from annotation_platform.cli.registries import own_lake


def migrate(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would change.")] = False,
    as_json: AsJson = False,
) -> None:
    """Rewrite the tables of an older release in place. Run it again if it was stopped."""
    from annotation_platform.storage.migration import migrate as migrate_lake
    from annotation_platform.storage.migration import pending_changes

    store = own_lake().store
    if dry_run:
        changes = pending_changes(store)
    else:
        with progress_bar("migrating") as progress:
            changes = migrate_lake(store, progress=progress)
    rows = [[change.key, change.about] for change in changes]
    if as_json:
        listed = [{"key": key, "change": about} for key, about in rows]
        print_json({"changes": listed, "dry_run": dry_run})
        return
    if dry_run and rows:
        print_rows(["object", "change"], rows)
    done = "would be rewritten" if dry_run else "rewritten"
    print_line(f"{len(rows)} objects {done}.")
