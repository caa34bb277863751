"""
The manifest: everything a snapshot is, except the bytes of its files.

The object, everything little-endian::

    offset  size  what
    0       8     "cachepod"
    8       2     format version, 1
    10      2     flags: 1 if it is signed, else 0
    12      4     bytes of the summary's frame          (a)
    16      4     bytes of the summary, decompressed
    20      4     zero
    24      8     XXH3-64 of the summary's frame
    32      8     bytes of the columns' frame           (b)
    40      8     bytes of the columns, decompressed
    48      32    BLAKE3-256 of bytes 0 to 47, of the summary's and of the columns' frame
    80      a     summary: one zstd frame, JSON in UTF-8
    80+a    b     columns: one zstd frame, see columns.py and the table in Manifest.encode
    80+a+b  ...   if it is signed: the signature, see signature.py

The summary stands first so that a listing can read it alone. The digest names the manifest.
"""

from __future__ import annotations

import json
import struct
from array import array
from dataclasses import dataclass, field
from itertools import accumulate

import zstandard
from blake3 import blake3
from xxhash import xxh3_64_intdigest

from cachepod.errors import CorruptObject, NewerFormat
from cachepod.model.columns import ByteStrings, ColumnReader, MalformedColumns, pack_columns
from cachepod.model.layout import KIB, MAX_MANIFEST_SIZE, MAX_SUMMARY_SIZE
from cachepod.model.signature import Signature, Signer
from cachepod.model.summary import Summary
from cachepod.model.tables import Chunks, Entries, Extents, PackInfo
from cachepod.model.validate import find_chunk_problem, find_problem

MANIFEST_FORMAT = 1
MAGIC = b"cachepod"
SIGNED = 1
HEADER = struct.Struct("<8sHHIIIQQQ32s")
_LEVEL = 3
#: A block of a zstd frame takes 4 bytes at least and yields so many at most (RFC 8878, 3.1.1.2).
_BLOCK_YIELD = 128 * KIB


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
        problem = find_chunk_problem(table.chunks, table.packs)
        if problem:
            raise CorruptObject(name, problem)
        return table


@dataclass(frozen=True)
class Manifest:
    """
    A snapshot.

    *digest* is the BLAKE3-256 of its object in hex, empty before it was encoded; *signature* is
    what stands behind it, and says nothing before somebody has checked it.
    """

    summary: Summary
    entries: Entries
    extents: Extents
    chunks: Chunks
    packs: tuple[PackInfo, ...]
    digest: str = field(default="", compare=False)
    signature: Signature | None = field(default=None, compare=False)

    @property
    def parts(self) -> tuple[Summary, Entries, Extents, Chunks, tuple[PackInfo, ...]]:
        """All but the digest."""
        return self.summary, self.entries, self.extents, self.chunks, self.packs

    def encode(self, sign: Signer | None = None) -> bytes:
        """The object to store, signed by *sign*."""
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
            SIGNED if sign else 0,
            len(summary_frame),
            len(summary),
            0,
            xxh3_64_intdigest(summary_frame),
            len(columns_frame),
            len(columns),
            bytes(32),
        )[:-32]
        digest = blake3(fixed).update(summary_frame).update(columns_frame).digest()
        trailer = sign(self.summary.key, digest).encode() if sign else b""
        return b"".join((fixed, digest, summary_frame, columns_frame, trailer))

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
                signature=head.signature(data, name),
            )
        except MalformedColumns as error:
            raise CorruptObject(name, str(error)) from error
        problem = "" if believed else find_problem(*manifest.parts)
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


def is_signed(data: bytes, *, name: str) -> bool:
    """Whether a manifest says that it is signed; *data* are its first 80 bytes or more."""
    return _Head.parse(data, name).signed


@dataclass(frozen=True)
class _Head:
    summary_stored: int
    summary_plain: int
    summary_check: int
    columns_stored: int
    columns_plain: int
    digest: bytes
    signed: bool

    @classmethod
    def parse(cls, data: bytes, name: str) -> _Head:
        if len(data) < HEADER.size:
            raise CorruptObject(name, "it is cut short")
        magic, version, flags, a, a_plain, _, a_check, b, b_plain, digest = HEADER.unpack_from(data)
        if magic != MAGIC or version < 1:
            raise CorruptObject(name, "it is not a manifest")
        if version > MANIFEST_FORMAT or flags & ~SIGNED:
            raise NewerFormat(name, max(version, MANIFEST_FORMAT + 1), MANIFEST_FORMAT)
        return cls(a, a_plain, a_check, b, b_plain, digest, bool(flags & SIGNED))

    @property
    def end(self) -> int:
        """Where the columns' frame ends."""
        return HEADER.size + self.summary_stored + self.columns_stored

    def signature(self, data: bytes, name: str) -> Signature | None:
        return Signature.decode(data[self.end :], name=name) if self.signed else None

    def summary(self, view: memoryview, name: str) -> Summary:
        frame = view[HEADER.size : HEADER.size + self.summary_stored]
        if len(frame) != self.summary_stored or xxh3_64_intdigest(frame) != self.summary_check:
            raise CorruptObject(name, "its summary is damaged")
        plain = _decompress(frame, self.summary_plain, MAX_SUMMARY_SIZE, name)
        try:
            return Summary.from_json(json.loads(plain.decode("utf-8", "surrogateescape")))
        except (ValueError, RecursionError) as error:
            raise CorruptObject(name, f"its summary makes no sense: {error}") from error


def digest_and_signature(data: bytes, *, name: str) -> tuple[bytes, Signature | None]:
    """
    The digest of an object, which was checked, and its signature, which was not.

    Nothing is decompressed.

    Raises:
        NewerFormat, CorruptObject: As :meth:`Manifest.decode`.
    """
    head = _checked_head(data, name)
    return head.digest, head.signature(data, name)


def _checked_head(data: bytes, name: str) -> _Head:
    """The head of an object whose length and digest are as it says."""
    head = _Head.parse(data, name)
    view = memoryview(data)
    if len(data) < head.end or (len(data) > head.end and not head.signed):
        raise CorruptObject(name, "it is cut short or too long")
    if blake3(view[:48]).update(view[HEADER.size : head.end]).digest() != head.digest:
        raise CorruptObject(name, "its digest does not match")
    return head


def _open(data: bytes, name: str) -> tuple[_Head, bytes]:
    """The head and the decompressed columns of an object, after its digest was checked."""
    head = _checked_head(data, name)
    head.signature(data, name)
    frame = memoryview(data)[HEADER.size + head.summary_stored : head.end]
    return head, _decompress(frame, head.columns_plain, MAX_MANIFEST_SIZE, name)


def _decompress(frame: memoryview, plain: int, limit: int, name: str) -> bytes:
    """Decode one frame after what it says of its size was believed."""
    if plain > min(limit, len(frame) // 4 * _BLOCK_YIELD):
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
