"""
Stores around a store. Each writes out every method, so that a method added to the protocol
cannot be forgotten silently: mypy names the wrapper that lacks it.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

from cachepod.errors import ObjectMissing, StoreUnreachable
from cachepod.stores.base import Buffer, Leftover, ObjectInfo, PruneStore, Store, Writer

T = TypeVar("T")


class ReadOnly(Store):
    """What can be read in *store*; the type has no method that writes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @property
    def url(self) -> str:
        """That of the store within."""
        return self._store.url

    @property
    def parallel_reads(self) -> int:
        """Those of the store within."""
        return self._store.parallel_reads

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        return self._store.read(name, limit=limit)

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says."""
        self._store.read_range(name, offset, into)

    def size(self, name: str) -> int:
        """As the protocol says."""
        return self._store.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        return self._store.list(prefix)


class Patience:
    """
    How often and how long to try: delays double, and are shortened at random so that a hundred
    containers do not come back at once.

    Args:
        attempts: How many in all.

        delay: Longest wait before the second attempt, in seconds.

        longest: Longest wait before any.

        sleep: Waits; tests give another.
    """

    def __init__(
        self,
        attempts: int = 5,
        delay: float = 0.1,
        longest: float = 2.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._attempts = attempts
        self._delay = delay
        self._longest = longest
        self._sleep = sleep

    def try_to(self, act: Callable[[], T]) -> T:
        """Call *act* until it raises no transient StoreUnreachable; the last one is raised."""
        wait = self._delay
        for _ in range(self._attempts - 1):
            try:
                return act()
            except StoreUnreachable as error:
                if not error.transient:
                    raise
            self._sleep(wait * random.uniform(0.5, 1.0))
            wait = min(2 * wait, self._longest)
        return act()


class Retrying(PruneStore):
    """
    Tries again what failed for a reason that may pass.

    Everything in the protocol may be repeated: a ranged read fills its buffer from the start, a
    writer's ``write`` begins where the last successful one ended.
    """

    def __init__(self, store: PruneStore, patience: Patience | None = None) -> None:
        self._store = store
        self._patience = patience or Patience()

    @property
    def url(self) -> str:
        """That of the store within."""
        return self._store.url

    @property
    def parallel_reads(self) -> int:
        """Those of the store within."""
        return self._store.parallel_reads

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        return self._patience.try_to(lambda: self._store.read(name, limit=limit))

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says."""
        self._patience.try_to(lambda: self._store.read_range(name, offset, into))

    def size(self, name: str) -> int:
        """As the protocol says."""
        return self._patience.try_to(lambda: self._store.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says; the listing is read to its end before the first name is given."""
        yield from self._patience.try_to(lambda: list(self._store.list(prefix)))

    @property
    def exclusive(self) -> bool:
        """As the store within has it."""
        return self._patience.try_to(lambda: self._store.exclusive)

    def create(self, name: str) -> Writer:
        """As the protocol says."""
        writer = self._patience.try_to(lambda: self._store.create(name))
        return _RetryingWriter(writer, self._patience)

    def replace(self, name: str, data: Buffer) -> None:
        """As the protocol says."""
        self._patience.try_to(lambda: self._store.replace(name, data))

    def move(self, name: str, to: str) -> None:
        """As the protocol says."""
        self.size(name)
        attempted = False

        def act() -> None:
            nonlocal attempted
            again, attempted = attempted, True
            try:
                self._store.move(name, to)
            except ObjectMissing:
                # It was there: the attempt that failed was carried out, only its answer is lost.
                if not again:
                    raise
                self.size(to)

        self._patience.try_to(act)

    def delete(self, name: str) -> None:
        """As the protocol says."""
        self._patience.try_to(lambda: self._store.delete(name))

    def leftovers(self) -> Iterator[Leftover]:
        """As the protocol says; read to the end before the first is given."""
        yield from self._patience.try_to(lambda: list(self._store.leftovers()))

    def remove(self, leftover: Leftover) -> None:
        """As the protocol says."""
        self._patience.try_to(lambda: self._store.remove(leftover))


class _RetryingWriter(Writer):
    def __init__(self, writer: Writer, patience: Patience) -> None:
        self._writer = writer
        self._patience = patience

    def write(self, data: Buffer) -> None:
        self._patience.try_to(lambda: self._writer.write(data))

    def commit(self) -> bool:
        return self._patience.try_to(self._writer.commit)

    def abort(self) -> None:
        self._writer.abort()
