"""
Compile bytecode so that two installs of one wheel give the same bytes.

What marshal writes depends on hash randomisation and on what the process has compiled before (it
marks objects that something else refers to). So each distribution's sources, sorted, are cut into
shards of a fixed number of files, and each shard is compiled by a fresh process of the
environment's own interpreter with PYTHONHASHSEED=0 and next to no environment. The result
depends neither on the other distributions nor on the number of cores.

What this cannot reach: before Python 3.11 a constant set whose members hold None is written in an
order that depends on addresses. That is 1 of 14,182 files of a torch stack.
"""

from __future__ import annotations

import contextlib
import errno
import os
import selectors
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cachepod.environment.distributions import Distribution
from cachepod.environment.tidy import EPOCH
from cachepod.errors import SpaceExhausted
from cachepod.snapshot.progress import Progress

SHARD = 400

_WORKER = Path(__file__).with_name("compile_shard.py")
_HEADER = 16  # magic, flags, mtime, size: PEP 552


@dataclass(frozen=True)
class Target:
    """
    The interpreter that will load the bytecode.

    Args:
        python: The environment's own.

        cache_tag: As in ``module.cpython-310.pyc``.

        magic: The first four bytes of a .pyc that it accepts.
    """

    python: Path
    cache_tag: str
    magic: bytes


@dataclass(frozen=True)
class Source:
    """One Python file; *stale* if it has no .pyc that the interpreter would load."""

    path: str
    size: int
    stale: bool


@dataclass(frozen=True)
class CompileReport:
    """*files* .pyc files of *size* bytes were written."""

    files: int
    size: int


def compile_environment(
    site: Path,
    target: Target,
    distributions: Iterable[Distribution],
    *,
    jobs: int,
    progress: Progress,
) -> CompileReport:
    """
    Write the .pyc files that are missing or outdated in *site*.

    Args:
        site: The site-packages directory. Sources that no distribution owns are a group of
            their own.

        target: Who will load them.

        distributions: What is installed there.

        jobs: How many processes at a time.

        progress: Told of a phase ``bytecode``.

    Raises:
        SpaceExhausted: The disk is full.
    """
    shards = [
        shard
        for group in _groups(site, distributions)
        for shard in _shards(list(_inspect(group, target)))
        if any(source.stale for source in shard)
    ]
    stale = [source for shard in shards for source in shard if source.stale]
    progress.phase("bytecode", files=len(stale), size=sum(source.size for source in stale))
    # The biggest first, so that no core idles at the end while another has a big one left.
    shards.sort(key=lambda shard: -sum(source.size for source in shard))
    return _run(shards, target, jobs, site, progress)


def drop_outdated(site: Path, target: Target) -> None:
    """
    Remove the .pyc of every source in *site* that has been written since times were made equal.

    Once its time is the same as all others' again, a .pyc that an installer has left behind would
    pass for the new source's if the two sources are of one size.
    """
    for directory, _, names in os.walk(site):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                if os.lstat(path).st_mtime != EPOCH:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(cached(path, target))


def is_current(path: str, size: int, mtime: int, target: Target) -> bool:
    """Whether the source at *path* has a .pyc that the interpreter would load."""
    try:
        with open(cached(path, target), "rb") as file:
            head = file.read(_HEADER)
    except OSError:
        return False
    expected = target.magic + b"".join(
        (number & 0xFFFFFFFF).to_bytes(4, "little") for number in (0, mtime, size)
    )
    return head == expected


def cached(path: str, target: Target) -> str:
    """Where the .pyc of the source at *path* belongs."""
    directory, name = os.path.split(path)
    return os.path.join(directory, "__pycache__", f"{name[:-3]}.{target.cache_tag}.pyc")


def _groups(site: Path, distributions: Iterable[Distribution]) -> Iterator[list[str]]:
    """The sources of each distribution, sorted; then those of none."""
    root = f"{site}{os.sep}"
    owned: set[str] = set()
    for distribution in distributions:
        mine = {
            path
            for path in distribution.files or ()
            if path.endswith(".py") and path.startswith(root)
        }
        yield sorted(mine - owned)
        owned |= mine
    rest = []
    for directory, _, names in os.walk(site):
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(directory, name)
                if path not in owned:
                    rest.append(path)
    yield sorted(rest)


def _inspect(paths: Iterable[str], target: Target) -> Iterator[Source]:
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue  # listed in the RECORD, but not there
        current = is_current(path, status.st_size, int(status.st_mtime), target)
        yield Source(path, status.st_size, not current)


def _shards(sources: Sequence[Source]) -> Iterator[Sequence[Source]]:
    for start in range(0, len(sources), SHARD):
        yield sources[start : start + SHARD]


def _environ() -> Mapping[str, str]:
    """All that the compiling processes get; PATH and the like would not change a thing."""
    environ = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1", "LC_ALL": "C.UTF-8"}
    if "LD_LIBRARY_PATH" in os.environ:  # an interpreter may need it to find its libpython
        environ["LD_LIBRARY_PATH"] = os.environ["LD_LIBRARY_PATH"]
    return environ


def _run(
    shards: Sequence[Sequence[Source]],
    target: Target,
    jobs: int,
    site: Path,
    progress: Progress,
) -> CompileReport:
    """Compile *shards*, *jobs* at a time."""
    waiting = list(reversed(shards))
    running: dict[subprocess.Popen[bytes], Sequence[Source]] = {}
    environ = _environ()
    files = size = 0
    # -S: no .pth file of a package may run here. -s and -E would be implied by -I, but -E would
    # ignore PYTHONHASHSEED, too.
    command = [str(target.python), "-S", "-s", "-B", "-W", "ignore", str(_WORKER)]
    with selectors.DefaultSelector() as selector:
        try:
            while waiting or running:
                while waiting and len(running) < max(1, jobs):
                    shard = waiting.pop()
                    child = _start(command, environ, shard)
                    running[child] = shard
                    assert child.stdout is not None
                    selector.register(child.stdout, selectors.EVENT_READ, child)
                for key, _ in selector.select():
                    child = key.data
                    shard = running[child]
                    assert child.stdout is not None
                    answer = child.stdout.read().split()
                    selector.unregister(child.stdout)
                    child.stdout.close()
                    status = child.wait()
                    del running[child]
                    if status in (errno.ENOSPC, errno.EDQUOT):
                        raise SpaceExhausted(str(site), os.strerror(status))
                    if status == 0 and len(answer) == 2:
                        files += int(answer[0])
                        size += int(answer[1])
                    else:
                        progress.note(
                            f"compiling {len(shard)} files from {shard[0].path} on failed; "
                            "they are compiled when they are imported"
                        )
                    done = [source for source in shard if source.stale]
                    progress.advance(len(done), sum(source.size for source in done))
        finally:
            for child in running:
                child.kill()
                child.wait()
    return CompileReport(files, size)


def _start(
    command: Sequence[str], environ: Mapping[str, str], shard: Sequence[Source]
) -> subprocess.Popen[bytes]:
    """Start a process that compiles *shard*."""
    child = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=environ,
        cwd="/",
    )
    assert child.stdin is not None
    records = b"\0".join(
        (b"w" if source.stale else b"-") + os.fsencode(source.path) for source in shard
    )
    try:
        # The child reads all of it before it writes a word, so this cannot block for long.
        child.stdin.write(records)
        child.stdin.close()
    except BrokenPipeError:
        pass  # it died at once; its exit status tells
    except BaseException:
        child.kill()
        child.wait()
        raise
    return child
