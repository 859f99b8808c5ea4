"""What this project claims, beside others, in one table; under twenty minutes on two idle cores.

    make bench
    python benchmarks/table.py --only formats --json bench.json

Each row is one run of a benchmark of this folder, with less work than it does by default, and says
the command, so that it can be run alone. Its figures are medians of paired runs; ratios above 1 are
in our favour. Peers that do not share our dependencies get environments of their own in
``build/peers``, made once. A row whose benchmark fails says so, and the exit status is 1.
"""

import argparse
import json
import os
import re
import shlex
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "build" / "peers"
LIMIT_SECONDS = 600

# What each environment holds; what stands behind --no-deps needs less than it says.
ENVIRONMENTS = {
    "crowdkit": [
        "numpy pandas attrs scikit-learn nltk tqdm",
        "--no-deps crowd-kit==1.4.2",
    ],
    "looks": [
        "cleanvision==0.3.7 PyWavelets scikit-learn scipy matplotlib tqdm",
        "--no-deps imagededup==0.3.3",
    ],
    "datumaro": ["datumaro==1.13.0"],
    "supervision": ["supervision==0.31.0"],
    "coco": ["numpy pycocotools faster-coco-eval"],
}


@dataclass(frozen=True)
class Claim:
    """A row: what is compared with whom, by which command, and where its output says so.

    ``pattern`` finds ``ours`` and ``peer``, and ``ratio`` where the benchmark tells it; of several
    places the medians count. ``of`` says what a ratio that is worked out here is of: ``peer/ours``
    where less is better, else ``ours/peer``.
    """

    claim: str
    peer: str
    command: str
    pattern: str
    unit: str
    of: str = "peer/ours"


@dataclass(frozen=True)
class Row:
    """What came of a claim; no figures and a ``problem`` where its benchmark failed."""

    claim: str
    ours: str
    peer: str
    ratio: float | None
    command: str
    problem: str = ""


FORMATS = "benchmarks/formats.py --boxes 50000 --pairs 3"
FORMATS += " --peer-python {datumaro} --peer-python {supervision}"
VERSIONS = "benchmarks/versions.py --images 20000 --pairs 1"
EVALUATION = "benchmarks/evaluation.py --pairs 3 --peer-python {coco}"
ISSUES = "benchmarks/label_issues.py"
CLEANING = "benchmarks/cleaning.py --images 1000 --pairs 3 --peer-python {looks}"
N = r"[\d.,]+"

CLAIMS = [
    Claim(
        "label from a million answers, Dawid-Skene", "crowd-kit",
        "benchmarks/dawid_skene.py --pairs 3 --peer-python {crowdkit}",
        rf"ours (?P<ours>{N}) s of CPU, .*crowd-kit (?P<peer>{N}) s, "
        rf"(?P<ratio>{N}) ×",
        "CPU s",
    ),
    Claim(
        "labels of BCCD from three people (F1)", "majority vote",
        "benchmarks/box_consensus.py --seeds 3",
        rf'"consensus": (?P<ours>{N}),(?s:.*?)"plain_majority": (?P<peer>{N})',
        "", "ours/peer",
    ),
    Claim(
        "near duplicates among 10,000 hashes", "imagededup",
        "benchmarks/near_duplicates.py --hashes 10000 --kind random --peer-python {looks}",
        rf"within 8 bits, (?P<ours>{N}) s(?s:.*)imagededup (?P<peer>{N}) s, "
        rf"(?P<ratio>{N}) ×",
        "CPU s",
    ),
    Claim(
        "cleaning 1,000 images", "cleanvision, imagededup", CLEANING,
        rf"peers: (?P<peer>{N}) s of CPU .*, (?P<ratio>{N}) × ours \((?P<ours>{N}) s",
        "CPU s",
    ),
    Claim(
        "the same", "bare loop", CLEANING,
        rf"CPU: ours (?P<ours>{N}) s, bare (?P<peer>{N}) s; "
        rf"throughput (?P<ratio>{N}) of",
        "CPU s",
    ),
    Claim(
        "the pass over images on Daft, 3,000", "process pool",
        "benchmarks/engine.py --pairs 2",
        rf'"process pool", .*?"seconds": (?P<peer>{N}),(?s:.*?)'
        rf'"Daft", .*?"seconds": (?P<ours>{N}),',
        "s",
    ),
    *(
        Claim(
            f"writing 50,000 boxes as {kind.upper()}", peer, FORMATS,
            rf"{kind}: ours (?P<ours>{N}) s of CPU.*{peer} (?P<peer>{N}) s, "
            rf"(?P<ratio>{N}) ×",
            "CPU s",
        )
        for kind in ("coco", "yolo", "voc")
        for peer in ("datumaro", "supervision")
    ),
    Claim(
        "publishing 1 % more of 20,000 images", "dvc add, dvc push", VERSIONS,
        rf"new process: ours (?P<ours>{N}) s, DVC (?P<peer>{N}) s, (?P<ratio>[\d.]+)x",
        "s",
    ),
    Claim(
        "checking that version out", "git checkout, dvc pull", VERSIONS,
        rf"checking out .*: ours (?P<ours>{N}) s, DVC (?P<peer>{N}) s, (?P<ratio>[\d.]+)x",
        "s",
    ),
    *(
        Claim(
            "COCO's figures of 40,000 detections", peer, EVALUATION,
            rf"ours (?P<ours>{N}) s of CPU.*{peer} (?P<peer>{N}) s, (?P<ratio>{N}) ×",
            "CPU s",
        )
        for peer in ("pycocotools", "faster-coco-eval")
    ),
    Claim(
        "choosing 500 of 50,000 images", "bare numpy loop",
        "benchmarks/selection.py --images 50000 --wanted 500 --repeats 2",
        rf"clusters: (?P<ours>{N}) s CPU, bare loop (?P<peer>{N}) s, (?P<ratio>{N}) ×",
        "CPU s",
    ),
    Claim(
        "proposals a second", "bare torchvision loop",
        "benchmarks/proposals.py --pairs 5",
        r"medians: bare (?P<peer>\d+) images/s, ours (?P<ours>\d+); (?P<ratio>[\d.]+)",
        "/s",
    ),
    Claim(
        "asking people, 500 tasks", "bare calls that do the same",
        "benchmarks/label_studio.py --tasks 500 --pairs 1",
        rf'"work": "import".*"side": "client", "seconds": (?P<ours>{N})(?s:.*?)'
        rf'"side": "bare round", "seconds": (?P<peer>{N})',
        "s",
    ),
    Claim(
        "flagged labels that are wrong, boxes", "self-confidence", ISSUES,
        rf"boxes, 5% planted(?s:.*?)precision\s+(?P<ours>{N})(?s:.*?)"
        rf"self-confidence\s+(?P<peer>{N})",
        "", "ours/peer",
    ),
    Claim(
        "labels without a person, error at most 5 %", "an oracle",
        "benchmarks/auto_accept.py --rounds 100",
        rf"^calibrated  +\S+ +(?P<peer>{N}) +\S+ +(?P<ours>{N}) +(?P<ratio>{N})",
        "of labels",
    ),
    Claim(
        "error bars that hold the truth, 8 % wrong", "one label for itself",
        "benchmarks/error_bars.py --versions 100",
        rf" 0\.08 +\S+ labels +all +(?P<ours>{N})(?s:.*?) 0\.08 +\S+ naive +all "
        rf"+(?P<peer>{N})",
        "", "ours/peer",
    ),
]  # fmt: skip


