"""Pascal VOC: one XML file of boxes per image, in pixels.

Coordinates are edges, as labelImg, CVAT and datumaro write them: a box of the first pixel is
``0 0 1 1``. With ``one_based`` they are what the original challenge's are, and supervision's: the
first and the last pixel that belong to the box, counted from one, so that box is ``1 1 1 1``. Edges
become ``x1 + 1, y1 + 1, x2, y2``; fractions are kept, to a millionth of a pixel. Files do not say
which of the two they are; read as they were written they give back the very edges, read as the
other they are a pixel off.

Reading loses parts and actions of objects, and whatever is not named here. Writing loses
(``voc_losses`` counts it) all that is no upright box, what joins labels to objects, and attributes
but ``difficult``, ``truncated``, ``occluded`` and ``pose``. Class ids are kept in a comment of
``labelmap.txt``. ``<depth>`` is always 3, and ``<segmented>`` 0: neither is known.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError
from xml.sax.saxutils import escape

import numpy as np
import pandas as pd
from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    check_image_ids,
    class_ids,
    files_under,
    finite_numbers,
    image_ids,
    image_size,
    make_dataset,
    make_ontology,
    read_text,
    refuse_link,
    refuse_way_out,
    split_names,
    write_files,
)
from annotation_platform.formats.losses import (
    BOXES_ONLY,
    attribute_losses,
    class_losses,
    object_losses,
    shape_losses,
)
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology

HOLDS = BOXES_ONLY
"""The shapes of this format; other areas become their enclosing boxes."""

_EDGES = ["xmin", "ymin", "xmax", "ymax"]
_FLAGS = ("truncated", "difficult", "occluded")
_NO_POSE = "Unspecified"
_MOST_PIXELS = 10**9
_DECIMALS = 6
_IMAGES = "JPEGImages/"
_IDS = "# class_ids:"
_OF_A_CLASS = re.compile(r".*_(train|val|test|trainval)")
# XML 1.0 has no place for these; the rest would be trimmed or made a blank on reading.
_NOT_IN_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]|^\\s|\\s$")


def write_voc(dataset: Dataset, folder: Path, *, one_based: bool = False) -> None:
    """Write the files of ``render_voc`` under ``folder``; images are the caller's to place."""
    write_files(render_voc(dataset, one_based=one_based), folder)


def render_voc(dataset: Dataset, *, one_based: bool = False) -> dict[str, bytes]:
    """Return the VOC files of ``dataset`` by relative path.

    They are ``Annotations/<image_id>.xml``, also for images without a box; the image ids of each
    split in ``ImageSets/Main/<split>.txt`` (``trainval.txt`` where there are no splits); and the
    classes in ``labelmap.txt``, as datumaro reads them. ``<filename>`` is the dataset's
    ``file_name``, without the leading ``JPEGImages/`` that VOC implies. Equal datasets give equal
    bytes, whatever the order of their rows.

    Raises:
        DataError: a class, its image or a place is unknown; a name is not fit for a file or XML.
    """
    class_ids(dataset)
    check_image_ids(dataset)
    images = dataset.images.sort_values("image_id", ignore_index=True)
    names = images["image_id"].tolist()
    classes = sorted(dataset.ontology.classes, key=lambda one: one.id)
    lines = [f"{one.name}:::\n" for one in classes]
    ids = " ".join(str(one.id) for one in classes)
    files = {"labelmap.txt": f"{_IDS} {ids}\n{''.join(lines)}".encode()}
    for split in split_names(images["split"]):
        rows = images.loc[images["split"] == split, "image_id"].tolist()
        path = f"ImageSets/Main/{split or 'trainval'}.txt"
        files[path] = "".join(f"{name}\n" for name in rows).encode()
    heads = _heads(images)
    objects = _objects(dataset.boxes().labels, names, one_based=one_based)
    for name, head, found in zip(names, heads, objects, strict=True):
        files[f"Annotations/{name}.xml"] = f"{head}{found}</annotation>\n".encode()
    return files


def _xml(text: str) -> str:
    if _NOT_IN_XML.search(text):
        raise DataError(f"{text!r} begins or ends blank, or has a sign that XML lacks. Rename it.")
    return escape(text)


def _heads(images: pd.DataFrame) -> list[str]:
    columns = [images[name].tolist() for name in ("file_name", "width", "height")]
    return [
        f"<annotation>\n\t<filename>{_xml(name.removeprefix(_IMAGES))}</filename>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n"
        "\t\t<depth>3</depth>\n\t</size>\n\t<segmented>0</segmented>\n"
        for name, width, height in zip(*columns, strict=True)
    ]


