"""Small objects in large images: tiles beside one look at the whole, at equal false positives.

    python benchmarks/tiling.py                      # drawn scenes of 1600 x 1200 with exact truth
    python benchmarks/tiling.py --photographs        # ../shared/data/smallobj, two images

A scene is 25 of the demo's harbours, 320 x 240 each, put together like a map: its objects are 17 to
100 pixels long in an image of 1600 x 1200. Two detectors learn from drawn scenes for the same
processor time. One looks at whole images, as it learned to. The other learned from tiles, too,
and looks with the profile's tiles; it is tested with and without them, which tells what the tiles
do from what learning from them does. Each look is then allowed so many false positives an image
by a score threshold of its own, and recall is counted by class and by size, the square root of a
box's area: small below 24 pixels, middle below 48, large above. Passes and seconds are by image.
"""

import argparse
import json
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from annotation_platform.demo.harbour import draw_scene
from annotation_platform.demo.scenes import ONTOLOGY
from annotation_platform.models.detection.calibration import mark_right
from annotation_platform.models.detection.detector import NetworkDetector, detect_files
from annotation_platform.models.detection.profiles import ProfiledDetector
from annotation_platform.models.detection.training import examples_of, train_detector
from annotation_platform.policy import ProfilePolicy, TrainingPolicy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.geometry import as_boxes, box_areas
from annotation_platform.schema.ontology import Ontology

DATA = Path(os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
WIDTH, HEIGHT = 1600, 1200
PART = (320, 240)
SIZES = {"small": (0, 24), "middle": (24, 48), "large": (48, np.inf)}


def large_scene(rng):
    """Return the pixels of a scene and its boxes, a row of class and corners for each object."""
    pixels = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    rows = []
    for top in range(0, HEIGHT, PART[1]):
        for left in range(0, WIDTH, PART[0]):
            scene = draw_scene(rng, width=PART[0], height=PART[1])
            pixels[top : top + PART[1], left : left + PART[0]] = scene.pixels
            moved = scene.labels[["x1", "y1", "x2", "y2"]] + [left, top, left, top]
            rows.append(moved.assign(class_name=scene.labels["class_name"]))
    return pixels, pd.concat(rows, ignore_index=True)


def draw(folder, count, seed):
    """Draw scenes into a folder; return them as a dataset with their files."""
    folder.mkdir(parents=True)
    images, labels, paths = [], [], {}
    for number in range(count):
        pixels, boxes = large_scene(np.random.default_rng([seed, number]))
        name = f"scene-{number:03d}"
        paths[name] = folder / f"{name}.jpg"
        Image.fromarray(pixels).save(paths[name], quality=92)
        images.append([name, paths[name].name, "", WIDTH, HEIGHT])
        labels.append(boxes.assign(image_id=name))
    columns = ["image_id", "file_name", "split", "width", "height"]
    table = pd.concat(labels, ignore_index=True)
    table = table[["image_id", "class_name", "x1", "y1", "x2", "y2"]]
    return Dataset(pd.DataFrame(images, columns=columns), table, ONTOLOGY), paths


def photographs():
    """Return the two photographs of smallobj that have truth, with their files."""
    folder = DATA / "smallobj" / "coco_utils"
    if not folder.is_dir():
        sys.exit(f"smallobj is not at {DATA}; set ANNOTATION_TEST_DATA.")
    images, labels, paths = [], [], {}
    for name in ("terrain1_coco.json", "terrain2_coco.json"):
        content = json.loads((folder / name).read_text())
        image = content["images"][0]
        file = folder / Path(image["file_name"]).name
        with Image.open(file) as opened:
            images.append([file.stem, file.name, "", *opened.size])
        paths[file.stem] = file
        labels += [
            [file.stem, "vehicle", x, y, x + w, y + h]
            for x, y, w, h in (each["bbox"] for each in content["annotations"])
        ]
    columns = ["image_id", "class_name", "x1", "y1", "x2", "y2"]
    return Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"]),
        pd.DataFrame(labels, columns=columns),
        Ontology.from_names(["vehicle"]),
    ), paths


def learn(dataset, paths, asked, tile_side):
    """Return a detector that learned from whole images, and from tiles if there is a side."""
    policy = TrainingPolicy(
        cpu_seconds=asked.cpu_seconds, image_width=asked.image_width, batch_size=4
    )
    trained = train_detector(
        examples_of(dataset, paths, tile_side=tile_side),
        class_names=dataset.ontology.names,
        policy=policy,
        seed=asked.seed,
    )
    print(
        f"learned {trained.steps} steps, {trained.epochs:.0f} passes, tiles of {tile_side or '-'}"
    )
    return NetworkDetector.from_bytes(trained.state, where="trained")


