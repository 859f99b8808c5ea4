"""What people see where policy keeps something from them, from a lake of tables and images."""

import hashlib
import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from annotation_platform.errors import NotReadyError, SettingsError
from annotation_platform.images.decoding import decode
from annotation_platform.ingestion.lake import open_lake
from annotation_platform.labeling.backends.vendor.backend import VendorLabeling
from annotation_platform.labeling.backends.vendor.package import write_package
from annotation_platform.labeling.shown_images import ShownImages
from annotation_platform.policy import MaskingPolicy
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.tables import (
    TABLES,
    CleanedImages,
    ModelPredictions,
    PredictedImages,
    table_named,
)
from tests.core.labeling.outside import ONTOLOGY, ROUND, image_id, make_copies

WIDTH, HEIGHT = 320, 240
FACE = (100.0, 80.0, 160.0, 140.0)
MODEL, LATER_MODEL = "a" * 64, "b" * 64
POLICY = MaskingPolicy(classes=("face",), margin=0.25)
# A quarter of 60 pixels more at each side: 85 to 175, and 65 to 155.
MASKED = (slice(65, 155), slice(85, 175))
SHARED = {"profile": "labelling", "calibration": ""}


def knows(weights):
    return {"face", "boat"}


def image_file(number):
    """Return a PNG of noise, in which no two pixels are likely to be the same."""
    pixels = np.random.default_rng(number).integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG")
    return sink.getvalue()


def box(number, corners=FACE, class_name="face", score=0.3, weights=MODEL):
    edges = dict(zip(("x1", "y1", "x2", "y2"), corners, strict=True))
    return {
        "image_id": image_id(number),
        "prediction_id": f"{image_id(number)}:{class_name}:{corners[0]:g}",
        "shape": "box",
        "class_name": class_name,
        **edges,
        # A confident prediction may still be of no use to annotators.
        "score": 0.0,
        "raw_score": score,
        "weights_sha256": weights,
        **SHARED,
    }


def look(lake, boxes, images, round_id=ROUND, weights=MODEL):
    """Write what a model found in some images."""
    about = {"passes": 1, "predictions": 0, "dropped": 0, "seconds": 0.1, "device": "cpu"}
    looks = [
        {"round_id": round_id, "image_id": image_id(n), "weights": weights, **SHARED, **about}
        for n in images
    ]
    lake.tables.write(PredictedImages, round_id, PredictedImages.from_rows(looks))
    rows = [{"round_id": round_id, **each} for each in boxes]
    lake.tables.write(ModelPredictions, round_id, ModelPredictions.from_rows(rows))


def fill_lake(lake):
    """Put four accepted images into a lake."""
    rows = []
    for number in range(4):
        data = image_file(number)
        lake.store.put(image_key(image_id(number), "png"), data)
        rows.append(
            {
                "round_id": ROUND,
                "source_key": f"{number}.png",
                "arrival_version": "1",
                "image_id": image_id(number),
                "outcome": "accepted",
                "reason": "",
                "width": WIDTH,
                "height": HEIGHT,
                "extension": "png",
                "stored_sha256": hashlib.sha256(data).hexdigest(),
                "stored_md5": hashlib.md5(data).hexdigest(),
                "stored_bytes": len(data),
            }
        )
    lake.tables.write(CleanedImages, ROUND, _filled("cleaned_images", rows))


@pytest.fixture(params=["in the lake", "elsewhere"])
def lake(request, tmp_path):
    """A lake with four accepted images, without predictions."""
    shown = tmp_path / "elsewhere" if request.param == "elsewhere" else tmp_path / "lake" / "shown"
    lake = open_lake(tmp_path / "lake", tmp_path / "landing", shown=str(shown))
    fill_lake(lake)
    return lake


def _filled(name, rows):
    """Return a table whose columns that do not matter here hold something."""
    empty = {"string[pyarrow]": "", "int64": 0, "float64": 0.0}
    columns = TABLES[name].columns.items()
    fill = {key: None if each.nullable else empty[str(each.dtype)] for key, each in columns}
    return table_named(name).from_rows([{**fill, **row} for row in rows])


def test_without_classes_to_mask_people_see_the_images_and_no_model_is_needed(lake):
    image_files = ShownImages(lake, MaskingPolicy(), knows)
    wanted = [image_id(1), image_id(0)]
    assert image_files.keys(wanted) == {image: image_key(image, "png") for image in wanted}
    assert image_files.masked(wanted) == 0
    assert not list(lake.store.list("shown"))


