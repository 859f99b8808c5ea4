"""A dataset into a folder of another format, its images with it; the folder is whole or absent.

Everything is written into a folder of its own beside the one asked for, which takes that name at
the very end: whoever stops it, at whatever moment, leaves no half of a dataset under the name.
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
from annotation_platform.formats.known import Format, ImageFiles, Progress
from annotation_platform.formats.losses import sentence
from annotation_platform.schema.dataset import Dataset
from annotation_platform.storage.files import sync

_IMAGE = ("image", "images")


@dataclass(frozen=True)
class Written:
    """What lies in the folder now.

    ``losses`` are the sentences on what the format cannot hold of the dataset, ``problems`` those
    on what was left out or changed before it got there.
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
    progress: Progress | None = None,
) -> Written:
    """Read a dataset in one format and write it in another.

    Images are taken along if the format has a place for them. They are found by the file names
    that the dataset has, in ``images`` or in the source's folder; else, wherever they are below,
    by the last part of that name, if only one is called so, and in ``images`` also by image id.
    If none is there, labels go alone, and that is a problem of the answer.

    Args:
        source: The folder, or the file, that is read.
        out: The folder that is written: new, or empty.
        read_as: The format of the source.
        write_as: The format to write.
        images: The folder of the images, where the source does not have them.
        link: Whether images are linked, so that both folders share them, instead of copied.
        progress: Called with the images done and all of them.

    Raises:
        DataError: the source is not sound, ``out`` is not empty, or some images are missing.
    """
    _check_out(out)
    for place in (source, *([image_files] if image_files else [])):
        if not place.exists():
            raise DataError(f"{place}: not there. Check the path.")
    with _told_in_one_line(), _draft(out) as draft:
        reading = read_as.read(source, image_files)
        dataset = reading.dataset
        found: ImageFiles = {}
        if takes_images(write_as):
            found = read_as.unpack(source, draft / "unpacked") if read_as.unpack else {}
            # On the same disk, so that unpacked images need no second copy.
            link = link or bool(found)
            folder = source if source.is_dir() else source.parent
            found = found or _find_images(dataset, folder, image_files)
        written = _write(
            dataset, draft / "whole", write_as, found, expected=image_files is not None, link=link,
            progress=progress,
        )  # fmt: skip
        _put(draft / "whole", out)
    return replace(written, folder=out, problems=(*reading.problems, *written.problems))


def write_dataset(
    dataset: Dataset,
    out: Path,
    *,
    write_as: Format,
    image_files: ImageFiles,
    link: bool = False,
    progress: Progress | None = None,
) -> Written:
    """Write a dataset whose images are known, by image id; see ``convert`` for the rest."""
    _check_out(out)
    with _told_in_one_line(), _draft(out) as draft:
        written = _write(
            dataset, draft / "whole", write_as, image_files, expected=True, link=link,
            progress=progress,
        )  # fmt: skip
        _put(draft / "whole", out)
    return replace(written, folder=out)


def takes_images(target: Format) -> bool:
    """Return whether a format has a place for images."""
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
    """Make a folder beside ``out``, and take away what is left of it at the end."""
    draft = out.parent / f".{out.name or 'out'}.{uuid.uuid4().hex[:12]}"
    (draft / "whole").mkdir(parents=True)
    try:
        yield draft
    finally:
        shutil.rmtree(draft)


def _put(draft: Path, out: Path) -> None:
    # On disk before it has the name: else a power cut could leave empty files under it.
    with ThreadPoolExecutor(max_workers=16) as pool:
        for _ in pool.map(sync, [draft, *draft.rglob("*")]):
            pass
    try:
        # Takes the place of an empty folder, and of no other.
        draft.rename(out)
    except OSError as error:
        raise DataError(
            f"{out}: {error.strerror}. It was empty a moment ago: is somebody else writing there?"
        ) from error
    sync(out.parent)


@contextmanager
def _told_in_one_line() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataError(
            f"{error.filename or 'a file'}: {error.strerror or error}. Check the disk and the "
            "permissions, then start again: nothing was left half done."
        ) from error


