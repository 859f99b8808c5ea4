from xml.etree import ElementTree as ET

import pytest

from annotation_platform.errors import SettingsError
from annotation_platform.labeling.interface import (
    HOTKEYS,
    labeling_config,
    labeling_instructions,
    tasks_tab,
)
from annotation_platform.schema.ontology import LabelClass, Ontology, class_colors


def labels_of(ontology):
    return ET.fromstring(labeling_config(ontology)).findall(".//Label")


def test_boxes_are_drawn_on_the_picture_of_the_task():
    view = ET.fromstring(labeling_config(Ontology.from_names(["cat"])))
    assert view.find("Image").attrib["value"] == "$image"
    tool = view.find("RectangleLabels")
    assert (tool.attrib["name"], tool.attrib["toName"]) == ("label", "image")


def test_every_class_is_offered_in_the_order_of_the_ontology():
    names = ["person", "vehicle", "animal"]
    assert [label.attrib["value"] for label in labels_of(Ontology.from_names(names))] == names


@pytest.mark.parametrize("name", ['a "b" & <c>', "Äpfel 🍎", "'quoted'", "x]]>y", "100 %"])
def test_any_printable_name_survives_xml(name):
    assert labels_of(Ontology.from_names([name]))[0].attrib["value"] == name


def test_a_name_that_does_not_print_is_refused_with_its_class():
    with pytest.raises(SettingsError, match=r"class 0 .*Rename"):
        labeling_config(Ontology.from_names(["cat\x00"]))


@pytest.mark.parametrize("number", [1, 9, 10, len(HOTKEYS), len(HOTKEYS) + 5])
def test_no_two_classes_share_a_key_or_a_colour(number):
    labels = labels_of(Ontology.from_names([f"class {n}" for n in range(number)]))
    keys = [label.attrib["hotkey"] for label in labels if "hotkey" in label.attrib]
    assert keys == list(HOTKEYS[:number])
    assert len({label.attrib["background"] for label in labels}) == number


def test_the_first_nine_keys_are_the_digits():
    assert "".join(HOTKEYS[:9]) == "123456789"


def test_no_key_is_one_that_label_studio_uses():
    # The single keys of Label Studio 1.23.2's own key map, as its front end ships it.
    taken = set("behkmopruvw[]") | {"shift+1", "shift+2", "shift+r", "shift+."}
    assert taken.isdisjoint(HOTKEYS)
    assert len(set(HOTKEYS)) == len(HOTKEYS)


def test_a_colour_of_the_ontology_is_kept_and_not_given_again():
    given = class_colors(Ontology.from_names(["other"]))["other"]
    ontology = Ontology(
        classes=(LabelClass(id=0, name="cat"), LabelClass(id=1, name="dog", color=given))
    )
    colors = class_colors(ontology)
    assert colors["dog"] == given
    assert colors["cat"] != given


def test_a_class_keeps_its_colour_when_others_are_added():
    few, many = Ontology.from_names(["a", "b"]), Ontology.from_names(["a", "b", "c", "d"])
    assert class_colors(few).items() <= class_colors(many).items()


def test_guidelines_are_text_even_where_they_look_like_markup():
    ontology = Ontology(
        classes=(LabelClass(id=0, name="cat"),), guidelines="Boxes < 5 px: skip.\n<script>"
    )
    assert labeling_instructions(ontology) == "Boxes &lt; 5 px: skip.<br>&lt;script&gt;"


def test_a_tab_is_one_persons_or_everybodys():
    assert "filters" not in tasks_tab("Everybody")
    (condition,) = tasks_tab("Ada", assignee="ada@example.org")["filters"]["items"]
    assert (condition["filter"], condition["value"]) == (
        "filter:tasks:data.assignee",
        "ada@example.org",
    )
