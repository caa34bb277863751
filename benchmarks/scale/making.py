"""
Trees to measure with: of any number of files or bytes, made as fast as the disk takes them.

Contents come out of two pools, one that does not compress and one of text, which are walked
through in turns; what makes every block one of its own, so that nothing is deduplicated, is a line
in front of it. So about half of a big file compresses, as of a shared library.

It is run as a process of its own, for the pools would count as memory of what is measured after::

    python -m benchmarks.scale.making make|change files|bytes|mixed NUMBER DIR
"""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from benchmarks import measure

GB = 1_000_000_000
#: Most bytes of a small file, where files are what is counted; half of it on average.
SMALL = 4_000
#: Of a mixed tree, a GB of which has so many small files of so many bytes at most.
MIXED_FILES = 7_000
_MIXED_SMALL = 28_000
_FOLDER = 100  # files
_SHELF = 100_000  # files below one top directory
_BLOCK = 64_000
_POOL = 16_000_000
#: Sizes of the big files of one GB, over and over: one of those of 10 MB is what changes.
_SIZES = (*(10_000_000,) * 23, *(256_000_000,) * 3, 2_000_000)
_WORDS = [f"{word}{number} " for number in range(500) for word in ("def", "return", "self.x =")]


def make_files(root: Path, count: int, most: int = SMALL, version: int = 0) -> None:
    """*count* files of up to *most* bytes, a hundred to a directory, text as source code is."""
    for start in range(0, count, _FOLDER):
        _fill_folder(root, start, min(start + _FOLDER, count), most, version)


def make_bytes(root: Path, size: int) -> None:
    """*size* bytes in files of 10 and 256 MB; half noise, half text."""
    root.mkdir(parents=True, exist_ok=True)
    for number, (place, goal) in enumerate(_big_files(size)):
        write_big(root / place, goal, f"{number}.0")


def make_mixed(root: Path, size: int) -> None:
    """*size* bytes as an environment of torch has them: a tenth in small files, 7,000 a GB."""
    count = _mixed_files(size)
    make_files(root / "small", count, _MIXED_SMALL)
    make_bytes(root / "big", max(size - count * _MIXED_SMALL // 2, 1))


def change_files(root: Path, count: int, most: int = SMALL) -> int:
    """
    Replace one file of a hundred: a stretch in the middle, as an upgraded package is.

    Returns:
        How many files were replaced.
    """
    folders = -(-count // _FOLDER)
    changed = max(1, folders // 100)
    begin = (folders - changed) // 2 * _FOLDER
    files = 0
    for start in range(begin, min(begin + changed * _FOLDER, count), _FOLDER):
        stop = min(start + _FOLDER, count)
        _fill_folder(root, start, stop, most, 1)
        files += stop - start
    return files


def change_bytes(root: Path, size: int) -> int:
    """Replace the first file of every GB, one byte in a hundred; how many files that are."""
    names = [place for place, _ in _big_files(size)][:: len(_SIZES)]
    for place in names:
        write_big(root / place, (root / place).stat().st_size, f"{place}.1")
    return len(names)


def change_mixed(root: Path, size: int) -> int:
    """Both of these."""
    small = change_files(root / "small", _mixed_files(size), _MIXED_SMALL)
    return small + change_bytes(root / "big", max(size - _mixed_files(size) * _MIXED_SMALL // 2, 1))


def _mixed_files(size: int) -> int:
    return max(1, size * MIXED_FILES // GB)


def _fill_folder(root: Path, start: int, stop: int, most: int, version: int) -> None:
    """Files *start* to *stop*; one that is there already is replaced, as installers do it."""
    text = _text()
    source = random.Random(f"{start}.{version}")
    folder = os.path.join(root, f"{start // _SHELF:03d}", f"{start // _FOLDER:06d}")
    os.makedirs(folder, exist_ok=True)
    for number in range(start, stop):
        path = os.path.join(folder, f"module_{number}.py")
        if version:
            os.unlink(path)
        begin, length = source.randrange(len(text) - most), source.randrange(most)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        try:
            os.writev(descriptor, [b"%d.%d\n" % (number, version), text[begin : begin + length]])
        finally:
            os.close(descriptor)


def _big_files(size: int) -> Iterator[tuple[str, int]]:
    """Names and sizes of the big files of a tree of *size* bytes."""
    number = written = 0
    while written < size:
        goal = min(_SIZES[number % len(_SIZES)], size - written)
        yield f"library_{number:04d}.so", goal
        written += goal
        number += 1


def write_big(path: Path, size: int, name: str) -> None:
    """A new file of *size* bytes, half noise, half text; no other *name* gives the same ones."""
    path.unlink(missing_ok=True)
    noise, text = _noise(), _text()
    at = random.Random(name).randrange(_POOL)
    written = number = 0
    with open(path, "xb", buffering=0) as file:
        while written < size:
            pool = text if number % 2 else noise
            begin = (at + number // 2 * _BLOCK) % (_POOL - _BLOCK)
            head = f"{name}.{number}\n".encode()
            block = [head, pool[begin : begin + _BLOCK]]
            if written + len(head) + _BLOCK > size:
                block = [b"".join(block)[: size - written]]
            written += os.writev(file.fileno(), block)
            number += 1


@cache
def _noise() -> memoryview:
    return memoryview(random.Random(1).randbytes(_POOL))


@cache
def _text() -> memoryview:
    source = random.Random(2)
    made = "".join(source.choices(_WORDS, k=_POOL // 7)).encode()
    return memoryview(made[:_POOL])


def run(what: str, kind: str, number: int, root: Path) -> None:
    """``make`` or ``change`` the tree at *root*, of *number* files or bytes of that *kind*."""
    here = Path(__file__).resolve().parents[2]
    measure.run(
        [sys.executable, "-m", "benchmarks.scale.making", what, kind, str(number), root], cwd=here
    )


if __name__ == "__main__":
    what, kind, number, root = sys.argv[1:]
    globals()[f"{what}_{kind}"](Path(root), int(number))
