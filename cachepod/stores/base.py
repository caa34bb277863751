"""
What a store is: named immutable objects. It knows nothing of packs or manifests.

Types grant power: a restore takes a :class:`Store` and cannot write or delete.
The protocols are small enough that a wrapper writes out every method.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Protocol, TypeAlias, runtime_checkable

from cachepod.errors import ObjectMissing

Buffer: TypeAlias = bytes | bytearray | memoryview


@dataclass(frozen=True)
class ObjectInfo:
    """One object of a listing: its *name*, *size* in bytes, *modified* in seconds since 1970."""

    name: str
    size: int
    modified: float


@runtime_checkable
class Store(Protocol):
    """
    Read access.

    Every method may raise StoreUnreachable (the service or volume failed; worth trying again
    later), and all but :meth:`list` ObjectMissing. Threads may share one instance.
    """

    @property
    def url(self) -> str:
        """How a user names this store, without credentials."""
        ...

    @property
    def parallel_reads(self) -> int:
        """How many reads in flight this store rewards beyond one a core; 0 for a local disk."""
        ...

    def read(self, name: str, *, limit: int) -> bytes:
        """
        A whole object of at most *limit* bytes.

        Raises:
            CorruptObject: It is larger than *limit*.
        """
        ...

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """
        Fill *into* from byte *offset* on.

        Raises:
            CorruptObject: The object ends before *into* is full.
        """
        ...

    def size(self, name: str) -> int:
        """Bytes of the object; also the way to ask whether it is there."""
        ...

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """
        Objects whose name starts with *prefix* + ``/``, in no particular order.

        Temporary objects of writers at work are not shown. An object that vanishes meanwhile may
        or may not be listed.
        """
        ...


class Writer(Protocol):
    """
    One object being written; nobody sees it before :meth:`commit`.

    As a context manager it aborts unless it was committed.
    """

    def write(self, data: Buffer) -> None:
        """
        Append *data*.

        Raises:
            SpaceExhausted: ENOSPC or EDQUOT.

            StoreUnreachable: Any other failure of the store.
        """
        ...

    def commit(self) -> bool:
        """
        Make the object durable and visible, all at once.

        Returns:
            False if another object of this name was there first; that one stays as it is.
        """
        ...

    def abort(self) -> None:
        """Forget what was written; harmless after a commit."""
        ...

    def __enter__(self) -> Writer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.abort()


@runtime_checkable
class WriteStore(Store, Protocol):
    """Read and write access; what a publish takes."""

    @property
    def exclusive(self) -> bool:
        """
        Whether, of several writers of one name at one moment, exactly one is told it was first.

        As far as is known; nothing but the sparing of work may rest on it.
        """
        ...

    def create(self, name: str) -> Writer:
        """Begin an object; it is written once and never changed."""
        ...

    def replace(self, name: str, data: Buffer) -> None:
        """
        Write an object whole, in the place of one of this name if there is one.

        A reader finds the old object or the new one, never a mixture and, while there was an old
        one, never none. For what must change: leases, pins, a manifest that is published anew.

        Raises:
            SpaceExhausted: ENOSPC or EDQUOT.
        """
        ...

    def move(self, name: str, to: str) -> None:
        """
        Give an object another name; an object at *to* is replaced.

        On a service without a rename this is copy, then delete.
        """
        ...

    def delete(self, name: str) -> None:
        """Remove an object; no error if it is gone already."""
        ...


@dataclass(frozen=True)
class Leftover:
    """
    What a writer that died may have left, and a listing does not show.

    Args:
        name: Of the object that was being written, for messages.

        token: The store's own name for it.

        size: Bytes that it takes, as far as is known.

        age: Seconds since it was last written to, by the store's own clock.
    """

    name: str
    token: str
    size: int
    age: float


@runtime_checkable
class PruneStore(WriteStore, Protocol):
    """A store that can also be swept; what a prune takes."""

    def leftovers(self) -> Iterator[Leftover]:
        """
        Unfinished objects of writers that died, and of writers at work: the two look alike.

        A writer at work whose object is removed fails, and nothing else breaks.
        """
        ...

    def remove(self, leftover: Leftover) -> None:
        """Remove one; no error if it is gone already."""
        ...


def exists(store: Store, name: str) -> bool:
    """Whether *store* has an object *name*."""
    try:
        store.size(name)
    except ObjectMissing:
        return False
    return True


def put(store: WriteStore, name: str, data: Buffer) -> bool:
    """Write one small object whole; False if one of this name was there first."""
    with store.create(name) as writer:
        writer.write(data)
        return writer.commit()
