"""The store that dataset versions are published to."""

from pathlib import Path

import dagster as dg

from annotation_platform.versioning.store import VersionStore


class VersionStoreResource(dg.ConfigurableResource[VersionStore]):
    """A git repository for the versions and a DVC remote for their files."""

    registry: str  # path or address
    remote_url: str
    source_root: str
    mirrors: str  # folder

    def create_resource(self, context: dg.InitResourceContext) -> VersionStore:
        """Return the store, without opening it."""
        return VersionStore(
            self.registry, self.remote_url, Path(self.source_root), Path(self.mirrors)
        )
