"""Classes and guidelines: every version that annotators saw, kept for the labels made under it."""

import pandas as pd

from annotation_platform.errors import SettingsError
from annotation_platform.schema.ontology import Ontology
from annotation_platform.schema.tables import HumanLabels
from annotation_platform.storage.objects import ObjectStore


def record_guideline(store: ObjectStore, ontology: Ontology) -> str:
    """Store classes and guidelines before annotators see them, and return their digest.

    Raises:
        SettingsError: a class of earlier rounds is missing, or has another id, and the policy does
            not declare what became of its labels.
    """
    ids = {name: each.id for each in ontology.ever for name in each.names}
    for key in store.list("guidelines"):
        for each in Ontology.model_validate_json(store.get(key)).classes:
            if each.name not in ids:
                raise SettingsError(
                    f"params.yaml: class {each.id} ({each.name}) of earlier rounds is missing. If"
                    f" it was renamed, add `was: [{each.name}]` to the class with its id; otherwise"
                    f" list it under ontology.retired, `into` the classes that replace it."
                )
            if ids[each.name] != each.id:
                raise SettingsError(
                    f"params.yaml: class {each.name} has id {ids[each.name]}, in earlier rounds it"
                    f" had {each.id}. A class keeps its id for ever; correct it."
                )
    store.create(_key(ontology.guideline), ontology.model_dump_json(indent=1).encode())
    return ontology.guideline


def read_guideline(store: ObjectStore, digest: str) -> Ontology:
    """Return the classes and guidelines with a digest."""
    return Ontology.model_validate_json(store.get(_key(digest)))


def guideline_of(human_labels: pd.DataFrame, store: ObjectStore, default: Ontology) -> Ontology:
    """Return the classes and guidelines of labels; ``default`` if there are no labels."""
    if human_labels.empty:
        return default
    return read_guideline(store, str(human_labels[HumanLabels.guideline].iloc[0]))


def _key(digest: str) -> str:
    return f"guidelines/{digest}.json"