def _objects(labels: pd.DataFrame, names: list[str], *, one_based: bool) -> list[str]:
    """Return the objects of each image as text."""
    image = pd.Index(names).get_indexer(pd.Index(labels["image_id"]))
    edges = labels[BOX_COLUMNS].to_numpy(dtype=np.float64).round(_DECIMALS)
    if not np.isfinite(edges).all():
        place = int(np.flatnonzero(~np.isfinite(edges).all(axis=1))[0])
        raise DataError(f"image {names[image[place]]}: a box without a place. Correct the label.")
    # What an object says before its box is the same for all of a class with the same attributes.
    kinds = labels["class_name"] + "\n" + labels["attributes"]
    kind, texts = pd.factorize(kinds, sort=True)
    heads = [_object_head(*text.split("\n", 1)) for text in texts.tolist()]
    order = np.lexsort([*edges.T[::-1], kind, image])
    # Adding zero turns -0.0 into 0.0: the two would be written differently.
    edges = edges[order] + ([1.0, 1.0, 0.0, 0.0] if one_based else 0.0)
    # One long text is faster than many. Many readers want to see 12, not 12.000000.
    text = "%.6f," * edges.size % tuple(edges.ravel().tolist())
    numbers = text.replace(".000000,", ",").split(",")
    rows = zip(kind[order].tolist(), *(numbers[n:-1:4] for n in range(4)), strict=True)
    written = [
        f"{heads[number]}{x1}</xmin>\n\t\t\t<ymin>{y1}</ymin>\n\t\t\t<xmax>{x2}</xmax>\n"
        f"\t\t\t<ymax>{y2}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for number, x1, y1, x2, y2 in rows
    ]
    ends = np.cumsum(np.bincount(image, minlength=len(names))).tolist()
    return ["".join(written[start:end]) for start, end in pairwise([0, *ends])]


def _object_head(name: str, attributes: str) -> str:
    said = json.loads(attributes) if attributes else {}
    flags = "".join(f"\t\t<{flag}>{int(bool(said.get(flag)))}</{flag}>\n" for flag in _FLAGS)
    pose = _xml(str(said.get("pose") or _NO_POSE))
    return (
        f"\t<object>\n\t\t<name>{_xml(name)}</name>\n\t\t<pose>{pose}</pose>\n{flags}"
        "\t\t<bndbox>\n\t\t\t<xmin>"
    )


def voc_losses(dataset: Dataset) -> list[str]:
    """Return a sentence, with a count, on each kind of thing that writing loses or changes."""
    return [
        *shape_losses(dataset, HOLDS),
        *attribute_losses(dataset, kept=(*_FLAGS, "pose")),
        *object_losses(dataset),
        *class_losses(dataset),
    ]


@dataclass(frozen=True)
class VocReading:
    """What was read, and one sentence per box that was left out and why."""

    dataset: Dataset
    problems: tuple[str, ...]


@dataclass(frozen=True)
class VocFile:
    """One file: the image it names, perhaps empty, its boxes, and those left out and why.

    ``size`` is width and height, None where the file does not say. A box has ``class_name`` and
    the columns of ``geometry.BOX_COLUMNS``, and perhaps ``attributes``.
    """

    file_name: str
    size: tuple[int, int] | None
    boxes: tuple[dict[str, object], ...]
    problems: tuple[str, ...]


