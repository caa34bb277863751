"""
Runs a command for :func:`benchmarks.measure.run`, and writes what it took to a file descriptor.

A process of its own, with next to nothing in it: the kernel counts the size of the process that
starts a command as the command's own, and a benchmark is far larger than many a command.
"""

import os
import signal
import sys
import time


def main() -> None:
    """``launch.py FD PROGRAM ARGUMENT ...``; FD gets seconds, CPU seconds, peak bytes, status."""
    report, arguments = int(sys.argv[1]), sys.argv[2:]
    os.set_inheritable(report, False)
    # Whoever is told to stop at the terminal is the command; this one waits for its end.
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN) is signal.SIG_IGN
    defaults = [] if ignored else [signal.SIGINT]
    started = time.perf_counter()
    try:
        pid = os.posix_spawnp(arguments[0], arguments, os.environ, setsigdef=defaults)
    except OSError as error:
        os.write(report, f"cannot be started: {error.strerror}".encode())
        return
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGTERM))
    _, status, usage = os.wait4(pid, 0)
    seconds = time.perf_counter() - started
    cpu = usage.ru_utime + usage.ru_stime
    os.write(report, f"{seconds!r} {cpu!r} {usage.ru_maxrss * 1024} {status}".encode())


if __name__ == "__main__":
    main()
