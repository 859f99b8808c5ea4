"""Near-duplicate search beside imagededup 0.3.3, in one run: the same hashes, the same pairs.

    python benchmarks/near_duplicates.py --peer-python /tmp/imagededup/bin/python
    python benchmarks/near_duplicates.py --hashes 1000000
    python benchmarks/near_duplicates.py --signatures 100000

The peer does not share our dependencies, so it runs in its own environment, without torch, which
its hashes do not need:

    uv venv /tmp/imagededup
    uv pip install --python /tmp/imagededup --no-deps imagededup==0.3.3
    uv pip install --python /tmp/imagededup PyWavelets scikit-learn scipy matplotlib tqdm

It takes about three minutes of CPU for 30,000 hashes. Times are CPU seconds of one run, on random
hashes and on skewed ones, as images of one kind have; in both one in fifty repeats another.

Likenesses are of windows of BCCD's 364 images, mirrored now and then, so that very many look
alike; all 42 searches and the comparison of the vectors are timed, and set beside looking at as
many of BCCD's own images.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from annotation_platform.images.near_duplicates import ClosePairs, close_across
from annotation_platform.images.probing import probe_image
from annotation_platform.images.signature import set_signature, signature, signature_rows
from annotation_platform.images.similar_pairs import find_similar
from annotation_platform.policy import CleaningPolicy

BITS = 8
DATA = Path(
    os.environ.get("ANNOTATION_TEST_DATA", Path(__file__).parents[1].parent / "shared" / "data")
)
PEER = """
import json, resource, sys, types
# Its neural networks would need torch, and fetch weights; hashes do not.
sys.modules["imagededup.methods.cnn"] = types.SimpleNamespace(CNN=None)
sys.modules["imagededup.utils.models"] = types.SimpleNamespace(CustomModel=None)
from imagededup.methods import PHash

names = json.load(open(sys.argv[1]))
def cpu():
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
if __name__ == "__main__":
    start = cpu()
    found = PHash(verbose=False).find_duplicates(
        encoding_map=names, max_distance_threshold=int(sys.argv[2]), scores=True
    )
    seconds = cpu() - start
    pairs = sorted({(*sorted((a, b)), int(d)) for a, near in found.items() for b, d in near})
    json.dump({"seconds": seconds, "pairs": pairs}, open(sys.argv[3], "w"))
