"""The interface of annotators: the ontology as a Label Studio labelling configuration."""

from collections.abc import Mapping
from html import escape
from typing import Any
from xml.etree import ElementTree as ET

from annotation_platform.errors import SettingsError
from annotation_platform.formats.label_studio.control_names import (
    ACCEPT,
    COMMENT_NAME,
    CONFLICTS_NAME,
    DECISION_NAME,
    IMAGE_NAME,
    NOTE_NAME,
    REASON_NAME,
    REJECT,
    UNSURE_NAME,
)
from annotation_platform.formats.label_studio.region_codecs import CODECS, check_held
from annotation_platform.schema.ontology import LabelClass, Ontology, class_colors
from annotation_platform.schema.shapes import CLASSIFICATIONS

# Label Studio 1.23 gives these letters a meaning of their own: brush, eraser, pan, key point,
# auto-detect, ellipse, polygon, rectangle, unselect, move and wand (read from its key map).
_TAKEN_LETTERS = frozenset("behkmopruvw")
_LETTERS = [letter for letter in "asdfgqtzxcynijl" if letter not in _TAKEN_LETTERS]

HOTKEYS: tuple[str, ...] = (
    *"123456789",
    *_LETTERS,
    *(f"shift+{letter}" for letter in _LETTERS),
    # Shift with 1 and 2 zooms.
    *(f"shift+{digit}" for digit in "3456789"),
    # The system takes some of these: the terminal, the lock, the desktop.
    *(f"ctrl+alt+{letter}" for letter in "abcefghijkmnopqrsuvwxyz"),
    *(f"ctrl+alt+{digit}" for digit in "123456789"),
)
"""The keys that choose a class, in the order of the classes."""

UNSURE_HOTKEY, ACCEPT_HOTKEY, REJECT_HOTKEY = "0", "=", "-"

# Label Studio leaves a blank line above and below each list of labels, which wastes space with
# several lists. Its class names are those of 1.23; if they change, the lines come back.
_STYLE = """
    .tools { display: flex; flex-wrap: wrap; gap: 4px 24px; margin-bottom: 8px }
    .tool { display: flex; align-items: baseline; gap: 8px; max-height: 168px; overflow-y: auto }
    .dispute { max-height: 96px; overflow-y: auto; margin-bottom: 8px }
    .tool .lsf-labels, .tool .lsf-choices { margin: 0 }
    .tool .lsf-choice { line-height: 28px }
  """
_HEADING = "margin: 0; font-size: 12px"
_HINT = "margin: 0; font-size: 12px; font-weight: normal; opacity: 0.7"
_UNSURE = "I am unsure"
_SUBMIT = "Ctrl+Enter submits"
_DRAW = f"U lets go of a region · Ctrl draws on top of one · {_SUBMIT}"

# On a screen of 1,440 pixels: the heights of Label Studio's own frame, of a review, a note and a
# row of tools; and the widths of a row, of a class in it and of each letter.
_FRAME_PIXELS, _REVIEW_PIXELS, _NOTE_PIXELS = 170, 150, 40
_ROW_PIXELS, _MOST_ROWS = 42, 5
_PANE_PIXELS, _ITEM_PIXELS, _LETTER_PIXELS = 780, 60, 8

_HIDDEN_COLUMNS = tuple(
    f"tasks:{name}"
    for name in (
        "inner_id",
        "annotations_results",
        "annotations_ids",
        "predictions_score",
        "predictions_model_versions",
        "predictions_results",
        "total_predictions",
        "file_upload",
        "storage_filename",
        "created_at",
        "updated_at",
        "updated_by",
        "avg_lead_time",
        "draft_exists",
        "data.image_id",
        "data.task_id",
        "data.round",
        "data.place",
        "data.note",
    )
)


