"""The tables of a manifest: entries, extents, chunks and packs, a column a field."""

from __future__ import annotations

from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from cachepod.model.columns import ByteStrings


class Kind(IntEnum):
    """What an entry is."""

    DIRECTORY = 0
    FILE = 1
    SYMLINK = 2
    HARDLINK = 3


class Encoding(IntEnum):
    """How a chunk is stored."""

    RAW = 0
    ZSTD = 1


@dataclass(frozen=True)
class Entries:
    """
    One row a path, directory by directory, breadth first.

    The roots of the trees come first and are their own parents; the children of one directory
    stand together in ascending order of their names, so no path can come twice, and a parent is
    always a directory above: no entry can escape its tree.

    Args:
        kind: ``B``, a :class:`Kind`.

        parent: ``I``, row of the directory it lies in.

        mode: ``H``, permission bits.

        mtime: ``q``, nanoseconds since 1970.

        size: ``Q``, of a file its bytes; of a symlink its place in *targets*; of a hard link the
            row of the file it is another name of; of a directory zero.

        owner: ``I``, place in ``Summary.distributions`` plus one; zero for none.

        flags: ``B``, bit 0: the content differs from the distribution's on purpose.

        names: Without slash or NUL, 1 to 255 bytes; empty for roots.

        targets: What the symlinks point to.

        xattrs: Row, name, value of each extended attribute.
    """

    kind: array[int]
    parent: array[int]
    mode: array[int]
    mtime: array[int]
    size: array[int]
    owner: array[int]
    flags: array[int]
    names: ByteStrings
    targets: ByteStrings
    xattrs: tuple[tuple[int, bytes, bytes], ...] = ()

    def __len__(self) -> int:
        return len(self.kind)

    def path(self, row: int) -> bytes:
        """The path of *row* below its tree's root; empty for the root."""
        parts: list[bytes] = []
        while (parent := self.parent[row]) != row:
            parts.append(self.names[row])
            row = parent
        return b"/".join(reversed(parts))

    def paths(self) -> Iterator[bytes]:
        """The path of every row in order; one directory's path is built once."""
        directories: dict[int, bytes] = {}
        for row, (kind, parent, name) in enumerate(
            zip(self.kind, self.parent, self.names, strict=True)
        ):
            above = directories.get(parent, b"")
            path = above + b"/" + name if above else name
            if kind == Kind.DIRECTORY:
                directories[row] = path
            yield path


@dataclass(frozen=True)
class Extents:
    """
    Where the plain bytes of each chunk go; sorted by chunk, which makes it a copy programme.

    A part of a file that no extent covers is a hole.

    Args:
        first: ``I``, one row a chunk and one more: where the chunk's extents begin.

        entry: ``I``, row of the file.

        offset: ``Q``, in the file, in bytes.

        length: ``I``, bytes.

        start: ``I``, in the chunk, in bytes.
    """

    first: array[int]
    entry: array[int]
    offset: array[int]
    length: array[int]
    start: array[int]

    def __len__(self) -> int:
        return len(self.entry)


@dataclass(frozen=True)
class Chunks:
    """
    One row a chunk, no id twice.

    Args:
        pack: ``I``, place in ``Manifest.packs``.

        offset: ``I``, of the stored bytes in the pack.

        stored: ``I``, stored bytes.

        raw: ``I``, plain bytes, at most 4 MiB.

        encoding: ``B``, an :class:`Encoding`.

        ids: BLAKE3-256 of the plain bytes, 32 bytes a row.

        checks: XXH3-128 (canonical, big-endian) of the stored bytes, 16 bytes a row.
    """

    pack: array[int]
    offset: array[int]
    stored: array[int]
    raw: array[int]
    encoding: array[int]
    ids: bytes
    checks: bytes

    def __len__(self) -> int:
        return len(self.pack)

    def id(self, row: int) -> bytes:
        """BLAKE3-256 of the plain bytes of chunk *row*."""
        return self.ids[row * 32 : row * 32 + 32]

    def check(self, row: int) -> bytes:
        """XXH3-128 of the stored bytes of chunk *row*."""
        return self.checks[row * 16 : row * 16 + 16]


@dataclass(frozen=True)
class PackInfo:
    """A pack that the snapshot needs: *id* in hex, *size* in bytes."""

    id: str
    size: int
