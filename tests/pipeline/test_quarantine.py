"""What cleaning keeps out, a person can put back: it comes with the next round."""

import io
import json

import numpy as np
from PIL import Image

from annotation_platform.demo.scenes import draw_batch
from annotation_platform.policy import read_policy
from annotation_platform.schema.keys import raw_key
from annotation_platform.schema.tables import CleanedImages, LabelTasks
from sensors.landing import new_images_sensor
from tests.commands import run_command
from tests.invariants import check_account, check_idempotent


def jpeg(pixels):
    sink = io.BytesIO()
    Image.fromarray(pixels).save(sink, "JPEG", quality=90)
    return sink.getvalue()


def command(platform, *arguments):
    environment = {"ANNOTATION_HOME": str(platform.settings.home_path)}
    return run_command("quarantine", *arguments, environment=environment)


def test_a_image_put_back_is_accepted_in_the_next_round(platform):
    sound = draw_batch(1, 1, seed=5).files
    dark = jpeg(np.random.default_rng(0).integers(0, 6, (200, 300, 3), dtype=np.uint8))
    limit = max(len(data) for data in (dark, *sound.values()))
    bad = {"dark.jpg": dark, "broken.jpg": dark[:-200], "large.jpg": dark + bytes(limit)}
    for name, data in {**sound, **bad}.items():
        platform.lake.landing.put(name, data)
    policy = platform.settings.policy_path
    policy.write_text(policy.read_text().replace("minimum_images: ", "minimum_images: 1 # "))
    # Three of four files are quarantined, and half of them may be.
    limits = {"maximum_bytes": limit, "maximum_quarantined_share": 0.5}
    platform.change_policy(cleaning=limits)
    platform.tick(new_images_sensor)
    stopped = platform.run("start_round", "round-0001", raise_on_error=False)
    checks = {each.check_name: each.passed for each in stopped.get_asset_check_evaluations()}
    assert (stopped.success, checks["quarantine_within_limit"]) == (False, False)
    assert not platform.lake.tables.exists(LabelTasks, "round-0001")
    platform.change_policy(cleaning={"maximum_quarantined_share": 0.75})
    platform.start_round()
    rows = json.loads(command(platform, "list", "--json").stdout)["quarantine"]
    ids = {row["source_key"]: row["image_id"] for row in rows}
    reasons = {row["source_key"]: row["reason"] for row in rows}
    assert reasons["dark.jpg"].startswith("too dark: mean ")
    assert reasons["broken.jpg"].startswith("damaged image")
    assert reasons["large.jpg"].startswith("too many bytes")

    refused = command(platform, "restore", ids["broken.jpg"])
    assert (refused.returncode, "cannot be decoded" in refused.stderr) == (2, True)
    unknown = command(platform, "restore", "12345678")
    assert (unknown.returncode, "quarantine list" in unknown.stderr) == (2, True)
    shown = platform.settings.home_path / "shown.jpg"
    assert command(platform, "show", ids["dark.jpg"], "--out", shown).returncode == 0
    assert shown.read_bytes() == dark
    done = command(platform, "restore", ids["dark.jpg"][:12], "--reason", "a night shot")
    assert "the next round takes it" in done.stdout
    # Putting it back twice is putting it back once, and the first reason stays.
    again = command(platform, "restore", ids["dark.jpg"], "--reason", "again", "--json")
    assert json.loads(again.stdout)["reason"] == "a night shot"

    platform.start_round("round-0002")
    cleaned = platform.lake.tables.read(CleanedImages, "round-0002")
    assert cleaned[["image_id", "outcome", "source_key"]].to_numpy().tolist() == [
        [ids["dark.jpg"], "accepted", "dark.jpg"]
    ]
    assert "released" in cleaned["flags"].iloc[0].split(",")
    asked = platform.lake.tables.read(LabelTasks, "round-0002")
    assert set(asked["image_id"]) == {ids["dark.jpg"]}
    # Every use of the lake by a run or a command is written down.
    lines = [
        json.loads(line)
        for path in platform.settings.audit_path.glob("*.jsonl")
        for line in path.read_text().splitlines()
    ]
    runs = {each.dagster_run.run_id for each in platform.instance.get_run_records()}
    assert {line["run"] for line in lines if "run" in line} == runs
    assert all("run" in line or "command" in line for line in lines)
    stored = {line["key"]: line.get("asset") for line in lines if line["action"] == "create"}
    assert stored[raw_key(ids["dark.jpg"])] == "raw_images"
    is_accepted = command(platform, "restore", ids["dark.jpg"])
    assert "accepted already" in is_accepted.stderr
    check_account(platform.lake)
    check_idempotent(platform.lake, read_policy(policy).cleaning)
