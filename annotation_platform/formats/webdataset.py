"""WebDataset: tar files of samples, each an image and the JSON of its labels.

A shard is ``<split>-000000.tar`` (``unsplit-000000.tar`` without a split). For each image it has
``<key>.<extension>`` and ``<key>.json``: a list of the lines that ``csv_jsonl.py`` writes for that
image. A key ends at the first full stop of the name, so full stops of image ids are written as
``%2E``. ``ontology.json`` in the folder of the shards holds the classes.

Shards of equal datasets and images are equal byte by byte: sorted, without times or owners.

Writing loses nothing; without images there are only JSON members. Reading ignores members that are
neither ``.json`` nor an image, and refuses a shard with links, devices, sparse files, names that
lead out of the folder, repeated names, or a missing end.
"""

import io
import json
import shutil
import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from annotation_platform.errors import FormatError
from annotation_platform.formats.csv_jsonl import (
    jsonl_lines,
    render_ontology,
)
from annotation_platform.formats.files import (
    IMAGE_SUFFIXES,
    check_split_names,
    refuse_link,
    refuse_way_out,
    split_names,
    write_files,
)
from annotation_platform.formats.rows import DatasetRows, ontology_next_to, parse_line
from annotation_platform.schema.dataset import Dataset

UNSPLIT = "unsplit"
SHARD_BYTES = 2**28

_BLOCK = 512
_MOST_JSON = 2**26
_ESCAPES = {"%": "%25", ".": "%2E", "\\": "%5C", ":": "%3A"}


