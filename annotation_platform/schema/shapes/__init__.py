"""The shapes of labels: regions of several shapes, classes of whole images, and statements.

All coordinates are absolute pixels of the stored image, origin at its top left corner. Every region
has its enclosing box; what the box does not define is the ``geometry``, a short JSON text:

============  =================================================================================
shape         geometry
============  =================================================================================
box           empty: the enclosing box defines it
rotated_box   ``[centre x, centre y, width, height, degrees clockwise]``
polygon       ``[[x, y, x, y, …], …]``: outlines, as in COCO; the area is their union
mask          ``{"size": [height, width], "counts": "…"}``: COCO's compressed run lengths
keypoint      ``[x, y]``; its enclosing box is that point
choice        empty, and no box: a class of the whole image
unsure        empty, no class, no box: the annotator could not decide
none          empty, no class, no box: there is nothing to label
============  =================================================================================

Each shape is one module with a subclass of ``Shape``, registered below. No other code branches on
the shape of a label: it calls the shape, or reads a property that shapes declare.
``docs/how-to/add-a-shape.md`` has the steps for another one.
"""

from annotation_platform.schema.shapes.area import Area
from annotation_platform.schema.shapes.box import Box
from annotation_platform.schema.shapes.classification import Classification
from annotation_platform.schema.shapes.keypoint import KEYPOINT_HALF, Keypoint
from annotation_platform.schema.shapes.mask import Mask
from annotation_platform.schema.shapes.numbers import Numbered, are_numbers, median_of, near_mean
from annotation_platform.schema.shapes.polygon import Polygon
from annotation_platform.schema.shapes.rotated_box import RotatedBox, rotated_corners
from annotation_platform.schema.shapes.shape import (
    AREAS,
    CLASSIFICATIONS,
    KEPT_WHOLE,
    NOTHING,
    OUTSIDE,
    POINTS,
    REGIONS,
    SHAPES,
    STATEMENTS,
    UNSURE,
    UPRIGHT_BOXES,
    WITH_CLASS,
    Kind,
    Label,
    Shape,
    ShapeName,
    area_of,
    boxes_of,
    edges_of,
    outlines_of,
    register,
)
from annotation_platform.schema.shapes.statement import Nothing, Unsure

__all__ = [
    "AREAS",
    "CLASSIFICATIONS",
    "KEPT_WHOLE",
    "KEYPOINT_HALF",
    "NOTHING",
    "OUTSIDE",
    "POINTS",
    "REGIONS",
    "SHAPES",
    "STATEMENTS",
    "UNSURE",
    "UPRIGHT_BOXES",
    "WITH_CLASS",
    "Area",
    "Kind",
    "Label",
    "Numbered",
    "Shape",
    "ShapeName",
    "are_numbers",
    "area_of",
    "boxes_of",
    "edges_of",
    "median_of",
    "near_mean",
    "outlines_of",
    "register",
    "rotated_corners",
]

for _shape in (
    Box(),
    RotatedBox(),
    Polygon(),
    Mask(),
    Keypoint(),
    Classification(),
    Unsure(),
    Nothing(),
):
    register(_shape)
