import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


@pytest.mark.long
def test_the_comparison_with_random_runs_and_tells_the_saving_with_its_interval():
    # Far too few images and steps to save anything: only that it runs to the end.
    few = "--seeds 2 --first-steps 6 --steps 4 --pool 60 --test 12 --start 10 --each 10 --end 40"
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "active_learning.py"), *few.split()],
        capture_output=True,
        text=True,
        check=True,
        timeout=280,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    for name in ("entropy", "combined"):
        for axis in ("images", "boxes"):
            assert f"fewer {axis} than random" in done.stdout, done.stdout
        assert f"{name} needs" in done.stdout
