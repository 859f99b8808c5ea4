"""Writing labels beside datumaro and supervision: CPU seconds for the same boxes, format by format.

    python benchmarks/formats.py --peer-python /tmp/datumaro/bin/python \
        --peer-python /tmp/supervision/bin/python

Everybody holds the same boxes in their own form in memory and writes them, without images, to a
fresh folder in ``/dev/shm``, so that no disk is measured; building that form, reading and imports
are left out, and so is a first small run. They take turns; of each turn the ratio is taken, and of
the ratios the median, so that other work on the machine disturbs little.

supervision opens every image where it needs its size, so it gets real ones, small ones, to keep
that cheap; datumaro is told the sizes, as we are. Afterwards the boxes in the COCO files are
counted. The peers do not share our dependencies, so each runs in an environment of its own:

    uv venv /tmp/datumaro && uv pip install --python /tmp/datumaro datumaro==1.13.0
    uv venv /tmp/supervision && uv pip install --python /tmp/supervision supervision==0.31.0
"""

import argparse
import gc
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"], "1"
)
os.environ.update(THREADS)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402
from PIL import Image  # noqa: E402

from annotation_platform.schema.dataset import Dataset  # noqa: E402
from annotation_platform.schema.ontology import Ontology  # noqa: E402

CLASSES = 10
WIDTH, HEIGHT = 64, 48
MEMORY = "/dev/shm"
GOALS = {
    ("coco", "datumaro"): 4,
    ("coco", "supervision"): 7,
    ("voc", "datumaro"): 10,
    ("voc", "supervision"): 10,
    ("yolo", "datumaro"): 1.8,
    ("yolo", "supervision"): 5,
}

DATUMARO = """
import json, logging, shutil, sys, time
import numpy as np
logging.disable(logging.CRITICAL)
from datumaro.components.annotation import AnnotationType, Bbox, LabelCategories
from datumaro.components.dataset import Dataset
from datumaro.components.dataset_base import DatasetItem
from datumaro.components.media import Image
work, out, kind = sys.argv[1:]
format = {"coco": "coco_instances", "yolo": "yolo", "voc": "voc_detection"}[kind]
facts = json.load(open(f"{work}/facts.json"))
boxes = np.load(f"{work}/boxes.npy")

def dataset(count):
    ends = np.searchsorted(boxes[:, 0], np.arange(count + 1))
    items = [
        DatasetItem(
            id=f"{number:08d}", subset="train",
            media=Image.from_file(
                path=f"{work}/images/{number:08d}.png", size=(facts["height"], facts["width"])
            ),
            annotations=[
                Bbox(x1, y1, x2 - x1, y2 - y1, label=int(label), id=place + 1, group=place + 1)
                for place, (_, label, x1, y1, x2, y2) in enumerate(
                    boxes[ends[number]:ends[number + 1]].tolist(), start=int(ends[number])
                )
            ],
        )
        for number in range(count)
    ]
    labels = LabelCategories.from_iterable(facts["classes"])
    return Dataset.from_iterable(items, categories={AnnotationType.label: labels})

for count in (10, facts["images"]):
    held = dataset(count)
    shutil.rmtree(out, ignore_errors=True)
    start = time.process_time()
    held.export(out, format, save_media=False)
    spent = time.process_time() - start
print(json.dumps(spent))
"""

SUPERVISION = """
import json, os, shutil, sys, time, warnings
import numpy as np
warnings.simplefilter("ignore")
os.environ["TQDM_DISABLE"] = "1"
import supervision as sv
work, out, kind = sys.argv[1:]
facts = json.load(open(f"{work}/facts.json"))
boxes = np.load(f"{work}/boxes.npy")

def dataset(count):
    ends = np.searchsorted(boxes[:, 0], np.arange(count + 1))
    paths = [f"{work}/images/{number:08d}.png" for number in range(count)]
    found = {
        path: sv.Detections(
            xyxy=boxes[ends[number]:ends[number + 1], 2:].astype(np.float32).reshape(-1, 4),
            class_id=boxes[ends[number]:ends[number + 1], 1].astype(int),
        )
        for number, path in enumerate(paths)
    }
    return sv.DetectionDataset(classes=facts["classes"], images=paths, annotations=found)

for count in (10, facts["images"]):
    held = dataset(count)
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    start = time.process_time()
    if kind == "coco":
        held.as_coco(annotations_path=f"{out}/train.json")
    elif kind == "yolo":
        held.as_yolo(annotations_directory_path=f"{out}/labels", data_yaml_path=f"{out}/data.yaml")
    else:
        held.as_pascal_voc(annotations_directory_path=f"{out}/Annotations")
    spent = time.process_time() - start
print(json.dumps(spent))
"""

PEERS = {"datumaro": DATUMARO, "supervision": SUPERVISION}


def drawn(count, images, seed):
    """Return ``(count, 6)`` rows of image, class and box, sorted by image; at least 2 pixels."""
    rng = np.random.default_rng(seed)
    sizes = np.array([WIDTH, HEIGHT])
    sides = 2 + rng.random((count, 2)) * (sizes - 2) / 2
    corners = rng.random((count, 2)) * (sizes - sides)
    image = np.sort(rng.integers(images, size=count))
    label = rng.integers(CLASSES, size=count)
    return np.column_stack([image, label, corners, corners + sides])


