import hashlib

import numpy as np
import pandas as pd
import pytest
from scipy.stats import binom

from annotation_platform.curation.drift import DriftSample, measure_drift

CLASSES = ["boat", "buoy", "lorry"]


def drawn(
    name, count, rng, *, light=120.0, shares=(0.6, 0.3, 0.1), place=0.0, side=640, objects=4.0
):
    """Return a batch of images of a kind; ``place`` moves their looks."""
    ids = [hashlib.sha256(f"{name} {number}".encode()).hexdigest() for number in range(count)]
    images = pd.DataFrame(
        {
            "image_id": ids,
            "brightness": np.clip(rng.normal(light, 20.0, count), 0, 255),
            "sharpness": rng.lognormal(5.0, 0.5, count),
            "entropy": np.clip(rng.normal(6.5, 0.4, count), 0, 8),
            "width": side,
            "height": rng.choice([480, 512], count),
        }
    )
    vectors = rng.normal(0.0, 1.0, (count, 16)) * 0.2 + np.eye(16)[0] + place * np.eye(16)[1]
    rows = [
        (image_id, str(kind), 1.0)
        for image_id in ids
        # Objects of one image are correlated.
        for kind in rng.choice(
            CLASSES, p=rng.dirichlet(np.array(shares) * 4), size=rng.poisson(objects)
        )
    ]
    labels = pd.DataFrame(rows, columns=["image_id", "class_name", "weight"])
    return DriftSample(images, pd.DataFrame({"image_id": ids, "vector": list(vectors)}), labels)


def drift(batch, reference, seed=0, **options):
    rng = np.random.default_rng(seed)
    return measure_drift(batch, reference, round_id="round-0002", rng=rng, **options)


@pytest.mark.parametrize(
    ("change", "drifted"),
    [
        pytest.param({"light": 60.0}, ["brightness"], id="darker"),
        pytest.param({"shares": (0.1, 0.3, 0.6)}, ["classes"], id="a class surges"),
        pytest.param({"place": 1.5}, ["appearance"], id="another scene"),
        pytest.param({"side": 1280}, ["aspect", "pixels"], id="another camera"),
        pytest.param({"objects": 12.0}, ["objects"], id="crowded"),
        pytest.param({}, [], id="more of the same"),
    ],
)
def test_what_changed_is_named_and_nothing_else(change, drifted):
    rng = np.random.default_rng(3)
    known, new = drawn("known", 200, rng), drawn("new", 60, rng, **change)
    found = drift(new, known)
    assert sorted(found.drifted) == drifted
    assert ("differs" in found.sentence) == bool(drifted)


@pytest.mark.long
def test_a_batch_of_the_same_kind_seldom_raises_an_alarm():
    rng = np.random.default_rng(0)
    alarms = sum(
        bool(
            drift(drawn("n", 40, rng), drawn("k", 80, rng), n, level=0.1, minimum_effect=0).drifted
        )
        for n in range(200)
    )
    assert alarms <= binom.ppf(0.999, 200, 0.1)


def test_a_trifle_is_no_drift_however_many_images_show_it():
    rng = np.random.default_rng(1)
    found = drift(drawn("new", 3000, rng, light=123.0), drawn("known", 3000, rng))
    brightness = found.features.set_index("feature").loc["brightness"]
    assert brightness["p_value"] < 0.001
    assert not brightness["drifted"]


def test_an_image_unlike_all_others_is_named_with_the_reason():
    rng = np.random.default_rng(2)
    known, new = drawn("known", 200, rng), drawn("new", 40, rng)
    unlike, dark = new.images["image_id"].iloc[7], new.images["image_id"].iloc[11]
    new.vectors.at[7, "vector"] = -np.eye(16)[0]
    new.images.loc[11, "brightness"] = 2.0
    found = drift(new, known)
    outliers = found.outliers.set_index("image_id")["reason"]
    assert outliers.index[0] == unlike
    assert "unlike every known image" in outliers[unlike]
    assert "brightness 2" in outliers[dark]
    # One in a hundred known images is as far from the others.
    assert len(outliers) <= 6
    assert found.drifted == []


def test_the_order_of_rows_does_not_matter():
    rng = np.random.default_rng(4)
    known, new = drawn("known", 100, rng), drawn("new", 30, rng, light=90.0)
    turned = DriftSample(*(frame.iloc[::-1] for frame in (new.images, new.vectors, new.labels)))
    first, again = drift(new, known), drift(turned, known)
    pd.testing.assert_frame_equal(first.features, again.features)
    pd.testing.assert_frame_equal(first.outliers, again.outliers)


def test_without_known_images_there_is_no_drift():
    rng = np.random.default_rng(5)
    new = drawn("new", 10, rng)
    nothing = DriftSample(new.images.head(0), new.vectors.head(0), new.labels.head(0))
    assert drift(new, nothing).sentence == (
        "There are no earlier images to compare this round with."
    )
    assert drift(nothing, new).drifted == []


def test_vectors_without_numbers_and_images_without_objects_are_no_obstacle():
    rng = np.random.default_rng(6)
    known, new = drawn("known", 50, rng), drawn("new", 20, rng, objects=0.0)
    new.vectors.at[0, "vector"] = np.full(16, np.nan)
    found = drift(new, known)
    assert found.drifted == ["objects"]
    assert np.isfinite(found.features["effect"]).all()
