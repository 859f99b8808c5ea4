"""What people were told: every version of classes and guidelines, kept for the labels under it."""

import pandas as pd

from annotation_platform.errors import SettingsError
from annotation_platform.schema.ontology import Ontology
from annotation_platform.storage.objects import ObjectStore


def record_guideline(store: ObjectStore, ontology: Ontology) -> str:
    """Keep what people are about to be told, and return its digest.

    Raises:
        SettingsError: a class that people were asked for before has gone, or has changed its id,
            without a word on what its labels have become.
    """
    ids = {name: each.id for each in ontology.ever for name in each.names}
    for key in store.list("guidelines"):
        for each in Ontology.model_validate_json(store.get(key)).classes:
            if each.name not in ids:
                raise SettingsError(
                    f"params.yaml: class {each.id} ({each.name}) of earlier rounds is gone. If it"
                    f" was renamed, add `was: [{each.name}]` to the class that has its id; if not,"
                    f" list it under ontology.retired, `into` the classes that took its place."
                )
            if ids[each.name] != each.id:
                raise SettingsError(
                    f"params.yaml: class {each.name} has id {ids[each.name]}, in earlier rounds it"
                    f" had {each.id}. An id belongs to one class for ever; correct it."
                )
    store.create(_key(ontology.guideline), ontology.model_dump_json(indent=1).encode())
    return ontology.guideline


def read_guideline(store: ObjectStore, digest: str) -> Ontology:
    """Return the classes and guidelines under a digest."""
    return Ontology.model_validate_json(store.get(_key(digest)))


def guideline_of(human_labels: pd.DataFrame, store: ObjectStore, default: Ontology) -> Ontology:
    """Return the classes and guidelines under which answers were given; ``default`` if none was."""
    if human_labels.empty:
        return default
    return read_guideline(store, str(human_labels["guideline"].iloc[0]))


def _key(digest: str) -> str:
    return f"guidelines/{digest}.json"
