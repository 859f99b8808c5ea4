"""Pseudonyms of people, keyed by a secret of the lake."""

import hashlib
import hmac
import secrets

from annotation_platform.storage.objects import ObjectStore

_KEY = "ledger/pseudonym-key"


def pseudonym_of(store: ObjectStore, person: str) -> str:
    """Return the pseudonym of a person, given by address in any case, in the tables of a lake."""
    digest = hmac.new(pseudonym_key(store), person.lower().encode(), hashlib.sha256).hexdigest()
    return f"annotator-{digest[:10]}"


def pseudonym_key(store: ObjectStore) -> bytes:
    """Return the key of a lake's pseudonyms; the first call draws it."""
    if not store.exists(_KEY):
        store.create(_KEY, secrets.token_bytes(32), private=True)
    return store.get(_KEY)
