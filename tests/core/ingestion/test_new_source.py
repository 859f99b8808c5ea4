"""A source is a function and a line in the registry: its arrivals hold several images."""

import hashlib
import io
import re
import zipfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from PIL import Image

from annotation_platform.curation.gates import missing_outcomes
from annotation_platform.errors import DataError
from annotation_platform.governance.erasure.subject import find_images
from annotation_platform.ingestion import containers
from annotation_platform.ingestion.containers import PartImage
from annotation_platform.pipeline.clean import clean
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.ingest import ingest
from annotation_platform.policy import read_policy
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.tables import CleanedImages, RawImages
from annotation_platform.settings import PROJECT_ROOT
from annotation_platform.storage.erasures import Erasures
from tests.core.ingestion.conftest import form_round
from tests.reconciliation import reconcile_arrivals

PAGE = PROJECT_ROOT / "docs/how-to/add-a-source.md"
NAMES = ["a.clip/000000", "a.clip/000001", "a.clip/000002", "b.png"]


@pytest.fixture(autouse=True)
def registered(monkeypatch):
    """The source of the how-to page, registered."""
    (code,) = re.findall(r"^   ```python\n(.*?)^   ```", PAGE.read_text(), re.M | re.S)
    names = {"DataError": DataError, "Iterator": Iterator, "PartImage": PartImage}
    names |= {"io": io, "zipfile": zipfile}
    exec(compile(re.sub(r"^   ", "", code, flags=re.M), PAGE.name, "exec"), names)
    monkeypatch.setitem(containers.SOURCES, ".clip", names["read_clip"])


def png(seed):
    pixels = np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "PNG")
    return data.getvalue()


def clip(*images):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number, image in enumerate(images):
            archive.writestr(zipfile.ZipInfo(f"{number}.png"), image)
    return data.getvalue()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def context_of(lake):
    policy = read_policy(PROJECT_ROOT / "params.yaml")
    return RoundContext(form_round(lake), lake, policy, datetime.now(UTC))


def take_in(context):
    """Ingest and clean a round, as its steps do."""
    tables = context.lake.tables
    raw = ingest(context).raw_images
    tables.write(RawImages, context.round_id, raw)
    tables.write(CleanedImages, context.round_id, clean(context, raw).cleaned_images)
    return raw, tables.read(CleanedImages, context.round_id)


@pytest.fixture
def landed(lake):
    whole = clip(png(0), png(1), png(0))
    lake.landing.put("a.clip", whole, sidecar=b'{"licence": "CC0"}')
    lake.landing.put("b.png", png(2))
    return sha256(whole)


def test_the_images_of_an_arrival_are_named_timed_and_cleaned(lake, landed):
    context = context_of(lake)
    raw, cleaned = take_in(context)
    assert raw["source_key"].tolist() == NAMES
    assert raw["image_id"].tolist() == [sha256(png(seed)) for seed in (0, 1, 0, 2)]
    assert raw["parent_id"].fillna("").tolist() == [landed] * 3 + [""]
    assert raw["frame_index"].fillna(-1).tolist() == [0, 1, 2, -1]
    assert raw["timestamp_seconds"].fillna(-1).tolist() == [0.0, 0.1, 0.2, -1]
    assert raw["licence"].fillna("").tolist() == ["CC0"] * 3 + [""]
    assert raw["byte_size"].tolist() == [len(png(seed)) for seed in (0, 1, 0, 2)]
    outcomes = dict(zip(cleaned["source_key"], cleaned["outcome"], strict=True))
    assert outcomes == dict(
        zip(NAMES, ["accepted", "accepted", "duplicate", "accepted"], strict=True)
    )
    found = reconcile_arrivals(lake, lake.landed(now=datetime.now(UTC) + timedelta(seconds=1)))
    assert (found.landed, found.accepted, found.duplicates, found.problems) == (4, 3, 1, [])


def test_ingesting_again_needs_no_landing_zone(lake, landed):
    context = context_of(lake)
    first = ingest(context).raw_images
    for path in lake.landing.folder.iterdir():
        path.unlink()
    assert first.equals(ingest(context).raw_images)


@pytest.mark.parametrize(
    ("data", "problem"),
    [(clip(png(0))[:-30], "is not a clip: it is damaged or cut off"), (clip(), "holds no image")],
)
def test_a_damaged_or_empty_one_is_one_row_with_the_problem(lake, data, problem):
    lake.landing.put("a.clip", data)
    context = context_of(lake)
    raw, cleaned = take_in(context)
    assert raw["source_key"].tolist() == ["a.clip"]
    assert raw["problem"].tolist() == [problem]
    assert cleaned["outcome"].tolist() == ["quarantined"]
    assert missing_outcomes(lake.manifests.read(context.round_id), cleaned) == []


def test_a_missing_image_of_an_arrival_is_a_missing_outcome(lake, landed):
    context = context_of(lake)
    _, cleaned = take_in(context)
    objects = lake.manifests.read(context.round_id)
    assert missing_outcomes(objects, cleaned) == []
    assert missing_outcomes(objects, cleaned.drop(index=1)) == ["'a.clip' has 2 outcomes"]
    renamed = cleaned.assign(source_key=["c.clip/000000", *cleaned["source_key"].iloc[1:]])
    assert missing_outcomes(objects, renamed) == [
        "'a.clip' has 2 outcomes", "'c.clip/000000' never landed"
    ]  # fmt: skip


def test_an_arrival_is_erased_as_a_whole_and_refused_as_a_whole(lake, landed):
    context = context_of(lake)
    take_in(context)
    found = find_images("image", sha256(png(1)), lake, near_duplicates=False, bits=0)
    assert found.images == {landed, sha256(png(0)), sha256(png(1))}
    assert [key for key, _, _ in found.landed] == ["a.clip"]
    assert lake.landing.folder.joinpath("a.clip").stat().st_size in found.sizes
    assert all(lake.store.exists(raw_key(each)) for each in found.images)
    alone = find_images("image", sha256(png(2)), lake, near_duplicates=False, bits=0)
    assert alone.images == {sha256(png(2))}

    Erasures(lake.store).add([sha256(png(1))], reason="asked", by="ada", now=datetime.now(UTC))
    raw = ingest(context).raw_images
    assert raw["source_key"].tolist() == ["a.clip", "b.png"]
    assert raw["problem"].iloc[0].endswith("it is not taken in again")
