"""
Where the time of a restore or a publish goes: by kind of work, over all of its threads.

Every thread has a stop watch of its own, and tells it what it has just done: no lock, and no look
at what others do. The laps of a thread follow one another without a gap, so their sum is the time
that the thread was there::

    main     | python | read | python |         nothing, it waits        | create | swap | python |
    worker            | idle | read | hash | decode | write | ... | idle |
    worker            | idle | python | create | write | create | ... |  |
    reads ahead       | idle | read | idle | read | ...           | idle |
                             |<----------- parallel ------------->|
             |<------------------------------ wall ----------------------------------------------->|

Seconds run from a call to its return, whatever it waits for: a disk, a core, or the interpreter's
lock. The CPU seconds beside them are what the thread itself has computed meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter, thread_time

READ, WAIT, HASH, DECODE, WRITE, CREATE = "read", "wait", "hash", "decode", "write", "create"
SWAP, SCAN, COMPARE, COMPRESS, COMMIT = "swap", "scan", "compare", "compress", "commit"
PYTHON, IDLE = "python", "idle"
#: The order in which they are told.
KINDS = (
    *(SCAN, COMPARE, READ, WAIT, HASH, DECODE, COMPRESS, WRITE, CREATE),
    *(SWAP, COMMIT, PYTHON, IDLE),
)
#: Of so many small files one is measured by the thread's CPU clock, which is a system call.
_SAMPLED = 16


@dataclass(frozen=True)
class Share:
    """What one kind took: wall and CPU *seconds* of threads, bytes handled, things done."""

    seconds: float
    cpu: float
    size: int
    calls: int


@dataclass(frozen=True)
class Profile:
    """
    Where the time went.

    Args:
        wall: Seconds from beginning to end.

        parallel: Seconds of them in which the workers were at work and the first thread waited.

        threads: Workers.

        readers: Threads that read ahead of them.

        kinds: In the order of :data:`KINDS`, without those that did not occur. Their seconds add
            up to ``wall - parallel + parallel * (threads + readers)``.
    """

    wall: float
    parallel: float
    threads: int
    readers: int
    kinds: Mapping[str, Share]


class Lap:
    """A sum of laps of one kind, in one thread; *sampled* are CPU seconds of small files."""

    __slots__ = ("calls", "cpu", "sampled", "seconds", "size")

    def __init__(self) -> None:
        self.seconds = self.cpu = self.sampled = 0.0
        self.size = self.calls = 0


class Watch:
    """
    The stop watch of the thread that makes it.

    Args:
        ahead: The thread only reads ahead of the workers.
    """

    def __init__(self, *, ahead: bool = False) -> None:
        self.ahead = ahead
        self.laps: dict[str, Lap] = {}
        self.begun = self.ended = perf_counter()
        self._cpu = thread_time()
        self._python = self.of(PYTHON)
        self._files = 0
        self._files_cpu = 0.0
        self._sampling = False
        self._sampled_at = 0.0

    def of(self, kind: str) -> Lap:
        """The sum for *kind*."""
        lap = self.laps.get(kind)
        if lap is None:
            lap = self.laps[kind] = Lap()
        return lap

    def lap(self, kind: str, size: int = 0, calls: int = 1) -> None:
        """What went by since the last lap was *kind*, and handled *size* bytes."""
        lap = self.of(kind)
        wall, cpu = perf_counter(), thread_time()
        lap.seconds += wall - self.ended
        lap.cpu += cpu - self._cpu
        lap.size += size
        lap.calls += calls
        self.ended, self._cpu = wall, cpu

    def again(self) -> None:
        """Begin a lap now: what went by since the last is nobody's."""
        self.ended, self._cpu = perf_counter(), thread_time()

    # Small files, of which there are many: only one clock for most of them.

    def next_file(self) -> None:
        """A small file begins: what went by since the last lap or tick was Python."""
        self.tick(self._python)
        self._files += 1
        self._sampling = self._files % _SAMPLED == 1
        if self._sampling:
            self._sampled_at = thread_time()

    def tick(self, lap: Lap, size: int = 0, calls: int = 0) -> None:
        """What went by since the last lap or tick was that of *lap*; its CPU time counts later."""
        wall = perf_counter()
        lap.seconds += wall - self.ended
        lap.size += size
        lap.calls += calls
        self.ended = wall
        if self._sampling:
            cpu = thread_time()
            lap.sampled += cpu - self._sampled_at
            self._sampled_at = cpu

    def files_done(self) -> None:
        """A row of small files is over; their CPU time is divided as that of those measured."""
        self._sampling = False
        self.tick(self._python)
        cpu = thread_time()
        self._files_cpu += cpu - self._cpu
        self._cpu = cpu

    def close(self) -> None:
        """The thread's work is over."""
        self.lap(PYTHON)
        sampled = sum(lap.sampled for lap in self.laps.values())
        if not sampled:
            self._python.cpu += self._files_cpu
        else:
            for lap in self.laps.values():
                lap.cpu += self._files_cpu * lap.sampled / sampled
        self._files_cpu = 0.0


class Spent:
    """All threads of one operation, from now on; :attr:`main` is the watch of the first."""

    def __init__(self) -> None:
        self.main = Watch()
        self._total: dict[str, Lap] = {}
        self._watches: list[Watch] = []
        self._stretches: list[tuple[float, int, int]] = []

    def watch(self, *, ahead: bool = False) -> Watch:
        """A watch for the thread that asks, which works or reads *ahead* of those that do."""
        watch = Watch(ahead=ahead)
        self._watches.append(watch)
        return watch

    @contextmanager
    def in_parallel(self) -> Iterator[None]:
        """While other threads work and the first waits for them; each has closed its watch."""
        self.main.lap(PYTHON)
        begun = self.main.ended
        try:
            yield
        finally:
            self.main.again()
            ended = self.main.ended
            watches, self._watches = self._watches, []
            readers = sum(watch.ahead for watch in watches)
            self._stretches.append((ended - begun, len(watches) - readers, readers))
            for watch in watches:
                self._add(watch)
                # One that is stuck in the kernel has not closed its own.
                self._of(IDLE).seconds += watch.begun - begun + ended - watch.ended

    def _of(self, kind: str) -> Lap:
        return self._total.setdefault(kind, Lap())

    def _add(self, watch: Watch) -> None:
        for kind, lap in watch.laps.items():
            total = self._of(kind)
            total.seconds += lap.seconds
            total.cpu += lap.cpu
            total.size += lap.size
            total.calls += lap.calls

    def end(self) -> Profile:
        """The operation is over: where its time went."""
        self.main.close()
        self._add(self.main)
        threads = max((threads for _, threads, _ in self._stretches), default=0)
        readers = max((readers for *_, readers in self._stretches), default=0)
        for seconds, workers, ahead in self._stretches:  # with fewer, the others had nothing to do
            self._of(IDLE).seconds += seconds * (threads + readers - workers - ahead)
        return Profile(
            wall=self.main.ended - self.main.begun,
            parallel=sum(seconds for seconds, *_ in self._stretches),
            threads=threads,
            readers=readers,
            kinds={
                kind: Share(lap.seconds, lap.cpu, lap.size, lap.calls)
                for kind in KINDS
                if (lap := self._total.get(kind)) is not None and lap.seconds > 0
            },
        )
