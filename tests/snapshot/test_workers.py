"""Workers that share two lists of tasks: each task once, and no more of them at a list than may."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.snapshot.workers import run_workers


@given(
    tasks=st.integers(0, 20),
    beside=st.integers(0, 20),
    threads=st.integers(1, 8),
    prefer=st.integers(0, 8),
    most=st.none() | st.integers(1, 8),
)
def test_every_task_is_done_once_and_the_second_list_by_no_more_workers_than_may(
    tasks: int, beside: int, threads: int, prefer: int, most: int | None
) -> None:
    done: list[tuple[str, int]] = []
    at_second: set[str] = set()

    @contextmanager
    def worker() -> Iterator[Callable[[tuple[str, int]], None]]:
        def handle(task: tuple[str, int]) -> None:
            done.append(task)
            if task[0] == "second":
                at_second.add(threading.current_thread().name)

        yield handle

    first = [("first", number) for number in range(tasks)]
    second = [("second", number) for number in range(beside)]
    run_workers(
        first,
        worker,
        threads,
        name="w",
        beside=second,
        prefer_beside=prefer,
        most_beside=most,
    )
    assert sorted(done) == first + second
    if most is not None:
        assert len(at_second) <= most


def test_workers_that_may_not_take_from_the_second_list_take_part_in_the_first() -> None:
    """All four meet at the first list; of the second one all is done by one."""
    together = threading.Barrier(4, timeout=30)
    names: dict[str, set[str]] = {"first": set(), "second": set()}

    @contextmanager
    def worker() -> Iterator[Callable[[str], None]]:
        def handle(task: str) -> None:
            if task == "first":
                together.wait()
            names[task].add(threading.current_thread().name)

        yield handle

    run_workers(["first"] * 4, worker, 4, name="w", beside=["second"] * 50, most_beside=1)
    assert len(names["first"]) == 4
    assert names["second"] == {"w-0"}


def test_an_error_in_the_second_list_stops_those_that_only_do_the_first() -> None:
    begun = threading.Event()

    @contextmanager
    def worker() -> Iterator[Callable[[str], None]]:
        def handle(task: str) -> None:
            if task == "second":
                begun.wait(30)
                raise OSError(5, "broken")
            begun.set()

        yield handle

    with pytest.raises(OSError, match="broken"):
        run_workers(
            ["first"] * 1000,
            worker,
            3,
            name="w",
            beside=["second"],
            prefer_beside=1,
            most_beside=1,
        )
