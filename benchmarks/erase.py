"""How long it takes to erase one image from many versions.

    python -m benchmarks.erase
    python -m benchmarks.erase --versions 3 --rounds 2

Every round has a thousand images with ten objects each, and every version holds all of them; each
but the first has the answers of one round given anew. The command runs in a new process: its wall
seconds are those of everything, the look through every store included. On tmpfs.
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
from PIL import Image

from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.signature import signature_rows
from annotation_platform.images.signature_files import read_signatures
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.pipeline.build_training_set import build_training_set
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.publish import publish
from annotation_platform.schema.keys import image_key, raw_key
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import CleanedImages, ErrorBars, RawImages, table_named
from annotation_platform.settings import Settings, settings_environment
from annotation_platform.versioning.registry import make_registry
from annotation_platform.versioning.store import VersionStore
from benchmarks.provenance import (
    BEGUN,
    HEIGHT,
    IMAGES,
    POLICY,
    PROJECT,
    WIDTH,
    RoundMaker,
    image_ids,
)


def image_file(seed):
    """Return a JPEG that looks like no other."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 255, (12, 16, 3), dtype=np.uint8)
    sink = io.BytesIO()
    Image.fromarray(coarse).resize((160, 120), Image.Resampling.BICUBIC).save(sink, "JPEG")
    return sink.getvalue()


def land(lake, number):
    """Put a round's images into the lake, as they landed and as they are cleaned."""
    round_id, raw, cleaned, objects = f"round-{number + 1:04d}", [], [], []
    for at, image in enumerate(image_ids(number, IMAGES)):
        data = image_file(number * IMAGES + at)
        lake.store.create(raw_key(image), data)
        lake.store.create(image_key(image, "jpg"), data)
        sha256 = hashlib.sha256(data).hexdigest()
        known = {"round_id": round_id, "source_key": f"camera/{number}-{at}.jpg",
                 "arrival_version": "1", "image_id": image}  # fmt: skip
        objects.append(Arrival(known["source_key"], "1", len(data)))
        raw.append({**known, "byte_size": len(data), "problem": "", "other_metadata": ""})
        cleaned.append(
            {**known, "outcome": "accepted", "reason": "", "group_id": image, "joins": "",
             "width": WIDTH, "height": HEIGHT, "extension": "jpg", "stored_sha256": sha256,
             "stored_md5": hashlib.md5(data).hexdigest(), "stored_bytes": len(data),
             "pixel_sha256": sha256, "perceptual_hash": sha256[:16], "sharpness": 50.0,
             "brightness": 100.0, "entropy": 7.0, "flags": ""}
        )  # fmt: skip
    lake.manifests.create(round_id, objects)
    lake.tables.write(RawImages, round_id, RawImages.from_rows(raw))
    lake.tables.write(CleanedImages, round_id, CleanedImages.from_rows(cleaned))


def prepare(root, rounds, versions):
    """Publish the versions; return settings, and one of the images."""
    settings = Settings(home=root, params=root / "params.yaml", labeling="simulated",
                        lake=str(root / "lake"), landing=str(root / "landing"),
                        registry=str(root / "registry"), remote=str(root / "remote"))  # fmt: skip
    (root / "landing").mkdir()
    settings.policy_path.write_text(POLICY.to_yaml())
    make_registry(root / "registry", PROJECT, POLICY.to_yaml(), remote_url=str(root / "remote"))
    lake, last = lake_of(settings, audited=False), f"round-{rounds:04d}"
    maker = RoundMaker(lake, 1)
    for number in range(rounds):
        land(lake, number)
        maker.write(lake, number)
    images = accepted_images(lake.tables)
    read_signatures(lake.store, images, signature_rows(len(images)))
    store = VersionStore(root / "registry", str(root / "remote"), PROJECT, root / "mirrors")
    for version in range(versions):
        context = RoundContext(last, lake, POLICY, BEGUN + timedelta(days=version))
        built = build_training_set(context)
        for name, table in built.tables.items():
            lake.tables.write(table_named(name), last, table)
        bars = ErrorBars.empty()
        publish(context, built.training_set, built.training_rounds, bars, store)
        RoundMaker(lake, version + 2).write(lake, version % rounds)
    return settings, str(images["image_id"].iloc[len(images) // 2])


def main():
    """Print how long it takes."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=10, help="of a thousand images each")
    options.add_argument("--versions", type=int, default=20)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        start = time.perf_counter()
        settings, image = prepare(Path(place), given.rounds, given.versions)
        print(f"{given.versions} versions of {given.rounds * IMAGES} images prepared in "
              f"{time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
        for arguments in ([], ["--reason", "a request", "--yes"]):
            start = time.perf_counter()
            done = subprocess.run(
                [sys.executable, "-m", "annotation_platform.cli", "image", "erase", image, "--json",
                 *arguments],
                env=settings_environment(settings), capture_output=True, text=True, check=False,
            )  # fmt: skip
            seconds = time.perf_counter() - start
            if done.returncode:
                sys.exit(done.stderr)
            told = json.loads(done.stdout)
            print(f"erase {' '.join(arguments) or '(dry run)'}: {seconds:.1f} s; "
                  f"{len(told['versions'])} versions, "
                  f"{told['scanned'] and told['scanned']['stores']}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