def test_a_face_is_masked_and_what_has_none_is_as_it_was(lake, tmp_path):
    look(lake, [box(0), box(1, score=0.19), box(2, class_name="boat", score=0.9)], range(4))
    image_files = ShownImages(lake, POLICY, knows)
    wanted = [image_id(number) for number in range(4)]
    keys = image_files.keys(wanted)
    assert all(key.startswith(f"shown/images/{image}-") for image, key in keys.items())
    assert image_files.masked(wanted) == 1
    for number, image in enumerate(wanted):
        before = decode(image_file(number))
        seen = decode(lake.store.get(keys[image]))
        same = (seen == before).all(axis=-1)
        expected = np.ones_like(same)
        if number == 0:
            assert same[MASKED].mean() < 0.01
            expected[MASKED] = same[MASKED]
        assert (same == expected).all()
    assert lake.store.get(keys[wanted[1]]) == image_file(1)
    assert ShownImages(lake, POLICY, knows).keys(wanted) == keys
    elsewhere = tmp_path / "elsewhere"
    assert elsewhere.exists() == (not (tmp_path / "lake" / "shown").exists())


def test_what_no_model_has_looked_at_is_shown_to_nobody(lake):
    look(lake, [], [0, 1])
    image_files = ShownImages(lake, POLICY, knows)
    image_files.check([image_id(0), image_id(1)])
    for asked in (image_files.check, image_files.keys):
        with pytest.raises(NotReadyError, match=r"1 of 3 images .*face.*model_predictions"):
            asked([image_id(n) for n in range(3)])
    assert not list(lake.store.list("shown"))
    assert image_files.showable([image_id(n) for n in range(4)]) == {image_id(0), image_id(1)}


def test_a_class_that_the_model_does_not_know_is_no_mask(lake):
    look(lake, [], [0])
    image_files = ShownImages(lake, MaskingPolicy(classes=("face", "plate")), knows)
    with pytest.raises(SettingsError, match=r"plate is not a class .*boat, face"):
        image_files.keys([image_id(0)])
    # Of several models that looked together one is enough.
    look(lake, [], [0], weights=f"{MODEL},{LATER_MODEL}")
    each = {MODEL: {"face"}, LATER_MODEL: {"plate"}}
    ShownImages(lake, MaskingPolicy(classes=("face", "plate")), each.get).check([image_id(0)])


def test_the_latest_look_counts_and_another_mask_is_another_image(lake):
    look(lake, [box(0)], [0, 1])
    first = ShownImages(lake, POLICY, knows).keys([image_id(0)])
    moved = (200.0, 80.0, 260.0, 140.0)
    look(lake, [box(0, moved, weights=LATER_MODEL)], [0], "round-0002", LATER_MODEL)
    second = ShownImages(lake, POLICY, knows).keys([image_id(0), image_id(1)])
    assert second[image_id(0)] != first[image_id(0)]
    seen, before = decode(lake.store.get(second[image_id(0)])), decode(image_file(0))
    assert (seen[MASKED[0], :185] == before[MASKED[0], :185]).all()
    assert (seen[65:155, 185:275] == before[65:155, 185:275]).all(axis=-1).mean() < 0.01
    grey = ShownImages(lake, POLICY.model_copy(update={"style": "grey"}), knows)
    assert grey.keys([image_id(0)])[image_id(0)] not in {*first.values(), *second.values()}


def test_a_package_holds_the_masked_images_and_nothing_of_the_originals(lake, tmp_path):
    labeling = VendorLabeling(lake.store)
    before = make_copies(2, 2)
    bare = {image_id(n): image_key(image_id(n), "png") for n in range(2)}
    # Noted before anything was masked: what goes out from now on is masked all the same.
    labeling.publish(ROUND, ONTOLOGY, _showing(before, bare))
    look(lake, [box(0), box(1)], [0, 1])
    keys = ShownImages(lake, POLICY, knows).keys(bare)
    closed = {(before[0].task_id, before[0].assignment)}
    labeling.publish(ROUND, ONTOLOGY, _showing(before, keys), closed=closed)
    for form in ("label-studio", "coco", "pybossa"):
        manifest = labeling.make_package(ROUND, vendor="acme")
        out = tmp_path / f"{form}.zip"
        write_package(manifest, labeling.replicas(ROUND), lake.store, out, form=form)
        with zipfile.ZipFile(out) as archive:
            files = {name: archive.read(name) for name in archive.namelist()}
        everything = out.read_bytes()
        for number, image in enumerate(bare):
            original = image_file(number)
            for trace in (original, hashlib.sha256(original).hexdigest().encode()):
                assert trace not in everything
            assert f"{image}.png".encode() not in everything
            [packed] = [data for name, data in files.items() if name.startswith(f"images/{image}-")]
            same = (decode(packed) == decode(original)).all(axis=-1)
            assert same[MASKED].mean() < 0.01
            same[MASKED] = True
            assert same.all()


def _showing(replicas, keys):
    return [replace(replica, image_key=keys[replica.image_id]) for replica in replicas]
