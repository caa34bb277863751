"""
From stores to memory: the stored bytes of a restore, read ahead where that pays.

A store across a network is fastest with many requests in flight, more than there are cores and
more than there are files being written. So there are two kinds of threads: those of the engine
decode and write, those of a :class:`Fetcher` only read, into buffers that go round::

    engine's workers   --- ranges wanted next --->   fetching threads
                       <--- filled buffers ------
                       --- emptied buffers ---->     whoever asks first

Every worker gets its share of the buffers: a big file on its own, at the end of a restore, gets
all of them, so that the last file comes as fast as the first hundred.

A disk that answers at once needs none of this: there each worker reads for itself.
"""

from __future__ import annotations

import mmap
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from queue import SimpleQueue

from xxhash import xxh3_128_digest

from cachepod.errors import CachepodError, CorruptObject, ObjectMissing, StoreUnreachable
from cachepod.snapshot.plan import READ_SIZE, Read
from cachepod.snapshot.spent import IDLE, PYTHON, READ, WAIT, Spent, Watch
from cachepod.snapshot.workers import Cancelled
from cachepod.stores.base import Store

#: Seconds that the end of a restore waits for each fetching thread.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Damage:
    """A pack that a restore found damaged or missing at *store*, and had from another one."""

    store: str
    name: str
    why: str


class Source:
    """
    Packs by name, from the nearest store that has them whole.

    Args:
        store: The one that the manifest was read from.

        backups: Others that may have packs of the same names, the nearest first. A pack's name
            is drawn at random, so what is called the same is the same; its bytes are checked all
            the same.
    """

    def __init__(self, store: Store, backups: Sequence[Store] = ()) -> None:
        self._stores = [store, *backups]
        self._down: set[int] = set()
        self._damages: dict[tuple[str, str], str] = {}
        self._lock = threading.Lock()

    @property
    def parallel_reads(self) -> int:
        """As the first store has it."""
        return self._stores[0].parallel_reads

    @property
    def damages(self) -> tuple[Damage, ...]:
        """What was found damaged or missing so far, and could be had elsewhere or not."""
        with self._lock:
            return tuple(Damage(*where, why) for where, why in sorted(self._damages.items()))

    def read(self, name: str, offset: int, into: memoryview) -> None:
        """
        Fill *into* with bytes of the pack *name*.

        Raises:
            CorruptObject, ObjectMissing, StoreUnreachable: No store has them; what the first
                one said.
        """
        self._first(name, lambda store: store.read_range(name, offset, into))

    def read_again(self, name: str, offset: int, into: memoryview, check: bytes) -> None:
        """
        The same for bytes that did not match their checksum when they were read.

        The first store is asked once more, for a wrong byte on the way is no wrong byte in the
        store.

        Args:
            check: XXH3-128 of what *into* should hold.

        Raises:
            CorruptObject: No store has the bytes that the checksum is of.

            ObjectMissing, StoreUnreachable: Likewise, as the first store said.
        """

        def read_and_check(store: Store) -> None:
            store.read_range(name, offset, into)
            if xxh3_128_digest(into) != check:
                raise CorruptObject(name, f"the bytes at {offset} do not match their checksum")

        self._first(name, read_and_check)

    def _first(self, name: str, act: Callable[[Store], None]) -> None:
        problem: CachepodError | None = None
        for place, store in self._in_order():
            try:
                act(store)
                return
            except (CorruptObject, ObjectMissing) as error:
                problem = problem or error
                if place == 0:
                    self._note(store, name, error)
            except StoreUnreachable as error:
                problem = problem or error
                with self._lock:
                    self._down.add(place)
        assert problem is not None  # there is one store at least
        raise problem

    def _in_order(self) -> list[tuple[int, Store]]:
        """Stores that answered before those that did not: each try may take a time-out."""
        with self._lock:
            down = set(self._down)
        places = sorted(range(len(self._stores)), key=lambda place: (place in down, place))
        return [(place, self._stores[place]) for place in places]

    def _note(self, store: Store, name: str, error: CorruptObject | ObjectMissing) -> None:
        why = error.why if isinstance(error, CorruptObject) else "it is not in the store"
        with self._lock:
            self._damages.setdefault((store.url, name), why)