def labeling_config(ontology: Ontology, *, notes: bool = False) -> str:
    """Return the XML of a project in which people label ``$image``.

    There is one tool for each shape of a class, named as in ``CODECS``, one list of choices if any
    class is a choice, and always the control ``unsure``, which waives the rest. Where an image has
    exactly one class, Label Studio accepts no annotation without it. Every class has a colour of
    its own and, up to ``len(HOTKEYS)`` classes, a key of its own over all tools; later classes are
    chosen by mouse. Images cannot be rotated, and boxes only where a class is a rotated box, as
    rotated boxes have no exact ``x1 y1 x2 y2``.

    Args:
        ontology: the classes to choose from.
        notes: whether to show ``$note`` above the image: why the last labels were rejected.

    Raises:
        SettingsError: a class name holds a character that XML cannot carry, or the shape of a
            class has no tool.
    """
    view = ET.Element("View")
    if notes:
        group = ET.SubElement(view, "View", className="dispute")
        ET.SubElement(group, "Text", name=NOTE_NAME, value=f"${NOTE_NAME}")
    _add_tools(view, ontology, taken=_NOTE_PIXELS if notes else 0)
    return _text(view)


def review_config(ontology: Ontology) -> str:
    """Return the XML of a project in which a reviewer settles the conflicts of ``$image``.

    It is that of ``labeling_config``, with the text of ``$conflicts`` above it and a required
    decision: accept the labels as shown, changed or not, or reject them, which requires a reason.
    ``results.read_review`` reads the annotation.

    Raises:
        SettingsError: a class name holds a character that XML cannot carry, or the shape of a
            class has no tool.
    """
    view = ET.Element("View")
    dispute = ET.SubElement(view, "View", className="dispute")
    ET.SubElement(dispute, "Text", name=CONFLICTS_NAME, value=f"${CONFLICTS_NAME}")
    group = ET.SubElement(view, "View", className="tools")
    decision = ET.SubElement(
        _group(group, "Decision"),
        "Choices",
        name=DECISION_NAME,
        toName=IMAGE_NAME,
        choice="single-radio",
        showInline="true",
        required="true",
        requiredMessage="Accept or reject the labels.",
    )
    for value, text, key in (
        (ACCEPT, "Accept the labels as shown now", ACCEPT_HOTKEY),
        (REJECT, "Reject: label the image again", REJECT_HOTKEY),
    ):
        ET.SubElement(decision, "Choice", value=text, alias=value, hotkey=key)
    reason = _add_text_area(view, REASON_NAME, REJECT, "Why? The annotator will read it.")
    reason.set("required", "true")
    reason.set("requiredMessage", "Give the reason for the rejection.")
    _add_text_area(view, COMMENT_NAME, ACCEPT, "A comment for the annotator (optional)")
    _add_tools(view, ontology, taken=_REVIEW_PIXELS)
    return _text(view)


def _add_text_area(view: ET.Element, name: str, decision: str, placeholder: str) -> ET.Element:
    """Return a text field that is shown with one of the decisions only."""
    group = ET.SubElement(
        view,
        "View",
        visibleWhen="choice-selected",
        whenTagName=DECISION_NAME,
        whenChoiceValue=decision,
    )
    return ET.SubElement(
        group,
        "TextArea",
        name=name,
        toName=IMAGE_NAME,
        placeholder=placeholder,
        maxSubmissions="1",
        editable="true",
    )


def _add_tools(view: ET.Element, ontology: Ontology, *, taken: int = 0) -> None:
    keys = dict(zip(ontology.names, HOTKEYS, strict=False))
    colors = class_colors(ontology)
    shapes = set(ontology.shape_of.values())
    check_held(ontology)
    ET.SubElement(view, "Style").text = _STYLE
    tools = ET.SubElement(view, "View", className="tools")
    for codec in CODECS.values():
        if codec.shape not in shapes or codec.shape in CLASSIFICATIONS:
            continue
        about = {"name": codec.control, "toName": IMAGE_NAME, "showInline": "true"}
        group = _group(tools, codec.heading if len(shapes) > 1 else "")
        control = ET.SubElement(group, codec.tag, {**about, **codec.attributes})
        for label_class in ontology.classes:
            if label_class.shape == codec.shape:
                _add_class(control, "Label", label_class, keys, background=colors[label_class.name])
    _add_choices(tools, ontology, keys)
    _add_unsure(tools)
    keys_of_all = _SUBMIT if shapes <= {*CLASSIFICATIONS} else _DRAW
    ET.SubElement(_group(tools, ""), "Header", value=keys_of_all, style=_HINT)
    ET.SubElement(
        view,
        "Image",
        name=IMAGE_NAME,
        value="$image",
        zoom="true",
        zoomControl="true",
        rotateControl="false",
        maxHeight=f"calc(100vh - {_around_image(ontology) + taken}px)",
    )


