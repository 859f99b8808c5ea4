"""Functions that formats share: reading text, writing files, image ids, checks of names."""

import json
import math
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from PIL import Image, UnidentifiedImageError
from pydantic import ValidationError

from annotation_platform.errors import DataError, FormatError
from annotation_platform.schema.dataset import (
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    MORE_LABEL_COLUMNS,
    Dataset,
)
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.tables.shared import SPLITS

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Reading:
    """A dataset that was read, and one sentence for each thing that was left out or changed."""

    dataset: Dataset
    problems: tuple[str, ...] = ()


def write_files(files: Mapping[str, bytes], folder: Path) -> None:
    """Write each file of ``files``, relative path to content, under ``folder``."""
    created: set[str] = set()
    for name, data in files.items():
        path = f"{folder}/{name}"
        parent = path.rpartition("/")[0]
        if parent not in created:
            Path(parent).mkdir(parents=True, exist_ok=True)
            created.add(parent)
        _write_file(path, data)


def _write_file(path: str, data: bytes) -> None:
    # For 100,000 small files, Path and a buffered writer each take as long as the system calls.
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    try:
        written = os.write(file, data)
        while written < len(data):
            written += os.write(file, data[written:])
    finally:
        os.close(file)


def refuse_link(path: Path, folder: Path) -> None:
    """Raise a FormatError if ``path`` is a link that leads out of ``folder``."""
    if path.is_symlink() and not path.resolve().is_relative_to(folder.resolve()):
        problem = f"a link out of {folder}"
        raise FormatError(str(path), 0, problem, "Replace the link by the file, or remove it.")


def files_under(root: Path, folder: Path, suffixes: Collection[str]) -> list[Path]:
    """Return the files below ``root`` with one of ``suffixes``, sorted; none without ``root``.

    A link out of ``folder``, or a link to a folder, which is not followed, is a FormatError.
    """
    refuse_link(root, folder)
    found = []
    for path in sorted(root.rglob("*")):
        if path.is_symlink() and path.is_dir():
            problem = "a link to a folder, which is not followed"
            raise FormatError(str(path), 0, problem, "Replace the link by the folder.")
        if path.suffix.lower() in suffixes:
            refuse_link(path, folder)
            found.append(path)
    return found


def files_by_key(root: Path, folder: Path, suffixes: Collection[str]) -> dict[str, Path]:
    """Return the files of ``files_under`` by their path below ``root`` without extension.

    Two files with the same key, which would share a label file, are a FormatError.
    """
    found: dict[str, Path] = {}
    for path in files_under(root, folder, suffixes):
        key = path.relative_to(root).with_suffix("").as_posix()
        if key in found:
            problem = f"{found[key].name} in the same folder has the same label file"
            raise FormatError(str(path), 0, problem, "Rename one of the two.")
        found[key] = path
    return found


def refuse_way_out(name: str, *, where: Path, line: int = 0) -> None:
    """Raise a FormatError if a file name of a dataset is absolute or leads out of its folder."""
    parts = name.replace("\\", "/").split("/")
    if ".." in parts or not parts[0] or "\0" in name or (len(parts[0]) == 2 and parts[0][1] == ":"):
        raise FormatError(
            str(where),
            line,
            f"the file name {name[:200]!r} is absolute or leads out of the folder",
            "Name files relative to the dataset's folder.",
        )


def read_text(path: Path, *, newline: str | None = None) -> str:
    """Return the UTF-8 text of ``path``; a file that cannot be read is a FormatError.

    Line ends become ``\\n``, unless ``newline`` is ``""``, which preserves them.
    """
    try:
        with path.open(encoding="utf-8-sig", newline=newline) as file:
            return file.read()
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise FormatError(str(path), 0, reason, "Check the path and its permissions.") from error
    except UnicodeDecodeError as error:
        raise FormatError(str(path), 0, "not UTF-8 text", "Save it as UTF-8.") from error


