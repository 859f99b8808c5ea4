import io
import json
import random

import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from annotation_platform.errors import PublishError
from annotation_platform.storage.table_files import parquet_bytes
from annotation_platform.versioning.audit import audit_files, audit_folder
from annotation_platform.versioning.folder import build_folder
from tests.core.versioning.sets import HEIGHT, ONTOLOGY, WIDTH, draw_rows, table

NAMES = [
    "groups_in_two_splits",
    "contents_in_two_splits",
    "kept_together_in_two_splits",
    "boxes_outside_image",
    "labels_not_in_data_yaml",
    "images_without_label_file",
    "label_files_without_image",
    "images_in_some_formats_only",
    "boxes_in_some_formats_only",
]
TOGETHER = ("video", "source")
# A smaller seed is no simpler case: there is nothing to shrink.
SEEDED = settings(max_examples=6, deadline=None, phases=[Phase.explicit, Phase.generate])


class Version:
    """A version's files as a publisher has them, and the table that they were rendered from."""

    def __init__(self, rows):
        self.frame = table(rows)
        folder = build_folder(self.frame, ONTOLOGY, name="set", keep_together=TOGETHER)
        self.counts = folder.audits
        self.texts = dict(folder.texts)
        self.files = {image.path: image.md5 for image in folder.images}
        self.files |= dict.fromkeys(self.texts, "")

    def audits(self):
        """Return what is found before publishing, and in what was published."""
        before = audit_folder(self.frame, self.files, self.texts, keep_together=TOGETHER)
        return before, audit_files(self.files, self.texts, keep_together=TOGETHER)

    def found(self):
        """Return the names of what is found, both times the same."""
        before, after = self.audits()
        assert list(before) == list(after) == NAMES
        found = [{name for name, number in each.items() if number} for each in (before, after)]
        assert found[0] == found[1]
        return found[0]

    def remove(self, path):
        del self.files[path]
        return self.texts.pop(path, b"")

    def path(self, start, rng):
        return rng.choice(sorted(path for path in self.files if path.startswith(start)))


def images_of(rows, count=2):
    """Return the rows of the first images, each in another split."""
    ids = list(dict.fromkeys(row["image_id"] for row in rows))[:count]
    return [[row for row in rows if row["image_id"] == image] for image in ids]


def same(name):
    def plant(rows):
        one, other = images_of(rows)
        for row in other:
            row[name] = one[0][name]

    return plant


def same_video(rows):
    for row in [row for image in images_of(rows) for row in image]:
        # Written differently, the same nevertheless.
        row["other_metadata"] = json.dumps({"x": len(row["label_id"]), "video": "a"})


def too_wide(rows):
    rows[0] |= {"shape": "box", "class_name": "ship", "class_id": 4, "geometry": ""}
    rows[0] |= {"x1": 1.0, "y1": 1.0, "x2": WIDTH + 0.5, "y2": 5.0}


def flat(rows):
    too_wide(rows)
    rows[0] |= {"x2": 5.0, "y1": HEIGHT - 1.0, "y2": HEIGHT - 1.0}


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (same("group_id"), "groups_in_two_splits"),
        (same("stored_md5"), "contents_in_two_splits"),
        (same("source"), "kept_together_in_two_splits"),
        (same_video, "kept_together_in_two_splits"),
        (too_wide, "boxes_outside_image"),
        (flat, "boxes_outside_image"),
    ],
)
@SEEDED
@given(seed=st.integers(0, 10**6), images=st.integers(2, 12))
def test_what_a_table_should_not_hold_is_counted(plant, name, seed, images):
    rows = draw_rows(random.Random(seed), images)
    clean = Version(rows)
    assert clean.found() == set()
    assert set(clean.counts.values()) == {0}
    plant(rows)
    planted = Version(rows)
    assert planted.found() == {name}
    assert planted.counts[name] == 1


def move_image(version, rng):
    path = version.path("images/train/", rng)
    version.files[path.replace("/train/", "/test/")] = version.files.pop(path)
    return {
        "images_in_some_formats_only",
        "images_without_label_file",
        "label_files_without_image",
        # Its labels are where the image is not.
        *(["boxes_in_some_formats_only"] if has_regions(version, path) else []),
    }


def rename_image(version, rng):
    path = version.path("images/", rng)
    version.files[path.replace(".jpg", ".png")] = version.files.pop(path)
    return {"images_in_some_formats_only"}


def has_regions(version, path):
    rows = version.frame[version.frame["image_id"] == path.split("/")[2].partition(".")[0]]
    return not rows["shape"].isin(["none", "choice"]).all()


