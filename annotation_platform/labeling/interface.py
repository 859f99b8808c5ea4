"""What people see: the ontology as a Label Studio labelling configuration."""

from html import escape
from typing import Any
from xml.etree import ElementTree as ET

from annotation_platform.errors import SettingsError
from annotation_platform.schema.ontology import LabelClass, Ontology, class_colors

CONTROL_NAME = "label"
"""The name of the box tool in the configuration; results carry it as ``from_name``."""

IMAGE_NAME = "image"
"""The name of the picture in the configuration; results carry it as ``to_name``."""

# Label Studio 1.23 gives these letters a meaning of their own: brush, eraser, pan, key point,
# auto-detect, ellipse, polygon, rectangle, unselect, move and wand (read from its key map).
_TAKEN_LETTERS = frozenset("behkmopruvw")
_LETTERS = [letter for letter in "asdfgqtzxcynijl" if letter not in _TAKEN_LETTERS]

HOTKEYS: tuple[str, ...] = (*"123456789", *_LETTERS, *(f"shift+{letter}" for letter in _LETTERS))
"""The keys that choose a class, in the order in which classes get them."""

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
    )
)


def labeling_config(ontology: Ontology) -> str:
    """Return the XML of a project in which people draw boxes on ``$image``.

    The box tool is called ``label`` and the picture ``image``. Every class has a colour of its
    own and, up to ``len(HOTKEYS)`` classes, a key of its own; later classes are chosen by mouse.
    Boxes and pictures cannot be turned: a turned box has no exact ``x1 y1 x2 y2``.

    Raises:
        SettingsError: A class name holds a character that XML cannot carry.
    """
    view = ET.Element("View")
    ET.SubElement(
        view,
        "Image",
        name=IMAGE_NAME,
        value="$image",
        zoom="true",
        zoomControl="true",
        rotateControl="false",
    )
    tool = ET.SubElement(
        view,
        "RectangleLabels",
        name=CONTROL_NAME,
        toName=IMAGE_NAME,
        canRotate="false",
        strokeWidth="2",
        opacity="0.15",
        showInline="true",
    )
    colors = class_colors(ontology)
    for position, label_class in enumerate(ontology.classes):
        name = _checked_name(label_class)
        label = ET.SubElement(tool, "Label", value=name, background=colors[name])
        if position < len(HOTKEYS):
            label.set("hotkey", HOTKEYS[position])
    ET.indent(view)
    return ET.tostring(view, encoding="unicode")


def labeling_instructions(ontology: Ontology) -> str:
    """Return the guidelines as the HTML that Label Studio shows before the first picture.

    They are not part of the configuration: there a text with ``$`` would be read as task data.
    """
    return "<br>".join(escape(line) for line in ontology.guidelines.splitlines())


def tasks_tab(title: str, *, assignee: str = "") -> dict[str, Any]:
    """Return a tab of Label Studio's list of tasks: the places of one person, or all of them.

    It shows the picture, who is asked and what was done, and hides the columns for machines.
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
            "cannot show characters that do not print. Rename the class."
        )
    return label_class.name
