from xml.etree import ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import SettingsError
from annotation_platform.formats.label_studio.region_codecs import CODECS
from annotation_platform.formats.label_studio.results import write_result
from annotation_platform.labeling.backends.label_studio.interface import (
    ACCEPT_HOTKEY,
    HOTKEYS,
    REJECT_HOTKEY,
    UNSURE_HOTKEY,
    labeling_config,
    labeling_instructions,
    review_config,
    tasks_tab,
)
from annotation_platform.schema.ontology import LabelClass, Ontology, class_colors
from annotation_platform.schema.shapes import UNSURE, Label


def labels_of(ontology):
    return ET.fromstring(labeling_config(ontology)).findall(".//Label")


def of_shape(choose="one", /, **shapes):
    """An ontology of these classes, each with its shape."""
    classes = [LabelClass(id=n, name=a, shape=b) for n, (a, b) in enumerate(shapes.items())]
    return Ontology(classes=tuple(classes), choose=choose)


MIXED = of_shape(
    cat="box",
    ship="rotated_box",
    roof="polygon",
    water="mask",
    nose="keypoint",
    day="choice",
    night="choice",
)


def test_boxes_are_drawn_on_the_image_of_the_task():
    view = ET.fromstring(labeling_config(Ontology.from_names(["cat"])))
    assert view.find("Image").attrib["value"] == "$image"
    tool = view.find(".//RectangleLabels")
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


def test_each_shape_has_a_tool_and_no_other_shape_has_one():
    view = ET.fromstring(labeling_config(MIXED))
    tools = {tool.get("name"): tool for tool in view.findall(".//*[@toName]")}
    assert {name: tool.tag for name, tool in tools.items()} == {
        "label": "RectangleLabels",
        "rotated": "RectangleLabels",
        "polygon": "PolygonLabels",
        "mask": "BrushLabels",
        "point": "KeyPointLabels",
        "choice": "Choices",
        "unsure": "Choices",
    }
    assert [tools[name].get("canRotate") for name in ("label", "rotated")] == ["false", "true"]
    boxes_only = ET.fromstring(labeling_config(Ontology.from_names(["cat"])))
    assert {tool.get("name") for tool in boxes_only.findall(".//*[@toName]")} == {"label", "unsure"}


def test_one_choice_is_required_and_waived_by_being_unsure():
    view = ET.fromstring(labeling_config(MIXED))
    choice = view.find(".//Choices[@name='choice']").attrib
    assert (choice["choice"], choice["required"]) == ("single", "true")
    assert (choice["visibleWhen"], choice["whenTagName"]) == ("choice-unselected", "unsure")


def test_many_choices_are_asked_as_many_and_none_of_them_may_hold():
    view = ET.fromstring(labeling_config(of_shape("many", day="choice", rain="choice")))
    choice = view.find(".//Choices[@name='choice']").attrib
    assert choice["choice"] == "multiple"
    assert "required" not in choice


def test_a_review_shows_what_is_in_dispute_and_takes_a_decision():
    view = ET.fromstring(review_config(MIXED))
    assert view.find(".//Text").attrib["value"] == "$conflicts"
    decision = view.find(".//Choices[@name='decision']")
    assert decision.get("required") == "true"
    assert [choice.get("alias") for choice in decision] == ["accept", "reject"]
    reason = view.find(".//View[@whenChoiceValue='reject']/TextArea")
    assert (reason.get("name"), reason.get("required")) == ("reason", "true")
    comment = view.find(".//View[@whenChoiceValue='accept']/TextArea")
    assert (comment.get("name"), comment.get("required")) == ("comment", None)
    # The rest is what annotators see.
    labels = ET.fromstring(labeling_config(MIXED)).findall(".//Label")
    assert [label.attrib for label in view.findall(".//Label")] == [each.attrib for each in labels]


def test_a_name_with_a_dollar_is_shown_and_not_filled_in():
    (label,) = labels_of(Ontology.from_names(["US$image"]))
    assert label.attrib["value"] == "US$\u200bimage"
    assert label.attrib["alias"] == "US$image"


printable = st.text(st.characters(exclude_categories=["C", "Z"]), min_size=1, max_size=8)


@st.composite
def ontologies(draw):
    names = draw(st.lists(printable | st.from_regex(r"\$[a-z]+", fullmatch=True), unique=True))
    names = names or ["cat"]
    shapes = st.sampled_from(list(CODECS))
    return of_shape(draw(st.sampled_from(["one", "many"])), **{n: draw(shapes) for n in names})


@settings(deadline=None)  # the first example imports Label Studio's SDK
@given(ontologies())
def test_label_studio_takes_the_configuration_of_any_ontology(ontology):
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="not installed")
    for config in (labeling_config(ontology), review_config(ontology)):
        interface = sdk.LabelInterface(config)
        interface.validate()
        for label_class in ontology.classes:
            control = interface.get_control(CODECS[label_class.shape].control)
            assert label_class.name in control.labels


@given(ontologies())
def test_no_two_keys_of_all_tools_are_the_same(ontology):
    for config in (labeling_config(ontology), review_config(ontology)):
        view = ET.fromstring(config)
        keys = [item.get("hotkey") for item in view.iter() if item.tag in {"Label", "Choice"}]
        given_keys = [key for key in keys if key]
        assert len(given_keys) == len(set(given_keys))
        if len(ontology.classes) <= len(HOTKEYS):
            assert None not in keys


def test_every_region_that_is_proposed_names_a_tool_that_is_there():
    view = ET.fromstring(labeling_config(MIXED))
    names = {tool.get("name") for tool in view.findall(".//*[@toName]")}
    labels = [
        Label.box("cat", 0, 0, 1, 1),
        Label.rotated_box("ship", 5, 5, 2, 1, 30),
        Label.polygon("roof", [[0, 0, 1, 0, 1, 1]]),
        Label.mask("water", np.ones((10, 10), dtype=bool)),
        Label.keypoint("nose", 1, 1),
        Label.choice("day"),
        UNSURE,
    ]
    assert {region["from_name"] for region in write_result(labels, 10, 10)} == names


def test_the_first_nine_keys_are_the_digits():
    assert "".join(HOTKEYS[:9]) == "123456789"


def test_no_key_is_one_that_label_studio_uses():
    # The single keys of Label Studio 1.23.2's own key map, as its front end ships it.
    taken = set("behkmopruvw[]") | {"shift+1", "shift+2", "shift+r", "shift+."}
    # Of those with two more keys it has only arrows and the space.
    assert taken.isdisjoint({*HOTKEYS, UNSURE_HOTKEY, ACCEPT_HOTKEY, REJECT_HOTKEY})
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