def as_dataset(boxes, images, classes):
    """Return our form of the boxes."""
    names = [f"{number:08d}" for number in range(images)]
    labels = pd.DataFrame(boxes[:, 2:], columns=["x1", "y1", "x2", "y2"])
    labels.insert(0, "class_name", [classes[int(each)] for each in boxes[:, 1]])
    labels.insert(0, "image_id", [names[int(each)] for each in boxes[:, 0]])
    image_files = pd.DataFrame(
        {
            "image_id": names,
            "file_name": [f"images/train/{name}.png" for name in names],
            "split": "train",
            "width": WIDTH,
            "height": HEIGHT,
        }
    )
    return Dataset(image_files, labels, Ontology.from_names(classes))


def prepare(work, boxes, images, classes):
    """Write what the peers read: the boxes, the classes and the images."""
    np.save(work / "boxes.npy", boxes)
    facts = {"images": images, "classes": classes, "width": WIDTH, "height": HEIGHT}
    (work / "facts.json").write_text(json.dumps(facts))
    folder = work / "images"
    folder.mkdir()
    Image.new("RGB", (WIDTH, HEIGHT), "grey").save(folder / f"{0:08d}.png")
    for number in range(1, images):
        os.link(folder / f"{0:08d}.png", folder / f"{number:08d}.png")


def writer_of(kind):
    """Return our writer of a format, or None where there is none yet."""
    return getattr(
        importlib.import_module(f"annotation_platform.formats.{kind}"), f"write_{kind}", None
    )


def ours(write, dataset, out):
    """Return our CPU seconds."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    gc.collect()
    start = time.process_time()
    write(dataset, out)
    return time.process_time() - start


def theirs(python, name, work, out, kind):
    """Return a peer's CPU seconds."""
    script = work / f"peer_{name}.py"
    script.write_text(PEERS[name])
    command = [python, "-W", "ignore", script, work, out, kind]
    said = subprocess.run(
        command, check=True, env={**os.environ, **THREADS}, stdout=subprocess.PIPE, text=True
    )
    return json.loads(said.stdout.splitlines()[-1])


def boxes_in(folder):
    """Return the number of annotations in the COCO files of a folder."""
    return sum(len(json.loads(path.read_text())["annotations"]) for path in folder.rglob("*.json"))


def peers_of(pythons):
    """Return which python has which peer."""
    found = {}
    for python in pythons:
        for name in PEERS:
            code = f"import importlib.util as u; print(bool(u.find_spec({name!r})))"
            said = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
            if said.stdout.strip() == "True":
                found.setdefault(name, python)
    return found


def compare(kind, dataset, small, peers, chosen, work):
    """Time turns of one format and print what came of them."""
    write = writer_of(kind)
    if write is None:
        print(f"{kind}: there is no writer")
        return
    out = work / "out"
    ours(write, small, out)
    mine, ratios = [], {name: [] for name in peers}
    for _ in range(chosen.pairs):
        mine.append(ours(write, dataset, out))
        written = [("ours", boxes_in(out))] if kind == "coco" else []
        said = f"{kind}: ours {mine[-1]:.3f} s of CPU"
        for name, python in peers.items():
            spent = theirs(python, name, work, out, kind)
            ratios[name].append(spent / mine[-1])
            said += f"; {name} {spent:.3f} s, {ratios[name][-1]:.1f} ×"
            written += [(name, boxes_in(out))] if kind == "coco" else []
        if wrong := [each for each in written if each[1] != chosen.boxes]:
            sys.exit(f"not all {chosen.boxes} boxes were written: {wrong}")
        print(said, flush=True)
    print(f"{kind}: ours {statistics.median(mine):.3f} s in the median")
    for name, found in ratios.items():
        goal, median = GOALS[kind, name], statistics.median(found)
        met = "met" if median >= goal else "missed"
        print(f"{kind}: {name} {median:.1f} × ours in the median; goal {goal} ×, {met}")


def main():
    """Compare the formats one by one."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--boxes", type=int, default=100_000)
    options.add_argument("--on-each", type=int, default=10, help="boxes on an image")
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--formats", nargs="+", default=["coco", "yolo", "voc"])
    options.add_argument("--peer-python", action="append", default=[])
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    classes = [f"class {number}" for number in range(CLASSES)]
    images = max(20, chosen.boxes // chosen.on_each)
    boxes = drawn(chosen.boxes, images, chosen.seed)
    peers = peers_of(chosen.peer_python)
    print(f"{chosen.boxes:,} boxes, {images:,} images, {CLASSES} classes; peers: {list(peers)}")
    dataset = as_dataset(boxes, images, classes)
    small = as_dataset(boxes[boxes[:, 0] < 20], 20, classes)
    with tempfile.TemporaryDirectory(dir=MEMORY if Path(MEMORY).is_dir() else None) as folder:
        prepare(Path(folder), boxes, images, classes)
        for kind in chosen.formats:
            compare(kind, dataset, small, peers, chosen, Path(folder))
    if not peers:
        print("no peer was run: name its python with --peer-python")


if __name__ == "__main__":
    main()
