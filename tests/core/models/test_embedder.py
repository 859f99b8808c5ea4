import numpy as np
import pytest
from PIL import Image

from annotation_platform.errors import ModelError
from annotation_platform.images.embedding import ImageEmbedder
from annotation_platform.models.cards import RESNET50_FCOS, SMALL_FCOS, ModelCard
from annotation_platform.models.embedder import ModelEmbedder, embedder_for
from annotation_platform.models.registry import ModelRegistry


def registered(folder, architecture=SMALL_FCOS, *, seed=0, promote=True):
    """Return a registry with an untrained network, and its digest."""
    import torch

    from annotation_platform.models.detection.networks import build_network
    from annotation_platform.models.weight_files import DETECTOR_FILES

    torch.manual_seed(seed)
    network = build_network(architecture, classes=2)
    names = ("blue", "red")
    state = DETECTOR_FILES.write(network, architecture=architecture, class_names=names, side=96)
    card = ModelCard(
        architecture=architecture, class_names=names, image_width=96, dataset_tag="v1",
        started_from="", train_images=1, cpu_seconds=1.0, seed=seed, policy_digest="0" * 64,
    )  # fmt: skip
    registry = ModelRegistry(folder)
    sha256 = registry.add(state, card)
    if promote:
        registry.promote(sha256, "the only one")
    return registry, sha256


def images(count, seed=0):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(30, 90, (count, 2))
    return [rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in sizes]


@pytest.mark.parametrize(("architecture", "length"), [(SMALL_FCOS, 256), (RESNET50_FCOS, 2048)])
def test_a_vector_is_of_unit_length_and_of_its_image_alone(tmp_path, architecture, length):
    registry, sha256 = registered(tmp_path, architecture)
    embedder = ModelEmbedder.from_registry(registry, sha256)
    assert embedder.name == f"{architecture}@{sha256}"
    given = images(3)
    vectors = embedder.embed(given)
    assert vectors.shape == (3, length)
    assert vectors.dtype == np.float32
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1.0)
    assert (embedder.embed(given[::-1]) == vectors[::-1]).all()
    assert (embedder.embed(given[1:2])[0] == vectors[1]).all()


def test_vectors_of_similar_images_are_closer_than_others(tmp_path):
    registry, _ = registered(tmp_path)
    rng = np.random.default_rng(2)
    shapes = [Image.fromarray(rng.integers(0, 255, (4, 6, 3), dtype=np.uint8)) for _ in range(2)]
    large = [np.asarray(shape.resize((96, 64), Image.Resampling.BICUBIC)) for shape in shapes]
    again = [np.clip(one + rng.normal(0, 3, one.shape), 0, 255).astype(np.uint8) for one in large]
    vectors = embedder_for("model", registry).embed([*large, *again])
    signature = vectors[:2] @ vectors[2:].T
    assert signature[0, 0] > signature[0, 1]
    assert signature[1, 1] > signature[1, 0]


def test_policy_selects_the_embedder_and_there_is_one_before_the_first_model(tmp_path):
    registry, sha256 = registered(tmp_path, promote=False)
    assert isinstance(embedder_for("model", registry), ImageEmbedder)
    registry.promote(sha256, "the first")
    assert embedder_for("model", registry).name == f"{SMALL_FCOS}@{sha256}"
    assert embedder_for("image", registry).name == "dct-colour-1"


def test_damaged_weights_are_refused(tmp_path):
    registry, sha256 = registered(tmp_path)
    path = registry.weights_path(sha256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(ModelError, match="changed or damaged"):
        embedder_for("model", registry)
