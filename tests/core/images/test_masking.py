"""What a mask leaves of an image: nothing to read inside, everything as it was outside."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from annotation_platform.images.decoding import decode
from annotation_platform.images.masking import mask_pixels, masked_image, masked_regions
from annotation_platform.schema.geometry import as_boxes
from tests.core.images.conftest import saved, scene

REGION = (32, 16, 96, 80)
SECRET = {"Make": "CANARY", "gps": b"CANARY-GPS"}


def cells(region, count=4):
    """Return the slices of the equal cells of a region whose sides divide by ``count``."""
    x1, y1, x2, y2 = region
    w, h = (x2 - x1) // count, (y2 - y1) // count
    return [(slice(y, y + h), slice(x, x + w)) for y in range(y1, y2, h) for x in range(x1, x2, w)]


def shuffled(pixels, region, *, seed=0):
    """Return the image with the pixels of each cell of a region in another order."""
    rng = np.random.default_rng(seed)
    other = pixels.copy()
    for cell in cells(region):
        flat = other[cell].reshape(-1, 3)
        other[cell] = rng.permutation(flat).reshape(other[cell].shape)
    return other


def grown(region, pixels):
    x1, y1, x2, y2 = region
    return (max(0, x1 - pixels), max(0, y1 - pixels), x2 + pixels, y2 + pixels)


def outside(shape, *regions):
    kept = np.ones(shape[:2], dtype=bool)
    for x1, y1, x2, y2 in regions:
        kept[y1:y2, x1:x2] = False
    return kept


@pytest.mark.parametrize(
    ("box", "margin", "expected"),
    [
        pytest.param([10, 20, 30, 40], 0.0, [(10, 20, 30, 40)], id="as it is"),
        pytest.param([10, 20, 30, 60], 0.1, [(8, 16, 32, 64)], id="a tenth of each side"),
        pytest.param([10.2, 20.9, 30.1, 40.0], 0.0, [(10, 20, 31, 40)], id="rounded outwards"),
        pytest.param([-5, 90, 20, 130], 0.0, [(0, 90, 20, 100)], id="cut at the edges"),
        pytest.param([200, 10, 220, 30], 0.0, [], id="beyond the edge"),
        pytest.param([5, 5, 5, 5], 0.5, [], id="no area"),
    ],
)
def test_a_box_becomes_a_region(box, margin, expected):
    assert masked_regions(as_boxes([box]), width=100, height=100, margin=margin) == expected


def test_the_same_box_twice_is_one_region_and_none_is_none():
    assert masked_regions(as_boxes([[1, 2, 3, 4]] * 2), width=9, height=9, margin=0) == [
        (1, 2, 3, 4)
    ]
    assert masked_regions(as_boxes([]), width=9, height=9, margin=0.15) == []


@pytest.mark.parametrize("style", ["blur", "grey"])
def test_two_images_that_differ_under_the_mask_alone_become_the_same_png(style):
    one = scene(1)
    other = shuffled(one, REGION)
    assert (one != other).any(axis=-1).sum() > 3000
    made = [masked_image(saved(each, "PNG"), [REGION], style=style) for each in (one, other)]
    assert made[0] == made[1]
    seen = decode(made[0])
    kept = outside(seen.shape, REGION)
    assert (seen[kept] == one[kept]).all()
    assert not (seen[~kept] == one[~kept]).all(axis=-1).mean() > 0.01


@pytest.mark.parametrize(
    ("sampling", "mean_levels"),
    [pytest.param(0, 0.1, id="every colour"), pytest.param(2, 0.5, id="every fourth colour")],
)
def test_a_jpeg_hides_the_same_and_keeps_the_rest_but_for_rounding(sampling, mean_levels):
    # A region of whole blocks of 16 pixels, so that no block of the originals holds some of both.
    one = scene(2)
    coded = [saved(each, quality=90, subsampling=sampling) for each in (one, shuffled(one, REGION))]
    before = [decode(data).astype(int) for data in coded]
    seen = [decode(masked_image(data, [REGION])).astype(int) for data in coded]
    away = outside(one.shape, grown(REGION, 16))
    assert np.abs(seen[0] - before[0])[away].mean() < mean_levels
    within = ~outside(one.shape, grown(REGION, -8))
    assert np.abs(before[0] - before[1])[within].mean() > 10
    # What coding made of the two cells' means, which were equal, is all that tells them apart.
    assert np.abs(seen[0] - seen[1])[within].mean() < 1
    grey = [decode(masked_image(data, [REGION], style="grey")).astype(int) for data in coded]
    # Colours stored of every second pixel reach into the blocks beside the region, no further.
    assert (grey[0] == grey[1])[within | outside(one.shape, grown(REGION, 18))].all()


def test_boxes_that_touch_show_one_mean_and_not_several_of_the_same_face():
    pixels = scene(3)
    nested = [REGION, (40, 24, 80, 60), (32, 16, 96, 79)]
    assert (mask_pixels(pixels, nested) == mask_pixels(pixels, [REGION])).all()
    chain = [(0, 0, 16, 16), (100, 100, 116, 116), (14, 2, 30, 18), (30, 4, 46, 20)]
    seen = mask_pixels(pixels, chain)
    # Whatever their order: three touch in a row, and the first does not touch the last.
    assert (seen == mask_pixels(pixels, chain[::-1])).all()
    assert (seen[outside(seen.shape, *chain)] == pixels[outside(seen.shape, *chain)]).all()


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**31),
    st.lists(st.tuples(*[st.floats(-20, 90, width=32) for _ in range(4)]), max_size=6),
    st.sampled_from(["blur", "grey"]),
    st.floats(0, 0.5),
)
def test_whatever_the_boxes_nothing_outside_changes_and_colours_stay_within_range(
    seed, corners, style, margin
):
    pixels = np.random.default_rng(seed).integers(40, 200, (37, 53, 3), dtype=np.uint8)
    boxes = as_boxes([[min(a, c), min(b, d), max(a, c), max(b, d)] for a, b, c, d in corners])
    regions = masked_regions(boxes, width=53, height=37, margin=margin)
    seen = mask_pixels(pixels, regions, style=style)
    kept = outside(pixels.shape, *regions)
    assert (seen[kept] == pixels[kept]).all()
    assert seen.min() >= 40
    assert seen.max() < 200


def test_a_masked_image_has_no_metadata_but_its_colour_profile():
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif[0x010F] = SECRET["Make"]
    exif.get_ifd(0x8825)[29] = "2026:05:01"
    options = {"exif": exif, "icc_profile": profile}
    for data in (
        saved(scene(4), "JPEG", comment=b"CANARY", **options),
        saved(scene(4), "PNG", **options),
    ):
        assert b"CANARY" in data
        masked = masked_image(data, [REGION])
        assert b"CANARY" not in masked
        image = Image.open(io.BytesIO(masked))
        assert (image.format, image.size) == (Image.open(io.BytesIO(data)).format, (160, 120))
        assert not image.getexif()
        assert image.info["icc_profile"] == profile


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_grey_image_stays_grey(kind):
    grey = Image.fromarray(scene(5)).convert("L")
    masked = Image.open(io.BytesIO(masked_image(saved(grey, kind), [REGION])))
    assert masked.mode == "L"