def read_json(path: Path) -> Any:
    """Return the JSON value of ``path``; a file that is not JSON is a FormatError.

    So is a file with half a surrogate pair (an escape like ``\\ud800``), which UTF-8 cannot hold.
    """
    text = read_text(path)
    try:
        data = json.loads(text)
        if "\\ud" in text.lower():
            json.dumps(data, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        problem = f"not JSON ({error.msg})"
        raise FormatError(str(path), error.lineno, problem, "Export the file again.") from error
    except (ValueError, RecursionError) as error:
        # Numbers of thousands of digits, thousands of nested brackets, half surrogate pairs.
        problem = f"not JSON that can be used ({str(error)[:80]})"
        raise FormatError(str(path), 0, problem, "Export the file again.") from error
    return data


def finite_numbers(values: Sequence[object]) -> list[float] | None:
    """Return ``values`` as floats, or None if one of them is not a finite number."""
    try:
        numbers = [float(str(value)) for value in values]
    except ValueError:
        return None
    return numbers if all(math.isfinite(number) for number in numbers) else None


def image_size(path: Path) -> tuple[int, int]:
    """Return width and height in pixels from the image's header; its pixels are not decoded."""
    try:
        with Image.open(path) as image_file:
            return image_file.size
    except (OSError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise FormatError(
            str(path), 0, "not a readable image", "Remove it or replace it."
        ) from error


def make_ontology(names: Mapping[int, str], *, where: Path) -> Ontology:
    """Return the ontology of ``names``, id to name, sorted by id; bad names are a FormatError."""
    try:
        return Ontology(classes=tuple(LabelClass(id=key, name=names[key]) for key in sorted(names)))
    except ValidationError as error:
        problem = error.errors()[0]["msg"]
        raise FormatError(
            str(where), 0, f"its classes cannot be used ({problem})", "Correct the class list."
        ) from error


def image_row(
    image_id: str, file_name: str, split: str, size: tuple[int, int]
) -> dict[str, object]:
    """Return a row of images for ``make_dataset``; ``size`` is width and height in pixels."""
    return dict(zip(IMAGE_COLUMNS, (image_id, file_name, split, *size), strict=True))


def make_dataset(
    images: list[dict[str, object]], labels: list[dict[str, object]], ontology: Ontology
) -> Dataset:
    """Return the dataset of these rows, sorted by image; columns are typed even if empty.

    Rows of labels may lack any of ``MORE_LABEL_COLUMNS``, and rows of choices the box.
    """
    image_frame = pd.DataFrame(images, columns=IMAGE_COLUMNS).astype(
        {"image_id": str, "file_name": str, "split": str, "width": "int64", "height": "int64"}
    )
    label_frame = pd.DataFrame(labels, columns=[*LABEL_COLUMNS, *MORE_LABEL_COLUMNS])
    for name, blank in MORE_LABEL_COLUMNS.items():
        label_frame[name] = label_frame[name].astype(object).fillna(blank)
    label_frame = label_frame.astype(
        {"image_id": str, "class_name": str}
        | dict.fromkeys(["x1", "y1", "x2", "y2"], "float64")
        | dict.fromkeys(MORE_LABEL_COLUMNS, str)
    )
    return Dataset(
        images=image_frame.sort_values("image_id", ignore_index=True),
        labels=label_frame.sort_values("image_id", ignore_index=True, kind="stable"),
        ontology=ontology,
    )


def image_ids(file_names: Sequence[str], *, where: Path) -> list[str]:
    """Return an id for each file name: the shortest form in which all of them differ.

    The forms are the name without folders and extension, the path without extension, and the
    path. A repeated path is a FormatError.
    """
    paths = [PurePosixPath(name) for name in file_names]
    forms = (
        [path.stem for path in paths],
        [path.with_suffix("").as_posix() if path.name else "" for path in paths],
        list(file_names),
    )
    for ids in forms:
        if len(set(ids)) == len(ids):
            return ids
    seen: set[str] = set()
    twice = next(name for name in file_names if name in seen or seen.add(name))  # type: ignore[func-returns-value]
    raise FormatError(str(where), 0, f"image {twice!r} is listed twice", "Remove one of the two.")


def check_image_ids(dataset: Dataset) -> None:
    """Raise a DataError if an image id is repeated, or is not a file name inside a folder."""
    seen: set[str] = set()
    for name in dataset.images["image_id"].tolist():
        if {"", ".", ".."} & set(name.split("/")) or any(sign in name for sign in "\0\r\n"):
            raise DataError(f"image id {name!r} is not a file name. Rename the image.")
        if name in seen:
            raise DataError(f"image id {name!r} is repeated. Rename one of the two images.")
        seen.add(name)


def check_split_names(dataset: Dataset) -> None:
    """Raise a DataError if a split cannot be the name of a folder; an empty split is valid."""
    for name in dataset.images["split"].unique().tolist():
        if name and not is_plain_name(name):
            raise DataError(f"the split {name[:200]!r} is not a folder name. Rename it.")


def is_plain_name(name: str) -> bool:
    """Return whether ``name`` can be the name of a file or folder on any system."""
    return bool(name) and name not in {".", ".."} and not any(sign in name for sign in "/\\:\0\r\n")


def split_names(present: Iterable[str]) -> list[str]:
    """Return the splits to write: train, val, test and any others; or only the empty split."""
    found = set(present)
    if found <= {""}:
        return [""]
    return [*SPLITS, *sorted(found - set(SPLITS))]


def class_ids(dataset: Dataset) -> pd.Series:
    """Return the class id of every label; an unknown class or image is a DataError."""
    ids = dataset.labels["class_name"].map(dataset.ontology.id_of)
    if ids.isna().any():
        row = dataset.labels[ids.isna()].iloc[0]
        raise DataError(
            f"image {row['image_id']}: class {row['class_name']!r} is not in the ontology "
            f"({', '.join(dataset.ontology.names)}). Add the class there or correct the label."
        )
    unknown = ~dataset.labels["image_id"].isin(dataset.images["image_id"])
    if unknown.any():
        image_id = dataset.labels.loc[unknown, "image_id"].iloc[0]
        raise DataError(
            f"image {image_id} has labels but is not in the dataset. Add the image first."
        )
    return ids.astype("int64")
