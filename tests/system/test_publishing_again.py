"""A version rendered from what changed is, byte for byte, the one rendered as a whole."""

import hashlib
import io
import random
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import PublishError, TableError
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.versioning.folder import Folder, build_folder
from annotation_platform.versioning.manifest import Manifest
from annotation_platform.versioning.objects import FolderObjects, name_objects
from annotation_platform.versioning.registry import open_remote
from annotation_platform.versioning.reuse import LastVersion, last_version, rendering_digest
from tests.system.worlds import World

ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=0, name="Würfel"),
        LabelClass(id=4, name="ball"),
        LabelClass(id=9, name="tip", shape="keypoint"),
    )
)


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return World(tmp_path_factory.mktemp("world"), ontology=ONTOLOGY)


def draw_image(world: World, rng: random.Random, *, points: bool) -> list[dict[str, object]]:
    """Return the rows of a random image, which the lake has then."""
    made = World(world.root, ontology=ONTOLOGY)
    labels = []
    for _ in range(rng.choice([0, 1, 1, 2, 5])):
        x, y = rng.uniform(0, 500), rng.uniform(0, 400)
        kind = rng.choice(["box", "box", "polygon", *["keypoint"] * points])
        if kind == "box":
            labels.append(Label.box(rng.choice(["Würfel", "ball"]), x, y, x + 30.5, y + 1 / 3))
        elif kind == "polygon":
            corners = [[x, y, x + 40, y, x + 20, y + 17.25]]
            labels.append(Label.polygon("ball", corners))
        else:
            labels.append(Label.keypoint("tip", x, y))
    made.add_image(rng.randbytes(rng.randint(1, 300)), "jpg", 640, 480, labels or [NOTHING])
    for row in made.rows:
        row["split"] = rng.choice(["train", "train", "val", "test"])
        row["licence"] = rng.choice([None, "CC0"])
    split, licence = made.rows[0]["split"], made.rows[0]["licence"]
    return [{**row, "split": split, "licence": licence} for row in made.rows]


def change(
    world: World, rng: random.Random, images: list[list[dict[str, object]]], *, points: bool
) -> list[list[dict[str, object]]]:
    """Return other images: some gone, some new, some with another label, split or licence."""
    whats = [
        rng.choice(["same"] * 8 + ["gone", "split", "moved", "licence", "label"]) for _ in images
    ]
    stayed = zip(images, whats, strict=True)
    changed = [changed_rows(rows, what, rng) for rows, what in stayed if what != "gone"]
    new = [draw_image(world, rng, points=points) for _ in range(rng.choice([0, 1, 4]))]
    return [*changed, *new]


def changed_rows(rows: list[dict[str, object]], what: str, rng: random.Random):
    """Return the rows of an image with one thing of it changed."""
    if what == "split":
        split = rng.choice(["train", "val", "test"])
        return [{**row, "split": split} for row in rows]
    if what == "moved":
        return [{**row, "x2": row["x2"] + 1} if row["shape"] == "box" else row for row in rows]
    if what == "licence":
        return [{**row, "licence": "MIT"} for row in rows]
    return rows[:-1] if what == "label" and len(rows) > 1 else rows


def table_of(world: World, images, rng: random.Random) -> pd.DataFrame:
    world.rows = [row for rows in images for row in rows]
    return world.table.sample(frac=1.0, random_state=rng.randrange(1000))


def no_image(image: str, extension: str) -> Path:
    raise AssertionError(f"{image}.{extension} was asked for")


def objects(folder: Folder) -> FolderObjects:
    return name_objects(folder, no_image)


def as_last(folder: Folder) -> LastVersion:
    """Return a folder, rendered as a whole, as the version before."""
    named = objects(folder)
    shards = [folder.texts[path] for path in sorted(folder.texts) if path.startswith("annot")]
    frame = pd.concat([pd.read_parquet(io.BytesIO(data)) for data in shards], ignore_index=True)
    return LastVersion(frame, named.files, named.byte_size, folder.texts)


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32), points=st.booleans())
def test_what_is_taken_over_makes_no_difference(world, seed, points):
    rng = random.Random(seed)
    first = [draw_image(world, rng, points=points) for _ in range(rng.randint(1, 25))]
    second = change(world, rng, first, points=points)
    if not second:
        return
    before = build_folder(table_of(world, first, rng), ONTOLOGY, name="set")
    table = table_of(world, second, rng)
    whole = build_folder(table, ONTOLOGY, name="set")
    again = build_folder(table, ONTOLOGY, name="set", last=as_last(before))
    assert objects(again).files == objects(whole).files
    assert objects(again).md5 == objects(whole).md5
    assert again.byte_size == whole.byte_size
    assert again.facts == whole.facts
    for path, data in again.texts.items():
        assert whole.texts[path] == data
    # Of the images that are as they were, only one may be rendered again.
    same = [rows for rows in second if rows in first]
    rendered = {path for path in again.texts if path.startswith("labels/")}
    assert len(rendered) <= len(second) - len(same) + 1