def lose_label_file(version, rng):
    text = version.remove(version.path("labels/", rng))
    return {"images_without_label_file", *(["boxes_in_some_formats_only"] if text else [])}


def lose_image(version, rng):
    path = version.path("images/", rng)
    version.remove(path)
    return {
        "label_files_without_image",
        "images_in_some_formats_only",
        *(["boxes_in_some_formats_only"] if has_regions(version, path) else []),
    }


def unknown_number(version, rng):
    version.texts[version.path("labels/", rng)] += b"3 0.5 0.5 0.1 0.1\n"
    return {"labels_not_in_data_yaml", "boxes_in_some_formats_only"}


def one_line_more(version, rng):
    version.texts[version.path("labels/", rng)] += b"1 0.5 0.5 0.1 0.1"
    return {"boxes_in_some_formats_only"}


def no_image_in_coco(version, rng):
    path = version.path("coco/train", rng)
    content = json.loads(version.texts[path])
    gone = content["images"].pop()["id"]
    left = [each for each in content["annotations"] if each["image_id"] != gone]
    has_gone = len(left) < len(content["annotations"])
    content["annotations"] = left
    version.texts[path] = json.dumps(content, separators=(",", ":")).encode()
    return {
        "images_in_some_formats_only",
        *(["boxes_in_some_formats_only"] if has_gone else []),
    }


def one_box_more_in_coco(version, rng):
    content = json.loads(version.texts["coco/train.json"])
    content["annotations"].append(
        {"id": 1, "image_id": content["images"][0]["id"], "category_id": 4, "bbox": [1, 1, 2, 2]}
    )
    version.texts["coco/train.json"] = json.dumps(content, separators=(",", ":")).encode()
    return {"boxes_in_some_formats_only"}


def another_id_in_data_yaml(version, rng):
    text = version.texts["data.yaml"].decode()
    assert "\n- 4\n" in text
    version.texts["data.yaml"] = text.replace("\n- 4\n", "\n- 5\n").encode()
    if not (version.frame["class_name"] == "ship").any():
        return set()
    ships = version.frame[version.frame["class_name"] == "ship"]
    drawn = ships["shape"] != "choice"
    return {"labels_not_in_data_yaml", *(["boxes_in_some_formats_only"] if drawn.any() else [])}


@pytest.mark.parametrize(
    "plant",
    [
        move_image,
        rename_image,
        lose_label_file,
        lose_image,
        unknown_number,
        one_line_more,
        no_image_in_coco,
        one_box_more_in_coco,
    ],
)
@SEEDED
@given(seed=st.integers(0, 10**6), images=st.integers(3, 12))
def test_what_files_should_not_say_is_found(plant, seed, images):
    rng = random.Random(seed)
    version = Version(draw_rows(rng, images))
    expected = plant(version, rng)
    assert version.found() == expected


def test_a_class_with_another_id_is_found():
    version = Version(draw_rows(random.Random(1), 12))
    assert {"ship", "Würfel"} <= set(version.frame["class_name"].dropna())
    expected = another_id_in_data_yaml(version, None)
    assert version.audits()[0]["labels_not_in_data_yaml"] > 0
    assert "labels_not_in_data_yaml" in expected


def test_a_shard_that_lost_a_row_is_found():
    version = Version(draw_rows(random.Random(1), 12))
    row = version.frame.index[version.frame["shape"] == "box"][0]
    path = f"annotations/{version.frame['image_id'][row][0]}.parquet"
    shard = pd.read_parquet(io.BytesIO(version.texts[path]))
    left = shard[shard["label_id"] != version.frame["label_id"][row]].reset_index(drop=True)
    version.texts[path] = parquet_bytes(left)
    for found in version.audits():
        assert found["boxes_in_some_formats_only"] > 0


def test_texts_that_are_taken_over_are_not_read_again():
    version = Version(draw_rows(random.Random(2), 12))
    some = [path for path in version.texts if path.startswith("labels/")][::2]
    for path in some:
        del version.texts[path]
    found = audit_folder(version.frame, version.files, version.texts, keep_together=TOGETHER)
    assert set(found.values()) == {0}


def test_a_file_that_cannot_be_read_is_named():
    version = Version(draw_rows(random.Random(3), 3))
    with pytest.raises(PublishError, match=r"coco/val\.json: cannot be audited"):
        audit_files(version.files, version.texts | {"coco/val.json": b"{"})
    shard = next(path for path in version.texts if path.startswith("annotations/"))
    with pytest.raises(PublishError, match=shard):
        audit_files(version.files, version.texts | {shard: b"PAR1"})