def main() -> int:
    """Run the benchmarks of all claims, print the table, and return 1 if one of them failed."""
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", default="", help="rows whose claim or command matches this")
    options.add_argument("--json", type=Path, help="write the rows there, too")
    chosen = options.parse_args()
    wanted = [each for each in CLAIMS if re.search(chosen.only, f"{each.claim} {each.command}")]
    console, began = Console(stderr=True), time.monotonic()
    outputs: dict[str, str] = {}
    rows = []
    for number, claim in enumerate(wanted, start=1):
        minutes = (time.monotonic() - began) / 60
        console.print(f"{number} of {len(wanted)}, {minutes:.0f} min: {claim.claim}", style="dim")
        rows.append(measure(claim, outputs))
    show(rows)
    if chosen.json is not None:
        chosen.json.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n")
    return int(any(row.problem for row in rows))


def measure(claim: Claim, outputs: dict[str, str]) -> Row:
    """Run the benchmark of a claim, unless another row had it run, and read its figures."""
    command = shlex.split(claim.command)
    shown = "python " + re.sub(r" --peer-python \S+", "", claim.command)
    try:
        if claim.command not in outputs:
            ready = [peer_python(part[1:-1]) if part.startswith("{") else part for part in command]
            outputs[claim.command] = output_of(ready)
        found = [each.groupdict() for each in
                 re.finditer(claim.pattern, outputs[claim.command], re.M)]  # fmt: skip
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        return Row(claim.claim, "–", claim.peer, None, shown, str(error))
    if not found:
        said = "its output does not tell the figures"
        return Row(claim.claim, "–", claim.peer, None, shown, said)
    figures = {
        key: statistics.median(float(each[key].rstrip(".,").replace(",", "")) for each in found)
        for key in found[0]
    }
    ours, peer = figures["ours"], figures["peer"]
    ratio = figures.get("ratio", peer / ours if claim.of == "peer/ours" else ours / peer)
    return Row(
        claim.claim,
        f"{ours:.3g} {claim.unit}".strip(),
        f"{claim.peer}: {peer:.3g} {claim.unit}".strip(),
        ratio,
        shown,
    )


def output_of(command: list[str]) -> str:
    """Return what a benchmark prints; one that fails or takes too long is an error."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=ROOT, check=False, capture_output=True, text=True, timeout=LIMIT_SECONDS,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        raise RuntimeError(f"exit {done.returncode}: {' '.join(last)}")
    return done.stdout


def peer_python(name: str) -> str:
    """Return the Python of a peer's environment, which is made if there is none."""
    python = PEERS / name / "bin" / "python"
    if not python.exists():
        uv = str(Path(sys.executable).parent / "uv")
        subprocess.run([uv, "venv", "--quiet", str(PEERS / name)], check=True)
        for packages in ENVIRONMENTS[name]:
            install = [uv, "pip", "install", "--quiet", "--python", str(python)]
            subprocess.run([*install, *shlex.split(packages)], check=True)
    return str(python)


def show(rows: list[Row]) -> None:
    """Print the table; where nobody watches, as wide as it has to be."""
    console = Console() if sys.stdout.isatty() else Console(width=200)
    table = Table("claim", "this project", "peer", "ratio", "command")
    for row in rows:
        ratio = row.problem or ("–" if row.ratio is None else f"{row.ratio:.2f} ×")
        table.add_row(row.claim, row.ours, row.peer, ratio, row.command)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
