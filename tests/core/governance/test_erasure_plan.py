"""The stored plan of an erasure, also as v0.1.0 wrote it."""

import json
from datetime import UTC, datetime

import pytest

from annotation_platform.governance.erasure.plan import ErasurePlan, read_plan
from annotation_platform.images.signature import signature_rows
from annotation_platform.storage.erasures import PLAN
from annotation_platform.storage.objects import LocalObjectStore
from annotation_platform.versioning.reissue import Move, Reissue


def plan(signatures):
    table = signature_rows(signatures)
    table["image_id"] = ["a" * 64] * signatures
    return ErasurePlan(
        request="image a", reason="asked to", by="ada", at=datetime(2026, 5, 1, tzinfo=UTC),
        images=("a" * 64,) * signatures, landed=(("a.jpg", "1", ""),), sidecars=("b" * 64,),
        sizes=(17,), models=(("c" * 64, "training-set@v1.0.0"),), bits=4, signatures=table,
        tokens={"a" * 64: "d" * 64}, old=("tables/x.parquet",),
        reissue=Reissue(
            versions={"training-set@v1.0.0": 1}, withdrawn=(), moves=(Move("refs/x", "1", "2"),),
            commits={"1": "2"}, folders={"3.dir": "4.dir"}, objects=(("remote", "5"),),
        ),
        done=("moving tags",), counts={"annotations": 3, "named": 1},
    )  # fmt: skip


@pytest.mark.parametrize("signatures", [0, 2])
@pytest.mark.parametrize("release", ["present", "v0.1.0"])
def test_a_stored_plan_is_read_as_it_was_written(tmp_path, signatures, release):
    store = LocalObjectStore(tmp_path)
    written = plan(signatures)
    written.save(store)
    if release == "v0.1.0":
        content = json.loads(store.get(PLAN))
        content["likenesses"] = content.pop("signatures")
        content["asked"] = content.pop("request")
        content["counts"]["answers"] = content["counts"].pop("annotations")
        content["counts"]["asked"] = content["counts"].pop("named")
        store.put(PLAN, json.dumps(content).encode())
    read = read_plan(store)
    assert read.signatures.tobytes() == written.signatures.tobytes()
    fields = [name for name in vars(written) if name != "signatures"]
    assert {name: getattr(read, name) for name in fields} == {
        name: getattr(written, name) for name in fields
    }


def test_without_an_erasure_there_is_no_plan(tmp_path):
    assert read_plan(LocalObjectStore(tmp_path)) is None
