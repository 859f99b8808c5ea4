"""The input list of a version: stored in the lake, with its digest in the version's manifest."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial

from annotation_platform.errors import PublishError
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs, input_key

_THREADS = 16

DERIVED = ("human_labels", "round_tasks", "consensus_labels", "reviewed_labels", "training_set")
"""The derived tables, in the order of their derivation."""


@dataclass(frozen=True)
class Input:
    """A table by its digest; ``made_of`` is None if its inputs were not recorded."""

    sha256: str
    made_of: TableInputs | None


@dataclass(frozen=True)
class Inputs:
    """The derived tables of a version with their inputs, by ``table/round``.

    ``training_set`` is the name of the rendered one.
    """

    training_set: str
    made: dict[str, Input]

    @cached_property
    def tables(self) -> dict[str, set[str]]:
        """The digests of all tables, by ``table/round``; tables of images can have several."""
        found: dict[str, set[str]] = {}
        for name, each in self.made.items():
            depends_on = each.made_of.tables if each.made_of else {}
            for other, digest in {name: each.sha256, **depends_on}.items():
                found.setdefault(other, set()).add(digest)
        return found


def keep_inputs(round_id: str, lake: Lake) -> str:
    """Store the input list of a round's training set and return its SHA-256.

    Empty if the inputs were not recorded, because earlier code built the training set.
    """
    name = f"training_set/{round_id}"
    made: dict[str, Input] = {}
    waiting = {name: lake.tables.digest(TrainingSet, round_id)}
    with ThreadPoolExecutor(_THREADS) as pool:
        while waiting:
            records = list(pool.map(partial(_recorded_inputs, lake), waiting, waiting.values()))
            for (key, digest), inputs in zip(waiting.items(), records, strict=True):
                made[key] = Input(digest, inputs)
            depends_on = [pair for each in records if each for pair in each.tables.items()]
            waiting = {
                key: digest for key, digest in depends_on if key.partition("/")[0] in DERIVED
            }
    if made[name].made_of is None:
        return ""
    lake.tables.lineage.keep_tables({name: made[name].sha256})
    text = json.dumps(asdict(Inputs(name, made)), indent=1, sort_keys=True, ensure_ascii=False)
    return lake.tables.lineage.keep(text.encode() + b"\n", kind="json")


def _recorded_inputs(lake: Lake, key: str, digest: str) -> TableInputs | None:
    table, _, round_id = key.partition("/")
    return lake.tables.lineage.read(table, round_id, digest)


def read_inputs(lake: Lake, digest: str, *, where: str) -> Inputs:
    """Return a stored input list; ``where`` names the version in errors."""
    key = input_key(digest, kind="json")
    if not lake.store.exists(key):
        raise PublishError(
            f"{where}: the lake has no {key}, the list of its inputs. Set ANNOTATION_LAKE "
            "to the lake that it was published from, or restore that object."
        )
    content = json.loads(lake.tables.lineage.load(digest, kind="json"))
    made = {
        name: Input(each["sha256"], TableInputs.of(each["made_of"]) if each["made_of"] else None)
        for name, each in content["made"].items()
    }
    return Inputs(content["training_set"], made)
