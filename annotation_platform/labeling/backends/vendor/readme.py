"""README.txt of a package: the tasks, and exactly what to return."""

from annotation_platform.formats.label_studio.region_codecs import CODECS, check_held
from annotation_platform.schema.ontology import Ontology

_HEAD = """\
Images to annotate: package {package}

manifest.json   the classes, the guidelines, and one entry for each place
images/         the images
{files}

Every task has one or more places. Each place is annotated by one person, and no two places of a
task by the same person. People must not see each other's annotations.
"proposed", if not empty, holds the predictions of a model; begin with them, and correct them.
"expertise", if not empty, is the skill that the annotator needs.

Classes
{classes}

Guidelines
{guidelines}

What to return
{annotations}

The import checks that package, tasks and places are those of this package, that the images are
byte for byte those sent, that sizes agree, that every class is one of the above, and that every
region is usable. If anything is wrong, nothing is imported, and you get the list of problems.
Returning the same file again changes nothing; a corrected one replaces what it corrects.
"""

_NATIVE = """\
Fill in answers.json and return it, alone or in a zip or folder with the other files. For each
annotated place:
  annotator          your own id of that person, the same in all entries; no e-mail address
  started_at         when they began and ended, such as 2026-05-01T12:00:00+02:00; or leave both
  finished_at        empty. Without an offset it is read as UTC
  lead_time_seconds  the time spent, if it is not the time between the two; or null
  skipped            true if the person skipped the task
  unsure             true if the person could not decide
  result             the regions, a list. An empty list means that nothing is in the image,
                     null that the place is not annotated yet; it may be returned later
Leave task_id, place, image, image_sha256, width and height as they are.

A region is one that Label Studio would export; x, y, width and height are percent of the image:
  {"type": "rectanglelabels", "original_width": 640, "original_height": 480, "image_rotation": 0,
   "value": {"x": 10.0, "y": 20.0, "width": 5.0, "height": 5.0, "rotation": 0,
             "rectanglelabels": ["class"]}}
The key in value that holds the class has the name of the type."""

_COCO = """\
One COCO file of boxes by one person, answers.coco.json, alone or in a zip or folder. Begin from
images.coco.json: it lists the images and the classes. List under "images" the images that
the person annotated, and no others: one without annotations means that nothing is in it.
Segmentations are not read. Give your own id of the person when you send the file; send a file for
each further person. Leave file_name, width and height as they are, and the package in "info"; if
your tool drops it, give the package's id when you send the file."""

_PYBOSSA = """\
Put images/ where your Pybossa server can show them and create the tasks from tasks.json, e.g.
  pbs add_tasks --tasks-file tasks.json --redundancy 3
where the number is n_answers in tasks.json: how many different people each task needs. The task
presenter must save a list of regions as Label Studio would export them, an empty list
if there is nothing in the image, {"choice": "class"} for a class of the whole
image, {"skipped": true} or {"unsure": true}. Return Pybossa's own exports of the tasks and of
the task runs, as JSON or as CSV."""

_FILES = {
    "label-studio": "answers.json    the file to fill in and return",
    "coco": "images.coco.json   the images and classes as COCO, to begin with",
    "pybossa": "tasks.json      the tasks as Pybossa imports them",
}


def readme(package: str, ontology: Ontology, form: str) -> str:
    """Return README.txt for a form of return: ``label-studio``, ``coco`` or ``pybossa``.

    Raises:
        SettingsError: a class has a shape that Label Studio does not have.
    """
    check_held(ontology)
    classes = "\n".join(
        f"  {each.id}  {each.name}\n    {CODECS[each.shape].returned}" for each in ontology.classes
    )
    annotations = {"label-studio": _NATIVE, "coco": _COCO, "pybossa": _PYBOSSA}[form]
    return _HEAD.format(
        package=package,
        files=_FILES[form],
        classes=classes,
        guidelines="\n".join(f"  {line}" for line in ontology.guidelines.splitlines()) or "  none",
        annotations=annotations,
    )
