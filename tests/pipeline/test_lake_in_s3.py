"""A lake in S3, by configuration alone: the same bytes, digests and versions as in a folder."""

import os

import pytest

from annotation_platform.schema.tables import DatasetVersions
from tests.pipeline.conftest import open_platform

# What names the run or the hour, and not the data, is left out.
SAME = ("raw/", "images/", "landed/", "manifests/", "signatures/", "tables/raw_images/",
        "tables/cleaned_images/", "tables/image_embeddings/", "tables/selected_images/",
        "tables/training_set/", "tables/splits/")  # fmt: skip


def whole_round(platform):
    platform.start_round()
    platform.annotate("round-0001")
    platform.release("round-0001", platform.merge("round-0001"))
    keys = [key for part in SAME for key in platform.lake.store.list(part.rstrip("/"))]
    version = platform.lake.tables.read(DatasetVersions, "round-0001").iloc[0]
    return {key: platform.lake.store.get(key) for key in keys}, version["folder_md5"]


def same_bytes_in_a_folder_and_in(bucket, tmp_path):
    """Land one batch in a folder and let two lakes take it; then land it in S3 as well."""
    landing = tmp_path / "landing"
    with open_platform(tmp_path / "one", landing=str(landing)) as in_folder:
        in_folder.land(1)
        for path in landing.rglob("*.*"):
            os.utime(path, (1, 1))
        there, folder_md5 = whole_round(in_folder)
    assert len(there) > 20
    lake = f"s3://{bucket}/lake"
    with open_platform(tmp_path / "two", landing=str(landing), lake=lake) as in_s3:
        assert whole_round(in_s3) == (there, folder_md5)
    places = {"landing": f"s3://{bucket}/in", "lake": f"s3://{bucket}/other"}
    with open_platform(tmp_path / "three", **places) as all_s3:
        all_s3.land(1)
        # Landed in S3, files have other stamps; the version is the same.
        assert whole_round(all_s3)[1] == folder_md5
    assert not (tmp_path / "three" / "lake").exists()


@pytest.mark.long
def test_a_lake_in_s3_holds_the_same_bytes_as_one_in_a_folder(tmp_path, s3_bucket):
    same_bytes_in_a_folder_and_in(s3_bucket, tmp_path)


def test_no_secret_gets_into_the_lake_or_what_dagster_keeps(tmp_path, s3_bucket, caplog, capfd):
    with open_platform(tmp_path, lake=f"s3://{s3_bucket}/lake") as platform:
        platform.land(1)
        whole_round(platform)
        records = platform.instance.get_run_records()
        told = [str(platform.instance.all_logs(each.dagster_run.run_id)) for each in records]
        told += [str(each.dagster_run) for each in records]
        secret = os.environ["AWS_SECRET_ACCESS_KEY"]
        kept = [platform.lake.store.get(key) for key in platform.lake.store.list("")]
    files = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    said = [caplog.text, *capfd.readouterr(), *told]
    assert len(told) > 3
    assert not [text for text in said if secret in text]
    assert not [data for data in [*kept, *files] if secret.encode() in data]
