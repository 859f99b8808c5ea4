from xml.etree import ElementTree as ET

import numpy as np
import pandas as pd
import pytest

from annotation_platform.consensus.anomalies import FINDINGS, label_anomalies
from annotation_platform.errors import TableError

BOX = ["x1", "y1", "x2", "y2"]


def annotation(image, person, boxes, *, seconds=None, name="cat", shape="box"):
    same = {"task_id": image, "image_id": image, "annotation_id": f"{image}-{person}"}
    same |= {"annotator": person, "lead_time_seconds": seconds or 3.0 + 4.0 * len(boxes)}
    if not len(boxes):
        blank = {"shape": "none", "class_name": None, **dict.fromkeys(BOX, np.nan)}
        return [{**same, "label_id": f"{image}-{person}-none", **blank}]
    return [
        {
            **same,
            "label_id": f"{image}-{person}-{number}",
            "shape": shape,
            "class_name": name,
            **dict(zip(BOX, map(float, box), strict=True)),
        }
        for number, box in enumerate(boxes)
    ]


def usual(rng, *, images=60, people=("ada", "ben", "cam")):
    """Return honest annotations: sizes and times vary by a half, proportions by a fifth."""
    rows = []
    for image in range(images):
        centres = rng.uniform(100, 900, (1 + rng.poisson(5), 2))
        sizes = rng.normal(0, 0.4, (len(centres), 1))
        sides = 60 * np.exp(sizes + rng.normal(0, 0.2, (len(centres), 2)))
        for person in people:
            seen = rng.random(len(centres)) < 0.95
            at, size = centres[seen], sides[seen]
            boxes = np.hstack([at - size / 2, at + size / 2]) + rng.normal(0, 1, (len(at), 4))
            seconds = (3 + 4 * len(boxes)) * np.exp(rng.normal(0, 0.4))
            rows += annotation(f"{image}", person, boxes, seconds=seconds)
    return rows


def test_planted_absurdities_are_found_and_named_and_little_else():
    rng = np.random.default_rng(3)
    honest = usual(rng)
    spread = [(40 * number, 0, 40 * number + 60, 60) for number in range(24)]
    planted = [
        *annotation("a", "eve", [(0, 0, 1, 1)]),
        *annotation("b", "eve", [(0, 0, 2000, 1800)]),
        *annotation("c", "eve", [(0, 0, 900, 12)]),
        *annotation("d", "eve", [(0, 0, 12, 700)]),
        *annotation("e", "eve", [(5, 5, 5, 50)]),
        *annotation("0", "eve", spread),
        *annotation("f", "eve", [(0, 0, 60, 60)] * 5, seconds=1.0),
    ]
    found = label_anomalies(pd.DataFrame(honest + planted))
    assert list(found.columns) == FINDINGS
    eve = found[found["annotator"] == "eve"].groupby("kind")["image_id"].agg(set).to_dict()
    assert eve == {
        "small": {"a"},
        "large": {"b"},
        "wide": {"c"},
        "tall": {"d"},
        "empty": {"e"},
        "many": {"0"},
        "too-fast": {"f"},
    }
    annotations = len({row["annotation_id"] for row in honest})
    assert len(found) - 7 <= 0.02 * (annotations + len(honest))
    assert found.loc[found["kind"] == "too-fast", "detail"].str.contains("1.0 s for 5").any()


def test_the_order_of_rows_does_not_matter_and_honest_annotations_are_left_alone():
    rng = np.random.default_rng(4)
    table = pd.DataFrame(usual(rng, images=200))
    found = label_anomalies(table)
    assert len(found) < 0.002 * len(table)
    again = label_anomalies(table.iloc[rng.permutation(len(table))].reset_index(drop=True))
    pd.testing.assert_frame_equal(found, again)


def test_sizes_are_compared_within_the_class_and_numbers_within_the_task():
    rng = np.random.default_rng(5)
    rows = []
    for number in range(60):
        size = np.exp(rng.normal(0, 0.1))
        crowd = 30 if number % 10 == 0 else 2  # every tenth image is crowded, for everybody
        for person in ("ada", "ben"):
            ants = [(0, 0, 10 * size, 10 * size)] * crowd
            image = f"{number:02d}"
            rows += annotation(image, person, ants, name="ant")
            rows += annotation(f"x{image}", person, [(0, 0, 500 * size, 500 * size)], name="whale")
    assert label_anomalies(pd.DataFrame(rows)).empty
    rows += annotation("y", "eve", [(0, 0, 500, 500)], name="ant")
    assert label_anomalies(pd.DataFrame(rows))["kind"].tolist() == ["large"]


def test_with_too_few_to_know_what_is_usual_only_plain_facts_are_found():
    rows = [
        *annotation("a", "ada", [(0, 0, 1, 1), (0, 0, 800, 2), (3, 3, 3, 9)]),
        *annotation("b", "ada", [], seconds=0.5),
    ]
    found = label_anomalies(pd.DataFrame(rows))
    assert found["kind"].tolist() == ["empty", "too-fast"]


def test_points_unsure_annotations_and_unknown_times_are_not_judged():
    rng = np.random.default_rng(6)
    unsure = annotation("u", "eve", [])
    unsure[0]["shape"] = "unsure"
    odd = [
        *annotation("p", "eve", [(5, 5, 5, 5)], shape="keypoint"),
        *unsure,
        *annotation("0", "ben", [(0, 0, 60, 60)] * 5, seconds=float("nan")),
    ]
    rows = [row for row in usual(rng) if row["annotation_id"] not in {"0-ben"}]
    found = label_anomalies(pd.DataFrame(rows + odd))
    assert not set(found["annotation_id"]) & {"p-eve", "u-eve", "0-ben"}


def test_many_regions_are_odd_even_where_nobody_else_annotated():
    rng = np.random.default_rng(7)
    rows = usual(rng, people=("ada",))
    crowded = [(40 * number, 0, 40 * number + 60, 60) for number in range(150)]
    rows += annotation("m", "eve", crowded) + annotation("n", "eve", [])
    found = label_anomalies(pd.DataFrame(rows))
    assert found.loc[found["kind"] == "many", "annotation_id"].tolist() == ["m-eve"]
    assert "few" not in set(found["kind"])


def test_a_missing_column_is_named():
    with pytest.raises(TableError, match="lead_time_seconds"):
        label_anomalies(pd.DataFrame(annotation("a", "ada", [])).drop(columns="lead_time_seconds"))


def test_of_the_blood_cells_two_boxes_are_empty_and_hardly_any_is_absurd(public):
    rows = []
    for path in sorted((public("bccd") / "BCCD" / "Annotations").glob("*.xml")):
        for number, element in enumerate(ET.parse(path).getroot().iter("object")):
            corners = element.find("bndbox")
            box = [float(corners.find(edge).text) for edge in ("xmin", "ymin", "xmax", "ymax")]
            row = annotation(path.stem, "bccd", [box], name=element.find("name").text)[0]
            rows.append({**row, "label_id": f"{path.stem}-{number}"})
    found = label_anomalies(pd.DataFrame(rows))
    empty = found[found["kind"] == "empty"]
    assert empty["image_id"].tolist() == ["BloodImage_00338", "BloodImage_00343"]
    boxes = found[found["label_id"].notna()]
    assert len(boxes) < 0.005 * len(rows)
