"""Import of existing labels, from files of COCO, YOLO, Pascal VOC or Label Studio, into sidecars.

Labels are matched to images by name, and only where the match is unambiguous. Labels that are
unusable or have no image are reported, never guessed: an image without labels goes to annotators.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from annotation_platform.errors import DataError
from annotation_platform.formats.coco import read_coco_boxes
from annotation_platform.formats.files import IMAGE_SUFFIXES, read_json
from annotation_platform.formats.label_studio.reading import read_label_studio
from annotation_platform.formats.voc import VocFile, read_voc_file
from annotation_platform.formats.yolo import read_yolo
from annotation_platform.images.decoding import read_header, read_orientation
from annotation_platform.ingestion.sidecars import ImportedBox
from annotation_platform.policy import CleaningPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS

_LARGEST = 1e9
"""Numbers in sidecars are smaller than this."""


@dataclass(frozen=True)
class ImageLabels:
    """The labels of one image; no boxes means that it is labelled as empty.

    ``name`` is the image's name in the labels: a path, or a path without its extension.
    Boxes are in pixels of ``width`` × ``height``; both are 0 if the labels do not have the size.
    With ``shares``, boxes are in shares of the sides of the upright image instead.
    """

    name: str
    origin: str
    width: int
    height: int
    boxes: tuple[ImportedBox, ...]
    shares: bool = False


@dataclass(frozen=True)
class LabelFiles:
    """The labels of label files, by image, and one sentence for each unusable part."""

    images: tuple[ImageLabels, ...]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class MatchedLabels:
    """The labels by the names of images, and a sentence for each without an image."""

    by_image: dict[str, ImageLabels]
    unmatched: tuple[str, ...]


def read_labels(path: Path, format: str | None = None) -> LabelFiles:  # noqa: A002  user's word
    """Return the labels in a file or folder, by image name; the images are not read.

    An image with unusable labels is left out entirely and named in ``problems``. An image counts
    as labelled if COCO lists it, if it has a YOLO text file or a VOC file, or if it has a Label
    Studio annotation that was not skipped.

    Args:
        path: a COCO file or its folder; the folder of YOLO's ``data.yaml``; a VOC file or a
            folder of them, or of ``Annotations``; Label Studio's JSON export.
        format: ``coco``, ``yolo``, ``voc`` or ``label-studio``; None to detect it by the content.

    Raises:
        DataError: there are no labels, none of that format, or labels of two formats.
        FormatError: a file is not of its format, or has content that only an attack would have.
    """
    if not path.exists():
        raise DataError(f"{path}: there are no labels. Check the path.")
    name = format or _detect_format(path)
    if name not in _READERS:
        known = ", ".join(_READERS)
        raise DataError(f"labels can be {known}, not {name!r}. Choose one of them.")
    # A name that is not UTF-8 must not prevent the sidecar from being written.
    origin = path.resolve().name.encode("utf-8", "backslashreplace").decode()
    read = _READERS[name](path, f"{name}:{origin}")
    sound, problems = [], list(read.problems)
    for image in read.images:
        problem = _problem(image)
        if problem:
            problems.append(f"{path}: the labels of {image.name!r} are left out: {problem}")
        else:
            sound.append(image)
    return LabelFiles(tuple(sound), tuple(problems))


def match_labels(labels: LabelFiles, names: Collection[str]) -> MatchedLabels:
    """Return the labels that match each image.

    Labels match the image of the same path; else the only image whose path ends in the complete
    path in the labels; else the only image of the same file name. Labels without an extension are
    compared without it. If several labels match one image, it gets those with the closest name,
    and none if two are equally close.

    Args:
        labels: from ``read_labels``.
        names: relative paths of all images that land together, with ``/``.
    """
    by_file_name: dict[str, list[str]] = {}
    by_stem: dict[str, list[str]] = {}
    for name in dict.fromkeys(names):
        by_file_name.setdefault(_last(name), []).append(name)
        # Label files may land together with their images, under the same stem.
        if _has_extension(name):
            by_stem.setdefault(_last(_without_extension(name)), []).append(name)
    matches: dict[str, list[tuple[int, ImageLabels]]] = {}
    unmatched = []
    for image in labels.images:
        last = _last(image.name)
        is_stem = last not in by_file_name and not _has_extension(image.name)
        candidates = (by_stem if is_stem else by_file_name).get(last, [])
        closeness, found = _closest(candidates, image.name, is_stem=is_stem)
        if len(found) == 1:
            matches.setdefault(found[0], []).append((closeness, image))
        elif found:
            shown = ", ".join(map(repr, found[:3]))
            unmatched.append(f"{image.name!r} matches {len(found)} images: {shown}")
        else:
            unmatched.append(f"{image.name!r}: no image has that name")
    matched: dict[str, ImageLabels] = {}
    for name, rivals in matches.items():
        closest = min(closeness for closeness, _ in rivals)
        winners = [image for closeness, image in rivals if closeness == closest]
        if len(winners) == 1:
            matched[name] = winners[0]
        unmatched += [
            f"{image.name!r} is not the only label name that matches {name!r}"
            for _, image in rivals
            if matched.get(name) is not image
        ]
    return MatchedLabels(matched, tuple(unmatched))


def sidecar_labels(
    labels: ImageLabels, image: bytes, policy: CleaningPolicy
) -> dict[str, object] | None:
    """Return the ``labels`` object of an image's sidecar; see ``ingestion/sidecars.py``.

    If the labels do not have the size of their image, it is that of the upright image, from the
    header. The result is None if the header cannot be read or exceeds the limits of ``policy``:
    cleaning quarantines such an image with a reason.
    """
    width, height = labels.width, labels.height
    if not (width and height):
        try:
            width, height = _upright_size(image, policy)
        except DataError:
            return None
    across, down = (width, height) if labels.shares else (1, 1)
    boxes = [
        {
            "class": box.class_name,
            "box": [box.x1 * across, box.y1 * down, box.x2 * across, box.y2 * down],
        }
        for box in labels.boxes
    ]
    return {"origin": labels.origin, "width": width, "height": height, "boxes": boxes}


def _upright_size(image: bytes, policy: CleaningPolicy) -> tuple[int, int]:
    header = read_header(
        image, maximum_pixels=policy.maximum_pixels, maximum_frames=policy.maximum_frames
    )
    if read_orientation(image) >= 5:
        return header.height, header.width
    return header.width, header.height


def _detect_format(path: Path) -> str:
    """Return the format of a file or folder by its content; none or several are a DataError."""
    if path.is_file():
        suffix = path.suffix.lower()
        found = {_json_format(path)} if suffix == ".json" else set()
        found |= {"voc"} if suffix == ".xml" else set()
        found |= {"yolo"} if path.name == "data.yaml" else set()
    else:
        found = {_json_format(file) for file in _json_files(path)[:1]}
        found |= {"voc"} if _voc_files(path) else set()
        found |= {"yolo"} if (path / "data.yaml").is_file() else set()
    names = sorted(found - {""})
    if len(names) == 1:
        return names[0]
    problem = (
        f"labels of two formats ({', '.join(names)})" if names else "no labels of a known format"
    )
    raise DataError(
        f"{path}: {problem}. Pass a COCO or Label Studio JSON file, a folder of VOC XML files, or "
        f"YOLO's folder with data.yaml; --labels-format is one of {', '.join(_READERS)}."
    )


def _json_files(folder: Path) -> list[Path]:
    folders = (folder / "coco", folder / "annotations", folder)
    return next((files for each in folders if (files := sorted(each.glob("*.json")))), [])


def _json_format(file: Path) -> str:
    data = read_json(file)
    if isinstance(data, list):
        return "label-studio"
    return "coco" if isinstance(data, dict) and "annotations" in data else ""


def _voc_files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(path.glob("*.xml")) or sorted((path / "Annotations").glob("*.xml"))


def _coco(path: Path, origin: str) -> LabelFiles:
    return LabelFiles(_by_image(read_coco_boxes(path), origin), ())


def _label_studio(path: Path, origin: str) -> LabelFiles:
    files = [path] if path.is_file() else sorted(path.glob("*.json"))
    if len(files) != 1:
        raise DataError(f"{path}: has {len(files)} JSON files. Pass the export to read.")
    read = read_label_studio(files[0], only_boxes=True)
    return LabelFiles(_by_image(read.dataset, origin), read.problems)


def _voc(path: Path, origin: str) -> LabelFiles:
    files = _voc_files(path)
    if not files:
        raise DataError(f"{path}: has no XML file. Pass the folder of the annotations.")
    read = [(file, read_voc_file(file)) for file in files]
    problems = tuple(
        f"{'; '.join(content.problems)}. The labels of the image are left out."
        for _, content in read
        if content.problems
    )
    sound = (_voc_image(file, content, origin) for file, content in read if not content.problems)
    return LabelFiles(tuple(sound), problems)


def _voc_image(file: Path, content: VocFile, origin: str) -> ImageLabels:
    boxes = tuple(
        ImportedBox(str(box["class_name"]), *(float(str(box[edge])) for edge in BOX_COLUMNS))
        for box in content.boxes
    )
    width, height = content.size or (0, 0)
    return ImageLabels(content.file_name or file.stem, origin, width, height, boxes)


def _yolo(path: Path, origin: str) -> LabelFiles:
    folder = path if path.is_dir() else path.parent
    texts = set(_paths_under(folder / "labels", {".txt"}))
    known = texts | set(_paths_under(folder / "images", IMAGE_SUFFIXES))
    # The images may be in another folder: with a size of one pixel, boxes are shares of the sides.
    without_split = {name.partition("/")[2] for name in known}
    sizes = dict.fromkeys(known | without_split, (1, 1))
    dataset = read_yolo(folder, sizes=sizes, task="detect")
    counts = dataset.images["image_id"].value_counts()
    repeated = set(counts[counts > 1].index)
    images = [
        ImageLabels(f"{split}/{image_id}" if split else image_id, origin, 0, 0, boxes, True)
        for image_id, split, boxes in _rows(dataset)
        if image_id not in repeated
    ]
    problems = tuple(
        f"{folder}: {name!r} has labels in two splits, which are left out"
        for name in sorted(repeated)
    )
    # An image without a text file is not labelled.
    return LabelFiles(tuple(each for each in images if each.name in texts), problems)


def _paths_under(folder: Path, suffixes: Collection[str]) -> list[str]:
    return [
        file.relative_to(folder).with_suffix("").as_posix()
        for file in folder.rglob("*")
        if file.suffix.lower() in suffixes
    ]


def _by_image(dataset: Dataset, origin: str) -> tuple[ImageLabels, ...]:
    images = dataset.images.set_index("image_id")
    facts = images[["file_name", "width", "height"]].to_dict("index")
    return tuple(
        ImageLabels(
            name=str(facts[image_id]["file_name"]),
            origin=origin,
            width=int(facts[image_id]["width"]),
            height=int(facts[image_id]["height"]),
            boxes=boxes,
        )
        for image_id, _, boxes in _rows(dataset)
    )


def _rows(dataset: Dataset) -> Iterable[tuple[str, str, tuple[ImportedBox, ...]]]:
    """Yield id, split and boxes of each image."""
    columns = ["class_name", *BOX_COLUMNS]
    boxes = {
        str(key): tuple(ImportedBox(*row) for row in rows[columns].itertuples(index=False))
        for key, rows in dataset.labels.groupby("image_id")
    }
    for image_id, split in zip(dataset.images["image_id"], dataset.images["split"], strict=True):
        yield image_id, split, boxes.get(image_id, ())


_READERS: dict[str, Callable[[Path, str], LabelFiles]] = {
    "coco": _coco,
    "yolo": _yolo,
    "voc": _voc,
    "label-studio": _label_studio,
}


def _problem(image: ImageLabels) -> str:
    parts = PurePosixPath(image.name).parts
    if not parts or ".." in parts or "\0" in image.name or image.name.endswith("/"):
        return "the name is not a file name, or leads out of the folder"
    numbers = [edge for box in image.boxes for edge in (box.x1, box.y1, box.x2, box.y2)] + [
        float(image.width),
        float(image.height),
    ]
    if not all(math.isfinite(number) and abs(number) < _LARGEST for number in numbers):
        return "they contain a number that is too large"
    return ""


def _has_extension(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def _without_extension(name: str) -> str:
    path = PurePosixPath(name)
    return path.with_suffix("").as_posix() if path.name else name


def _last(name: str) -> str:
    return name.rpartition("/")[2]


def _closest(candidates: list[str], name: str, *, is_stem: bool) -> tuple[int, list[str]]:
    """Return the closest images to ``name``, and how close they are, 0 being the closest."""
    wanted = PurePosixPath(name).as_posix().lstrip("/")
    paths = {each: _without_extension(each) if is_stem else each for each in candidates}
    same = [each for each, path in paths.items() if path == wanted]
    ending = [each for each, path in paths.items() if path.endswith(f"/{wanted}")]
    return next(((n, found) for n, found in enumerate((same, ending)) if found), (2, candidates))
