"""
The manifest: everything a snapshot is, except the bytes of its files.

The object, everything little-endian::

    offset  size  what
    0       8     "cachepod"
    8       2     format version, 1
    10      2     flags, zero
    12      4     bytes of the summary's frame          (a)
    16      4     bytes of the summary, decompressed
    20      4     zero
    24      8     XXH3-64 of the summary's frame
    32      8     bytes of the columns' frame           (b)
    40      8     bytes of the columns, decompressed
    48      32    BLAKE3-256 of the other bytes: 0 to 47, then 80 to the end
    80      a     summary: one zstd frame, JSON in UTF-8
    80+a    b     columns: one zstd frame, see columns.py and the table in Manifest.encode

The summary stands first so that a listing can read it alone. The digest names the manifest.
"""

from __future__ import annotations

import json
import operator
import struct
from array import array
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import accumulate, chain, count
from typing import Any

import zstandard
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from cachepod.errors import CachepodError, CorruptObject, NewerFormat
from cachepod.model.columns import ByteStrings, ColumnReader, MalformedColumns, pack_columns
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.layout import (
    CHUNK_SIZE,
    MAX_FILE_SIZE,
    MAX_MANIFEST_SIZE,
    MAX_SUMMARY_SIZE,
)
from cachepod.model.names import check_tree_name, is_pack_id

MANIFEST_FORMAT = 1
MAGIC = b"cachepod"
HEADER = struct.Struct("<8sHHIIIQQQ32s")
_LEVEL = 3


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
class TreeInfo:
    """A tree of the snapshot: its *name*, and the *root* it was captured from."""

    name: str
    root: str


@dataclass(frozen=True)
class Distribution:
    """An installed distribution; *name* in normalised form."""

    name: str
    version: str


