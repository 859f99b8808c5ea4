"""Registry of formats: name, title, and functions that read, write and list losses.

A format's module is imported when the format is first used.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from annotation_platform.errors import DataError, FormatError
from annotation_platform.formats.files import IMAGE_SUFFIXES, Reading, image_size

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
      other areas are converted to one of these or left out, and ``losses`` counts them;
    * ``options`` are the arguments that distinguish formats of one module.
    """

    name: str
    title: str
    read: Callable[[Path, Path | None], Reading] = field(repr=False)
    write: Callable[["Dataset", Path, ImageFiles, ImageProgress | None], None] = field(repr=False)
    losses: Callable[["Dataset"], list[str]] = field(repr=False)
    shapes: Callable[[], Collection[str]] = field(repr=False)
    image_files: Callable[["Dataset"], list[str]] | None = field(default=None, repr=False)
    options: Mapping[str, Any] = field(default_factory=dict)
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


def _plain(
    name: str,
    title: str,
    module: str,
    *,
    image_files: Callable[["Dataset"], list[str]] | None = None,
    read: Callable[[Path, Path | None], Reading] | None = None,
    shapes: Callable[[Any], Collection[str]] = lambda names: names,
    **options: Any,
) -> Format:
    """Return a format whose module has ``read_x``, ``write_x``, ``x_losses`` and ``HOLDS``.

    ``x`` is the name of the module, or of the package that it is in.
    """

    def function(kind: str) -> Any:
        functions = import_module(f"annotation_platform.formats.{module}")
        return getattr(functions, kind.format(module.partition(".")[0]))

    def write(dataset: "Dataset", folder: Path, _: ImageFiles, __: ImageProgress | None) -> None:
        function("write_{}")(dataset, folder, **options)

    return Format(
        name=name,
        title=title,
        read=read or (lambda path, _: Reading(function("read_{}")(path))),
        write=write,
        losses=lambda dataset: list(
            function("{}_losses")(
                dataset, **{key: options[key] for key in options if key == "task"}
            )
        ),
        shapes=lambda: shapes(function("HOLDS")),
        image_files=image_files,
        options=options,
    )


def _yolo(task: str, title: str) -> Format:
    def read(path: Path, image_files: Path | None) -> Reading:
        from annotation_platform.formats.yolo import read_yolo

        return Reading(read_yolo(path, sizes=_sizes(image_files, _ids), task=task))  # type: ignore[arg-type]

    return _plain(
        f"yolo-{task}",
        f"YOLO {title}: data.yaml and a text file per image",
        "yolo",
        image_files=lambda dataset: _image_paths(dataset, "images/{split}/{id}{suffix}"),
        read=read,
        shapes=lambda names: names[task],
        task=task,
    )


def _voc(name: str, title: str, *, one_based: bool) -> Format:
    def read(path: Path, _: Path | None) -> Reading:
        from annotation_platform.formats.voc import read_voc

        # VOC files usually have the image's size; where they lack it, the image must be present.
        return read_voc(path, one_based=one_based)

    return _plain(
        name,
        title,
        "voc",
        image_files=lambda dataset: _image_paths(dataset, "JPEGImages/{id}{suffix}"),
        read=read,
        one_based=one_based,
    )


def _read_kitti(path: Path, image_files: Path | None) -> Reading:
    from annotation_platform.formats.kitti import read_kitti

    return Reading(read_kitti(path, sizes=_sizes(image_files, _ids)))


def _read_createml(path: Path, image_files: Path | None) -> Reading:
    from annotation_platform.formats.createml import read_createml

    return Reading(read_createml(path, sizes=_sizes(image_files, _names)))


def _read_label_studio(path: Path, _: Path | None) -> Reading:
    from annotation_platform.formats.label_studio.reading import read_label_studio
    from annotation_platform.formats.label_studio.writing import LABEL_STUDIO_FILE

    return read_label_studio(path / LABEL_STUDIO_FILE if path.is_dir() else path)


def _read_rows(module: str, kind: str) -> Callable[[Path, Path | None], Reading]:
    def read(path: Path, _: Path | None) -> Reading:
        return Reading(getattr(import_module(module), f"read_{kind}")(path))

    return read


def _rows(name: str, title: str, kind: str, **options: Any) -> Format:
    module = "annotation_platform.formats.csv_jsonl"

    def write(dataset: "Dataset", folder: Path, _: ImageFiles, __: ImageProgress | None) -> None:
        getattr(import_module(module), f"write_{kind}")(dataset, folder, **options)

    return Format(
        name,
        title,
        _read_rows(module, kind),
        write,
        losses=lambda _: [],
        shapes=_every_shape,
        options=options,
    )


def _every_shape() -> Collection[str]:
    from annotation_platform.schema.shapes import WITH_CLASS

    return WITH_CLASS


def _write_webdataset(
    dataset: "Dataset", folder: Path, image_files: ImageFiles, progress: ImageProgress | None
) -> None:
    from annotation_platform.formats.webdataset import write_webdataset

    write_webdataset(dataset, folder, image_files=image_files, progress=progress)


def _unpack_webdataset(path: Path, folder: Path) -> dict[str, Path]:
    from annotation_platform.formats.webdataset import unpack_images

    return unpack_images(path, folder)


def _write_imagefolder(
    dataset: "Dataset", folder: Path, image_files: ImageFiles, _: ImageProgress | None
) -> None:
    from annotation_platform.formats.imagefolder import is_one_choice, write_imagefolder

    # Without images, class folders would be empty.
    whole = bool(image_files) and is_one_choice(dataset)
    write_imagefolder(dataset, folder, class_folders=whole)


def _imagefolder_paths(dataset: "Dataset") -> list[str]:
    from annotation_platform.formats.imagefolder import imagefolder_paths, is_one_choice

    return imagefolder_paths(dataset, class_folders=is_one_choice(dataset))


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
        read=_read_kitti,
    ),
    _plain("createml", "Create ML JSON", "createml", image_files=_file_names, read=_read_createml),
    _rows("csv", "CSV for programs, exact", "csv"),
    _rows("csv-spreadsheet", "CSV for spreadsheets: no cell is a formula", "csv", spreadsheet=True),
    _rows("jsonl", "JSON Lines, exact", "jsonl"),
    _plain("label-studio", "Label Studio JSON", "label_studio.writing", read=_read_label_studio),
    Format(
        "webdataset",
        "WebDataset shards, images included",
        _read_rows("annotation_platform.formats.webdataset", "webdataset"),
        _write_webdataset,
        losses=lambda _: [],
        shapes=_every_shape,
        unpack=_unpack_webdataset,
        packs_images=True,
    ),
    Format(
        "imagefolder",
        "Hugging Face imagefolder",
        _read_rows("annotation_platform.formats.imagefolder", "imagefolder"),
        _write_imagefolder,
        losses=lambda dataset: list(
            import_module("annotation_platform.formats.imagefolder").imagefolder_losses(dataset)
        ),
        shapes=lambda: import_module("annotation_platform.formats.imagefolder").HOLDS,
        image_files=_imagefolder_paths,
    ),
)

FORMATS: Mapping[str, Format] = {each.name: each for each in _ALL}
"""Every format, by name."""