class _Buffer:
    """Page-aligned memory for one range."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, READ_SIZE)
        self.view = memoryview(self._memory)

    def close(self) -> None:
        self.view.release()
        try:
            self._memory.close()
        except BufferError:
            pass  # a traceback still holds a view; the memory goes with it


class _Order:
    """A range on its way into a buffer."""

    __slots__ = ("buffer", "done", "error", "read")

    def __init__(self, read: Read, buffer: _Buffer) -> None:
        self.read = read
        self.buffer = buffer
        self.done = threading.Event()
        self.error: BaseException | None = None


class Fetcher:
    """
    Reads the ranges that workers ask for.

    Args:
        source: Where they come from.

        names: Names of the packs, by the number that a Read has.

        workers: How many will ask; each must :meth:`leave` when it asks no more.

        threads: How many read ahead; zero for none, so that each worker reads for itself.

        spent: Told where the time of those goes.
    """

    def __init__(
        self, source: Source, names: Sequence[str], workers: int, threads: int, spent: Spent
    ) -> None:
        self.source = source
        self._spent = spent
        self._names = names
        self._workers = workers
        self._free: deque[_Buffer] = deque()
        self._changed = threading.Condition()
        self._waiting = 0
        self._orders: SimpleQueue[_Order | None] = SimpleQueue()
        self._stopped = threading.Event()
        self._threads: list[threading.Event] = []
        for number in range(threads):
            if not self._start(number):
                break
        self._buffers = [_Buffer() for _ in range(len(self._threads) + workers)]
        self._free.extend(self._buffers)

    def _start(self, number: int) -> bool:
        done = threading.Event()
        # A daemon: one that is stuck in the kernel must not keep the process from ending.
        thread = threading.Thread(
            target=self._serve, args=(done,), name=f"fetch-{number}", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # no more threads for this process or container
            return False
        self._threads.append(done)
        return True

    def _serve(self, done: threading.Event) -> None:
        watch = self._spent.watch(ahead=True)
        while (order := self._orders.get()) is not None:
            watch.lap(IDLE, calls=0)
            try:
                if self._stopped.is_set():
                    raise Cancelled
                self._fill(order, watch)
            except BaseException as error:
                order.error = error
            order.done.set()
        watch.lap(IDLE, calls=0)
        watch.close()
        done.set()

    def _fill(self, order: _Order, watch: Watch) -> None:
        read = order.read
        try:
            self.source.read(self._names[read.pack], read.offset, order.buffer.view[: read.size])
        finally:
            watch.lap(READ, read.size)

    @contextmanager
    def stream(
        self, reads: Sequence[Read], watch: Watch
    ) -> Iterator[Iterator[tuple[Read, memoryview]]]:
        """
        The stored bytes of *reads*, in order; each view is valid until the next is asked for.

        Leaving the context gives back what was read ahead, whether it was used or not. The
        *watch* is the calling worker's.

        Raises:
            CorruptObject, ObjectMissing, StoreUnreachable: As the source has it.
        """
        pending: deque[_Order] = deque()
        try:
            yield self._in_turn(deque(reads), pending, watch)
        finally:
            for order in pending:
                order.done.wait()
                self._give_back(order)

    def _in_turn(
        self, left: deque[Read], pending: deque[_Order], watch: Watch
    ) -> Iterator[tuple[Read, memoryview]]:
        while left or pending:
            watch.lap(PYTHON)
            self._order_ahead(left, pending, watch)
            order = pending[0]
            if self._threads:
                order.done.wait()
                watch.lap(WAIT)
            if order.error is not None:
                raise order.error
            with order.buffer.view[: order.read.size] as stored:
                yield order.read, stored
            self._give_back(pending.popleft())

    def _order_ahead(self, left: deque[Read], pending: deque[_Order], watch: Watch) -> None:
        while left:
            buffer = self._take(must=not pending, held=len(pending))
            if buffer is None:
                return
            order = _Order(left.popleft(), buffer)
            pending.append(order)
            if self._threads:
                self._orders.put(order)
                continue
            try:
                self._fill(order, watch)
            except BaseException as error:
                order.error = error
            order.done.set()
            return

    def _take(self, *, must: bool, held: int) -> _Buffer | None:
        """A free buffer, if there is one within the worker's share; the first is waited for."""
        with self._changed:
            if must:
                self._waiting += 1
                while not self._free:
                    self._changed.wait()
                self._waiting -= 1
                return self._free.popleft()
            share = -(-len(self._buffers) // max(self._workers, 1))
            # Not while another worker waits for its first.
            if self._threads and held < share and len(self._free) > self._waiting:
                return self._free.popleft()
            return None

    def _give_back(self, order: _Order) -> None:
        with self._changed:
            self._free.append(order.buffer)
            self._changed.notify()

    def leave(self) -> None:
        """One worker asks no more: its share is for the others."""
        with self._changed:
            self._workers -= 1

    def close(self) -> None:
        """Stop reading ahead; a thread that is stuck is left behind, with its buffer."""
        self._stopped.set()
        for _ in self._threads:
            self._orders.put(None)
        if all(done.wait(_PATIENCE) for done in self._threads):
            for buffer in self._buffers:
                buffer.close()
