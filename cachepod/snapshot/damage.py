"""What is done about a damaged snapshot: it makes room for a good one, and nothing is deleted."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass

from cachepod.errors import CorruptObject, NewerFormat, ObjectMissing, Untrusted
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import Manifest
from cachepod.model.names import TRASH, damaged_name, is_pack_id, manifest_name
from cachepod.stores.base import WriteStore, put


@dataclass(frozen=True)
class Problem:
    """
    A damaged, missing or unreadable object.

    Args:
        name: Of the object.

        why: In words; of several faults the first, and how many there are.

        keys: Of the snapshots that cannot be restored because of it; none if the part that is
            damaged is not needed for that.

        unreachable: The store failed; whether the object is damaged is not known.
    """

    name: str
    why: str
    keys: tuple[str, ...]
    unreachable: bool = False


def mark(store: WriteStore, pack: str, key: str, why: str) -> None:
    """
    Say that a reader of *key* found the pack with the id *pack* damaged.

    A publish takes no chunk from it, and a copy of a snapshot that needs it brings it anew.

    Raises:
        SpaceExhausted, StoreUnreachable: The store cannot be written to.
    """
    data = json.dumps({"pack": pack, "key": key, "why": why, "time": time.time()})
    put(store, damaged_name(pack), data.encode())


def set_aside(store: WriteStore, key: str, error: CorruptObject | ObjectMissing) -> None:
    """
    Make room for a good snapshot where a damaged one lies, so that the next publish stores it.

    The manifest is moved to the trash, and the pack at fault, if it is one, marked: a publish
    takes no chunk from it. A snapshot that another container has published anew since *error* was
    met is left as it is.

    Raises:
        StoreUnreachable: The store cannot be read or written to.
    """
    pack = error.name.rpartition("/")[2]
    if is_pack_id(pack):
        mark(store, pack, key, error.message)
    if not _is_hurt(store, key, pack):
        return
    try:
        store.move(manifest_name(key), f"{TRASH}/{key}.{os.urandom(8).hex()}")
    except ObjectMissing:
        pass  # another reader was first


def _is_hurt(store: WriteStore, key: str, pack: str) -> bool:
    """Whether what is stored as *key* now is damaged, or needs the damaged *pack*."""
    name = manifest_name(key)
    try:
        manifest = Manifest.decode(store.read(name, limit=MAX_MANIFEST_SIZE), name=name)
    except (ObjectMissing, NewerFormat, Untrusted):
        return False
    except CorruptObject:
        return True
    return manifest.summary.key != key or any(info.id == pack for info in manifest.packs)
