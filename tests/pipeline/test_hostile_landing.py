"""Everything that a hostile world lands, in one round: nothing crashes, and the books add up."""

import os
import shutil
import socket

import pytest

from annotation_platform.ingestion.inspect import inspect_files
from annotation_platform.policy import read_policy
from annotation_platform.schema.tables import CleanedImages
from tests.invariants import check_account, check_idempotent


@pytest.fixture
def evil(platform, public):
    """The landing folder with hostile files, links and devices; none of the demonstration's."""
    landing = platform.lake.landing.folder
    shutil.copytree(public("evil"), landing, dirs_exist_ok=True)
    (landing / "link.jpg").symlink_to("/etc/hostname")
    (landing / "loop").symlink_to(landing)
    os.mkfifo(landing / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(landing / "socket.jpg"))
    return landing


def test_each_hostile_file_ends_in_one_way_and_as_the_dry_run_said(platform, evil):
    text = platform.settings.policy_path.read_text()
    # The JSON files among them wait for images of their name, and not for long.
    text = text.replace("maximum_wait_seconds: ", "maximum_wait_seconds: 0 # ")
    platform.settings.policy_path.write_text(text)
    policy = read_policy(platform.settings.policy_path).cleaning
    said = {row.path: row for row in inspect_files(evil, policy)}
    platform.start_round()
    account = check_account(platform.lake)
    assert account.pending == 0
    assert account.landed > 60
    assert account.landed == len([row for row in said.values() if row.outcome != "pending"])
    cleaned = platform.lake.tables.read(CleanedImages, "round-0001")
    for row in cleaned.itertuples():
        assert (row.outcome, row.reason) == (
            said[row.source_key].outcome,
            said[row.source_key].reason,
        )
    check_idempotent(platform.lake, policy)
