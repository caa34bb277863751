"""Finding snapshots in the configured stores, for the commands that show them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

from cachepod.errors import Miss, StoreUnreachable
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
        Miss: None has.

        StoreUnreachable: None has, and one did not answer.
    """
    from cachepod.snapshot.catalog import summary

    return _first(stores, key, summary)


def find_manifest(stores: Sequence[WriteStore], key: str) -> Manifest:
    """The same for the whole manifest."""
    from cachepod.snapshot.catalog import load_manifest

    return _first(stores, key, load_manifest)


def _first(stores: Sequence[WriteStore], key: str, load: Callable[[Store, str], _T]) -> _T:
    check_key(key)
    unreachable: StoreUnreachable | None = None
    for store in stores:
        try:
            return load(store, key)
        except Miss:
            continue
        except StoreUnreachable as error:
            unreachable = unreachable or error
    if unreachable is not None:
        raise unreachable
    raise Miss(key, hint="cachepod ls lists the keys of the store")
