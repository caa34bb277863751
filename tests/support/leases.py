"""A world with a clock of its own, and stores that lie about who was first or what they hold."""

from __future__ import annotations

import heapq
import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

from cachepod.stores.base import ObjectInfo, PruneStore, Writer
from cachepod.stores.memory import MemoryStore
from tests.support.stores import Around


class World:
    """Time passes only where somebody sleeps; what was planned for then happens on the way."""

    def __init__(self) -> None:
        self.now = 1000.0
        self._plans: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        until = self.now + seconds
        while self._plans and self._plans[0][0] <= until:
            self.now, _, act = heapq.heappop(self._plans)
            act()
        self.now = until

    def at(self, seconds: float, act: Callable[[], object]) -> None:
        """Plan *act* for *seconds* from now."""
        heapq.heappush(self._plans, (self.now + seconds, next(self._order), act))

    def every(self, seconds: float, act: Callable[[], bool]) -> None:
        """Plan *act* again and again, as long as it returns True."""

        def again() -> None:
            if act():
                self.at(seconds, again)

        self.at(seconds, again)


class EverybodyIsFirst(Around):
    """Tells every writer of a name that it was first; the first one's object stays."""

    def create(self, name: str) -> Writer:
        return _Flattered(self.store.create(name))


class _Flattered(Writer):
    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def write(self, data: Any) -> None:
        self._writer.write(data)

    def commit(self) -> bool:
        self._writer.commit()
        return True

    def abort(self) -> None:
        self._writer.abort()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *error: object) -> None:
        self.abort()


class LastOneWins(MemoryStore):
    """As a service without conditional writes: all are told that they were first."""

    @property
    def exclusive(self) -> bool:
        return False

    def _add(self, name: str, data: bytes) -> bool:
        self.replace(name, data)
        return True


class LosesReplacements(Around):
    """Says that it has replaced an object, and has not, if there was one."""

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        if method == "replace":
            return 0
        return super().around(method, name, act)


class ListsLate(Around):
    """Shows in a listing what was there at the listing before."""

    def __init__(self, store: PruneStore) -> None:
        super().__init__(store)
        self._before: dict[str, list[ObjectInfo]] = {}

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        before = self._before.get(prefix, [])
        self._before[prefix] = list(self.store.list(prefix))
        return iter(before)


class Stage:
    """
    Actors that take turns: one runs until it sleeps, then the one that wakes next.

    Time is the stage's own, and passes only when all sleep.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._plans: list[tuple[float, int, threading.Semaphore]] = []
        self._order = itertools.count()
        self._idle = threading.Semaphore(0)
        self._mine = threading.local()
        self._errors: list[BaseException] = []

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        """An actor's own: others go on meanwhile."""
        mine: threading.Semaphore = self._mine.turn
        heapq.heappush(self._plans, (self.now + seconds, next(self._order), mine))
        self._idle.release()
        mine.acquire()

    def enter(self, moment: float, act: Callable[[], object]) -> None:
        """Let an actor begin at *moment*."""
        turn = threading.Semaphore(0)

        def perform() -> None:
            self._mine.turn = turn
            turn.acquire()
            try:
                act()
            except BaseException as error:
                self._errors.append(error)
            self._idle.release()

        threading.Thread(target=perform, daemon=True).start()
        heapq.heappush(self._plans, (moment, next(self._order), turn))

    def perform(self) -> None:
        """Until the last actor has ended; what one of them raised is raised here."""
        while self._plans:
            self.now, _, turn = heapq.heappop(self._plans)
            turn.release()
            self._idle.acquire()
            if self._errors:
                raise self._errors[0]


class Distant(Around):
    """Every call takes a while, of the stage's time; others act meanwhile."""

    def __init__(self, store: PruneStore, stage: Stage, most: float) -> None:
        super().__init__(store)
        self._stage = stage
        self._most = most

    def around(self, method: str, name: str, act: Callable[[], Any]) -> Any:
        self._stage.sleep(random.uniform(0, self._most))
        result = act()
        self._stage.sleep(random.uniform(0, self._most))
        return result
