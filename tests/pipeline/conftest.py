"""A round on real parts but without servers: real Parquet, git, DVC and a Dagster instance."""

from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache

import dagster as dg
import pytest
import yaml

from annotation_platform.definitions import defs
from annotation_platform.demo.annotators import EXPERT, make_people
from annotation_platform.demo.crowd import SimulatedSeat, answer_round, review
from annotation_platform.demo.material import drawn_material
from annotation_platform.demo.run import DemoOptions, prepare_home
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.hints import Hints, Looks
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.landing.events import LandingEvents
from annotation_platform.landing.lake import lake_of
from annotation_platform.params import read_params
from annotation_platform.provenance.state import read_state
from resources.deployments import build_resources
from sensors.landing import new_images_sensor


@dataclass
class Platform:
    """One home, one instance, and the hands that would be people and sensors."""

    settings: object
    lake: object
    labeling: SimulatedLabeling
    instance: dg.DagsterInstance
    material: object
    people: list

    @property
    def policy(self):
        return read_params(self.settings.params_path)

    def land(self, batch):
        for name, data in self.material.batches[batch - 1].items():
            self.lake.landing.put(f"batch-{batch}/{name}", data)

    def hurry(self):
        """Let rounds form at once, instead of a second after the last change."""
        policy = self.settings.params_path
        policy.write_text(policy.read_text().replace("settle_seconds: 1.0", "settle_seconds: 0.0"))

    def change_policy(self, **sections):
        """Change settings of sections of params.yaml."""
        path = self.settings.params_path
        policy = yaml.safe_load(path.read_text())
        for name, values in sections.items():
            policy[name] = {**policy.get(name, {}), **values}
        path.write_text(yaml.safe_dump(policy, sort_keys=False))

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
        # The same definitions, with the resources of this test's home.
        here = dg.Definitions(
            assets=defs.assets,
            asset_checks=defs.asset_checks,
            jobs=defs.jobs,
            resources=build_resources(self.settings),
        )
        return here.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            partition_key=round_id,
            raise_on_error=raise_on_error,
            asset_selection=together(only) if only else None,
            tags=tags,
        )

    def tick(self, sensor, cursor=None):
        resources = {
            "lake": self.lake,
            "landing_events": LandingEvents("", self.settings.landing_url),
            "policy": self.policy,
            "labeling": self.labeling,
            "looks": Looks(Hints(self.settings.hints_path), self.settings.labeling_poll_seconds),
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
        """Let an expert decide what the answers of a merged round leave open."""
        seat = SimulatedSeat(self.labeling, EXPERT)
        return review(round_id, seat, self.material.truth, progress=lambda: None)

    def merge(self, round_id):
        """Merge a round, and let an expert decide what that leaves open."""
        result = self.run("merge_round", round_id)
        self.decide(round_id)
        return result

    def answer(self, round_id):
        seats = {each.name: SimulatedSeat(self.labeling, each.name) for each in self.people}
        truth = self.material.truth
        return answer_round(round_id, self.people, seats, truth, seed=0, progress=lambda: None)


def together(names):
    """These assets and those that their steps make too, as the Dagster UI takes them."""
    selection = dg.AssetSelection.assets(*names).required_multi_asset_neighbors()
    return list(selection.resolve(defs.resolve_asset_graph()))


@cache
def harbours():
    """Two batches of eight pictures: what most tests land, drawn once."""
    return drawn_material(2, 8, seed=0)


@contextmanager
def open_platform(home, material=None, **places):
    """A platform in a home, of drawn harbours; ``places`` are settings, such as a lake in S3."""
    material = material or harbours()
    options = DemoOptions(home=home, labeling="simulated", training_cpu_seconds=2, image_width=96)
    settings = prepare_home(material, options).model_copy(update=places)
    labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
    people = make_people(4, 0)
    for name in (*(person.name for person in people), EXPERT):
        labeling.add_annotator(name)
    lake = lake_of(settings)
    Skills(lake.store).set(EXPERT, REVIEWER, granted=True, now=datetime.now(UTC))
    with dg.DagsterInstance.ephemeral() as instance:
        yield Platform(settings, lake, labeling, instance, material, people)


@pytest.fixture
def platform(tmp_path):
    with open_platform(tmp_path / "home") as opened:
        yield opened
