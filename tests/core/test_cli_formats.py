"""Conversion: every format into every other; hostile input refused; output complete or absent."""

import json
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from annotation_platform import cli
from annotation_platform.formats.conversion import convert, takes_images
from annotation_platform.formats.csv_jsonl import render_csv
from annotation_platform.formats.files import write_files
from annotation_platform.formats.known import FORMATS
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import Label
from tests.core.formats.every_shape import row


@pytest.fixture
def command(capsys, monkeypatch):
    """Return a function that runs a command and returns its exit code, output and error."""
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["annotation-platform", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        return stop.value.code, captured.out, captured.err

    yield run
    signal.signal(signal.SIGTERM, before)


def make_folder(folder, *labels, count=4):
    """Write images of 60 × 40 pixels, and the CSV of their labels: none in the first one."""
    folder.mkdir()
    random_ = np.random.default_rng(0)
    images, rows = [], []
    for number in range(count):
        image_id = f"bild-{number}"
        split = ["train", "train", "val", "test"][number % 4]
        name = f"{image_id}.png"
        pixels = random_.integers(0, 255, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
        images.append({"image_id": image_id, "file_name": name, "split": split,
                       "width": 60, "height": 40})  # fmt: skip
        boxes = [Label.box("dog", 1, 2, 30 + number, 20.5), Label.box("猫", 0, 0, 60, 40)]
        rows += [row(image_id, label) for label in (labels or boxes) if number]
    frame = pd.DataFrame(rows).astype(dict.fromkeys(BOX_COLUMNS, "float64"))
    ontology = Ontology.from_names(sorted(set(frame["class_name"])))
    write_files(render_csv(Dataset(pd.DataFrame(images), frame, ontology)), folder)
    return folder


@pytest.fixture(scope="module")
def in_every_format(tmp_path_factory):
    """Return a folder with the same boxes in every format, and its images."""
    root = tmp_path_factory.mktemp("formats")
    source = make_folder(root / "source")
    for known in FORMATS.values():
        convert(source, root / known.name, read_as=FORMATS["csv"], write_as=known)
    return root


def boxes_of(dataset):
    images = dataset.images.set_index("image_id")[["split", "width", "height"]]
    labels = dataset.boxes().labels
    boxes = sorted(
        (image_id, name, *(round(float(edge), 2) + 0.0 for edge in box))
        for image_id, name, *box in labels[["image_id", "class_name", *BOX_COLUMNS]].to_numpy()
    )
    return images.to_dict("index"), boxes


@pytest.mark.parametrize("start", FORMATS)
def test_every_format_becomes_every_other(in_every_format, tmp_path, start):
    root = in_every_format
    expected = boxes_of(FORMATS["csv"].read(root / "source", None).dataset)
    read_as = FORMATS[start]
    image_files = None if takes_images(read_as) else root / "source"
    for known in FORMATS.values():
        out = tmp_path / known.name
        done = convert(root / start, out, read_as=read_as, write_as=known, image_files=image_files)
        assert boxes_of(known.read(out, root / "source").dataset) == expected, known.name
        assert done.image_files == (4 if takes_images(known) else 0)
        assert done.problems == ()
        names = sorted(path.name for path in tmp_path.iterdir())
        assert names == sorted(each for each in FORMATS if (tmp_path / each).exists())


def test_the_command_reports_losses_and_strict_makes_them_an_error(command, tmp_path):
    outline = Label.polygon("field", [[0, 0, 40, 0, 0, 30]])
    source = make_folder(tmp_path / "source", outline, Label.box("ball", 1, 1, 9, 9))
    arguments = ["dataset", "convert", source, "--from", "csv", "--to", "voc"]
    code, out, _ = command(*arguments, "--out", tmp_path / "a")
    assert code == 0
    assert "lost: 3 polygons become their enclosing boxes" in out
    assert "4 images with 6 labels as voc, and 4 image files" in out
    code, out, _ = command(*arguments, "--out", tmp_path / "b", "--strict", "--json")
    assert code == 1
    facts = json.loads(out.splitlines()[-1])
    assert facts["losses"] == ["3 polygons become their enclosing boxes"]
    assert (facts["images"], facts["labels"], facts["image_files"]) == (4, 6, 4)
    assert sorted(path.name for path in (tmp_path / "b" / "JPEGImages").iterdir()) == [
        f"bild-{number}.png" for number in range(4)
    ]
    code, out, _ = command("dataset", "convert", tmp_path / "b", "--from", "voc", "--to", "jsonl",
                           "--out", tmp_path / "c", "--strict")  # fmt: skip
    assert (code, "Nothing is lost." in out) == (0, True)


def test_labels_are_written_without_any_image_but_not_with_some_missing(command, tmp_path):
    source = make_folder(tmp_path / "source")
    labels = tmp_path / "labels"
    labels.mkdir()
    for name in ("labels.csv", "ontology.json"):
        (source / name).rename(labels / name)
    arguments = ["dataset", "convert", labels, "--from", "csv", "--to", "yolo-detect", "--out"]
    code, out, _ = command(*arguments, tmp_path / "alone")
    assert code == 0
    assert "problem: no file was found for 4 images; --images names their folder" in out
    (tmp_path / "elsewhere").mkdir()
    for number, path in enumerate(sorted(source.glob("*.png"))):
        path.rename(tmp_path / "elsewhere" / path.name)
        if number == 2:
            break
    code, _, err = command(*arguments, tmp_path / "some", "--images", tmp_path / "elsewhere")
    assert code == 2
    assert "1 of 4 images have no file, e.g. 'bild-3'" in err
    assert not (tmp_path / "some").exists()


def test_images_elsewhere_below_are_found_by_name_and_masks_are_not_confused_with_them(tmp_path):
    source = make_folder(tmp_path / "source")
    (source / "images").mkdir()
    for path in sorted(source.glob("*.png")):
        (source / f"{path.stem}.bmp").write_bytes(b"a mask")
        path.rename(source / "images" / path.name)
    done = convert(source, tmp_path / "out", read_as=FORMATS["csv"], write_as=FORMATS["voc"])
    assert (done.image_files, done.problems) == (4, ())
    for path in (source / "images").iterdir():
        path.unlink()
    done = convert(source, tmp_path / "alone", read_as=FORMATS["csv"], write_as=FORMATS["voc"])
    assert done.image_files == 0
    assert len(done.problems) == 1


def test_images_of_another_format_keep_their_extension(tmp_path):
    source = make_folder(tmp_path / "source")
    (tmp_path / "jpg").mkdir()
    for path in sorted(source.glob("*.png")):
        with Image.open(path) as image_file:
            image_file.save(tmp_path / "jpg" / f"{path.stem}.jpg")
        path.unlink()
    for name, place in {"coco": "bild-0.jpg", "webdataset": "train-000000.tar"}.items():
        out = tmp_path / name
        done = convert(source, out, read_as=FORMATS["csv"], write_as=FORMATS[name],
                       image_files=tmp_path / "jpg")  # fmt: skip
        assert done.image_files == 4
        assert (out / place).exists()
        read = FORMATS[name].read(out, None).dataset.images
        assert sorted(read["file_name"]) == [f"bild-{number}.jpg" for number in range(4)]


def test_images_are_copied_or_linked_as_requested(tmp_path):
    source = make_folder(tmp_path / "source")
    for link in (False, True):
        out = tmp_path / str(link)
        convert(source, out, read_as=FORMATS["csv"], write_as=FORMATS["kitti"], link=link)
        image_file = out / "train" / "image_2" / "bild-0.png"
        assert image_file.read_bytes() == (source / "bild-0.png").read_bytes()
        assert image_file.samefile(source / "bild-0.png") == link


def test_a_size_that_differs_from_the_image_is_reported(tmp_path):
    source = make_folder(tmp_path / "source")
    Image.new("L", (7, 5)).save(source / "bild-3.png")
    done = convert(
        source, tmp_path / "out", read_as=FORMATS["csv"], write_as=FORMATS["imagefolder"]
    )
    assert done.problems == (
        "1 image differs from its declared size, e.g. bild-3: 7 × 5, not 60 × 40",
    )


COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 60, "height": 40}],
    "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
    "categories": [{"id": 1, "name": "cat"}],
}
BOMB = (
    '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "lol"><!ENTITY c "&b;&b;&b;&b;">]>'
    "<annotation><filename>&c;</filename></annotation>"
)
OUTSIDE = '<!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><annotation>&b;</annotation>'


