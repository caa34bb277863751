"""How long each part of an operation took."""

from __future__ import annotations

import time

from cachepod.snapshot.progress import Progress


class Phases:
    """A stop watch with named laps, which the progress shows as well."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._seconds: dict[str, float] = {}
        self._name = ""
        self._since = 0.0

    def begin(self, name: str, *, files: int = 0, size: int = 0) -> None:
        """End the phase at hand and begin *name*."""
        self.end()
        self._name, self._since = name, time.perf_counter()
        self._progress.phase(name, files=files, size=size)

    def end(self) -> dict[str, float]:
        """End the phase at hand; seconds of each so far."""
        if self._name:
            lap = time.perf_counter() - self._since
            self._seconds[self._name] = self._seconds.get(self._name, 0.0) + lap
            self._name = ""
        return dict(self._seconds)
