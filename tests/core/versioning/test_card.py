import base64
import hashlib
import io
import json
import random
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from defusedxml.ElementTree import fromstring
from markdown_it import MarkdownIt

from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.schema.tables.shared import SPLITS
from annotation_platform.versioning.card.examples import MOST_EXAMPLES, PER_SPLIT
from annotation_platform.versioning.folder import build_folder
from tests.core.versioning.sets import HEIGHT, ONTOLOGY, WIDTH, draw_rows, row, table

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=http://evil.example/x.png onerror=alert(1)>',
    "a|b `c` ![d](http://evil.example/y.png) [e](javascript:alert(1))",
    "line\nbreak | --- |\n# heading",
    "</style></svg><style>*{display:none}</style>",
    "{{ 7 * 7 }}{% for %}",
    "\u202eגבר\u0000\u001b[31m",
    "w" * 100,
]

OUR_TAGS = re.compile(
    "html|head|meta|title|style|body|main|header|section|h[123]|p|div|span|b|i|bdi|code|ul|li|a|img|"
    "figure|figcaption|details|summary|table|tr|th|td|svg|g|path|rect|circle|text"
)


def texts_of(rows, ontology=ONTOLOGY):
    return build_folder(table(rows), ontology, name="training-set").texts


def card_of(rows, ontology=ONTOLOGY):
    return json.loads(texts_of(rows, ontology)["card.json"])


def boxes(number, count, *, name="ship", side=10, **facts):
    """Return the rows of one image with a number of boxes."""
    return [
        row(number, at, Label.box(name, at, 0, at + side, side), **facts) for at in range(count)
    ]


def limits_of(rows, ontology=ONTOLOGY):
    return {limit["name"]: limit for limit in card_of(rows, ontology)["limits"]}


def test_the_card_counts_images_and_labels_by_split_and_class():
    rows = [
        *boxes(0, 3),
        row(3, 0, NOTHING),
        *boxes(1, 2, name="Würfel"),
        row(2, 0, Label.keypoint("buoy", 3, 4)),
        row(2, 1, Label.choice("ship")),
    ]
    texts = texts_of(rows)
    card = json.loads(texts["card.json"])
    assert card["images"] == {"train": 2, "val": 1, "test": 1}
    # A point and a choice are labels and no boxes.
    assert card["empty_images"] == {"train": 1, "val": 0, "test": 1}
    assert card["images_without_labels"] == {"train": 1, "val": 0, "test": 0}
    assert [(one["id"], one["name"], one["boxes"], one["labels"]) for one in card["classes"]] == [
        (0, "Würfel", {"train": 0, "val": 2, "test": 0}, {"train": 0, "val": 2, "test": 0}),
        (4, "ship", {"train": 3, "val": 0, "test": 0}, {"train": 3, "val": 0, "test": 1}),
        (9, "buoy", {"train": 0, "val": 0, "test": 0}, {"train": 0, "val": 0, "test": 1}),
    ]
    assert card["median_box_pixels"] == {"width": 10.0, "height": 10.0}
    assert card["rounds"] == {"round-0001": {"images": 4, "boxes": 5}}
    assert "| 4 | ship | 3 | 0 | 1 | 4 |" in texts["README.md"].decode()
    assert card["audits"]
    assert set(card["audits"].values()) == {0}


def test_the_card_counts_labels_by_where_they_are_from():
    rows = [*boxes(0, 3), *boxes(1, 2, origin="coco:a.json"), row(2, 0, NOTHING)]
    texts = texts_of(rows)
    assert json.loads(texts["card.json"])["origins"] == {
        "coco:a.json": {"images": 1, "boxes": 2},
        "people": {"images": 2, "boxes": 3},
    }
    assert "| coco:a.json | 1 | 2 |" in texts["README.md"].decode()
    published = [texts[name] for name in texts if name.startswith("annotations/")]
    origins = pd.concat(pd.read_parquet(io.BytesIO(data)) for data in published)["origin"]
    assert origins.value_counts().to_dict() == {"people": 4, "coco:a.json": 2}


def test_the_card_says_what_its_audit_found():
    rows = [*boxes(0, 1), *boxes(1, 2), *boxes(2, 1)]
    rows[0]["x2"] = WIDTH + 1.0
    rows[1]["x2"] = rows[1]["x1"]
    rows[3]["group_id"] = rows[0]["group_id"]
    rows[3]["stored_md5"] = rows[0]["stored_md5"]
    found = {name: number for name, number in card_of(rows)["audits"].items() if number}
    assert found == {
        "groups_in_two_splits": 1,
        "contents_in_two_splits": 1,
        "boxes_outside_image": 2,
    }
    assert limits_of(rows)["audit_boxes_outside_image"]["number"] == 2


