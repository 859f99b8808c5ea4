"""Reading of Pascal VOC files; ``voc.py`` describes the format."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    Reading,
    files_under,
    finite_numbers,
    image_ids,
    image_row,
    image_size,
    make_dataset,
    make_ontology,
    read_text,
    refuse_link,
    refuse_way_out,
)
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology

FLAGS = ("truncated", "difficult", "occluded")
"""Elements of an object with the value 0 or 1; they are attributes of its label."""

NO_POSE = "Unspecified"
IMAGE_FOLDER = "JPEGImages/"
CLASS_IDS = "# class_ids:"
"""Beginning of the comment in ``labelmap.txt`` that holds the ontology's class ids."""

_EDGES = ["xmin", "ymin", "xmax", "ymax"]
_MOST_PIXELS = 10**9
_OF_A_CLASS = re.compile(r".*_(train|val|test|trainval)")


@dataclass(frozen=True)
class VocFile:
    """One VOC file: the file name of its image, its boxes, and a sentence per box left out.

    ``file_name`` may be empty. ``size`` is width and height in pixels, None where the file lacks
    it. A box has ``class_name``, the columns of ``geometry.BOX_COLUMNS``, maybe ``attributes``.
    """

    file_name: str
    size: tuple[int, int] | None
    boxes: tuple[dict[str, object], ...]
    problems: tuple[str, ...]


def read_voc(
    annotations: Path | Iterable[Path], images: Path | None = None, *, one_based: bool = False
) -> Reading:
    """Return the dataset of VOC files; boxes without area are left out, with a problem each.

    With ``images``, ``annotations`` are files, or the folder of ``*.xml``, and each must name an
    image in ``images``: ``file_name`` is relative to that folder, splits are empty, and classes are
    numbered from 0 in alphabetical order.

    Without ``images``, ``annotations`` is a folder in VOC's layout, as ``render_voc`` writes it, or
    a folder with XML files next to their images. Image ids are the names of the XML files; splits
    are those of ``ImageSets/Main``, including listed images without an XML file; classes and ids
    are those of ``labelmap.txt``, if it exists. ``file_name`` begins with ``JPEGImages/`` if the
    image is in that folder. Images are needed only where a file lacks its image's size.

    Raises:
        FormatError: a file is not VOC, is a link out of the folder, names an image outside it or
            no image, has a class that ``labelmap.txt`` lacks, or is in two splits.
        TypeError: ``annotations`` are files and ``images`` is missing.
    """
    if images is None:
        if not isinstance(annotations, Path):
            raise TypeError("VOC files need the folder of their images: pass images")
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
) -> Reading:
    labels = [{**box, "image_id": name} for name, file in files.items() for box in file.boxes]
    problems = tuple(problem for file in files.values() for problem in file.problems)
    return Reading(make_dataset(images, labels, ontology), problems)


def _names(files: Iterable[VocFile]) -> list[str]:
    return sorted({str(box["class_name"]) for file in files for box in file.boxes})


def _numbered(names: list[str], *, where: Path) -> Ontology:
    if not names:
        raise FormatError(
            str(where), 0, "no VOC file with an object", "Name the annotation folder."
        )
    return make_ontology(dict(enumerate(names)), where=where)


