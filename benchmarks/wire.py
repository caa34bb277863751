"""
A model of a network that several processes share: so many bytes a second, and latency.

Whoever reads from a store through it, see :mod:`benchmarks.far`, takes time as if all went over
one wire: a body begins when its request has been under way for the latency and the wire is free.
What is known of the wire lies in a small file that every process maps into its memory::

    rate, latency               as they were given; a rate of 0 is no limit
    free down, free up          when the last body is through, in each direction
    let go                      when those who wait at the gate may begin; 0 while they wait
    arrived                     how many have come to the gate
    bytes down, bytes up        that went through
    requests                    of each kind

Waiting is done by sleeping, so that the model costs next to no CPU time.
"""

from __future__ import annotations

import fcntl
import mmap
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

#: What can be asked of a store.
KINDS = ("read", "range", "size", "list", "create", "replace", "move", "delete")
DOWN, UP = 0, 1

_DOUBLES = ("rate", "latency", "free down", "free up", "let go")
_NUMBERS = ("arrived", "bytes down", "bytes up", *KINDS)
_SIZE = 8 * (len(_DOUBLES) + len(_NUMBERS))
_FREE = ("free down", "free up")
_BYTES = ("bytes down", "bytes up")
_PAUSE = 0.01  # seconds between two looks at the gate

Clock = Callable[[], float]


@dataclass(frozen=True)
class Traffic:
    """
    What went over a wire since it was made.

    Args:
        down: Bytes read.

        up: Bytes written.

        requests: How many, by kind; only the kinds that there were.
    """

    down: int
    up: int
    requests: dict[str, int]


class Wire:
    """
    The wire in the file *path*, which :meth:`make` has made.

    Processes and threads may share it. *clock* must be one that all of them share, as
    ``time.monotonic`` is on one machine.
    """

    def __init__(self, path: Path, clock: Clock = time.monotonic) -> None:
        self.path = path
        self._clock = clock
        self._file = open(path, "r+b")  # noqa: SIM115
        self._map = mmap.mmap(self._file.fileno(), _SIZE)
        self._lock = threading.Lock()
        self.rate, self.latency = self._double("rate"), self._double("latency")

    @classmethod
    def make(
        cls, path: Path, rate: float = 0.0, latency: float = 0.0, clock: Clock = time.monotonic
    ) -> Wire:
        """A new wire of *rate* bytes a second; each request takes *latency* seconds at least."""
        path.write_bytes(struct.pack("<dd", rate, latency).ljust(_SIZE, b"\0"))
        return cls(path, clock)

    def ask(self, kind: str, begun: float, count: int = 0, way: int = DOWN) -> float:
        """
        Note a request with a body of *count* bytes, and give it its place on the wire.

        Args:
            kind: One of :data:`KINDS`; empty for the further parts of a body.

            begun: When the request was sent, by the clock.

        Returns:
            When all of the body is there, by the clock; until then the caller is to wait.
        """
        with self._held():
            if kind:
                self._set_number(kind, self._number(kind) + 1)
            self._set_number(_BYTES[way], self._number(_BYTES[way]) + count)
            arrives = begun + self.latency
            if self.rate and count:
                arrives = max(arrives, self._double(_FREE[way])) + count / self.rate
                self._set_double(_FREE[way], arrives)
            return arrives

    def traffic(self) -> Traffic:
        """What went through so far."""
        with self._held():
            asked = {kind: self._number(kind) for kind in KINDS}
            down, up = (self._number(name) for name in _BYTES)
        return Traffic(down, up, {kind: count for kind, count in asked.items() if count})

    def wait_at_gate(self) -> None:
        """Say that one is ready to begin, and wait until all are let go."""
        with self._held():
            self._set_number("arrived", self._number("arrived") + 1)
        while not self._double("let go"):
            time.sleep(_PAUSE)

    def arrived(self) -> int:
        """How many wait at the gate, or went through."""
        with self._held():
            return self._number("arrived")

    def let_go(self) -> float:
        """Open the gate; when that was, by the clock."""
        now = self._clock()
        with self._held():
            self._set_double("let go", now)
        return now

    def close(self) -> None:
        """Let go of the file; it stays."""
        self._map.close()
        self._file.close()

    @contextmanager
    def _held(self) -> Iterator[None]:
        # The file's lock is the process's, so that threads need one beside it.
        with self._lock:
            fcntl.lockf(self._file, fcntl.LOCK_EX)
            try:
                yield
            finally:
                fcntl.lockf(self._file, fcntl.LOCK_UN)

    def _double(self, name: str) -> float:
        value: float = struct.unpack_from("<d", self._map, 8 * _DOUBLES.index(name))[0]
        return value

    def _set_double(self, name: str, value: float) -> None:
        struct.pack_into("<d", self._map, 8 * _DOUBLES.index(name), value)

    def _number(self, name: str) -> int:
        value: int = struct.unpack_from("<q", self._map, _place(name))[0]
        return value

    def _set_number(self, name: str, value: int) -> None:
        struct.pack_into("<q", self._map, _place(name), value)


def _place(name: str) -> int:
    return 8 * (len(_DOUBLES) + _NUMBERS.index(name))
