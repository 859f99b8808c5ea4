"""How long the questions to a version take: explain, diff and impact, of a hundred rounds.

    python benchmarks/provenance.py
    python benchmarks/provenance.py --rounds 10 --repeats 1

Each round asks three of four simulated people about a thousand images with ten objects each; the
second version is the first with the answers of one round given anew. Every question is put on the
command line, in a new process, and its wall seconds are the median of the repeats. Beside the
difference stands DuckDB's, which tells from the same two tables, in a process that runs already,
which rows are in one of them alone: neither what became what nor why. On tmpfs.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import simplejpeg

from annotation_platform.consensus.anchoring import pre_annotation_decisions
from annotation_platform.consensus.quality import quality_table
from annotation_platform.consensus.resolve import resolve_consensus
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.guidelines import record_guideline
from annotation_platform.pipeline.build_training_set import build_training_set
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.publish import publish
from annotation_platform.policy import Policy
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.rounds import Arrival
from annotation_platform.schema.tables import (
    CleanedImages,
    DatasetVersions,
    ErrorBars,
    HumanLabels,
    ModelPredictions,
    RawImages,
    ReviewedLabels,
    ReviewTasks,
    TrainingSet,
    table_named,
)
from annotation_platform.settings import Settings, settings_environment
from annotation_platform.storage.lineage import JournalEntries, TableInputs, input_key
from annotation_platform.storage.table_files import table_digest
from annotation_platform.versioning.registry import make_registry
from annotation_platform.versioning.store import VersionStore

PROJECT = Path(__file__).resolve().parent.parent
ONTOLOGY = Ontology.from_names(["cube", "ball", "cone", "ring", "star"])
POLICY = Policy(ontology=ONTOLOGY)
PEOPLE = [f"annotator-{number:010d}" for number in range(4)]
WIDTH, HEIGHT, OBJECTS, IMAGES = 1280, 960, 10, 1000
_LONG = 10**8  # characters
BEGUN = datetime(2026, 1, 1, tzinfo=UTC)


def image_ids(number, count):
    """Return the ids of so many images of a round."""
    return [hashlib.sha256(f"{number}:{image}".encode()).hexdigest() for image in range(count)]


def annotations_of_a_round(guideline, seed):
    """Return what three of four people say of so many images, as ``human_labels``."""
    rng = np.random.default_rng(seed)
    names, rows = ONTOLOGY.names, []
    for number, image in enumerate(image_ids(0, IMAGES)):
        cells = rng.choice(48, OBJECTS, replace=False)
        truth = [(names[rng.integers(5)], cell % 8 * 160 + 20, cell // 8 * 160 + 20)
                 for cell in cells]  # fmt: skip
        for place, person in enumerate(np.delete(PEOPLE, number % 4), start=1):
            annotation_id = f"{image}-{place}"
            same = {
                "round_id": "round-0001", "task_id": f"round-0001/label/{image}",
                "image_id": image, "assignment": place, "annotation_id": annotation_id,
                "revision": hashlib.sha256(f"{seed} {annotation_id}".encode()).hexdigest(),
                "annotator": str(person), "lead_time_seconds": 30.0, "geometry": "",
                "submitted_at": BEGUN + timedelta(days=seed), "weights_sha256": "",
                "changed": True, "purpose": "label", "without_predictions": False,
                "guideline": guideline, "refused_regions": 0, "problems": "", "shape": "box",
            }  # fmt: skip
            for at, (name, x, y) in enumerate(truth):
                if rng.random() < 0.05:
                    continue
                shift = rng.normal(0, 2, 4)
                said = names[rng.integers(5)] if rng.random() < 0.03 else name
                rows.append(
                    {**same, "label_id": f"{annotation_id}:{at:04d}", "class_name": said,
                     "x1": x + shift[0], "y1": y + shift[1],
                     "x2": x + 110 + shift[2], "y2": y + 110 + shift[3]}
                )  # fmt: skip
    return HumanLabels.from_rows(rows)


class RoundMaker:
    """One round as people answered it; others say the same of other images."""

    def __init__(self, lake, seed):
        self.annotations = annotations_of_a_round(record_guideline(lake.store, ONTOLOGY), seed)
        images = sorted(set(self.annotations["image_id"]))
        sizes = pd.DataFrame({"image_id": images, "width": WIDTH, "height": HEIGHT})
        decisions = pre_annotation_decisions(self.annotations, ModelPredictions.empty())
        self.quality = quality_table(
            "round-0001", self.annotations, self.annotations.head(0), decisions
        )
        self.consensus = resolve_consensus(
            self.annotations, ontology=ONTOLOGY, images=sizes, quality=self.quality
        )

    def write(self, lake, number):
        """Write a round and note what its labels were made of, as its assets do."""
        round_id = f"round-{number + 1:04d}"
        tables, lineage = lake.tables, lake.tables.lineage
        new = dict(zip(image_ids(0, IMAGES), image_ids(number, IMAGES), strict=True))
        annotations, labels = (
            _renamed(each, round_id, new) for each in (self.annotations, self.consensus.labels)
        )
        quality = self.quality.assign(round_id=round_id)
        images = tables.read(CleanedImages, round_id)
        tasks = labels.drop_duplicates("task_id")[["round_id", "task_id", "image_id"]]
        tasks = tasks.assign(purpose="label", assignments=3, counted=3, state="annotated")
        about = {"decision": "undisputed", "decided_by": "", "comment": "", "decided_at": None}
        reviewed = ReviewedLabels.from_rows(labels.assign(**about).to_dict("records"))
        frames = {"human_labels": annotations, "annotator_quality": quality, "round_tasks": tasks,
                  "consensus_labels": labels, "reviewed_labels": reviewed,
                  "review_tasks": ReviewTasks.empty()}  # fmt: skip
        digests = {
            name: tables.write(table_named(name), round_id, each) for name, each in frames.items()
        }
        digests["cleaned_images"] = table_digest(CleanedImages, images)
        of = {f"{name}/{round_id}": digest for name, digest in digests.items()}
        lineage.keep_tables(of)
        settings = {"iou_threshold": 0.5, "common": self.consensus.common.to_dict()}
        nothing = JournalEntries(0, hashlib.sha256().hexdigest())
        folders = [f"ledger/answers/{round_id}", f"ledger/answers/{round_id}-review",
                   "people/skills", f"plans/{round_id}", f"plans/{round_id}-review"]  # fmt: skip
        made = {
            "consensus_labels": TableInputs(
                _of(of, "human_labels", "annotator_quality", "cleaned_images"), settings=settings
            ),
            "reviewed_labels": TableInputs(
                _of(of, "consensus_labels", "review_tasks", "cleaned_images"),
                dict.fromkeys(folders, nothing),
            ),
        }
        for name, made_of in made.items():
            lineage.write(name, round_id, digests[name], made_of)


def _of(digests, *names):
    return {key: digest for key, digest in digests.items() if key.partition("/")[0] in names}


def _renamed(frame, round_id, new):
    """Return a table of a round, about other images."""
    old = frame["image_id"]
    image = old.map(new)
    changes = {"round_id": round_id, "image_id": image, "task_id": f"{round_id}/label/" + image}
    for name in ("annotation_id", "label_id"):
        if name in frame:
            changes[name] = image + frame[name].str[64:]
    if "revision" in frame:
        changes["revision"] = image.str[:32] + frame["revision"].str[32:]
    return frame.assign(**changes)


def land(lake, number):
    """Put a round's images into the lake; noise will do, far smaller than it is said to be."""
    round_id, raw, cleaned, landed = f"round-{number + 1:04d}", [], [], []
    rng = np.random.default_rng(number)
    for at, image in enumerate(image_ids(number, IMAGES)):
        pixels = rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)
        data = simplejpeg.encode_jpeg(pixels, quality=85)
        path = Path(lake.store.url(image_key(image, "jpg")))
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        sha256 = hashlib.sha256(data).hexdigest()
        known = {"round_id": round_id, "source_key": f"camera-{number % 10}/{number}-{at}.jpg",
                 "arrival_version": "1", "image_id": image}  # fmt: skip
        landed.append(Arrival(known["source_key"], "1", len(data)))
        raw.append({**known, "byte_size": len(data), "problem": "", "other_metadata": ""})
        cleaned.append(
            {**known, "outcome": "accepted", "reason": "", "group_id": image, "joins": "",
             "width": WIDTH, "height": HEIGHT, "extension": "jpg", "stored_sha256": sha256,
             "stored_md5": hashlib.md5(data).hexdigest(), "stored_bytes": len(data),
             "pixel_sha256": sha256, "perceptual_hash": sha256[:16], "sharpness": 50.0,
             "brightness": 100.0, "entropy": 7.0, "flags": ""}
        )  # fmt: skip
    lake.manifests.create(round_id, landed)
    lake.tables.write(RawImages, round_id, RawImages.from_rows(raw))
    lake.tables.write(CleanedImages, round_id, CleanedImages.from_rows(cleaned))


