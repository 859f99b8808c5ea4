import pandas as pd
import pytest

from annotation_platform.consensus.vote_margin import vote_margins
from annotation_platform.schema.shapes import NOTHING, UNSURE, Label

BOX = Label.box("cat", 10, 10, 50, 50)
NEAR = Label.box("cat", 12, 11, 51, 49)
FAR = Label.box("cat", 200, 10, 240, 50)
DOG = Label.box("dog", 10, 10, 50, 50)


def labels_table(*annotations):
    return pd.DataFrame(
        [
            {
                "task_id": "t",
                "annotation_id": f"a:{number}",
                "annotator": f"p{number}",
                **vars(label),
            }
            for number, labels in enumerate(annotations)
            for label in labels
        ]
    )


@pytest.mark.parametrize(
    ("annotations", "margin"),
    [
        pytest.param([[BOX]], 1, id="one annotation"),
        pytest.param([[BOX], [NEAR], [BOX]], 3, id="all agree"),
        pytest.param([[NOTHING], [NOTHING]], 2, id="all saw nothing"),
        pytest.param([[BOX], [NOTHING]], 0, id="one saw it, one did not"),
        pytest.param([[BOX], [NEAR], [NOTHING]], 1, id="two saw it, one did not"),
        pytest.param([[BOX], [DOG]], 0, id="one class each"),
        pytest.param([[BOX], [BOX], [DOG]], 1, id="two classes to one"),
        pytest.param([[BOX, FAR], [NEAR], [BOX]], 1, id="the closest question decides"),
        # An object that one of four saw is clearly absent: its class is no question.
        pytest.param([[BOX, FAR], [BOX], [BOX], [BOX]], 2, id="one against three"),
        pytest.param([[BOX], [BOX], [UNSURE]], 2, id="unsure votes for nothing"),
        pytest.param(
            [[Label.choice("a")], [Label.choice("a")], [Label.choice("b")]], 1, id="choice"
        ),
        pytest.param([[Label.choice("a")], [NOTHING]], 0, id="chosen or not"),
    ],
)
def test_the_closest_question_says_how_far_annotations_lead(annotations, margin):
    assert vote_margins(labels_table(*annotations)) == {"t": margin}


def test_a_person_who_annotates_twice_by_mistake_is_two_annotations():
    twice = labels_table([BOX], [BOX]).assign(annotator="p0")
    assert vote_margins(twice) == {"t": 2}
