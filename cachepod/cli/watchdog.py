"""
A deadline that holds even when the volume does not answer.

A thread that waits in the kernel for a wedged network file system can be neither cancelled nor
killed, and a process with such a thread does not end. So the work is done in a child, forked
before any thread is started and before the volume is touched; the parent only waits, and goes
away alone if it must.

A child that is left behind keeps its files open. So it does not have the pipes that are the
command's own stdout and stderr, whose readers would wait for its end: the parent passes on what
it says.

The child speaks through a pipe, in frames::

    offset  size
    0       1     what: L limit, B beat, R result
    1       4     n, big endian
    5       n     L: JSON of seconds and stall; B: nothing; R: JSON of an Outcome
"""

from __future__ import annotations

import json
import os
import select
import signal
import struct
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from types import FrameType
from typing import NoReturn

from cachepod.cli.render import Outcome, duration
from cachepod.cli.signals import SIGNALS, Interrupted, raise_on_signals
from cachepod.errors import EXIT_FAILURE

_HEADER = struct.Struct(">cI")
_GRACE = 8.0  # seconds that a signalled child gets to clean up; containers are killed after 10
_LINGER = 1.0  # seconds to wait for the end of a child that has been killed or has answered
_PR_SET_PDEATHSIG = 1


class Link:
    """The child's end of the pipe. Any thread may use it."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._lock = threading.Lock()
        self._last_beat = time.monotonic()

    def limit(self, seconds: float, *, stall: bool = False) -> None:
        """
        Set the deadline anew.

        Args:
            seconds: From the start of the work, or between two beats; 0 is no deadline.

            stall: Count from the last beat: work may take long as long as it moves.
        """
        self._send(b"L", json.dumps([seconds, stall]).encode())

    def beat(self) -> None:
        """Something moved. Cheap, at most one a second is sent."""
        now = time.monotonic()
        if now - self._last_beat >= 1:
            self._last_beat = now
            self._send(b"B", b"")

    def result(self, outcome: Outcome) -> None:
        """Hand the end of the work to the parent."""
        self._send(b"R", json.dumps(asdict(outcome)).encode())

    def _send(self, what: bytes, payload: bytes) -> None:
        data = memoryview(_HEADER.pack(what, len(payload)) + payload)
        with self._lock:
            while data:
                data = data[os.write(self._fd, data) :]


def watched(
    work: Callable[[Link], Outcome], *, limit: float, expired: Callable[[float], Outcome]
) -> Outcome:
    """
    Do *work* in a child process, with a deadline.

    SIGTERM and SIGINT are passed on to the child, which cleans up; a second one kills it.

    Args:
        work: Runs in the child. It must not raise.

        limit: Seconds, until the child sets another limit; 0 is none.

        expired: Makes what to return when that many seconds are over. The child is then killed,
            and left behind if it cannot be.

    Returns:
        What *work* returned.

    Raises:
        Interrupted: A signal came, and the child did not answer it in time.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    reader, writer = os.pipe()
    relays = {target: os.pipe() for target in (1, 2) if not os.isatty(target)}
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    parent = os.getpid()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        for target, (source, saying) in relays.items():
            os.close(source)
            os.dup2(saying, target)
            os.close(saying)
        _child(work, Link(writer), parent, blocked)
    os.close(writer)
    for source, saying in relays.values():
        os.close(saying)
        os.set_blocking(source, False)
    _own_group(pid)
    said = {source: target for target, (source, _) in relays.items()}
    watch = _Watch(pid, reader, said, limit, expired)
    before = {number: signal.signal(number, watch.forward) for number in SIGNALS}
    signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    try:
        return watch.wait()
    finally:
        os.close(reader)
        for source, _ in relays.values():
            os.close(source)
        for number, handler in before.items():
            signal.signal(number, handler)


def _child(
    work: Callable[[Link], Outcome], link: Link, parent: int, mask: set[int | signal.Signals]
) -> NoReturn:
    code = EXIT_FAILURE
    try:
        _own_group(0)
        raise_on_signals()
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        _die_with(parent)
        outcome = work(link)
        code = outcome.exit_code
        link.result(outcome)
    except Interrupted as interrupted:
        code = interrupted.exit_code
    finally:
        # No interpreter shutdown: it would wait for threads, and for the release of much memory.
        os._exit(code)


def _own_group(pid: int) -> None:
    """
    Give the child a process group of its own.

    The parent can then end it with all that it has started, and a key pressed in a terminal
    reaches it once, through the parent. Both sides do it, so that both can rely on it.
    """
    try:
        os.setpgid(pid, pid)
    except OSError:
        pass  # it has ended


def _die_with(parent: int) -> None:
    """Ask the kernel to kill this process as soon as *parent* dies of whatever."""
    import ctypes

    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    except (OSError, AttributeError):
        return  # only a convenience: an orphan does no harm, it just works for nobody
    if os.getppid() != parent:
        os._exit(EXIT_FAILURE)