def recalls(dataset, found, false_positives):
    """Return the share found by class and size at a threshold that lets so many wrong boxes by."""
    right = mark_right(found, dataset.labels)
    order = np.argsort(-found["score"].to_numpy(), kind="stable")
    allowed = int(false_positives * len(dataset.images))
    wrong_so_far = np.cumsum(~right[order])
    kept = found.iloc[order[: int(np.searchsorted(wrong_so_far, allowed, side="right"))]]
    # Each truth box is found if, taken for a prediction, it is right against what was kept.
    truth = dataset.labels.assign(score=1.0)
    hit = mark_right(truth, kept)
    size = np.sqrt(box_areas(as_boxes(truth[["x1", "y1", "x2", "y2"]])))
    rows = {}
    for name in [*dataset.ontology.names, "all"]:
        its = np.ones(len(truth), bool) if name == "all" else (truth["class_name"] == name)
        for label, (low, high) in SIZES.items():
            chosen = its & (size >= low) & (size < high)
            rows[name, label] = (
                int(chosen.sum()),
                float(hit[chosen].mean()) if chosen.any() else 0,
            )
    return rows


def look(detector, paths, policy):
    """Return what was found, the mean passes an image, and the seconds."""
    profiled = ProfiledDetector([detector], name="labelling", policy=policy)
    started = time.perf_counter()
    looked_at = detect_files(profiled, paths)
    seconds = (time.perf_counter() - started) / len(paths)
    return looked_at.boxes, looked_at.images["passes"].mean(), seconds


def compare(train, test, asked):
    """Train both, look in three ways, and print the tables."""
    tiles = ProfilePolicy(
        tile_side=asked.tile_side, tile_overlap=asked.overlap, maximum_passes=asked.maximum_passes
    )
    whole = learn(*train, asked, 0)
    tiled = learn(*train, asked, asked.tile_side)
    looks = {
        "whole": look(whole, test[1], ProfilePolicy()),
        "whole, learned from tiles": look(tiled, test[1], ProfilePolicy()),
        "tiles": look(tiled, test[1], tiles),
    }
    for name, (found, passes, seconds) in looks.items():
        print(f"{name}: {len(found)} boxes, {passes:.1f} passes and {seconds:.2f} s an image")
    for allowed in asked.false_positives:
        scored = {name: recalls(test[0], one[0], allowed) for name, one in looks.items()}
        print(f"\nrecall at {allowed:g} false positives an image")
        print("| class | size | objects | " + " | ".join(looks) + " | gain |")
        print("|---|---|---|" + "---|" * (len(looks) + 1))
        for (name, size), (count, before) in scored["whole"].items():
            if count:
                shares = [scored[each][name, size][1] for each in looks]
                gain = f"{shares[-1] / before - 1:+.0%}" if before else "from none"
                cells = " | ".join(f"{share:.3f}" for share in shares)
                print(f"| {name} | {size} | {count} | {cells} | {gain} |")


def main():
    """Draw, or read, and compare."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--photographs", action="store_true")
    options.add_argument("--scenes", type=int, default=12, help="to learn from")
    options.add_argument("--tests", type=int, default=6, help="to test on")
    options.add_argument("--cpu-seconds", type=float, default=120.0, help="for each detector")
    options.add_argument("--image-width", type=int, default=320)
    options.add_argument("--tile-side", type=int, default=400)
    options.add_argument("--overlap", type=float, default=0.25)
    options.add_argument("--most-passes", type=int, default=0)
    options.add_argument("--false-positives", type=float, nargs="+", default=[5.0, 20.0])
    options.add_argument("--seed", type=int, default=0)
    asked = options.parse_args()
    if asked.photographs:
        dataset, paths = photographs()
        for tested in dataset.images["image_id"]:
            parts = []
            for keep in (
                dataset.images["image_id"] != tested,
                dataset.images["image_id"] == tested,
            ):
                images = dataset.images[keep]
                its = dataset.labels[dataset.labels["image_id"].isin(images["image_id"])]
                files = {each: paths[each] for each in images["image_id"]}
                parts.append((Dataset(images, its, dataset.ontology), files))
            print(f"\ntested on {tested}, learned from the other one")
            compare(*parts, asked)
        return
    with tempfile.TemporaryDirectory() as folder:
        train = draw(Path(folder) / "train", asked.scenes, 2 * asked.seed)
        test = draw(Path(folder) / "test", asked.tests, 2 * asked.seed + 1)
        print(f"{asked.scenes} scenes to learn from, {asked.tests} to test on")
        compare(train, test, asked)


if __name__ == "__main__":
    main()
