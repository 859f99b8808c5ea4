"""The lake, the policy and the IO manager that keeps tables in the lake."""

from pathlib import Path

import dagster as dg
import pandas as pd

from annotation_platform.lake import Lake, open_lake
from annotation_platform.params import Params, read_params


class LakeResource(dg.ConfigurableResource[Lake]):
    """The lake in a folder, and the landing folder it takes images from."""

    lake: str
    landing: str

    def create_resource(self, context: dg.InitResourceContext) -> Lake:
        """Return the lake."""
        return open_lake(Path(self.lake), Path(self.landing))


class PolicyResource(dg.ConfigurableResource[Params]):
    """The policy, read anew for each run: an edit of ``params.yaml`` needs no restart."""

    path: str

    def create_resource(self, context: dg.InitResourceContext) -> Params:
        """Return the checked policy."""
        return read_params(Path(self.path))


class TableIOManager(dg.ConfigurableIOManager):
    """Keeps each asset's table as Parquet in the lake, one file a round, checked both ways."""

    lake: str

    def handle_output(self, context: dg.OutputContext, obj: pd.DataFrame) -> None:
        """Write the round's table and note its digest."""
        tables = open_lake(Path(self.lake), Path()).tables
        digest = tables.write(context.asset_key.path[-1], context.partition_key, obj)
        context.add_output_metadata({"rows": len(obj), "table_digest": digest[:16]})

    def load_input(self, context: dg.InputContext) -> pd.DataFrame:
        """Return the round's table; NotReadyError if it was not materialised yet."""
        tables = open_lake(Path(self.lake), Path()).tables
        return tables.read(context.asset_key.path[-1], context.partition_key)