def write_webdataset(
    dataset: Dataset,
    folder: Path,
    *,
    image_files: Mapping[str, Path] | None = None,
    shard_bytes: int = SHARD_BYTES,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the shards of ``dataset`` and ``ontology.json`` into ``folder``.

    Args:
        dataset: The dataset to write; an image's extension is that of its file.
        folder: Folder of the shards; created if missing.
        image_files: Path by image id; an image without a file has only its labels in the shard.
        shard_bytes: Largest total size of a shard's members, in bytes; a shard with a single image
            may exceed it. The end of the tar and extended headers for long names are not counted.
        progress: Called with the number of images done and of all images.

    Raises:
        DataError: see ``csv_jsonl.render_csv``.
        OSError: an image cannot be read, or a shard cannot be written.
    """
    check_split_names(dataset)
    write_files(render_ontology(dataset), folder)
    lines = jsonl_lines(dataset)
    images = dataset.images.sort_values("image_id")
    done = 0
    for split in split_names(images["split"]):
        names = images.loc[images["split"] == split, "image_id"].tolist()
        shards = _Shards(folder, split or UNSPLIT, shard_bytes)
        try:
            if images.empty:
                # A folder without a shard is not a WebDataset.
                shards.begin()
            for image_id in names:
                text = ",\n".join(lines[image_id])
                shards.add(image_id, f"[{text}]\n".encode(), (image_files or {}).get(image_id))
                done += 1
                if progress:
                    progress(done, len(images))
        finally:
            shards.close()


class _Shards:
    """The shards of a split, one open at a time."""

    def __init__(self, folder: Path, name: str, most_bytes: int) -> None:
        self._folder, self._name, self._most_bytes = folder, name, most_bytes
        self._tar: tarfile.TarFile | None = None
        self._number = 0

    def add(self, image_id: str, labels: bytes, image_file: Path | None) -> None:
        """Add an image, in a new shard if the open one is full."""
        key = "".join(_ESCAPES.get(sign, sign) for sign in image_id)
        size = image_file.stat().st_size if image_file else 0
        # Each member has a header and ends at a whole block.
        needed = sum(_BLOCK + -(-each // _BLOCK) * _BLOCK for each in (len(labels), size))
        if self._tar and self._tar.offset + needed > self._most_bytes:
            self.close()
        if self._tar is None:
            self.begin()
        if image_file:
            with image_file.open("rb") as file:
                self._put(f"{key}{image_file.suffix.lower()}", size, file)
        self._put(f"{key}.json", len(labels), io.BytesIO(labels))

    def begin(self) -> None:
        """Open the next shard."""
        path = self._folder / f"{self._name}-{self._number:06d}.tar"
        self._number += 1
        # Only long or non-ASCII names have extended headers: any program can read the rest.
        self._tar = tarfile.open(path, "w", format=tarfile.PAX_FORMAT)  # noqa: SIM115

    def _put(self, name: str, size: int, file: IO[bytes]) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        assert self._tar is not None
        self._tar.addfile(member, file)

    def close(self) -> None:
        """Close the open shard, if any."""
        if self._tar:
            self._tar.close()
        self._tar = None


def read_webdataset(path: Path) -> Dataset:
    """Return the dataset of one shard, or of all ``*.tar`` in a folder.

    Raises:
        FormatError: a shard is refused for a reason in the module's docstring, its labels are not
            those of a dataset, or it is a link out of the folder.
    """
    found = DatasetRows(path)
    for shard in _shards(path):
        for sample in _samples(shard):
            for record in sample.records:
                found.add(record, 0)
    file = path / "any" if path.is_dir() else path
    return found.dataset(ontology_next_to(file))


def unpack_images(path: Path, folder: Path) -> dict[str, Path]:
    """Write the images of shards into ``folder`` and return their files, by image id.

    Files have the names of the shard's members. Nothing is written outside ``folder``.

    Raises:
        FormatError: see ``read_webdataset``.
    """
    image_files: dict[str, Path] = {}
    for number, shard in enumerate(_shards(path)):
        for sample in _samples(shard, folder / f"{number:06d}"):
            if sample.image_file and sample.records:
                image_files[str(sample.records[0].get("image_id"))] = sample.image_file
    return image_files


@dataclass
class _Sample:
    """The members of a shard with one key."""

    key: str
    records: list[dict[str, object]]
    image_file: Path | None = None
    has_labels: bool = False


def _shards(path: Path) -> list[Path]:
    shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
    for shard in shards:
        refuse_link(shard, path if path.is_dir() else path.parent)
    if not shards:
        raise FormatError(str(path), 0, "no .tar file in the folder", "Name the shards' folder.")
    return shards


def _samples(shard: Path, folder: Path | None = None) -> Iterator[_Sample]:
    """Yield the samples of a shard; their images are written into ``folder``, if given."""
    sample: _Sample | None = None
    keys: set[str] = set()
    for member, file in _members(shard):
        name = PurePosixPath(member.name)
        stem, _, suffix = name.name.partition(".")
        key = (name.parent / stem).as_posix()
        if sample is None or key != sample.key:
            if sample:
                yield _whole(sample, shard)
            if key in keys:
                problem = f"the members of {key!r} are not together, or are repeated"
                raise FormatError(str(shard), 0, problem, "Write the shard again.")
            keys.add(key)
            sample = _Sample(key, [])
        if suffix == "json":
            sample.records = _records(file, member, shard)
            sample.has_labels = True
        elif folder and f".{suffix}".lower() in IMAGE_SUFFIXES:
            if sample.image_file:
                problem = f"two images {key!r}"
                raise FormatError(str(shard), 0, problem, "Write the shard again.")
            sample.image_file = folder / member.name
            sample.image_file.parent.mkdir(parents=True, exist_ok=True)
            with sample.image_file.open("xb") as target:
                shutil.copyfileobj(file, target)
    if sample:
        yield _whole(sample, shard)


def _whole(sample: _Sample, shard: Path) -> _Sample:
    if not sample.has_labels:
        problem = f"no {f'{sample.key}.json'!r} in the shard"
        raise FormatError(str(shard), 0, problem, "Name shards of labelled images.")
    return sample


def _records(file: IO[bytes], member: tarfile.TarInfo, shard: Path) -> list[dict[str, object]]:
    # A name may contain control characters of a terminal.
    where = Path(f"{shard}: {member.name!r}")
    if member.size > _MOST_JSON:
        problem = f"{member.size} bytes of labels, at most {_MOST_JSON} are read"
        raise FormatError(str(where), 0, problem, "Check that the member holds annotations.")
    try:
        text = file.read().decode()
    except UnicodeDecodeError as error:
        raise FormatError(str(where), 0, "not UTF-8 text", "Write the shard again.") from error
    records = parse_line(text, where, 0)
    is_list = isinstance(records, list) and all(isinstance(each, dict) for each in records)
    if not is_list or len({json.dumps(each.get("image_id")) for each in records}) != 1:
        problem = "not a list of the labels of one image"
        raise FormatError(str(where), 0, problem, "Name shards that this platform wrote.")
    return list(records)


def _members(shard: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Yield the files of a tar in order; any other kind of member is a FormatError."""
    remedy = "Check that it is complete and from a trusted source, and download it again."
    names: set[str] = set()
    try:
        size = shard.stat().st_size
        # Mode r: does not decompress, so the content is not larger than the file.
        with tarfile.open(shard, "r:") as tar:
            for member in tar:
                problem = _refusal(member, size, names)
                if problem:
                    raise FormatError(f"{shard}: {member.name[:200]!r}", 0, problem, remedy)
                refuse_way_out(member.name, where=shard)
                names.add(member.name)
                file = tar.extractfile(member) if member.isreg() else None
                if file is not None:
                    yield member, file
        with shard.open("rb") as raw:
            raw.seek(max(size - 2 * _BLOCK, 0))
            if raw.read() != bytes(2 * _BLOCK):
                raise FormatError(str(shard), 0, "its end is missing", remedy)
    except (tarfile.TarError, RecursionError, ValueError) as error:
        problem = f"not a tar file that can be used ({str(error)[:80]})"
        raise FormatError(str(shard), 0, problem, remedy) from error
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise FormatError(str(shard), 0, reason, "Check the path and its disk.") from error


def _refusal(member: tarfile.TarInfo, size: int, names: set[str]) -> str:
    if not (member.isreg() or member.isdir()) or member.issparse():
        return "a link, a device or a sparse file"
    # A negative size would be read without end.
    if member.size < 0 or member.offset_data + member.size > size:
        return "it reaches beyond the file"
    if member.name in names:
        return "it is repeated"
    return ""
