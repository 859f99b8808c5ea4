"""Planted defects: each must make a test fail. See tests/mutations.md.

Run ``python tests/mutations.py``. For each defect, the runner copies the checkout into a temporary
folder, replaces the old lines by the new ones in the copy, and runs the named tests there. It
prints which defects the tests caught. The checkout itself is never changed.

Exit codes: 0 if every defect is caught, 1 if one survives, 2 if one cannot be planted or tested.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Defect:
    """One defect. Its number is its position in ``DEFECTS``, from 1.

    Attributes:
        about: the defect, in a phrase.
        file: the product file, relative to the root of the checkout.
        old: whole lines that occur exactly once in the file; their indentation does not count.
        new: the lines that take their place, indented relative to the first.
        tests: the test files, or single tests of slow files, one of which must catch it.
    """

    about: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


DEFECTS = [
    # Consensus
    Defect(
        "A tie between classes is decided for one of them.",
        "annotation_platform/consensus/majority.py",
        "alone = np.flatnonzero(leading & (votes.sum_in_task(leading) == 1)[votes.cell_task])",
        "alone = np.flatnonzero(leading)",
        ("tests/core/consensus/test_majority.py",),
    ),
    Defect(
        "The precision of annotators does not weigh their boxes when they are fused.",
        "annotation_platform/schema/shapes/numbers.py",
        "share = np.asarray(weights)[:, None] * near",
        "share = np.ones((len(weights), 1)) * near",
        ("tests/core/consensus/test_fusion.py",),
    ),
    Defect(
        "Two boxes whose IoU equals the threshold are different objects.",
        "annotation_platform/consensus/matching.py",
        "worth = np.where(overlap >= threshold, overlap, 0.0)",
        "worth = np.where(overlap > threshold, overlap, 0.0)",
        ("tests/core/consensus/test_consensus.py",),
    ),
    # Splits
    Defect(
        "Images of one duplicate group are drawn into splits one by one.",
        "annotation_platform/curation/splits.py",
        'found = [row["group_id"], *filter(None, (row["joins"] or "").split(","))]',
        'found = [*filter(None, (row["joins"] or "").split(","))]',
        ("tests/core/curation/test_splits.py",),
    ),
    Defect(
        "Splits are drawn again in every round, so images leave the test split.",
        "annotation_platform/curation/training_set.py",
        "known = tables.read_all(Splits)",
        "known = tables.read_rounds(Splits, [round_id])",
        ("tests/core/curation/test_training_set.py",),
    ),
    # Annotations
    Defect(
        "A second annotation by the same annotator fills another assignment of a task.",
        "annotation_platform/labeling/counting.py",
        "if filled and is_free and is_new and may_hold(revision):",
        "if filled and is_free and may_hold(revision):",
        ("tests/core/labeling/test_ledger.py",),
    ),
    Defect(
        "Annotations that arrive after a round was closed are counted.",
        "annotation_platform/labeling/round_annotations.py",
        'entries = last.entries if last is not None and last.action == "closed" else None',
        "entries = None",
        (
            "tests/pipeline/test_labeling_rounds.py::test_a_closed_round_releases_what_is_annotated_and_asks_the_rest_later",
        ),
    ),
    Defect(
        "Every task asks for k + 1 annotations.",
        "annotation_platform/labeling/asking.py",
        "annotations = labeling.first_annotations(classes)",
        "annotations = labeling.first_annotations(classes) + 1",
        ("tests/pipeline/test_rounds.py::test_two_rounds_from_landing_to_a_model_that_proposes",),
    ),
    Defect(
        "An annotator is asked about the same image twice.",
        "annotation_platform/labeling/assignment_plan.py",
        "free = [name for name in names if name in able and name not in busy[task.image_id]]",
        "free = [name for name in names if name in able]",
        ("tests/core/labeling/test_assignment_plan.py",),
    ),
    # Ingestion, cleaning, masking
    Defect(
        "The EXIF orientation of a plain image is not applied.",
        "annotation_platform/images/probing.py",
        "if is_plain and image.orientation == 1:",
        "if is_plain:",
        ("tests/core/images/test_cleaning.py",),
    ),
    Defect(
        "Hashes at exactly the duplicate threshold are not near-duplicates.",
        "annotation_platform/images/near_duplicates.py",
        "hits = (distances <= bits).nonzero()[0]",
        "hits = (distances < bits).nonzero()[0]",
        ("tests/core/images/test_near_duplicates.py",),
    ),
    Defect(
        "The last column and row of a masked region stay visible.",
        "annotation_platform/images/masking.py",
        "right, bottom = min(width, int(np.ceil(x2))), min(height, int(np.ceil(y2)))",
        "right, bottom = min(width, int(np.floor(x2))), min(height, int(np.floor(y2)))",
        ("tests/core/images/test_masking.py",),
    ),
    Defect(
        "Reconciliation accepts an arrival with two outcomes.",
        "annotation_platform/curation/gates.py",
        "if found != len(named) or has_gap:",
        "if found < len(named) or has_gap:",
        ("tests/core/curation/test_reconciliation.py",),
    ),
    Defect(
        "A round takes files that are still being written: the settle time is ignored.",
        "annotation_platform/ingestion/rounds.py",
        "stable = [item for item in ready if ages[item] >= policy.settle_seconds]",
        "stable = ready",
        ("tests/core/ingestion/test_rounds.py",),
    ),
    # Formats
    Defect(
        "COCO boxes are written with corners instead of width and height.",
        "annotation_platform/formats/coco.py",
        "sides = np.round(np.stack([x1, y1, x2 - x1, y2 - y1]), DECIMALS) + 0.0",
        "sides = np.round(np.stack([x1, y1, x2, y2]), DECIMALS) + 0.0",
        ("tests/core/formats/test_coco.py",),
    ),
    Defect(
        "YOLO's right and bottom edges are divided by the wrong side of the image.",
        "annotation_platform/formats/yolo.py",
        "right_bottom = fractions_of(edges[:, 2:], objects.sides)",
        "right_bottom = fractions_of(edges[:, 2:], objects.sides[:, ::-1])",
        ("tests/core/formats/test_yolo.py",),
    ),
    Defect(
        "Pascal VOC's right and bottom edges are read one pixel too small.",
        "annotation_platform/formats/voc_reading.py",
        "edges[:2] = [round(edge - 1, 9) for edge in edges[:2]]",
        "edges = [round(edge - 1, 9) for edge in edges]",
        ("tests/core/formats/test_voc.py",),
    ),
    # Versions
    Defect(
        "The folder object is uploaded before the files that it names.",
        "annotation_platform/versioning/objects.py",
        "files = {name: folder.source(name) for name in missing if name != folder.md5}\n"
        "remote.upload(files)",
        "files = {name: folder.source(name) for name in missing if name != folder.md5}\n"
        "if folder.md5 in missing:\n"
        "    remote.upload({folder.md5: folder.source(folder.md5)})\n"
        "remote.upload(files)",
        (
            "tests/system/test_versions.py::"
            "test_a_changed_file_of_the_lake_is_refused_by_name_and_nothing_is_published",
        ),
    ),
    Defect(
        "The manifest of a version lacks the digest of the policy.",
        "annotation_platform/versioning/publisher.py",
        "rounds=inputs.rounds,\npolicy_digest=inputs.policy_digest,",
        'rounds=inputs.rounds,\npolicy_digest="",',
        (
            "tests/system/test_versions.py::"
            "test_a_version_names_its_code_and_what_in_it_was_not_committed",
        ),
    ),
    Defect(
        "verify reports missing files and passes over damaged ones.",
        "annotation_platform/versioning/verify.py",
        "byte_size += found.byte_size\nif found.problem:",
        'byte_size += found.byte_size\nif found.problem == "missing":',
        ("tests/system/test_verify.py",),
    ),
    Defect(
        "Erasure leaves the copy in DVC's cache.",
        "annotation_platform/governance/erasure/steps.py",
        "cached.unlink(missing_ok=True)",
        "progress(done, len(doomed) + len(cached.parts) * 0)",
        (
            "tests/pipeline/test_erase.py::test_an_image_goes_from_everywhere_and_versions_stay_whole",
        ),
    ),
    Defect(
        "gc removes objects although it is a dry run.",
        "annotation_platform/cli/version/integrity.py",
        "dry_run=not yes,\nothers=OtherRegistries(",
        "dry_run=False,\nothers=OtherRegistries(",
        ("tests/system/test_verify.py::test_the_commands_say_so_in_json_and_by_their_exit",),
    ),
    # Audit log and storage
    Defect(
        "A line of the audit log may follow on another line than the one before it.",
        "annotation_platform/storage/chain.py",
        "if ChainLink(this.number - 1, this.previous) != self._last:",
        "if this.number - 1 != self._last.number:",
        ("tests/core/storage/test_chain.py",),
    ),
    Defect(
        "A reader can see half of an object while it is replaced: put is not atomic.",
        "annotation_platform/storage/files.py",
        "unfinished.replace(path)",
        "path.write_bytes(data)\nunfinished.unlink()",
        ("tests/core/storage/test_objects.py",),
    ),
    # Selection
    Defect(
        "An image on the exclude list is selected.",
        "annotation_platform/selection/batch.py",
        "state = SelectionState(candidates, np.array(out, dtype=np.int64))",
        "state = SelectionState(candidates, np.array([], dtype=np.int64))",
        ("tests/core/selection/test_overrides.py",),
    ),
    Defect(
        "Images on the include list come on top of the budget.",
        "annotation_platform/selection/batch.py",
        "left = len(population) if whole else max(0, policy.budget - len(state.picks))",
        "left = len(population) if whole else policy.budget",
        ("tests/core/selection/test_batch.py", "tests/core/selection/test_overrides.py"),
    ),
    # Models
    Defect(
        "A model that is worse by more than the margin is promoted.",
        "annotation_platform/models/evaluation/promotion.py",
        "worse = comparisons[name].map.value < -margin",
        "worse = False",
        ("tests/core/models/test_evaluation_promotion.py",),
    ),
    Defect(
        "Predictions carry the raw score: the calibration is ignored.",
        "annotation_platform/models/predictions.py",
        'score=calibration.apply(boxes["class_name"].tolist(), raw),',
        "score=raw,",
        ("tests/core/models/test_predictions.py",),
    ),
    Defect(
        "Labels are accepted without a certificate.",
        "annotation_platform/curation/auto_accept.py",
        "if reason or certified.stage is None or certified.threshold is None:",
        "if certified.stage is None or certified.threshold is None:",
        ("tests/core/curation/test_auto_accept.py",),
    ),
    # Sensors
    Defect(
        "The key of a run lacks the number of the attempt, so a failed run is never retried.",
        "sensors/attempts.py",
        'run_key=f"{job_name}:{tag}:{attempt}",',
        'run_key=f"{job_name}:{tag}",',
        ("tests/pipeline/test_sensors.py",),
    ),
    Defect(
        "Training runs on the partition of the oldest version instead of the newest.",
        "sensors/releases.py",
        "_, newest, commit = max(releases)",
        "_, newest, commit = min(releases)",
        ("tests/pipeline/test_sensors.py",),
    ),
    # The wiring of assets and checks
    Defect(
        "Reviewers are shown images without masks.",
        "annotation_platform/pipeline/review.py",
        "images=shown_images(context, models),",
        "images=shown_images(\n"
        '    __import__("dataclasses").replace(\n'
        "        context,\n"
        "        policy=context.policy.model_copy(update={\n"
        '            "masking": context.policy.masking.model_copy(update={"classes": []})\n'
        "        }),\n"
        "    ),\n"
        "    models,\n"
        "),",
        (
            "tests/pipeline/test_masking.py::test_a_round_with_masks_shows_copies_and_proposes_nothing_that_is_masked",
        ),
    ),
    Defect(
        "Training ignores missed_by_model.",
        "annotation_platform/pipeline/train.py",
        "weights=image_weights(missed),",
        "weights=image_weights(missed.iloc[:0]),",
        ("tests/pipeline/test_learning_loop.py",),
    ),
    Defect(
        "The consensus ignores the policy's IoU threshold.",
        "annotation_platform/pipeline/resolve.py",
        "iou_threshold=policy.iou_threshold,",
        "iou_threshold=0.5,",
        ("tests/pipeline/test_rounds.py::test_running_a_job_again_changes_nothing",),
    ),
    Defect(
        "The consensus does not learn how good each annotator is.",
        "annotation_platform/pipeline/resolve.py",
        "annotator_quality,\niou_threshold=policy.iou_threshold,",
        "annotator_quality.iloc[:0],\niou_threshold=policy.iou_threshold,",
        ("tests/pipeline/test_rounds.py::test_running_a_job_again_changes_nothing",),
    ),
    Defect(
        "Cleaning does not see the images of earlier rounds, so repeats are accepted again.",
        "annotation_platform/pipeline/clean.py",
        "earlier = earlier_rounds(CleanedImages, context.round_id, lake)",
        "earlier = earlier_rounds(CleanedImages, context.round_id, lake).iloc[:0]",
        ("tests/pipeline/test_sensors.py::test_a_round_in_which_nothing_is_new_ends_by_itself",),
    ),
    Defect(
        "The size limit of landed files in the policy is ignored.",
        "annotation_platform/pipeline/ingest.py",
        "limit = context.policy.cleaning.maximum_bytes",
        "limit = 200_000_000",
        ("tests/pipeline/test_quarantine.py",),
    ),
    Defect(
        "Reviewers are shown label issues of holdout images, which people alone must judge.",
        "annotation_platform/pipeline/review.py",
        "others = issues[~issues[LabelIssues.image_id].isin(sampled)]",
        "others = issues",
        (
            "tests/pipeline/test_labels_without_people.py::test_what_people_contradict_is_withdrawn_and_named",
        ),
    ),
    Defect(
        "Predictions on held-out images are stored as those of the round's own images.",
        "annotation_platform/pipeline/detect_drift.py",
        "held_out_predictions=held_out.predictions,",
        "held_out_predictions=model_predictions,",
        ("tests/pipeline/test_learning_loop.py",),
    ),
    Defect(
        "Agreement with people is measured on the wrong table: annotations, not their consensus.",
        "annotation_platform/pipeline/evaluate.py",
        "_COMPARED = (ModelPredictions, ConsensusLabels, HumanLabels)",
        "_COMPARED = (ModelPredictions, HumanLabels, HumanLabels)",
        ("tests/pipeline/test_learning_loop.py",),
    ),
    Defect(
        "Training looks again at what the first round's model missed, not the last one's.",
        "annotation_platform/pipeline/train.py",
        "last = context.before(MissedByModel)[-1:]",
        "last = context.before(MissedByModel)[:1]",
        ("tests/pipeline/test_learning_loop.py",),
    ),
    Defect(
        "A check that finds something passes all the same.",
        "assets/checks.py",
        "passed=not found, severity=severity, description=sentence, metadata=metadata",
        "passed=True, severity=severity, description=sentence, metadata=metadata",
        (
            "tests/pipeline/test_rounds.py::test_a_broken_gate_stops_the_release_and_publishes_nothing",
        ),
    ),
    Defect(
        "The limit on the share of quarantined images holds nothing back.",
        "assets/checks.py",
        "passed=share <= limit,",
        "passed=True,",
        ("tests/pipeline/test_quarantine.py",),
    ),
]


class UnfitError(Exception):
    """A defect cannot be planted, or its tests cannot run."""


def planted(defect: Defect, text: str) -> str:
    """Return the text of the defect's file with the new lines in place of the old ones.

    Raises:
        UnfitError: the old lines do not occur exactly once.
    """
    lines, old = text.splitlines(), [line.strip() for line in defect.old.splitlines()]
    stripped = [line.strip() for line in lines]
    found = [n for n in range(len(lines) - len(old) + 1) if stripped[n : n + len(old)] == old]
    if len(found) != 1:
        raise UnfitError(f"{defect.file}: {len(found)} times, instead of once: {defect.old}")
    at = found[0]
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    new = [indent + line for line in defect.new.splitlines()]
    return "\n".join([*lines[:at], *new, *lines[at + len(old) :], ""])


def check(defects: Sequence[Defect]) -> None:
    """Raise UnfitError if a defect cannot be planted in this checkout, or a test is missing."""
    for defect in defects:
        path = ROOT / defect.file
        if not path.is_file():
            raise UnfitError(f"{defect.file}: there is no such file")
        planted(defect, path.read_text())
        for test in defect.tests:
            name, _, function = test.partition("::")
            is_there = (ROOT / name).is_file()
            if not is_there or f"def {function}" not in (ROOT / name).read_text():
                raise UnfitError(f"{test}: there is no such test")


def copy_checkout(target: Path) -> None:
    """Copy the files of the checkout that git does not ignore, and make them a repository.

    What an earlier copy left there is removed, except for compiled modules: Python compares them
    with their source, so a copy compiles only what differs.
    """
    shutil.rmtree(target / ".git", ignore_errors=True)
    for path in target.rglob("*"):
        if path.parent.name != "__pycache__" and (path.is_symlink() or not path.is_dir()):
            path.unlink()
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        # A file that is deleted and not committed is still listed.
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    # What is published names the code that made it.
    identity = ["-c", "user.name=mutations", "-c", "user.email=mutations@localhost"]
    for command in (["init"], ["add", "--all"], [*identity, "commit", "--message", "Copy"]):
        subprocess.run(["git", *command], cwd=target, capture_output=True, check=True)


def run_tests(copy: Path, tests: Sequence[str]) -> tuple[bool, str]:
    """Run tests in a copy until one fails; return whether all passed, and the one that did not.

    Raises:
        UnfitError: pytest could not run them.
    """
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-m", "not long"]
    command += ["-p", "no:cacheprovider", f"--basetemp={copy.parent / 'pytest'}", *tests]
    environment = {
        "ANNOTATION_TEST_DATA": str(ROOT.parent / "shared" / "data"),
        **os.environ,
        "PYTHONPATH": str(copy),
    }
    done = subprocess.run(
        command, cwd=copy, env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode not in {0, 1}:
        raise UnfitError(
            f"pytest ended with {done.returncode}:\n{done.stdout[-2000:]}{done.stderr}"
        )
    first = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
    return done.returncode == 0, first[1] if first else ""


def result_of(number: int, folder: Path, tests: Sequence[str]) -> dict[str, object]:
    """Plant a defect in a copy and run tests there; 0 is the copy without any defect."""
    started = time.monotonic()
    copy = folder / "tree"
    copy_checkout(copy)
    about: dict[str, object] = {"about": "No defect: every test passes."}
    if number:
        defect = DEFECTS[number - 1]
        path = copy / defect.file
        path.write_text(planted(defect, path.read_text()))
        about = asdict(defect)
        tests = tests or defect.tests
    passed, caught_by = run_tests(copy, tests)
    result = (
        ("passed" if passed else "failed") if not number else "survived" if passed else "caught"
    )
    seconds = round(time.monotonic() - started, 1)
    return {"number": number, **about, "result": result, "by": caught_by, "seconds": seconds}


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Plant defects one by one; tests must catch them.")
    parser.add_argument(
        "--only", type=int, nargs="+", default=[], metavar="N", help="Numbers of defects to plant."
    )
    parser.add_argument(
        "--list", action="store_true", help="Check that every defect can be planted; run no test."
    )
    parser.add_argument(
        "--control", action="store_true", help="First run the tests on a copy without a defect."
    )
    parser.add_argument(
        "--whole-suite", action="store_true", help="Run all tests instead of the named files."
    )
    parser.add_argument(
        "--tests", nargs="+", default=[], metavar="PATH", help="Tests instead of the named files."
    )
    parser.add_argument("--json", action="store_true", help="Print the results as JSON.")
    return parser.parse_args()


def main() -> int:
    """Plant the defects that the command line asks for, and print what came of each."""
    options = _arguments()
    numbers = options.only or list(range(1, len(DEFECTS) + 1))
    if not set(numbers) <= set(range(1, len(DEFECTS) + 1)):
        raise UnfitError(f"--only: defects are numbered 1 to {len(DEFECTS)}")
    check([DEFECTS[number - 1] for number in numbers])
    if options.list:
        for number in numbers:
            print(f"{number:3}  {DEFECTS[number - 1].file}: {DEFECTS[number - 1].about}")
        return 0
    tests = ["tests"] if options.whole_suite else options.tests
    named = sorted({test for number in numbers for test in DEFECTS[number - 1].tests})
    results = []
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        for number in [0, *numbers] if options.control else numbers:
            last = result_of(number, Path(folder), tests or ([] if number else named))
            results.append(last)
            print(
                f"{number:3}  {last['result']:8}  {last['seconds']:6} s  {last['about']}"
                + (f"\n{'':26}{last['by']}" if last["by"] else ""),
                file=sys.stderr if options.json else sys.stdout,
                flush=True,
            )
    if options.json:
        print(json.dumps(results, indent=1))
    lost = [each["number"] for each in results if each["result"] in {"survived", "failed"}]
    total = sum(float(str(each["seconds"])) for each in results)
    print(
        f"{len(results) - len(lost)} of {len(results)} as they must be, {total:.0f} s",
        file=sys.stderr,
    )
    return 1 if lost else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except UnfitError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
