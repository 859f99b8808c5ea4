"""Lost files of versions, found in the lake again."""

from annotation_platform.errors import AnnotationPlatformError
from annotation_platform.policy import parse_policy
from annotation_platform.schema.keys import image_key
from annotation_platform.schema.tables import DatasetVersions, TrainingSet
from annotation_platform.storage.lake import Lake
from annotation_platform.versioning.folder import build_folder
from annotation_platform.versioning.objects import IMAGE_PATH, name_objects
from annotation_platform.versioning.store import VersionStore
from annotation_platform.versioning.uploading import Source


class LakeMender:
    """Finds lost files of versions in the lake: images by their id, the rest rendered again.

    Args:
        lake: where images and tables are.
        versions: where the versions are.
    """

    def __init__(self, lake: Lake, versions: VersionStore) -> None:
        self._lake = lake
        self._versions = versions
        self._rendered: dict[str, Source] | None = None

    def __call__(self, path: str, md5: str) -> Source | None:
        """Return where the content of a file of a version can be had, or None."""
        image = IMAGE_PATH.fullmatch(path)
        if image and self._lake.store.exists(image_key(image["image"], image["extension"])):
            stored = self._lake.image_path(image["image"], image["extension"])
            return Source(stored, f"image {image['image']}")
        if self._rendered is None:
            self._rendered = self._render()
        return self._rendered.get(md5)

    def _render(self) -> dict[str, Source]:
        """Return what the training sets of the lake render to, under the policies of then."""
        found: dict[str, Source] = {}
        tables, git = self._lake.tables, self._versions.open()
        for round_id in tables.rounds(DatasetVersions):
            tag = str(tables.read(DatasetVersions, round_id).iloc[0]["tag"])
            text = git.read(tag, "params.yaml")
            if text is None:
                continue
            ontology = parse_policy(text.decode(), where=f"{tag}: params.yaml").ontology
            try:
                frame = tables.read(TrainingSet, round_id)
                folder = build_folder(frame, ontology, name=tag.partition("@")[0])
            except AnnotationPlatformError:
                # Rebuilt since then, or deleted: it cannot repair this version.
                continue
            found |= name_objects(folder, self._lake.image_path).texts
        return found
