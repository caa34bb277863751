"""
What an image costs: as a registry stores it and unpacked, part by part.

scripts/build-runpod-slim.sh runs it; by hand it is

    python3 docker/sizes.py [--base-layers N] [--limit MB] IMAGE

IMAGE is a directory in OCI's layout (``buildah push NAME oci:DIR``) or what ``docker save`` writes.
Sizes are decimal: 1 MB is 1,000,000 bytes, as registries and docker count.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

#: Parts of the layers that the Dockerfile adds, and how the paths of each begin; the first that
#: matches counts.
PARTS = (
    ("uv", ("opt/cachepod/bin/uv",)),
    (
        "cachepod",
        ("opt/cachepod/lib/*/site-packages/cachepod", "opt/cachepod/bin", "opt/cachepod/pyvenv"),
    ),
    (
        "boto3 and what it needs",
        tuple(
            f"opt/cachepod/lib/*/site-packages/{name}"
            for name in (
                "boto",
                "s3transfer",
                "jmespath",
                "dateutil",
                "python_dateutil",
                "urllib3",
                "six",
            )
        ),
    ),
    (
        "zstandard, blake3, xxhash",
        tuple(f"opt/cachepod/lib/*/site-packages/{name}" for name in ("zst", "bla", "xxh")),
    ),
    ("other dependencies", ("opt/cachepod",)),
    ("start-up scripts", ("usr/local/bin",)),
)
BASE = "base image"
SYSTEM = "Python, curl, tini, certificates"
_FOLDER = "site-packages/"
_GZIP = 16 + zlib.MAX_WBITS


@dataclass
class Part:
    """Bytes of one part, or of all."""

    name: str
    stored: float = 0
    unpacked: int = 0
    files: int = 0


class Image(Protocol):
    """Where blobs and documents of an image can be read by name."""

    def open(self, name: str) -> IO[bytes]: ...

    def size(self, name: str) -> int: ...


class Folder:
    """An image that is a directory."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def open(self, name: str) -> IO[bytes]:
        """One of its files."""
        return (self._root / name).open("rb")

    def size(self, name: str) -> int:
        """The size of one, in bytes."""
        return (self._root / name).stat().st_size


class Archive:
    """An image that is one tar file."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive

    def open(self, name: str) -> IO[bytes]:
        """One of its files."""
        content = self._archive.extractfile(name)
        if content is None:
            raise KeyError(name)
        return content

    def size(self, name: str) -> int:
        """The size of one, in bytes."""
        return self._archive.getmember(name).size


def layers_of(image: Image) -> list[str]:
    """The names of the layers, the lowest first."""
    try:
        # docker's own list, which newer ones write beside that of OCI
        listed = json.load(image.open("manifest.json"))
        return list(listed[0]["Layers"])
    except (FileNotFoundError, KeyError):
        described = json.load(image.open("index.json"))["manifests"][0]
        manifest = json.load(image.open(_blob(described["digest"])))
        return [_blob(layer["digest"]) for layer in manifest["layers"]]


def _blob(digest: str) -> str:
    algorithm, _, value = digest.partition(":")
    return f"blobs/{algorithm}/{value}"


def measure(image: Image, base_layers: int) -> list[Part]:
    """
    The parts of *image* in the order in which they are reported, the base first.

    What a part takes stored is its share of its layer: the parts of a layer are compressed one by
    one, and what that gives is scaled so that the sum is what the layer takes.

    Args:
        base_layers: So many of the layers, from below, are those of the base image.
    """
    parts = {name: Part(name) for name in (BASE, SYSTEM, *(name for name, _ in PARTS))}
    for number, name in enumerate(layers_of(image)):
        with image.open(name) as blob:
            packed = blob.read(2) == b"\x1f\x8b"
        stored = image.size(name) if packed else _compressed(image, name)
        with image.open(name) as blob, tarfile.open(fileobj=blob, mode="r|*") as layer:
            shares = _add(layer, parts, only_base=number < base_layers)
        everything = sum(shares.values()) or 1
        for part, share in shares.items():
            parts[part].stored += stored * share / everything
    return [part for part in parts.values() if part.files]


def _add(layer: tarfile.TarFile, parts: dict[str, Part], *, only_base: bool) -> dict[str, int]:
    """Add the files of *layer* to *parts*; how much each part of it takes, compressed alone."""
    compressors = {name: zlib.compressobj(6) for name in parts}
    shares = dict.fromkeys(parts, 0)
    for member in layer:
        name = BASE if only_base else part_of(member.name.lstrip("./"))
        shares[name] += 64  # about what its header takes
        if member.isdir():
            continue
        parts[name].files += 1
        content = layer.extractfile(member) if member.isreg() else None
        if content is None:
            continue
        parts[name].unpacked += member.size
        while not only_base and (data := content.read(1 << 20)):
            shares[name] += len(compressors[name].compress(data))
    for name, compressor in compressors.items():
        shares[name] += len(compressor.flush()) if shares[name] else 0
    return shares


def part_of(path: str) -> str:
    """The part that *path*, in a layer above the base, belongs to."""
    before, folder, after = path.partition(_FOLDER)
    short = (
        f"opt/cachepod/lib/*/{folder}{after}"
        if folder and before.startswith("opt/cachepod/")
        else path
    )
    for name, beginnings in PARTS:
        if short.startswith(beginnings):
            return name
    return SYSTEM


def _compressed(image: Image, name: str) -> int:
    """What a registry would store of a layer that is not compressed yet."""
    compressor, size = zlib.compressobj(6, zlib.DEFLATED, _GZIP), 0
    with image.open(name) as blob:
        while data := blob.read(1 << 20):
            size += len(compressor.compress(data))
    return size + len(compressor.flush())


@contextmanager
def opened(path: Path) -> Iterator[Image]:
    """The image at *path*."""
    if path.is_dir():
        yield Folder(path)
    else:
        with tarfile.open(path) as archive:
            yield Archive(archive)


def table(parts: list[Part]) -> str:
    """*parts* and their sum, for people."""
    total = Part("together")
    for part in parts:
        total.stored += part.stored
        total.unpacked += part.unpacked
        total.files += part.files
    width = max(len(part.name) for part in parts)
    out = io.StringIO()
    print(f"{'':{width}}  {'stored':>9}  {'unpacked':>9}  {'files':>6}", file=out)
    for part in (*parts, total):
        stored, unpacked = f"{part.stored / 1e6:.1f} MB", f"{part.unpacked / 1e6:.1f} MB"
        print(f"{part.name:{width}}  {stored:>9}  {unpacked:>9}  {part.files:6}", file=out)
    return out.getvalue()


def main() -> None:
    """Print the table; fail if the image is larger than it may be."""
    arguments = argparse.ArgumentParser(description="What an image costs, part by part.")
    arguments.add_argument("image", type=Path)
    arguments.add_argument("--base-layers", type=int, default=1)
    arguments.add_argument("--limit", type=int, help="megabytes that a registry may have to store")
    given = arguments.parse_args()
    with opened(given.image) as image:
        parts = measure(image, given.base_layers)
    print(table(parts), end="")
    stored = sum(part.stored for part in parts)
    if given.limit and stored > given.limit * 1e6:
        sys.exit(f"the image takes {stored / 1e6:.1f} MB in a registry, more than {given.limit} MB")


if __name__ == "__main__":
    main()