def read_voc(
    annotations: Path | Iterable[Path], images: Path | None = None, *, one_based: bool = False
) -> VocReading:
    """Return the dataset of VOC files; boxes without area are left out, and named in ``problems``.

    With ``images``, ``annotations`` are files, or the folder of ``*.xml``, and each must name a
    image in ``images``: ``file_name`` is relative to that, splits are empty, classes are
    numbered from 0 in alphabetical order.

    Without, ``annotations`` is a folder of VOC's layout, as ``render_voc`` writes it, or one of XML
    files beside their images. Image ids are the names of the XML files; splits are those of
    ``ImageSets/Main``, an image that has only an image included; classes and ids are those of
    ``labelmap.txt``, if it is there. ``file_name`` begins with ``JPEGImages/`` if the image is
    there. Images are needed only where a file does not say its size.

    Raises:
        FormatError: a file is not VOC, is a link out of the folder, names an image outside of it
            or none, has a class that ``labelmap.txt`` lacks, or is in two splits.
    """
    if images is None:
        if not isinstance(annotations, Path):
            raise TypeError("files without the folder of their images")
        return _read_folder(annotations, one_based=one_based)
    files = sorted(annotations.glob("*.xml") if isinstance(annotations, Path) else annotations)
    read = [(path, read_voc_file(path, one_based=one_based)) for path in files]
    rows: list[dict[str, object]] = []
    for path, file in read:
        name = file.file_name
        refuse_way_out(name or ".", where=path)
        if not name or not (images / name).is_file():
            raise FormatError(
                str(path),
                0,
                f"names the image {name!r}, which is not in {images}",
                "Correct <filename> or add the image.",
            )
        width, height = file.size or image_size(images / name)
        rows.append({"file_name": name, "split": "", "width": width, "height": height})
    where = annotations if isinstance(annotations, Path) else images
    ids = image_ids([str(row["file_name"]) for row in rows], where=where)
    names = _names(file for _, file in read)
    ontology = _numbered(names, where=where)
    return _reading(
        [{**row, "image_id": name} for row, name in zip(rows, ids, strict=True)],
        dict(zip(ids, (file for _, file in read), strict=True)),
        ontology,
    )


def _reading(
    images: list[dict[str, object]], files: dict[str, VocFile], ontology: Ontology
) -> VocReading:
    labels = [{**box, "image_id": name} for name, file in files.items() for box in file.boxes]
    problems = tuple(problem for file in files.values() for problem in file.problems)
    return VocReading(make_dataset(images, labels, ontology), problems)


def _names(files: Iterable[VocFile]) -> list[str]:
    return sorted({str(box["class_name"]) for file in files for box in file.boxes})


def _numbered(names: list[str], *, where: Path) -> Ontology:
    if not names:
        raise FormatError(
            str(where), 0, "no VOC file with an object", "Name the annotation folder."
        )
    return make_ontology(dict(enumerate(names)), where=where)


def _read_folder(folder: Path, *, one_based: bool) -> VocReading:
    place = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    paths = {
        path.relative_to(place).with_suffix("").as_posix(): path
        for path in files_under(place, folder, {".xml"})
    }
    files = {key: read_voc_file(path, one_based=one_based) for key, path in paths.items()}
    split_of = _splits(folder)
    image_files = _image_files(folder) if split_of.keys() - files.keys() else {}
    images: list[dict[str, object]] = []
    for key in sorted(files.keys() | (split_of.keys() & image_files.keys())):
        if key in files:
            file_name, size = _image(folder, paths[key], files[key])
        else:
            file_name, size = image_files[key], image_size(folder / image_files[key])
        images.append(
            {
                "image_id": key,
                "file_name": file_name,
                "split": split_of.get(key, ""),
                "width": size[0],
                "height": size[1],
            }
        )
    names = _names(files.values())
    ontology = _labelmap(folder / "labelmap.txt", names) or _numbered(names, where=folder)
    return _reading(images, files, ontology)


def _image(folder: Path, path: Path, file: VocFile) -> tuple[str, tuple[int, int]]:
    """Return the name, relative to the folder, and the size of the image that a file names."""
    name = file.file_name
    if name:
        refuse_way_out(name, where=path)
    places = (name if not name else _IMAGES + name, name)
    there = next((each for each in places if each and (folder / each).is_file()), "")
    if there:
        refuse_link(folder / there, folder)
    if file.size is None and not there:
        problem = f"no size, and no image {name!r} in {folder}"
        raise FormatError(str(path), 0, problem, "Add <size> or the image.")
    return there or name, file.size or image_size(folder / there)


def _image_files(folder: Path) -> dict[str, str]:
    place = folder / _IMAGES
    found: dict[str, str] = {}
    for path in files_under(place, folder, IMAGE_SUFFIXES):
        key = path.relative_to(place).with_suffix("").as_posix()
        found.setdefault(key, path.relative_to(folder).as_posix())
    return found


def _splits(folder: Path) -> dict[str, str]:
    """Return the split of each image id; the lists of single classes, and of all, are none."""
    splits: dict[str, str] = {}
    for path in sorted((folder / "ImageSets" / "Main").glob("*.txt")):
        refuse_link(path, folder)
        if path.stem == "trainval" or _OF_A_CLASS.fullmatch(path.stem):
            continue
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            name = line.strip()
            if name and splits.setdefault(name, path.stem) != path.stem:
                problem = f"image {name!r} is in the split {splits[name]} too"
                raise FormatError(str(path), number, problem, "Remove one of the two.")
    return splits


