"""Commands about quarantined images: list, export and restore them."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from annotation_platform.cli.options import AsJson
from annotation_platform.cli.output import (
    OUT,
    print_json,
    print_result,
    print_rows,
    write_output,
)
from annotation_platform.cli.registries import own_lake

app = typer.Typer(
    help="List and restore the images that cleaning quarantined.", no_args_is_help=True
)

Quarantined = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Image id, or its first eight digits or more.")
]


@app.command("list")
def quarantine_list(as_json: AsJson = False) -> None:
    """List the quarantined images, each with its reason and the measured value."""
    from annotation_platform.ingestion.quarantine import quarantined_images
    from annotation_platform.schema.tables import CleanedImages

    lake = own_lake()
    found = quarantined_images(lake.tables.read_all(CleanedImages), lake.store)
    if as_json:
        print_json({"quarantine": [asdict(each) for each in found]})
        return
    rows = [
        [(each.image_id or "–")[:12], each.round_id, each.source_key, each.reason, each.put_back]
        for each in found
    ]
    if rows:
        print_rows(["image", "round", "name", "reason", "restored"], rows)
    OUT.print(f"{len(rows)} images in quarantine")


@app.command("show")
def quarantine_show(
    image_id: Quarantined,
    out: Annotated[Path, typer.Option(help="File to write.")],
    as_json: AsJson = False,
) -> None:
    """Write the original file of a quarantined image."""
    from annotation_platform.ingestion.quarantine import find_image
    from annotation_platform.schema.keys import raw_key
    from annotation_platform.schema.tables import CleanedImages

    lake = own_lake()
    row = find_image(image_id, lake.tables.read_all(CleanedImages))
    write_output(out, lake.store.get(raw_key(str(row[CleanedImages.image_id]))))
    facts = {name: str(row[name]) for name in ("image_id", "source_key", "round_id", "reason")}
    sentence = "{source_key} of {round_id}: {reason}".format(**facts)
    print_result({**facts, "file": str(out)}, as_json, f"{sentence} → {out}")


@app.command("restore")
def quarantine_restore(
    image_id: Quarantined,
    reason: Annotated[str, typer.Option(help="Reason for restoring it; it is recorded.")] = "",
    as_json: AsJson = False,
) -> None:
    """Restore an image: the next round accepts it whatever its quality."""
    from annotation_platform.ingestion.quarantine import release
    from annotation_platform.schema.tables import CleanedImages, RawImages

    lake = own_lake()
    done = release(
        image_id,
        lake.tables.read_all(CleanedImages),
        lake.tables.read_all(RawImages),
        lake.store,
        why=reason,
        now=datetime.now(UTC),
    )
    restored = f"{done.source_key} ({done.image_id[:12]}) was restored on {done.released_at[:16]}"
    print_result(asdict(done), as_json, f"{restored}; the next round takes it.")
