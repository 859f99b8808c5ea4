"""The whole job, end to end, with nothing commanded: images land, the sensors do the rest."""

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np

from annotation_platform.consensus.agreement import pooled_f1
from annotation_platform.consensus.anchoring import crowd_anchoring, pre_annotation_decisions
from annotation_platform.demo.annotators import EXPERT, SimulatedPerson, make_people
from annotation_platform.demo.crowd import (
    LabelStudioSeat,
    Seat,
    SimulatedSeat,
    annotation_round,
    review,
)
from annotation_platform.demo.material import Material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.saving import measure_saving
from annotation_platform.errors import NotReadyError, SettingsError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.lake import LandingLake, lake_of
from annotation_platform.labeling.backends.label_studio.people import add_person
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.ledger import AnnotationsLedger
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.labeling.tasks import shown_predictions
from annotation_platform.policy import (
    LabelingPolicy,
    Policy,
    ReviewPolicy,
    RoundPolicy,
    TrainingPolicy,
)
from annotation_platform.schema.shapes import UPRIGHT_BOXES
from annotation_platform.schema.tables import (
    AnnotatorQuality,
    ConsensusLabels,
    DatasetVersions,
    HumanLabels,
    LabelTasks,
    ModelPredictions,
    ReviewedLabels,
    ReviewTasks,
    RoundReports,
    Table,
)
from annotation_platform.servers.dagster import DagsterServers
from annotation_platform.servers.front_page import front_page
from annotation_platform.servers.home import locked_home
from annotation_platform.servers.label_studio import LabelStudioServer
from annotation_platform.settings import PROJECT_ROOT, Settings
from annotation_platform.versioning.registry import make_registry

_MARK = "demo.json"
_STAGE_SECONDS = 900.0
_LOOK_SECONDS = 0.5
_THREADS = 2


@dataclass(frozen=True)
class DemoOptions:
    """What can be chosen about a demonstration."""

    home: Path
    annotators: int = 4
    annotations_per_task: int = 3
    seed: int = 0
    labeling: Literal["label-studio", "simulated"] = "label-studio"
    training_cpu_seconds: float = 180.0
    image_width: int = 320


@dataclass(frozen=True)
class DemoResult:
    """What came out: where the versions are, a row of figures for every round, the servers."""

    registry: Path
    remote: Path
    dagster_url: str
    rounds: list[dict[str, Any]]


def run_demo(
    material: Material,
    options: DemoOptions,
    narrator: Narrator,
    *,
    finished: Callable[[DemoResult], None] = lambda _: None,
) -> DemoResult:
    """Boot the servers, let every batch land, and return once the last round has its model.

    ``finished`` is called with the result while the servers are still up; they end when it
    returns.

    Raises:
        SettingsError: the home cannot be used, or a server does not start.
        NotReadyError: a round stopped moving.
    """
    with ExitStack() as stack:
        stack.enter_context(locked_home(options.home.expanduser().absolute()))
        settings = prepare_home(material, options)
        people = make_people(options.annotators, options.seed)
        lake = lake_of(settings)
        names = [*(person.name for person in people), EXPERT]
        Skills(lake.store).set(EXPERT, REVIEWER, granted=True, now=datetime.now(UTC))
        seats, settings, secrets = _open_labeling(settings, names, stack, narrator)
        narrator.stage("Dagster is starting")
        page = stack.enter_context(front_page(settings))
        settings = settings.model_copy(update={"pages_url": page.url})
        dagster = stack.enter_context(DagsterServers(settings, secrets=secrets))
        page.links |= {"Dagster": dagster.url}
        narrator.say(f"watch the rounds    {page.url}")
        narrator.say(f"watch the assets    {dagster.url}")
        rows = []
        for number, files in enumerate(material.batches, start=1):
            turn = _Turn(number, lake, dagster, narrator)
            rows.append(turn.run(files, people, seats, material, options))
        result = DemoResult(settings.registry_path, Path(settings.remote_url), dagster.url, rows)
        finished(result)
    return result


def prepare_home(material: Material, options: DemoOptions) -> Settings:
    """Make the home of a demonstration, anew if one was there before, and return its settings.

    Raises:
        SettingsError: the folder cannot be written, or holds something else than a demonstration.
    """
    home = options.home.expanduser().absolute()
    foreign = home.exists() and (not home.is_dir() or any(home.iterdir()))
    if foreign and not (home / _MARK).is_file():
        raise SettingsError(
            f"{home}: is not empty and no demonstration of ours. Choose another folder with --home."
        )
    policy = _policy(material, options)
    try:
        if (home / _MARK).is_file():
            # Moved first: half of a home, without its mark, would be taken for somebody's own.
            old = home.with_name(f".{home.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            home.rename(old)
            shutil.rmtree(old)
        (home / "landing").mkdir(parents=True)
        (home / _MARK).write_text(json.dumps({"seed": options.seed}) + "\n")
        (home / "params.yaml").write_text(policy.to_yaml())
    except OSError as error:
        raise SettingsError(
            f"{home}: cannot be written ({error.strerror}). Choose another folder with --home."
        ) from error
    make_registry(
        home / "registry", PROJECT_ROOT, policy.to_yaml(), remote_url=str(home / "remote")
    )
    return Settings(
        home=home,
        params=home / "params.yaml",
        landing=str(home / "landing"),
        lake=str(home / "lake"),
        registry=str(home / "registry"),
        remote=str(home / "remote"),
        labeling=options.labeling,
    )


def _policy(material: Material, options: DemoOptions) -> Policy:
    smallest = min(len(files) for files in material.batches)
    largest = max(len(files) for files in material.batches)
    return Policy(
        ontology=material.truth.ontology,
        seed=options.seed,
        rounds=RoundPolicy(
            minimum_images=smallest, maximum_images=max(largest, 1000), settle_seconds=1.0
        ),
        labeling=LabelingPolicy(annotations_per_task=options.annotations_per_task),
        review=ReviewPolicy(gate="manual"),
        training=TrainingPolicy(
            cpu_seconds=options.training_cpu_seconds,
            threads=min(_THREADS, os.cpu_count() or 1),
            image_width=options.image_width,
        ),
    )


def _open_labeling(
    settings: Settings, names: list[str], stack: ExitStack, narrator: Narrator
) -> tuple[Mapping[str, Seat], Settings, dict[str, str]]:
    """Return a seat for every person, the settings with the back end's address, and its token."""
    if settings.labeling == "simulated":
        labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
        for name in names:
            labeling.add_annotator(name)
        return {name: SimulatedSeat(labeling, name) for name in names}, settings, {}
    narrator.stage("Label Studio is starting; its first boot prepares a database, about a minute")
    server = stack.enter_context(
        LabelStudioServer(
            settings.home_path / "label-studio",
            document_root=settings.lake_path,
            secrets_path=settings.secrets_path,
            on_progress=lambda _: narrator.breathe(),
        )
    )
    admin = server.administrator
    seats: dict[str, Seat] = {}
    narrator.stage("annotators sign up", total=len(names))
    for name in names:
        account = add_person(server.url, admin.token, name)
        seats[name] = LabelStudioSeat(server.url, account.token, name)
        narrator.step()
    narrator.say(f"watch the labelling {server.url}   (log in: {settings.secrets_path})")
    settings = settings.model_copy(update={"label_studio_url": server.url})
    return seats, settings, {"ANNOTATION_LABEL_STUDIO_TOKEN": admin.token}


@dataclass(frozen=True)
class _Turn:
    """One batch on its way from the landing folder to a model."""

    number: int
    lake: LandingLake
    dagster: DagsterServers
    narrator: Narrator

    def run(
        self,
        files: Mapping[str, bytes],
        people: list[SimulatedPerson],
        seats: Mapping[str, Seat],
        material: Material,
        options: DemoOptions,
    ) -> dict[str, Any]:
        """Land the files, answer what is asked, and return the figures of the round."""
        self._land(files)
        self._wait(f"{len(files)} images landed; waiting for the round", self._round_exists)
        round_id = self.lake.manifests.rounds()[self.number - 1]
        self._wait(f"{round_id}: cleaning, proposing, asking", self._has(round_id, LabelTasks))
        places = len(self.lake.tables.read(LabelTasks, round_id))
        self.narrator.stage(f"{round_id}: people answer", total=places)
        annotation_round(
            round_id,
            people,
            seats,
            material.truth,
            seed=options.seed,
            progress=self.narrator.step,
        )
        self._wait(f"{round_id}: merging the answers", self._has(round_id, ConsensusLabels))
        self._wait(f"{round_id}: asking what is open", self._has(round_id, ReviewTasks))
        disputed = self.lake.tables.read(ReviewTasks, round_id)
        self.narrator.stage(f"{round_id}: an expert decides", total=len(disputed))
        if len(disputed):
            review(round_id, seats[EXPERT], material.truth, progress=self.narrator.step)
        self._wait(f"{round_id}: publishing a version", self._has(round_id, DatasetVersions))
        self._wait(f"{round_id}: training the model", self._has(round_id, RoundReports))
        row = self._figures(round_id, material) | self._spared(round_id, people, material, options)
        self.narrator.say(
            f"[bold]{round_id}[/bold] {row['accepted']} images, {row['answers']} answers in "
            f"{row['minutes']:.0f} minutes ({row['minutes_without']:.0f} without proposals), "
            f"consensus F1 {row['consensus_f1']:.3f}, model mAP@0.5 {row['model_map50']:.3f} "
            f"on {row['test_images']} test images → version {row['version']}"
        )
        return row

    def _land(self, files: Mapping[str, bytes]) -> None:
        for name, data in files.items():
            self.lake.landing.put(f"batch-{self.number}/{name}", data)

    def _round_exists(self) -> bool:
        return len(self.lake.manifests.rounds()) >= self.number

    def _has(self, round_id: str, table: type[Table]) -> Callable[[], bool]:
        return lambda: self.lake.tables.exists(table, round_id)

    def _wait(self, stage: str, done: Callable[[], bool]) -> None:
        self.narrator.stage(stage)
        begun = time.monotonic()
        while not done():
            self.dagster.check()
            self.narrator.breathe()
            if time.monotonic() - begun > _STAGE_SECONDS:
                raise NotReadyError(
                    f"{stage}: nothing happened for {_STAGE_SECONDS:.0f} s. The runs at "
                    f"{self.dagster.url} and the logs in {self.dagster.folder} say why."
                )
            time.sleep(_LOOK_SECONDS)

    def _figures(self, round_id: str, material: Material) -> dict[str, Any]:
        report = self.lake.tables.read(RoundReports, round_id).to_dict("records")[0]
        labels = self.lake.tables.read(ReviewedLabels, round_id)
        truth = material.truth.labels
        asked = truth[truth["image_id"].isin(set(labels["image_id"]))]
        found = labels[labels["shape"].isin(UPRIGHT_BOXES)]
        figures = {"round": round_id, "consensus_f1": pooled_f1(found, asked)}
        names = (
            "landed", "accepted", "quarantined", "duplicates", "tasks", "annotations", "agreement",
            "model_map50", "test_images", "version",
        )  # fmt: skip
        return {**figures, **{name: report[name] for name in names}}

    def _spared(
        self,
        round_id: str,
        people: list[SimulatedPerson],
        material: Material,
        options: DemoOptions,
    ) -> dict[str, Any]:
        """Return what proposals did: to people's time, to the labels, and to what people say."""
        tables = self.lake.tables
        policy = _policy(material, options)
        saving = measure_saving(
            tables.read(HumanLabels, round_id),
            {
                AnnotationsLedger(self.lake.store).pseudonym(person.name): person
                for person in people
            },
            material.truth,
            images=accepted_images(self.lake.tables),
            quality=tables.read(AnnotatorQuality, round_id),
            iou_threshold=policy.consensus.iou_threshold,
            seed=options.seed,
        )
        proposed = tables.read_all(ModelPredictions)
        least = policy.labeling.minimum_score
        shown = shown_predictions(proposed, policy.ontology, minimum_score=least)
        said = tables.read_all(HumanLabels)
        # At half an overlap, whoever finds a sound proposal good enough does not count as anchored.
        anchoring = crowd_anchoring(pre_annotation_decisions(said, shown, agreement_iou=0.5))
        return {
            "minutes": saving.seconds / 60,
            "minutes_without": saving.seconds_without / 60,
            "spared": saving.share,
            "spared_beside_proposals": saving.share_beside,
            "f1_before_review": saving.f1,
            "f1_without": saving.f1_without,
            "anchoring_set": float(np.mean([person.anchoring for person in people])),
            "anchoring": anchoring.anchoring,
            "anchoring_low": anchoring.low,
            "anchoring_high": anchoring.high,
        }
