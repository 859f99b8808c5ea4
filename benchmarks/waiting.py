"""How long people wait for the machine in a round, and what Dagster adds to the work.

    python benchmarks/waiting.py
    python benchmarks/waiting.py --rounds 3 --images 20

Drawn harbours land, simulated people answer, and a real webserver and daemon do the rest, with the
sensors' own intervals. Both happen at any moment between two looks of the sensors: people know
nothing of those, and what reacts at once would always find them at the same one. Of each round
two waits: from the moment the last file is stable until the tasks can be seen, and from the last
answer until the version is tagged, with review by rule alone. Then what Dagster adds to a whole
round: the seconds of its runs, from the start of the work to the end, less those of their steps.
Medians of the rounds; the first has no model.
"""

import argparse
import random
import statistics
import tempfile
import time
from pathlib import Path

import dagster as dg
import yaml

from annotation_platform.demo.annotators import make_people
from annotation_platform.demo.crowd import SimulatedSession, annotate_round
from annotation_platform.demo.material import drawn_material
from annotation_platform.demo.run import DemoOptions, prepare_home
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.schema.tables import LabelTasks, RoundReports
from annotation_platform.servers.dagster import DagsterServers
from annotation_platform.versioning.registry import list_versions

PATIENCE_SECONDS = 300
LOOK_SECONDS = 5.0
"""Dagster's daemon goes round the sensors so often, however short their own interval is."""


def until(done, servers, patience=PATIENCE_SECONDS):
    """Return when something came true, by the clock that only goes on."""
    begun = time.monotonic()
    while not done():
        servers.check()
        if time.monotonic() - begun > patience:
            raise TimeoutError("a round stood still")
        time.sleep(0.05)
    return time.monotonic()


def round_of(number, files, lake, settings, labeling, people, material, servers, settle):
    """Let one batch through, and return its two waits in seconds."""
    round_id, moment = f"round-{number:04}", random.Random(number)
    time.sleep(moment.uniform(0, LOOK_SECONDS))
    for name, data in files.items():
        lake.landing.put(f"batch-{number}/{name}", data)
    stable = time.monotonic() + settle
    asked = until(lambda: lake.tables.exists(LabelTasks, round_id), servers)
    time.sleep(moment.uniform(0, LOOK_SECONDS))
    sessions = {each.name: SimulatedSession(labeling, each.name) for each in people}
    annotate_round(round_id, people, sessions, material.truth, seed=0, progress=lambda: None)
    annotated = time.monotonic()
    tagged = until(lambda: len(list_versions(settings.registry_path)) == number, servers)
    until(lambda: lake.tables.exists(RoundReports, round_id), servers)
    return asked - stable, tagged - annotated


def overheads(instance):
    """Return by round the seconds of its runs that no step took."""
    found = {}
    for run in instance.get_runs(filters=dg.RunsFilter(statuses=[dg.DagsterRunStatus.SUCCESS])):
        stats = instance.get_run_stats(run.run_id)
        steps = instance.get_run_step_stats(run.run_id)
        work = sum(step.end_time - step.start_time for step in steps if step.end_time)
        own = stats.end_time - stats.start_time - work
        key = run.tags.get("dagster/partition", "")
        found.setdefault(key, []).append((run.job_name, own, work))
    return found


def main():
    """Measure some rounds and print the medians."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--rounds", type=int, default=6)
    options.add_argument("--images", type=int, default=50, help="of a round")
    options.add_argument("--cpu-seconds", type=float, default=5.0, help="of training")
    chosen = options.parse_args()
    material = drawn_material(chosen.rounds, chosen.images - 5, seed=0)
    with tempfile.TemporaryDirectory() as folder:
        demo = DemoOptions(
            home=Path(folder) / "home", labeling="simulated",
            training_cpu_seconds=chosen.cpu_seconds, image_width=160,
        )  # fmt: skip
        settings = prepare_home(material, demo)
        policy = yaml.safe_load(settings.policy_path.read_text())
        policy["review"] = {"gate": "auto"}
        settings.policy_path.write_text(yaml.safe_dump(policy, sort_keys=False))
        settle = policy["rounds"]["settle_seconds"]
        labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
        people = make_people(4, 0)
        for person in people:
            labeling.add_annotator(person.name)
        lake, waits = lake_of(settings), []
        with DagsterServers(settings, secrets={}) as servers:
            for number, files in enumerate(material.batches, start=1):
                waits.append(
                    round_of(number, files, lake, settings, labeling, people, material, servers,
                             settle)
                )  # fmt: skip
                tasks, tag = waits[-1]
                print(f"round {number}, {len(files)} files: landing to tasks {tasks:.1f} s, "
                      f"last answer to tag {tag:.1f} s", flush=True)  # fmt: skip
            time.sleep(2)
        with dg.DagsterInstance.from_config(str(settings.home_path / "dagster")) as instance:
            added = overheads(instance)
    for key, runs in sorted(added.items()):
        told = ", ".join(f"{job} {own:.2f} of {own + work:.2f}" for job, own, work in runs[::-1])
        print(
            f"{key or 'no round'}: Dagster itself {sum(own for _, own, _ in runs):.2f} s ({told})"
        )
    tasks, tag = (statistics.median(each) for each in zip(*waits, strict=True))
    own = statistics.median(sum(own for _, own, _ in runs) for key, runs in added.items() if key)
    print(f"medians: landing to tasks {tasks:.1f} s, last answer to tag {tag:.1f} s, "
          f"Dagster itself {own:.2f} s a round")  # fmt: skip


if __name__ == "__main__":
    main()
