"""
Stores around a store, for tests: one that fails on cue, one that counts, one that is slow.

All of them see one call at a time through :meth:`Around.around`; a writer's ``write`` and
``commit`` are calls like the store's own methods.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from cachepod.errors import CorruptObject, ObjectMissing, SpaceExhausted, StoreUnreachable
from cachepod.stores.base import Buffer, Leftover, ObjectInfo, PruneStore, Writer

METHODS = (
    *("read", "read_range", "size", "list", "create", "replace", "move", "delete"),
    *("leftovers", "remove"),
    *("write", "commit"),  # those of a writer
)


class Around(PruneStore):
    """Passes every call on; subclasses step in between."""

    def __init__(self, store: PruneStore) -> None:
        self.store = store

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        """Carry out *method* on the object *name* by calling *act*."""
        return act()

    @property
    def url(self) -> str:
        return self.store.url

    @property
    def parallel_reads(self) -> int:
        return self.store.parallel_reads

    def read(self, name: str, *, limit: int) -> bytes:
        return self.around("read", name, lambda: self.store.read(name, limit=limit))

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        def act() -> memoryview:
            self.store.read_range(name, offset, into)
            return into

        self.around("read_range", name, act)

    def size(self, name: str) -> int:
        return self.around("size", name, lambda: self.store.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        yield from self.around("list", prefix, lambda: list(self.store.list(prefix)))

    def create(self, name: str) -> Writer:
        def act() -> Writer:
            return _AroundWriter(self, name, self.store.create(name))

        return self.around("create", name, act)

    @property
    def exclusive(self) -> bool:
        return self.store.exclusive

    def replace(self, name: str, data: Buffer) -> None:
        def act() -> int:
            self.store.replace(name, data)
            return memoryview(data).nbytes

        self.around("replace", name, act)

    def move(self, name: str, to: str) -> None:
        self.around("move", name, lambda: self.store.move(name, to))

    def delete(self, name: str) -> None:
        self.around("delete", name, lambda: self.store.delete(name))

    def leftovers(self) -> Iterator[Leftover]:
        yield from self.around("leftovers", "", lambda: list(self.store.leftovers()))

    def remove(self, leftover: Leftover) -> None:
        self.around("remove", leftover.name, lambda: self.store.remove(leftover))


class _AroundWriter(Writer):
    def __init__(self, store: Around, name: str, writer: Writer) -> None:
        self._store = store
        self._name = name
        self._writer = writer

    def write(self, data: Buffer) -> None:
        def act() -> int:
            self._writer.write(data)
            return memoryview(data).nbytes

        self._store.around("write", self._name, act)

    def commit(self) -> bool:
        return self._store.around("commit", self._name, self._writer.commit)

    def abort(self) -> None:
        self._writer.abort()


class FaultyStore(Around):
    """
    Fails as *faults* says: one letter for each call of a method, in order; then all is well.

    ====== ======================================================================
    letter the call
    ====== ======================================================================
    ``.``  works
    ``E``  raises a transient StoreUnreachable and does nothing
    ``A``  is carried out, and then raises a transient StoreUnreachable: the answer is lost
    ``U``  raises a lasting StoreUnreachable
    ``M``  raises ObjectMissing
    ``C``  raises CorruptObject
    ``S``  raises SpaceExhausted
    ``X``  ``read`` and ``read_range`` only: works, but one bit of the result is wrong
    ``*``  at the end: the letter before it for ever
    ====== ======================================================================

    Args:
        store: Does the work.

        faults: Method to letters, as ``{"read_range": "..E.", "commit": "S*"}``.

        only: The calls that count: method and name to True or False.
    """

    def __init__(
        self,
        store: PruneStore,
        faults: Mapping[str, str],
        only: Callable[[str, str], bool] = lambda method, name: True,
    ) -> None:
        super().__init__(store)
        for method, letters in faults.items():
            assert method in METHODS, method
            assert set(letters.removesuffix("*")) <= set(".EAUMCSX"), letters
        self._faults = dict(faults)
        self._only = only
        self._calls: Counter[str] = Counter()
        self._lock = threading.Lock()

    def _letter(self, method: str, name: str) -> str:
        letters = self._faults.get(method, "")
        if not letters or not self._only(method, name):
            return "."
        with self._lock:
            call = self._calls[method]
            self._calls[method] += 1
        if letters.endswith("*"):
            return letters[min(call, len(letters) - 2)]
        return letters[call] if call < len(letters) else "."

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        letter = self._letter(method, name)
        if letter == "E":
            raise StoreUnreachable(self.url, f"{method} fails by design", transient=True)
        if letter == "U":
            raise StoreUnreachable(self.url, f"{method} fails by design")
        if letter == "M":
            raise ObjectMissing(name)
        if letter == "C":
            raise CorruptObject(name, f"{method} fails by design")
        if letter == "S":
            raise SpaceExhausted(self.url, "no space left, by design")
        result = act()
        if letter == "A":
            raise StoreUnreachable(self.url, f"the answer to {method} is lost", transient=True)
        if letter == "X":
            return _with_a_wrong_bit(result)
        return result


def _with_a_wrong_bit(result: bytes | memoryview) -> bytes | memoryview:
    data = result if isinstance(result, memoryview) else memoryview(bytearray(result))
    data.cast("B")[data.nbytes // 2] ^= 0x10
    return data if isinstance(result, memoryview) else bytes(data)


class CountingStore(Around):
    """
    Counts calls and bytes.

    Attributes:
        calls: How often each method was called, failures included.

        names: The names that each method was called with, in order.

        bytes_read, bytes_written: What passed through, in bytes.
    """

    def __init__(self, store: PruneStore) -> None:
        super().__init__(store)
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Begin to count from zero."""
        self.calls: Counter[str] = Counter()
        self.names: dict[str, list[str]] = {method: [] for method in METHODS}
        self.bytes_read = 0
        self.bytes_written = 0

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        with self._lock:
            self.calls[method] += 1
            self.names[method].append(name)
        result = act()
        with self._lock:
            if method in ("read", "read_range"):
                self.bytes_read += len(result)
            elif method in ("write", "replace"):
                self.bytes_written += result
        return result


class SlowStore(Around):
    """
    Waits before every call, as a store across a network does.

    Args:
        store: Does the work.

        seconds: How long before each call.

        sleep: Waits; a test may count instead.

    Attributes:
        most_at_once: The largest number of calls that were ever in flight together.
    """

    def __init__(
        self, store: PruneStore, seconds: float, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        super().__init__(store)
        self._seconds = seconds
        self._sleep = sleep
        self._lock = threading.Lock()
        self._in_flight = 0
        self.most_at_once = 0

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        with self._lock:
            self._in_flight += 1
            self.most_at_once = max(self.most_at_once, self._in_flight)
        try:
            self._sleep(self._seconds)
            return act()
        finally:
            with self._lock:
                self._in_flight -= 1