def coco(folder, **image):
    (folder / "a.json").write_text(json.dumps({**COCO, "images": [COCO["images"][0] | image]}))


def coco_with_link(folder):
    coco(folder)
    (folder / "a.png").symlink_to("/etc/passwd")


def coco_with_linked_folder(folder):
    coco(folder, file_name="in/passwd")
    (folder / "in").symlink_to("/etc")


def yolo_with_link(folder):
    (folder / "data.yaml").write_text("names: [cat]\n")
    (folder / "labels").symlink_to("/etc")


def nothing(_folder):
    pass


HOSTILE = [
    pytest.param("coco", lambda f: coco(f, file_name="../../a.png"), "leads out", id="way out"),
    pytest.param("coco", lambda f: coco(f, file_name="/etc/passwd"), "absolute", id="absolute"),
    pytest.param("coco", coco_with_link, "a link out of the folder", id="link"),
    pytest.param("coco", coco_with_linked_folder, "a link out of the folder", id="linked folder"),
    pytest.param("yolo-detect", yolo_with_link, "a link", id="linked labels"),
    pytest.param("voc", lambda f: (f / "a.xml").write_text(BOMB), "entities", id="bomb"),
    pytest.param("voc", lambda f: (f / "a.xml").write_text(OUTSIDE), "entities", id="entity"),
    pytest.param(
        "jsonl", lambda f: (f / "labels.jsonl").write_text("[" * 10**5), "not JSON", id="deep"
    ),
    pytest.param("csv", nothing, "labels.csv", id="nothing there"),
    pytest.param("kitti", nothing, "no folder label_2", id="no kitti"),
    pytest.param("webdataset", nothing, "no .tar file", id="no shard"),
    pytest.param("label-studio", nothing, "label_studio.json", id="no export"),
]