def _around_image(ontology: Ontology) -> int:
    """Return about how many pixels of the screen's height the image cannot use.

    An image that is higher than the rest hides its lower edge.
    """
    items = [*ontology.names, _UNSURE, _DRAW, *sorted(set(ontology.shape_of.values()))]
    pixels = sum(_ITEM_PIXELS + _LETTER_PIXELS * len(item) for item in items)
    return _FRAME_PIXELS + _ROW_PIXELS * min(-(-pixels // _PANE_PIXELS), _MOST_ROWS)


def _add_choices(tools: ET.Element, ontology: Ontology, keys: Mapping[str, str]) -> None:
    classes = [
        label_class for label_class in ontology.classes if label_class.shape in CLASSIFICATIONS
    ]
    if not classes:
        return
    one = ontology.choose == "one"
    control = ET.SubElement(
        _group(tools, "The image is" if one else "The image shows"),
        "Choices",
        name=CODECS[classes[0].shape].control,
        toName=IMAGE_NAME,
        choice="single" if one else "multiple",
        showInline="true",
    )
    if one:
        control.set("required", "true")
        control.set("requiredMessage", "Choose what the image is, or that you are unsure.")
        control.set("visibleWhen", "choice-unselected")
        control.set("whenTagName", UNSURE_NAME)
    for label_class in classes:
        _add_class(control, "Choice", label_class, keys)


def _add_unsure(tools: ET.Element) -> None:
    control = ET.SubElement(
        _group(tools, ""),
        "Choices",
        name=UNSURE_NAME,
        toName=IMAGE_NAME,
        choice="multiple",
        showInline="true",
    )
    ET.SubElement(
        control,
        "Choice",
        value=_UNSURE,
        alias=UNSURE_NAME,
        hotkey=UNSURE_HOTKEY,
        hint="An expert will check this image. Your regions are not counted.",
    )


def _group(tools: ET.Element, heading: str) -> ET.Element:
    group = ET.SubElement(tools, "View", className="tool")
    if heading:
        ET.SubElement(group, "Header", value=heading, style=_HEADING)
    return group


def _add_class(
    control: ET.Element,
    tag: str,
    label_class: LabelClass,
    keys: Mapping[str, str],
    **attributes: str,
) -> None:
    name = _checked_name(label_class)
    item = ET.SubElement(control, tag, {"value": name, **attributes})
    if "$" in name:
        # Label Studio would insert task data: a zero-width space prevents that.
        item.set("value", name.replace("$", "$\u200b"))
        item.set("alias", name)
    if name in keys:
        item.set("hotkey", keys[name])


def _text(view: ET.Element) -> str:
    ET.indent(view)
    return ET.tostring(view, encoding="unicode")


def labeling_instructions(ontology: Ontology) -> str:
    """Return the guidelines as the HTML that Label Studio shows before the first image.

    They are not part of the configuration, where a text with ``$`` would be read as task data.
    """
    return "<br>".join(escape(line) for line in ontology.guidelines.splitlines())


def tasks_tab(title: str, *, assignee: str = "") -> dict[str, Any]:
    """Return a tab of Label Studio's task list: the assignments of one person, or all of them.

    It shows the image, the assignee and the progress, and hides technical columns.
    """
    tab: dict[str, Any] = {
        "title": title,
        "type": "list",
        "target": "tasks",
        "hiddenColumns": {"explore": list(_HIDDEN_COLUMNS), "labeling": list(_HIDDEN_COLUMNS)},
    }
    if assignee:
        is_theirs = {
            "filter": "filter:tasks:data.assignee",
            "operator": "equal",
            "type": "String",
            "value": assignee,
        }
        tab["filters"] = {"conjunction": "and", "items": [is_theirs]}
    return tab


def _checked_name(label_class: LabelClass) -> str:
    if not label_class.name.isprintable():
        raise SettingsError(
            f"params.yaml: class {label_class.id} is named {label_class.name!r}: Label Studio "
            "cannot show unprintable characters. Rename the class."
        )
    return label_class.name
