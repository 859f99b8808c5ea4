"""A published version in any format: every shape that was published, and its images."""

import io
import json
import signal
import sys

import numpy as np
import pytest
from PIL import Image

from annotation_platform import cli
from annotation_platform.formats.known import FORMATS
from annotation_platform.policy import Policy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import Label
from annotation_platform.versioning.registry import list_versions
from tests.core.formats.every_shape import assert_same_labels
from tests.system.worlds import World

ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=7, name="ball", color="#ff0000"),
        LabelClass(id=3, name="field", shape="polygon"),
        LabelClass(id=4, name="night", shape="choice"),
    )
)
WIDTH, HEIGHT = 64, 48


@pytest.fixture
def world(tmp_path, monkeypatch):
    """Eight images with a label of every shape in the first, and nothing in the last."""
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path / "home"))
    made = World(tmp_path, ontology=ONTOLOGY, params=Policy(ontology=ONTOLOGY).to_yaml())
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[3:9, 4:20] = True
    every = [
        Label.box("ball", 4, 5, 24, 30.5),
        Label.rotated_box("ball", 30, 20, 10, 6, 30),
        Label.polygon("field", [[30, 10, 60, 10, 30, 40]]),
        Label.mask("field", pixels),
        Label.keypoint("ball", 3, 4),
        Label.choice("night"),
    ]
    for number in range(8):
        data = io.BytesIO()
        Image.fromarray(np.full((HEIGHT, WIDTH, 3), number * 20, np.uint8)).save(data, "PNG")
        labels = every if number == 0 else every[:1] if number < 7 else []
        made.add_image(data.getvalue(), "png", WIDTH, HEIGHT, labels)
    made.publish()
    return made


@pytest.fixture
def command(capsys, monkeypatch):
    before = signal.getsignal(signal.SIGTERM)

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["annotation-platform", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        return stop.value.code, capsys.readouterr()

    yield run
    signal.signal(signal.SIGTERM, before)


def test_a_version_is_written_with_every_shape_and_its_images(world, command, tmp_path):
    tag = list_versions(world.registry)[0].tag
    table = world.table
    published = Dataset.from_training_set(table, ONTOLOGY)
    reach = ["--registry", world.registry, "--json"]
    for name, losses in {
        "webdataset": [],
        "jsonl": [],
        "coco": ["1 choice is left out", "the class list loses its colours"],
        "imagefolder": [
            "1 rotated box becomes its enclosing box",
            "1 polygon becomes its enclosing box",
            "1 mask becomes its enclosing box",
            "1 keypoint is left out",
        ],
    }.items():
        out = tmp_path / "out" / name
        code, said = command("version", "export", tag, "--format", name, "--out", out, *reach)
        assert code == 0, said.err
        facts = json.loads(said.out.splitlines()[-1])
        assert facts["losses"] == losses
        assert facts["problems"] == []
        assert (facts["images"], facts["labels"]) == (8, 12)
        assert facts["image_files"] == (0 if name == "jsonl" else 8)
        back = FORMATS[name].read(out, None).dataset
        assert set(back.images["image_id"]) == set(published.images["image_id"])
        if not losses:
            assert_same_labels(back, published)
            assert back.ontology == ONTOLOGY
        elif name == "coco":
            image_files = {path.stem: path.read_bytes() for path in out.rglob("*.png")}
            assert image_files == {
                path.stem: path.read_bytes() for path in (world.root / "lake").iterdir()
            }
    # Only what the folders are called is there, and nothing half done.
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_what_cannot_be_exported_is_one_line_and_leaves_nothing(world, command, tmp_path):
    out = tmp_path / "out"
    reach = ["--out", out, "--registry", world.registry]
    for version, known, says in (
        ("3.0.0", "coco", "no version 'training-set@v3.0.0'"),
        ("1.0.0", "cocoo", "'cocoo' is not a format"),
    ):
        code, said = command("version", "export", version, "--format", known, *reach)
        assert code == 2
        assert f"{says}" in said.err
    code, _ = command("version", "export", "1.0.0", "--format", "voc", "--strict", *reach)
    assert code == 1
    assert (out / "labelmap.txt").exists()
    code, said = command("version", "export", "1.0.0", "--format", "csv", *reach)
    assert (code, "not empty" in said.err) == (2, True)