def prepare(root, rounds):
    """Publish both versions; return settings, tags, the labels of the last, both sets' files."""
    settings = Settings(home=root, params=root / "params.yaml", labeling="simulated",
                        lake=str(root / "lake"), landing=str(root / "landing"),
                        registry=str(root / "registry"), remote=str(root / "remote"))  # fmt: skip
    settings.policy_path.write_text(POLICY.to_yaml())
    make_registry(root / "registry", PROJECT, POLICY.to_yaml(), remote_url=str(root / "remote"))
    lake, last = lake_of(settings), f"round-{rounds:04d}"
    maker = RoundMaker(lake, 1)
    for number in range(rounds):
        land(lake, number)
        maker.write(lake, number)
    store = VersionStore(root / "registry", str(root / "remote"), PROJECT, root / "mirrors")
    tags, kept = [], []
    for _ in range(2):
        context = RoundContext(last, lake, POLICY, BEGUN)
        built = build_training_set(context)
        bars = ErrorBars.empty()
        for name, table in built.tables.items():
            lake.tables.write(table_named(name), last, table)
        published = publish(context, built.training_set, built.training_rounds, bars, store)
        lake.tables.write(DatasetVersions, last, published.dataset_version)
        tags.append(str(published.dataset_version.iloc[0]["tag"]))
        kept.append(Path(lake.store.url(input_key(lake.tables.digest(TrainingSet, last)))))
        RoundMaker(lake, 2).write(lake, 0)
    return settings, tags, built.training_set, kept


