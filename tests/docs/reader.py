"""
A reader of stores written from docs/format.md alone, with nothing of cachepod in it.

It shows that the document says enough, and gets files out of a store when all else is lost::

    python reader.py STORE KEY DIRECTORY
"""

from __future__ import annotations

import hmac
import json
import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import zstandard

UNSIGNED = {1: "B", 2: "H", 4: "I", 8: "Q"}
Columns = dict[str, Any]


class Chunk(NamedTuple):
    """A row of a pack's table."""

    id: bytes
    check: bytes
    offset: int
    stored: int
    raw: int
    encoding: int


def manifest_path(store: Path, key: str) -> Path:
    """Where the manifest of *key* lies."""
    family, dash, digits = key.rpartition("-")
    computed = dash and len(digits) == 16 and not set(digits) - set("0123456789abcdef")
    return store / "manifests" / (family if computed else "named") / key


def read_manifest(data: bytes) -> tuple[dict[str, Any], Columns]:
    """Summary and columns."""
    magic, version, flags, first, _, _, _, second, _ = struct.unpack_from("<8sHHIIIQQQ", data)
    assert (magic, version) == (b"cachepod", 1)
    assert flags in (0, 1)
    unpack = zstandard.ZstdDecompressor().decompress
    summary = json.loads(unpack(data[80 : 80 + first]).decode("utf-8", "surrogateescape"))
    return summary, read_columns(unpack(data[80 + first : 80 + first + second]))


def is_signed_with(secret: bytes, data: bytes, key: str) -> bool:
    """Whether a manifest, found under *key*, is signed with a secret of HMAC-SHA256."""
    from blake3 import blake3

    _, _, flags, first, _, _, _, second, _ = struct.unpack_from("<8sHHIIIQQQ", data)
    end = 80 + first + second
    digest = blake3(data[:48] + data[80:end]).digest()
    if flags != 1 or digest != data[48:80] or len(data) < end + 20:
        return False
    algorithm, size, key_id = struct.unpack_from("<HH16s", data, end)
    signed = b"cachepod-manifest-1\0" + data[end : end + 2] + key_id + digest + key.encode()
    return (
        algorithm == 1
        and key_id == hmac.digest(secret, b"cachepod-key-id", "sha256")[:16]
        and data[end + 20 :] == hmac.digest(secret, signed, "sha256")
        and size == 32
    )


def read_columns(block: bytes) -> Columns:
    """Tag to numbers, as they come; bytes where the items are single ones."""
    columns: Columns = {}
    at = 0
    while at < len(block):
        tag, size, length = struct.unpack_from("<4sB3xQ", block, at)
        code = "q" if tag == b"emtm" else UNSIGNED[size]
        data = block[at + 16 : at + 16 + length]
        numbers = struct.unpack(f"<{length // size}{code}", data)
        columns[tag.decode()] = data if size == 1 else numbers
        at += 16 + length + -length % 8
    return columns


def strings(lengths: tuple[int, ...], data: bytes) -> list[bytes]:
    """Cut *data* into pieces of *lengths*."""
    found = []
    for length in lengths:
        found.append(data[:length])
        data = data[length:]
    return found


def entries(summary: dict[str, Any], columns: Columns) -> Iterator[tuple[int, bytes, int]]:
    """Row, path beginning with the tree's name, and kind of every entry."""
    paths = [tree["name"].encode() for tree in summary["trees"]]
    names = strings(columns["enle"], columns["enam"])
    for row, (parent, name, kind) in enumerate(
        zip(columns["epar"], names, columns["ekin"], strict=True)
    ):
        if row >= len(summary["trees"]):
            paths.append(paths[parent] + b"/" + name)
        yield row, paths[row], kind


def contents(columns: Columns, store: Path) -> Iterator[tuple[int, bytes]]:
    """Row and bytes of every regular file that can be read whole; holes are zeros."""
    files = {
        row: bytearray(size)
        for row, (kind, size) in enumerate(zip(columns["ekin"], columns["esiz"], strict=True))
        if kind == 1
    }
    packs = [columns["p_id"][at : at + 16].hex() for at in range(0, len(columns["p_id"]), 16)]
    table = zip(*(columns[tag] for tag in ("cpck", "coff", "csto", "craw", "cenc")), strict=True)
    for chunk, (pack, offset, stored, size, encoding) in enumerate(table):
        plain = read_chunk(
            store / "packs" / packs[pack][:2] / packs[pack], offset, stored, encoding
        )
        for at in range(columns["xfst"][chunk], columns["xfst"][chunk + 1]):
            row, offset, length, start = (columns[t][at] for t in ("xent", "xoff", "xlen", "xsta"))
            if len(plain) != size:
                files.pop(row, None)
            elif row in files:
                files[row][offset : offset + length] = plain[start : start + length]
    yield from ((row, bytes(data)) for row, data in files.items())


def read_chunk(pack: Path, offset: int, stored: int, encoding: int) -> bytes:
    """The plain bytes of a chunk; none where the pack is gone or damaged."""
    try:
        with open(pack, "rb") as file:
            file.seek(offset)
            plain = file.read(stored)
        return zstandard.ZstdDecompressor().decompress(plain) if encoding == 1 else plain
    except (OSError, zstandard.ZstdError) as error:
        print(f"{pack} at {offset}: {error}", file=sys.stderr)
        return b""


def read_table(pack: bytes) -> list[Chunk]:
    """What a pack says of its own chunks."""
    rows, _, _, mark, version = struct.unpack("<IIQ6sH", pack[-24:])
    assert (mark, version, pack[:8]) == (b"cppack", 1, pack[-8:])
    end = len(pack) - 24
    return [
        Chunk(*row) for row in struct.iter_unpack("<32s16sIIIB11x", pack[end - 72 * rows : end])
    ]


def extract(store: Path, key: str, directory: Path) -> None:
    """Write the files, symbolic links and directories of *key* below *directory*, which is made."""
    summary, columns = read_manifest(manifest_path(store, key).read_bytes())
    data = dict(contents(columns, store))
    targets = strings(columns["etle"], columns["etar"])
    links = []
    directory.mkdir()
    for row, path, kind in entries(summary, columns):
        place, size = os.fsencode(directory) + b"/" + path, columns["esiz"][row]
        if kind == 0:
            os.mkdir(place)
        elif kind == 2:
            links.append((targets[size], place))
        elif (file_row := size if kind == 3 else row) not in data:
            print(f"lost: {os.fsdecode(path)}", file=sys.stderr)
        else:
            with open(place, "wb") as file:
                file.write(data[file_row])
            os.chmod(place, columns["emod"][row] & 0o777)
    for target, place in links:  # last, so that nothing is written through one of them
        os.symlink(target, place)


if __name__ == "__main__":
    extract(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
