"""Every command about versions, where their files are in a bucket."""

import json
import os
import random
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from moto.server import ThreadedMotoServer
from typer.testing import CliRunner

from annotation_platform import load
from annotation_platform.cli import app
from annotation_platform.errors import PublishError
from annotation_platform.policy import Policy
from annotation_platform.schema.keys import image_key
from annotation_platform.versioning.collect import collect_garbage
from annotation_platform.versioning.registry import checkout_on_new_machine, open_remote
from annotation_platform.versioning.sharing import recorded_registries
from tests.system.worlds import ONTOLOGY, World

REMOTE = "s3://every-command/dvc"


@pytest.fixture(scope="module")
def endpoint():
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


ENVIRONMENT, CONFIG = "in the environment", "in .dvc/config"


@pytest.fixture
def world(request, endpoint, tmp_path, monkeypatch):
    """Two versions in a new bucket; where S3 is, the environment says, or the versions do."""
    access = {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig"),
        "ANNOTATION_HOME": str(tmp_path / "home"),
        "ANNOTATION_REGISTRY": str(tmp_path / "registry"),
        "ANNOTATION_REMOTE": REMOTE,
    }
    (tmp_path / "gitconfig").write_text("[user]\n\tname = Test\n\temail = test@example.org\n")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    made = World(tmp_path, params=Policy(ontology=ONTOLOGY).to_yaml())
    if request.param == ENVIRONMENT:
        access["AWS_ENDPOINT_URL"] = endpoint
    else:
        with (tmp_path / "source" / ".dvc" / "config").open("a") as config:
            config.write(
                f"\n['remote \"bucket\"']\n    url = {REMOTE}\n    endpointurl = {endpoint}\n"
            )
    for name, value in access.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.resource("s3", endpoint_url=endpoint)
    bucket = s3.create_bucket(Bucket="every-command")
    for first, count in ((0, 6), (6, 3)):
        made.add_images(first, count)
        made.publish(remote=REMOTE)
    # What the lake of the home holds, `verify --repair` takes from there.
    for image in (tmp_path / "lake").iterdir():
        place = tmp_path / "home" / "lake" / image_key(image.stem, "jpg")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(image.read_bytes())
    made.bucket = bucket
    yield made
    bucket.objects.all().delete()
    bucket.delete()


def told(*arguments: str, exit_code: int = 0) -> dict:
    done = CliRunner().invoke(app, [*arguments, "--json"])
    assert done.exit_code == exit_code, (done.output, done.exception)
    return json.loads(done.stdout.splitlines()[-1])


def objects(world) -> dict[str, bytes]:
    """Every object by its MD5 as DVC names it."""
    found = world.bucket.objects.filter(Prefix="dvc/files/md5/")
    return {"".join(each.key.split("/")[-2:]): each.get()["Body"].read() for each in found}


def put(world, name: str, data: bytes) -> None:
    world.bucket.put_object(Key=f"dvc/files/md5/{name[:2]}/{name[2:]}", Body=data)


@pytest.mark.parametrize("world", [CONFIG], indirect=True)
def test_planted_damage_is_found_and_put_back_byte_for_byte(world):
    before = objects(world)
    assert told("version", "verify", "--all")["objects"] == len(before)
    rng = random.Random(3)
    in_lake = {path.read_bytes() for path in (world.root / "lake").iterdir()}
    images = [name for name, data in sorted(before.items()) if data in in_lake]
    # Lists of files come back from nowhere, and tables are what the rest is rendered from.
    rendered = [
        name
        for name, data in sorted(before.items())
        if data not in in_lake and not name.endswith(".dir") and data[:4] != b"PAR1" and data
    ]
    planted = {}
    for name in [*rng.sample(images, 3), *rng.sample(rendered, 4)]:
        planted[name] = rng.choice(["missing", "damaged"])
        if planted[name] == "damaged":
            put(world, name, before[name][:-1])
        else:
            world.bucket.Object(f"dvc/files/md5/{name[:2]}/{name[2:]}").delete()
    found = told("version", "verify", "--all", exit_code=1)
    assert {each["name"]: each["kind"] for each in found["problems"]} == planted
    mended = told("version", "verify", "--all", "--repair")
    assert {each["name"] for each in mended["repaired"]} == planted.keys()
    assert objects(world) == before


