"""Progress on stderr: a live bar on a terminal, a line every few seconds in a log."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol

from cachepod.cli.render import Console, duration, printable, rate
from cachepod.errors import human_bytes

if TYPE_CHECKING:
    from tqdm import tqdm

_LIVE_INTERVAL = 0.1
_LINE_INTERVAL = 5.0
_BAR = (
    "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{postfix}, {rate_fmt} "
    "[{elapsed}<{remaining}]"
)
_COUNTER = "{desc}: {n_fmt}{postfix} [{elapsed}]"
_NOTHING_YET = "{desc}: [{elapsed}]"
_STATUS = "{desc}"


class _Face(Protocol):
    """Draws what a Display has counted; called with the display's lock held."""

    interval: float

    def begin(self, state: _State) -> None: ...

    def draw(self, state: _State) -> None: ...

    def end(self, state: _State) -> None: ...

    def print(self, text: str) -> None: ...


class _State:
    """One phase and how far it has come."""

    def __init__(self, name: str, files: int, size: int) -> None:
        self.name = name
        self.files_total = files
        self.size_total = size
        self.files = 0
        self.size = 0
        self.text = ""
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started


class Display:
    """
    A :class:`cachepod.snapshot.progress.Progress` that counts, and draws from a thread of its own.

    As a context manager it puts the thread to rest at the end, so that the process may fork.
    Workers that report are never held up by a slow terminal.
    """

    def __init__(self, console: Console, beat: Callable[[], None] | None = None) -> None:
        """
        Args:
            console: Says how much to print.

            beat: Called whenever something moves; tells a watchdog that the work is alive.
        """
        self._console = console
        self._beat = beat
        self._counting = threading.Lock()
        self._drawing = threading.Lock()
        self._state: _State | None = None
        self._face: _Face | None = None
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def phase(self, name: str, *, files: int = 0, size: int = 0) -> None:
        """Begin a phase; the previous one is over."""
        if self._beat:
            self._beat()
        if self._console.quiet:
            return
        with self._drawing:
            if self._face is None:
                self._face = _face()
            if self._state is not None:
                self._face.end(self._state)
            state = _State(name, files, size)
            with self._counting:
                self._state = state
            self._face.begin(state)
        if self._thread is None:
            self._thread = threading.Thread(target=self._tick, name="progress", daemon=True)
            self._thread.start()

    def advance(self, files: int, size: int) -> None:
        """Add to what the current phase has done."""
        with self._counting:
            if self._state is not None:
                self._state.files += files
                self._state.size += size
        if self._beat:
            self._beat()

    def status(self, text: str) -> None:
        """Show *text* as long as the phase lasts, or until the next one."""
        with self._counting:
            if self._state is not None:
                self._state.text = text
        if self._beat:
            self._beat()

    def note(self, text: str) -> None:
        """Show a line now."""
        if self._console.quiet:
            return
        line = f"cachepod: {printable(text)}"
        with self._drawing:
            if self._face is None:
                self._console.complain(line)
            else:
                self._face.print(line)

    def close(self) -> None:
        """End the current phase and the thread."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        with self._drawing:
            if self._face is not None and self._state is not None:
                self._face.end(self._state)
            self._face = self._state = None
        self._stop.clear()

    def __enter__(self) -> Display:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _tick(self) -> None:
        while self._face is not None and not self._stop.wait(self._face.interval):
            with self._drawing:
                if self._face is not None and self._state is not None:
                    self._face.draw(self._state)


def _face() -> _Face:
    try:
        live = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    except ValueError:  # closed
        live = False
    return _Bar() if live else _Lines()


class _Lines:
    """For a log: one line every few seconds, nothing for a phase that is over sooner."""

    interval = _LINE_INTERVAL

    def begin(self, state: _State) -> None:
        """A short phase needs no line."""

    def draw(self, state: _State) -> None:
        if state.text:
            self.print(f"cachepod: {printable(state.text)}")
            return
        done = []
        if state.size_total or state.size:
            done.append(_of(state.size, state.size_total, human_bytes))
        if state.files_total or state.files:
            done.append(_of(state.files, state.files_total, lambda n: f"{n:,.0f}") + " files")
        if state.size:
            done.append(rate(state.size, state.seconds))
        done.append(duration(state.seconds))
        self.print(f"cachepod: {printable(state.name)}: {', '.join(done)}")

    def end(self, state: _State) -> None:
        """The last line is the command's own."""

    def print(self, text: str) -> None:
        _stderr(text + "\n")


def _of(done: float, total: float, show: Callable[[float], str]) -> str:
    if not total:
        return show(done)
    return f"{show(done)} of {show(total)} ({min(100, int(100 * done / total))}%)"


class _Bar:
    """For a terminal: a bar with bytes, files and the rate, gone when the phase is over."""

    interval = _LIVE_INTERVAL

    def __init__(self) -> None:
        self._bar: tqdm[Any] | None = None

    def begin(self, state: _State) -> None:
        from tqdm import tqdm

        tqdm.monitor_interval = 0  # its monitor is a thread, and the display has its own
        by_files = not state.size_total and state.files_total > 0
        known = bool(state.size_total or state.files_total)
        self._bar = tqdm(
            total=(state.files_total if by_files else state.size_total) or None,
            desc=printable(state.name),
            unit=" files" if by_files else "B",
            unit_scale=not by_files,
            file=sys.stderr,
            leave=False,
            ncols=_columns(),
            nrows=20,  # one bar needs two; a terminal may say it has none
            mininterval=0,
            bar_format=_BAR if known else _NOTHING_YET,
        )

    def draw(self, state: _State) -> None:
        bar = self._bar
        if bar is None:
            return
        if state.text:
            bar.bar_format = _STATUS
            bar.set_description_str(printable(state.text), refresh=False)
        elif bar.bar_format == _NOTHING_YET and (state.size or state.files):
            bar.bar_format = _COUNTER
        by_files = not state.size_total and state.files_total > 0
        bar.n = state.files if by_files else state.size
        if not by_files and (state.files or state.files_total):
            of = f"/{state.files_total:,}" if state.files_total else ""
            bar.set_postfix_str(f"{state.files:,}{of} files", refresh=False)
        bar.ncols = _columns()
        try:
            bar.refresh()
        except OSError:  # the terminal is gone; the work goes on
            self._bar = None

    def end(self, state: _State) -> None:
        self.draw(state)
        if self._bar is not None:
            try:
                self._bar.close()
            except OSError:
                pass
            self._bar = None

    def print(self, text: str) -> None:
        if self._bar is not None:
            try:
                self._bar.clear()
            except OSError:
                self._bar = None
        _stderr(text + "\n")


def _columns() -> int:
    try:
        # A terminal that a container has just been given may not know its size yet: 0.
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (OSError, ValueError):
        return 80


def _stderr(text: str) -> None:
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass
