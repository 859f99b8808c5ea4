"""The whole flow from landing to training without a command: the sensors start every job."""

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
    AnnotatorSession,
    LabelStudioSession,
    SimulatedSession,
    annotate_round,
    review,
)
from annotation_platform.demo.material import Material
from annotation_platform.demo.narrator import Narrator
from annotation_platform.demo.saving import measure_saving
from annotation_platform.errors import NotReadyError, SettingsError
from annotation_platform.images.accepted import accepted_images
from annotation_platform.ingestion.lake import LandingLake, lake_of
from annotation_platform.labeling.backends.label_studio.people import add_person
from annotation_platform.labeling.backends.label_studio.running import TOKEN_VARIABLE
from annotation_platform.labeling.backends.simulated import SimulatedLabeling
from annotation_platform.labeling.skills import REVIEWER, Skills
from annotation_platform.models.shown_predictions import shown_predictions
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
from annotation_platform.storage.pseudonyms import pseudonym_of
from annotation_platform.versioning.registry import make_registry

_MARK = "demo.json"
_STAGE_SECONDS = 900.0
_POLL_SECONDS = 0.25
# Between two looks at the progress that a run has logged.
_LOOK_SECONDS = 5.0
_THREADS = 2


@dataclass(frozen=True)
class DemoOptions:
    """Options of a demonstration."""

    home: Path
    annotators: int = 4
    annotations_per_task: int = 3
    seed: int = 0
    labeling: Literal["label-studio", "simulated"] = "label-studio"
    training_cpu_seconds: float = 60.0
    image_width: int = 320


@dataclass(frozen=True)
class DemoResult:
    """Registry and remote of the versions, Dagster's address, a row of figures per round."""

    registry: Path
    remote: Path
    dagster_url: str
    rounds: list[dict[str, Any]]


def run_demo(
    make_material: Callable[[], Material],
    options: DemoOptions,
    narrator: Narrator,
    *,
    finished: Callable[[DemoResult], None] = lambda _: None,
) -> DemoResult:
    """Boot the servers, land every batch, and return once the last round has its model.

    Label Studio boots while the material is made and Dagster starts.

    Args:
        make_material: returns the images; called once, after the start of Label Studio.
        options: of the demonstration.
        narrator: shows the progress.
        finished: called with the result while the servers still run; they stop when it returns.

    Raises:
        SettingsError: the home cannot be used, or a server does not start.
        NotReadyError: a stage of a round makes no progress for 15 minutes.
    """
    with ExitStack() as stack:
        stack.enter_context(locked_home(options.home.expanduser().absolute()))
        settings, secrets = _empty_home(options), {}
        server = _label_studio(settings, narrator)
        if server is not None:
            stack.callback(server.stop)
            server.launch()
            settings = settings.model_copy(update={"label_studio_url": server.url})
            secrets = {TOKEN_VARIABLE: server.administrator.token}
        material = make_material()
        _fill_home(settings, material, options)
        people = make_people(options.annotators, options.seed)
        lake = lake_of(settings)
        names = [*(person.name for person in people), EXPERT]
        Skills(lake.store).set(EXPERT, REVIEWER, granted=True, now=datetime.now(UTC))
        page = stack.enter_context(front_page(settings))
        settings = settings.model_copy(update={"pages_url": page.url})
        narrator.stage("Dagster is starting")
        dagster = DagsterServers(settings, secrets=secrets)
        stack.callback(dagster.stop)
        dagster.launch()
        sessions = _open_labeling(settings, server, names, narrator)
        narrator.stage("Dagster is loading its definitions")
        dagster.start()
        page.links |= {"Dagster": dagster.url}
        narrator.say(f"rounds              {page.url}")
        narrator.say(f"assets              {dagster.url}")
        rows = []
        for number, files in enumerate(material.batches, start=1):
            batch = _BatchRun(number, lake, dagster, narrator)
            rows.append(batch.run(files, people, sessions, material, options))
        result = DemoResult(settings.registry_path, Path(settings.remote_url), dagster.url, rows)
        finished(result)
    return result


def prepare_home(material: Material, options: DemoOptions) -> Settings:
    """Create the home of a demonstration, replace an earlier one, and return its settings.

    Raises:
        SettingsError: the folder cannot be written, or holds files that are no demonstration.
    """
    settings = _empty_home(options)
    _fill_home(settings, material, options)
    return settings


def _fill_home(settings: Settings, material: Material, options: DemoOptions) -> None:
    """Write the policy for the material, and make the registry of its versions."""
    policy = _policy(material, options).to_yaml()
    settings.policy_path.write_text(policy)
    make_registry(settings.registry_path, PROJECT_ROOT, policy, remote_url=settings.remote_url)


def _empty_home(options: DemoOptions) -> Settings:
    home = options.home.expanduser().absolute()
    is_used = home.exists() and (not home.is_dir() or any(home.iterdir()))
    if is_used and not (home / _MARK).is_file():
        raise SettingsError(
            f"{home}: the folder is not empty and holds no demonstration. Choose another one with "
            "--home."
        )
    try:
        if (home / _MARK).is_file():
            # Renamed before it is deleted: a partly deleted home without its mark would be refused.
            old = home.with_name(f".{home.name}-old")
            shutil.rmtree(old, ignore_errors=True)
            home.rename(old)
            shutil.rmtree(old)
        (home / "landing").mkdir(parents=True)
        (home / _MARK).write_text(json.dumps({"seed": options.seed}) + "\n")
    except OSError as error:
        raise SettingsError(
            f"{home}: cannot be written ({error.strerror}). Choose another folder with --home."
        ) from error
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
            limit_minutes=max(1.0, options.training_cpu_seconds / 30.0),
            threads=min(_THREADS, os.cpu_count() or 1),
            image_width=options.image_width,
        ),
    )


def _label_studio(settings: Settings, narrator: Narrator) -> LabelStudioServer | None:
    """Return the server of the demonstration, not started; None if labelling is simulated."""
    if settings.labeling == "simulated":
        return None
    narrator.stage("Label Studio is starting; its first boot creates a database, about a minute")
    return LabelStudioServer(
        settings.home_path / "label-studio",
        document_root=settings.lake_path,
        secrets_path=settings.secrets_path,
        on_progress=lambda _: narrator.breathe(),
    )


def _open_labeling(
    settings: Settings,
    server: LabelStudioServer | None,
    names: list[str],
    narrator: Narrator,
) -> Mapping[str, AnnotatorSession]:
    """Return each annotator's access to the back end, once it is up."""
    if server is None:
        labeling = SimulatedLabeling(settings.home_path / "simulated-labeling.sqlite")
        for name in names:
            labeling.add_annotator(name)
        return {name: SimulatedSession(labeling, name) for name in names}
    narrator.stage("Label Studio is creating its database")
    token = server.start().administrator.token
    sessions: dict[str, AnnotatorSession] = {}
    narrator.stage("annotators sign up", total=len(names))
    for name in names:
        account = add_person(server.url, token, name)
        sessions[name] = LabelStudioSession(server.url, account.token, name)
        narrator.step()
    narrator.say(f"labelling           {server.url}   (log in: {settings.secrets_path})")
    return sessions


