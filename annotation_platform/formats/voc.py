"""Pascal VOC: one XML file of boxes per image, in pixels. Read only.

Coordinates are taken as edges, as labelImg and most tools write them, not as the one-based
pixel indices of the original challenge: the difference is at most one pixel.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import fromstring

from annotation_platform.errors import FormatError
from annotation_platform.formats.files import (
    finite_numbers,
    image_ids,
    make_dataset,
    make_ontology,
    picture_size,
)
from annotation_platform.schema.dataset import Dataset

_EDGES = ["xmin", "ymin", "xmax", "ymax"]


@dataclass(frozen=True)
class VocReading:
    """What was read, and one sentence per box that was left out and why."""

    dataset: Dataset
    problems: tuple[str, ...]


@dataclass(frozen=True)
class VocFile:
    """One file: the picture it names, perhaps empty, its boxes, and those left out and why.

    ``size`` is width and height, None where the file does not say. A box has ``class_name`` and
    the columns of ``geometry.BOX_COLUMNS``.
    """

    file_name: str
    size: tuple[int, int] | None
    boxes: tuple[dict[str, object], ...]
    problems: tuple[str, ...]


def read_voc(annotations: Path | Iterable[Path], images: Path) -> VocReading:
    """Return the dataset of VOC files, or of every ``*.xml`` in a folder; pictures in ``images``.

    Boxes without area are left out and named in ``problems``. Classes are numbered from 0 in
    alphabetical order. ``file_name`` is relative to ``images``, splits are empty. A file that is
    not VOC, or that names no picture in ``images``, is a FormatError.
    """
    files = sorted(annotations.glob("*.xml") if isinstance(annotations, Path) else annotations)
    rows: list[dict[str, object]] = []
    boxes: list[tuple[int, dict[str, object]]] = []
    problems: list[str] = []
    for path in files:
        file = read_voc_file(path)
        name = file.file_name
        if not name or not (images / name).is_file():
            raise FormatError(
                str(path),
                0,
                f"names the image {name!r}, which is not in {images}",
                "Correct <filename> or add the picture.",
            )
        width, height = file.size or picture_size(images / name)
        boxes += [(len(rows), box) for box in file.boxes]
        problems += file.problems
        rows.append({"file_name": name, "split": "", "width": width, "height": height})
    where = annotations if isinstance(annotations, Path) else images
    names = sorted({str(box["class_name"]) for _, box in boxes})
    if not names:
        raise FormatError(
            str(where), 0, "no VOC file with an object", "Name the annotation folder."
        )
    ids = image_ids([str(row["file_name"]) for row in rows], where=where)
    return VocReading(
        dataset=make_dataset(
            [{**row, "image_id": ids[number]} for number, row in enumerate(rows)],
            [{**box, "image_id": ids[number]} for number, box in boxes],
            make_ontology(dict(enumerate(names)), where=where),
        ),
        problems=tuple(problems),
    )


def read_voc_file(path: Path) -> VocFile:
    """Return what one VOC file says; one that is not VOC is a FormatError."""
    root = _parse(path)
    if root.tag != "annotation":
        raise FormatError(
            str(path), 0, f"its root is <{root.tag}>, not <annotation>", "Name VOC files only."
        )
    boxes: list[dict[str, object]] = []
    problems: list[str] = []
    for number, element in enumerate(root.iter("object"), start=1):
        box = _box(element, path, number)
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
    if numbers is None or min(numbers) < 1:
        return None
    return int(numbers[0]), int(numbers[1])


def _box(element: Element, path: Path, number: int) -> dict[str, object]:
    name = (element.findtext("name") or "").strip()
    edges = finite_numbers([element.findtext(f"bndbox/{edge}") or "" for edge in _EDGES])
    if not name or edges is None:
        raise FormatError(
            str(path),
            0,
            f"object {number} has no name or no box with {', '.join(_EDGES)}",
            "Correct or remove it.",
        )
    return {"class_name": name, **dict(zip(["x1", "y1", "x2", "y2"], edges, strict=True))}
