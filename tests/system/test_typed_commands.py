"""What the pages tell people to type is typed: every block of every page, on three real versions.

A line that cannot be run here is named in ``ELSEWHERE``, with the test that runs it. The programs
in docs/reading-versions.md are run by test_loading.py and test_provenance.py.
"""

import getpass
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from annotation_platform.demo.material import drawn_material
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.settings import settings_environment
from tests.pipeline.conftest import open_platform

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "deploy").rglob("*.md")]
)
ELSEWHERE = {
    "make install": "what runs this test did it",
    "make demo": "test_three_rounds.py",
    "make up": "test_up.py",
    "make test": "CI",
    "make check": "CI",
    ".venv/bin/pytest": "CI",
    "annotation-platform demo --images": "test_real_photographs.py",
    "annotation-platform people add": "test_up.py: it needs a Label Studio",
    "annotation-platform status --watch": "test_cli.py: it ends with Ctrl-C",
    "annotation-platform vendor": "test_cli_vendor.py: it needs a vendor",
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A home with three versions, and the environment of somebody who works on it."""
    folder = tmp_path_factory.mktemp("typed")
    material = drawn_material(3, 8, seed=0)
    with open_platform(folder / "home", material) as platform:
        platform.change_policy(review={"gate": "manual", "sample_share": 0.5})
        for number in (1, 2, 3):
            round_id = f"round-{number:04}"
            platform.land(number)
            platform.start_round(round_id)
            platform.annotate(round_id)
            assert platform.release(round_id, platform.merge(round_id)).success
        images = folder / "images"
        images.mkdir()
        for name, data in material.batches[0].items():
            (images / name).write_bytes(data)
        settings = platform.settings
        image = platform.lake.tables.read(TrainingSet, "round-0003")["image_id"].iloc[0]
        programs = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**settings_environment(settings), "PATH": programs, "COLUMNS": "160"}
        yield (
            folder,
            environment,
            {
                "path/to/images": str(images),
                "3fa9c1": image[:12],
                "other.yaml": str(settings.policy_path),
                "<registry>": str(settings.registry_path),
                "git clone . ": f"git clone {settings.registry_path} ",
                "mia@example.org": platform.people[0].name,
                "--author ada": f"--author {getpass.getuser()}",
                '"ball": 0.5, "field": 0.5': '"boat": 0.5, "container": 0.5',
                "convert SRC ": "convert dataset/datasets/training-set/coco/train.json ",
                "--out DIR": f"--out {folder}/out-$RANDOM",
            },
        )


def blocks():
    """Yield every block of commands: its page, its number there, and its lines."""
    for page in PAGES:
        found = re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S)
        for number, block in enumerate(found, start=1):
            name = f"{page.relative_to(ROOT)}-{number}"
            yield pytest.param(str(page.relative_to(ROOT)), block.splitlines(), id=name)


@pytest.mark.parametrize(("page", "lines"), blocks())
def test_every_command_of_a_block_does_what_it_says(world, page, lines):
    folder, environment, meant = world
    here = [line for line in lines if not any(line.startswith(each) for each in ELSEWHERE)]
    script = "\n".join(here)
    for written, instead in meant.items():
        script = script.replace(written, instead)
    work = folder / re.sub(r"\W", "-", page)
    work.mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        check=False, cwd=work, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
    assert "Traceback" not in done.stderr


def test_what_is_run_elsewhere_is_still_on_a_page():
    lines = [line for _, block in ((each.values) for each in blocks()) for line in block]
    for beginning in ELSEWHERE:
        assert any(line.startswith(beginning) for line in lines), beginning
