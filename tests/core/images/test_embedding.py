import hashlib

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from annotation_platform.errors import DataError
from annotation_platform.images.decoding import encode_png
from annotation_platform.images.embedding import ImageEmbedder, features_for
from annotation_platform.storage.objects import LocalObjectStore


class Lake:
    """A few images in an object store, and which of them were read."""

    def __init__(self, folder, count=6):
        rng = np.random.default_rng(0)
        self.store, self.read = LocalObjectStore(folder), []
        files = [
            encode_png(rng.integers(0, 255, (24, 32, 3), dtype=np.uint8)) for _ in range(count)
        ]
        self._files = {hashlib.sha256(data).hexdigest(): data for data in files}
        self.images = pd.DataFrame({"image_id": list(self._files), "extension": "png"})

    def load(self, image_id, extension):
        assert extension == "png"
        self.read.append(image_id)
        return self._files[image_id]

    def features(self, images=None, embedder=None):
        images = self.images if images is None else images
        return features_for(
            images,
            embedder or ImageEmbedder(),
            store=self.store,
            load=self.load,
            round_id="round-0002",
        )


class OtherEmbedder:
    """Says of every image only that it is there."""

    def __init__(self, name):
        self.name = name

    def embed(self, images):
        return np.tile(np.array([1.0, 0.0], dtype=np.float32), (len(images), 1))


def test_no_image_is_looked_at_twice_by_one_embedder(tmp_path):
    lake = Lake(tmp_path)
    first = lake.features(lake.images[:4])
    assert sorted(lake.read) == sorted(lake.images["image_id"][:4])
    lake.read.clear()
    everything = lake.features()
    assert sorted(lake.read) == sorted(lake.images["image_id"][4:])
    kept = everything.set_index("image_id")["vector"]
    for image_id, vector in zip(first["image_id"], first["vector"], strict=True):
        assert (kept[image_id] == vector).all()
    assert [np.linalg.norm(vector) for vector in kept] == pytest.approx([1.0] * 6)


def test_a_vector_of_another_model_is_made_anew_and_never_mixed_in(tmp_path):
    lake = Lake(tmp_path)
    for name in ("net@aaaa", "net@bbbb"):
        lake.read.clear()
        found = lake.features(embedder=OtherEmbedder(name))
        assert len(lake.read) == 6
        assert set(found["embedder"]) == {name}
    lake.read.clear()
    assert set(lake.features()["embedder"]) == {"dct-colour-1"}
    assert len(lake.read) == 6
    lake.read.clear()
    again = lake.features(embedder=OtherEmbedder("net@aaaa"))
    assert (np.stack(again["vector"].tolist()) == [1.0, 0.0]).all()
    assert lake.read == []


def test_a_damaged_file_of_vectors_is_refused(tmp_path):
    lake = Lake(tmp_path)
    lake.features()
    (key,) = lake.store.list("features")
    lake.store.put(key, lake.store.get(key)[:-7])
    with pytest.raises(DataError, match=r"changed or damaged\. Delete it"):
        lake.features()


@settings(max_examples=10, deadline=None)
@given(st.permutations(range(6)), st.integers(1, 6))
def test_the_order_of_the_images_does_not_matter(tmp_path_factory, order, count):
    chosen = sorted(order[:count])
    lake = Lake(tmp_path_factory.mktemp("lake"))
    found = lake.features(lake.images.iloc[order[:count]])
    assert found["image_id"].tolist() == sorted(lake.images["image_id"].iloc[chosen])


def test_no_images_have_no_features(tmp_path):
    lake = Lake(tmp_path)
    assert lake.features(lake.images[:0]).empty
    assert list(lake.store.list("features")) == []
