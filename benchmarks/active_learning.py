"""Labels that choosing saves: the platform's selection beside random and plain entropy.

    python benchmarks/active_learning.py                     # ten seeds, about an hour of one core
    python benchmarks/active_learning.py --seeds 2 --steps 60 --pool 120 --test 60   # a look
    python benchmarks/active_learning.py --bccd --seeds 3    # where no difference is expected

Drawn scenes hold objects of six classes, two of which are rare: each makes up one object in forty.
For each seed all strategies start from the same random images and the same small detector, that
was trained from scratch on them. At each stage learning goes on from that one, by a fixed number of
steps, on what a strategy has labelled by then: the same training for all, and every figure can be
had again. The detector proposes on the pool, its scores are calibrated on the fifth of the labelled
images that it does not learn from, and the strategy chooses the next images. The figure is the
mean AP at IoU 0.5 of the rare classes on test images drawn like the pool.

The saving is 1 less the labels at which a strategy's curve, the mean over seeds, reaches what
random reaches at its end, by those of random; between two points the curve is a straight line, and
where it falls it stays as it was. Labels are counted in images and in boxes. The interval is the
95 % percentile bootstrap over seeds, whole seeds drawn, random and the strategy together.

Told beside it: how many rare objects are on the most unlike images of the pool, by the vectors
of each embedder, and on as many random ones.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw, ImageFilter

from annotation_platform.images.decoding import decode
from annotation_platform.images.embedding import ImageEmbedder
from annotation_platform.models.detection.calibration import fit_calibration
from annotation_platform.models.detection.detector import NetworkDetector, predict_files
from annotation_platform.models.detection.training import train_detector
from annotation_platform.models.embedder import ModelEmbedder
from annotation_platform.models.evaluation.evaluation import evaluate
from annotation_platform.models.fitting import TrainingOptions
from annotation_platform.models.network_inputs import TrainingExample
from annotation_platform.models.weight_files import DETECTOR_FILES
from annotation_platform.policy import SelectionPolicy, TrainingPolicy
from annotation_platform.schema.dataset import IMAGE_COLUMNS, LABEL_COLUMNS, Dataset
from annotation_platform.schema.geometry import BOX_COLUMNS, as_boxes
from annotation_platform.schema.ontology import LabelClass, Ontology
from annotation_platform.schema.tables import ModelPredictions
from annotation_platform.selection.batch import select_batch
from annotation_platform.selection.diversity import farthest_first
from annotation_platform.selection.pool import SelectionInputs

WIDTH, HEIGHT = 128, 96
SHARES = {
    "disc": 0.25, "square": 0.25, "triangle": 0.225, "bar": 0.225, "ring": 0.025, "cross": 0.025,
}  # fmt: skip
RARE = ("ring", "cross")
DATA = Path(
    os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
STRATEGIES = {
    "random": SelectionPolicy(strategy="random", calibration_share=0.0),
    "entropy": SelectionPolicy(strategy="entropy", calibration_share=0.0),
    "uncertainty": SelectionPolicy(strategy="uncertainty", calibration_share=0.0),
    "diversity": SelectionPolicy(strategy="diversity", calibration_share=0.0),
    "balance": SelectionPolicy(strategy="balance", calibration_share=0.0),
    # As the platform has it, a tenth by lot included.
    "combined": SelectionPolicy(),
}


@dataclass(frozen=True)
class World:
    """Images on disk with their true boxes: a pool to choose from, and others to test on."""

    truth: Dataset
    paths: dict[str, Path]
    pool: list[str]
    test: list[str]
    rare: tuple[str, ...]

    def boxes(self, images):
        """Return the truth of these images."""
        return self.truth.labels[self.truth.labels["image_id"].isin(images)]

    def part(self, images):
        """Return these images as a dataset."""
        rows = self.truth.images[self.truth.images["image_id"].isin(images)]
        return Dataset(rows, self.boxes(images), self.truth.ontology)


@dataclass(frozen=True)
class Point:
    """What a detector reached with so many labels."""

    images: int
    boxes: int
    rare: float
    all: float


def draw_scene(rng):
    """Return ``(96, 128, 3)`` pixels and a list of classes with boxes: three to eight objects."""
    ground = rng.uniform(60, 200, (3, 4, 3)).astype(np.uint8)
    image = Image.fromarray(ground).resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC)
    objects = []
    for _ in range(int(rng.integers(3, 9))):
        name = str(rng.choice(list(SHARES), p=list(SHARES.values())))
        side = rng.uniform(13, 26)
        for _ in range(30):
            x, y = rng.uniform(1, WIDTH - side - 1), rng.uniform(1, HEIGHT - side - 1)
            box = (x, y, x + side, y + side)
            if all(_apart(box, other) for _, other in objects):
                objects.append((name, _lay(image, name, box, rng)))
                break
    pixels = np.asarray(image.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 1)))))
    grain = rng.normal(0, rng.uniform(2, 12), pixels.shape)
    return np.clip(pixels + grain, 0, 255).astype(np.uint8), objects


def _apart(box, other):
    return not (box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3])


def _lay(image, name, box, rng):
    """Draw an object into its square, four times too large, and return the box of what is seen."""
    x, y, side = box[0], box[1], box[2] - box[0]
    size = round(4 * side)
    mask = Image.new("L", (size, size), 0)
    pen = ImageDraw.Draw(mask)
    far, third = size - 1, size / 3
    if name in {"disc", "ring"}:
        pen.ellipse((0, 0, far, far), fill=255)
    if name == "ring":
        hole = size * rng.uniform(0.24, 0.34)
        pen.ellipse((hole, hole, far - hole, far - hole), fill=0)
    if name == "square":
        edge = size * 0.1
        pen.rectangle((edge, edge, far - edge, far - edge), fill=255)
    if name == "triangle":
        pen.polygon([(0, far), (far / 2, 0), (far, far)], fill=255)
    if name in {"bar", "cross"}:
        pen.rectangle((0, third, far, far - third), fill=255)
    if name == "cross":
        pen.rectangle((third, 0, far - third, far), fill=255)
    mask = mask.rotate(float(rng.uniform(-20, 20)), Image.Resampling.BILINEAR)
    small = mask.resize((round(side), round(side)), Image.Resampling.BOX)
    colour = tuple(int(value) for value in rng.integers(0, 256, 3))
    left, top = round(x), round(y)
    image.paste(colour, (left, top), small)
    inner = np.asarray(small) >= 128
    rows, columns = np.flatnonzero(inner.any(axis=1)), np.flatnonzero(inner.any(axis=0))
    return (left + columns[0], top + rows[0], left + columns[-1] + 1, top + rows[-1] + 1)


def drawn_world(folder, seed, pool, test):
    """Return scenes of one seed; those of two seeds have nothing in common."""
    files = []
    for number in range(pool + test):
        pixels, objects = draw_scene(np.random.default_rng([seed, number]))
        path = folder / f"{number:05d}.png"
        Image.fromarray(pixels).save(path, compress_level=1)
        files.append((path, objects))
    return _world(files, list(SHARES), RARE, pool)


def bccd_world(seed, test):
    """Return BCCD's images, others for testing with each seed; its rarest class is Platelets."""
    folder = DATA / "bccd" / "BCCD"
    decoded = sorted((folder / "JPEGImages").glob("*.jpg"))
    if not decoded:
        sys.exit(f"The images of BCCD are not at {DATA}; set ANNOTATION_TEST_DATA.")
    files = []
    for path in np.random.default_rng(seed).permutation(decoded):
        root = ET.parse(folder / "Annotations" / f"{path.stem}.xml").getroot()
        objects = [
            (item.findtext("name"), [float(item.findtext(f"bndbox/{edge}")) for edge in
             ("xmin", "ymin", "xmax", "ymax")])
            for item in root.iter("object")
        ]  # fmt: skip
        files.append((path, objects))
    names = ["RBC", "WBC", "Platelets"]
    return _world(files, names, ("WBC", "Platelets"), len(files) - test)


