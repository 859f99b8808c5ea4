"""Publishing and checking out a version that changes by one percent, beside DVC, in one run.

    python benchmarks/versions.py
    python benchmarks/versions.py --images 10000 --pairs 1

Both start from the same published version of so many images (random bytes, one box each) and
go to the same next one. Publishing: ``publish_version`` from the training set's Parquet file to the
tag, in a new process (start and imports included) and in one that runs already, beside ``dvc add``
and ``dvc push`` of the folder in which the very files of the next version were put already.
Checking out: ``annotation-platform version checkout`` in a new process beside ``git checkout`` and
``dvc pull``. DVC has hashed its folder before and remembers. Wall seconds; the ratio is the median
over pairs. On tmpfs, because making many small files is erratic on ext4. What both made is compared
before a figure is printed.

    python benchmarks/versions.py --growth 10000 100000

publishes a hundred new images on top of so many, in a running process, and says how much more it
takes on top of more, beside what the list of files alone takes: to read the old one and write the
new one, as we do it and as DVC does.
"""

import argparse
import hashlib
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
from dvc_data.hashfile.db import HashFileDB
from dvc_data.hashfile.hash_info import HashInfo
from dvc_data.hashfile.tree import Tree
from dvc_objects.fs.local import LocalFileSystem

from annotation_platform.policy import Policy
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.storage.table_files import parquet_bytes
from annotation_platform.versioning.publisher import VersionInputs, publish_version
from annotation_platform.versioning.registry import list_versions, make_registry
from annotation_platform.versioning.remote import DvcRemote, folder_object

PROJECT = Path(__file__).resolve().parent.parent
ONTOLOGY = Ontology.from_names(["cube", "ball"])
BYTES = 2000
PARAMS = Policy(ontology=ONTOLOGY).to_yaml()


def draw(first, count, lake):
    """Return the rows of so many images, having put them into the lake."""
    rows = []
    for number in range(first, first + count):
        rng = random.Random(number)
        data = rng.randbytes(BYTES)
        image = hashlib.sha256(data).hexdigest()
        (lake / f"{image}.jpg").write_bytes(data)
        x, y = rng.uniform(0, 300), rng.uniform(0, 200)
        rows.append(
            {
                "round_id": "round-0001", "image_id": image, "group_id": image, "support": 1,
                "split": ["train", "train", "train", "val", "test"][number % 5], "annotations": 1,
                "width": 640, "height": 480, "extension": "jpg", "stored_bytes": BYTES,
                "stored_md5": hashlib.md5(data).hexdigest(), "label_id": f"{image}:0000",
                "origin": "people", "other_metadata": "", "geometry": "", "shape": "box",
                "class_name": "ball", "class_id": 1,
                "x1": x, "y1": y, "x2": x + 40.25, "y2": y + 60.5,
            }
        )  # fmt: skip
    return rows


def publish(root, table):
    """Publish a training set that lies in a Parquet file."""
    return publish_version(
        root / "registry",
        VersionInputs(
            training_set=pd.read_parquet(table),
            ontology=ONTOLOGY,
            params_text=PARAMS,
            policy_digest="b" * 64,
            rounds={"round-0001": "a" * 64},
        ),
        remote_url=str(root / "remote"),
        source_root=root / "source",
        image_path=lambda image, extension: root / "lake" / f"{image}.{extension}",
        now=datetime(2026, 1, 1, tzinfo=UTC),
    )


