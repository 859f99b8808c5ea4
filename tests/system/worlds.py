"""A registry, a remote and a lake of random images, as one publisher sees them."""

import hashlib
import random
import shutil
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.shapes import NOTHING, Label
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.versioning.publisher import Published, VersionInputs, publish_version
from annotation_platform.versioning.registry import make_registry

PROJECT = Path(__file__).resolve().parents[2]
ONTOLOGY = Ontology.from_names(["Würfel", "ball"])
PARAMS = "seed: 7\n"


@dataclass
class World:
    """A lake, a source tree, a registry and a remote, as one publisher sees them."""

    root: Path
    ontology: Ontology = ONTOLOGY
    params: str = PARAMS
    rows: list[dict[str, object]] = field(default_factory=list)

    def __post_init__(self):
        source = self.root / "source"
        if not source.exists():
            (source / ".dvc").mkdir(parents=True)
            for name in ["dvc.yaml", ".dvc/config", ".dvc/.gitignore", ".gitignore"]:
                shutil.copy(PROJECT / name, source / name)
            (source / "params.yaml").write_text("seed: 0\ntraining: {}\n")
            (source / "code.py").write_text("print('this made it')\n")
            (self.root / "lake").mkdir()
        if not self.registry.exists():
            make_registry(self.registry, source, PARAMS, remote_url=str(self.root / "remote"))

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    def add_images(self, first: int, count: int) -> None:
        for number in range(first, first + count):
            data = random.Random(number).randbytes(2000)
            labels = [Label.box("ball", 1, 2, 30 + number, 40)] if number % 5 else []
            self.add_image(data, "jpg", 640, 480, labels)

    def add_image(self, data: bytes, extension: str, width: int, height: int, labels) -> None:
        """Put an image into the lake and its labels into the table."""
        number = len({row["image_id"] for row in self.rows})
        image_id = hashlib.sha256(data).hexdigest()
        (self.root / "lake" / f"{image_id}.{extension}").write_bytes(data)
        for at, label in enumerate(labels or [NOTHING]):
            self.rows.append(
                {
                    "round_id": "round-0001",
                    "image_id": image_id,
                    "split": ["train", "train", "val", "test"][number % 4],
                    "group_id": image_id,
                    "width": width,
                    "height": height,
                    "extension": extension,
                    "stored_md5": hashlib.md5(data).hexdigest(),
                    "stored_bytes": len(data),
                    "label_id": f"{image_id}-{at}",
                    "origin": "people",
                    "support": 1,
                    "annotations": 1,
                    "other_metadata": "",
                    "class_id": self.ontology.id_of.get(label.class_name),
                    **vars(label),
                }
            )

    def image_path(self, image_id: str, extension: str) -> Path:
        return self.root / "lake" / f"{image_id}.{extension}"

    @property
    def table(self) -> pd.DataFrame:
        return TrainingSet.from_rows(self.rows)

    def publish(
        self, *, table=None, registry=None, remote=None, weights=(), image_path=None
    ) -> Published:
        return publish_version(
            registry or self.registry,
            VersionInputs(
                training_set=self.table if table is None else table,
                ontology=self.ontology,
                params_text=self.params,
                policy_digest="b" * 64,
                rounds={"round-0001": "a" * 64},
                weights=list(weights),
            ),
            remote_url=str(remote or self.root / "remote"),
            source_root=self.root / "source",
            image_path=image_path or self.image_path,
            now=datetime(2026, 11, 20, 12, 0, tzinfo=UTC),
        )
