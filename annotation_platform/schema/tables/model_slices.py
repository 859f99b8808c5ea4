"""Figures of models by kind of image."""

from annotation_platform.schema.tables.shared import ROUND_ID
from annotation_platform.schema.tables.table import Table, count, flag, number, text


class ModelSlices(Table, name="model_slices"):
    """Quality of a round's model by class, size and kind of test image, the weakest first."""

    round_id = ROUND_ID
    kind = text("class, size, dark, bright, blurred, source, device or round", key=True)
    name = text("class, size or value, or where the tail begins", key=True)
    images = count("test images in it")
    boxes = count("true boxes in it")
    map = number("mean average precision over IoU 0.5 to 0.95, 0 to 1", 0, 1)
    map_low = number("lower end of its 95 % interval", 0, 1)
    map_high = number("upper end of its 95 % interval", 0, 1)
    map50 = number("the same at IoU 0.5", 0, 1)
    others_map = number("map of the other images or classes, 0 to 1", 0, 1)
    difference = number("difference of map to those, class by class", -1, 1)
    upper = number("upper end of the difference, corrected for multiple comparisons", -1, 1)
    weak = flag("whether it is worse beyond chance: upper is below 0")
    rank = count("position from the weakest, from 0")
