"""The overlap of two areas."""

import shapely

from annotation_platform.schema.shapes import area_of


def area_overlap(a, b):
    """Return the intersection over union, 0 to 1, of two areas of any shapes; exact for masks."""
    first, second = area_of(a), area_of(b)
    shared = float(shapely.area(shapely.intersection(first, second)))
    union = float(shapely.area(first) + shapely.area(second)) - shared
    # Equal areas may differ in the last digit by the order of summation.
    return min(shared / union, 1.0) if union > 0 else 0.0
