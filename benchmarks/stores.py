"""A tree in a store or an archive, the commands for it, and a tree for who has none."""

from __future__ import annotations

import os
import random
from pathlib import Path

from benchmarks import measure

KEY = "bench"
_FILES = 16
_SMALL = 400


def restore_words(store: str | Path, place: Path, *more: str) -> list[str]:
    """The arguments of ``cachepod`` that restore the tree to *place*, and print JSON."""
    return ["restore", "--json", *_common(store), "--tree", f"bench={place}", *more]


def publish_words(store: str | Path, tree: Path, *more: str) -> list[str]:
    """The arguments of ``cachepod`` that publish *tree*, and print JSON."""
    return ["publish", "--json", *_common(store), "--tree", f"bench={tree}", *more]


def _common(store: str | Path) -> list[str]:
    # No configuration, whatever lies above the working directory.
    return ["--config", os.devnull, "--store", str(store), "--key", KEY]


def publish_tree(tree: Path, store: str | Path) -> measure.Cost:
    """Publish *tree* into *store*, unless it is there; cachepod itself tells."""
    return measure.run([measure.cachepod(), *publish_words(store, tree)])


def tar_words(tree: Path, archive: Path, *, level: int = 3, threads: int = 0) -> list[str]:
    """The command that makes ``.tar.zst`` of *tree*, with so many *threads*; 0 for every core."""
    script = 'tar -C "$1" -cf - . | zstd -q -f "-$3" "-T$4" -o "$2"'
    return measure.pipeline(script, tree, archive, str(level), str(threads))


def untar_words(archive: Path, place: Path) -> list[str]:
    """The command that unpacks it into the new directory *place*."""
    return measure.pipeline('mkdir "$2" && zstd -dc "$1" | tar -x -C "$2"', archive, place)


def squash_words(tree: Path, image: Path, *more: str, level: int = 3) -> list[str]:
    """The command that makes a squashfs of *tree*, whose large blocks unpack fastest."""
    zstd = ("-comp", "zstd", "-Xcompression-level", str(level), "-b", "1M")
    return ["mksquashfs", str(tree), str(image), *zstd, "-no-progress", "-quiet", *more]


def unsquash_words(image: Path, place: Path, processors: int) -> list[str]:
    """The command that unpacks it to *place*."""
    return ["unsquashfs", "-q", "-n", "-p", str(processors), "-d", str(place), str(image)]


def make_sample(root: Path, size: int) -> None:
    """
    A tree that takes *size* bytes in a store and little CPU time, beside the network's time.

    Nearly all of it are a few large files that cannot be compressed; some hundred small ones lie
    beside them.
    """
    source = random.Random(size)
    folder = root / "lib"
    folder.mkdir(parents=True)
    for number in range(_SMALL):
        (folder / f"module_{number}.py").write_bytes(b"# %d\n" % number + source.randbytes(500))
    for number in range(_FILES):
        left = size // _FILES
        with open(root / f"library_{number}.so", "wb") as file:
            while left:
                block = source.randbytes(min(left, 1 << 20))
                file.write(block)
                left -= len(block)
