"""What a long operation tells of itself while it runs; the command line draws it."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called from any thread, often: implementations count and return."""

    def phase(self, name: str, *, files: int = 0, size: int = 0) -> None:
        """Begin a phase that will handle *files* files and *size* bytes; 0 where unknown."""
        ...

    def advance(self, files: int, size: int) -> None:
        """Add to what the current phase has done."""
        ...

    def status(self, text: str) -> None:
        """Say in *text* how far a phase has come that has nothing to count."""
        ...

    def note(self, text: str) -> None:
        """Something a user should read now: a warning, a file left out."""
        ...


class NoProgress:
    """Says nothing."""

    def phase(self, name: str, *, files: int = 0, size: int = 0) -> None:
        """Ignored."""

    def advance(self, files: int, size: int) -> None:
        """Ignored."""

    def status(self, text: str) -> None:
        """Ignored."""

    def note(self, text: str) -> None:
        """Ignored."""
