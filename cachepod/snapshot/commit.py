"""The commit point of a publish: the write of the manifest."""

from __future__ import annotations

import os

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing, Untrusted
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.names import INCOMING, TRASH, manifest_name
from cachepod.stores.base import WriteStore, put


def commit(store: WriteStore, key: str, data: bytes, *, force: bool) -> bool:
    """Write the manifest; this write is the sole commit point. False if another was first."""
    name = manifest_name(key)
    if not force:
        return put(store, name, data)
    # Moved over the old one, so that there is a snapshot of this key at every moment.
    incoming = f"{INCOMING}/{key}.{os.urandom(8).hex()}"
    try:
        put(store, incoming, data)
        store.move(incoming, name)
    except BaseException:
        try:
            store.delete(incoming)
        except CachepodError:
            pass
        raise
    return True


def may_be_stored(store: WriteStore, key: str, data: bytes) -> bool:
    """Whether *data* is the manifest of *key*; True also where that cannot be found out."""
    try:
        return store.read(manifest_name(key), limit=MAX_MANIFEST_SIZE) == data
    except (ObjectMissing, CorruptObject, Untrusted):
        return False
    except CachepodError:
        return True


def withdraw(store: WriteStore, key: str, data: bytes) -> None:
    """Take back a manifest that was committed, if it is still the one of *key*."""
    if may_be_stored(store, key, data):
        try:
            store.move(manifest_name(key), f"{TRASH}/{key}.{os.urandom(8).hex()}")
        except ObjectMissing:
            pass
