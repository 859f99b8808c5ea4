"""What a source landed: by its sidecars, by its folder, and what others landed as well."""

import pandas as pd

from annotation_platform.ingestion.sources import arrived_from, arrived_only_from

ROWS = [
    ("camera-1/a.jpg", None, "a"),
    ("camera-10/b.jpg", None, "b"),
    ("upload/c.jpg", "camera-1", "c"),
    ("camera-1/d.jpg", "camera-2", "d"),
    ("upload/d-again.jpg", None, "d"),
]
LANDED = pd.DataFrame(ROWS, columns=["source_key", "source", "image_id"])


def test_a_source_is_a_folder_or_what_sidecars_say():
    for name in ("camera-1", "camera-1/"):
        assert LANDED["source_key"][arrived_from(LANDED, name)].tolist() == [
            "camera-1/a.jpg",
            "upload/c.jpg",
            "camera-1/d.jpg",
        ]


def test_what_landed_without_a_sidecar_landed_from_elsewhere_as_well():
    typed = LANDED.astype({"source": "string"})
    for landed in (LANDED, typed):
        assert arrived_only_from(landed, "camera-1") == ({"a", "c"}, {"d"})
