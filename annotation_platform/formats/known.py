"""Registry of formats: name, title, and functions that read, write and list losses.

A format's module is imported when the format is first used.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import IMAGE_SUFFIXES, Reading, image_size, write_files

if TYPE_CHECKING:
    from annotation_platform.schema.dataset import Dataset

ImageFiles = Mapping[str, Path]
"""Path of each available image file, by image id."""

ImageProgress = Callable[[int, int], None]
"""Function that is called with the number of items done and of all items."""


@dataclass(frozen=True)
class Format:
    """A file format of datasets.

    * ``read(path, image_files)`` reads a folder, or a file if the format has one; ``image_files``
      is the folder of the images, if it is another one. It raises the format's FormatErrors;
    * ``write(dataset, folder, image_files, progress)`` writes the labels, and the images only if
      ``packs_images``;
    * ``losses(dataset)`` returns sentences on content of this dataset that the format cannot hold;
    * ``image_files(dataset)`` returns the path of each image in the folder, in the order of
      ``dataset.images``; None if the format has no location for images;
    * ``unpack(path, folder)`` writes the images that are packed into the label files;
    * ``shapes()`` returns the names of the label shapes that it holds, also available as ``holds``:
      other areas are converted to one of these or left out, and ``losses`` counts them.
    """

    name: str
    title: str
    read: Callable[[Path, Path | None], Reading] = field(repr=False)
    write: Callable[["Dataset", Path, ImageFiles, ImageProgress | None], None] = field(repr=False)
    losses: Callable[["Dataset"], list[str]] = field(repr=False)
    shapes: Callable[[], Collection[str]] = field(repr=False)
    image_files: Callable[["Dataset"], list[str]] | None = field(default=None, repr=False)
    unpack: Callable[[Path, Path], dict[str, Path]] | None = field(default=None, repr=False)
    packs_images: bool = False

    @property
    def holds(self) -> frozenset[str]:
        """Names of the label shapes that the format holds."""
        return frozenset(self.shapes())


def find_format(name: str) -> Format:
    """Return a format by its name; an unknown name is a DataError that lists all names."""
    if name not in FORMATS:
        raise DataError(f"{name!r} is not a format. Name one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def _module(name: str) -> Any:
    return import_module(f"annotation_platform.formats.{name}")


def _plain(
    name: str,
    title: str,
    module: str,
    *,
    kind: str = "",
    image_files: Callable[["Dataset"], list[str]] | None = None,
    read: Callable[[Path, Path | None], Reading] | None = None,
    shapes: Callable[[Any], Collection[str]] = lambda names: names,
    **options: Any,
) -> Format:
    """Return a format whose module has ``read_x``, ``render_x``, ``x_losses`` and ``HOLDS``.

    ``x`` is the name of the module, or of the package that it is in; or ``kind``, and then the
    format loses nothing.
    """

    def function(form: str) -> Any:
        return getattr(_module(module), form.format(kind or module.partition(".")[0]))

    def write(dataset: "Dataset", folder: Path, _: ImageFiles, __: ImageProgress | None) -> None:
        write_files(function("render_{}")(dataset, **options), folder)

    def losses(dataset: "Dataset") -> list[str]:
        task = {key: options[key] for key in options if key == "task"}
        return [] if kind else list(function("{}_losses")(dataset, **task))

    return Format(
        name=name,
        title=title,
        read=read or (lambda path, _: Reading(function("read_{}")(path))),
        write=write,
        losses=losses,
        shapes=lambda: shapes(function("HOLDS")),
        image_files=image_files,
    )


def _yolo(task: str, title: str) -> Format:
    return _plain(
        f"yolo-{task}",
        f"YOLO {title}: data.yaml and a text file per image",
        "yolo",
        image_files=lambda dataset: _image_paths(dataset, "images/{split}/{id}{suffix}"),
        read=_read_with_sizes("yolo", _ids, task=task),
        shapes=lambda names: names[task],
        task=task,
    )


def _voc(name: str, title: str, *, one_based: bool) -> Format:
    return _plain(
        name,
        title,
        "voc",
        image_files=lambda dataset: _image_paths(dataset, "JPEGImages/{id}{suffix}"),
        # VOC files usually have the image's size; where they lack it, the image must be present.
        read=lambda path, _: _module("voc").read_voc(path, one_based=one_based),
        one_based=one_based,
    )


def _read_with_sizes(
    module: str, keys: Callable[[PurePosixPath], Sequence[str]], **options: Any
) -> Callable[[Path, Path | None], Reading]:
    """Return a function that reads labels with the sizes of the images in another folder."""

    def read(path: Path, image_files: Path | None) -> Reading:
        sizes = _sizes(image_files, keys)
        return Reading(getattr(_module(module), f"read_{module}")(path, sizes=sizes, **options))

    return read


def _read_label_studio(path: Path, _: Path | None) -> Reading:
    file = path / _module("label_studio.writing").LABEL_STUDIO_FILE if path.is_dir() else path
    reading: Reading = _module("label_studio.reading").read_label_studio(file)
    return reading


def _write_webdataset(
    dataset: "Dataset", folder: Path, image_files: ImageFiles, progress: ImageProgress | None
) -> None:
    _module("webdataset").write_webdataset(
        dataset, folder, image_files=image_files, progress=progress
    )


def _write_imagefolder(
    dataset: "Dataset", folder: Path, image_files: ImageFiles, _: ImageProgress | None
) -> None:
    imagefolder = _module("imagefolder")
    # Without images, class folders would be empty.
    whole = bool(image_files) and imagefolder.is_one_choice(dataset)
    write_files(imagefolder.render_imagefolder(dataset, class_folders=whole), folder)


def _imagefolder_paths(dataset: "Dataset") -> list[str]:
    imagefolder = _module("imagefolder")
    paths: list[str] = imagefolder.imagefolder_paths(
        dataset, class_folders=imagefolder.is_one_choice(dataset)
    )
    return paths


def _file_names(dataset: "Dataset") -> list[str]:
    names: list[str] = dataset.images["file_name"].tolist()
    return names


def _image_paths(dataset: "Dataset", form: str) -> list[str]:
    """Return the path of each image in the folder; an empty split adds no folder."""
    columns = (dataset.images[name].tolist() for name in ("image_id", "split", "file_name"))
    return [
        form.format(id=image_id, split=split, suffix=PurePosixPath(name).suffix)
        .replace("//", "/")
        .lstrip("/")
        for image_id, split, name in zip(*columns, strict=True)
    ]


def _sizes(
    folder: Path | None, keys: Callable[[PurePosixPath], Sequence[str]]
) -> dict[str, tuple[int, int]] | None:
    """Return width and height in pixels of all images in a folder, by each of an image's keys."""
    if folder is None:
        return None
    sizes: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file():
            size = image_size(path)
            for key in keys(PurePosixPath(path.relative_to(folder).as_posix())):
                if sizes.setdefault(key, size) != size:
                    problem = f"two images {key!r} have different sizes"
                    raise FormatError(str(path), 0, problem, "Name the folder of one of the two.")
    return sizes