def _world(files, names, rare, pool):
    classes = tuple(LabelClass(id=number, name=name) for number, name in enumerate(names))
    ids = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path, _ in files}
    images = []
    for path, image_id in ids.items():
        width, height = Image.open(path).size
        images.append((image_id, path.name, "", width, height))
    labels = [
        (ids[path], name, *(float(edge) for edge in box))
        for path, objects in files
        for name, box in objects
    ]
    truth = Dataset(
        pd.DataFrame(images, columns=["image_id", "file_name", "split", "width", "height"])[
            IMAGE_COLUMNS
        ],
        pd.DataFrame(labels, columns=["image_id", "class_name", *BOX_COLUMNS])[LABEL_COLUMNS],
        Ontology(classes=classes, guidelines="-"),
    )
    order = list(ids.values())
    paths = {image_id: path for path, image_id in ids.items()}
    return World(truth, paths, order[:pool], order[pool:], rare)


class Learner:
    """Trains on labelled images, and says how good the detector is and what it sees."""

    def __init__(self, world, seed, width, folder):
        self.world, self.seed = world, seed
        self.first = folder / "first.pt"
        self.policy = TrainingPolicy(image_width=width, batch_size=8, learning_rate=2e-3)

    def train(self, asked, steps, *, first=False):
        """Return a detector that has learned from four in five of these, and its calibration."""
        held_out = asked[4::5]
        chosen = sorted(set(asked) - set(held_out))
        rows = dict(iter(self.world.boxes(chosen).groupby("image_id")))
        nothing = self.world.truth.labels[:0]
        examples = []
        for image_id in chosen:
            own = rows.get(image_id, nothing)
            boxes = as_boxes(own[BOX_COLUMNS])
            path = self.world.paths[image_id]
            examples.append(TrainingExample(image_id, path, boxes, own["class_name"].tolist()))
        trained = train_detector(
            examples,
            class_names=self.world.truth.ontology.names,
            policy=self.policy.model_copy(update={"steps": steps}),
            seed=self.seed,
            options=TrainingOptions(None if first else self.first),
        )
        if first:
            self.first.write_bytes(trained.state)
        detector = NetworkDetector.from_bytes(trained.state, where="memory", device="cpu")
        found = self.look(detector, held_out)
        calibration = fit_calibration(found, self.world.boxes(held_out), images=held_out)
        return detector, calibration

    def look(self, detector, images):
        """Return what the detector sees in these images, by its own score."""
        return predict_files(detector, {one: self.world.paths[one] for one in images})

    def measure(self, detector, asked):
        """Return the point of the curve at these labels."""
        found = self.look(detector, self.world.test)
        reached = evaluate(self.world.part(self.world.test), found).per_class
        rare = [reached.get(name, 0.0) for name in self.world.rare]
        boxes = len(self.world.boxes(asked))
        every = float(np.mean(list(reached.values())))
        return Point(len(asked), boxes, float(np.mean(rare)), every)


