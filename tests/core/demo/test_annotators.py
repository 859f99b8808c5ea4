from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from annotation_platform.consensus.anchoring import crowd_anchoring, pre_annotation_decisions
from annotation_platform.demo.annotators import (
    SimulatedPerson,
    annotation_rng,
    make_people,
    simulate_annotation,
)
from annotation_platform.errors import DataError
from annotation_platform.formats.label_studio.results import read_result, write_result
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING, Label

ONTOLOGY = Ontology.from_names(["boat", "buoy", "lorry"])
PERFECT = SimulatedPerson("eve@example.org", 0.0, 0.0, 0.0, 0.0, 3.0)


def table(*rows):
    return pd.DataFrame(rows, columns=["class_name", "x1", "y1", "x2", "y2"])


def ask(person, truth, image_id="image", **sizes):
    sizes = {"width": 320, "height": 240} | sizes
    rng = annotation_rng(person, image_id)
    return simulate_annotation(person, truth, **sizes, ontology=ONTOLOGY, rng=rng)


def test_people_are_graded_from_careful_to_careless():
    people = make_people()
    assert len({person.name for person in people}) == 4
    for rate, first, last in (
        ("jitter_pixels", 1.5, 4.0),
        ("miss_rate", 0.02, 0.10),
        ("extra_rate", 0.01, 0.06),
        ("confusion_rate", 0.01, 0.07),
    ):
        values = [getattr(person, rate) for person in people]
        assert values == sorted(values)
        assert values[0] == pytest.approx(first)
        assert values[-1] == pytest.approx(last)


@pytest.mark.parametrize("count", [0, 1, 30])
def test_any_number_of_people_have_different_names(count):
    assert len({person.name for person in make_people(count, seed=3)}) == count


def test_the_seed_assigns_names_to_skills():
    assert make_people(4, seed=1) == make_people(4, seed=1)
    orders = {tuple(person.name for person in make_people(4, seed=seed)) for seed in range(10)}
    assert len(orders) > 5


@pytest.mark.parametrize("position", [0, 3])
def test_the_errors_in_400_annotations_have_the_rates_that_were_set(position):
    person = make_people(4, seed=0)[position]
    # Objects far apart, so that each box can be matched to its object.
    truth = table(*[("boat", x, y, x + 50, y + 50) for x in (20, 120, 220) for y in (20, 120)])
    corners = truth[["x1", "y1", "x2", "y2"]].to_numpy(dtype=float)
    found = confused = extras = 0
    off = []
    for number in range(400):
        boxes = ask(person, truth, f"image {number}").labels
        edges = np.array([[box.x1, box.y1, box.x2, box.y2] for box in boxes]).reshape(-1, 4)
        difference = edges[:, None, :] - corners[None]
        near = np.abs(difference).max(axis=2) <= 3 * 4.0
        found += int(near.any(axis=0).sum())
        extras += int((~near.any(axis=1)).sum())
        for box, row, distances in zip(boxes, near, difference, strict=True):
            if row.any():
                confused += box.class_name != "boat"
                off.append(distances[row.argmax()])
    shown = 400 * len(truth)
    # Four standard deviations of a share of 2400.
    tolerance = 4 * np.sqrt(0.1 * 0.9 / shown)
    assert 1 - found / shown == pytest.approx(person.miss_rate, abs=tolerance)
    assert extras / shown == pytest.approx(person.extra_rate, abs=tolerance)
    assert confused / found == pytest.approx(person.confusion_rate, abs=tolerance)
    # The mean is near zero; the limit of three deviations reduces the deviation by 1 %.
    assert np.mean(off) == pytest.approx(0, abs=0.1)
    assert np.std(off) == pytest.approx(person.jitter_pixels, rel=0.05)


def test_annotations_do_not_depend_on_the_order_of_the_images():
    person = make_people(4, seed=0)[3]
    truth = table(("boat", 20, 20, 80, 60), ("buoy", 100, 100, 120, 120))
    forwards = {name: ask(person, truth, name) for name in ("a", "b", "c")}
    backwards = {name: ask(person, truth, name) for name in ("c", "b", "a")}
    assert forwards == backwards
    assert forwards["a"].labels != forwards["b"].labels
    other = make_people(4, seed=0)[2]
    assert ask(other, truth, "a").labels != forwards["a"].labels


def test_an_annotator_without_errors_draws_the_ground_truth():
    truth = table(("boat", 20, 20, 80, 60), ("lorry", 0, 0, 320, 240))
    boxes = ask(PERFECT, truth).labels
    assert [(b.class_name, b.x1, b.y1, b.x2, b.y2) for b in boxes] == list(
        truth.itertuples(index=False, name=None)
    )


@pytest.mark.parametrize(
    "row",
    [
        pytest.param(("boat", 50, 50, 50, 50), id="a point"),
        pytest.param(("boat", 50, 50, 50, 90), id="a line"),
        pytest.param(("boat", 400, 50, 500, 90), id="outside"),
    ],
)
def test_a_box_without_area_in_the_image_is_not_annotated(row):
    assert ask(PERFECT, table(row)).labels == []


def test_an_image_without_objects_takes_time_too():
    annotation = ask(PERFECT, table())
    assert annotation.labels == []
    assert annotation.lead_time_seconds > 0


