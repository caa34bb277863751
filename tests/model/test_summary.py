"""A summary: what makes no sense is refused, whoever signed it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings

from cachepod.errors import CorruptObject
from cachepod.model.manifest import Manifest
from cachepod.model.summary import Summary
from tests.support.manifests import (
    build,
    odd_summaries,
    small_manifest,
    take_apart,
)

NAME = "manifests/f/k"
SUMMARY, COLUMNS = take_apart(small_manifest().encode())


@settings(max_examples=500)
@given(summary=odd_summaries())
def test_a_summary_that_was_tampered_with_is_harmless_or_refused(summary: bytes) -> None:
    try:
        found = Manifest.decode_summary(build(summary, COLUMNS), name=NAME)
    except CorruptObject:
        return
    assert 0 <= found.created < 1e12
    assert all(0 <= amount < 1 << 63 for amount in (found.files, found.size, found.stored))
    assert Summary.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("created", value) for value in (float("nan"), float("inf"), 10**400, -1, "now", None)),
        *((name, -1) for name in ("files", "size", "stored")),
        *((name, 10**400) for name in ("files", "size", "stored")),
        *(("size", value) for value in (float("inf"), 1.5, "1", True, None)),
        ("trees", [{"name": "../x", "root": "/"}]),
        ("trees", [{"name": "data"}]),
        ("trees", ["data"]),
        ("distributions", [["torch"]]),
        ("distributions", 1),
        ("creator", []),
        ("fingerprint", {"family": "../x", "inputs": {}}),
        ("fingerprint", {"family": "f", "inputs": {"a": 1}}),
        ("fingerprint", None),
    ],
)
def test_a_summary_that_makes_no_sense_is_refused(field: str, value: object) -> None:
    document = small_manifest().summary.to_json()
    document[field] = value
    with pytest.raises(CorruptObject, match="summary makes no sense"):
        Manifest.decode(build(json.dumps(document).encode(), COLUMNS), name=NAME)
    del document[field]
    with pytest.raises(CorruptObject, match=f"a summary lacks '{field}'"):
        Manifest.decode(build(json.dumps(document).encode(), COLUMNS), name=NAME)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"null", b"\xff", b"[" * 100_000])
def test_a_summary_that_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(CorruptObject, match="summary makes no sense"):
        Manifest.decode_summary(build(text, COLUMNS), name=NAME)


def test_a_root_that_is_not_utf8_comes_back() -> None:
    document = small_manifest().summary.to_json()
    document["trees"] = [{"name": "data", "root": "/\udcff"}]
    manifest = small_manifest()
    summary = Summary.from_json(document)
    data = Manifest(
        summary, manifest.entries, manifest.extents, manifest.chunks, manifest.packs
    ).encode()
    assert b"/\xff" in take_apart(data)[0]
    assert Manifest.decode_summary(data, name=NAME) == summary
