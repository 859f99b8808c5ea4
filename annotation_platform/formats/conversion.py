"""Conversion of a dataset and its images to another format; the output is complete or absent.

All files are written to a temporary folder next to the output folder, which is renamed at the end:
an interruption at any moment leaves no partial dataset under the output's name.
"""

import os
import shutil
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    check_image_ids,
    check_split_names,
    class_ids,
    image_size,
    refuse_way_out,
)
from annotation_platform.formats.known import Format, ImageFiles, ImageProgress
from annotation_platform.formats.losses import sentence
from annotation_platform.schema.dataset import Dataset
from annotation_platform.storage.files import sync

_IMAGE = ("image", "images")


@dataclass(frozen=True)
class Written:
    """Result of writing a dataset into ``folder``.

    ``losses`` are sentences on content that the format cannot hold, ``problems`` sentences on
    content that was left out or changed on reading. The counts are of the images, labels and image
    files in the folder.
    """

    folder: Path
    format: str
    images: int
    labels: int
    image_files: int
    losses: tuple[str, ...]
    problems: tuple[str, ...]


def convert(
    source: Path,
    out: Path,
    *,
    read_as: Format,
    write_as: Format,
    image_files: Path | None = None,
    link: bool = False,
    progress: ImageProgress | None = None,
) -> Written:
    """Read a dataset in one format and write it in another.

    Images are included if the format has a location for them. They are searched by the dataset's
    file names, in ``image_files`` or in the source's folder; then, in all subfolders, by the last
    part of that name, if it is unique, and in ``image_files`` also by image id. If no image is
    found, only labels are written, and ``problems`` reports it.

    Args:
        source: Folder or file to read.
        out: Folder to write: new, or empty.
        read_as: Format of the source.
        write_as: Format to write.
        image_files: Folder of the images, if the source does not contain them.
        link: Whether images are hard-linked, so that both folders share them, instead of copied.
        progress: Called with the number of images done and of all images.

    Raises:
        DataError: the source is invalid, ``out`` is not empty, or some images are missing.
    """
    _check_out(out)
    for path in (source, *([image_files] if image_files else [])):
        if not path.exists():
            raise DataError(f"{path}: not found. Check the path.")
    with _one_line_errors(), _draft(out) as draft:
        reading = read_as.read(source, image_files)
        dataset = reading.dataset
        found: ImageFiles = {}
        if takes_images(write_as):
            found = read_as.unpack(source, draft / "unpacked") if read_as.unpack else {}
            # Unpacked images are on the same disk, so that a link replaces a second copy.
            link = link or bool(found)
            folder = source if source.is_dir() else source.parent
            found = found or _find_images(dataset, folder, image_files)
        written = _write(
            dataset, draft / "whole", write_as, found, expected=image_files is not None, link=link,
            progress=progress,
        )  # fmt: skip
        _publish(draft / "whole", out)
    return replace(written, folder=out, problems=(*reading.problems, *written.problems))


def write_dataset(
    dataset: Dataset,
    out: Path,
    *,
    write_as: Format,
    image_files: ImageFiles,
    link: bool = False,
    progress: ImageProgress | None = None,
) -> Written:
    """Write a dataset with the image files given by image id; see ``convert`` for the arguments."""
    _check_out(out)
    with _one_line_errors(), _draft(out) as draft:
        written = _write(
            dataset, draft / "whole", write_as, image_files, expected=True, link=link,
            progress=progress,
        )  # fmt: skip
        _publish(draft / "whole", out)
    return replace(written, folder=out)


def takes_images(target: Format) -> bool:
    """Return whether a format has a location for images."""
    return target.packs_images or target.image_files is not None


def _check_out(out: Path) -> None:
    if out.is_symlink():
        raise DataError(f"{out}: a link. Name the folder itself.")
    if out.exists() and not out.is_dir():
        raise DataError(f"{out}: a file. Name a new folder, or an empty one.")
    if out.exists() and any(out.iterdir()):
        raise DataError(f"{out}: not empty. Name a new folder, or an empty one.")


@contextmanager
def _draft(out: Path) -> Iterator[Path]:
    """Make a temporary folder next to ``out``, and remove it at the end."""
    draft = out.parent / f".{out.name or 'out'}.{uuid.uuid4().hex[:12]}"
    (draft / "whole").mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft)


def _publish(draft: Path, out: Path) -> None:
    # Files are synced before the rename: otherwise a power cut could leave empty files in ``out``.
    with ThreadPoolExecutor(max_workers=16) as pool:
        for _ in pool.map(sync, [draft, *draft.rglob("*")]):
            pass
    try:
        # Replaces an empty folder, and fails on any other.
        draft.rename(out)
    except OSError as error:
        raise DataError(
            f"{out}: {error.strerror}. It was empty before: does another program write it?"
        ) from error
    sync(out.parent)


@contextmanager
def _one_line_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or 'a file'}: {error.strerror or error}. Check the disk and the "
            "permissions, then start again: no partial output was left."
        ) from error


def _find_images(dataset: Dataset, folder: Path, image_files: Path | None) -> dict[str, Path]:
    """Return the file of each image that has one, by image id; see ``convert``."""
    roots = [*([image_files] if image_files else []), folder]
    index: dict[str, str] | None = None
    found: dict[str, Path] = {}
    rows = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    for image_id, name in rows:
        if name:
            refuse_way_out(name, where=folder)
        path = next((root / name for root in roots if name and (root / name).is_file()), None)
        if path is None:
            index = _index(folder, image_files) if index is None else index
            keys = [f"/{PurePosixPath(name).name}", image_id, PurePosixPath(image_id).name]
            path = next((Path(index[key]) for key in keys if key in index), None)
        if path is not None:
            _refuse_way_out_by_links(path, roots)
            found[image_id] = path
    return found


