"""
Run another program so that it never outlives this one, and keep what it says.

A package installer starts compilers and resolvers of its own. It gets a session to itself, so
that one signal ends them all, and asks the kernel to be killed if cachepod is (Linux's
PR_SET_PDEATHSIG): after a ``kill -9`` nothing goes on writing into a prefix that the next run is
about to wipe.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cachepod.system.urls import masked

_KEPT = 256 * 1024  # of the output; its end is where errors are
_GRACE = 5.0  # seconds between asking a process group to end and killing it
_TICK = 0.5  # seconds between two looks at a silent child

# Runs in the child before the program itself. A fork from a process with threads must not run
# Python (preexec_fn), so a second, bare interpreter does it.
_LAUNCHER = """
import os, sys
parent = int(sys.argv[1])
try:
    import ctypes
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
except Exception:
    pass
if os.getppid() != parent:
    os._exit(137)
os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Outcome:
    """How a program ended: its exit *status* and the end of its *output*, credentials removed."""

    status: int
    output: str


def run(
    command: Sequence[str],
    *,
    environ: Mapping[str, str],
    directory: Path,
    on_line: Callable[[str], None] = lambda line: None,
    on_tick: Callable[[int], None] = lambda pid: None,
    inherit: Sequence[int] = (),
) -> Outcome:
    """
    Run *command* to its end.

    Whatever raises meanwhile, a signal handler included, ends the program and all that it started.

    Args:
        command: Program and arguments; looked up on the PATH of *environ*.

        environ: Its whole environment.

        directory: Where it runs.

        on_line: Called with every line of its output (standard output and error together), as
            it comes.

        on_tick: Called about twice a second with its process id.

        inherit: Open descriptors that it has under the same numbers.

    Raises:
        FileNotFoundError: There is no such program.
    """
    if not Path(command[0]).is_file():
        raise FileNotFoundError(command[0])
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _LAUNCHER, str(os.getpid()), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environ),
        cwd=directory,
        start_new_session=True,
        pass_fds=inherit,
    )
    try:
        output = _collect(child, on_line, on_tick)
        status = child.wait()
    except BaseException:
        end_group(child)
        raise
    return Outcome(status, output)


def _collect(
    child: subprocess.Popen[bytes],
    on_line: Callable[[str], None],
    on_tick: Callable[[int], None],
) -> str:
    """Read the output of *child* until it ends."""
    assert child.stdout is not None
    kept = bytearray()
    line = bytearray()
    next_tick = time.monotonic() + _TICK
    with child.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while True:
            if selector.select(timeout=max(0.0, next_tick - time.monotonic())):
                data = os.read(pipe.fileno(), 65536)
                if not data:
                    break
                kept += data
                del kept[:-_KEPT]
                line += data
                *whole, rest = bytes(line).split(b"\n")
                line[:] = rest
                for one in whole:
                    on_line(masked(one.decode(errors="replace").rstrip("\r")))
            if time.monotonic() >= next_tick:
                if child.poll() is not None:
                    break  # something it started holds the pipe open, but it has ended
                on_tick(child.pid)
                next_tick = time.monotonic() + _TICK
    return masked(kept.decode(errors="replace"))


def end_group(child: subprocess.Popen[bytes]) -> None:
    """End *child*, the leader of a session, and every process of it."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(_GRACE)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def growth(tell: Callable[[int], None]) -> Callable[[int], None]:
    """For *on_tick* of :func:`run`: *tell* how much the process has written since the last tick."""
    seen = 0

    def tick(pid: int) -> None:
        nonlocal seen
        now = written_by(pid)
        if now is not None and now > seen:
            tell(now - seen)
            seen = now

    return tick


def written_by(pid: int) -> int | None:
    """Bytes that process *pid* has written since it started; None where nobody tells."""
    try:
        with open(f"/proc/{pid}/io", encoding="ascii") as file:
            for row in file:
                if row.startswith("wchar:"):
                    return int(row.split()[1])
    except (OSError, ValueError):
        pass
    return None
