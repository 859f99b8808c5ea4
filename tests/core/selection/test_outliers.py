import numpy as np

from annotation_platform.selection.outliers import FLAGGED, outlier_scores


def unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_planted_outliers_are_flagged_and_hardly_anything_else():
    flagged = np.zeros(2)
    for seed in range(20):
        rng = np.random.default_rng(seed)
        middle = rng.normal(size=64) * 2
        vectors = unit(
            np.concatenate([rng.normal(size=(1000, 64)) + middle, rng.normal(size=(8, 64))])
        )
        found = outlier_scores(vectors, rng) >= FLAGGED
        flagged += [found[:1000].sum(), found[1000:].sum()]
    # 160 are planted among 20,000.
    assert flagged[1] >= 150
    assert flagged[0] <= 20


def test_of_what_is_all_alike_the_one_that_differs_is_an_outlier():
    vectors = np.tile(np.array([[1.0, 0.0, 0.0]], dtype=np.float32), (50, 1))
    vectors += np.random.default_rng(0).normal(0, 1e-3, vectors.shape).astype(np.float32)
    vectors[17] = [0.0, 1.0, 0.0]
    scores = outlier_scores(vectors, np.random.default_rng(0))
    assert np.flatnonzero(scores >= FLAGGED).tolist() == [17]


def test_too_few_images_have_no_outlier():
    vectors = np.eye(19, dtype=np.float32)
    assert (outlier_scores(vectors, np.random.default_rng(0)) == 0).all()
