"""The backtest command compares two policies, or names in one line what the record lacks."""

import json

import pytest
import typer
from typer.testing import CliRunner

from annotation_platform.cli.policy import backtest
from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.policy import LabelingPolicy, Policy
from annotation_platform.settings import read_settings
from tests.core.backtesting.past import CAT, DOG, ONE, ONTOLOGY, begin

APP = typer.Typer()
APP.command()(backtest)

TODAY = Policy(
    ontology=ONTOLOGY, labeling=LabelingPolicy(annotations_per_task=3, gold_origins=("expert",))
)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with one round, three annotations of each of twelve images; one annotator errs."""
    monkeypatch.setenv("ANNOTATION_HOME", str(tmp_path))
    (tmp_path / "params.yaml").write_text(TODAY.to_yaml())
    past = begin(tmp_path)
    assert str(tmp_path / "lake") == str(read_settings().lake_url)
    names = [f"i{number}" for number in range(12)]
    wrong = set(names[::3])
    past.merge(
        ONE,
        {
            name: {"ann": [CAT], "ben": [CAT], "cem": [DOG if name in wrong else CAT]}
            for name in names
        },
    )
    past.land_known(ONE, {name: [CAT] for name in names})
    return tmp_path


@pytest.fixture
def policy(tmp_path):
    def write(**labeling):
        path = tmp_path / "other.yaml"
        asked = {**TODAY.labeling.model_dump(), **labeling}
        params = TODAY.model_dump(mode="json") | {"labeling": asked}
        path.write_text(json.dumps(params))
        return path

    return write


def run(*arguments):
    return CliRunner().invoke(APP, [str(each) for each in arguments])


def complaint(*arguments):
    """Return the message of the error that the command line prints, with exit code 2."""
    error = run(*arguments).exception
    assert isinstance(error, AnnotationPlatformError), error
    assert "\n" not in str(error)
    return str(error)


def test_the_json_has_both_policies_and_their_intervals(home, policy):
    done = run(
        "--policy", policy(annotations_per_task=1), "--price-per-hour", "36", "--seed", 1, "--json"
    )
    assert done.exit_code == 0, done.exception
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["rounds"], found["images"], found["truth"]) == ([ONE], 12, {"gold": 12})
    assert found["notes"] == []
    accuracy = found["figures"]["objects_f1"]
    # Where one annotator errs, two of three are right; alone, four of 36 annotations are wrong.
    assert accuracy["recorded"]["value"] == 1
    # With 20 draws of the four images the standard deviation is 0.017.
    assert accuracy["policy"]["value"] == pytest.approx(32 / 36, abs=0.05)
    assert accuracy["rerun"]["low"] <= accuracy["policy"]["low"] < accuracy["policy"]["high"] <= 1
    assert found["figures"]["annotations"]["recorded"]["value"] == 36
    assert found["figures"]["annotations"]["policy"]["value"] == 12
    assert found["figures"]["cost"]["policy"]["value"] == pytest.approx(1.2)


def test_the_output_has_the_figures_and_their_basis(home, policy):
    shown = run("--policy", policy(annotations_per_task=1), "--draws", 3, "--rounds", ONE).stdout
    assert "F1 of objects" in shown
    assert "annotator seconds" in shown
    assert "cost" not in shown
    assert "round-0001: 12 images, ground truth: 12 by gold" in shown


def test_the_same_seed_prints_the_same(home, policy):
    asked = ["--policy", policy(annotations_per_task=2), "--draws", 3, "--json"]
    assert run(*asked).stdout == run(*asked).stdout
    assert run(*asked).stdout != run(*asked, "--seed", 1).stdout


def test_a_request_beyond_the_record_is_refused_with_the_numbers(home, policy):
    assert complaint("--policy", policy(annotations_per_task=7)) == (
        "labeling.annotations_per_task 7 needs more annotations than were recorded on"
        " 12 of 12 tasks: 12 have 3. Set it to 1 to 3."
    )
    asked = policy(vote_margin=3, maximum_annotations=5)
    assert "maximum_annotations to at most 3" in complaint("--policy", asked)


def test_bad_input_is_named_with_the_valid_values(home, policy):
    unknown = home / "unknown.yaml"
    unknown.write_text(policy().read_text().replace('"vote_margin"', '"stop_at"'))
    message = complaint("--policy", unknown)
    assert message.startswith(f"{unknown}: labeling.stop_at: ")
    assert "vote_margin" in message
    assert str(home / "nowhere.yaml") in complaint("--policy", home / "nowhere.yaml")
    message = complaint("--policy", policy(), "--rounds", "round-0001,round-0005")
    assert message == "there is no round round-0005. Existing rounds: round-0001."
    assert "majority, dawid-skene, one-coin" in complaint(
        "--policy", policy(), "--method", "average"
    )
    assert "gold, later, review" in complaint("--policy", policy(), "--truth", "mine")


def test_excluded_ground_truth_is_not_used(home, policy):
    message = complaint("--policy", policy(annotations_per_task=1), "--truth", "review")
    assert message.startswith("round-0001: no image has ground truth")