def _index(folder: Path, image_files: Path | None) -> dict[str, str]:
    """Return image paths by ``/`` and unique file name, and in ``image_files`` also by image id.

    A file that differs from an image's name only in its extension may be a mask of that image.
    Therefore names without extension count only in ``image_files``, which contains only images. A
    name in ``image_files`` takes precedence over one in ``folder``.
    """
    index: dict[str, str] = {}
    for root in (image_files, folder):
        found: dict[str, list[str]] = {}
        for path in sorted(root.rglob("*")) if root else []:
            if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
                keys = {f"/{path.name}"}
                if root and root is image_files:
                    keys |= {path.relative_to(root).with_suffix("").as_posix(), path.stem}
                for key in keys:
                    found.setdefault(key, []).append(str(path))
        for key, several in found.items():
            if len(several) == 1:
                index.setdefault(key, several[0])
    return index


def _refuse_way_out_by_links(path: Path, roots: Sequence[Path]) -> None:
    real = path.resolve()
    if not any(real.is_relative_to(root.resolve()) for root in roots):
        raise FormatError(
            str(path), 0, "a link out of the folder", "Replace it by the file, or remove it."
        )


def _write(
    dataset: Dataset,
    folder: Path,
    target: Format,
    image_files: ImageFiles,
    *,
    expected: bool,
    link: bool,
    progress: ImageProgress | None,
) -> Written:
    class_ids(dataset)
    check_image_ids(dataset)
    check_split_names(dataset)
    problems: list[str] = []
    if takes_images(target):
        problems = _check_images(dataset, image_files, expected=expected)
        dataset, more = _with_sizes(dataset, image_files)
        problems += more
        dataset = _with_names(dataset, image_files)
    if target.image_files and image_files:
        dataset = _with_locations(dataset, target.image_files(dataset))
    losses = target.losses(dataset)
    target.write(dataset, folder, image_files, progress)
    if target.image_files and image_files:
        _copy_images(dataset, image_files, folder, link=link, progress=progress)
    return Written(
        folder=folder,
        format=target.name,
        images=len(dataset.images),
        labels=len(dataset.labels),
        image_files=len(image_files) if takes_images(target) else 0,
        losses=tuple(losses),
        problems=tuple(problems),
    )


def _check_images(dataset: Dataset, image_files: ImageFiles, *, expected: bool) -> list[str]:
    missing = sorted(set(dataset.images["image_id"]) - image_files.keys())
    if missing and (image_files or expected):
        raise DataError(
            f"{len(missing)} of {len(dataset.images)} images have no file, e.g. {missing[0]!r}. "
            "Name the folder with all files, by file name or by image id (--images)."
        )
    if missing:
        return [f"no file was found for {len(missing)} images; --images names their folder"]
    return []


def _with_sizes(dataset: Dataset, image_files: ImageFiles) -> tuple[Dataset, list[str]]:
    """Return the dataset with unknown sizes filled in, and a sentence on sizes that differ."""
    widths, heights, wrong = [], [], []
    images = dataset.images
    rows = zip(images["image_id"], images["width"], images["height"], strict=True)
    for image_id, width, height in rows:
        size = (int(width), int(height))
        if image_id in image_files:
            real = image_size(image_files[image_id])
            if 0 not in size and size != real:
                wrong.append(f"{image_id}: {real[0]} × {real[1]}, not {size[0]} × {size[1]}")
            size = real if 0 in size else size
        widths.append(size[0])
        heights.append(size[1])
    sized = replace(dataset, images=images.assign(width=widths, height=heights))
    if not wrong:
        return sized, []
    verb = ("differs from its declared size", "differ from their declared sizes")
    return sized, [f"{each}, e.g. {wrong[0]}" for each in sentence(len(wrong), _IMAGE, verb)]


def _with_names(dataset: Dataset, image_files: ImageFiles) -> Dataset:
    """Return the dataset with file names that have the extension of the image file, none empty."""
    names = []
    rows = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    for image_id, name in rows:
        suffix = image_files[image_id].suffix if image_id in image_files else ""
        if not suffix or name.lower().endswith(suffix.lower()):
            names.append(name)
        elif name:
            names.append(PurePosixPath(name).with_suffix(suffix).as_posix())
        else:
            names.append(f"{image_id}{suffix}")
    return replace(dataset, images=dataset.images.assign(file_name=names))


def _with_locations(dataset: Dataset, locations: list[str]) -> Dataset:
    """Return the dataset with these file names, relative to the output folder."""
    seen: set[str] = set()
    for image_id, location in zip(dataset.images["image_id"], locations, strict=True):
        refuse_way_out(location, where=Path(str(image_id)))
        if location in seen:
            raise DataError(f"two images would be {location!r}. Rename one of the two images.")
        seen.add(location)
    return replace(dataset, images=dataset.images.assign(file_name=locations))


def _copy_images(
    dataset: Dataset,
    image_files: ImageFiles,
    folder: Path,
    *,
    link: bool,
    progress: ImageProgress | None,
) -> None:
    names = list(zip(dataset.images["image_id"], dataset.images["file_name"], strict=True))
    for done, (image_id, name) in enumerate(names, start=1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (link and _linked(image_files[image_id], path)):
            # Mode x: an image must not overwrite a label file.
            with image_files[image_id].open("rb") as image_file, path.open("xb") as copy:
                shutil.copyfileobj(image_file, copy, 2**20)
        if progress:
            progress(done, len(names))


def _linked(image_file: Path, path: Path) -> bool:
    """Return whether an image was hard-linked; False if the disks differ or do not support it."""
    try:
        os.link(image_file.resolve(), path)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True
