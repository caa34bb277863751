"""A few threads that share a list of tasks; the first failure stops them all."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TypeVar

TaskT = TypeVar("TaskT")
ResultT = TypeVar("ResultT")
#: Seconds that an interrupted operation waits for each of its threads.
_PATIENCE = 10.0


class Cancelled(BaseException):
    """Another worker failed; raised inside a worker so that its context cleans up."""


def run_workers(
    tasks: Iterable[TaskT],
    worker: Callable[[], AbstractContextManager[Callable[[TaskT], None]]],
    threads: int,
    *,
    name: str,
    beside: Iterable[TaskT] = (),
    prefer_beside: int = 0,
    most_beside: int | None = None,
) -> None:
    """
    Run every task on one of *threads* threads, in order of their list.

    Threads, not processes: compression, hashing and the system calls release the interpreter's
    lock, and processes were not faster.

    Args:
        worker: Called once in each thread; the context's value handles one task. Leaving the
            context without an error completes the worker's part.

        beside: A second list of tasks, of another kind.

        prefer_beside: So many workers take from the second list first, the others from the first,
            and each goes on with the other list when its own is done. Tasks that wait for
            different things fill each other's gaps that way.

        most_beside: No more workers than that, 1 or more, take from the second list; the others
            end with the first.

    Raises:
        BaseException: The first error of any worker, after all have stopped; KeyboardInterrupt
            and the like when they meet the waiting thread, also after all have stopped.
    """
    queue, other = deque(tasks), deque(beside)
    stop = threading.Event()
    errors: list[BaseException] = []

    def next_for(number: int) -> Iterator[TaskT]:
        lists: tuple[deque[TaskT], ...]
        lists = (other, queue) if number < prefer_beside else (queue, other)
        if most_beside is not None and number >= most_beside:
            lists = (queue,)
        for tasks_left in lists:
            while not stop.is_set():
                try:
                    task = tasks_left.popleft()
                except IndexError:
                    break
                yield task

    def work(done: threading.Event, number: int) -> None:
        try:
            with worker() as handle:
                for task in next_for(number):
                    handle(task)
                if stop.is_set():
                    raise Cancelled
        except Cancelled:
            pass
        except BaseException as error:
            errors.append(error)
            stop.set()
        finally:
            done.set()

    # Events, not Thread.join(): one that a signal's exception interrupts takes the thread for
    # ended, up to Python 3.12 at least (https://github.com/python/cpython/issues/89437).
    started: list[threading.Event] = []
    try:
        for number in range(max(1, min(threads, len(queue) + len(other)))):
            done = threading.Event()
            # Daemons: a thread stuck in the kernel must not keep the process from ending.
            thread = threading.Thread(
                target=work, args=(done, number), name=f"{name}-{number}", daemon=True
            )
            started.append(done)
            try:
                thread.start()
            except RuntimeError:  # no more threads for this process or container
                started.pop()
                break
        if not started:
            work(threading.Event(), 0)
        for done in started:
            while not done.wait(0.5):
                pass
    except BaseException:
        stop.set()
        for done in started:
            done.wait(_PATIENCE)
        raise
    if errors:
        raise errors[0]


def together(
    act: Callable[[TaskT], ResultT], items: Sequence[TaskT], threads: int
) -> Iterator[ResultT]:
    """
    The results of *act* for each of *items*, in order, computed by several threads.

    Only a few more than there are threads are computed before they are asked for: a thousand
    manifests would fill the memory.
    """
    if len(items) < 2:
        yield from map(act, items)
        return
    from concurrent.futures import Future, ThreadPoolExecutor

    pool = ThreadPoolExecutor(min(threads, len(items)))
    begun: deque[Future[ResultT]] = deque()
    try:
        for item in items:
            begun.append(pool.submit(act, item))
            if len(begun) > 2 * threads:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()
    finally:
        # Not waited for: a thread may be stuck in a volume that does not answer.
        pool.shutdown(wait=False, cancel_futures=True)
