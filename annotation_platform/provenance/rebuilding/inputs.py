"""The list of everything that a version was made of: kept in the lake, named by the version."""

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cached_property, partial

from annotation_platform.errors import PublishError
from annotation_platform.schema.tables import TrainingSet
from annotation_platform.storage.lake import Lake
from annotation_platform.storage.lineage import TableInputs, input_key

_THREADS = 16

MADE = ("human_labels", "round_tasks", "consensus_labels", "reviewed_labels", "training_set")
"""The tables that can be made again, in the order in which they are made."""


@dataclass(frozen=True)
class Input:
    """A table as it was; ``made_of`` is None where nobody noted what it was made of."""

    sha256: str
    made_of: TableInputs | None


@dataclass(frozen=True)
class Inputs:
    """The tables of a version that can be made again, by table and round; all that each rests on.

    ``training_set`` names the one that was rendered.
    """

    training_set: str
    made: dict[str, Input]

    @cached_property
    def tables(self) -> dict[str, set[str]]:
        """The digests of every table there is, by table and round: of images several."""
        found: dict[str, set[str]] = {}
        for name, each in self.made.items():
            rests_on = each.made_of.tables if each.made_of else {}
            for other, digest in {name: each.sha256, **rests_on}.items():
                found.setdefault(other, set()).add(digest)
        return found


def keep_inputs(round_id: str, lake: Lake) -> str:
    """Keep the list of what the training set of a round was made of, and return its SHA-256.

    Empty if that was not noted: the training set was built by earlier code.
    """
    name = f"training_set/{round_id}"
    made: dict[str, Input] = {}
    waiting = {name: lake.tables.digest(TrainingSet, round_id)}
    with ThreadPoolExecutor(_THREADS) as pool:
        while waiting:
            notes = list(pool.map(partial(_made_of, lake), waiting, waiting.values()))
            for (key, digest), made_of in zip(waiting.items(), notes, strict=True):
                made[key] = Input(digest, made_of)
            rests_on = [pair for each in notes if each for pair in each.tables.items()]
            waiting = {key: digest for key, digest in rests_on if _can_be_made(key)}
    if made[name].made_of is None:
        return ""
    lake.tables.lineage.keep_tables({name: made[name].sha256})
    text = json.dumps(asdict(Inputs(name, made)), indent=1, sort_keys=True, ensure_ascii=False)
    return lake.tables.lineage.keep(text.encode() + b"\n", kind="json")


def _made_of(lake: Lake, key: str, digest: str) -> TableInputs | None:
    table, _, round_id = key.partition("/")
    return lake.tables.lineage.read(table, round_id, digest)


def _can_be_made(key: str) -> bool:
    return key.partition("/")[0] in MADE


def read_inputs(lake: Lake, digest: str, *, where: str) -> Inputs:
    """Return a list that was kept; ``where`` names the version in errors."""
    key = input_key(digest, kind="json")
    if not lake.store.exists(key):
        raise PublishError(
            f"{where}: the lake has no {key}, the list of what it was made of. Set ANNOTATION_LAKE "
            "to the lake that it was published from, or restore that object."
        )
    content = json.loads(lake.tables.lineage.load(digest, kind="json"))
    made = {
        name: Input(each["sha256"], TableInputs.of(each["made_of"]) if each["made_of"] else None)
        for name, each in content["made"].items()
    }
    return Inputs(content["training_set"], made)
