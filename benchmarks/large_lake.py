"""How a lake of 100,000 images in a hundred rounds feels: a further round, questions, pages.

    python -m benchmarks.large_lake
    python -m benchmarks.large_lake --rounds 10

On the world of ``provenance.py``, with vectors of its images and its rounds in Dagster, a
thousand drawn images land, people answer, and a real webserver and daemon make a version of
101,000 images of it. Printed are what the platform adds to the round: the looks of its sensors
that started something, and the runs' own seconds, beside those of their steps; then, by their wall
seconds, ``status`` and a query on the command line, and the page of every asset in a
browser, until its table of facts is there. On tmpfs.
"""

import argparse
import hashlib
import statistics
import tempfile
import time
import uuid
from pathlib import Path

import dagster as dg
import numpy as np
import pandas as pd
import yaml

from annotation_platform.definitions import defs
from annotation_platform.demo.annotators import make_people
from annotation_platform.demo.crowd import SimulatedSession, annotate_round
from annotation_platform.demo.scenes import draw_batch
from annotation_platform.images.accepted import accepted_images
from annotation_platform.images.embedding import IMAGE_EMBEDDER
from annotation_platform.images.signature import signature_rows
from annotation_platform.images.signature_files import read_signatures
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.change_signals import ChangeSignals, PollSchedule
from annotation_platform.labeling.guidelines import record_guideline
from annotation_platform.policy import read_policy
from annotation_platform.schema.dataset import Dataset
from annotation_platform.schema.tables import Conflicts, LabelTasks, SelectedImages
from annotation_platform.servers.dagster import DagsterServers
from annotation_platform.storage.table_files import parquet_bytes
from annotation_platform.versioning.registry import list_versions
from benchmarks.provenance import IMAGES, ONTOLOGY, asked, image_ids, prepare
from benchmarks.waiting import until
from resources.causes import PARTITION
from sensors.releases import review_complete_sensor
from tests.system.chromium import chromium

SELECT = "SELECT class_name, count(*) FROM labels GROUP BY ALL"
ASSETS = [spec.key.to_user_string() for asset in defs.assets for spec in asset.specs]


def complete(settings, rounds):
    """Give the world what its rounds would have left: tasks, vectors, and Dagster's events."""
    lake = lake_of(settings)
    policy = yaml.safe_load(settings.policy_path.read_text())
    policy |= {"review": {"gate": "auto"}, "training": {"gate": "manual"}}
    policy["rounds"] = {**policy.get("rounds", {}), "settle_seconds": 1}
    settings.policy_path.write_text(yaml.safe_dump(policy, sort_keys=False))
    guideline = record_guideline(lake.store, ONTOLOGY)
    rng = np.random.default_rng(0)
    (settings.home_path / "dagster").mkdir(exist_ok=True)
    with dg.DagsterInstance.from_config(str(settings.home_path / "dagster")) as instance:
        for number in range(rounds):
            round_id, images = f"round-{number + 1:04d}", image_ids(number, IMAGES)
            same = {
                "round_id": round_id, "step": "label", "assignee": "", "purpose": "label",
                "without_predictions": False, "expertise": "", "guideline": guideline,
                "backend": "elsewhere",
            }  # fmt: skip
            tasks = [
                {**same, "task_id": f"{round_id}/label/{image}", "image_id": image,
                 "assignment": place, "fills_assignment": place, "backend_task": f"{image}-{place}"}
                for image in images for place in (1, 2, 3)
            ]  # fmt: skip
            lake.tables.write(LabelTasks, round_id, LabelTasks.from_rows(tasks))
            chosen = [
                {"round_id": round_id, "image_id": image, "rank": rank, "rule": "all",
                 "reason": "", "calibration_sample": False}
                for rank, image in enumerate(images)
            ]  # fmt: skip
            lake.tables.write(SelectedImages, round_id, SelectedImages.from_rows(chosen))
            lake.tables.write(Conflicts, round_id, Conflicts.empty())
            vectors = rng.normal(size=(IMAGES, 96)).astype(np.float32)
            vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
            data = parquet_bytes(pd.DataFrame({"image_id": images, "vector": list(vectors)}))
            digest = hashlib.sha256(data).hexdigest()
            lake.store.create(f"features/{IMAGE_EMBEDDER}/{digest}.parquet", data)
            instance.add_dynamic_partitions("rounds", [round_id])
            for name in ASSETS:
                metadata = {"images": IMAGES, "preview": dg.MetadataValue.md("| a |\n|---|")}
                instance.report_runless_asset_event(
                    dg.AssetMaterialization(name, partition=round_id, metadata=metadata)
                )
        released(instance, settings, lake)
    known = accepted_images(lake.tables)
    read_signatures(lake.store, known, signature_rows(len(known)))