@pytest.mark.parametrize(("start", "make", "says"), HOSTILE)
def test_hostile_input_is_one_line_of_error_and_leaves_nothing(
    command, tmp_path, start, make, says
):
    source = tmp_path / "source"
    source.mkdir()
    make(source)
    code, _, err = command("dataset", "convert", source, "--from", start, "--to", "imagefolder",
                           "--out", tmp_path / "out")  # fmt: skip
    assert code == 2
    assert [line for line in err.splitlines() if line.startswith("error: ") and says in line], err
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_with_content_is_left_unchanged(command, tmp_path):
    source = make_folder(tmp_path / "source")
    arguments = ["dataset", "convert", source, "--from", "csv", "--to", "coco", "--out"]
    full, file, link = (tmp_path / name for name in ("full", "file", "link"))
    full.mkdir()
    (full / "mine").write_text("mine")
    file.write_text("mine")
    link.symlink_to(full)
    for out, says in ((full, "not empty"), (file, "a file"), (link, "a link")):
        code, _, err = command(*arguments, out)
        assert code == 2
        assert f"error: {out}: {says}" in err
    assert [path.name for path in full.iterdir()] == ["mine"]
    (tmp_path / "empty").mkdir()
    assert command(*arguments, tmp_path / "empty")[0] == 0
    assert (tmp_path / "empty" / "coco" / "train.json").exists()
    code, _, err = command(*arguments, tmp_path / "x", "--from", "cocoo")
    assert code == 2
    assert "error: 'cocoo' is not a format" in err
    code, _, err = command("dataset", "convert", tmp_path / "no", *arguments[3:], tmp_path / "x")
    assert code == 2
    assert "not found" in err


@pytest.mark.parametrize("target", ["kitti", "webdataset"])
def test_an_interrupted_conversion_leaves_nothing_and_the_next_one_is_complete(tmp_path, target):
    source = make_folder(tmp_path / "source")
    for stop in (1, 2, 3, 4):

        def interrupt(done, _total, stop=stop):
            if done == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            convert(source, tmp_path / "out", read_as=FORMATS["csv"], write_as=FORMATS[target],
                    progress=interrupt)  # fmt: skip
        assert [path.name for path in tmp_path.iterdir()] == ["source"]
    done = convert(source, tmp_path / "out", read_as=FORMATS["csv"], write_as=FORMATS[target])
    assert done.image_files == 4


_AGAIN_AND_AGAIN = """
import itertools, sys
from pathlib import Path
from annotation_platform.formats.conversion import convert
from annotation_platform.formats.known import FORMATS
source, place = map(Path, sys.argv[1:])
for number in itertools.count():
    convert(source, place / f"out-{number}", read_as=FORMATS["csv"], write_as=FORMATS["voc"])
    print(number, flush=True)
"""


def test_a_killed_conversion_leaves_every_folder_complete_or_absent(tmp_path):
    source = make_folder(tmp_path / "source", count=12)
    for seed in range(3):
        place = tmp_path / str(seed)
        place.mkdir()
        arguments = [sys.executable, "-c", _AGAIN_AND_AGAIN, str(source), str(place)]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout.readline() == "0\n"
            time.sleep(random.Random(seed).uniform(0.05, 0.2))
            process.kill()
        folders = sorted(path for path in place.iterdir() if path.name.startswith("out-"))
        assert folders
        for folder in folders:
            back = FORMATS["voc"].read(folder, None).dataset
            assert (len(back.images), len(back.labels)) == (12, 22)
            assert len(list((folder / "JPEGImages").iterdir())) == 12


def test_it_needs_no_home(tmp_path):
    source = make_folder(tmp_path / "source")
    home = tmp_path / "home"
    done = subprocess.run(
        [sys.executable, "-m", "annotation_platform.cli", "dataset", "convert", "source",
         "--from", "csv", "--to", "jsonl", "--out", "out"],
        cwd=tmp_path, env={**os.environ, "ANNOTATION_HOME": str(home)}, check=False,
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not home.exists()
    assert source.exists()
