"""Proposals a second, files to boxes, beside a bare torchvision loop over the same images.

    python benchmarks/proposals.py                   # BCCD's 364 images

Both have one and the same network, trained for a few seconds, and decode the same files. The bare
loop is what one writes by hand: ``decode_jpeg`` of torchvision, its ``resize``, the network in
batches of eight, boxes back to the image's pixels as arrays. Ours is ``detect_files``, whose
table of boxes is part of the time. They take turns on the same threads; of each turn the ratio is
taken, and of the ratios the median. That both see the same is checked first: as many boxes above
0.5 to within a few, since the two resize a little differently.
"""

import argparse
import os
import statistics
import sys
import time
from pathlib import Path

import numpy as np
import torch
from torchvision.io import ImageReadMode, decode_jpeg, read_file
from torchvision.transforms.v2.functional import resize

from annotation_platform.formats.voc import read_voc
from annotation_platform.models.detection.detector import NetworkDetector, detect_files
from annotation_platform.models.detection.profiles import ProfiledDetector
from annotation_platform.models.detection.training import examples_of, train_detector
from annotation_platform.models.weight_files import DETECTOR_FILES
from annotation_platform.policy import ProfilePolicy, TrainingPolicy

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
GOAL = 0.85
BATCH = 8


def bare(network, paths, side):
    """Return boxes and scores of each image as arrays: the loop that one writes by hand."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(paths), BATCH):
            images, sizes = [], []
            for path in paths[start : start + BATCH]:
                image = decode_jpeg(read_file(str(path)), ImageReadMode.RGB)
                height, width = image.shape[1:]
                ratio = side / max(height, width)
                small = resize(image, [round(height * ratio), round(width * ratio)])
                images.append(small.float() / 255)
                sizes.append(ratio)
            for output, ratio in zip(network(images), sizes, strict=True):
                kept = output["scores"] >= 0.05
                found.append(
                    ((output["boxes"][kept] / ratio).numpy(), output["scores"][kept].numpy())
                )
    return found


def main():
    """Train for a moment, then take turns."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--pairs", type=int, default=7)
    options.add_argument("--images", type=int, default=0, help="0: all")
    options.add_argument("--threads", type=int, default=os.cpu_count())
    options.add_argument("--cpu-seconds", type=float, default=20.0, help="of training")
    options.add_argument("--image-width", type=int, default=320)
    asked = options.parse_args()
    folder = DATA / "bccd" / "BCCD"
    if not folder.is_dir():
        sys.exit(f"BCCD is not at {DATA}; set ANNOTATION_TEST_DATA.")
    dataset = read_voc(folder / "Annotations", folder / "JPEGImages").dataset.boxes()
    names = zip(dataset.images["image_id"], dataset.images["file_name"], strict=True)
    paths = {image: folder / "JPEGImages" / Path(name).name for image, name in names}
    trained = train_detector(
        examples_of(dataset, paths),
        class_names=tuple(dataset.ontology.names),
        policy=TrainingPolicy(cpu_seconds=asked.cpu_seconds, image_width=asked.image_width),
        seed=0,
    )
    torch.set_num_threads(asked.threads)
    chosen = dict(list(paths.items())[: asked.images or None])
    detector = NetworkDetector.from_bytes(trained.state, where="trained", device="cpu")
    serving = ProfiledDetector([detector], name="serving", policy=ProfilePolicy())
    network = DETECTOR_FILES.network(
        DETECTOR_FILES.read(trained.state, where="trained"), where="trained"
    )
    theirs = bare(network, list(chosen.values()), asked.image_width)
    ours = detect_files(serving, chosen).boxes
    sure = sum(int((scores >= 0.5).sum()) for _, scores in theirs)
    print(f"{len(chosen)} images, {asked.threads} threads, load {os.getloadavg()[0]:.1f}; boxes "
          f"of .5 and more: bare {sure}, ours {int((ours['score'] >= 0.5).sum())}")  # fmt: skip
    rates, ratios = [], []
    for turn in range(asked.pairs):
        spent = {}
        for name in ("bare", "ours") if turn % 2 else ("ours", "bare"):
            started = time.perf_counter()
            if name == "bare":
                bare(network, list(chosen.values()), asked.image_width)
            else:
                detect_files(serving, chosen)
            spent[name] = time.perf_counter() - started
        rates.append({name: len(chosen) / seconds for name, seconds in spent.items()})
        ratios.append(spent["bare"] / spent["ours"])
        print(f"bare {rates[-1]['bare']:.0f} images/s, ours {rates[-1]['ours']:.0f}, "
              f"{ratios[-1]:.2f} of the bare loop", flush=True)  # fmt: skip
    median = statistics.median(ratios)
    said = "met" if median >= GOAL else "missed"
    print(
        f"medians: bare {np.median([one['bare'] for one in rates]):.0f} images/s, ours "
        f"{np.median([one['ours'] for one in rates]):.0f}; {median:.2f}, goal {GOAL}: {said}"
    )


if __name__ == "__main__":
    main()