@pytest.mark.parametrize("world", [ENVIRONMENT], indirect=True)
def test_gc_takes_orphans_away_and_nothing_else(world):
    before = objects(world)
    put(world, "ab" + "0" * 30, b"of a publisher that was killed")
    assert told("version", "verify", "--all")["orphans"] == ["ab" + "0" * 30]
    dry = told("version", "gc")
    assert (dry["dry_run"], dry["removed"], dry["young"]) == (True, [], ["ab" + "0" * 30])
    assert told("version", "gc", "--yes")["removed"] == []
    later = datetime.now(UTC) + timedelta(days=2)
    remote = open_remote(world.registry, REMOTE)
    found = collect_garbage(world.registry, remote, expected=(), now=later, dry_run=False)
    assert found.removed == ("ab" + "0" * 30,)
    assert objects(world) == before


@pytest.mark.parametrize("world", [CONFIG], indirect=True)
def test_gc_asks_for_the_other_registry_that_publishes_into_the_bucket(world, tmp_path):
    other = World(tmp_path / "other")
    (other.root / "source" / ".dvc" / "config").write_bytes(
        (world.root / "source" / ".dvc" / "config").read_bytes()
    )
    other.add_images(50, 2)
    other.publish(remote=REMOTE)
    remote = open_remote(world.registry, REMOTE)
    assert [note.registry for note in recorded_registries(remote)] == sorted(
        [str(other.registry), str(world.registry)]
    )
    before = objects(world)
    later = datetime.now(UTC) + timedelta(days=2)
    collect_garbage(world.registry, remote, expected=(), now=later, dry_run=False)
    assert objects(world) == before
    other.registry.rename(tmp_path / "moved")
    done = CliRunner().invoke(app, ["version", "gc"])
    assert isinstance(done.exception, PublishError)
    assert "publishes there too" in str(done.exception)
    assert told("version", "gc", "--also-registry", str(tmp_path / "moved"))["removed"] == []


@pytest.mark.parametrize(
    "world", [ENVIRONMENT, pytest.param(CONFIG, marks=pytest.mark.long)], indirect=True
)
def test_a_version_is_checked_out_loaded_exported_and_pulled(world, tmp_path, monkeypatch):
    # A reader has no setting of the remote: the version says where its files are.
    monkeypatch.delenv("ANNOTATION_REMOTE")
    mine = tmp_path / "mine"
    first = told("version", "checkout", "1.0.0", str(mine), "--registry", str(world.registry))
    contents = [path.read_bytes() for path in mine.glob("datasets/training-set/**/*.*")]
    assert (first["files"], first["fetched"]) == (len(contents), len(set(contents)))
    second = told("version", "checkout", "1.1.0", str(mine), "--registry", str(world.registry))
    assert 0 < second["fetched"] < second["files"]
    assert len(list(mine.rglob("*.jpg"))) == 9
    # DVC finds there what it would have brought.
    status = subprocess.run(
        [sys.executable, "-m", "dvc", "status", "datasets/training-set.dvc"],
        cwd=mine, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert "up to date" in status.stdout

    loaded = load("training-set@v1.1.0", registry=world.registry)
    assert loaded.labels["image_id"].nunique() == 9
    images = {path.stem: path.read_bytes() for path in loaded.fetch().rglob("*.jpg")}
    assert images == {path.stem: path.read_bytes() for path in (world.root / "lake").iterdir()}
    out = tmp_path / "csv"
    told("version", "export", "1.1.0", "--format", "csv", "--out", str(out),
         "--registry", str(world.registry))  # fmt: skip
    assert any(out.iterdir())
    assert told("version", "verify", "--all", "--registry", str(world.registry))["whole"] is True

    access = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    into = checkout_on_new_machine(
        world.registry, "training-set@v1.1.0", tmp_path / "stranger", environment=access
    )
    assert len(list(into.rglob("*.jpg"))) == 9


@pytest.mark.parametrize("world", [ENVIRONMENT], indirect=True)
def test_what_s3_refuses_is_one_line(world, monkeypatch):
    monkeypatch.setenv("ANNOTATION_REMOTE", "s3://no-such-bucket/dvc")
    for command in (["version", "gc"], ["version", "verify"], ["version", "verify", "--all"]):
        done = CliRunner().invoke(app, command)
        assert isinstance(done.exception, PublishError), (command, done.output)
        assert "\n" not in str(done.exception)
        assert "s3://no-such-bucket/dvc" in str(done.exception)