def _ids(path: PurePosixPath) -> Sequence[str]:
    return path.with_suffix("").as_posix(), path.stem


def _names(path: PurePosixPath) -> Sequence[str]:
    return path.as_posix(), path.name


_ALL = (
    _plain("coco", "COCO JSON, a file per split", "coco", image_files=_file_names),
    _yolo("detect", "boxes"),
    _yolo("segment", "outlines"),
    _yolo("obb", "rotated boxes"),
    _yolo("pose", "boxes with keypoints"),
    _voc("voc", "Pascal VOC XML, edges counted from 0 (labelImg, CVAT, datumaro)", one_based=False),
    _voc(
        "voc-one-based",
        "Pascal VOC XML, pixels counted from 1 (VOC challenge, supervision)",
        one_based=True,
    ),
    _plain(
        "kitti",
        "KITTI, a text file per image",
        "kitti",
        image_files=lambda dataset: _image_paths(dataset, "{split}/image_2/{id}{suffix}"),
        read=_read_with_sizes("kitti", _ids),
    ),
    _plain(
        "createml",
        "Create ML JSON",
        "createml",
        image_files=_file_names,
        read=_read_with_sizes("createml", _names),
    ),
    _plain("csv", "CSV for programs, exact", "csv_jsonl", kind="csv"),
    _plain(
        "csv-spreadsheet",
        "CSV for spreadsheets: no cell is a formula",
        "csv_jsonl",
        kind="csv",
        spreadsheet=True,
    ),
    _plain("jsonl", "JSON Lines, exact", "csv_jsonl", kind="jsonl"),
    _plain("label-studio", "Label Studio JSON", "label_studio.writing", read=_read_label_studio),
    Format(
        "webdataset",
        "WebDataset shards, images included",
        lambda path, _: Reading(_module("webdataset").read_webdataset(path)),
        _write_webdataset,
        losses=lambda _: [],
        shapes=lambda: _module("csv_jsonl").HOLDS,
        unpack=lambda path, folder: _module("webdataset").unpack_images(path, folder),
        packs_images=True,
    ),
    Format(
        "imagefolder",
        "Hugging Face imagefolder",
        lambda path, _: Reading(_module("imagefolder").read_imagefolder(path)),
        _write_imagefolder,
        losses=lambda dataset: list(_module("imagefolder").imagefolder_losses(dataset)),
        shapes=lambda: _module("imagefolder").HOLDS,
        image_files=_imagefolder_paths,
    ),
)

FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}
"""Every format, by name."""
