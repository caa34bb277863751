"""docs/format.md says enough to read a store, and all that it says is so."""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3
from xxhash import xxh3_64_intdigest, xxh3_128_digest

from cachepod.errors import CorruptObject, Miss, StoreUnreachable
from cachepod.model import layout
from cachepod.model.manifest import MANIFEST_FORMAT, Manifest
from cachepod.model.names import STORE_FORMAT, manifest_name, pack_name
from cachepod.model.pack import PACK_FORMAT, decode_table
from cachepod.model.signature import Algorithm, signed_bytes
from cachepod.snapshot.damage import set_aside
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.signing import Keyring, Secret
from cachepod.snapshot.stamp import State
from cachepod.stores.base import put
from cachepod.stores.local import LocalStore
from cachepod.stores.memory import MemoryStore
from tests.docs import reader
from tests.docs.example import (
    DOCUMENT,
    FINGERPRINT,
    HELLO,
    KEY,
    LINE,
    SECRET,
    TREE,
    examples,
    publish_example,
    signed_example,
    take_apart,
    undump,
)
from tests.golden.tree import keeps_holes
from tests.support.manifests import sections_of
from tests.support.trees import look, make

TEXT = DOCUMENT.read_text(encoding="utf-8")
EXAMPLES = examples()
PACK, MANIFEST, COLUMNS = (undump(EXAMPLES[name]) for name in ("pack", "manifest", "columns"))
PACK_NAME, MANIFEST_NAME = EXAMPLES["objects"].split()
SUMMARY = json.loads(EXAMPLES["summary"])
IMAGE = bytes(65536) + LINE * 4096


def section(title: str) -> str:
    """The text under a heading."""
    level = "#" * (len(re.findall(rf"^(#+) {title}$", TEXT, re.M)[0]))
    begin = TEXT.index(f"\n{level} {title}\n") + 1
    end = re.compile(rf"^#{{1,{len(level)}}} ", re.M).search(TEXT, begin + len(level) + 1)
    return TEXT[begin : end.start() if end else None]


def rows(text: str) -> list[list[str]]:
    """The cells of every row of the tables in *text*, headings left out."""
    table = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split(" | ")] for line in table]
    ruled = [place for place, row in enumerate(cells) if set("".join(row)) <= set("-| ")]
    return [row for place, row in enumerate(cells) if place not in ruled and place + 1 not in ruled]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """The example as a directory store."""
    for name, data in ((PACK_NAME, PACK), (MANIFEST_NAME, MANIFEST)):
        path = tmp_path / "store" / name
        path.parent.mkdir(parents=True)
        path.write_bytes(data)
    return tmp_path / "store"


def test_the_example_is_restored_by_cachepod(tmp_path: Path) -> None:
    store = MemoryStore()
    put(store, PACK_NAME, PACK)
    put(store, MANIFEST_NAME, MANIFEST)
    restore(store, KEY, [Target("data", tmp_path / "data")], expect=FINGERPRINT, min_free=0.0)
    assert look(tmp_path / "data") == look(make(tmp_path / "original", TREE))


def test_the_example_is_read_by_the_documented_reader(store: Path) -> None:
    path = reader.manifest_path(store, KEY)
    assert path == store / MANIFEST_NAME
    summary, columns = reader.read_manifest(path.read_bytes())
    found = {path: (kind, row) for row, path, kind in reader.entries(summary, columns)}
    contents = dict(reader.contents(columns, store))
    kinds = {path.decode(): kind for path, (kind, _) in found.items()}
    assert kinds == {
        "data": 0,
        "data/again": 1,
        "data/hello.txt": 3,
        "data/image": 1,
        "data/link": 2,
        "data/sub": 0,
        "data/sub/empty": 1,
    }
    data = {path.decode(): contents[row] for path, (kind, row) in found.items() if kind == 1}
    assert data == {"data/again": HELLO, "data/image": IMAGE, "data/sub/empty": b""}
    assert columns["esiz"][found[b"data/hello.txt"][1]] == found[b"data/again"][1]


