"""Labels that images landed with: on the stored image, whole, or refused with a reason."""

import hashlib
import io
import json

import numpy as np
import pytest
from PIL import Image

from annotation_platform.curation.gates import refused_labels
from annotation_platform.curation.imported import imported_labels, turned_upright
from annotation_platform.images.decoding import decode_image
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes
from annotation_platform.schema.keys import raw_key, sidecar_key
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.storage.objects import LocalObjectStore

ONTOLOGY = Ontology.from_names(["boat", "person"])
WIDTH, HEIGHT = 80, 60


def png(width=WIDTH, height=HEIGHT, *, orientation=1, boxes=()):
    """A black image of this coded size, white in the boxes, to be turned by ``orientation``."""
    pixels = np.zeros((height, width), dtype=np.uint8)
    for x1, y1, x2, y2 in boxes:
        pixels[y1:y2, x1:x2] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, format="PNG", exif=exif)
    return sink.getvalue()


def labels(*boxes, origin="coco:a.json", width=WIDTH, height=HEIGHT):
    entries = [{"class": name, "box": box} for name, *box in boxes]
    return {"origin": origin, "width": width, "height": height, "boxes": entries}


class Round:
    """A round whose images have landed and were cleaned."""

    def __init__(self, folder):
        self.store = LocalObjectStore(folder)
        self.raw, self.cleaned = [], []

    def land(self, sidecar, *, data=None, outcome="accepted"):
        number = len(self.raw)
        data = png() if data is None else data
        image_id = hashlib.sha256(data + bytes([number])).hexdigest()
        self.store.put(raw_key(image_id), data)
        height, width = decode_image(data).pixels.shape[:2]
        digest = None
        if sidecar is not None:
            content = sidecar if isinstance(sidecar, bytes) else json.dumps(sidecar).encode()
            digest = hashlib.sha256(content).hexdigest()
            self.store.put(sidecar_key(digest), content)
        same = {
            "round_id": "round-0001",
            "source_key": f"{number}.png",
            "arrival_version": "1-1",
            "image_id": image_id,
        }
        raw = dict.fromkeys(RawImages.empty().columns)
        self.raw.append(
            raw
            | same
            | {"byte_size": 9, "problem": "", "other_metadata": "", "sidecar_sha256": digest}
        )
        cleaned = dict.fromkeys(CleanedImages.empty().columns)
        facts = {"outcome": outcome, "reason": "", "width": width, "height": height}
        stored = {"extension": "png", "stored_bytes": 9, "flags": "", "joins": ""}
        self.cleaned.append(cleaned | same | facts | stored)
        return image_id

    def imported(self, ontology=ONTOLOGY):
        raw, cleaned = (
            RawImages.from_rows(self.raw),
            CleanedImages.from_rows(self.cleaned),
        )
        return imported_labels(cleaned, raw, self.store, ontology)


@pytest.fixture
def landed(tmp_path):
    return Round(tmp_path)


def test_labels_are_taken_as_they_are_with_their_origin(landed):
    image_id = landed.land({"labels": labels(("boat", 1, 2, 30.5, 40), ("person", 0, 0, 80, 60))})
    landed.land(None)
    landed.land({"source": "pier 4"})
    found = landed.imported().labels
    assert found["image_id"].tolist() == [image_id] * 2
    assert found["class_name"].tolist() == ["boat", "person"]
    assert found[BOX_COLUMNS].to_numpy().tolist() == [[1, 2, 30.5, 40], [0, 0, 80, 60]]
    assert set(found["origin"]) == {"coco:a.json"}
    assert set(found["problem"]) == {""}


def test_an_image_that_holds_nothing_keeps_a_row_that_says_so(landed):
    landed.land({"labels": labels()})
    found = landed.imported().labels
    assert found["shape"].tolist() == ["none"]
    assert found["problem"].tolist() == [""]