@dataclass(frozen=True)
class _BatchRun:
    """One batch, from the landing folder to a model."""

    number: int
    lake: LandingLake
    dagster: DagsterServers
    narrator: Narrator

    def run(
        self,
        files: Mapping[str, bytes],
        people: list[SimulatedPerson],
        sessions: Mapping[str, AnnotatorSession],
        material: Material,
        options: DemoOptions,
    ) -> dict[str, Any]:
        """Land the files, submit every annotation, and return the figures of the round."""
        self._land(files)
        self._wait(f"{len(files)} images landed; waiting for the round", self._round_exists)
        round_id = self.lake.manifests.rounds()[self.number - 1]
        self._wait(f"{round_id}: cleaning, predicting, selecting", self._has(round_id, LabelTasks))
        assignments = len(self.lake.tables.read(LabelTasks, round_id))
        self.narrator.stage(f"{round_id}: annotators work", total=assignments)
        annotate_round(
            round_id,
            people,
            sessions,
            material.truth,
            seed=options.seed,
            progress=self.narrator.step,
        )
        self._wait(f"{round_id}: merging annotations", self._has(round_id, ConsensusLabels))
        self._wait(f"{round_id}: requesting reviews", self._has(round_id, ReviewTasks))
        disputed = self.lake.tables.read(ReviewTasks, round_id)
        self.narrator.stage(f"{round_id}: an expert reviews", total=len(disputed))
        if len(disputed):
            review(round_id, sessions[EXPERT], material.truth, progress=self.narrator.step)
        self._wait(f"{round_id}: publishing a version", self._has(round_id, DatasetVersions))
        self._wait(f"{round_id}: training the model", self._has(round_id, RoundReports))
        row = self._figures(round_id, material) | self._effect_of_predictions(
            round_id, people, material, options
        )
        self.narrator.say(
            f"[bold]{round_id}[/bold] {row['accepted']} images, {row['annotations']} annotations "
            f"in {row['minutes']:.0f} minutes ({row['minutes_without']:.0f} without predictions), "
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
        begun = looked_at = time.monotonic()
        while not done():
            self.dagster.check()
            self.narrator.breathe()
            if time.monotonic() - looked_at > _LOOK_SECONDS:
                looked_at = time.monotonic()
                self.narrator.detail(self.dagster.run_progress())
            if time.monotonic() - begun > _STAGE_SECONDS:
                raise NotReadyError(
                    f"{stage}: no progress for {_STAGE_SECONDS:.0f} s. See the runs at "
                    f"{self.dagster.url} and the logs in {self.dagster.folder}."
                )
            time.sleep(_POLL_SECONDS)

    def _figures(self, round_id: str, material: Material) -> dict[str, Any]:
        report = self.lake.tables.read(RoundReports, round_id).to_dict("records")[0]
        labels = self.lake.tables.read(ReviewedLabels, round_id)
        truth = material.truth.labels
        labelled_truth = truth[truth["image_id"].isin(set(labels[ReviewedLabels.image_id]))]
        boxes = labels[labels[ReviewedLabels.shape].isin(UPRIGHT_BOXES)]
        figures = {"round": round_id, "consensus_f1": pooled_f1(boxes, labelled_truth)}
        names = (
            "landed", "accepted", "quarantined", "duplicates", "tasks", "annotations", "agreement",
            "model_map50", "test_images", "version",
        )  # fmt: skip
        return {**figures, **{name: report[name] for name in names}}

    def _effect_of_predictions(
        self,
        round_id: str,
        people: list[SimulatedPerson],
        material: Material,
        options: DemoOptions,
    ) -> dict[str, Any]:
        """Return the effect of pre-annotations on annotators' time, on labels and on anchoring."""
        tables = self.lake.tables
        policy = _policy(material, options)
        saving = measure_saving(
            tables.read(HumanLabels, round_id),
            {pseudonym_of(self.lake.store, person.name): person for person in people},
            material.truth,
            images=accepted_images(self.lake.tables),
            quality=tables.read(AnnotatorQuality, round_id),
            iou_threshold=policy.consensus.iou_threshold,
            seed=options.seed,
        )
        predictions = tables.read_all(ModelPredictions)
        minimum_score = policy.labeling.minimum_score
        shown = shown_predictions(predictions, policy.ontology, minimum_score=minimum_score)
        labels = tables.read_all(HumanLabels)
        # At IoU 0.5, an annotator who accepts a correct pre-annotation does not count as anchored.
        anchoring = crowd_anchoring(pre_annotation_decisions(labels, shown, agreement_iou=0.5))
        return {
            "minutes": saving.seconds / 60,
            "minutes_without": saving.seconds_without / 60,
            "spared": saving.share,
            "spared_with_predictions": saving.share_shown,
            "f1_before_review": saving.f1,
            "f1_without": saving.f1_without,
            "anchoring_set": float(np.mean([person.anchoring for person in people])),
            "anchoring": anchoring.anchoring,
            "anchoring_low": anchoring.low,
            "anchoring_high": anchoring.high,
        }