def asked(settings, repeats, *arguments):
    """Return the median wall seconds of a command, and what it prints."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        done = subprocess.run(
            [sys.executable, "-m", "annotation_platform.cli", *arguments],
            env=settings_environment(settings), capture_output=True, text=True, check=True,
        )  # fmt: skip
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), done.stdout


def by_duckdb(before, now):
    """Return the seconds in which DuckDB tells two training sets apart, and how many rows."""
    start = time.perf_counter()
    one, two = (f"SELECT * EXCLUDE (group_id) FROM '{each}'" for each in (before, now))
    ((count,),) = duckdb.sql(
        f"SELECT (SELECT count(*) FROM ({one} EXCEPT {two})) + "
        f"(SELECT count(*) FROM ({two} EXCEPT {one}))"
    ).fetchall()
    return time.perf_counter() - start, count


def main():
    """Print what the command line asks for."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=100, help="of a thousand images each")
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        start = time.perf_counter()
        settings, tags, labels, kept = prepare(Path(place), given.rounds)
        print(f"{labels['image_id'].nunique()} images, {len(labels)} boxes in {tags[-1]}; "
              f"prepared in {time.perf_counter() - start:.0f} s", flush=True)  # fmt: skip
        one = str(labels["image_id"].iloc[len(labels) // 2])
        person = ["version", "impact", "--annotator", PEOPLE[0], "--no-without"]
        questions = {
            "explain one image": ["image", "explain", one, "--version", tags[-1], "--json"],
            "diff": ["version", "diff", *tags, "--json"],
            "impact of a source": ["version", "impact", "--source", "camera-3"],
            "impact of a round": ["version", "impact", "--round", "round-0002"],
            "impact of who answered three of four": person,
            "the same, every label listed": [*person, "--json"],
        }
        for name, arguments in questions.items():
            seconds, told = asked(settings, given.repeats, *arguments)
            beside = ""
            if name == "diff":
                peer, rows = by_duckdb(*kept)
                beside = (f"; {json.loads(told)['changes']} changes, each with its cause; "
                          f"DuckDB {peer:.2f} s for {rows} rows")  # fmt: skip
            if len(told) > _LONG:
                beside = f", {len(told) / 1e6:.0f} MB"
            print(f"{name}: {seconds:.2f} s{beside}", flush=True)


if __name__ == "__main__":
    main()