"""


def random_hashes(count, rng):
    """Return evenly drawn hashes."""
    return rng.integers(0, 2**64, count, dtype=np.uint64)


def skewed_hashes(count, rng):
    """Return hashes whose bits hang together: signs of 64 mixtures of 16 hidden numbers."""
    mixing, offsets = rng.normal(size=(16, 64)), rng.normal(scale=1.5, size=64)
    parts = []
    for start in range(0, count, 100_000):
        rows = min(100_000, count - start)
        values = rng.normal(size=(rows, 16)) @ mixing + offsets
        bits = values + rng.normal(scale=2.0, size=(rows, 64)) > 0
        parts.append(np.packbits(bits, axis=1).view(">u8").ravel().astype(np.uint64))
    return np.concatenate(parts)


def with_repeats(hashes, rng):
    """Return the hashes, distinct, one in fifty being another with a few bits changed."""
    hashes = hashes.copy()
    places = rng.choice(len(hashes), len(hashes) // 50, replace=False)
    copied = hashes[rng.integers(0, len(hashes), len(places))]
    for _ in range(6):
        copied ^= np.uint64(1) << rng.integers(0, 64, len(places), dtype=np.uint64)
    hashes[places] = copied
    return rng.permutation(np.unique(hashes))


def ours(hashes):
    """Return CPU seconds and pairs."""
    start = time.process_time()
    found = close_across(hashes, hashes, bits=BITS)
    # Each pair is found from both sides, as the peer finds it.
    once = found.first < found.second
    pairs = ClosePairs(found.first[once], found.second[once], found.bits[once])
    return time.process_time() - start, pairs


def peers(python, hashes):
    """Return CPU seconds and pairs of imagededup."""
    with tempfile.TemporaryDirectory() as folder:
        given, found = Path(folder, "hashes.json"), Path(folder, "pairs.json")
        given.write_text(
            json.dumps({str(n): f"{int(value):016x}" for n, value in enumerate(hashes)})
        )
        script = Path(folder, "peer.py")
        script.write_text(PEER)
        subprocess.run([python, script, given, str(BITS), found], check=True)
        found = json.loads(found.read_text())
    return found["seconds"], {(*sorted((int(a), int(b))), d) for a, b, d in found["pairs"]}


def windows(paths, count, rng):
    """Return the signatures of windows of these images, in rows."""
    sources = [Image.open(path).convert("RGB").reduce(2) for path in paths]
    rows = signature_rows(count)
    for number, row in enumerate(rows):
        source = sources[rng.integers(len(sources))]
        share = rng.uniform(0.45, 0.8)
        left, top = rng.uniform(0, 1 - share, 2) * source.size
        box = (left, top, left + share * source.width, top + share * source.height)
        window = source.resize((128, 96), Image.Resampling.BILINEAR, box=box)
        if rng.random() < 0.5:
            window = window.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        set_signature(row, f"{number:064x}", signature(np.asarray(window)))
    return rows


def search_signatures(count, seed):
    """Print the time of all searches beside that of looking at as many images."""
    paths = sorted((DATA / "bccd" / "BCCD" / "JPEGImages").glob("*.jpg"))
    if not paths:
        sys.exit(f"The images of BCCD are not at {DATA}; set ANNOTATION_TEST_DATA.")
    policy = CleaningPolicy()
    files = [path.read_bytes() for path in paths]
    start = time.process_time()
    for data in files:
        probe_image(data, policy)
    each = (time.process_time() - start) / len(files)
    rows = windows(paths, count, np.random.default_rng(seed))
    for known in (0, count * 99 // 100):
        start = time.process_time()
        found = find_similar(rows, np.arange(count), known=known, bits=policy.duplicate_bits)
        seconds = time.process_time() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{count - known:,} signatures among {count:,}: {len(found):,} pairs alike, "
            f"{seconds:.2f} s, {seconds / each / (count - known):.1%} of looking at so many "
            f"images ({each * 1000:.2f} ms each), peak {peak:.0f} MiB",
            flush=True,
        )


def main():
    """Print seconds and ratios; exit with 1 if the peer finds other pairs."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--hashes", type=int, default=30_000)
    options.add_argument("--peer-python", help="python of an environment with imagededup 0.3.3")
    options.add_argument("--kind", choices=["random", "skewed", "both"], default="both")
    options.add_argument("--signatures", type=int, default=0, help="search these instead")
    options.add_argument("--seed", type=int, default=0)
    chosen = options.parse_args()
    if chosen.signatures:
        search_signatures(chosen.signatures, chosen.seed)
        return 0
    kinds = {"random": random_hashes, "skewed": skewed_hashes}
    agreed = True
    for name, make in kinds.items():
        if chosen.kind not in {name, "both"}:
            continue
        rng = np.random.default_rng(chosen.seed)
        hashes = with_repeats(make(chosen.hashes, rng), rng)
        seconds, found = ours(hashes)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(
            f"{name}: {len(hashes):,} hashes, {len(found):,} pairs within {BITS} bits, "
            f"{seconds:.2f} s, peak {peak:.0f} MiB",
            flush=True,
        )
        if chosen.peer_python:
            peer_seconds, peer_pairs = peers(chosen.peer_python, hashes)
            columns = (found.first, found.second, found.bits)
            own_pairs = set(zip(*(column.tolist() for column in columns), strict=True))
            agreed &= own_pairs == peer_pairs
            print(
                f"{name}: imagededup {peer_seconds:.1f} s, {peer_seconds / seconds:.0f} × ours, "
                f"{'the same pairs' if own_pairs == peer_pairs else 'OTHER PAIRS'}",
                flush=True,
            )
    if not chosen.peer_python:
        print("imagededup was not run: name its python with --peer-python")
    return 0 if agreed else 1


if __name__ == "__main__":
    sys.exit(main())
