import numpy as np
import pandas as pd
import pytest

from annotation_platform.consensus.conflicts import outside_image
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.shapes import NOTHING, UNSURE, Label
from annotation_platform.schema.tables import Conflicts

NAMES = ["shape", "class_name", "x1", "y1", "x2", "y2", "geometry"]
ONTOLOGY = Ontology(
    classes=(
        LabelClass(id=0, name="cat"),
        LabelClass(id=1, name="dog"),
        LabelClass(id=2, name="road", shape="polygon"),
        LabelClass(id=3, name="day", shape="choice"),
        LabelClass(id=4, name="night", shape="choice"),
    )
)
WIDTH, HEIGHT = 640, 480
PEOPLE = ("ada", "ben", "cam")


def labels_table(rounds):
    """Return a table; ``rounds`` holds a dictionary of people's labels for each image."""
    rows = []
    for number, annotations in enumerate(rounds):
        image = f"{number:064x}"
        same = {"round_id": "round-0001", "task_id": f"round-0001/all/{image}", "image_id": image}
        rows += [
            {**same, "annotator": who, **{name: getattr(label, name) for name in NAMES}}
            for who, labels in annotations.items()
            for label in labels or [NOTHING]
        ]
    return pd.DataFrame(rows)


def resolve(rounds):
    table = labels_table(rounds)
    images = table[["image_id"]].drop_duplicates().assign(width=WIDTH, height=HEIGHT)
    return resolve_consensus(table, ontology=ONTOLOGY, images=images)


def cat(x=100, y=100, side=80, name="cat"):
    return Label.box(name, x, y, x + side, y + side)


def everybody(*labels, **others):
    """Return the annotations of three annotators who agree, except for those named."""
    return {**{who: list(labels) for who in PEOPLE}, **others}


ROAD = [0, 0, 300, 0, 300, 200, 0, 200]

PLANTED = {
    # kind: the annotations of one image, who is involved, whether a rule settles it.
    "class": (everybody(cat(), cam=[cat(name="dog")]), "ada,ben,cam", True),
    "overlap": (everybody(cat(), cam=[cat(130, 100)]), "ada,ben,cam", True),
    "missing": (everybody(cat(), cat(300), cam=[cat()]), "cam", True),
    "duplicate": (everybody(cat(), cam=[cat(), cat(104, 100)]), "cam", True),
    "outside_ontology": (everybody(cat(), cam=[cat(), cat(300, name="kat")]), "cam", False),
    "outside_image": (everybody(cat(), cam=[cat(), cat(600, 100)]), "cam", False),
    "unsure": (everybody(cat(), cam=[UNSURE]), "cam", False),
}


def test_planted_conflicts_of_every_kind_are_found_with_image_and_people():
    clean = [everybody(cat(), cat(300)) for _ in range(60)]
    conflicts = resolve([annotations for annotations, *_ in PLANTED.values()] + clean).conflicts
    Conflicts.check(conflicts)
    for number, (kind, (_, annotators, settled)) in enumerate(PLANTED.items()):
        image = f"{number:064x}"
        found = conflicts[(conflicts["kind"] == kind) & (conflicts["image_id"] == image)]
        assert found["annotators"].tolist() == [annotators], kind
        assert found["settled"].tolist() == [settled], kind
        assert found["conflict_id"].tolist() == [f"{image}:{kind}:0000"]
    # An object that only one of three drew is also missing from the others; nothing else is found.
    kinds = conflicts.groupby("image_id")["kind"].agg(sorted).to_dict()
    lone = {"outside_ontology", "outside_image"}
    assert kinds == {
        f"{number:064x}": sorted({kind} | ({"missing"} if kind in lone else set()))
        for number, kind in enumerate(PLANTED)
    }


def test_a_conflict_says_where_it_is_and_which_label_it_is_about():
    consensus = resolve([PLANTED["missing"][0], PLANTED["outside_ontology"][0]])
    missing, foreign, lone = (
        consensus.conflicts[consensus.conflicts["kind"] == kind].iloc[at]
        for kind, at in (("missing", 0), ("outside_ontology", 0), ("missing", 1))
    )
    labels = consensus.labels.set_index("label_id")
    assert labels.loc[missing["label_id"], "x1"] == missing["x1"] == 300
    assert missing["detail"].startswith("2 of 3 drew it; accepted")
    # Turned down: no label, but the place that was drawn.
    assert pd.isna(foreign["label_id"])
    assert pd.isna(lone["label_id"])
    assert (foreign["class_name"], foreign["x1"], lone["x1"]) == ("kat", 300, 300)