def test_agreement_is_of_images_that_several_people_annotated():
    rows = [
        *boxes(0, 2, annotations=4, support=3),
        *boxes(1, 1, annotations=2, support=2),
        *boxes(2, 1, name="Würfel", annotations=4, support=2),
        *boxes(3, 5, annotations=1, support=1),
        *boxes(4, 1, name="Würfel", annotations=0, support=0, origin="voc"),
        row(5, 0, NOTHING, annotations=3, support=3),
    ]
    card = card_of(rows)
    assert card["agreement"] == {
        "asked": 4,
        # Two of ¾, one of 1, one of ½.
        "mean_share": 0.75,
        "unanimous": 1,
        "minority": 1,
        "one_annotation": 5,
        "unseen": 1,
    }
    by_class = {one["name"]: one["agreement"] for one in card["classes"]}
    assert by_class["ship"]["mean_share"] == pytest.approx((0.75 + 0.75 + 1) / 3, abs=1e-4)
    assert by_class["Würfel"] == {
        "asked": 1, "mean_share": 0.5, "unanimous": 0, "minority": 1, "one_annotation": 0,
        "unseen": 1,
    }  # fmt: skip
    assert by_class["buoy"]["asked"] == 0


def test_histograms_count_every_box_and_image_in_its_bin():
    rows = [
        # Roots of areas: 8, the first of a bin that begins there; 11.3, in the next; 31.9; 32.
        row(0, 0, Label.box("ship", 0, 0, 8, 8)),
        row(0, 1, Label.box("ship", 0, 0, 16, 8)),
        row(1, 0, Label.box("ship", 0, 0, 31.9, 31.9)),
        row(2, 0, Label.box("ship", 0, 0, 32, 32)),
        *boxes(3, 9, side=32),
        row(6, 0, NOTHING),
    ]
    card = card_of(rows)
    sizes = card["box_sizes"]
    assert sizes["bins_from"] == [8.0, 11.3137, 16.0, 22.6274, 32.0]
    assert (sizes["train"], sizes["val"], sizes["test"]) == (
        [1, 1, 0, 0, 9], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1],
    )  # fmt: skip
    assert card["boxes_by_size"] == {"small": 3, "medium": 10, "large": 0}
    aspects = card["box_aspects"]
    # A square is amid its bin, from 1 : ⁴√2 on; twice as wide as high is two bins further.
    assert aspects["bins_from"] == [0.8409, 1.1892, 1.6818]
    assert aspects["train"] == [10, 0, 1]
    per_image = card["labels_per_image"]
    assert per_image["bins_from"] == [0, 1, 2, 3, 5, 9]
    assert per_image["train"] == [1, 0, 1, 0, 0, 1]
    images = card["image_sizes"]
    # √(64 · 48) is 55.4.
    assert (images["bins_from"], images["train"]) == ([45.2548], [3])


def test_a_limit_is_listed_only_where_it_holds():
    def many(split, count, first, **facts):
        facts = {"source": "a", "licence": "MIT", "consent": "yes", "annotations": 2, **facts}
        facts |= {"support": 2}
        return [
            row(first + number, at, Label.box(name, 0, 0, 40, 40), split=split, **facts)
            for number in range(count)
            for at, name in enumerate(["ship", "Würfel"])
        ]

    plain = Ontology(classes=ONTOLOGY.classes[:2])
    fine = [*many("train", 60, 0), *many("val", 50, 100), *many("test", 50, 200, source="b")]
    assert limits_of(fine, plain) == {}

    one = [*fine, *many("test", 1, 300, annotations=1)]
    assert limits_of(one, plain)["labels_of_one_annotation"]["number"] == 2
    few = [*many("train", 60, 0), *many("val", 49, 100), *many("test", 50, 200, source="b")]
    assert {name: limit["number"] for name, limit in limits_of(few, plain).items()} == {
        "few_images_val": 49
    }
    alike = [
        entry | {"group_id": fine[-1]["group_id"]} if entry["split"] == "test" else entry
        for entry in fine
    ]
    found = limits_of(alike, plain)
    assert {name: limit["number"] for name, limit in found.items()} == {"look_alikes_test": 1}
    assert "50 images of test are 1 group" in found["look_alikes_test"]["text"]
    third = limits_of(fine)
    assert set(third) == {f"classes_not_in_{split}" for split in SPLITS}
    assert "“buoy”" in third["classes_not_in_test"]["text"]
    unknown = [entry | {"licence": None, "consent": "", "source": "a"} for entry in fine]
    assert {name: limit["number"] for name, limit in limits_of(unknown, plain).items()} == {
        "images_without_licence": 160,
        "images_without_consent": 160,
        "one_source": 1,
    }
    small = [entry | {"x2": 10.0, "y2": 10.0} for entry in fine[:-2]] + fine[-2:]
    assert limits_of(small, plain)["small_boxes"]["number"] == 318
    brought = [entry | {"annotations": 0, "support": 0} for entry in fine]
    assert limits_of(brought, plain)["labels_nobody_checked"]["number"] == 320
    doubt = [entry | {"annotations": 4, "support": 3} for entry in fine]
    assert limits_of(doubt, plain)["little_agreement"]["number"] == 0.75