def curve(learner, policy, stages, first, embeddings, steps):
    """Return a strategy's points: at the first images, and at each later stage."""
    world, asked, points = learner.world, list(first.asked), [first.point]
    detector, calibration = first.detector, first.calibration
    for number, stage in enumerate(stages, start=1):
        left = [one for one in world.pool if one not in set(asked)]
        found = learner.look(detector, left) if policy.strategy != "random" else None
        if found is not None:
            names, scores = found["class_name"].tolist(), found["score"].to_numpy()
            found = found.assign(shape="box", score=calibration.apply(names, scores))
        selection = select_batch(
            SelectionInputs(
                pd.DataFrame({"image_id": left}),
                embeddings,
                ModelPredictions.empty() if found is None else found,
                world.boxes(asked),
                pd.DataFrame({"image_id": asked}),
            ),
            policy=policy.model_copy(update={"budget": stage - len(asked)}),
            round_id=f"round-{number:04d}",
            seed=learner.seed,
        )
        asked += selection.images.sort_values("rank")["image_id"].tolist()
        detector, calibration = learner.train(asked, steps)
        points.append(learner.measure(detector, asked))
    return points


@dataclass(frozen=True)
class First:
    """Where all strategies of a seed start."""

    asked: list[str]
    detector: NetworkDetector
    calibration: object
    point: Point


def _tell_embedders(world, learner, asked, wanted):
    """Print how many rare objects the most unlike images hold."""
    file = DETECTOR_FILES.read(learner.first.read_bytes(), where="first")
    network = DETECTOR_FILES.network(file, where="first")
    model = ModelEmbedder(network, name="first", image_width=file.side)
    decoded = [decode(world.paths[one].read_bytes()) for one in world.pool]
    known = np.isin(world.pool, asked)
    left = np.array(world.pool)[~known]

    def rare(images):
        return int(world.boxes(images)["class_name"].isin(world.rare).sum())

    found = []
    for name, embedder in (("image", ImageEmbedder()), ("model", model)):
        vectors = embedder.embed(decoded)
        chosen = left[farthest_first(vectors[~known], wanted, known=vectors[known])]
        found.append(f"{name} {rare(chosen)} of {len(world.boxes(chosen))}")
    share = rare(left) / len(world.boxes(left))
    print(f"rare objects on {wanted} unlike images: {', '.join(found)}; "
          f"of the pool {share:.1%} are rare", flush=True)  # fmt: skip


def one_seed(world, seed, options, folder, report):
    """Return each strategy's points."""
    vectors = ImageEmbedder().embed([decode(world.paths[i].read_bytes()) for i in world.pool])
    embeddings = pd.DataFrame({"image_id": world.pool, "vector": list(vectors)})
    learner = Learner(world, seed, options.width, folder)
    start = options.start
    asked = np.random.default_rng([seed, 1]).permutation(world.pool)[:start].tolist()
    detector, calibration = learner.train(asked, options.first_steps, first=True)
    first = First(asked, detector, calibration, learner.measure(detector, asked))
    _tell_embedders(world, learner, asked, 2 * options.each)
    curves = {}
    for name in options.strategies:
        # Random is needed at its end and for the shape; the others stop short of it.
        each = 2 if name == "random" else 1
        last = options.end if name == "random" else options.end - options.each
        stages = list(range(start + each * options.each, last + 1, each * options.each))
        if name == "random" and (not stages or stages[-1] != options.end):
            stages.append(options.end)
        policy = STRATEGIES[name]
        curves[name] = curve(learner, policy, stages, first, embeddings, options.steps)
        report(seed, name, curves[name])
    return curves


