"""Manifests for tests: any that a publish could make, and objects that no publish would make."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import zstandard
from blake3 import blake3
from hypothesis import strategies as st
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from cachepod.model.columns import ByteStrings
from cachepod.model.fingerprint import Fingerprint
from cachepod.model.layout import CHUNK_SIZE
from cachepod.model.manifest import HEADER, MAGIC, MANIFEST_FORMAT, Manifest
from cachepod.model.summary import Distribution, Summary, TreeInfo
from cachepod.model.surroundings import Surroundings
from cachepod.model.tables import Chunks, Encoding, Entries, Extents, Kind, PackInfo


@dataclass(frozen=True)
class Row:
    """One entry, before rows are known: *size* as in Entries; *parent* an index of the list."""

    kind: Kind
    parent: int
    name: bytes
    size: int = 0
    mode: int = 0o644
    mtime: int = 0
    owner: int = 0
    flags: int = 0


@dataclass(frozen=True)
class Use:
    """A stretch of file *entry* that comes from one chunk."""

    entry: int
    offset: int
    length: int


def entries_of(
    rows: list[Row],
    targets: list[bytes] | None = None,
    xattrs: tuple[tuple[int, bytes, bytes], ...] = (),
) -> Entries:
    """The columns of *rows*."""
    return Entries(
        kind=array("B", (row.kind for row in rows)),
        parent=array("I", (row.parent for row in rows)),
        mode=array("H", (row.mode for row in rows)),
        mtime=array("q", (row.mtime for row in rows)),
        size=array("Q", (row.size for row in rows)),
        owner=array("I", (row.owner for row in rows)),
        flags=array("B", (row.flags for row in rows)),
        names=ByteStrings.of(row.name for row in rows),
        targets=ByteStrings.of(targets or []),
        xattrs=xattrs,
    )


def contents_of(
    uses: list[list[Use]], per_pack: int = 3
) -> tuple[Extents, Chunks, tuple[PackInfo, ...]]:
    """Extents, chunks and packs, each chunk stored as if it had shrunk to half."""
    extents = Extents(array("I"), array("I"), array("Q"), array("I"), array("I"))
    chunks = Chunks(array("I"), array("I"), array("I"), array("I"), array("B"), b"", b"")
    ids, checks, sizes = [], [], []
    for number, chunk in enumerate(uses):
        extents.first.append(len(extents.entry))
        position = 0
        for use in chunk:
            extents.entry.append(use.entry)
            extents.offset.append(use.offset)
            extents.length.append(use.length)
            extents.start.append(position)
            position += use.length
        if number % per_pack == 0:
            sizes.append(8)
        raw = number % 2 == 0 or position == 1
        stored = position if raw else position // 2
        chunks.pack.append(len(sizes) - 1)
        chunks.offset.append(sizes[-1])
        chunks.stored.append(stored)
        chunks.raw.append(position)
        chunks.encoding.append(Encoding.RAW if raw else Encoding.ZSTD)
        sizes[-1] += stored
        identity = blake3(str(number).encode()).digest()
        ids.append(identity)
        checks.append(xxh3_128_digest(identity))
    extents.first.append(len(extents.entry))
    packs = tuple(
        PackInfo(blake3(b"pack %d" % number).hexdigest()[:32], size + 100)
        for number, size in enumerate(sizes)
    )
    return (
        extents,
        Chunks(
            chunks.pack,
            chunks.offset,
            chunks.stored,
            chunks.raw,
            chunks.encoding,
            b"".join(ids),
            b"".join(checks),
        ),
        packs,
    )


def summary_of(**changes: Any) -> Summary:
    """A plain summary with *changes*."""
    fields: dict[str, Any] = {
        "key": "k",
        "fingerprint": Fingerprint("trees", {"tree:data": "1"}),
        "trees": (TreeInfo("data", "/data"),),
        "distributions": (Distribution("torch", "2.7.0"),),
        "creator": {"host": "h"},
        "created": 1_800_000_000.5,
        "files": 3,
        "size": 70,
        "stored": 60,
    }
    return Summary(**{**fields, **changes})


def small_manifest() -> Manifest:
    """
    One of everything; what a test damages.

    ====  ==========================================
    row   entry
    ====  ==========================================
    0     the root
    1     ``a``, a file of 10 bytes, one extent
    2     ``b``, a directory
    3     ``c``, a symlink to ``a``
    4     ``d``, another name of ``a``
    5     ``b/x``, a file of 100 bytes, 60 of them in two extents
    ====  ==========================================
    """
    rows = [
        Row(Kind.DIRECTORY, 0, b"", mode=0o755),
        Row(Kind.FILE, 0, b"a", 10, owner=1),
        Row(Kind.DIRECTORY, 0, b"b", mode=0o700),
        Row(Kind.SYMLINK, 0, b"c", 0, mode=0o777),
        Row(Kind.HARDLINK, 0, b"d", 1),
        Row(Kind.FILE, 2, b"x", 100, mtime=-5, flags=1),
    ]
    extents, chunks, packs = contents_of([[Use(1, 0, 10), Use(5, 0, 20)], [Use(5, 60, 40)]])
    entries = entries_of(rows, [b"a"], ((1, b"user.note", b"value"),))
    return Manifest(summary_of(), entries, extents, chunks, packs)


def plain(manifest: Manifest) -> tuple[object, ...]:
    """What two manifests are compared by."""
    entries = manifest.entries
    return (
        manifest.summary,
        *(entries.kind, entries.parent, entries.mode, entries.mtime, entries.size),
        *(entries.owner, entries.flags, list(entries.names), list(entries.targets)),
        entries.xattrs,
        manifest.extents,
        manifest.chunks,
        manifest.packs,
    )


def build(
    summary: bytes,
    columns: bytes,
    *,
    version: int = MANIFEST_FORMAT,
    flags: int = 0,
    summary_frame: bytes | None = None,
    columns_frame: bytes | None = None,
    summary_plain: int | None = None,
    columns_plain: int | None = None,
) -> bytes:
    """An object with digests that hold, whatever it says."""
    compressor = zstandard.ZstdCompressor(level=1)
    first = compressor.compress(summary) if summary_frame is None else summary_frame
    second = compressor.compress(columns) if columns_frame is None else columns_frame
    fixed = HEADER.pack(
        *(MAGIC, version, flags),
        len(first),
        len(summary) if summary_plain is None else summary_plain,
        *(0, xxh3_64_intdigest(first)),
        len(second),
        len(columns) if columns_plain is None else columns_plain,
        bytes(32),
    )[:-32]
    return fixed + blake3(fixed + first + second).digest() + first + second


def take_apart(data: bytes) -> tuple[bytes, bytes]:
    """Summary and columns of a good object, decompressed."""
    _, _, _, stored, _, _, _, _, _, _ = HEADER.unpack_from(data)
    decompress = zstandard.ZstdDecompressor().decompress
    return decompress(data[80 : 80 + stored]), decompress(data[80 + stored :])


def sections_of(block: bytes) -> dict[str, tuple[int, bytes]]:
    """Tag to item size and data of a good block, in order."""
    found: dict[str, tuple[int, bytes]] = {}
    position = 0
    while position < len(block):
        length = int.from_bytes(block[position + 8 : position + 16], "little")
        start = position + 16
        tag = block[position : position + 4].decode()
        found[tag] = block[position + 4], block[start : start + length]
        position = start + length + -length % 8
    return found


def block_of(sections: Mapping[str, tuple[int, bytes]]) -> bytes:
    """The block that :func:`sections_of` takes apart."""
    out = bytearray()
    for tag, (itemsize, data) in sections.items():
        out += tag.encode() + bytes((itemsize, 0, 0, 0)) + len(data).to_bytes(8, "little") + data
        out += bytes(-len(out) % 8)
    return bytes(out)


texts = st.text(max_size=12)
tree_names = st.from_regex(r"[a-z][a-z0-9_-]{0,31}", fullmatch=True)
families = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,40}", fullmatch=True)
fingerprints = st.builds(Fingerprint, families, st.dictionaries(texts, texts, max_size=4))
entry_names = st.binary(min_size=1, max_size=255).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..", b".cachepod")
)
numbers = st.integers(0, (1 << 63) - 1)


_links = st.from_regex(r"cuda[a-z0-9.-]{0,8}", fullmatch=True)
_pieces = st.from_regex(r"[a-z0-9_+][a-z0-9_+.-]{0,8}", fullmatch=True)
_files = st.from_regex(r"[a-z0-9_][a-z0-9_.-]{0,8}\.conf", fullmatch=True)


@st.composite
def surroundings(draw: st.DrawFn) -> Surroundings:
    """Whatever may lie around a tree."""
    links = draw(st.dictionaries(_links, st.booleans(), max_size=4))
    first = st.sampled_from([".", *sorted(links)])
    paths = st.builds(
        lambda one, rest: "/".join([one, *rest]), first, st.lists(_pieces, max_size=4)
    )
    linker = draw(st.dictionaries(_files, st.lists(paths, max_size=3).map(tuple), max_size=3))
    return Surroundings(links, linker, draw(texts))


@st.composite
def summaries(draw: st.DrawFn) -> Summary:
    """Any summary."""
    names = draw(st.lists(tree_names, min_size=1, max_size=3, unique=True))
    return Summary(
        key=draw(families),
        fingerprint=draw(fingerprints),
        trees=tuple(
            TreeInfo(name, draw(texts), draw(st.none() | surroundings())) for name in names
        ),
        distributions=tuple(
            draw(st.lists(st.builds(Distribution, name=texts, version=texts), max_size=3))
        ),
        creator=draw(st.dictionaries(texts, texts, max_size=3)),
        created=draw(st.floats(0, 1e10)),
        files=draw(numbers),
        size=draw(numbers),
        stored=draw(numbers),
    )


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    """Any manifest that a publish could make, of some thirty entries at most."""
    summary = draw(summaries())
    rows = [Row(Kind.DIRECTORY, place, b"") for place in range(len(summary.trees))]
    targets: list[bytes] = []
    files: list[int] = []
    at = 0
    while at < len(rows):
        if rows[at].kind == Kind.DIRECTORY and len(rows) < 30:
            beside = [row for row in files if _tree_of(rows, row) == _tree_of(rows, at)]
            for name in sorted(draw(st.sets(entry_names, max_size=6))):
                rows.append(_entry(draw, at, name, beside, targets, len(summary.distributions)))
                if rows[-1].kind == Kind.FILE:
                    files.append(len(rows) - 1)
        at += 1
    xattrs = tuple(
        (row, draw(entry_names), draw(st.binary(max_size=20)))
        for row in sorted(draw(st.sets(st.integers(0, len(rows) - 1), max_size=3)))
    )
    extents, chunks, packs = contents_of(_chunked(draw, rows, files))
    return Manifest(summary, entries_of(rows, targets, xattrs), extents, chunks, packs)


def _tree_of(rows: list[Row], row: int) -> int:
    while rows[row].parent != row:
        row = rows[row].parent
    return row


def _entry(
    draw: st.DrawFn, parent: int, name: bytes, files: list[int], targets: list[bytes], owners: int
) -> Row:
    kinds = [Kind.DIRECTORY, Kind.FILE, Kind.FILE, Kind.SYMLINK]
    kind = draw(st.sampled_from([*kinds, Kind.HARDLINK] if files else kinds))
    size = 0
    if kind == Kind.FILE:
        size = draw(st.sampled_from([0, 1, 77, 5000, CHUNK_SIZE, CHUNK_SIZE + 1, 1 << 44]))
    elif kind == Kind.HARDLINK:
        size = draw(st.sampled_from(files))
    elif kind == Kind.SYMLINK:
        target = st.binary(min_size=1, max_size=4095).filter(lambda target: b"\0" not in target)
        size = len(targets)
        targets.append(draw(target))
    return Row(
        kind,
        parent,
        name,
        size,
        mode=draw(st.integers(0, 0o7777)),
        mtime=draw(st.integers(-(1 << 63), (1 << 63) - 1)),
        owner=draw(st.integers(0, owners)),
        flags=draw(st.integers(0, 1)),
    )


def _chunked(draw: st.DrawFn, rows: list[Row], files: list[int]) -> list[list[Use]]:
    """Stretches of every file, some left out as holes, run together into chunks."""
    chunks: list[list[Use]] = []
    room = 0
    for row in files:
        size = rows[row].size
        cuts = [0, *sorted(draw(st.sets(st.integers(0, size), max_size=3))), size]
        for begin, end in pairwise(cuts):
            length = end - begin
            if not 0 < length <= CHUNK_SIZE or not draw(st.integers(0, 3)):
                continue
            if length > room or not draw(st.integers(0, 4)):
                chunks.append([])
                room = CHUNK_SIZE
            chunks[-1].append(Use(row, begin, length))
            room -= length
    return chunks


json_values: st.SearchStrategy[Any] = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.sampled_from([1 << 63, -1, 10**400, -(10**400)]),
        st.floats(),
        st.text(max_size=5),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def odd_summaries(draw: st.DrawFn) -> bytes:
    """A good summary's JSON with something in it replaced or taken away."""
    document: Any = summary_of().to_json()
    for _ in range(draw(st.integers(1, 3))):
        here: Any = document
        while True:
            places = list(here) if isinstance(here, dict) else list(range(len(here)))
            if not places:
                break
            place = draw(st.sampled_from(places))
            if isinstance(here[place], dict | list) and draw(st.booleans()):
                here = here[place]
                continue
            if draw(st.booleans()):
                del here[place]
            else:
                here[place] = draw(json_values)
            break
    return json.dumps(document).encode("utf-8", "surrogateescape")
