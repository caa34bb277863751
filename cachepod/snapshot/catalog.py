"""
Which snapshots a store holds, and which of them comes nearest to a fingerprint.

An exact key is found without a listing. Times of objects only order a listing and say which
snapshots are looked at first: nothing is right or wrong by them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from cachepod.errors import CachepodError, CorruptObject, Miss, ObjectMissing
from cachepod.model.fingerprint import Difference, Fingerprint
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import HEADER, Manifest, summary_extent
from cachepod.model.names import MANIFESTS, manifest_name
from cachepod.model.summary import Summary
from cachepod.snapshot.stamp import ENVIRONMENT_TREE
from cachepod.stores.base import ObjectInfo, Store

__all__ = ["Relative", "Summary", "load_manifest", "nearest", "restorable", "summaries", "summary"]

#: Most summaries are shorter: one read, then, and for a longer one a second.
_FIRST_READ = 64 * 1024
_LOOKED_AT = 32
#: Inputs in which the environment of a relative may differ and still be brought up to what is
#: wanted by an installer, for they say what is installed and not what it is installed on.
_TOPPED_UP = frozenset(
    {
        "requirement",
        "constraint",
        "option",
        "lock",
        "index",
        "apt",
        "base",
        "handler",
        "toolkit",
    }
)

OnError = Callable[[str, CachepodError], None]


@dataclass(frozen=True)
class Relative:
    """A snapshot of the same family, and the inputs in which it differs from what is wanted."""

    summary: Summary
    differences: Sequence[Difference]


def load_manifest(store: Store, key: str) -> Manifest:
    """
    The whole manifest of *key*.

    Raises:
        Miss: There is no snapshot of this key, or it is one of a later format.

        CorruptObject: The manifest is damaged, or that of another key.
    """
    name = manifest_name(key)
    try:
        data = store.read(name, limit=MAX_MANIFEST_SIZE)
    except ObjectMissing as error:
        raise Miss(key) from error
    manifest = Manifest.decode(data, name=name)
    _check_key(manifest.summary, key, name)
    return manifest


def summary(store: Store, key: str) -> Summary:
    """
    What a listing shows of *key*; only the beginning of the manifest is read.

    Raises:
        Miss, CorruptObject: As :func:`load_manifest`.
    """
    name = manifest_name(key)
    try:
        return _read_summary(store, key, store.size(name))
    except ObjectMissing as error:
        raise Miss(key) from error


def summaries(
    store: Store, family: str | None = None, on_error: OnError | None = None
) -> Iterator[Summary]:
    """
    Every snapshot of *store*, or of one family, the newest first.

    Args:
        on_error: Told the key and the error of what cannot be read; the others are not kept
            back by it. What vanishes meanwhile is passed over.
    """
    found = _listed(store, f"{MANIFESTS}/{family}" if family else MANIFESTS)
    return _summaries(store, found, on_error)


def nearest(store: Store, fingerprint: Fingerprint, *, whole: bool = False) -> Relative | None:
    """
    The snapshot of the same family with the fewest differing inputs; of several the newest.

    Only the newest few of the family are looked at. One that cannot be read is nobody's relative.

    Args:
        whole: Read its manifest whole before it is believed, as a store that checks signatures
            asks for, and pass over one that cannot be.
    """
    found = _listed(store, f"{MANIFESTS}/{fingerprint.family}")
    relatives = [
        Relative(candidate, fingerprint.differences(candidate.fingerprint))
        for candidate in _summaries(store, found[:_LOOKED_AT], None)
        if candidate.key != fingerprint.key and candidate.fingerprint.family == fingerprint.family
    ]
    for relative in sorted(relatives, key=lambda relative: len(relative.differences)):
        if not whole:
            return relative
        try:
            believed = load_manifest(store, relative.summary.key).summary
        except CachepodError:
            continue
        return Relative(believed, fingerprint.differences(believed.fingerprint))
    return None


def restorable(fingerprint: Fingerprint, relative: Relative) -> bool:
    """
    Whether an installer can make what *fingerprint* asks for out of the relative's environment.

    It can if both are of one machine, interpreter and prefix, and only what is to be installed
    differs.
    """
    if not any(tree.name == ENVIRONMENT_TREE for tree in relative.summary.trees):
        return False
    if relative.summary.fingerprint.family != fingerprint.family:
        return False
    return all(_can_be_topped_up(difference) for difference in relative.differences)


def _can_be_topped_up(difference: Difference) -> bool:
    kind = difference.name.partition(":")[0]
    if kind == "distribution":  # of the system; an input only where apt packages are wanted
        return difference.ours is None or difference.theirs is None
    return kind in _TOPPED_UP


def _listed(store: Store, prefix: str) -> list[ObjectInfo]:
    return sorted(store.list(prefix), key=lambda info: (-info.modified, info.name))


def _summaries(
    store: Store, found: Sequence[ObjectInfo], on_error: OnError | None
) -> Iterator[Summary]:
    def look(info: ObjectInfo) -> Summary | CachepodError:
        key = _key_of(info.name)
        try:
            if manifest_name(key) != info.name:
                raise CorruptObject(info.name, "no manifest has this name")
            return _read_summary(store, key, info.size)
        except CachepodError as error:
            return error

    for info, outcome in zip(found, _map(look, found, store.parallel_reads), strict=True):
        if isinstance(outcome, Summary):
            yield outcome
        elif not isinstance(outcome, ObjectMissing) and on_error is not None:
            on_error(_key_of(info.name), outcome)


def _map(
    look: Callable[[ObjectInfo], Summary | CachepodError],
    found: Sequence[ObjectInfo],
    parallel: int,
) -> Iterator[Summary | CachepodError]:
    if not parallel or len(found) < 2:
        yield from map(look, found)
        return
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(parallel) as pool:
        yield from pool.map(look, found)


def _read_summary(store: Store, key: str, size: int) -> Summary:
    name = manifest_name(key)
    if size < HEADER.size:
        raise CorruptObject(name, "it is cut short")
    data = bytearray(min(size, _FIRST_READ))
    store.read_range(name, 0, memoryview(data))
    needed = summary_extent(bytes(data[: HEADER.size]), name=name)
    if needed > min(size, MAX_MANIFEST_SIZE):
        raise CorruptObject(name, "it is cut short")
    if needed > len(data):
        rest = bytearray(needed - len(data))
        store.read_range(name, len(data), memoryview(rest))
        data += rest
    found = Manifest.decode_summary(bytes(data), name=name)
    _check_key(found, key, name)
    return found


def _check_key(found: Summary, key: str, name: str) -> None:
    if found.key != key:
        raise CorruptObject(name, f"it is the manifest of {found.key}")


def _key_of(name: str) -> str:
    return name.rpartition("/")[2]
