"""
The example in docs/format.md: a real snapshot, byte by byte.

The document holds the bytes between comments such as ``<!-- example: pack -->`` and the end of
the block behind it; ``python -m tests.golden.make`` writes them anew.
"""

from __future__ import annotations

import json
import os
import re
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import zstandard
from blake3 import blake3

from cachepod.model.fingerprint import Fingerprint
from cachepod.model.manifest import HEADER
from cachepod.model.names import manifest_name, pack_name
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.signing import Keyring, Secret
from cachepod.stores.memory import MemoryStore
from tests.docs.markdown import ROOT, read_page
from tests.support.manifests import sections_of
from tests.support.trees import Directory, File, Link, Same, Sparse, make

DOCUMENT = ROOT / "docs" / "format.md"
KEY = "example"
SECRET = bytes(range(32))
KINDS = ("directory", "file", "symlink", "hard link")
FINGERPRINT = Fingerprint("named", {"key": KEY})
HELLO = b"hello, world\n"
LINE = b"sixteen bytes..\n"
MTIME = 1_500_000_000_000_000_000
TREE = Directory(
    {
        b"again": Same(b"hello.txt"),
        b"hello.txt": File(HELLO, mtime=MTIME),
        b"image": Sparse(131072, {65536: LINE * 4096}, mtime=MTIME),
        b"link": Link(b"hello.txt", mtime=MTIME),
        b"sub": Directory({b"empty": File(mtime=MTIME)}, mtime=MTIME),
    },
    mtime=MTIME,
)
NUMBERS = {1: "B", 2: "H", 4: "I", 8: "Q"}
MEANINGS = {
    "c_id": "BLAKE3-256 of chunk {0}",
    "cchk": "XXH3-128 of chunk {0}",
    "p_id": "pack {0}",
}
WIDTHS = {"c_id": 32, "cchk": 16, "p_id": 16}
_BYTES = re.compile(r"(?P<at>[0-9a-f]{4})  (?P<bytes>[0-9a-f]{2}(?: [0-9a-f]{2})*)(?:   *\S.*)?")


@dataclass(frozen=True)
class Field:
    """Some bytes and what they are."""

    data: bytes
    note: str


def publish_example(room: Path) -> tuple[str, bytes, bytes]:
    """Name of the pack, the pack and the manifest of a publish of TREE in the directory *room*."""
    store = MemoryStore()
    root = make(room / "data", TREE)
    report = publish(store, KEY, FINGERPRINT, [TreeSource("data", root)], threads=1)
    assert report.outcome == "stored"
    (pack,) = [info.name for info in store.list("packs")]
    return pack, store.read(pack, limit=1 << 20), store.read(manifest_name(KEY), limit=1 << 20)


def number(data: bytes) -> int:
    """An unsigned little-endian number."""
    return int.from_bytes(data, "little")


def pack_fields(pack: bytes) -> Iterator[Field]:
    """The parts of the example's pack."""
    rows = number(pack[-24:-20])
    table = len(pack) - 24 - 72 * rows
    yield Field(pack[:8], '"cppack", format version 1')
    parts = [pack[at : at + 72] for at in range(table, len(pack) - 24, 72)]
    for place, row in enumerate(parts):
        offset, stored = number(row[48:52]), number(row[52:56])
        how = "one zstd frame" if row[60] else "raw"
        yield Field(
            pack[offset : offset + stored], f"the chunk of row {place}: {stored} bytes, {how}"
        )
    for place, row in enumerate(parts):
        yield Field(row[:32], f"row {place} of the table: BLAKE3-256 of the plain bytes")
        yield Field(row[32:48], "XXH3-128 of the stored bytes")
        for at, what in ((48, "offset"), (52, "stored bytes"), (56, "plain bytes")):
            yield Field(row[at : at + 4], f"{what}: {number(row[at : at + 4])}")
        yield Field(row[60:61], f"encoding: {('raw', 'one zstd frame')[row[60]]}")
        yield Field(row[61:], "zero")
    yield Field(pack[-24:-20], f"rows: {rows}")
    yield Field(pack[-20:-16], "zero")
    yield Field(pack[-16:-8], "XXH3-64 of the table")
    yield Field(pack[-8:], '"cppack", format version 1')


def manifest_fields(manifest: bytes) -> Iterator[Field]:
    """The parts of a manifest."""
    at = 0
    for size, what in (
        (8, '"cachepod"'),
        (2, "format version: {}"),
        (2, "flags: {}"),
        (4, "a, bytes of the summary's frame: {}"),
        (4, "bytes of the summary, decompressed: {}"),
        (4, "zero"),
        (8, "XXH3-64 of the summary's frame"),
        (8, "b, bytes of the columns' frame: {}"),
        (8, "bytes of the columns, decompressed: {}"),
        (32, "BLAKE3-256 of all but these 32 bytes"),
    ):
        data = manifest[at : at + size]
        yield Field(data, what.format(number(data)))
        at += size
    assert at == HEADER.size
    end = at + number(manifest[12:16])
    yield Field(manifest[at:end], "the summary's frame")
    yield Field(manifest[end:], "the columns' frame")


