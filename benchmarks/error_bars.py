"""How often the error bar of a version holds the truth, and how wide it is.

    python benchmarks/error_bars.py

500 simulated versions of each rate of errors, of 4,000 labels in 670 images; images differ in
how hard they are, so errors come together (the design effect is printed: so many times the
variance of independent labels). ``labels`` draws 500 labels one by one, ``images`` whole
images until there are 500 labels. ``naive`` is Clopper and Pearson's interval of the same
images, as if their labels were independent.
"""

import argparse

import numpy as np
import pandas as pd

from annotation_platform.consensus.intervals import ClusteredShare, share_interval
from annotation_platform.curation.error_bars import (
    ALL,
    error_bars,
    image_error_bars,
    plan_label_audit,
)

ROUND = "round-0001"


def version(rate, rng, *, images=670, together=1.2):
    """Return labels of a version with ``wrong``, in images that differ in how hard they are."""
    image = np.repeat(np.arange(images), 1 + rng.poisson(5, images))
    odds = together * rng.normal(size=images)[image]
    for _ in range(30):
        chance = 1 / (1 + np.exp(-odds))
        odds = odds + np.log(rate / chance.mean())
    return pd.DataFrame(
        {
            "label_id": [f"{number:06d}" for number in range(len(image))],
            "image_id": image,
            "shape": "box",
            "class_name": np.where(rng.random(len(image)) < 0.7, "common", "rare"),
            "wrong": rng.random(len(image)) < chance,
        }
    )


def by_label(labels, rng, *, size=500):
    """Return the error bars of labels that are looked at one by one."""
    plan = plan_label_audit(labels, size=size, rng=rng)
    wrong = labels.set_index("label_id")["wrong"].reindex(plan.sample["item"])
    seen = plan.sample[["item"]].assign(wrong=wrong.to_numpy())
    return error_bars(plan, seen, labels, round_id=ROUND)


def by_image(labels, rng, *, size=500):
    """Return the error bars of whole images, and the labels that were looked at."""
    order = rng.permutation(labels["image_id"].unique())
    sizes = labels["image_id"].value_counts().reindex(order).to_numpy()
    drawn = order[: int(np.searchsorted(sizes.cumsum(), size)) + 1]
    seen = labels[labels["image_id"].isin(drawn)]
    return image_error_bars(seen, round_id=ROUND), seen


def main():
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--versions", type=int, default=500)
    asked = parser.parse_args()
    print(f"{'rate':>5} {'effect':>7} {'design':10} {'class':8} {'coverage':>8} {'width':>7}")
    for rate in (0.01, 0.02, 0.05, 0.08, 0.1):
        rng = np.random.default_rng(7)
        found, effects = [], []
        for _ in range(asked.versions):
            labels = version(rate, rng)
            bars, seen = by_image(labels, rng)
            share = seen["wrong"].mean()
            naive = share_interval(ClusteredShare(float(share), float(len(seen))))
            sums = (seen["wrong"] - share).groupby(seen["image_id"]).sum()
            if 0 < share < 1:
                effects.append((sums**2).sum() / len(seen) / (share * (1 - share)))
            truth = labels.groupby("class_name")["wrong"].mean().to_dict()
            truth[ALL] = labels["wrong"].mean()
            rows = [("naive", ALL, naive.low, naive.high)]
            for bar in pd.concat([by_label(labels, rng), bars]).itertuples():
                rows.append((bar.design, bar.class_name, bar.low, bar.high))
            found += [
                (design, name, low <= truth[name] <= high, high - low)
                for design, name, low, high in rows
            ]
        table = pd.DataFrame(found, columns=["design", "class", "covers", "width"])
        for (design, name), cell in table.groupby(["design", "class"]):
            print(
                f"{rate:5.2f} {np.mean(effects):7.2f} {design:10} {name or 'all':8} "
                f"{cell['covers'].mean():8.3f} {cell['width'].median():7.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
