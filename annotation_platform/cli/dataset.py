"""Commands about datasets in files: convert them, inspect them, find duplicates."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annotation_platform.cli.options import (
    AsJson,
    DatasetFolder,
    with_option_groups,
)
from annotation_platform.cli.output import OUT, print_json, print_line, print_rows, progress_bar
from annotation_platform.cli.registries import own_policy

if TYPE_CHECKING:
    from annotation_platform.formats.conversion import Written

app = typer.Typer(help="Convert and inspect images and labels in files.", no_args_is_help=True)


@app.command()
@with_option_groups
def convert(
    source: Annotated[
        Path, typer.Argument(metavar="SRC", help="Folder of a dataset, or a label file.")
    ],
    read_as: Annotated[str, typer.Option("--from", help="Format to read, such as coco.")],
    write_as: Annotated[str, typer.Option("--to", help="Format to write.")],
    target: DatasetFolder,
    images: Annotated[
        Path | None, typer.Option(help="Folder of the images, if they are not in SRC.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Convert a dataset from one format to another and list what the other cannot hold."""
    from annotation_platform.formats.conversion import convert as converted
    from annotation_platform.formats.known import find_format

    with progress_bar() as progress:
        done = converted(
            source,
            target.out,
            read_as=find_format(read_as),
            write_as=find_format(write_as),
            image_files=images,
            link=target.link,
            progress=progress,
        )
    print_written(done, as_json=as_json, strict=target.strict)


def print_written(done: "Written", *, as_json: bool, strict: bool) -> None:
    """Print what was written and what the format could not hold.

    Raises:
        typer.Exit: with 1, if ``strict`` and something was lost.
    """
    if as_json:
        print_json(vars(done))
    else:
        for title, several in (("problem", done.problems), ("lost", done.losses)):
            for each in several:
                print_line(f"{title}: {each}")
        whole = "" if done.losses or done.problems else " Nothing is lost."
        print_line(
            f"{done.folder} has {done.images} images with {done.labels} labels as {done.format},"
            f" and {done.image_files} image files.{whole}"
        )
    if strict and (done.losses or done.problems):
        raise typer.Exit(1)


@app.command()
def inspect(
    folder: Annotated[str, typer.Argument(help="Folder of images, or s3://bucket/prefix.")],
    as_json: AsJson = False,
) -> None:
    """Show how cleaning would judge each file of a folder; nothing is stored."""
    from annotation_platform.ingestion.inspect import count_outcomes, inspect_files

    policy = own_policy().cleaning
    with progress_bar() as advance:
        files = inspect_files(folder, policy, progress=advance)
    if as_json:
        print_json({"files": [asdict(file) for file in files]})
        return
    if files:
        rows = [[file.path, file.outcome, file.reason, ", ".join(file.flags)] for file in files]
        print_rows(["file", "outcome", "reason", "flags"], rows)
    counts = [f"{count} {outcome}" for outcome, count in count_outcomes(files).items()]
    OUT.print(f"{len(files)} files: {', '.join(counts)}" if files else "The folder has no files.")


@app.command()
def duplicates(
    folder: Annotated[Path, typer.Argument(help="Folder of images; its subfolders are included.")],
    bits: Annotated[
        int, typer.Option(min=0, max=64, help="Maximum number of bits in which hashes differ.")
    ] = 8,
    as_json: AsJson = False,
) -> None:
    """Find duplicate groups: copies, near-duplicates, mirrored and rotated images."""
    from annotation_platform.images.duplicates import find_duplicates

    policy = own_policy().cleaning
    with progress_bar() as advance:
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
        number_of = {path: n for n, group in enumerate(found.groups, 1) for path in group}
        rows = [
            [number_of[pair.a], pair.kind, pair.distance, pair.a, pair.b] for pair in found.pairs
        ]
        print_rows(["group", "kind", "bits", "image", "duplicate of"], sorted(rows))
    if found.skipped:
        print_rows(["skipped", "why"], [[file.path, file.reason] for file in found.skipped])
    copies = sum(len(group) for group in found.groups)
    OUT.print(f"{copies} images in {len(found.groups)} groups, {len(found.skipped)} files skipped")