def released(instance, settings, lake):
    """Note the release of each round as a run that succeeded, as its sensor asks for it."""
    labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    looks = PollSchedule(ChangeSignals(settings.home_path / "hints"))
    policy = read_policy(settings.policy_path)
    asks = review_complete_sensor(
        dg.build_sensor_context(instance=instance),
        labeling=labeling, lake=lake, policy=policy, looks=looks,
    )  # fmt: skip
    for request in asks.run_requests:
        tags = {**request.tags, PARTITION: request.partition_key}
        instance.add_run(
            dg.DagsterRun(
                job_name=request.job_name, run_id=str(uuid.uuid4()), tags=tags,
                status=dg.DagsterRunStatus.SUCCESS,
            )
        )  # fmt: skip


def drawn(lake):
    """Land a thousand images, and return what is true of them, of classes that the world has."""
    batch = draw_batch(1, IMAGES, seed=0)
    names = dict(zip(batch.truth.ontology.names, ONTOLOGY.names, strict=False))
    labels = batch.truth.labels.assign(class_name=batch.truth.labels["class_name"].map(names))
    for name, data in batch.files.items():
        lake.landing.put(f"new/{name}", data)
    return Dataset(batch.truth.images, labels, ONTOLOGY)


def one_more_round(settings, round_id, servers):
    """Let a thousand images become a version; return the seconds of the two waits."""
    lake = lake_of(settings)
    labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    people = make_people(4, 0)
    for person in people:
        labeling.add_annotator(person.name)
    before = len(list_versions(settings.registry_path))
    truth = drawn(lake)
    landed = time.monotonic()
    shown = until(lambda: lake.tables.exists(LabelTasks, round_id), servers, 1200) - landed
    sessions = {each.name: SimulatedSession(labeling, each.name) for each in people}
    annotate_round(round_id, people, sessions, truth, seed=0, progress=lambda: None)
    annotated = time.monotonic()
    done = until(lambda: len(list_versions(settings.registry_path)) > before, servers, 1200)
    return shown, done - annotated


def added(instance, round_id):
    """Return what the platform adds to a round: a row for each run, with its sensor's look."""
    ticks = {
        run: tick.end_timestamp - tick.timestamp
        for state in instance.all_instigator_state()
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=500)
        for run in tick.run_ids
    }
    rows = []
    for run in instance.get_runs(filters=dg.RunsFilter(tags={PARTITION: round_id}))[::-1]:
        stats = instance.get_run_stats(run.run_id)
        steps = {
            step.step_key: step.end_time - step.start_time
            for step in instance.get_run_step_stats(run.run_id)
            if step.end_time
        }
        if stats.end_time is None:
            continue
        own = stats.end_time - stats.start_time - sum(steps.values())
        rows.append([run.job_name, ticks.get(run.run_id, 0.0), own, steps])
    return rows


def pages(url, folder):
    """Return the seconds until each asset's page shows what is known of it."""
    seconds = {}
    with chromium(folder / "profile") as browser, browser.page(height=1100) as page:
        # The first page loads Dagster's scripts as well: it is looked at twice, and counts once.
        for name in [ASSETS[0], *ASSETS]:
            start = time.perf_counter()
            page.go(f"{url}/assets/{name}")
            page.wait_for(
                "document.body.innerText.includes('Metadata') && !!document.querySelector('td')"
            )
            seconds[name] = time.perf_counter() - start
    return seconds


def main():
    """Print what the command line asks for."""
    options = argparse.ArgumentParser()
    options.add_argument("--rounds", type=int, default=100, help="of a thousand images each")
    options.add_argument("--repeats", type=int, default=3)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as place:
        start = time.perf_counter()
        settings, *_ = prepare(Path(place), given.rounds)
        complete(settings, given.rounds)
        print(f"prepared in {time.perf_counter() - start:.0f} s", flush=True)
        measure(settings, given.rounds, given.repeats)


def measure(settings, rounds, repeats):
    """Measure everything in a world that is complete."""
    round_id = f"round-{rounds + 1:04d}"
    for arguments in (["status"], ["catalog", "query", SELECT]):
        seconds, _ = asked(settings, repeats, *arguments)
        print(f"{' '.join(arguments[:2])}: {seconds:.1f} s", flush=True)
    with DagsterServers(settings, secrets={}) as servers:
        shown, tagged = one_more_round(settings, round_id, servers)
        print(f"landing to tasks {shown:.1f} s, last answer to tag {tagged:.1f} s", flush=True)
        seconds = pages(servers.url, settings.home_path)
    with dg.DagsterInstance.from_config(str(settings.home_path / "dagster")) as instance:
        rows = added(instance, round_id)
    for job, look, own, steps in rows:
        told = ", ".join(f"{name} {each:.1f}" for name, each in steps.items() if each >= 0.5)
        print(f"{job}: look {look:.2f} s, Dagster itself {own:.2f} s; steps "
              f"{sum(steps.values()):.1f} s ({told})")  # fmt: skip
    total = sum(look + own for _, look, own, _ in rows)
    print(f"orchestration of {round_id}: {total:.1f} s")
    print(f"asset pages: median {statistics.median(seconds.values()):.1f} s, slowest "
          f"{max(seconds, key=seconds.get)} {max(seconds.values()):.1f} s")  # fmt: skip


if __name__ == "__main__":
    main()
