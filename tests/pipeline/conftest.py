"""A round on real parts but without servers: real Parquet, git, DVC and a Dagster instance.

A step that a test of this session took from the same state is copied, not taken again: see
``tests/session_store.py``.
"""

import os
import shutil
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path

import dagster as dg
import pytest
import yaml

from annotation_platform.definitions import defs
from annotation_platform.demo.annotators import EXPERT, make_people
from annotation_platform.demo.crowd import SimulatedSession, annotate_round, review
from annotation_platform.demo.material import drawn_material
from annotation_platform.demo.run import DemoOptions, prepare_home
from annotation_platform.ingestion.events import LandingEvents
from annotation_platform.ingestion.lake import lake_of
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.change_signals import ChangeSignals, PollSchedule
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.policy import read_policy
from annotation_platform.provenance.state import read_state
from resources.deployments import build_resources
from sensors.landing import new_images_sensor
from tests.session_store import StepRecorder, digest_of

LANDED = (1.78e9, 1.78e9)
"""When files landed in homes whose steps are copied: time of access, time of change."""

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@dataclass
class Platform:
    """One home, one instance, and the hands that would be people and sensors."""

    settings: object
    lake: object
    labeling: SimulatedLabeling
    instance: dg.DagsterInstance
    material: object
    people: list
    recorder: StepRecorder | None = None

    @property
    def policy(self):
        return read_policy(self.settings.policy_path)

    def land(self, batch):
        for name, data in self.material.batches[batch - 1].items():
            self.lake.landing.put(f"batch-{batch}/{name}", data)

    def change_policy(self, **sections):
        """Change settings of sections of params.yaml."""
        path = self.settings.policy_path
        # libyaml: the loader in Python takes twenty milliseconds for this file.
        policy = yaml.load(path.read_text(), Loader=yaml.CSafeLoader)
        for name, values in sections.items():
            policy[name] = {**policy.get(name, {}), **values}
        path.write_text(yaml.dump(policy, Dumper=yaml.CSafeDumper, sort_keys=False))

    def state(self, tag, *, lake=True):
        """Return a published version, with what it was made of or without."""
        return read_state(
            self.settings.registry_path,
            tag,
            remote_url=self.settings.remote_url,
            lake=self.lake if lake else None,
        )

    def start_round(self, round_id="round-0001"):
        self.tick(new_images_sensor)
        return self.run("start_round", round_id)

    def run(self, job, round_id, *, raise_on_error=True, only=None, tags=None):
        """Run a job on a round, or ``only`` these of its assets, as somebody does by hand.

        ``tags`` say who, and why.
        """

        def take():
            return self._events(job, round_id, only=only, tags=tags, raise_on_error=raise_on_error)

        return self._result(job, self._step("run", job, round_id, only, tags, take=take))

    def _step(self, *what, take):
        return self.recorder.step(*what, take=take) if self.recorder else take()

    def _job(self, job):
        # The same definitions, with the resources of this test's home.
        here = dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=defs.jobs,
            resources=build_resources(self.settings),
        )
        return here.resolve_job_def(job)

    def _events(self, job, round_id, *, only=None, tags=None, raise_on_error=True):
        """Run a job and return its events and its run, which unlike its result can be pickled."""
        result = self._job(job).execute_in_process(
            instance=self.instance,
            partition_key=round_id,
            raise_on_error=raise_on_error,
            asset_selection=together(only) if only else None,
            tags=tags,
            run_config=QUIET,
        )
        return list(result.all_events), result.dagster_run

    def _result(self, job, events_and_run):
        return dg.ExecuteInProcessResult(*events_and_run, None, defined_job(job))

    def release(self, round_id, merged):
        """Release a merged round, unless its merge went on to the release."""
        if merged.asset_materializations_for_node("dataset_version"):
            return merged
        return self.run("release_round", round_id)

    def submit(self, round_id, what, *, seconds=5.0):
        """Submit every open assignment; ``what`` returns the result of an image and an annotator.

        Where it returns None, nothing is submitted. Each annotation takes this many ``seconds``.
        """
        for name in self.labeling.annotators():
            assignments = self.labeling.open_assignments(name)
            results = [
                (each.backend_task, what(each.image_id, name))
                for each in assignments
                if each.round_id == round_id
            ]
            given = [(task, result) for task, result in results if result is not None]
            submit = partial(self._submit, name, given, seconds)
            self._step("submit", name, given, seconds, take=submit)

    def _submit(self, name, given, seconds):
        for task, result in given:
            self.labeling.submit(task, name, result, seconds)

    def tick(self, sensor, cursor=None):
        if sensor is not new_images_sensor or not self.recorder:
            return self._tick(sensor, cursor)
        # Files are known by size and time: the same files in two homes must have the same time.
        for path in self.settings.landing_path.rglob("*"):
            if path.is_file() and not path.is_symlink():
                os.utime(path, LANDED)

        # This sensor depends on nothing but the home, the instance and the cursor.
        def take():
            result = self._tick(sensor, cursor)
            # Unlike its values, the result of a sensor cannot be pickled.
            return result if isinstance(result, dg.SkipReason) else values_of(result)

        taken = self._step("tick", sensor.name, cursor, take=take)
        return taken if isinstance(taken, dg.SkipReason) else dg.SensorResult(**taken)

    def _tick(self, sensor, cursor):
        resources = {
            "lake": self.lake,
            "landing_events": LandingEvents("", self.settings.landing_url),
            "policy": self.policy,
            "labeling": self.labeling,
            "poll_schedule": PollSchedule(
                ChangeSignals(self.settings.change_signals_path),
                self.settings.labeling_poll_seconds,
            ),
            "alerting": build_resources(self.settings)["alerting"],
        }
        wanted = {key: resources[key] for key in sensor.required_resource_keys}
        context = dg.build_sensor_context(instance=self.instance, resources=wanted, cursor=cursor)
        result = sensor(context)
        if isinstance(result, dg.SensorResult):
            for request in result.dynamic_partitions_requests or []:
                self.instance.add_dynamic_partitions("rounds", list(request.partition_keys))
        return result

    def decide(self, round_id):
        """Let an expert decide what the annotations of a merged round leave open."""
        session = SimulatedSession(self.labeling, EXPERT)
        truth = self.material.truth
        return self._step(
            "decide", round_id, take=lambda: review(round_id, session, truth, progress=lambda: None)
        )

    def merge(self, round_id):
        """Merge a round, and let an expert decide what that leaves open."""
        result = self.run("merge_round", round_id)
        self.decide(round_id)
        return result

    def annotate(self, round_id):
        sessions = {each.name: SimulatedSession(self.labeling, each.name) for each in self.people}
        truth = self.material.truth

        def take():
            return annotate_round(
                round_id, self.people, sessions, truth, seed=0, progress=lambda: None
            )

        return self._step("annotate", round_id, take=take)


