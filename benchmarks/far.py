"""
A command of cachepod, or ``cat``, at the other end of a :class:`benchmarks.wire.Wire`.

::

    python -m benchmarks.far WIRE [--gate] [--parallel N] cachepod restore ...
    python -m benchmarks.far WIRE [--gate] cat FILE

The command is the real one; only its stores are behind the wire. With ``--gate`` it begins, with
all that it needs imported, when all are let go. ``cat`` asks for some blocks ahead, as a file
system does for a program that reads from the beginning to the end.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from benchmarks.wire import DOWN, UP, Wire
from cachepod.stores import url as urls
from cachepod.stores.base import Buffer, Leftover, ObjectInfo, PruneStore, Writer

Result = TypeVar("Result")

_BLOCK = 1 << 20
_AHEAD = 8
# What a restore imports on its way, and a container with a core of its own has at once.
_NEEDED = (
    "cachepod.cli.commands.restore",
    "cachepod.environment.account",
    "cachepod.environment.identity",
    "cachepod.environment.recent",
    "cachepod.environment.restoration",
    "cachepod.snapshot.restore",
    "zstandard",
)


class Far(PruneStore):
    """
    Another store, at the end of a wire.

    Args:
        parallel: As the protocol has ``parallel_reads``; None for the store's own.
    """

    def __init__(self, store: PruneStore, wire: Wire, parallel: int | None = None) -> None:
        self._store = store
        self._wire = wire
        self._parallel = parallel

    @property
    def url(self) -> str:
        """That of the store."""
        return self._store.url

    @property
    def parallel_reads(self) -> int:
        """As given."""
        return self._store.parallel_reads if self._parallel is None else self._parallel

    @property
    def exclusive(self) -> bool:
        """As the store has it."""
        return self._store.exclusive

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says."""
        return self._ask("read", lambda: self._store.read(name, limit=limit), size=len)

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says."""
        self._ask(
            "range",
            lambda: self._store.read_range(name, offset, into),
            size=lambda _: into.nbytes,
        )

    def size(self, name: str) -> int:
        """As the protocol says."""
        return self._ask("size", lambda: self._store.size(name))

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        yield from self._ask("list", lambda: list(self._store.list(prefix)))

    def create(self, name: str) -> Writer:
        """As the protocol says; the request is made at the commit."""
        return _FarWriter(self._store.create(name), self._ask)

    def replace(self, name: str, data: Buffer) -> None:
        """As the protocol says."""
        self._ask(
            "replace", lambda: self._store.replace(name, data), size=lambda _: len(data), way=UP
        )

    def move(self, name: str, to: str) -> None:
        """As the protocol says."""
        self._ask("move", lambda: self._store.move(name, to))

    def delete(self, name: str) -> None:
        """As the protocol says."""
        self._ask("delete", lambda: self._store.delete(name))

    def leftovers(self) -> Iterator[Leftover]:
        """As the protocol says."""
        yield from self._ask("list", lambda: list(self._store.leftovers()))

    def remove(self, leftover: Leftover) -> None:
        """As the protocol says."""
        self._ask("delete", lambda: self._store.remove(leftover))

    def _ask(
        self,
        kind: str,
        act: Callable[[], Result],
        *,
        size: Callable[[Result], int] = lambda _: 0,
        way: int = DOWN,
    ) -> Result:
        begun = time.monotonic()
        try:
            result = act()
        except BaseException:
            _until(self._wire.ask(kind, begun))
            raise
        _until(self._wire.ask(kind, begun, size(result), way))
        return result


class _FarWriter(Writer):
    """Its bytes go over the wire as they are written, behind the back of the writer."""

    def __init__(self, writer: Writer, ask: Callable[..., bool]) -> None:
        self._writer = writer
        self._ask = ask
        self._size = 0

    def write(self, data: Buffer) -> None:
        self._writer.write(data)
        self._size += memoryview(data).nbytes

    def commit(self) -> bool:
        return self._ask("create", self._writer.commit, size=lambda _: self._size, way=UP)

    def abort(self) -> None:
        self._writer.abort()


def cat(path: Path, wire: Wire, target: int) -> None:
    """Write the file *path* to the descriptor *target*, as fast as it comes over the wire."""
    with open(path, "rb", buffering=0) as file:
        ordered: deque[tuple[bytes, float]] = deque()
        kind = "read"
        while True:
            while len(ordered) < _AHEAD and (block := file.read(_BLOCK)):
                ordered.append((block, wire.ask(kind, time.monotonic(), len(block))))
                kind = "range"
            if not ordered:
                return
            block, arrives = ordered.popleft()
            _until(arrives)
            rest = memoryview(block)
            while rest:
                rest = rest[os.write(target, rest) :]


def _until(moment: float) -> None:
    pause = moment - time.monotonic()
    if pause > 0:
        time.sleep(pause)


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.far")
    parser.add_argument("wire", type=Path)
    parser.add_argument("--gate", action="store_true")
    parser.add_argument("--parallel", type=int, help="reads in flight (default: the store's own)")
    parser.add_argument("program", choices=("cachepod", "cat"))
    parser.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args()
    wire = Wire(given.wire)
    open_store = urls.open_store

    def far(*words: Any, **more: Any) -> Far:
        return Far(open_store(*words, **more), wire, given.parallel)

    urls.open_store = far  # type: ignore[assignment]
    if given.gate:
        if given.program == "cachepod":
            for module in _NEEDED:
                importlib.import_module(module)
        wire.wait_at_gate()
    if given.program == "cat":
        cat(Path(given.arguments[0]), wire, sys.stdout.fileno())
        return
    from cachepod.cli.main import main as run

    run(given.arguments)


if __name__ == "__main__":
    main()