@pytest.mark.parametrize("orientation", range(1, 9))
def test_boxes_turn_with_their_image(landed, orientation):
    boxes = [(3, 5, 30, 20), (60, 50, 80, 60)]
    data = png(orientation=orientation, boxes=boxes)
    upright = decode_image(data).pixels
    height, width = upright.shape[:2]
    turned = turned_upright(as_boxes(boxes), orientation, width=width, height=height)
    # Exactly where the image is white once it is upright.
    there = np.zeros((height, width), dtype=bool)
    for x1, y1, x2, y2 in turned.astype(int):
        there[y1:y2, x1:x2] = True
    assert ((upright[..., 0] > 128) == there).all()
    assert (turned[:, :2] < turned[:, 2:]).all()

    if orientation >= 5:
        landed.land({"labels": labels(*(("boat", *box) for box in boxes))}, data=data)
        found = landed.imported().labels
        assert set(found["problem"]) == {""}
        assert found[BOX_COLUMNS].to_numpy().tolist() == turned.tolist()


def test_labels_made_on_the_upright_image_are_not_turned_again(landed):
    data = png(orientation=6)  # 60 × 80 once upright
    landed.land({"labels": labels(("boat", 1, 2, 50, 70), width=60, height=80)}, data=data)
    found = landed.imported().labels
    assert found[BOX_COLUMNS].to_numpy().tolist() == [[1, 2, 50, 70]]


def test_what_reaches_less_than_a_pixel_outside_is_cut_off(landed):
    landed.land({"labels": labels(("boat", -1, -0.5, 80.9, 61))})
    found = landed.imported().labels
    assert found["problem"].tolist() == [""]
    assert found[BOX_COLUMNS].to_numpy().tolist() == [[0, 0, 80, 60]]


@pytest.mark.parametrize(
    ("box", "size", "says"),
    [
        pytest.param(
            ("bird", 1, 2, 3, 4),
            (80, 60),
            "box 1: class 'bird' is not in the ontology (boat, person)",
            id="class",
        ),
        pytest.param(("boat", 1, 2, 1, 4), (80, 60), "box 1 (boat) has no area", id="flat"),
        pytest.param(("boat", 9, 2, 1, 4), (80, 60), "box 1 (boat) has no area", id="inside out"),
        pytest.param(("boat", 80, 2, 80.5, 4), (80, 60), "has no area", id="outside"),
        pytest.param(("boat", -2.5, 2, 9, 4), (80, 60), "reaches 2.5 pixels outside", id="outside"),
        pytest.param(
            ("boat", 1, 2, 3, 4), (81, 60), "81 × 60 pixels, this one has 80 × 60", id="size"
        ),
        pytest.param(("boat", 1, 2, 3, 4), (60, 80), "60 × 80 pixels", id="sides changed"),
        pytest.param(("boat", 1, 2, 3, 4), (0, 0), "0 × 0 pixels", id="no size"),
        pytest.param(("boat", 1, 2, 3, 4), (-80, 60), "-80 × 60 pixels", id="negative size"),
    ],
)
def test_all_labels_of_an_image_are_refused_together(landed, box, size, says):
    sound = ("boat", 5, 5, 9, 9)
    refused = landed.land({"labels": labels(sound, box, width=size[0], height=size[1])})
    taken = landed.land({"labels": labels(sound)})
    found = landed.imported().labels.set_index("image_id")
    assert len(found.loc[[refused]]) == 2
    assert found.loc[[refused], "problem"].str.contains(says, regex=False).all()
    assert found.loc[taken, "problem"] == ""
    assert [text.split(": ")[0] for text in refused_labels(found.reset_index())] == [refused]


def test_only_accepted_images_have_labels_and_the_others_are_counted(landed):
    landed.land({"labels": labels()}, outcome="duplicate")
    landed.land({"labels": labels()}, outcome="quarantined")
    landed.land({}, outcome="quarantined")
    found = landed.imported()
    assert (len(found.labels), found.unused) == (0, 2)


def test_labels_in_a_sidecar_that_cannot_be_read_are_refused(landed):
    # A person put the image back although its metadata is bad.
    landed.land(b"{nothing")
    (problem,) = landed.imported().labels["problem"]
    assert problem.startswith("bad metadata: not JSON")


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("", "sidecar"),
        ("people", "sidecar:people"),
        ("a\n# b", "a # b"),
        ("x" * 300, "x" * 200),
    ],
)
def test_an_origin_is_one_line_and_never_that_of_people_here(landed, given, kept):
    landed.land({"labels": labels(("boat", 1, 2, 3, 4), origin=given)})
    assert landed.imported().labels["origin"].tolist() == [kept]