def test_sources_are_listed_with_licence_and_consent_and_the_rest_is_summed():
    rows = []
    for number in range(60):
        rows += boxes(number, 2, source=f"camera {number:02d}", licence="CC0")
    for number in range(60, 63):
        rows += boxes(number, 1, source="drone", licence="", consent="signed")
    card = card_of(rows)
    assert card["sources"][:2] == [
        {"source": "drone", "licence": "", "consent": "signed", "images": 3},
        {"source": "camera 00", "licence": "CC0", "consent": "", "images": 1},
    ]
    assert len(card["sources"]) == 50
    assert card["other_sources"] == {"sources": 11, "images": 11}
    assert card["images_that_state"]["licence"] == 60
    assert card["images_that_state"]["consent"] == 3


def test_examples_show_each_split_and_rare_classes_and_stay_when_images_come():
    rng = random.Random(5)
    rows = [entry for entry in draw_rows(rng, 120) if entry["class_name"] != "Würfel"]
    rows = [entry for entry in rows if entry["image_id"] != rows[0]["image_id"]]
    rare = row(1000, 0, Label.box("Würfel", 1, 2, 3, 4))
    before = card_of([*rows, rare])["examples"]
    assert f"images/{rare['split']}/{rare['image_id']}.jpg" in before
    assert len(before) == len(set(before)) <= MOST_EXAMPLES
    for split in SPLITS:
        assert sum(path.startswith(f"images/{split}/") for path in before) >= PER_SPLIT
    # Of further images, those whose ids are larger than what is shown change nothing.
    largest = max(path.split("/")[2] for path in before)
    more = [entry for number in range(2000, 2040) for entry in boxes(number, 2, name="Würfel")]
    later = [entry for entry in more if entry["image_id"] > largest]
    assert later
    assert card_of([*rows, rare, *later])["examples"] == before


class Elements(HTMLParser):
    """The elements of a page with their attributes, and its text."""

    def __init__(self, page):
        super().__init__()
        self.elements, self.text = [], ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.text += data

    def all(self, tag):
        return [attributes for name, attributes in self.elements if name == tag]


def hostile_texts():
    ontology = Ontology(classes=tuple(LabelClass(id=n, name=a) for n, a in enumerate(HOSTILE)))
    rows = []
    for number in range(30):
        name = HOSTILE[number % len(HOSTILE)]
        rows += [
            row(
                number, 0, Label.box(name, 5, 5, 20, 20), class_id=HOSTILE.index(name),
                source=name, licence=HOSTILE[number % 3], consent=name * 30, origin=f"coco:{name}",
            )
        ]  # fmt: skip
    return texts_of(rows, ontology)


def test_a_page_of_hostile_names_holds_no_markup_but_its_own():
    texts = hostile_texts()
    page = Elements(texts["card.html"].decode())
    assert not [tag for tag, _ in page.elements if not OUR_TAGS.fullmatch(tag)]
    for tag, attributes in page.elements:
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        for name in {"src", "href", "xlink:href"} & attributes.keys():
            assert re.fullmatch(r"images/(train|val|test)/[0-9a-f]{64}\.jpg", attributes[name]), tag
    # The one style there is, is the one that the policy allows.
    assert len(page.all("style")) == 1
    policy = page.all("meta")[1]["content"]
    style = re.search("<style>(.*?)</style>", texts["card.html"].decode(), re.S)[1]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"style-src 'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none'; img-src 'self' file:;")
    assert "<script>alert(1)</script>" in page.text
    assert "{{ 7 * 7 }}" in page.text
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x1b]", texts["card.html"].decode())