@dataclass(frozen=True)
class Summary:
    """
    What a listing shows of a snapshot.

    Args:
        key: The key it was published under.

        fingerprint: The inputs that the key stands for.

        trees: In the order of their roots among the entries.

        distributions: In the order that ``Entries.owner`` counts them.

        creator: Host, version and such of the publisher; for people only.

        created: Seconds since 1970 by the publisher's clock; for people only.

        files: Regular files and hard links.

        size: Plain bytes of the regular files, holes included.

        stored: Bytes of the chunks it needs in the store, shared ones included.
    """

    key: str
    fingerprint: Fingerprint
    trees: tuple[TreeInfo, ...]
    distributions: tuple[Distribution, ...]
    creator: Mapping[str, str]
    created: float
    files: int
    size: int
    stored: int

    def to_json(self) -> dict[str, Any]:
        """A JSON object that :meth:`from_json` reads back."""
        return {
            "key": self.key,
            "fingerprint": self.fingerprint.to_json(),
            "trees": [{"name": tree.name, "root": tree.root} for tree in self.trees],
            "distributions": [[dist.name, dist.version] for dist in self.distributions],
            "creator": dict(self.creator),
            "created": self.created,
            "files": self.files,
            "size": self.size,
            "stored": self.stored,
        }

    @classmethod
    def from_json(cls, value: object) -> Summary:
        """
        Parse what :meth:`to_json` made.

        Raises:
            ValueError: It is something else.
        """
        try:
            if not isinstance(value, dict):
                raise ValueError("a summary is an object")
            return cls(
                key=str(value["key"]),
                fingerprint=Fingerprint.from_json(value["fingerprint"]),
                trees=tuple(
                    TreeInfo(check_tree_name(str(tree["name"])), str(tree["root"]))
                    for tree in value["trees"]
                ),
                distributions=tuple(
                    Distribution(str(name), str(version))
                    for name, version in value["distributions"]
                ),
                creator={str(name): str(text) for name, text in value["creator"].items()},
                created=float(value["created"]),
                files=int(value["files"]),
                size=int(value["size"]),
                stored=int(value["stored"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"a summary lacks {error}") from error


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


@dataclass(frozen=True)
class ChunkTable:
    """The part of a manifest that a publish needs of its relatives."""

    chunks: Chunks
    packs: tuple[PackInfo, ...]

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> ChunkTable:
        """
        Parse and check this part of an object, and the digest of the whole.

        Raises:
            NewerFormat, CorruptObject: As :meth:`Manifest.decode`.
        """
        _, block = _open(data, name)
        try:
            reader = ColumnReader(block)
            table = cls(_read_chunks(reader), _read_packs(reader))
        except MalformedColumns as error:
            raise CorruptObject(name, str(error)) from error
        problem = _find_chunk_problem(table.chunks, table.packs)
        if problem:
            raise CorruptObject(name, problem)
        return table


@dataclass(frozen=True)
class Manifest:
    """A snapshot; *digest* is the BLAKE3-256 of its object in hex, empty before it was encoded."""

    summary: Summary
    entries: Entries
    extents: Extents
    chunks: Chunks
    packs: tuple[PackInfo, ...]
    digest: str = field(default="", compare=False)

    def encode(self) -> bytes:
        """The object to store."""
        entries, extents, chunks = self.entries, self.extents, self.chunks
        attributes = entries.xattrs
        columns = pack_columns(
            {
                "ekin": entries.kind,
                "epar": entries.parent,
                "emod": entries.mode,
                "emtm": entries.mtime,
                "esiz": entries.size,
                "eown": entries.owner,
                "eflg": entries.flags,
                "enle": entries.names.lengths,
                "enam": entries.names.data,
                "etle": entries.targets.lengths,
                "etar": entries.targets.data,
                "axro": array("I", (row for row, _, _ in attributes)),
                "axnl": array("H", (len(name) for _, name, _ in attributes)),
                "axna": b"".join(name for _, name, _ in attributes),
                "axvl": array("I", (len(value) for _, _, value in attributes)),
                "axva": b"".join(value for _, _, value in attributes),
                "xfst": extents.first,
                "xent": extents.entry,
                "xoff": extents.offset,
                "xlen": extents.length,
                "xsta": extents.start,
                "cpck": chunks.pack,
                "coff": chunks.offset,
                "csto": chunks.stored,
                "craw": chunks.raw,
                "cenc": chunks.encoding,
                "c_id": chunks.ids,
                "cchk": chunks.checks,
                "p_id": b"".join(bytes.fromhex(pack.id) for pack in self.packs),
                "psiz": array("Q", (pack.size for pack in self.packs)),
            }
        )
        summary = json.dumps(
            self.summary.to_json(), ensure_ascii=False, separators=(",", ":")
        ).encode("utf-8", "surrogateescape")
        compressor = zstandard.ZstdCompressor(level=_LEVEL)
        summary_frame, columns_frame = compressor.compress(summary), compressor.compress(columns)
        fixed = HEADER.pack(
            MAGIC,
            MANIFEST_FORMAT,
            0,
            len(summary_frame),
            len(summary),
            0,
            xxh3_64_intdigest(summary_frame),
            len(columns_frame),
            len(columns),
            bytes(32),
        )[:-32]
        digest = blake3(fixed).update(summary_frame).update(columns_frame).digest()
        return b"".join((fixed, digest, summary_frame, columns_frame))

    @classmethod
    def decode(cls, data: bytes, *, name: str, believed: bool = False) -> Manifest:
        """
        Parse and check an object.

        Args:
            data: The object whole.

            name: What errors call it.

            believed: It was checked before it came to where it was read from, on this machine's
                own disk: look at its digest only.

        Raises:
            NewerFormat: A later cachepod wrote it.

            CorruptObject: It is damaged, or claims what cannot be.
        """
        head, block = _open(data, name)
        try:
            reader = ColumnReader(block)
            manifest = cls(
                summary=head.summary(memoryview(data), name),
                entries=_read_entries(reader),
                extents=Extents(
                    first=reader.numbers("xfst", "I"),
                    entry=reader.numbers("xent", "I"),
                    offset=reader.numbers("xoff", "Q"),
                    length=reader.numbers("xlen", "I"),
                    start=reader.numbers("xsta", "I"),
                ),
                chunks=_read_chunks(reader),
                packs=_read_packs(reader),
                digest=head.digest.hex(),
            )
        except MalformedColumns as error:
            raise CorruptObject(name, str(error)) from error
        problem = "" if believed else find_problem(manifest)
        if problem:
            raise CorruptObject(name, problem)
        return manifest

    @staticmethod
    def digest_of(data: bytes) -> str:
        """The digest that an object of :meth:`encode` carries, in hex."""
        return data[HEADER.size - 32 : HEADER.size].hex()

    @staticmethod
    def decode_summary(data: bytes, *, name: str) -> Summary:
        """
        Parse the summary alone, from the first bytes of an object.

        Args:
            data: At least :func:`summary_extent` bytes of it.

            name: What errors call it.

        Raises:
            NewerFormat, CorruptObject: As :meth:`decode`.
        """
        return _Head.parse(data, name).summary(memoryview(data), name)


def summary_extent(data: bytes, *, name: str) -> int:
    """How many first bytes :meth:`Manifest.decode_summary` needs; *data* are 80 of them or more."""
    return HEADER.size + _Head.parse(data, name).summary_stored


@dataclass(frozen=True)
class _Head:
    summary_stored: int
    summary_plain: int
    summary_check: int
    columns_stored: int
    columns_plain: int
    digest: bytes

    @classmethod
    def parse(cls, data: bytes, name: str) -> _Head:
        if len(data) < HEADER.size:
            raise CorruptObject(name, "it is cut short")
        magic, version, flags, a, a_plain, _, a_check, b, b_plain, digest = HEADER.unpack_from(data)
        if magic != MAGIC:
            raise CorruptObject(name, "it is not a manifest")
        if version > MANIFEST_FORMAT or flags:
            raise NewerFormat(name, max(version, MANIFEST_FORMAT + 1), MANIFEST_FORMAT)
        return cls(a, a_plain, a_check, b, b_plain, digest)

    def summary(self, view: memoryview, name: str) -> Summary:
        frame = view[HEADER.size : HEADER.size + self.summary_stored]
        if len(frame) != self.summary_stored or xxh3_64_intdigest(frame) != self.summary_check:
            raise CorruptObject(name, "its summary is damaged")
        plain = _decompress(frame, self.summary_plain, MAX_SUMMARY_SIZE, name)
        try:
            return Summary.from_json(json.loads(plain.decode("utf-8", "surrogateescape")))
        except (ValueError, RecursionError, CachepodError) as error:
            raise CorruptObject(name, f"its summary makes no sense: {error}") from error


def _open(data: bytes, name: str) -> tuple[_Head, bytes]:
    """The head and the decompressed columns of an object, after its digest was checked."""
    head = _Head.parse(data, name)
    view = memoryview(data)
    if len(data) != HEADER.size + head.summary_stored + head.columns_stored:
        raise CorruptObject(name, "it is cut short or too long")
    if blake3(view[:48]).update(view[HEADER.size :]).digest() != head.digest:
        raise CorruptObject(name, "its digest does not match")
    frame = view[HEADER.size + head.summary_stored :]
    return head, _decompress(frame, head.columns_plain, MAX_MANIFEST_SIZE, name)


def _decompress(frame: memoryview, plain: int, limit: int, name: str) -> bytes:
    """Decode one frame after what it says of its size was believed."""
    if plain > limit:
        raise CorruptObject(name, "it claims an impossible size")
    try:
        if zstandard.frame_content_size(frame) != plain:
            raise CorruptObject(name, "its sizes do not agree")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=plain)
    except zstandard.ZstdError as error:
        raise CorruptObject(name, f"it cannot be decompressed ({error})") from error


def _read_entries(reader: ColumnReader) -> Entries:
    rows = reader.numbers("axro", "I")
    names = ByteStrings(reader.numbers("axnl", "H"), reader.raw("axna"))
    lengths, values = reader.numbers("axvl", "I"), reader.raw("axva")
    if not len(rows) == len(names) == len(lengths) or sum(lengths) != len(values):
        raise MalformedColumns("the extended attributes do not agree")
    ends = list(accumulate(lengths))
    return Entries(
        kind=reader.numbers("ekin", "B"),
        parent=reader.numbers("epar", "I"),
        mode=reader.numbers("emod", "H"),
        mtime=reader.numbers("emtm", "q"),
        size=reader.numbers("esiz", "Q"),
        owner=reader.numbers("eown", "I"),
        flags=reader.numbers("eflg", "B"),
        names=ByteStrings(reader.numbers("enle", "H"), reader.raw("enam")),
        targets=ByteStrings(reader.numbers("etle", "H"), reader.raw("etar")),
        xattrs=tuple(
            (row, name, values[end - length : end])
            for row, name, length, end in zip(rows, names, lengths, ends, strict=True)
        ),
    )


def _read_chunks(reader: ColumnReader) -> Chunks:
    return Chunks(
        pack=reader.numbers("cpck", "I"),
        offset=reader.numbers("coff", "I"),
        stored=reader.numbers("csto", "I"),
        raw=reader.numbers("craw", "I"),
        encoding=reader.numbers("cenc", "B"),
        ids=reader.raw("c_id"),
        checks=reader.raw("cchk"),
    )


def _read_packs(reader: ColumnReader) -> tuple[PackInfo, ...]:
    ids, sizes = reader.raw("p_id"), reader.numbers("psiz", "Q")
    if len(ids) != 16 * len(sizes):
        raise MalformedColumns("the packs do not agree")
    return tuple(
        PackInfo(ids[place * 16 : place * 16 + 16].hex(), size) for place, size in enumerate(sizes)
    )


def find_problem(manifest: Manifest) -> str:
    """
    What is wrong with a manifest that was read; empty if nothing is.

    After this, rows may be used as indices and sizes be allocated without looking again. The
    checks run over whole columns, a million entries in about a second.
    """
    return (
        _find_entry_problem(manifest.summary, manifest.entries)
        or _find_name_problem(manifest.entries)
        or _find_chunk_problem(manifest.chunks, manifest.packs)
        or _find_extent_problem(manifest.entries, manifest.extents, manifest.chunks)
    )


def _find_entry_problem(summary: Summary, entries: Entries) -> str:
    total, trees = len(entries), len(summary.trees)
    columns = (
        entries.parent,
        entries.mode,
        entries.mtime,
        entries.size,
        entries.owner,
        entries.flags,
        entries.names,
    )
    if any(len(column) != total for column in columns):
        return "its entries' columns differ in length"
    if not 0 < trees <= total or len({tree.name for tree in summary.trees}) != trees:
        return "its trees do not fit its entries"
    if max(entries.kind) > Kind.HARDLINK:
        return "it has an entry of an unknown kind"
    parent = entries.parent
    if list(parent[:trees]) != list(range(trees)):
        return "its roots are not where they must be"
    if not all(map(operator.lt, parent[trees:], count(trees))):
        return "an entry comes before its directory"
    if not all(map(operator.le, parent[trees:], parent[trees + 1 :])):
        return "its entries are not in order"
    kind = entries.kind
    if any(kind[row] != Kind.DIRECTORY for row in set(parent)):
        return "an entry lies in what is not a directory"
    if max(entries.owner, default=0) > len(summary.distributions):
        return "an entry belongs to an unknown distribution"
    for row, (what, size) in enumerate(zip(kind, entries.size, strict=True)):
        if what == Kind.FILE:
            if size > MAX_FILE_SIZE:
                return f"a file claims {size} bytes"
        elif what == Kind.SYMLINK:
            if size >= len(entries.targets):
                return "a symlink has no target"
        elif what == Kind.HARDLINK and (size >= row or kind[size] != Kind.FILE):
            return "a hard link is not another name of a file"
    if any(not 0 < length < 4096 for length in entries.targets.lengths):
        return "a symlink's target is empty or too long"
    if b"\0" in entries.targets.data:
        return "a symlink's target holds a NUL"
    if any(row >= total for row, _, _ in entries.xattrs):
        return "an extended attribute belongs to no entry"
    return ""


def _find_name_problem(entries: Entries) -> str:
    names, parent = entries.names, entries.parent
    if b"/" in names.data or b"\0" in names.data:
        return "a name holds a slash or a NUL"
    previous, above = b"", -1
    for row, (name, directory) in enumerate(zip(names, parent, strict=True)):
        if directory == row:
            if name:
                return "a root has a name"
            continue
        if not 0 < len(name) <= 255 or name == b"." or name == b"..":
            return f"{name!r} is not a name"
        if directory == above and name <= previous:
            return "its names are not in order"
        previous, above = name, directory
    return ""


def _find_chunk_problem(chunks: Chunks, packs: tuple[PackInfo, ...]) -> str:
    total = len(chunks)
    columns = (chunks.offset, chunks.stored, chunks.raw, chunks.encoding)
    if any(len(column) != total for column in columns):
        return "its chunks' columns differ in length"
    if len(chunks.ids) != 32 * total or len(chunks.checks) != 16 * total:
        return "its chunks' ids are not complete"
    if any(not is_pack_id(pack.id) for pack in packs):
        return "a pack's id is none"
    if not total:
        return ""
    if max(chunks.pack) >= len(packs):
        return "a chunk lies in an unknown pack"
    if max(chunks.encoding) > Encoding.ZSTD:
        return "a chunk has an unknown encoding"
    if max(chunks.raw) > CHUNK_SIZE or min(chunks.raw) < 1:
        return "a chunk claims an impossible size"
    for pack, offset, stored, raw, encoding in zip(
        chunks.pack, chunks.offset, chunks.stored, chunks.raw, chunks.encoding, strict=True
    ):
        if not 0 < stored <= raw or (encoding == Encoding.RAW and stored != raw):
            return "a chunk is stored in an impossible size"
        if offset + stored > packs[pack].size:
            return "a chunk ends after its pack"
    return ""


def _find_extent_problem(entries: Entries, extents: Extents, chunks: Chunks) -> str:
    total = len(extents)
    if any(len(column) != total for column in (extents.offset, extents.length, extents.start)):
        return "its extents' columns differ in length"
    first = extents.first
    if len(first) != len(chunks) + 1 or first[0] != 0 or first[-1] != total:
        return "its extents do not fit its chunks"
    if not all(map(operator.le, first, first[1:])):
        return "its extents are not in order"
    if not total:
        return ""
    if max(extents.entry) >= len(entries):
        return "an extent belongs to no entry"
    if set(map(entries.kind.__getitem__, extents.entry)) != {Kind.FILE}:
        return "an extent belongs to what is not a file"
    ends = map(operator.add, extents.offset, extents.length)
    if not all(map(operator.le, ends, map(entries.size.__getitem__, extents.entry))):
        return "an extent ends after its file"
    covered = array("Q", bytes(8 * len(entries)))
    for row, length in zip(extents.entry, extents.length, strict=True):
        covered[row] += length
    if not all(map(operator.le, covered, entries.size)):
        # Only files have extents, so what the size of other kinds means does not matter here.
        return "a file's extents overlap"
    raws = chain.from_iterable(
        (raw,) * (first[row + 1] - first[row]) for row, raw in enumerate(chunks.raw)
    )
    if not all(map(operator.le, map(operator.add, extents.start, extents.length), raws)):
        return "an extent ends after its chunk"
    return ""
