"""The content of a version depends on nothing but its training set."""

import subprocess
import sys

from annotation_platform.storage.table_files import parquet_bytes
from tests.system.worlds import PROJECT, World

RENDER = """
import sys
import pyarrow
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.storage.table_files import read_table
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.objects import name_objects

path, shuffled, threads = sys.argv[1:]
if int(threads):
    pyarrow.set_cpu_count(int(threads))
    pyarrow.set_io_thread_count(int(threads))
frame = read_table(TrainingSet, open(path, "rb").read())
if int(shuffled):
    frame = frame.sample(frac=1.0, random_state=int(shuffled))
folder = build_folder(frame, Ontology.from_names(["Würfel", "ball"]), name="training-set")
print(name_objects(folder, lambda *_: None).md5)
"""


def test_the_same_training_set_is_the_same_bytes_everywhere(tmp_path):
    world = World(tmp_path)
    world.add_images(0, 60)
    path = tmp_path / "training_set.parquet"
    path.write_bytes(parquet_bytes(world.table))
    plain = {"TZ": "UTC", "LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1"}
    ways = [
        (plain, 0, 0),
        ({**plain, "TZ": "America/St_Johns"}, 0, 0),
        ({**plain, "LC_ALL": "C"}, 0, 0),
        ({**plain, "LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8"}, 0, 0),
        ({**plain, "PYTHONHASHSEED": "12345"}, 0, 0),
        ({**plain, "OMP_NUM_THREADS": "16", "OPENBLAS_NUM_THREADS": "16"}, 0, 16),
        (plain, 0, 1),
        (plain, 1, 0),
        (plain, 2, 7),
    ]
    found = set()
    for environment, shuffled, threads in ways:
        done = subprocess.run(
            [sys.executable, "-c", RENDER, str(path), str(shuffled), str(threads)],
            env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(PROJECT), **environment},
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        found.add(done.stdout.strip())
    assert len(found) == 1