def test_an_object_that_half_of_them_saw_is_tied_and_kept():
    consensus = resolve([{"ada": [cat()], "ben": []}])
    assert consensus.labels["shape"].tolist() == ["box"]
    found = consensus.conflicts[["kind", "annotators", "settled"]].to_numpy().tolist()
    assert found == [["missing", "ben", False], ["tied", "ada,ben", False]]


def test_level_votes_on_a_class_are_tied_unless_something_tells_them_apart():
    level = {"ada": [cat()], "ben": [cat(name="dog")]}
    assert resolve([level]).conflicts["kind"].tolist() == ["class", "tied"]
    apart = {"ada": [cat(), cat(300, side=20, name="dog")]}
    rounds = [{**apart, "ben": apart["ada"]} for _ in range(20)]
    conflicts = resolve([*rounds, level]).conflicts
    assert conflicts[["kind", "settled"]].to_numpy().tolist() == [["class", True]]


def test_choices_are_in_conflict_as_objects_are():
    rounds = [
        {
            "ada": [Label.choice("day")],
            "ben": [Label.choice("day")],
            "cam": [Label.choice("night")],
        },
        {"ada": [Label.choice("day")], "ben": [Label.choice("day")], "cam": []},
        {
            "ada": [Label.choice("day")],
            "ben": [Label.choice("day")],
            "cam": [Label.choice("day"), Label.choice("night")],
        },
    ]
    conflicts = resolve(rounds).conflicts
    assert conflicts[["kind", "annotators"]].to_numpy().tolist() == [
        ["class", "ada,ben,cam"],
        ["missing", "cam"],
        ["outside_ontology", "cam"],
    ]
    assert conflicts["x1"].isna().all()


def test_a_class_drawn_in_another_shape_is_outside_the_ontology():
    annotations = everybody(Label.polygon("road", [ROAD]), cam=[Label.box("road", 0, 0, 300, 200)])
    consensus = resolve([annotations])
    assert consensus.labels["shape"].tolist() == ["polygon"]
    foreign = consensus.conflicts[consensus.conflicts["kind"] == "outside_ontology"].iloc[0]
    assert "the ontology expects a polygon" in foreign["detail"]


def test_neighbours_that_all_of_them_drew_are_no_duplicates():
    pair = [cat(100), cat(120)]
    assert resolve([everybody(*pair)]).conflicts.empty


def test_two_regions_of_one_person_alone_are_kept_unless_they_are_surely_one():
    # They overlap by 60 / 100, 70 / 90 and 79 / 81: neighbours, doubtful, one object.
    near, doubtful, same = ([cat(100), cat(x)] for x in (120, 110, 101))
    both = resolve([{"ada": near}, {"ada": doubtful}, {"ada": same}])
    assert both.labels.groupby("image_id").size().tolist() == [2, 2, 1]
    assert both.conflicts[["kind", "settled"]].to_numpy().tolist() == [
        ["duplicate", True],
        ["duplicate", False],
        ["duplicate", True],
    ]


def test_resolved_regions_that_cover_each_other_are_perhaps_one():
    both = [cat(), cat(101, name="dog")]
    consensus = resolve([everybody(*both)])
    assert len(consensus.labels) == 2
    assert consensus.conflicts[["kind", "settled"]].to_numpy().tolist() == [["duplicate", False]]


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        pytest.param(Label.box("cat", 0, 0, 640, 480), "", id="the whole image"),
        pytest.param(Label.box("cat", 0, 0, 640.4, 480), "", id="rounding"),
        pytest.param(Label.box("cat", -8, 0, 9, 9), "8.0 pixels outside", id="left"),
        pytest.param(Label.box("cat", 5, 0, 5, 9), "no area", id="no area"),
        pytest.param(Label.keypoint("cat", 5, 490), "10.0 pixels outside", id="point"),
        pytest.param(Label.polygon("cat", [[0, 0, 9, 0, 9, 700]]), "220.0 pixels", id="polygon"),
        pytest.param(Label.rotated_box("cat", 3, 50, 40, 20, 45), "", id="rotated at the edge"),
        pytest.param(Label.rotated_box("cat", -3, 50, 40, 20, 45), "3.0 pixels", id="rotated"),
        pytest.param(Label.mask("cat", np.ones((480, 640), bool)), "", id="mask"),
        pytest.param(Label.mask("cat", np.ones((10, 20), bool)), "20 × 10", id="other mask"),
        pytest.param(Label.choice("cat"), "", id="no region"),
    ],
)
def test_how_a_region_leaves_its_image(label, expected):
    problem = outside_image(label, (WIDTH, HEIGHT))
    assert expected in problem if expected else problem == ""
