"""A further asset is a table, a use case and a declaration; a check a condition and a verdict."""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
import pytest

from annotation_platform.ingestion.lake import lake_of
from annotation_platform.pipeline.context import RoundContext
from annotation_platform.pipeline.ingest import ingest
from annotation_platform.pipeline.result import Result
from annotation_platform.policy import read_policy
from annotation_platform.schema.tables import TABLES, Frame, RawImages
from annotation_platform.schema.tables.shared import ROUND_ID, SOURCE_KEY
from annotation_platform.schema.tables.table import Table, count
from annotation_platform.settings import PROJECT_ROOT, Settings
from assets.checks import _verdict
from assets.making import step
from assets.partitions import rounds
from resources.deployments import build_resources
from tests.core.ingestion.conftest import form_round

LIMIT = 4


class FileSizes(Table, name="file_sizes"):
    """The size of each landed file."""

    round_id = ROUND_ID
    source_key = SOURCE_KEY.as_key()
    byte_size = count("bytes as they landed", unit="bytes")


@dataclass(frozen=True, kw_only=True)
class Measured(Result):
    """The sizes of the files of a round."""

    file_sizes: Frame[FileSizes]


def measure(context: RoundContext, raw_images: Frame[RawImages]) -> Measured:
    """Return the size of each landed file."""
    sizes = raw_images[[RawImages.round_id, RawImages.source_key, RawImages.byte_size]]
    return Measured(
        file_sizes=FileSizes.check(sizes), figures={"largest": int(sizes["byte_size"].max())}
    )


def oversized(sizes):
    """Return the names of files over the limit."""
    return sizes.loc[sizes[FileSizes.byte_size] > LIMIT, FileSizes.source_key].tolist()


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home with one ingested round, and the table declared."""
    monkeypatch.setitem(TABLES, "file_sizes", FileSizes)
    settings = Settings(home=tmp_path)
    lake = lake_of(settings, audited=False)
    lake.landing.put("small.png", b"1234")
    lake.landing.put("large.png", b"12345")
    policy = read_policy(PROJECT_ROOT / "params.yaml")
    context = RoundContext(form_round(lake), lake, policy, datetime.now(UTC))
    lake.tables.write(RawImages, context.round_id, ingest(context).raw_images)
    return settings, lake, context.round_id


def test_a_new_asset_reads_its_table_and_a_new_check_stops_the_run(home):
    settings, lake, round_id = home
    file_sizes = step(
        measure,
        about="The size of each landed file.",
        group="ingestion",
        kinds={"pandas"},
        code_version="1",
    )

    @dg.asset_check(asset="file_sizes", blocking=True)
    def no_oversized_file(file_sizes: Frame[FileSizes]) -> dg.AssetCheckResult:
        return _verdict(oversized(file_sizes), "oversized files", "Compress them.")

    @dg.asset(deps=["file_sizes"], partitions_def=rounds, io_manager_key="memory")
    def after_the_check() -> int:
        return 1

    definitions = dg.Definitions(
        assets=[dg.AssetSpec("raw_images", partitions_def=rounds), file_sizes, after_the_check],
        asset_checks=[no_oversized_file],
        resources={**build_resources(settings), "memory": dg.mem_io_manager},
        jobs=[
            dg.define_asset_job(
                "measure_round", dg.AssetSelection.assets("file_sizes", "after_the_check")
            )
        ],
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("rounds", [round_id])
        result = definitions.resolve_job_def("measure_round").execute_in_process(
            instance=instance, partition_key=round_id, raise_on_error=False
        )
    stored = lake.tables.read(FileSizes, round_id).set_index("source_key")
    assert stored["byte_size"].to_dict() == {"large.png": 5, "small.png": 4}
    (made,) = result.asset_materializations_for_node("file_sizes")
    assert made.metadata["largest"].value == 5
    (evaluated,) = result.get_asset_check_evaluations()
    assert (evaluated.passed, evaluated.description) == (
        False,
        "1 oversized files. Compress them.",
    )
    assert evaluated.metadata["first"].value == ["large.png"]
    assert not result.success
    assert not result.asset_materializations_for_node("after_the_check")