def prepare(root, images, new):
    """Make lake, registry and remote with the first version, and both training sets."""
    (root / "lake").mkdir(parents=True)
    source = root / "source"
    (source / ".dvc").mkdir(parents=True)
    for name in ["dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".gitignore"]:
        shutil.copy(PROJECT / name, source / name)
    (source / "params.yaml").write_text(PARAMS)
    make_registry(root / "registry", source, PARAMS, remote_url=str(root / "remote"))
    rows = draw(0, images, root / "lake")
    for name, more in (("first", 0), ("second", new)):
        rows += draw(images, more, root / "lake")
        table = TrainingSet.from_rows(rows).sort_values("image_id", ignore_index=True)
        (root / f"{name}.parquet").write_bytes(parquet_bytes(table))
    publish(root, root / "first.parquet")


def run(command, place, root):
    """Run a command with a DVC of its own, and return the wall seconds it took.

    Neither side compiles its modules anew at every start: ``make install`` did that.
    """
    known = {**os.environ, "DVC_SITE_CACHE_DIR": str(root / "site"), "DVC_NO_ANALYTICS": "1"}
    known.pop("PYTHONDONTWRITEBYTECODE", None)
    started = time.perf_counter()
    done = subprocess.run(
        command, cwd=place, env=known, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{command}: {done.stdout}{done.stderr}")
    return time.perf_counter() - started


def check_out(folder, ours, tag, root):
    """Check a version out with our command, and return the wall seconds it took."""
    command = [
        sys.executable, "-c", "from annotation_platform.cli import app; app()",
        "version", "checkout", tag,
        str(folder), "--registry", str(ours / "registry"), "--remote", str(ours / "remote"),
    ]  # fmt: skip
    return run(command, root, root)


def dvc(*arguments):
    """Return DVC's command."""
    return [sys.executable, "-m", "dvc", *arguments]


def copied(source, target):
    """Copy a folder to a fresh place, times and links kept."""
    shutil.rmtree(target, ignore_errors=True)
    subprocess.run(["cp", "-a", source, target], check=True)
    return target


def time_publishing(root, first):
    """Return our seconds and DVC's for the same new version."""
    warm = publish_warm(copied(root, root.parent / "ours"))
    ours = copied(root, root.parent / "ours")
    mine = run([sys.executable, __file__, "--publish", str(ours)], ours, ours)
    second = list_versions(ours / "registry")[-1]

    # DVC's folder gets the very files, outside of the clock.
    theirs = copied(first, root.parent / "theirs")
    remote = copied(root / "remote", root.parent / "remote-theirs")
    run(dvc("remote", "modify", "storage", "url", str(remote)), theirs, root)
    # What it hashed once it knows again, as on anybody's machine.
    run(dvc("status", "datasets/training-set.dvc"), theirs, root)
    folder = theirs / "datasets" / "training-set"
    listing = object_of(ours / "remote", second.manifest.folder_md5)
    for entry in json.loads(listing.read_bytes()):
        place = folder / entry["relpath"]
        data = object_of(ours / "remote", entry["md5"])
        if not place.exists() or place.read_bytes() != data.read_bytes():
            place.unlink(missing_ok=True)
            shutil.copyfile(data, place)
    peer = run(dvc("add", "--quiet", "datasets/training-set"), theirs, root)
    peer += run(dvc("push", "--quiet"), theirs, root)
    pointer = (theirs / "datasets" / "training-set.dvc").read_text()
    if second.manifest.folder_md5 not in pointer:
        raise SystemExit("DVC made another folder of it")
    for place in (theirs, remote):
        shutil.rmtree(place)
    return ours, mine, warm, peer


def publish_warm(root):
    """Return the seconds that the second version takes in a process that runs already."""
    command = [sys.executable, __file__, "--publish", str(root), "--warm"]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def time_listing(root):
    """Return our seconds and DVC's to read the last list of files and write it again."""
    remote = DvcRemote(str(root / "remote"))
    name = list_versions(root / "registry")[-1].manifest.folder_md5
    start = time.perf_counter()
    again, data = folder_object(remote.read_folder(name))
    (root / "listing").write_bytes(data)
    own = time.perf_counter() - start
    files = HashFileDB(LocalFileSystem(), str(root / "remote" / "files" / "md5"))
    start = time.perf_counter()
    listed = Tree.load(files, HashInfo("md5", name))
    written = Tree()
    for key, about, digest in listed:
        written.add(key, about, digest)
    written.digest()
    peer = time.perf_counter() - start
    if not again == name == written.hash_info.value:
        raise SystemExit("the list of files was not written as it was read")
    return own, peer


def grow(place, sizes, pairs):
    """Print what publishing a hundred images takes on top of few and of many."""
    rows = []
    for images in sizes:
        root = Path(place) / f"world-{images}"
        prepare(root, images, 100)
        several = []
        for _ in range(pairs):
            ours = copied(root, Path(place) / "ours")
            several.append((publish_warm(ours), *time_listing(ours)))
        shutil.rmtree(root)
        rows.append([statistics.median(side) for side in zip(*several, strict=True)])
        took, own, peer = rows[-1]
        print(f"+100 on {images}: {took:.2f} s; list of files {own:.2f} s, by DVC {peer:.2f} s")
    more, own, peer = (last - first for first, last in zip(rows[0], rows[-1], strict=True))
    print(
        f"{more:.2f} s more; of the list {own:.2f} s, {more / own:.1f}x; "
        f"by DVC {peer:.2f} s, {more / peer:.1f}x"
    )


def object_of(remote, name):
    """Return where a remote keeps an object."""
    return remote / "files" / "md5" / name[:2] / name[2:]


def time_checking_out(ours, first, root):
    """Return our seconds and DVC's from the first version to the second."""
    registry, tag = ours / "registry", "training-set@v1.1.0"
    here = root.parent / "mine"
    check_out(here, ours, "training-set@v1.0.0", root)
    own = check_out(here, ours, tag, root)
    theirs = copied(first, root.parent / "theirs")
    run(["git", "remote", "set-url", "origin", str(registry)], theirs, root)
    run(["git", "fetch", "--quiet", "--tags", "origin"], theirs, root)
    run(dvc("status", "datasets/training-set.dvc"), theirs, root)
    peer = run(["git", "checkout", "--quiet", "--force", tag], theirs, root)
    run(dvc("remote", "modify", "--local", "storage", "url", str(ours / "remote")), theirs, root)
    peer += run(dvc("pull", "--quiet"), theirs, root)
    names = [place / "datasets" / "training-set" for place in (here, theirs)]
    same = subprocess.run(["diff", "-rq", *names], capture_output=True, check=False)
    if same.returncode:
        raise SystemExit(f"the two differ: {same.stdout[:300]!r}")
    for place in (here, theirs):
        shutil.rmtree(place)
    return own, peer


def say(what, pairs):
    """Print medians over pairs of our seconds and DVC's."""
    ratios = [peer / own for own, peer in pairs]
    own, peer = (statistics.median(side) for side in zip(*pairs, strict=True))
    times = statistics.median(ratios)
    print(f"{what}: ours {own:.2f} s, DVC {peer:.2f} s, {times:.1f}x", flush=True)


def main():
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    parser.add_argument("--growth", type=int, nargs="+", help="sizes to publish a hundred on")
    parser.add_argument("--publish", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--warm", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.publish:
        if options.warm:
            # Nothing new comes of this; all that is needed is imported, and the remote was read.
            publish(options.publish, options.publish / "first.parquet")
        start = time.perf_counter()
        published = publish(options.publish, options.publish / "second.parquet")
        print(time.perf_counter() - start)
        if published.version != "1.1.0" or not published.new_version:
            raise SystemExit(f"{published.version} was published")
        return
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        if options.growth:
            grow(place, options.growth, options.pairs)
            return
        root = Path(place) / "world"
        prepare(root, options.images, max(1, options.images // 100))
        registry = root / "registry"
        first = Path(place) / "first"
        run(["git", "clone", "--quiet", str(registry), str(first)], place, root)
        run(["git", "checkout", "--quiet", "training-set@v1.0.0"], first, root)
        run(dvc("pull", "--quiet"), first, root)
        published, in_process, checked_out = [], [], []
        for _ in range(options.pairs):
            ours, own, warm, peer = time_publishing(root, first)
            published.append((own, peer))
            in_process.append((warm, peer))
            checked_out.append(time_checking_out(ours, first, root))
            shutil.rmtree(ours)
        say(f"publishing +1 % of {options.images}, new process", published)
        say(f"publishing +1 % of {options.images}, running process", in_process)
        say(f"checking out +1 % of {options.images}", checked_out)


if __name__ == "__main__":
    main()
