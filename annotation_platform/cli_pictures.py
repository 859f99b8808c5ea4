"""The commands about pictures: landing them, looking at them, putting them back."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress

from annotation_platform.cli_output import (
    OUT,
    AsJson,
    answer,
    looking_at_files,
    print_json,
    print_rows,
)
from annotation_platform.settings import read_settings

quarantine_app = typer.Typer(
    help="What cleaning kept out, and how to put it back.", no_args_is_help=True
)


def ingest(
    source: Annotated[
        str,
        typer.Argument(
            help="A picture, a folder, a zip or tar archive, a CSV of pictures, or s3://…"
        ),
    ],
    labels: Annotated[
        Path | None,
        typer.Option(help="Labels they have already: COCO, YOLO, Pascal VOC or Label Studio."),
    ] = None,
    labels_format: Annotated[
        str, typer.Option(help="coco, yolo, voc or label-studio; found out if not given.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Copy pictures into the landing place, where the next round takes them from."""
    from annotation_platform.landing.downloads import Downloads
    from annotation_platform.landing.labels import read_labels
    from annotation_platform.landing.places import open_landing
    from annotation_platform.landing.send import send
    from annotation_platform.params import read_params

    settings = read_settings()
    policy = read_params(settings.params_path)
    hosts = [host.strip() for host in settings.download_hosts.split(",") if host.strip()]
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("copying files", total=None)
        sent = send(
            source,
            open_landing(settings.landing_url),
            downloads=Downloads(hosts, maximum_bytes=policy.cleaning.maximum_bytes),
            policy=policy.cleaning,
            labels=read_labels(labels, labels_format or None) if labels else None,
            progress=lambda count: bar.update(task, completed=count),
        )
    if as_json:
        print_json({**asdict(sent), "landing": settings.landing_url})
    else:
        if sent.problems:
            print_rows(["where", "problem"], [[each.where, each.problem] for each in sent.problems])
        known = f", {sent.known} lay there already" if sent.known else ""
        failed = f", {len(sent.problems)} could not be sent" if sent.problems else ""
        answer({}, False, f"{sent.copied} files put into {settings.landing_url}{known}{failed}")
    if sent.problems:
        raise typer.Exit(1)


def inspect(
    folder: Annotated[str, typer.Argument(help="A folder of pictures, or s3://bucket/prefix.")],
    as_json: AsJson = False,
) -> None:
    """Say what cleaning would make of each file of a folder; nothing is stored."""
    from annotation_platform.landing.inspect import count_outcomes, inspect_files
    from annotation_platform.params import read_params

    policy = read_params(read_settings().params_path).cleaning
    with looking_at_files() as advance:
        files = inspect_files(folder, policy, progress=advance)
    if as_json:
        print_json({"files": [asdict(file) for file in files]})
        return
    if files:
        rows = [[file.path, file.outcome, file.reason, ", ".join(file.flags)] for file in files]
        print_rows(["file", "outcome", "reason", "flags"], rows)
    counts = [f"{count} {outcome}" for outcome, count in count_outcomes(files).items()]
    OUT.print(f"{len(files)} files: {', '.join(counts)}" if files else "No file there.")


def duplicates(
    folder: Annotated[Path, typer.Argument(help="Pictures; subfolders are looked at too.")],
    bits: Annotated[
        int, typer.Option(min=0, max=64, help="How many bits of a hash may differ.")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Find pictures that repeat others: copies, near copies, mirrored or turned ones."""
    from annotation_platform.images.duplicates import find_duplicates
    from annotation_platform.params import read_params

    policy = read_params(read_settings().params_path).cleaning
    with looking_at_files() as advance:
        found = find_duplicates(
            folder,
            bits=bits,
            maximum_pixels=policy.maximum_pixels,
            maximum_frames=policy.maximum_frames,
            progress=advance,
        )
    if as_json:
        print_json(asdict(found))
        return
    if found.groups:
        place = {path: number for number, group in enumerate(found.groups, 1) for path in group}
        rows = [[place[pair.a], pair.kind, pair.distance, pair.a, pair.b] for pair in found.pairs]
        print_rows(["group", "kind", "bits", "picture", "shows the same"], sorted(rows))
    if found.skipped:
        print_rows(["skipped", "why"], [[file.path, file.reason] for file in found.skipped])
    copies = sum(len(group) for group in found.groups)
    OUT.print(
        f"{copies} pictures in {len(found.groups)} groups, {len(found.skipped)} files skipped"
    )


@quarantine_app.command("list")
def quarantine_list(as_json: AsJson = False) -> None:
    """List the pictures kept out, each with the reason and the measured value."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.landing.quarantine import kept_out

    lake = lake_of(read_settings())
    kept = kept_out(lake.tables.read_all("cleaned_images"), lake.store)
    if as_json:
        print_json({"quarantine": [asdict(one) for one in kept]})
        return
    rows = [
        [(one.image_id or "–")[:12], one.round_id, one.source_key, one.reason, one.put_back]
        for one in kept
    ]
    if rows:
        print_rows(["id", "round", "name", "reason", "put back"], rows)
    OUT.print(f"{len(rows)} pictures in quarantine")


@quarantine_app.command("show")
def quarantine_show(
    image_id: Annotated[str, typer.Argument(metavar="ID", help="Eight digits of it or more.")],
    out: Annotated[Path, typer.Option(help="Where the file goes, as it landed.")],
) -> None:
    """Write the file of a picture as it landed, to look at it."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.landing.quarantine import find_picture
    from annotation_platform.storage.keys import raw_key

    lake = lake_of(read_settings())
    row = find_picture(image_id, lake.tables.read_all("cleaned_images"))
    out.write_bytes(lake.store.get(raw_key(str(row["image_id"]))))
    answer({}, False, f"{row['source_key']} of {row['round_id']}: {row['reason']} → {out}")


@quarantine_app.command("release")
def quarantine_release(
    image_id: Annotated[str, typer.Argument(metavar="ID", help="Eight digits of it or more.")],
    reason: Annotated[str, typer.Option(help="Why; kept in the record.")] = "",
    as_json: AsJson = False,
) -> None:
    """Put a picture back: it lands again, in the next round, whatever its quality."""
    from annotation_platform.landing.lake import lake_of
    from annotation_platform.landing.quarantine import release

    lake = lake_of(read_settings())
    done = release(
        image_id,
        lake.tables.read_all("cleaned_images"),
        lake.tables.read_all("raw_images"),
        lake.store,
        why=reason,
        now=datetime.now(UTC),
    )
    said = f"{done.source_key} ({done.image_id[:12]}) was put back on {done.released_at[:16]}"
    answer(asdict(done), as_json, f"{said}; it comes with the next round.")
