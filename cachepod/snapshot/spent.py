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
#: Of so many small files the write of one is looked at with the CPU's clock, which is a system
#: call; and that of each which is so long, for it costs far more than the look.
_SAMPLED, _LONG = 16, 64 * 1024


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
    """A sum of laps of one kind, in one thread."""

    __slots__ = ("calls", "cpu", "seconds", "size")

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0
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
        self._files = self._long = self._looks = 0
        self._files_cpu = self._long_cpu = self._short_cpu = self._looked_at = 0.0

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

    # Small files, of which there are many. Whoever writes them reads the wall clock around each
    # write; this one reads the CPU's around the writes of long ones and of some of the others.

    def looks_at(self, number: int, length: int) -> bool:
        """Whether the write of *length* bytes of file *number* of its row is to be looked at."""
        return length >= _LONG or not number % _SAMPLED

    def write_begins(self) -> None:
        """A write that is looked at."""
        self._looked_at = thread_time()

    def write_ends(self, length: int) -> None:
        """It wrote *length* bytes."""
        cpu = thread_time() - self._looked_at
        if length >= _LONG:
            self._long_cpu += cpu
            self._long += 1
        else:
            self._short_cpu += cpu
            self._looks += 1

    def files_end(self, files: int, size: int, writing: float) -> None:
        """
        A row of them, begun after a lap, is over: what was not writing was creating.

        Args:
            files: How many.

            size: Their bytes.

            writing: Seconds of their writes.
        """
        wall, cpu = perf_counter(), thread_time()
        create, write = self.of(CREATE), self.of(WRITE)
        create.seconds += wall - self.ended - writing
        create.calls += files
        write.seconds += writing
        write.size += size
        write.calls += files
        self._files += files
        self._files_cpu += cpu - self._cpu
        self.ended, self._cpu = wall, cpu

    def close(self) -> None:
        """The thread's work is over."""
        self.lap(PYTHON)
        if not self._files_cpu:
            return
        short = self._files - self._long
        writing = self._long_cpu + self._short_cpu * short / max(1, self._looks)
        writing = min(writing, self._files_cpu)
        self.of(WRITE).cpu += writing
        self.of(CREATE).cpu += self._files_cpu - writing
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
