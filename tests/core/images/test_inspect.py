"""The dry run: one row a file, nothing stored, and what cleaning then does."""

import json
import os
from pathlib import Path

import pytest

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import decode
from annotation_platform.ingestion.inspect import count_outcomes, inspect_files
from annotation_platform.storage.s3 import Bucket
from tests.commands import run_command
from tests.core.images.conftest import POLICY, saved, scene


def test_a_folder_of_traps_is_listed_without_following_or_waiting(tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(saved(scene(1), "JPEG"))
    folder = tmp_path / "folder"
    (folder / "directory.jpg").mkdir(parents=True)
    (folder / "directory.jpg" / "inner.jpg").write_bytes(saved(scene(2), "JPEG"))
    (folder / ".hidden.jpg").write_bytes(saved(scene(3), "JPEG"))
    (folder / "link.jpg").symlink_to(outside / "secret.jpg")
    (folder / "loop").symlink_to(folder)
    (folder / "gone.jpg").symlink_to(folder / "nothing")
    os.mkfifo(folder / "pipe.jpg")
    for name in ("a.jpg.part", "b.TMP", "c.crdownload"):
        (folder / name).write_bytes(b"half")
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.jpg")).write_bytes(b"x")
    (folder / "line\nbreak.jpg").write_bytes(saved(scene(4), "JPEG"))
    rows = inspect_files(folder, POLICY)
    assert {row.path: (row.outcome, row.reason) for row in rows} == {
        ".hidden.jpg": ("accepted", ""),
        "a.jpg.part": ("pending", "still being transferred, by its name"),
        "b.TMP": ("pending", "still being transferred, by its name"),
        "c.crdownload": ("pending", "still being transferred, by its name"),
        "caf\\xe9.jpg": ("quarantined", "its name is not UTF-8; rename it and it lands again"),
        "directory.jpg/inner.jpg": ("accepted", ""),
        "gone.jpg": ("quarantined", "cannot be read: Too many levels of symbolic links"),
        "line\nbreak.jpg": ("accepted", ""),
        "link.jpg": ("quarantined", "cannot be read: Too many levels of symbolic links"),
        "loop": ("quarantined", "cannot be read: Too many levels of symbolic links"),
        "pipe.jpg": ("quarantined", "not a regular file"),
    }
    assert count_outcomes(rows) == {"accepted": 3, "quarantined": 5, "pending": 3}
    with pytest.raises(DataError, match="is not a readable folder"):
        inspect_files(tmp_path / "nowhere", POLICY)


def test_the_command_prints_one_row_a_file_and_stores_nothing(tmp_path):
    folder, home = tmp_path / "folder", tmp_path / "home"
    folder.mkdir()
    (folder / "=a\tb\n.png").write_bytes(saved(scene(1), "JPEG"))
    (folder / "cut.jpg").write_bytes(saved(scene(2), "JPEG")[:900])

    def run(*arguments):
        environment = {"ANNOTATION_HOME": str(home)}
        done = run_command("dataset", "inspect", *arguments, environment=environment)
        return done.returncode, done.stdout, done.stderr

    code, said, _ = run(str(folder), "--json")
    files = json.loads(said.splitlines()[-1])["files"]
    assert code == 0
    assert set(files[0]) == {
        *("path", "outcome", "reason", "flags"),
        *("image_id", "width", "height", "duplicate_of"),
    }
    assert [(file["path"], file["outcome"], file["flags"]) for file in files] == [
        ("=a\tb\n.png", "accepted", ["extension_mismatch"]),
        ("cut.jpg", "quarantined", []),
    ]
    code, said, _ = run(str(folder))
    assert (code, "2 files: 1 accepted, 1 quarantined" in said) == (0, True)
    code, _, complaint = run(str(folder / "nowhere"))
    assert (code, "is not a readable folder" in complaint) == (2, True)
    assert not home.exists()


def test_the_dry_run_says_what_cleaning_does(tmp_path, clean):
    jpeg = saved(scene(1), "JPEG", quality=92)
    files = {
        "a.jpg": jpeg,
        "b.jpg": jpeg,
        "c.png": saved(decode(jpeg), "PNG"),
        "d.jpg": saved(decode(jpeg), "JPEG", quality=60),
        "e.png": saved(scene(2), "JPEG") + b"tail",
        "f.png": b"",
        "g.jpg": jpeg[:500],
        "h.gif": saved(scene(3), "GIF"),
        "i.jpg": saved(scene(1)[:, ::-1]),
    }
    cleaned = clean(files)[0].reset_index()
    folder = tmp_path / "folder"
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    inspected = inspect_files(folder, POLICY)
    columns = ["source_key", "outcome", "reason", "flags", "image_id", "width", "height"]
    assert [
        [
            row.path,
            row.outcome,
            row.reason,
            ",".join(row.flags),
            row.image_id,
            row.width,
            row.height,
        ]
        for row in inspected
    ] == cleaned[columns].to_numpy().tolist()
    assert [row.duplicate_of for row in inspected[1:4]] == [inspected[0].image_id] * 3
    assert [row.outcome for row in inspected] == [
        *["accepted", "duplicate", "duplicate", "duplicate"],
        *["accepted", "quarantined", "quarantined", "accepted", "accepted"],
    ]
    assert inspected[-1].flags == ["similar"]


def test_metadata_is_judged_with_its_image_here_and_in_a_bucket(tmp_path, s3_bucket):
    needed = POLICY.model_copy(update={"mandatory_metadata": ("licence",)})
    sidecars = {"a": {"licence": "CC0"}, "b": {"device": "X100"}, "c": {"geo": [91, 0]}}
    files = {f"{name}.jpg": saved(scene(seed)) for seed, name in enumerate("abcd")}
    files |= {f"{name}.jpg.json": json.dumps(said).encode() for name, said in sidecars.items()}
    bucket = Bucket(f"s3://{s3_bucket}/day//one")
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
        bucket.put(name, data)
    rows = inspect_files(tmp_path, needed)
    assert {row.path: (row.outcome, row.reason) for row in rows} == {
        "a.jpg": ("accepted", ""),
        "a.jpg.json": ("accepted", "metadata of a.jpg"),
        "b.jpg": ("quarantined", "missing metadata: licence"),
        "b.jpg.json": ("accepted", "metadata of b.jpg"),
        "c.jpg": (
            "quarantined",
            "bad metadata: geo: 91, 0 is not a latitude and longitude in degrees",
        ),
        "c.jpg.json": ("accepted", "metadata of c.jpg"),
        "d.jpg": ("quarantined", "missing metadata: licence"),
    }
    assert inspect_files(bucket.url, needed) == rows