def test_one_label_id_in_two_images_is_refused_though_one_is_taken_over(world):
    rng = random.Random(5)
    images = [draw_image(world, rng, points=False) for _ in range(4)]
    table = table_of(world, images, rng)
    before = build_folder(table, ONTOLOGY, name="set")
    more = table_of(world, [draw_image(world, rng, points=False)], rng).reset_index(drop=True)
    more.loc[0, "label_id"] = images[2][0]["label_id"]
    both = pd.concat([table, more])
    with pytest.raises(TableError):
        build_folder(both, ONTOLOGY, name="set")
    with pytest.raises(PublishError, match="have a label with the same id"):
        build_folder(both, ONTOLOGY, name="set", last=as_last(before))


def test_publishing_again_reads_no_old_image_and_renders_what_the_whole_would(tmp_path):
    world = World(tmp_path)
    world.add_images(0, 60)
    first = world.publish()
    for image in (tmp_path / "lake").iterdir():
        image.unlink()
    world.add_images(60, 3)
    del world.rows[7]
    second = world.publish()
    assert (second.version, second.parent) == ("1.1.0", first.commit)
    whole = build_folder(world.table, world.ontology, name="training-set")
    named = objects(whole)
    assert second.folder_md5 == named.md5
    assert second.manifest.folder_bytes == whole.byte_size
    assert second.manifest.folder_files == len(named.files)
    # Three images with their labels, and at most what lists all images.
    assert second.uploaded_files < 2 * 3 + 16 + 3 + 12
    world.publish()
    stored = tmp_path / "remote" / "files" / "md5"
    for md5 in named.files.values():
        data = (stored / md5[:2] / md5[2:]).read_bytes()
        assert hashlib.md5(data).hexdigest() == md5


def test_a_zero_that_lost_its_sign_is_a_change(world):
    rng = random.Random(2)
    images = [draw_image(world, rng, points=False) for _ in range(6)]
    boxes = [row for rows in images for row in rows if row["shape"] == "box"]
    boxes[0]["x1"] = 0.0
    before = build_folder(table_of(world, images, rng), ONTOLOGY, name="set")
    boxes[0]["x1"] = -0.0
    table = table_of(world, images, rng)
    again = build_folder(table, ONTOLOGY, name="set", last=as_last(before))
    assert objects(again).files == objects(build_folder(table, ONTOLOGY, name="set")).files
    assert objects(again).files != objects(before).files


def test_a_remote_that_lost_files_of_the_last_version_gets_them_back(tmp_path):
    world = World(tmp_path)
    world.add_images(0, 5)
    first = world.publish()
    remote = open_remote(world.registry, str(tmp_path / "remote"))
    files = remote.read_folder(first.folder_md5)
    lost = [files["coco/val.json"], files[min(path for path in files if path < "b")]]
    remote.remove(lost)
    world.add_images(5, 1)
    second = world.publish()
    whole = objects(build_folder(world.table, world.ontology, name="training-set"))
    assert second.folder_md5 == whole.md5
    assert not remote.missing(whole.files.values())


def test_what_another_code_or_ontology_rendered_is_not_taken_over(tmp_path):
    world = World(tmp_path)
    world.add_images(0, 4)
    manifest: Manifest = world.publish().manifest
    assert manifest.rendering == rendering_digest()
    remote = open_remote(world.registry, str(tmp_path / "remote"))
    files = remote.read_folder(manifest.folder_md5)
    digest = world.ontology.digest
    assert last_version(remote, manifest, files, digest) is not None
    assert last_version(remote, replace(manifest, rendering="0" * 64), files, digest) is None
    assert last_version(remote, replace(manifest, rendering=""), files, digest) is None
    assert last_version(remote, manifest, files, "0" * 64) is None
