import pandas as pd
import pytest

from annotation_platform.curation.carry_over import carry_over
from annotation_platform.schema.ontology import LabelClass, Ontology, RetiredClass

TODAY = Ontology(
    classes=(
        LabelClass(id=0, name="person", was=("pedestrian",)),
        LabelClass(id=1, name="car"),
        LabelClass(id=5, name="ferry"),
        LabelClass(id=6, name="tug"),
    ),
    retired=(
        RetiredClass(id=2, name="van", into=(1,)),
        RetiredClass(id=3, name="ship", was=("boat",), into=(5, 6)),
        RetiredClass(id=4, name="shadow"),
    ),
)


def labels(*pairs):
    return pd.DataFrame(
        [
            {
                "image_id": image,
                "label_id": f"{image}:{number:04d}",
                "shape": "box" if name else "none",
                "class_name": name,
                **dict.fromkeys(("x1", "y1"), 0.0 if name else float("nan")),
                **dict.fromkeys(("x2", "y2"), 9.0 if name else float("nan")),
                "geometry": "",
                "support": 3,
            }
            for number, (image, name) in enumerate(pairs)
        ]
    )


@pytest.mark.parametrize(
    ("then", "today"),
    [
        pytest.param("person", "person", id="as it was"),
        pytest.param("pedestrian", "person", id="renamed"),
        pytest.param("van", "car", id="merged"),
        pytest.param("unicorn", "unicorn", id="unknown: a gate names it"),
    ],
)
def test_a_label_reads_under_todays_name(then, today):
    carried = carry_over(labels(("a", then)), TODAY)
    assert carried.labels["class_name"].tolist() == [today]
    assert carried.labels["support"].tolist() == [3]
    assert carried.ask_again == {}


@pytest.mark.parametrize("then", ["ship", "boat"])
def test_images_with_a_class_that_was_split_are_asked_about_again(then):
    carried = carry_over(labels(("a", "person"), ("a", then), ("b", "car")), TODAY)
    assert carried.labels["image_id"].tolist() == ["b"]
    assert carried.ask_again == {"a": f"class {then} was split into ferry and tug"}


def test_a_class_that_is_gone_leaves_an_image_that_holds_nothing():
    given = labels(("a", "shadow"), ("a", "shadow"), ("b", "shadow"), ("b", "car"), ("c", None))
    carried = carry_over(given, TODAY).labels
    assert sorted(zip(carried["image_id"], carried["shape"], strict=True)) == [
        ("a", "none"),
        ("b", "box"),
        ("c", "none"),
    ]
    nothing = carried[carried["image_id"] == "a"].iloc[0]
    assert nothing["label_id"] == "a:none"
    assert pd.isna(nothing["class_name"])
    assert pd.isna(nothing["x1"])


def test_no_labels_carry_over_to_none():
    carried = carry_over(labels().reindex(columns=labels(("a", "car")).columns), TODAY)
    assert carried.labels.empty
    assert carried.ask_again == {}