class _Watch:
    """The parent's side."""

    def __init__(
        self,
        pid: int,
        reader: int,
        said: dict[int, int],
        limit: float,
        expired: Callable[[float], Outcome],
    ) -> None:
        self._pid = pid
        self._reader = reader
        self._said = said  # what the child writes to, and where that is to go
        self._expired = expired
        self._started = self._moved = time.monotonic()
        self._limit = limit
        self._stall = False
        self._signal = 0
        self._signalled = 0.0
        self._outcome: Outcome | None = None
        self._buffer = bytearray()

    def forward(self, number: int, _frame: FrameType | None) -> None:
        """Pass a signal on; kill at the second."""
        if self._signal:
            self._kill(signal.SIGKILL)
            self._signalled = 0.0
        else:
            self._signal = number
            self._signalled = time.monotonic()
            self._kill(number)

    def wait(self) -> Outcome:
        """Until the child has ended or its time is over."""
        try:
            return self._wait()
        finally:
            self._pass_on()

    def _wait(self) -> Outcome:
        while True:
            # Woken at least every second: a signal's handler may have moved the deadline.
            sources = [self._reader, *self._said]
            readable, _, _ = select.select(sources, [], [], min(1.0, self._remaining()))
            self._pass_on()
            if self._reader in readable:
                data = os.read(self._reader, 1 << 16)
                if not data:
                    return self._ended()
                self._buffer += data
                self._parse()
                if self._outcome is not None:
                    return self._ended()
            elif self._remaining() <= 0:
                return self._over()

    def _pass_on(self) -> None:
        """Write what the child has said so far where it was to go."""
        for source, target in list(self._said.items()):
            while True:
                try:
                    data = os.read(source, 1 << 16)
                except BlockingIOError:
                    break
                if not data:
                    del self._said[source]
                    break
                try:
                    while data:
                        data = data[os.write(target, data) :]
                except OSError:
                    pass  # nobody reads it any more, which must not end a command

    def _remaining(self) -> float:
        now = time.monotonic()
        if self._signal:
            return max(0.0, self._signalled + _GRACE - now)
        if not self._limit:
            return 1.0
        since = self._moved if self._stall else self._started
        return max(0.0, since + self._limit - now)

    def _parse(self) -> None:
        while len(self._buffer) >= _HEADER.size:
            what, size = _HEADER.unpack_from(self._buffer)
            if len(self._buffer) < _HEADER.size + size:
                return
            payload = bytes(self._buffer[_HEADER.size : _HEADER.size + size])
            del self._buffer[: _HEADER.size + size]
            self._moved = time.monotonic()
            if what == b"L":
                self._limit, self._stall = json.loads(payload)
            elif what == b"R":
                fields = json.loads(payload)
                fields["details"] = tuple(fields["details"])
                self._outcome = Outcome(**fields)

    def _ended(self) -> Outcome:
        status = self._reap()
        if status is None:
            self._kill(signal.SIGKILL)
        if self._outcome is not None:
            return self._outcome
        if self._signal:
            raise Interrupted(self._signal)
        code = EXIT_FAILURE if status is None else os.waitstatus_to_exitcode(status)
        if code - 128 in SIGNALS:  # somebody signalled the child itself
            raise Interrupted(code - 128)
        why = f"was killed by signal {-code}" if code < 0 else f"ended with status {code}"
        return Outcome(
            document={"error": f"the worker process {why}", "exit_code": EXIT_FAILURE},
            error=f"the worker process {why}; is there enough memory?",
            exit_code=EXIT_FAILURE,
        )

    def _over(self) -> Outcome:
        self._kill(signal.SIGKILL)
        self._reap()
        if self._signal:
            raise Interrupted(self._signal)
        return self._expired(self._limit)

    def _reap(self) -> int | None:
        """The child's wait status; None if it does not end, stuck in the kernel."""
        until = time.monotonic() + _LINGER
        while True:
            try:
                pid, status = os.waitpid(self._pid, os.WNOHANG)
            except ChildProcessError:
                return None
            if pid:
                return status
            if time.monotonic() > until:
                return None
            time.sleep(0.002)

    def _kill(self, number: int) -> None:
        try:
            os.killpg(self._pid, number)
        except OSError:
            pass  # it has ended


def timed_out(what: str, seconds: float, exit_code: int) -> Outcome:
    """The outcome of *what* when its deadline passed."""
    sentence = f"{what} did not end within {duration(seconds)}: the volume may not answer"
    hint = "see cachepod doctor, or give it longer with --timeout"
    return Outcome(
        document={"error": sentence, "hint": hint, "exit_code": exit_code},
        error=f"{sentence}; {hint}",
        exit_code=exit_code,
    )