def _read_folder(folder: Path, *, one_based: bool) -> Reading:
    root = folder / "Annotations" if (folder / "Annotations").is_dir() else folder
    paths = {
        path.relative_to(root).with_suffix("").as_posix(): path
        for path in files_under(root, folder, {".xml"})
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
        images.append(image_row(key, file_name, split_of.get(key, ""), size))
    names = _names(files.values())
    ontology = _labelmap(folder / "labelmap.txt", names) or _numbered(names, where=folder)
    return _reading(images, files, ontology)


def _image(folder: Path, path: Path, file: VocFile) -> tuple[str, tuple[int, int]]:
    """Return the path in the folder, and the size in pixels, of the image that a file names."""
    name = file.file_name
    if name:
        refuse_way_out(name, where=path)
    candidates = (IMAGE_FOLDER + name, name) if name else ()
    existing = next((each for each in candidates if (folder / each).is_file()), "")
    if existing:
        refuse_link(folder / existing, folder)
    if file.size is None and not existing:
        problem = f"no size, and no image {name!r} in {folder}"
        raise FormatError(str(path), 0, problem, "Add <size> or the image.")
    return existing or name, file.size or image_size(folder / existing)


def _image_files(folder: Path) -> dict[str, str]:
    root = folder / IMAGE_FOLDER
    found: dict[str, str] = {}
    for path in files_under(root, folder, IMAGE_SUFFIXES):
        key = path.relative_to(root).with_suffix("").as_posix()
        found.setdefault(key, path.relative_to(folder).as_posix())
    return found


def _splits(folder: Path) -> dict[str, str]:
    """Return the split of each image id; lists of single classes, and ``trainval``, are ignored."""
    splits: dict[str, str] = {}
    for path in sorted((folder / "ImageSets" / "Main").glob("*.txt")):
        refuse_link(path, folder)
        if path.stem == "trainval" or _OF_A_CLASS.fullmatch(path.stem):
            continue
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            name = line.strip()
            if name and splits.setdefault(name, path.stem) != path.stem:
                problem = f"image {name!r} is also in the split {splits[name]}"
                raise FormatError(str(path), number, problem, "Remove one of the two.")
    return splits


def _labelmap(path: Path, used: list[str]) -> Ontology | None:
    """Return the classes of a ``labelmap.txt``; None if the file is missing."""
    if not path.is_file():
        return None
    refuse_link(path, path.parent)
    names: list[str] = []
    ids: list[int] | None = None
    for line in read_text(path).splitlines():
        if line.startswith(CLASS_IDS) and not line.endswith(":::"):
            words = line.removeprefix(CLASS_IDS).split()
            ids = [int(word) for word in words if word.isdecimal() and len(word) < 16]
        elif line.count(":") >= 3 and not line.startswith("# label:color_rgb:"):
            names.append(line.rsplit(":", 3)[0])
    unknown = sorted(set(used) - set(names))
    if unknown:
        problem = f"it lacks the class {unknown[0]!r}, which objects have"
        raise FormatError(str(path), 0, problem, "Add the class, or remove the file.")
    if ids is None:
        ids = list(range(len(names)))
    if not names or len(set(ids)) != len(names) or len(ids) != len(names):
        problem = "no classes, or not one id for each"
        raise FormatError(str(path), 0, problem, "Correct it, or remove the file.")
    return make_ontology(dict(zip(ids, names, strict=True)), where=path)


def read_voc_file(path: Path, *, one_based: bool = False) -> VocFile:
    """Return the content of one VOC file; a file that is not VOC is a FormatError."""
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
        # The difference is rounded, so that an edge written with six decimals comes back exactly.
        edges[:2] = [round(edge - 1, 9) for edge in edges[:2]]
    box = dict(zip(BOX_COLUMNS, edges, strict=True))
    attributes = _attributes(element, path, number)
    return {"class_name": name, **box, **({"attributes": attributes} if attributes else {})}


def _attributes(element: Element, path: Path, number: int) -> str:
    attributes: dict[str, object] = {}
    for flag in FLAGS:
        text = (element.findtext(flag) or "0").strip()
        if text.lower() not in {"0", "1", "true", "false"}:
            problem = f"object {number} has <{flag}> {text[:40]!r}, expected 0 or 1"
            raise FormatError(str(path), 0, problem, "Correct the value.")
        if text.lower() in {"1", "true"}:
            attributes[flag] = 1
    pose = (element.findtext("pose") or "").strip()
    if pose and pose != NO_POSE:
        attributes["pose"] = pose
    return json.dumps(attributes, sort_keys=True, ensure_ascii=False) if attributes else ""