def test_the_documented_reader_is_a_program_that_needs_nothing_of_cachepod(
    store: Path, tmp_path: Path
) -> None:
    there = tmp_path / "there"
    script = Path(reader.__file__)
    assert "cachepod" not in re.findall(r"^(?:import|from) (\w+)", script.read_text(), re.M)
    command = [sys.executable, "-I", str(script), str(store), KEY, str(there)]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert (there / "data/hello.txt").read_bytes() == HELLO
    assert (there / "data/image").read_bytes() == IMAGE
    assert os.readlink(there / "data/link") == "hello.txt"
    assert (there / "data/sub/empty").read_bytes() == b""
    assert stat.S_IMODE((there / "data/image").stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("damage", "lost"),
    [
        (lambda pack: pack[:45], ["data/again", "data/hello.txt"]),
        (lambda pack: pack[:9] + bytes(9) + pack[18:], ["data/image"]),
        (lambda pack: b"", ["data/again", "data/hello.txt", "data/image"]),
    ],
)
def test_what_a_damaged_pack_still_holds_is_got_out(
    damage: Callable[[bytes], bytes],
    lost: list[str],
    store: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (store / PACK_NAME).write_bytes(damage(PACK))
    reader.extract(store, KEY, tmp_path / "there")
    said = capsys.readouterr().err.splitlines()
    assert [line for line in said if line.startswith("lost: ")] == [f"lost: {it}" for it in lost]
    files = {"data/again": HELLO, "data/hello.txt": HELLO, "data/image": IMAGE}
    for path, content in files.items():
        if path in lost:
            assert not (tmp_path / "there" / path).exists()
        else:
            assert (tmp_path / "there" / path).read_bytes() == content


def test_a_good_manifest_that_was_set_aside_may_be_moved_back(store: Path, tmp_path: Path) -> None:
    local = LocalStore(store)
    targets = [Target("data", tmp_path / "data")]
    (store / PACK_NAME).write_bytes(PACK[:20])
    with pytest.raises(CorruptObject) as caught:
        restore(local, KEY, targets, min_free=0.0)
    set_aside(local, KEY, caught.value)
    with pytest.raises(Miss):
        restore(local, KEY, targets, min_free=0.0)
    mark = store / "damaged" / Path(PACK_NAME).name
    assert json.loads(mark.read_text()).keys() == {"pack", "key", "why", "time"}
    # The volume is well again; what follows is the page's advice.
    (store / PACK_NAME).write_bytes(PACK)
    (aside,) = (store / "trash").iterdir()
    assert re.fullmatch(rf"{KEY}\.[0-9a-f]{{16}}", aside.name)
    aside.rename(store / MANIFEST_NAME)
    mark.unlink()
    assert restore(LocalStore(store), KEY, targets, min_free=0.0).outcome == "restored"


def test_a_store_whose_format_is_lost_gets_it_back(store: Path, tmp_path: Path) -> None:
    (store / "cachepod.json").write_text("{")
    local = LocalStore(store)
    with pytest.raises(StoreUnreachable, match=r"cachepod\.json"):
        local.size(MANIFEST_NAME)
    (store / "cachepod.json").unlink()
    local = LocalStore(store)
    restore(local, KEY, [Target("data", tmp_path / "data")], min_free=0.0)
    put(local, "trash/x", b"")
    assert json.loads((store / "cachepod.json").read_text()) == {"store": "cachepod", "format": 1}
    assert (store / "CACHEDIR.TAG").exists()


def test_the_parts_of_the_example_are_those_of_the_whole() -> None:
    summary, columns = take_apart(MANIFEST)
    assert json.loads(summary) == SUMMARY
    assert columns == COLUMNS
    assert manifest_name(KEY) == MANIFEST_NAME
    manifest = Manifest.decode(MANIFEST, name=MANIFEST_NAME)
    assert [pack_name(pack.id) for pack in manifest.packs] == [PACK_NAME]
    assert [pack.size for pack in manifest.packs] == [len(PACK)]
    assert manifest.summary.fingerprint == FINGERPRINT


def test_every_checksum_of_the_example_is_of_the_bytes_that_are_named() -> None:
    first = int.from_bytes(MANIFEST[12:16], "little")
    check = int.from_bytes(MANIFEST[24:32], "little")
    assert xxh3_64_intdigest(MANIFEST[80 : 80 + first]) == check
    assert blake3(MANIFEST[:48] + MANIFEST[80:]).digest() == MANIFEST[48:80]
    table = reader.read_table(PACK)
    assert [tuple(row) for row in table] == [
        (row.id, row.check, row.offset, row.stored, row.raw, row.encoding)
        for row in decode_table(PACK[-24 - 72 * len(table) :], name=PACK_NAME)
    ]
    assert xxh3_64_intdigest(PACK[-24 - 72 * len(table) : -24]) == int.from_bytes(
        PACK[-16:-8], "little"
    )
    for row in table:
        stored = PACK[row.offset : row.offset + row.stored]
        assert xxh3_128_digest(stored) == row.check
        plain = stored if row.encoding == 0 else LINE * 4096
        assert blake3(plain).digest() == row.id
        assert len(plain) == row.raw


def test_the_signed_example_is_good_to_cachepod_and_to_the_documented_reader() -> None:
    trailer = undump(EXAMPLES["signature"])
    head = MANIFEST[:10] + b"\1\0" + MANIFEST[12:48]
    signed = head + blake3(head + MANIFEST[80:]).digest() + MANIFEST[80:] + trailer
    assert signed == signed_example(MANIFEST)
    Keyring(None, (Secret(SECRET),)).check(KEY, signed, name=MANIFEST_NAME)
    assert reader.is_signed_with(SECRET, signed, KEY)
    assert reader.read_manifest(signed) == reader.read_manifest(MANIFEST)
    for secret, data, key in (
        (bytes(32), signed, KEY),
        (SECRET, signed, "other"),
        (SECRET, MANIFEST, KEY),
        (SECRET, signed[:-1], KEY),
        (SECRET, signed[:100] + b"x" + signed[101:], KEY),
    ):
        assert not reader.is_signed_with(secret, data, key)


def test_the_parts_of_a_signature_are_documented_with_their_sizes() -> None:
    offsets = [row[0] for row in rows(section("Signature"))]
    assert offsets == ["0", "2", "4", "20", "0", "20", "22", "38", "70"]
    key_id, digest = b"i" * 16, b"d" * 32
    data = signed_bytes(Algorithm.HMAC_SHA256, key_id, "k", digest)
    assert data[:20] == b"cachepod-manifest-1\0"
    assert (data[20:22], data[22:38], data[38:70], data[70:]) == (b"\1\0", key_id, digest, b"k")


def test_the_fingerprint_of_the_example_has_the_digest_that_is_documented() -> None:
    text = '["1","named",[["key","example"]]]'
    assert FINGERPRINT.digest == hashlib.sha256(text.encode()).hexdigest()


def test_the_example_is_what_a_publish_makes_today(tmp_path: Path) -> None:
    if not keeps_holes(tmp_path):
        pytest.skip("this file system has no holes")
    _, pack, manifest = publish_example(tmp_path)
    assert [row.id for row in reader.read_table(pack)] == [
        row.id for row in reader.read_table(PACK)
    ]
    ours, theirs = (sections_of(take_apart(data)[1]) for data in (manifest, MANIFEST))
    # The bytes of a frame, and so their number and checksum, are up to the version of zstd.
    free = ("p_id", "psiz", "csto", "coff", "cchk")
    assert list(ours) == list(theirs)
    assert {tag: it for tag, it in ours.items() if tag not in free} == {
        tag: it for tag, it in theirs.items() if tag not in free
    }
    assert json.loads(take_apart(manifest)[0]).keys() == SUMMARY.keys()


def test_every_column_is_documented() -> None:
    documented = [(row[0].strip("`"), int(row[1])) for row in rows(section("Columns"))[6:]]
    written = [(tag, size) for tag, (size, _) in sections_of(COLUMNS).items()]
    assert documented == written


def test_every_member_of_the_summary_is_documented() -> None:
    documented = [row[0].strip("`") for row in rows(section("Summary"))]
    assert documented == list(SUMMARY)


def test_every_limit_is_documented() -> None:
    documented = {
        match[1]: int(row[1])
        for row in rows(section("Limits"))
        if (match := re.match(r"`([A-Z_]+)`", row[0]))
    }
    assert documented == {
        name: getattr(layout, name) for name in dir(layout) if name.startswith("MAX_")
    } | {"CHUNK_SIZE": layout.CHUNK_SIZE}


def test_every_state_of_a_tree_is_documented() -> None:
    text = section("State of a tree")
    assert {state.value for state in State} <= set(re.findall(r"`(\w+)`", text))


def test_the_versions_that_are_documented_are_todays() -> None:
    for title, version in (
        ("Store", f'"format": {STORE_FORMAT}'),
        ("Pack", f"format version, {PACK_FORMAT}"),
        ("Manifest", f"format version, {MANIFEST_FORMAT}"),
    ):
        assert version in section(title)


def test_a_dump_with_a_wrong_byte_or_offset_is_noticed() -> None:
    lines = EXAMPLES["pack"].splitlines()
    with pytest.raises(AssertionError, match="wrong offset"):
        undump("\n".join([*lines[:2], *lines[3:]]))
    with pytest.raises(AssertionError, match="not a line of a dump"):
        undump(EXAMPLES["pack"].replace("63 70 70", "63 7 70", 1))
