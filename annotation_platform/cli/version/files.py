"""Commands that write the files of a version: check it out, export it to a format."""

from pathlib import Path
from typing import Annotated

import typer

from annotation_platform.cli.dataset import print_written
from annotation_platform.cli.options import (
    AsJson,
    DatasetFolder,
    Registry,
    Version,
    with_option_groups,
)
from annotation_platform.cli.output import print_result, progress_bar
from annotation_platform.cli.registries import own_settings, registry_place


@with_option_groups
def checkout(
    version: Version,
    folder: Annotated[Path, typer.Argument(help="Folder: new, empty, or of an earlier checkout.")],
    where: Registry,
    force: Annotated[
        bool, typer.Option("--force", help="Overwrite changes made in the folder.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Check out a version, or switch to another one: only the difference is fetched."""
    from annotation_platform.schema.version_names import typed_tag
    from annotation_platform.versioning.checkout import checkout_version

    settings = own_settings()
    tag = typed_tag(version)
    with progress_bar() as progress:
        done = checkout_version(
            registry_place(settings, where.registry),
            tag,
            folder,
            remote_url=where.remote,
            force=force,
            progress=progress,
        )
    print_result(
        {**vars(done)},
        as_json,
        f"{done.folder} is at {done.tag}: {done.files} files, {done.linked} of them new there"
        f" ({done.fetched} fetched), {done.removed} removed.",
    )


@with_option_groups
def export(
    version: Version,
    write_as: Annotated[str, typer.Option("--format", help="Format to write.")],
    target: DatasetFolder,
    where: Registry,
    as_json: AsJson = False,
) -> None:
    """Write a version in another format, images included."""
    from annotation_platform.formats.conversion import takes_images, write_dataset
    from annotation_platform.formats.known import find_format
    from annotation_platform.schema.dataset import Dataset
    from annotation_platform.schema.version_names import typed_tag
    from annotation_platform.versioning.loading import load

    form = find_format(write_as)
    loaded = load(typed_tag(version), registry=where.registry, remote=where.remote)
    dataset = Dataset.from_training_set(loaded.labels, loaded.ontology)
    with progress_bar() as progress:
        files = {}
        if takes_images(form):
            folder = loaded.fetch(progress=progress)
            names = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
            files = {image_id: folder / name for image_id, name in names}
        done = write_dataset(
            dataset,
            target.out,
            write_as=form,
            image_files=files,
            link=target.link,
            progress=progress,
        )
    print_written(done, as_json=as_json, strict=target.strict)
