"""Files made to exhaust whoever opens them are refused, soon and within little memory."""

import os
import struct
import subprocess
import sys
import time
import zlib

import pytest
from PIL import Image

from annotation_platform.errors import DataError
from annotation_platform.images.probing import probe_image
from annotation_platform.policy import CleaningPolicy
from tests.core.images.conftest import POLICY, PROJECT_ROOT, png, saved, scene, tiff_tags

BOMBS = """
import resource, sys, time
from pathlib import Path
from annotation_platform.ingestion.inspect import inspect_files
from annotation_platform.policy import CleaningPolicy
resource.setrlimit(resource.RLIMIT_AS, (1_500_000_000, 1_500_000_000))
started = time.monotonic()
for row in inspect_files(Path(sys.argv[1]), CleaningPolicy()):
    print(row.path, row.outcome, row.reason.split(":")[0], sep="|")
assert time.monotonic() - started < 10
"""


def test_limits_hold_before_anything_is_decoded():
    few = CleaningPolicy(maximum_frames=3, maximum_bytes=100_000, maximum_pixels=160 * 120)
    frames = [Image.fromarray(scene(number, width=40, height=40)) for number in range(5)]
    for kind in ("GIF", "PNG", "WEBP", "TIFF"):
        data = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        with pytest.raises(DataError, match="too many frames: at most 3"):
            probe_image(data, few)
    with pytest.raises(DataError, match="too many bytes"):
        probe_image(bytes(100_001), few)
    with pytest.raises(DataError, match="too many pixels: 161x120"):
        probe_image(saved(scene(1, width=161), "JPEG"), few)
    jpeg = saved(scene(1), "JPEG", progressive=True)
    scan = jpeg[jpeg.rindex(b"\xff\xda") : -2]
    with pytest.raises(DataError, match="too many scans"):
        probe_image(jpeg[:-2] + scan * 2000 + jpeg[-2:], CleaningPolicy())


def test_files_of_countless_empty_parts_are_refused_at_once():
    start, jpeg = saved(scene(1), "PNG"), saved(scene(1), "JPEG")
    empty = struct.pack(">I4sI", 0, b"teXt", zlib.crc32(b"teXt"))
    hostile = {
        "chunks": start[:33] + empty * 2_000_000 + start[33:],
        "segments": jpeg[:2] + b"\xff\xfe\0\2" * 2_000_000 + jpeg[2:],
        "fill": jpeg[:2] + b"\xff" * 20_000_000 + jpeg[2:],
        "junk": jpeg[:2] + bytes(20_000_000) + jpeg[2:],
        "late segments": jpeg[:-2] + b"\xff\xfe\0\2" * 200_000 + jpeg[-2:],
        "sub-blocks": saved(scene(1), "GIF")[:-1] + b"\x21\xfe" + b"\1x" * 2_000_000,
        "junk between blocks": saved(scene(1), "GIF")[:-1] + bytes(20_000_000),
    }
    outcomes = {}
    for name, data in hostile.items():
        started = time.monotonic()
        try:
            outcomes[name] = str(probe_image(data, POLICY).facts["flags"]).split(",")[0]
        except DataError as error:
            outcomes[name] = str(error).split(":")[0]
        assert time.monotonic() - started < 5, name
    assert outcomes == {
        "chunks": "too many parts",
        "segments": "too many parts",
        "fill": "too many parts",
        "junk": "damaged image",
        "late segments": "too many parts",
        "sub-blocks": "end_missing",
        "junk between blocks": "end_missing",
    }


def test_bombs_are_refused_within_the_memory_of_one_image(tmp_path):
    pack = zlib.compressobj(9)
    rows = b"".join(pack.compress(bytes(6251)) for _ in range(50_000)) + pack.flush()
    canvas = struct.pack("<I", 16382)[:3] * 2
    webp = (
        b"WEBPVP8X"
        + struct.pack("<II", 10, 2)[:8]
        + canvas
        + b"ANIM"
        + struct.pack("<IIH", 6, 0, 0)
    )
    tiled = {256: 64, 257: 64, 258: 8, 259: 1, 262: 1, 277: 1, 322: 60_000, 323: 60_000}
    tiled |= {324: 200, 325: 4096}
    frame = b"\x2c" + struct.pack("<4HB", 0, 0, 1, 1, 0) + b"\x02\x02\x44\x01\x00"
    files = {
        "bits.png": png(50_000, 50_000, 1, 0, rows),
        "header.png": png(2**31 - 1, 2**31 - 1, 16, 6, b"\x78\x9c"),
        "below-pillow.png": png(13_000, 13_000, 8, 2, zlib.compress(bytes(1000))),
        "screen.gif": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + frame + b";",
        "frames.gif": b"GIF89a" + struct.pack("<HHBBB", 64, 64, 0, 0, 0) + frame * 10**6 + b";",
        "canvas.webp": b"RIFF" + struct.pack("<I", len(webp)) + webp,
        "numbers.pgm": b"P5 60000 60000 255\n",
        "tile.tif": tiff_tags(
            {number: (4, struct.pack("<I", value)) for number, value in tiled.items()}
        ),
        "sound.jpg": saved(scene(7), "JPEG"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    done = subprocess.run(
        [sys.executable, "-c", BOMBS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        cwd=PROJECT_ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    found = dict(line.split("|", 1) for line in done.stdout.splitlines())
    assert found.pop("sound.jpg") == "accepted|"
    assert found.pop("frames.gif") == "quarantined|too many frames"
    assert set(found.values()) == {"quarantined|too many pixels"}
    assert len(found) == len(files) - 2
