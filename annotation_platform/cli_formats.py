"""Commands that take datasets from one format to another, and versions into any."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from annotation_platform.cli_output import OUT, AsJson, looking_at_files, print_json
from annotation_platform.cli_registry import RegistryOption, RemoteOption

if TYPE_CHECKING:
    from annotation_platform.formats.conversion import Written

Out = Annotated[Path, typer.Option("--out", help="The folder to write: new, or empty.")]
Link = Annotated[
    bool, typer.Option("--link", help="Link pictures instead of copying: both share one file.")
]
Strict = Annotated[bool, typer.Option("--strict", help="Exit with 1 if anything is lost.")]


def convert(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="A folder, or a file of labels.")],
    read_as: Annotated[str, typer.Option("--from", help="Its format, such as coco.")],
    write_as: Annotated[str, typer.Option("--to", help="The format to write.")],
    out: Out,
    pictures: Annotated[
        Path | None, typer.Option(help="Where the pictures are, if not in SRC.")
    ] = None,
    link: Link = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Turn a dataset of one format into another, and say what the other cannot hold."""
    from annotation_platform.formats.conversion import convert as converted
    from annotation_platform.formats.known import find_format

    with looking_at_files() as progress:
        done = converted(
            source,
            out,
            read_as=find_format(read_as),
            write_as=find_format(write_as),
            pictures=pictures,
            link=link,
            progress=progress,
        )
    _tell(done, as_json=as_json, strict=strict)


def export(
    version: Annotated[str, typer.Argument(help="Such as training-set@v1.2.0 or 1.2.0.")],
    write_as: Annotated[str, typer.Option("--format", help="The format to write.")],
    out: Out,
    registry: RegistryOption = "",
    remote: RemoteOption = "",
    link: Link = False,
    strict: Strict = False,
    as_json: AsJson = False,
) -> None:
    """Write a published version in a format, pictures included."""
    from annotation_platform.formats.conversion import takes_pictures, write_dataset
    from annotation_platform.formats.known import find_format
    from annotation_platform.schema.dataset import Dataset
    from annotation_platform.versioning.loading import load
    from annotation_platform.versioning.manifest import typed_tag

    target = find_format(write_as)
    tag = typed_tag(version)
    loaded = load(tag, registry=registry, remote=remote)
    dataset = Dataset.from_training_set(loaded.labels, loaded.ontology)
    with looking_at_files() as progress:
        pictures = {}
        if takes_pictures(target):
            folder = loaded.fetch(progress=progress)
            names = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
            pictures = {image_id: folder / name for image_id, name in names}
        done = write_dataset(
            dataset, out, write_as=target, pictures=pictures, link=link, progress=progress
        )
    _tell(done, as_json=as_json, strict=strict)


def _tell(done: "Written", *, as_json: bool, strict: bool) -> None:
    if as_json:
        print_json(vars(done))
    else:
        for title, several in (("problem", done.problems), ("lost", done.losses)):
            for each in several:
                OUT.print(f"{title}: {each}", markup=False, soft_wrap=True)
        whole = "" if done.losses or done.problems else " Nothing is lost."
        OUT.print(
            f"{done.folder} has {done.images} images with {done.labels} labels as {done.format},"
            f" and {done.pictures} pictures.{whole}",
            markup=False,
            soft_wrap=True,
        )
    if strict and (done.losses or done.problems):
        raise typer.Exit(1)
