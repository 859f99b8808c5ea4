"""The minimal flip set of a label, if another label of its class is near."""

import pandas as pd

from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.provenance.annotated_image import AnnotatedImage
from annotation_platform.schema.shapes import Label
from tests.core.consensus.test_consensus import ONTOLOGY, labels_table


def annotated(annotations):
    rows = labels_table(annotations)
    rows = rows.assign(annotation_id=rows["annotator"])
    images = pd.DataFrame({"image_id": rows["image_id"].unique(), "width": 400, "height": 300})
    known = resolve_consensus(rows, ontology=ONTOLOGY, images=images)
    return AnnotatedImage(
        image_id=str(rows["image_id"].iloc[0]), annotations=rows, reviewed=rows[:0], images=images,
        common=known.common, iou_threshold=0.5, ontology=ONTOLOGY, guideline="",
        successors=ONTOLOGY.successors,
    )  # fmt: skip


def test_a_neighbour_of_the_same_class_does_not_replace_a_lost_label():
    a, b = Label.box("cat", 100, 100, 200, 200), Label.box("cat", 123, 100, 223, 200)
    one = annotated({"p1": [a, b], "p2": [a, b], "p3": [a]})
    both = one.labels()
    assert len(both) == 2
    right = max(both, key=lambda each: each.label.x1)
    # Two of three marked it. Without one of them it is one vote against that of p3.
    chosen, is_smallest = one.smallest_set(right.label_id)
    assert is_smallest
    assert len(chosen) == 1
    assert chosen[0] in {"p1", "p2"}


def test_with_many_annotations_the_set_found_is_marked_as_not_minimal():
    box = Label.box("cat", 100, 100, 200, 200)
    many = annotated({f"p{number}": [box] if number < 8 else [] for number in range(10)})
    (label,) = many.labels()
    chosen, is_smallest = many.smallest_set(label.label_id)
    assert not is_smallest
    # Eight mark it and two do not: without seven of them its probability is too low.
    assert set(chosen) <= {f"p{number}" for number in range(8)}
    assert 6 <= len(chosen) <= 8
    assert label.label_id not in many.remaining(chosen)
    assert all(
        label.label_id in many.remaining([each for each in chosen if each != one]) for one in chosen
    )