def _labelmap(path: Path, used: list[str]) -> Ontology | None:
    """Return the classes of a ``labelmap.txt``, None if it is not there."""
    if not path.is_file():
        return None
    refuse_link(path, path.parent)
    names: list[str] = []
    ids: list[int] | None = None
    for line in read_text(path).splitlines():
        if line.startswith(_IDS) and not line.endswith(":::"):
            words = line.removeprefix(_IDS).split()
            ids = [int(word) for word in words if word.isdecimal() and len(word) < 16]
        elif line.count(":") >= 3 and not line.startswith("# label:color_rgb:"):
            names.append(line.rsplit(":", 3)[0])
    unknown = sorted(set(used) - set(names))
    if unknown:
        problem = f"it lacks the class {unknown[0]!r}, which objects have"
        raise FormatError(str(path), 0, problem, "Add it, or remove the file.")
    if ids is None:
        ids = list(range(len(names)))
    if not names or len(set(ids)) != len(names) or len(ids) != len(names):
        problem = "no classes, or not an id for each"
        raise FormatError(str(path), 0, problem, "Correct it, or remove the file.")
    return make_ontology(dict(zip(ids, names, strict=True)), where=path)


def read_voc_file(path: Path, *, one_based: bool = False) -> VocFile:
    """Return what one VOC file says; one that is not VOC is a FormatError."""
    root = _parse(path)
    if root.tag != "annotation":
        raise FormatError(
            str(path), 0, f"its root is <{root.tag}>, not <annotation>", "Name VOC files only."
        )
    boxes: list[dict[str, object]] = []
    problems: list[str] = []
    for number, element in enumerate(root.iter("object"), start=1):
        box = _box(element, path, number, one_based=one_based)
        if box["x1"] >= box["x2"] or box["y1"] >= box["y2"]:  # type: ignore[operator]
            problems.append(f"{path}: object {number} ({box['class_name']}) has no area")
        else:
            boxes.append(box)
    name = (root.findtext("filename") or "").strip()
    return VocFile(name, _size(root), tuple(boxes), tuple(problems))


def _parse(path: Path) -> Element:
    try:
        root: Element = fromstring(path.read_bytes())
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise FormatError(str(path), 0, reason, "Check the path.") from error
    except ParseError as error:
        line = error.position[0]
        raise FormatError(str(path), line, "not XML", "Export the file again.") from error
    except DefusedXmlException as error:
        raise FormatError(
            str(path), 0, "XML with entities or references, which are not followed", "Remove them."
        ) from error
    return root


def _size(root: Element) -> tuple[int, int] | None:
    sides = [root.findtext(f"size/{side}") or "" for side in ("width", "height")]
    numbers = finite_numbers(sides)
    if numbers is None or min(numbers) < 1 or max(numbers) > _MOST_PIXELS:
        return None
    return int(numbers[0]), int(numbers[1])


def _box(element: Element, path: Path, number: int, *, one_based: bool) -> dict[str, object]:
    name = (element.findtext("name") or "").strip()
    edges = finite_numbers([element.findtext(f"bndbox/{edge}") or "" for edge in _EDGES])
    if not name or edges is None:
        raise FormatError(
            str(path),
            0,
            f"object {number} has no name or no box with {', '.join(_EDGES)}",
            "Correct or remove it.",
        )
    if one_based:
        # The difference is rounded: what was written with six decimals comes back as it was.
        edges[:2] = [round(edge - 1, 9) for edge in edges[:2]]
    box = dict(zip(BOX_COLUMNS, edges, strict=True))
    attributes = _attributes(element, path, number)
    return {"class_name": name, **box, **({"attributes": attributes} if attributes else {})}


def _attributes(element: Element, path: Path, number: int) -> str:
    said: dict[str, object] = {}
    for flag in _FLAGS:
        text = (element.findtext(flag) or "0").strip()
        if text.lower() not in {"0", "1", "true", "false"}:
            problem = f"object {number} has <{flag}> {text[:40]!r}, expected 0 or 1"
            raise FormatError(str(path), 0, problem, "Correct it.")
        if text.lower() in {"1", "true"}:
            said[flag] = 1
    pose = (element.findtext("pose") or "").strip()
    if pose and pose != _NO_POSE:
        said["pose"] = pose
    return json.dumps(said, sort_keys=True, ensure_ascii=False) if said else ""