def test_a_readme_and_charts_of_hostile_names_are_what_they_seem():
    texts = hostile_texts()
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(texts["README.md"].decode())
    inline = [child for token in tokens for child in token.children or []]
    shown = [child.attrs["src"] for child in inline if child.type == "image"]
    assert shown == [f"card/{name}.svg" for name in
                     ("classes", "sizes", "aspects", "per-image", "images")]  # fmt: skip
    assert [child.attrs["href"] for child in inline if child.type == "link_open"] == ["card.html"]
    raw = [child.content for child in inline if child.type == "html_inline"]
    assert all(
        re.fullmatch(r'<img src="images/\w+/[0-9a-f]{64}\.jpg" alt="\w+" height="150">', each)
        for each in raw
    )
    assert not [token for token in tokens if token.type == "html_block"]
    titles = [
        tokens[at + 1].content for at, each in enumerate(tokens) if "heading_open" in each.type
    ]
    assert "heading" not in titles
    for name in shown:
        drawn = fromstring(texts[name])
        tags = {element.tag.rpartition("}")[2] for element in drawn.iter()}
        assert tags <= {"svg", "style", "g", "title", "rect", "text", "path"}
    names = {element.text for element in fromstring(texts["card/classes.svg"]).iter()}
    assert HOSTILE[0][:18] + "…" in names


def test_what_is_drawn_over_a_image_is_where_its_labels_are():
    labels = [
        Label.box("ship", 5, 6, 25, 16),
        Label.polygon("ship", [[1, 1, 9, 1, 9, 9.25]]),
        Label.rotated_box("Würfel", 30, 20, 10, 4, 90),
        Label.keypoint("buoy", 63.5, 30),
    ]
    page = Elements(
        texts_of([row(0, at, each) for at, each in enumerate(labels)])["card.html"].decode()
    )
    views = [each["viewbox"] for each in page.all("svg") if "preserveaspectratio" in each]
    assert views == [f"0 0 {WIDTH} {HEIGHT}"]
    marks = [each["d"] for each in page.all("path") if each["class"] == "mark"]
    assert set(marks) == {
        "M5 6L25 6L25 16L5 16Z",
        "M1 1L9 1L9 9.2Z",
        # Turned by a quarter, it is 4 wide and 10 high.
        "M32 15L32 25L28 25L28 15Z",
    }
    point = next(each for each in page.all("circle") if each["class"] == "point")
    assert (float(point["cx"]), float(point["cy"])) == (63.5, 30.0)
    # The name of a region at the right edge ends inside the image.
    names = [each for each in page.all("text") if each.get("class") == "name"]
    assert len(names) == len(labels)
    last = max(float(each["x"]) for each in names)
    assert 40 < last <= WIDTH - len("buoy") * float(names[0]["font-size"]) * 0.6


def test_a_mask_is_drawn_in_stripes_that_cover_it():
    pixels = np.zeros((HEIGHT, WIDTH), dtype=bool)
    pixels[10:20, 8:40] = True
    pixels[12:15, 20:22] = False
    page = Elements(texts_of([row(0, 0, Label.mask("ship", pixels))])["card.html"].decode())
    path = next(each["d"] for each in page.all("path") if each["class"] == "mask")
    drawn = np.zeros_like(pixels)
    for stripe in path.removesuffix("Z").split("Z"):
        x, y = zip(*(map(float, point.split()) for point in stripe[1:].split("L")), strict=True)
        drawn[int(min(y)) : int(max(y)), int(min(x)) : int(max(x))] = True
    assert (drawn == pixels).all()


@pytest.mark.parametrize("classes", [1, 60, 300])
def test_every_class_has_a_row_in_columns_that_a_page_can_hold(classes):
    names = [f"class {number}" for number in range(classes)]
    rows = [
        row(number, 0, Label.box(names[number % classes], 0, 0, 9, 9), class_id=number % classes)
        for number in range(2 * classes)
    ]
    texts = texts_of(rows, Ontology.from_names(names))
    page = Elements(texts["card.html"].decode())
    for name in names:
        assert page.text.count(name) >= 1
    charts = [each for each in page.all("svg") if each.get("aria-label") == "Labels by class"]
    assert len(charts) == {1: 1, 60: 3, 300: 8}[classes]
    assert max(int(each["viewbox"].split()[3]) for each in charts) <= 25 * 20 + 4


def test_a_card_does_not_depend_on_the_order_of_rows_or_the_rest_of_the_policy():
    rows = draw_rows(random.Random(4), 40)
    one = texts_of(rows)
    random.Random(1).shuffle(rows)
    frame = table(rows).sample(frac=1.0, random_state=2)
    other = build_folder(frame, ONTOLOGY, name="training-set", keep_together=("video",)).texts
    assert one == other
