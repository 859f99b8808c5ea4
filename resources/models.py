"""The registry of model weights."""

from pathlib import Path

import dagster as dg

from annotation_platform.models.registry import ModelRegistry


class ModelRegistryResource(dg.ConfigurableResource[ModelRegistry]):
    """The folder of the model registry, with weights by digest."""

    folder: str

    def create_resource(self, context: dg.InitResourceContext) -> ModelRegistry:
        """Return the registry; torch is imported only when weights are loaded."""
        return ModelRegistry(Path(self.folder))