def saving(curves, name, seeds, axis):
    """Return the share of labels saved at random's last figure, by the mean curves of ``seeds``.

    A curve that does not get there is taken to get there at random's last label: no saving.
    """
    ours = np.array([[(getattr(p, axis), p.rare) for p in curves[s][name]] for s in seeds])
    plain = np.array([[(getattr(p, axis), p.rare) for p in curves[s]["random"]] for s in seeds])
    (labels, reached), (last, goal) = ours.mean(axis=0).T, plain.mean(axis=0)[-1]
    reached = np.maximum.accumulate(reached)
    if reached[-1] < goal:
        return 0.0
    after = int(np.argmax(reached >= goal))
    if after == 0:
        return 1 - labels[0] / last
    share = (goal - reached[after - 1]) / (reached[after] - reached[after - 1])
    return 1 - (labels[after - 1] + share * (labels[after] - labels[after - 1])) / last


def print_table(curves, names, rare):
    """Print every strategy's mean curve, and what it saves against random."""
    seeds = sorted(curves)
    print(f"\nAP50 of {' and '.join(rare)}, mean over {len(seeds)} seeds (of all classes)")
    for name in names:
        points = [[one[name][place] for one in curves.values()] for place in
                  range(len(curves[seeds[0]][name]))]  # fmt: skip
        for at in points:
            mean = {key: np.mean([getattr(one, key) for one in at])
                    for key in ("images", "boxes", "rare", "all")}  # fmt: skip
            spread = np.std([one.rare for one in at], ddof=1) if len(at) > 1 else float("nan")
            print(
                f"{name:10s} {mean['images']:5.0f} images {mean['boxes']:6.0f} boxes  "
                f"{mean['rare']:.3f} ± {spread:.3f} over seeds  ({mean['all']:.3f})"
            )
    rng = np.random.default_rng(0)
    draws = [rng.choice(seeds, len(seeds)).tolist() for _ in range(2000)]
    for name in names:
        for axis in ("images", "boxes") if name != "random" else ():
            drawn = [saving(curves, name, draw, axis) for draw in draws]
            low, high = np.percentile(drawn, [2.5, 97.5])
            print(
                f"{name} needs {saving(curves, name, seeds, axis):.0%} fewer {axis} than random "
                f"({low:.0%} to {high:.0%})",
                flush=True,
            )


def main():
    """Print the curves and what they save."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--seeds", type=int, default=10)
    options.add_argument("--first-seed", type=int, default=0)
    options.add_argument("--first-steps", type=int, default=300)
    options.add_argument("--steps", type=int, default=200)
    options.add_argument("--width", type=int, default=0, help="pixels; 128, or 320 with --bccd")
    options.add_argument("--pool", type=int, default=500)
    options.add_argument("--test", type=int, default=500)
    options.add_argument("--start", type=int, default=40)
    options.add_argument("--each", type=int, default=40)
    options.add_argument("--end", type=int, default=240)
    options.add_argument("--strategies", nargs="+", choices=list(STRATEGIES),
                         default=["random", "entropy", "combined"])  # fmt: skip
    options.add_argument("--bccd", action="store_true")
    chosen = options.parse_args()
    chosen.width = chosen.width or (320 if chosen.bccd else WIDTH)
    started = time.process_time()
    curves = defaultdict(dict)

    def report(seed, name, points):
        line = "  ".join(f"{p.images}/{p.boxes}: {p.rare:.3f}" for p in points)
        print(f"seed {seed} {name:10s} {line}  [{time.process_time() - started:.0f} CPU s]",
              flush=True)  # fmt: skip

    for seed in range(chosen.first_seed, chosen.first_seed + chosen.seeds):
        with tempfile.TemporaryDirectory() as folder:
            if chosen.bccd:
                world = bccd_world(seed, chosen.test)
            else:
                world = drawn_world(Path(folder), seed, chosen.pool, chosen.test)
            curves[seed] = one_seed(world, seed, chosen, Path(folder), report)
    print_table(curves, chosen.strategies, world.rare)
    print(f"{' '.join(['python', *sys.argv])}: {time.process_time() - started:.0f} CPU seconds")
    return 0


if __name__ == "__main__":
    sys.exit(main())
