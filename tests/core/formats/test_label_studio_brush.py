import json
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from annotation_platform.formats.label_studio.brush import decode_mask, encode_mask

masks = st.tuples(st.integers(1, 40), st.integers(1, 40)).flatmap(lambda size: arrays(bool, size))


def test_one_pixel_is_coded_as_worked_out_by_hand():
    # 4 values, words of 8 bits, lengths of 3, 4, 8 and 16 bits; then one chunk: a run, of a
    # length in 3 bits, 4 values (less one), 255.
    bits = f"{4:032b}" + f"{7:05b}" + "0010001101111111" + "100011" + f"{255:08b}"
    code = [int(bits[n : n + 8].ljust(8, "0"), 2) for n in range(0, len(bits), 8)]
    assert encode_mask(np.array([[True]])) == code
    assert decode_mask(code, 1, 1).tolist() == [[True]]


def test_values_one_by_one_are_read_and_a_pixel_counts_from_half_covered():
    # Two pixels in one chunk of 8 single values: alpha 127 and 128, other channels at odds.
    bits = f"{8:032b}" + f"{7:05b}" + "0010001101111111" + "000111"
    bits += "".join(f"{value:08b}" for value in (255, 255, 255, 127, 0, 0, 0, 128))
    code = [int(bits[n : n + 8].ljust(8, "0"), 2) for n in range(0, len(bits), 8)]
    assert decode_mask(code, 2, 1).tolist() == [[False, True]]


@given(masks)
def test_a_mask_comes_back_as_it_went(mask):
    code = json.loads(json.dumps(encode_mask(mask)))
    height, width = mask.shape
    assert np.array_equal(decode_mask(code, width, height), mask)


def test_runs_longer_than_a_chunk_are_several():
    # 4 × 300 × 300 values, and a chunk holds 65,536.
    mask = np.zeros((300, 300), dtype=bool)
    mask[150:, :] = True
    assert np.array_equal(decode_mask(encode_mask(mask), 300, 300), mask)
    # 53 bits of header; two halves of 180,000 values are three chunks of 27 bits each.
    assert len(encode_mask(mask)) == -(-(53 + 6 * 27) // 8)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.5, 1.0])
def test_label_studios_own_converter_agrees(share):
    converter = pytest.importorskip("label_studio_sdk.converter.brush", reason="not installed")
    mask = np.random.default_rng(7).random((48, 64)) < share
    theirs = converter.decode_rle(encode_mask(mask)).reshape(48, 64, 4)
    assert np.array_equal(theirs[:, :, 3], mask * np.uint8(255))
    assert np.array_equal(theirs[:, :, 0], theirs[:, :, 3])
    ours = decode_mask(converter.mask2rle(mask.astype(np.uint8) * 255), 64, 48)
    assert np.array_equal(ours, mask)


def test_a_stroke_recorded_in_a_browser_is_read_as_label_studio_reads_it(public):
    converter = pytest.importorskip("label_studio_sdk.converter.brush", reason="not installed")
    path = public("label_studio_samples") / "result_types.json"
    code = json.loads(path.read_text())["brushlabels"]["value"]["rle"]
    alpha = converter.decode_rle(code).reshape(480, 640, 4)[:, :, 3]
    assert np.array_equal(decode_mask(code, 640, 480), alpha >= 128)


EYE = encode_mask(np.eye(8, dtype=bool))


@pytest.mark.parametrize(
    ("code", "problem"),
    [
        pytest.param(None, "no list of bytes", id="nothing"),
        pytest.param("AAEC", "no list of bytes", id="text"),
        pytest.param([], "does not begin", id="empty"),
        pytest.param([256, *EYE], "from 0 to 255", id="more than a byte"),
        pytest.param(["1", *EYE], "from 0 to 255", id="a letter"),
        pytest.param([1.5, *EYE], "from 0 to 255", id="a fraction"),
        pytest.param(EYE[:6], "does not begin", id="half a header"),
        pytest.param(EYE[:9], "breaks off", id="half of it"),
        pytest.param([255] * 4 + EYE[4:], "4294967295 values", id="enormous"),
        pytest.param(EYE[:4] + [0] * 3 + EYE[7:], "does not begin", id="words of one bit"),
        pytest.param(EYE[:6] + [255] * 20, "runs past", id="too many values"),
    ],
)
def test_a_damaged_code_is_refused_with_the_reason(code, problem):
    with pytest.raises(ValueError, match=problem):
        decode_mask(code, 8, 8)


def test_a_mask_of_another_image_is_refused():
    with pytest.raises(ValueError, match="8 × 9 pixels has 288"):
        decode_mask(encode_mask(np.eye(8, dtype=bool)), 8, 9)


@given(st.lists(st.integers(0, 255), max_size=60))
def test_whatever_bytes_come_they_are_a_mask_or_refused(code):
    header = encode_mask(np.zeros((4, 4), dtype=bool))[:6]
    with suppress(ValueError):
        assert decode_mask(header + code, 4, 4).shape == (4, 4)
