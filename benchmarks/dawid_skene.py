"""Dawid–Skene beside crowd-kit 1.4.2: CPU seconds for the same iterations, and the same labels.

    python benchmarks/dawid_skene.py --peer-python /tmp/crowdkit/bin/python
    python benchmarks/dawid_skene.py --peer-python /tmp/crowdkit/bin/python --numbers

Both get the same table of answers in memory, make the same number of iterations from the shares of
the votes, without priors, and give a label per task; reading and imports are left out. One thread
each. They take turns; of each pair the ratio is taken, and of the ratios the median, so that other
work on the machine disturbs little. With ``--numbers`` crowd-kit gets ids as integers, which it
handles faster; ours always gets strings. crowd-kit computes its bound in each iteration, which
cannot be turned off. Labels are compared where the two likeliest classes are not equally likely:
ties it breaks its own way.

crowd-kit does not share our dependencies, so it runs in its own environment; what it needs for
texts and images may be left out of it:

    uv venv /tmp/crowdkit && uv pip install --python /tmp/crowdkit --no-deps crowd-kit==1.4.2
    uv pip install --python /tmp/crowdkit numpy pandas attrs scikit-learn nltk tqdm
"""

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

THREADS = dict.fromkeys(
    ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"], "1"
)
os.environ.update(THREADS)

import numpy as np  # noqa: E402
import pandas as pd  # noqa: E402

from annotation_platform.consensus.annotations import encode  # noqa: E402
from annotation_platform.consensus.dawid_skene import dawid_skene  # noqa: E402

PEER = """
import json, sys, time
import numpy as np, pandas as pd
from crowdkit.aggregation import DawidSkene

folder, iterations, kind = sys.argv[1], int(sys.argv[2]), sys.argv[3]
codes = np.load(f"{folder}/codes.npy")
answers = pd.DataFrame(codes, columns=["task", "worker", "label"])
if kind == "strings":
    for name in answers:
        answers[name] = name[0] + answers[name].astype(str).str.zfill(7)
start = time.process_time()
model = DawidSkene(n_iter=iterations, tol=-np.inf).fit(answers)
spent = time.process_time() - start
order = model.probas_.sort_index().sort_index(axis=1)
np.save(f"{folder}/peer.npy", order.to_numpy())
json.dump({"cpu": spent, "iterations": len(model.loss_history_)}, open(f"{folder}/peer.json", "w"))
"""


def crowd(count, classes, workers, on_each, seed):
    """Return ``(count, 3)`` codes of task, worker and label; each worker has an accuracy."""
    rng = np.random.default_rng(seed)
    task = np.repeat(np.arange(count // on_each), on_each)
    # Different workers on a task: a random first one, and steps that do not meet.
    first = rng.integers(workers, size=count // on_each)
    worker = (np.repeat(first, on_each) + np.tile(np.arange(on_each) * 7, len(first))) % workers
    truth = np.repeat(rng.integers(classes, size=count // on_each), on_each)
    right = rng.random(len(task)) < rng.uniform(0.4, 0.95, workers)[worker]
    wrong = (truth + rng.integers(1, classes, size=len(task))) % classes
    return np.stack([task, worker, np.where(right, truth, wrong)], axis=1)


def as_strings(codes):
    """Return the table of answers, ids as strings that sort like their numbers."""
    return pd.DataFrame(
        {
            name: pd.Series(name[0] + pd.Series(codes[:, at]).astype("str").str.zfill(7))
            for at, name in enumerate(["task", "worker", "label"])
        }
    )


def ours(annotations, iterations):
    """Return CPU seconds from the table to the labels, of those to code it, and the posteriors."""
    gc.collect()
    start = time.process_time()
    votes = encode(annotations)
    coded = time.process_time() - start
    fit = dawid_skene(
        votes, diagonal=0.0, off_diagonal=0.0, class_prior=0.0, iterations=iterations, tolerance=0
    )
    return time.process_time() - start, coded, fit


def theirs(python, folder, iterations, kind):
    """Return crowd-kit's CPU seconds and posteriors."""
    script = Path(folder, "peer.py")
    script.write_text(PEER)
    command = [python, "-W", "ignore", script, folder, str(iterations), kind]
    subprocess.run(command, check=True, env={**os.environ, **THREADS})
    facts = json.loads(Path(folder, "peer.json").read_text())
    if facts["iterations"] != iterations:
        sys.exit(f"crowd-kit made {facts['iterations']} iterations instead of {iterations}")
    return facts["cpu"], np.load(Path(folder, "peer.npy"))


def same_labels(mine, other):
    """Return the tasks that can be compared, and on how many of them the labels differ."""
    largest = np.sort(other, axis=1)
    clear = largest[:, -1] - largest[:, -2] > 1e-6
    return int(clear.sum()), int((mine.argmax(axis=1) != other.argmax(axis=1))[clear].sum())


def main():
    """Time pairs of runs and print the median ratio."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--answers", type=int, default=1_000_000)
    options.add_argument("--classes", type=int, default=10)
    options.add_argument("--workers", type=int, default=1000)
    options.add_argument("--on-each", type=int, default=5, help="answers on a task")
    options.add_argument("--iterations", type=int, default=20)
    options.add_argument("--pairs", type=int, default=5)
    options.add_argument("--peer-python", help="python of an environment with crowd-kit")
    options.add_argument("--numbers", action="store_true", help="crowd-kit gets integers")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    codes = crowd(chosen.annotations, chosen.classes, chosen.workers, chosen.on_each, chosen.seed)
    annotations = as_strings(codes)
    print(
        f"{len(annotations):,} answers, {chosen.classes} classes, {chosen.workers:,} workers, "
        f"{codes[:, 0].max() + 1:,} tasks, {chosen.iterations} iterations"
    )
    ours(annotations.head(100_000), 2)
    mine, ratios = [], []
    with tempfile.TemporaryDirectory() as folder:
        np.save(Path(folder, "codes.npy"), codes)
        for _ in range(chosen.pairs):
            cpu, coded, fit = ours(annotations, chosen.iterations)
            mine.append(cpu)
            said = f"ours {cpu:.2f} s of CPU, of which {coded:.2f} to code the table"
            if chosen.peer_python:
                kind = "numbers" if chosen.numbers else "strings"
                peer, other = theirs(chosen.peer_python, folder, chosen.iterations, kind)
                clear, different = same_labels(fit.posterior, other)
                ratios.append(peer / cpu)
                said += (
                    f"; crowd-kit {peer:.2f} s, {ratios[-1]:.1f} × ours; of {clear:,} labels "
                    f"{different} differ, posteriors by {np.abs(fit.posterior - other).max():.1e}"
                )
            print(said, flush=True)
    print(f"ours: {statistics.median(mine):.2f} s of CPU in the median")
    if ratios:
        print(f"crowd-kit: {statistics.median(ratios):.1f} × our CPU seconds in the median")
    else:
        print("crowd-kit was not run: name its python with --peer-python")


if __name__ == "__main__":
    main()