def test_with_one_class_nothing_is_confused():
    person = SimulatedPerson("eve@example.org", 0, 0, 0, 1.0, 3)
    annotation = simulate_annotation(
        person,
        table(("boat", 1, 1, 20, 20)),
        width=320,
        height=240,
        ontology=Ontology.from_names(["boat"]),
        rng=annotation_rng(person, "image"),
    )
    assert [box.class_name for box in annotation.labels] == ["boat"]


TWO_BOATS = table(("boat", 20, 20, 80, 60), ("boat", 100, 100, 160, 160))
ON_THE_FIRST = Label.box("boat", 21, 20, 81, 60)
OFF_THE_SECOND = Label.box("boat", 110, 110, 190, 190)
OF_ANOTHER_CLASS = Label.box("buoy", 20, 20, 80, 60)
SPURIOUS = Label.box("lorry", 200, 10, 230, 40)


@pytest.mark.parametrize(
    ("shown", "unchanged", "seconds"),
    [
        pytest.param([], [], 14.0, id="two drawn"),
        pytest.param([ON_THE_FIRST], [ON_THE_FIRST], 1.5 + 7.0, id="accepted"),
        pytest.param([OFF_THE_SECOND], [], 4.0 + 7.0, id="moved"),
        pytest.param([OF_ANOTHER_CLASS], [], 4.0 + 7.0, id="renamed"),
        pytest.param([SPURIOUS], [], 1.5 + 14.0, id="deleted"),
    ],
)
def test_only_wrong_pre_annotations_are_corrected(shown, unchanged, seconds):
    careful = SimulatedPerson("eve@example.org", 0, 0, 0, 0, 7.0, anchoring=0.0)
    annotation = ask(careful, TWO_BOATS, pre_annotations=shown)
    truth = [Label.box(*row) for row in TWO_BOATS.itertuples(index=False)]
    assert [label for label in annotation.labels if label not in truth] == unchanged
    assert len(annotation.labels) == 2
    # Pace and seconds to view the image are the same with and without pre-annotations.
    without = ask(careful, TWO_BOATS)
    pace = without.lead_time_seconds / (4.0 + 14.0)
    assert annotation.lead_time_seconds == pytest.approx(pace * (4.0 + seconds), abs=0.02)


def test_an_anchored_annotator_accepts_every_pre_annotation():
    anchored = SimulatedPerson("eve@example.org", 0, 0, 0, 0, 7.0, anchoring=1.0)
    shown = [OF_ANOTHER_CLASS, OFF_THE_SECOND, SPURIOUS]
    assert ask(anchored, TWO_BOATS, pre_annotations=shown).labels == shown


def test_the_platform_measures_the_anchoring_that_was_set():
    rng = np.random.default_rng(0)
    labels, shown = [], []
    for number in range(400):
        image_id = f"image {number}"
        corner = rng.uniform(0, 150, 2)
        # Half of the predictions are off by two thirds of their side.
        off = corner + rng.choice([0.0, 40.0])
        predicted = Label.box("boat", *off.tolist(), *(off + 60).tolist())
        truth = table(("boat", *corner.tolist(), *(corner + 60).tolist()))
        shown.append({"image_id": image_id, **asdict(predicted)})
        for person in make_people(4, seed=0):
            without_predictions = bool(rng.random() < 0.5)
            known = {
                "task_id": image_id,
                "image_id": image_id,
                "annotation_id": f"{image_id} {person.name}",
                "annotator": person.name,
                "without_predictions": without_predictions,
            }
            set_to = replace(person, anchoring=0.3)
            seen = [] if without_predictions else [predicted]
            drawn = ask(set_to, truth, image_id, pre_annotations=seen).labels
            labels += [{**known, **asdict(label)} for label in drawn or [NOTHING]]
    decisions = pre_annotation_decisions(
        pd.DataFrame(labels), pd.DataFrame(shown), agreement_iou=0.5
    )
    measured = crowd_anchoring(decisions)
    assert measured.low < 0.3 < measured.high
    assert measured.high - measured.low < 0.25


def test_a_class_outside_the_ontology_is_an_error():
    with pytest.raises(DataError, match="'crane'"):
        ask(PERFECT, table(("crane", 1, 1, 20, 20)))


edge = st.floats(-20, 340, allow_nan=False)


@given(
    rows=st.lists(st.tuples(st.sampled_from(ONTOLOGY.names), edge, edge, edge, edge), max_size=6),
    image_id=st.text(max_size=5),
)
def test_every_box_has_an_area_inside_the_image(rows, image_id):
    clumsy = SimulatedPerson("zed@example.org", 50.0, 0.0, 0.5, 0.5, 1.0)
    truth = table(
        *[(n, min(a, c), min(b, d), max(a, c), max(b, d)) for n, a, b, c, d in rows]
    ).astype({"x1": float, "y1": float, "x2": float, "y2": float})
    for box in ask(clumsy, truth, image_id).labels:
        assert 0 <= box.x1 < box.x2 <= 320
        assert 0 <= box.y1 < box.y2 <= 240


def test_label_studio_would_show_the_same_boxes():
    person = make_people(4, seed=0)[3]
    annotation = ask(person, table(("boat", 0, 0, 60, 40), ("buoy", 300, 220, 320, 240)))
    drawn = write_result(annotation.labels, 320, 240)
    parsed = read_result(drawn, width=320, height=240, ontology=ONTOLOGY)
    assert parsed.problems == []
    assert len(parsed.labels) == len(annotation.labels)