def values_of(result):
    """Return what a sensor of rounds requested, as the arguments of its result."""
    names = ("run_requests", "skip_reason", "cursor", "dynamic_partitions_requests")
    return {name: getattr(result, name) for name in names}


def together(names):
    """These assets and those that their steps make too, as the Dagster UI takes them."""
    selection = dg.AssetSelection.assets(*names).required_multi_asset_neighbors()
    return list(selection.resolve(defs.resolve_asset_graph()))


@cache
def harbours(store=None):
    """Three batches of eight images: what most tests land, drawn once in a session or process."""
    return store.once("harbours", _drawn_harbours) if store else _drawn_harbours()


def _drawn_harbours():
    return drawn_material(3, 8, seed=0)


@cache
def defined_job(job):
    """A job without the resources of a home, to read results with."""
    return defs.resolve_job_def(job)


def prepare(material, home):
    """Make a home in which no image has landed yet, with its people, and return its settings."""
    options = DemoOptions(home=home, labeling="simulated", training_cpu_seconds=0.5, image_width=96)
    settings = prepare_home(material, options)
    # Rounds form at once, instead of a second after the last change of the landing zone.
    policy = settings.policy_path
    policy.write_text(policy.read_text().replace("settle_seconds: 1.0", "settle_seconds: 0.0"))
    labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    for name in (*(person.name for person in make_people(4, 0)), EXPERT):
        labeling.add_annotator(name)
    return settings


def packed(settings):
    """Pack the registry of a home: its files are copied with every home and looked at every step.

    Publishing sets the times of all loose objects of its source tree, which then count as changed.
    """
    for command in (("repack", "-adq"), ("prune-packed", "-q")):
        subprocess.run(["git", "-C", settings.registry_path, *command], check=True)
    return settings


def copy_home(store, material, home):
    """Copy a prepared home that this session made once, and return its settings and its key.

    The commits of a registry name the folder of its remote, so all copies share one remote. They
    add content-addressed files to it; a test that damages or empties it makes its own home.
    """
    key = digest_of("home", [sorted(batch) for batch in material.batches])
    original = store.folder / "homes" / key
    settings = store.once(key, lambda: packed(prepare(material, original)))
    shutil.copytree(original, home, symlinks=True)
    here = {name: _moved(value, original, home) for name, value in settings if name != "remote"}
    return settings.model_copy(update=here), key


def _moved(value, original, home):
    if not isinstance(value, str | Path):
        return value
    return type(value)(str(value).replace(str(original), str(home)))


@contextmanager
def open_platform(home, material=None, *, store=None, **places):
    """A platform in a home, of drawn harbours; ``places`` are settings, such as a lake in S3.

    With a ``store`` the home and the steps taken in it are copied where this session has them.
    """
    material = material or harbours(store)
    if store:
        settings, key = copy_home(store, material, home)
    else:
        settings = prepare(material, home).model_copy(update=places)
    labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    lake = lake_of(settings)
    with dg.DagsterInstance.ephemeral() as instance:
        people = make_people(4, 0)
        platform = Platform(settings, lake, labeling, instance, material, people)
        if store:
            # Each table that a test reads is a line in the access log.
            platform.recorder = StepRecorder(
                store, home, key, lambda: _databases(instance), ignored="audit/"
            )
        platform._step("grant", take=lambda: _grant(lake))
        yield platform


def _grant(lake):
    Skills(lake.store).set(EXPERT, REVIEWER, granted=True, now=datetime.now(UTC))


def _databases(instance):
    """Return the connections to what an instance in memory knows of runs and of events."""
    storages = (instance.run_storage, instance.event_log_storage)
    return [storage._held_conn.connection.driver_connection for storage in storages]


@pytest.fixture
def platform(tmp_path, request):
    """A platform of its own; steps are copied unless the test changes the product or its places."""
    changed = {"monkeypatch", "s3_bucket"} & set(request.fixturenames)
    store = None if changed else request.getfixturevalue("store")
    with open_platform(tmp_path / "home", store=store) as opened:
        yield opened
