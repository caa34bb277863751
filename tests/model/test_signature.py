"""The signature of a manifest: where it stands, and what it is made of."""

from __future__ import annotations

import struct

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepod.errors import CorruptObject, NewerFormat
from cachepod.model.manifest import (
    HEADER,
    ChunkTable,
    Manifest,
    digest_and_signature,
    summary_extent,
)
from cachepod.model.signature import Algorithm, Signature, signed_bytes
from tests.support.manifests import manifests, plain, small_manifest

NAME = "manifests/f/k"
ID = bytes(range(16))


def sign(key: str, digest: bytes) -> Signature:
    """A signature that anybody can foresee."""
    return Signature(Algorithm.ED25519, ID, (key.encode() + digest)[:64].ljust(64, b"."))


SIGNED = small_manifest().encode(sign)
TRAILER = len(SIGNED) - 20 - 64


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(manifest=manifests())
def test_a_signed_manifest_says_what_it_says_without(manifest: Manifest) -> None:
    data = manifest.encode(sign)
    again = Manifest.decode(data, name=NAME)
    digest = bytes.fromhex(again.digest)
    assert plain(again) == plain(manifest)
    assert again.signature == sign(manifest.summary.key, digest)
    assert digest_and_signature(data, name=NAME) == (digest, again.signature)
    assert ChunkTable.decode(data, name=NAME) == ChunkTable(manifest.chunks, manifest.packs)
    beginning = data[: summary_extent(data[: HEADER.size], name=NAME)]
    assert Manifest.decode_summary(beginning, name=NAME) == manifest.summary


def test_a_manifest_that_is_not_signed_has_no_signature() -> None:
    assert Manifest.decode(small_manifest().encode(), name=NAME).signature is None


def test_the_digest_is_that_of_what_is_signed_and_not_of_the_signature() -> None:
    other = small_manifest().encode(lambda key, digest: Signature(1, ID, bytes(32)))
    assert Manifest.digest_of(other) == Manifest.digest_of(SIGNED)
    assert Manifest.digest_of(SIGNED) != Manifest.digest_of(small_manifest().encode())


@pytest.mark.parametrize("size", [0, 1, 19, 20, 83])
def test_a_trailer_that_is_cut_short_is_damage(size: int) -> None:
    for parse in (Manifest.decode, ChunkTable.decode, digest_and_signature):
        with pytest.raises(CorruptObject, match="signature is cut short"):
            parse(SIGNED[: TRAILER + size], name=NAME)


@pytest.mark.parametrize("claimed", [0, 63, 65, 0xFFFF])
def test_a_trailer_that_claims_another_size_is_damage(claimed: int) -> None:
    data = bytearray(SIGNED)
    data[TRAILER + 2 : TRAILER + 4] = struct.pack("<H", claimed)
    with pytest.raises(CorruptObject, match="signature is cut short or too long"):
        Manifest.decode(bytes(data), name=NAME)


def test_bytes_behind_a_manifest_that_is_not_signed_are_damage() -> None:
    with pytest.raises(CorruptObject, match="cut short or too long"):
        Manifest.decode(small_manifest().encode() + SIGNED[TRAILER:], name=NAME)


@pytest.mark.parametrize("offset", [12, 32, 40])
def test_a_signed_manifest_that_claims_huge_frames_is_damage(offset: int) -> None:
    data = bytearray(SIGNED)
    data[offset : offset + 4] = b"\xff\xff\xff\xff"
    with pytest.raises(CorruptObject):
        Manifest.decode(bytes(data), name=NAME)


@pytest.mark.parametrize("flags", [2, 3, 0x8000, 0xFFFF])
def test_other_flags_are_those_of_a_later_format(flags: int) -> None:
    data = SIGNED[:10] + struct.pack("<H", flags) + SIGNED[12:]
    with pytest.raises(NewerFormat):
        Manifest.decode(data, name=NAME)


def test_a_flag_that_was_taken_away_or_put_on_is_damage() -> None:
    with pytest.raises(CorruptObject):
        Manifest.decode(SIGNED[:10] + b"\0\0" + SIGNED[12:TRAILER], name=NAME)
    data = small_manifest().encode()
    with pytest.raises(CorruptObject):
        Manifest.decode(data[:10] + b"\1\0" + data[12:] + SIGNED[TRAILER:], name=NAME)


@given(data=st.binary(max_size=100))
def test_no_trailer_does_any_harm(data: bytes) -> None:
    try:
        signature = Signature.decode(data, name=NAME)
    except CorruptObject:
        return
    assert signature.encode() == data


def test_what_is_signed_is_as_documented() -> None:
    digest = bytes(32)
    assert signed_bytes(2, ID, "ké", digest) == (
        b"cachepod-manifest-1\0" + b"\2\0" + ID + digest + "ké".encode()
    )
