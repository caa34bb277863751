"""Finding snapshots in the configured stores, for the commands that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from cachepod.errors import Miss, NewerFormat, StoreUnreachable
from cachepod.model.names import check_key

if TYPE_CHECKING:
    from cachepod.model.manifest import Manifest
    from cachepod.model.summary import Summary
    from cachepod.stores.base import Store, WriteStore

_T = TypeVar("_T")


def find_summary(stores: Sequence[WriteStore], key: str) -> Summary:
    """
    The summary of *key* from the nearest store that has it.

    Raises:
        Miss: None has, or only one that is of a later format.

        StoreUnreachable: None answered.
    """
    from cachepod.snapshot.catalog import summary

    return _first(stores, key, summary)[1]


def find_manifest(stores: Sequence[WriteStore], key: str) -> tuple[WriteStore, Manifest]:
    """The same for the whole manifest, and the store that it lies in."""
    from cachepod.snapshot.catalog import load_manifest

    return _first(stores, key, load_manifest)


def _first(
    stores: Sequence[WriteStore], key: str, load: Callable[[Store, str], _T]
) -> tuple[WriteStore, _T]:
    check_key(key)
    missing: Miss | None = None
    unreachable: StoreUnreachable | None = None
    for store in stores:
        try:
            return store, load(store, key)
        except Miss as miss:
            missing = missing or miss
        except StoreUnreachable as error:
            unreachable = unreachable or error
    if missing is None and unreachable is not None:
        raise unreachable
    if isinstance(missing, NewerFormat):
        raise missing
    raise Miss(key, hint="cachepod ls lists the keys of the store")