def signed_example(manifest: bytes) -> bytes:
    """The example's manifest as a publisher with the secret SECRET would have written it."""
    head = manifest[:10] + b"\1\0" + manifest[12:48]
    digest = blake3(head + manifest[80:]).digest()
    key = Secret(SECRET)
    trailer = Keyring(key, (key,)).sign(KEY, digest).encode()
    return head + digest + manifest[80:] + trailer


def signature_fields(trailer: bytes) -> Iterator[Field]:
    """The parts of a signature."""
    yield Field(trailer[:2], f"algorithm: {number(trailer[:2])}, HMAC-SHA256")
    yield Field(trailer[2:4], f"n, bytes of the signature: {number(trailer[2:4])}")
    yield Field(trailer[4:20], "id of the key")
    yield Field(trailer[20:], "the signature")


def columns_fields(block: bytes) -> Iterator[Field]:
    """The parts of the columns of the example."""
    at = 0
    for tag, (itemsize, data) in sections_of(block).items():
        items = f"{itemsize} byte{'s' * (itemsize > 1)} an item"
        yield Field(block[at : at + 16], f'"{tag}", {items}, {len(data)} bytes of data')
        at += 16
        yield from _column_fields(tag, itemsize, data)
        at += len(data)
        if at % 8:
            yield Field(block[at : at + -at % 8], "zero")
            at += -at % 8


def _column_fields(tag: str, itemsize: int, data: bytes) -> Iterator[Field]:
    if tag in WIDTHS:
        width = WIDTHS[tag]
        for place, at in enumerate(range(0, len(data), width)):
            yield Field(data[at : at + width], MEANINGS[tag].format(place))
    elif tag == "ekin":
        yield Field(data, ", ".join(KINDS[kind] for kind in data))
    elif tag in ("enam", "etar"):
        yield Field(data, f'"{data.decode()}"')
    else:
        items = array("q" if tag == "emtm" else NUMBERS[itemsize], data)
        texts = [f"{item:o}" if tag == "emod" else str(item) for item in items]
        for first in range(0, len(items), 16 // itemsize):
            step = 16 // itemsize
            note = " ".join(texts[first : first + step])
            if tag == "emod":
                note += " (octal)"
            yield Field(data[first * itemsize : (first + step) * itemsize], note)


def dump(fields: Iterator[Field]) -> str:
    """Offset, bytes and meaning, at most 16 bytes a line."""
    lines = []
    at = 0
    for field in fields:
        note = field.note
        for first in range(0, len(field.data), 16):
            row = field.data[first : first + 16]
            lines.append(f"{at:04x}  {row.hex(' '):47}  {note}".rstrip())
            at += len(row)
            note = ""
    return "\n".join(lines)


def undump(text: str) -> bytes:
    """The bytes of a :func:`dump`; its offsets must be right."""
    data = bytearray()
    for line in text.splitlines():
        match = _BYTES.fullmatch(line)
        assert match, f"not a line of a dump: {line!r}"
        assert int(match["at"], 16) == len(data), f"wrong offset: {line!r}"
        data += bytes.fromhex(match["bytes"])
    return bytes(data)


def take_apart(manifest: bytes) -> tuple[bytes, bytes]:
    """Summary and columns of a manifest, decompressed."""
    end = HEADER.size + number(manifest[12:16])
    decompress = zstandard.ZstdDecompressor().decompress
    return decompress(manifest[HEADER.size : end]), decompress(manifest[end:])


def examples() -> dict[str, str]:
    """The text of each example in the document, by its name."""
    found = {}
    for block in read_page(DOCUMENT).blocks:
        match = re.fullmatch(r"<!-- example: (\w+) -->", block.before.strip())
        if match:
            found[match[1]] = block.text
    return found


def write_example() -> None:
    """Put a new example into the document."""
    from tests.golden.make import place_for_trees

    with place_for_trees() as place:
        name, pack, manifest = publish_example(place)
    summary, columns = take_apart(manifest)
    text = DOCUMENT.read_text(encoding="utf-8")
    for what, content in (
        ("objects", f"{name}\n{manifest_name(KEY)}"),
        ("pack", dump(pack_fields(pack))),
        ("manifest", dump(manifest_fields(manifest))),
        ("signature", dump(signature_fields(signed_example(manifest)[len(manifest) :]))),
        ("summary", json.dumps(json.loads(summary), indent=2)),
        ("columns", dump(columns_fields(columns))),
    ):
        before, mark, rest = text.partition(f"<!-- example: {what} -->\n")
        assert mark, f"{DOCUMENT}: no place for the example {what}"
        fence, rest = rest.split("\n", 1)
        after = rest[rest.index("```\n") :]
        text = f"{before}{mark}{fence}\n{content}\n{after}"
    DOCUMENT.write_text(text, encoding="utf-8")
    assert pack_name(os.path.basename(name)) == name
    print(f"{DOCUMENT.relative_to(ROOT)}: example written")
