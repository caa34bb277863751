"""A store in memory: for tests, and the plainest statement of what a store does."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

from cachepod.errors import CorruptObject, ObjectMissing
from cachepod.model.names import is_object_name
from cachepod.stores.base import Buffer, Leftover, ObjectInfo, PruneStore, Writer


class MemoryStore(PruneStore):
    """Objects in a dictionary; they live as long as it does."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._objects: dict[str, tuple[bytes, float]] = {}

    @property
    def url(self) -> str:
        """Not a URL that another process could open."""
        return "memory:"

    @property
    def parallel_reads(self) -> int:
        """None: there is nothing to wait for."""
        return 0

    def _get(self, name: str) -> bytes:
        _check(name)
        with self._lock:
            found = self._objects.get(name)
        if found is None:
            raise ObjectMissing(name)
        return found[0]

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        data = self._get(name)
        if len(data) > limit:
            raise CorruptObject(name, f"it has {len(data)} bytes, at most {limit} are allowed")
        return data

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says."""
        data = self._get(name)
        view = into.cast("B")
        if offset + len(view) > len(data):
            raise CorruptObject(name, f"it ends at byte {len(data)} of {offset + len(view)}")
        view[:] = data[offset : offset + len(view)]

    def size(self, name: str) -> int:
        """As the protocol says."""
        return len(self._get(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        _check(prefix)
        with self._lock:
            objects = list(self._objects.items())
        for name, (data, modified) in objects:
            if name.startswith(prefix + "/"):
                yield ObjectInfo(name, len(data), modified)

    @property
    def exclusive(self) -> bool:
        """Yes: there is a lock."""
        return True

    def create(self, name: str) -> Writer:
        """As the protocol says."""
        _check(name)
        return _MemoryWriter(self, name)

    def replace(self, name: str, data: Buffer) -> None:
        """As the protocol says."""
        _check(name)
        with self._lock:
            self._objects[name] = (bytes(memoryview(data).cast("B")), time.time())

    def move(self, name: str, to: str) -> None:
        """As the protocol says."""
        _check(name)
        _check(to)
        with self._lock:
            if name not in self._objects:
                raise ObjectMissing(name)
            self._objects[to] = self._objects.pop(name)

    def delete(self, name: str) -> None:
        """As the protocol says."""
        _check(name)
        with self._lock:
            self._objects.pop(name, None)

    def leftovers(self) -> Iterator[Leftover]:
        """None: what is not committed lives in its writer."""
        return iter(())

    def remove(self, leftover: Leftover) -> None:
        """Nothing to do."""

    def _add(self, name: str, data: bytes) -> bool:
        with self._lock:
            if name in self._objects:
                return False
            self._objects[name] = (data, time.time())
            return True


class _MemoryWriter(Writer):
    def __init__(self, store: MemoryStore, name: str) -> None:
        self._store = store
        self._name = name
        self._data: bytearray | None = bytearray()

    def write(self, data: Buffer) -> None:
        if self._data is None:
            raise ValueError(f"{self._name} is not being written any more")
        self._data += data

    def commit(self) -> bool:
        if self._data is None:
            raise ValueError(f"{self._name} is not being written any more")
        data, self._data = bytes(self._data), None
        return self._store._add(self._name, data)

    def abort(self) -> None:
        self._data = None


def _check(name: str) -> None:
    if not is_object_name(name):
        raise ValueError(f"{name!r} is not an object's name")