def _find_images(dataset: Dataset, folder: Path, image_files: Path | None) -> dict[str, Path]:
    """Return the file of each image that has one, by image id; see ``convert``."""
    roots = [*([image_files] if image_files else []), folder]
    index: dict[str, str] | None = None
    found: dict[str, Path] = {}
    rows = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    for image_id, said in rows:
        if said:
            refuse_way_out(said, where=folder)
        path = next((root / said for root in roots if said and (root / said).is_file()), None)
        if path is None:
            index = _index(folder, image_files) if index is None else index
            keys = [f"/{PurePosixPath(said).name}", image_id, PurePosixPath(image_id).name]
            path = next((Path(index[key]) for key in keys if key in index), None)
        if path is not None:
            _refuse_way_out_by_links(path, roots)
            found[image_id] = path
    return found


def _index(folder: Path, image_files: Path | None) -> dict[str, str]:
    """Return the only image called so, by ``/`` and its name, and in ``images`` also by its id.

    What is called like an image, but for its extension, may be a mask of it: it is its image only
    where there is nothing but images. A name in ``images`` goes before one in ``folder``.
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
            str(path), 0, "a link out of the folder", "Put the file itself there, or remove it."
        )


def _write(
    dataset: Dataset,
    folder: Path,
    target: Format,
    image_files: ImageFiles,
    *,
    expected: bool,
    link: bool,
    progress: Progress | None,
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
        dataset = _placed(dataset, target.image_files(dataset))
    losses = target.losses(dataset)
    target.write(dataset, folder, image_files, progress)
    if target.image_files and image_files:
        _place(dataset, image_files, folder, link=link, progress=progress)
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
            f"{len(missing)} of {len(dataset.images)} images have no image, e.g. {missing[0]!r}. "
            "Name the folder that has them all, by file name or by image id (--images)."
        )
    if missing:
        return [f"no image was at hand for {len(missing)} images; --images names their folder"]
    return []


def _with_sizes(dataset: Dataset, image_files: ImageFiles) -> tuple[Dataset, list[str]]:
    """Return the dataset with the sizes that were unknown, and a sentence on those that are not."""
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
    told = replace(dataset, images=images.assign(width=widths, height=heights))
    if not wrong:
        return told, []
    verb = ("has another size than is said", "have another size than is said")
    return told, [f"{each}, e.g. {wrong[0]}" for each in sentence(len(wrong), _IMAGE, verb)]


def _with_names(dataset: Dataset, image_files: ImageFiles) -> Dataset:
    """Return the dataset with file names that end as the images' own do, none of them empty."""
    names = []
    rows = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    for image_id, said in rows:
        suffix = image_files[image_id].suffix if image_id in image_files else ""
        if suffix and not said.lower().endswith(suffix.lower()):
            said_path = PurePosixPath(said)
            name = said_path.with_suffix(suffix).as_posix() if said else f"{image_id}{suffix}"
        else:
            name = said
        names.append(name)
    return replace(dataset, images=dataset.images.assign(file_name=names))


def _placed(dataset: Dataset, places: list[str]) -> Dataset:
    seen: set[str] = set()
    for image_id, place in zip(dataset.images["image_id"], places, strict=True):
        refuse_way_out(place, where=Path(str(image_id)))
        if place in seen:
            raise DataError(f"two images would be {place!r}. Rename one of the two images.")
        seen.add(place)
    return replace(dataset, images=dataset.images.assign(file_name=places))


def _place(
    dataset: Dataset,
    image_files: ImageFiles,
    folder: Path,
    *,
    link: bool,
    progress: Progress | None,
) -> None:
    names = list(zip(dataset.images["image_id"], dataset.images["file_name"], strict=True))
    for done, (image_id, name) in enumerate(names, start=1):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not (link and _linked(image_files[image_id], path)):
            # Never over a file that the labels are in.
            with image_files[image_id].open("rb") as image_file, path.open("xb") as copy:
                shutil.copyfileobj(image_file, copy, 2**20)
        if progress:
            progress(done, len(names))


def _linked(image_file: Path, path: Path) -> bool:
    """Link an image, if the two are on one disk that has links."""
    try:
        os.link(image_file.resolve(), path)
    except FileExistsError:
        raise
    except OSError:
        return False
    return True
