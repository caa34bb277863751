"""With a key, only what a trusted key has signed, as it signed it, is believed."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cachepod.errors import CachepodError, CorruptObject, NewerFormat, Untrusted, UsageProblem
from cachepod.model.manifest import HEADER, Manifest
from cachepod.model.names import manifest_name
from cachepod.model.signature import Algorithm, Signature, signed_bytes
from cachepod.model.tables import Encoding
from cachepod.snapshot.catalog import nearest
from cachepod.snapshot.commit import may_be_stored
from cachepod.snapshot.damage import set_aside
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.signing import Keyring, Trusting, vouched
from cachepod.stores.memory import MemoryStore
from tests.support.hostile import ROOT, Chunk, Forgery, file, replace_manifest
from tests.support.keys import (
    ed25519_ring,
    hmac_ring,
    pair_of_files,
    reading_ring,
    secret_file,
)
from tests.support.manifests import small_manifest
from tests.support.snapshots import fingerprint, write_tree
from tests.support.stores import CountingStore

Ring = Callable[[Path], Keyring]
RINGS = [hmac_ring, ed25519_ring]
SMALL = small_manifest()
KEY = SMALL.summary.key
NAME = manifest_name(KEY)


@pytest.fixture(params=RINGS)
def ring(request: pytest.FixtureRequest, tmp_path: Path) -> Keyring:
    """Signs and checks."""
    make: Ring = request.param
    return make(tmp_path)


def refused(ring: Keyring, data: bytes, key: str = KEY) -> str:
    """Why *ring* does not believe in *data*."""
    with pytest.raises((Untrusted, CorruptObject, NewerFormat)) as caught:
        ring.check(key, data, name=manifest_name(key))
    return caught.value.message


# The signature


def test_what_a_ring_signs_it_believes(ring: Keyring) -> None:
    ring.check(KEY, SMALL.encode(ring.sign), name=NAME)


def test_who_has_the_public_key_believes_what_the_private_one_signs(tmp_path: Path) -> None:
    data = SMALL.encode(ed25519_ring(tmp_path).sign)
    reader = reading_ring(tmp_path)
    reader.check(KEY, data, name=NAME)
    with pytest.raises(UsageProblem, match="no key to sign"):
        reader.sign(KEY, bytes(32))


def test_a_bit_that_is_flipped_anywhere_is_noticed(ring: Keyring) -> None:
    data = SMALL.encode(ring.sign)
    for place in range(len(data)):
        altered = bytearray(data)
        altered[place] ^= 1 << place % 8
        assert refused(ring, bytes(altered))


def rebuilt(data: bytes, flags: int) -> bytes:
    """*data* with other flags and the digest that belongs to them."""
    from blake3 import blake3

    end = (
        HEADER.size + int.from_bytes(data[12:16], "little") + int.from_bytes(data[32:40], "little")
    )
    head = data[:10] + struct.pack("<H", flags) + data[12:48]
    digest = blake3(head).update(data[HEADER.size : end]).digest()
    return head + digest + data[HEADER.size : end] + (data[end:] if flags else b"")


def test_a_manifest_without_a_signature_is_refused(ring: Keyring) -> None:
    assert refused(ring, SMALL.encode()) == f"{KEY}: the snapshot is not signed"


def test_a_manifest_whose_signature_was_stripped_is_refused(ring: Keyring) -> None:
    stripped = rebuilt(SMALL.encode(ring.sign), 0)
    assert Manifest.decode(stripped, name=NAME).summary == SMALL.summary
    assert "not signed" in refused(ring, stripped)


def test_a_manifest_that_was_altered_with_its_digest_is_refused(ring: Keyring) -> None:
    good = SMALL.encode(ring.sign)
    other = replace(SMALL, summary=replace(SMALL.summary, created=1.0)).encode()
    end = (
        HEADER.size + int.from_bytes(good[12:16], "little") + int.from_bytes(good[32:40], "little")
    )
    forged = rebuilt(rebuilt(other, 1) + good[end:], 1)
    assert Manifest.decode(forged, name=NAME).summary.created == 1.0
    assert "is not of this content under this key" in refused(ring, forged)


def test_a_signed_manifest_under_another_key_is_refused(ring: Keyring) -> None:
    data = SMALL.encode(ring.sign)
    assert "is not of this content under this key" in refused(ring, data, "another")


def test_a_signature_by_another_key_is_refused_and_that_key_named(tmp_path: Path) -> None:
    theirs = ed25519_ring(tmp_path, 2)
    said = refused(ed25519_ring(tmp_path, 1), SMALL.encode(theirs.sign))
    assert theirs.own is not None
    assert said.endswith(f"is signed by a key that is not trusted ({theirs.own.id.hex()})")


def test_a_secret_and_a_pair_do_not_stand_for_each_other(tmp_path: Path) -> None:
    secret, pair = hmac_ring(tmp_path), ed25519_ring(tmp_path)
    assert "not trusted" in refused(secret, SMALL.encode(pair.sign))
    assert "not trusted" in refused(pair, SMALL.encode(secret.sign))


def test_an_hmac_under_the_public_key_is_no_signature_of_the_pair(tmp_path: Path) -> None:
    import hmac

    pair = ed25519_ring(tmp_path)
    own = pair.own
    assert own is not None
    public = pair_of_files(tmp_path / "key-1")[1].read_bytes()

    def confused(algorithm: int) -> Callable[[str, bytes], Signature]:
        def sign(key: str, digest: bytes) -> Signature:
            data = signed_bytes(algorithm, own.id, key, digest)
            return Signature(algorithm, own.id, hmac.digest(public, data, "sha256"))

        return sign

    assert "not trusted" in refused(pair, SMALL.encode(confused(Algorithm.HMAC_SHA256)))
    assert "is not of this content" in refused(pair, SMALL.encode(confused(Algorithm.ED25519)))


@pytest.mark.parametrize("algorithm", [0, 3, 0xFFFF])
def test_an_algorithm_that_nobody_knows_is_not_trusted(ring: Keyring, algorithm: int) -> None:
    def sign(key: str, digest: bytes) -> Signature:
        good = ring.sign(key, digest)
        return Signature(algorithm, good.key_id, good.value)

    assert "not trusted" in refused(ring, SMALL.encode(sign))


@pytest.mark.parametrize("size", [0, 1, 31, 33, 63, 65, 4096])
def test_a_signature_of_another_length_is_refused(ring: Keyring, size: int) -> None:
    def sign(key: str, digest: bytes) -> Signature:
        good = ring.sign(key, digest)
        return Signature(good.algorithm, good.key_id, (good.value * 99)[:size])

    assert "is not of this content" in refused(ring, SMALL.encode(sign))


def test_random_objects_are_refused_and_do_no_harm(ring: Keyring) -> None:
    rng = random.Random(7)
    good = SMALL.encode(ring.sign)
    for _ in range(300):
        data = bytearray(good[: rng.randrange(len(good))])
        for _ in range(rng.randrange(5)):
            if data:
                data[rng.randrange(len(data))] = rng.randrange(256)
        assert refused(ring, bytes(data))


def test_several_keys_are_trusted_while_one_takes_the_place_of_another(tmp_path: Path) -> None:
    old, old_public = pair_of_files(tmp_path / "old", 3)
    new, _ = pair_of_files(tmp_path / "new", 4)
    ring = Keyring.load(new, [old_public])
    for signer in (Keyring.load(old), ring):
        ring.check(KEY, SMALL.encode(signer.sign), name=NAME)
    assert ring.own is not None
    assert SMALL.encode(ring.sign) == SMALL.encode(Keyring.load(new).sign)


# Stores


def stored(store: MemoryStore, ring: Keyring | None, folder: Path, **more: str) -> str:
    """Publish a small tree, signed if there is a *ring*; its key."""
    print_ = fingerprint(**more)
    root = write_tree(folder / f"tree-{print_.key}", {"a": b"hello", "b": os.urandom(9000)})
    report = publish(
        store, print_.key, print_, [TreeSource("env", root)], sign=ring.sign if ring else None
    )
    assert report.outcome == "stored"
    return print_.key


def test_a_signed_snapshot_is_restored_with_a_key_and_without(
    ring: Keyring, tmp_path: Path
) -> None:
    store = MemoryStore()
    key = stored(store, ring, tmp_path)
    for name, reader in (("with", Trusting(store, ring)), ("without", store)):
        restore(reader, key, [Target("env", tmp_path / name)], min_free=0.0)
        assert (tmp_path / name / "a").read_bytes() == b"hello"


def test_an_unsigned_snapshot_is_a_miss_and_nothing_is_written(
    ring: Keyring, tmp_path: Path
) -> None:
    store = MemoryStore()
    key = stored(store, None, tmp_path)
    with pytest.raises(Untrusted, match="not signed") as caught:
        restore(Trusting(store, ring), key, [Target("env", tmp_path / "new")], min_free=0.0)
    assert caught.value.exit_code == 3
    assert not (tmp_path / "new").exists()


def test_a_manifest_moved_under_another_key_is_a_miss(ring: Keyring, tmp_path: Path) -> None:
    store = MemoryStore()
    one, other = stored(store, ring, tmp_path), stored(store, ring, tmp_path, requirement__a="a")
    replace_manifest(store, other, store.read(manifest_name(one), limit=1 << 20))
    with pytest.raises(Untrusted):
        restore(Trusting(store, ring), other, [Target("env", tmp_path / "new")], min_free=0.0)


def test_a_publish_takes_no_chunk_on_the_word_of_an_unsigned_manifest(
    ring: Keyring, tmp_path: Path
) -> None:
    store = MemoryStore()
    root = write_tree(tmp_path / "tree", {"b": os.urandom(200_000)})
    for signed, more in ((False, "one"), (True, "two"), (True, "three")):
        print_ = fingerprint(requirement__x=more)
        report = publish(
            Trusting(store, ring) if signed else store,
            print_.key,
            print_,
            [TreeSource("env", root)],
            sign=ring.sign if signed else None,
        )
        # The second trusts nobody before it, the third the second.
        assert report.reused == (200_000 if more == "three" else 0)


def test_the_nearest_relative_that_is_signed_is_nearest(ring: Keyring, tmp_path: Path) -> None:
    store = MemoryStore()
    signed = stored(store, ring, tmp_path, requirement__a="a", requirement__b="b")
    unsigned = stored(store, None, tmp_path, requirement__a="a")
    wanted = fingerprint()
    near = nearest(store, wanted)
    assert near is not None
    assert near.summary.key == unsigned
    near = nearest(Trusting(store, ring), wanted, whole=True)
    assert near is not None
    assert near.summary.key == signed
    assert [each.name for each in near.differences] == ["requirement:a", "requirement:b"]
    store.delete(manifest_name(signed))
    assert nearest(Trusting(store, ring), wanted, whole=True) is None


def test_another_publishers_unsigned_manifest_is_not_taken_for_ones_own(
    ring: Keyring, tmp_path: Path
) -> None:
    store = MemoryStore()
    key = stored(store, None, tmp_path)
    assert not may_be_stored(Trusting(store, ring), key, b"ours")


def test_an_unsigned_snapshot_is_not_set_aside_by_who_refuses_it(
    ring: Keyring, tmp_path: Path
) -> None:
    store = MemoryStore()
    key = stored(store, None, tmp_path)
    name = manifest_name(key)
    set_aside(Trusting(store, ring), key, CorruptObject(name, "it was bad a moment ago"))
    assert store.size(name)


def test_what_is_vouched_for_is_told_from_what_is_not(ring: Keyring, tmp_path: Path) -> None:
    store = MemoryStore()
    key = stored(store, ring, tmp_path)
    name = manifest_name(key)
    data = store.read(name, limit=1 << 20)
    assert vouched(store, ring, name)
    replace_manifest(store, key, data[:-1])
    assert not vouched(store, ring, name)
    replace_manifest(store, key, data[:8] + b"\2\0" + data[10:])
    assert vouched(store, ring, name)  # a later format is for a later cachepod to judge


def test_a_trusting_store_passes_everything_else_on(ring: Keyring) -> None:
    counting = CountingStore(MemoryStore())
    store = Trusting(counting, ring)
    with store.create("packs/ab/x") as writer:
        writer.write(b"data")
        assert writer.commit()
    store.replace("pins/x", b"1")
    assert store.read("pins/x", limit=1) == b"1"
    buffer = bytearray(2)
    store.read_range("packs/ab/x", 1, memoryview(buffer))
    assert bytes(buffer) == b"at"
    assert store.size("packs/ab/x") == 4
    assert [info.name for info in store.list("packs")] == ["packs/ab/x"]
    store.move("packs/ab/x", "packs/ab/y")
    store.delete("packs/ab/y")
    assert (store.url, store.exclusive, store.parallel_reads) == ("memory:", True, 0)
    assert counting.calls.keys() == {
        *("create", "write", "commit", "replace", "read", "read_range"),
        *("size", "list", "move", "delete"),
    }


@pytest.mark.parametrize("encoding", [Encoding.RAW, Encoding.ZSTD])
def test_a_chunk_whose_checksum_was_forged_is_told_by_its_id(
    encoding: Encoding, tmp_path: Path
) -> None:
    """XXH3 is no defence against who can choose the bytes; here it simply fits the wrong ones."""
    store = MemoryStore()
    plain = b"the real thing" * 100
    made = Forgery(
        (ROOT, file(b"f", len(plain))), [Chunk(plain, [(1, 0, len(plain), 0)], encoding=encoding)]
    )
    manifest = made.store(store)
    forged = replace(manifest, chunks=replace(manifest.chunks, ids=bytes(32)))
    replace_manifest(store, "k", forged.encode())
    target = [Target("data", tmp_path / "data")]
    with pytest.raises(CorruptObject, match="is not that of its id"):
        restore(store, "k", target, check_ids=True, min_free=0.0)
    assert not (tmp_path / "data").exists()
    restore(store, "k", target, min_free=0.0)  # without a key it is not looked at
    replace_manifest(store, "k", manifest.encode())
    restore(store, "k", target, check_ids=True, force=True, min_free=0.0)
    assert (tmp_path / "data" / "f").read_bytes() == plain


# Files of keys


def openssl(*words: str | Path) -> None:
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("there is no openssl")


def test_keys_are_made_with_openssl_as_documented(tmp_path: Path) -> None:
    private, public, secret = (tmp_path / name for name in ("key.pem", "key.pub", "key.hex"))
    openssl("genpkey", "-algorithm", "ed25519", "-out", private)
    openssl("pkey", "-in", private, "-pubout", "-out", public)
    openssl("rand", "-hex", "-out", secret, "32")
    writer, reader = Keyring.load(private), Keyring.load(None, [public])
    reader.check(KEY, SMALL.encode(writer.sign), name=NAME)
    shared = Keyring.load(secret)
    shared.check(KEY, SMALL.encode(shared.sign), name=NAME)


def test_openssl_agrees_with_a_signature(tmp_path: Path) -> None:
    private, public = pair_of_files(tmp_path / "key")
    signature = Keyring.load(private).sign(KEY, bytes(32))
    (tmp_path / "data").write_bytes(signed_bytes(2, signature.key_id, KEY, bytes(32)))
    (tmp_path / "signature").write_bytes(signature.value)
    openssl(
        *("pkeyutl", "-verify", "-pubin", "-inkey", public, "-rawin"),
        *("-in", tmp_path / "data", "-sigfile", tmp_path / "signature"),
    )


def of(content: str | bytes) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        path = folder / "key"
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return make


def other_kind(folder: Path) -> Path:
    openssl("genpkey", "-algorithm", "x25519", "-out", folder / "key")
    return folder / "key"


def protected(folder: Path) -> Path:
    openssl(
        *("genpkey", "-algorithm", "ed25519", "-aes256", "-pass", "pass:secret"),
        *("-out", folder / "key"),
    )
    return folder / "key"


def directory(folder: Path) -> Path:
    (folder / "key").mkdir()
    return folder / "key"


def fifo(folder: Path) -> Path:
    os.mkfifo(folder / "key")
    return folder / "key"


@pytest.mark.parametrize(
    ("make", "why"),
    [
        (of(""), "is empty"),
        (of("\n"), "is empty"),
        (of("5e" * 31), "has fewer than 64 hexadecimal digits"),
        (of("a word to remember"), "is neither PEM nor hexadecimal digits"),
        (of(os.urandom(64)), "is neither PEM nor hexadecimal digits"),
        (of("5e" * 100_000), "is too large for a key"),
        (of("-----BEGIN PRIVATE KEY-----\nx\n-----END PRIVATE KEY-----\n"), "is damaged"),
        (of("-----BEGIN PUBLIC KEY-----\n"), "is damaged"),
        (other_kind, "is a key, but not one of Ed25519"),
        (protected, "is protected by a passphrase"),
        (directory, "is not a regular file"),
        (fifo, "is not a regular file"),
        (lambda folder: pair_of_files(folder / "key")[1], "is a public key, which cannot sign"),
    ],
)
def test_a_file_that_is_no_key_is_named_in_one_sentence(
    make: Callable[[Path], Path], why: str, tmp_path: Path
) -> None:
    path = make(tmp_path)
    with pytest.raises(UsageProblem, match=f"^signing_key: {path}.*{why}") as caught:
        Keyring.load(path)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert "5e5e" not in caught.value.message


def test_a_private_key_among_the_trusted_is_refused_with_advice(tmp_path: Path) -> None:
    private, _ = pair_of_files(tmp_path / "key")
    with pytest.raises(UsageProblem, match="is a private key") as caught:
        Keyring.load(None, [private])
    assert "-pubout" in caught.value.hint


def test_a_secret_in_place_of_a_path_is_not_shown(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem) as caught:
        Keyring.load(tmp_path / ("5e" * 32), names=("CACHEPOD_SIGNING_KEY", ""))
    said = "CACHEPOD_SIGNING_KEY: the file that it names cannot be read: No such file or directory"
    assert caught.value.message == said


def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = secret_file(tmp_path / "key")

    def denied(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", denied)
    with pytest.raises(UsageProblem) as caught:
        Keyring.load(path)
    assert caught.value.message == f"signing_key: {path} cannot be read: Permission denied"


@pytest.mark.parametrize("make", [secret_file, lambda path: pair_of_files(path)[0]])
def test_a_secret_that_others_may_read_is_told(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    path = make(tmp_path / "key")
    assert Keyring.load(path).warnings == ()
    path.chmod(0o644)
    (warning,) = Keyring.load(path).warnings
    assert warning == f"signing_key: others on this machine may read {path}; chmod 600 it"


def test_a_public_key_is_for_everybody_to_read(tmp_path: Path) -> None:
    _, public = pair_of_files(tmp_path / "key")
    public.chmod(0o644)
    assert Keyring.load(None, [public]).warnings == ()


def test_a_missing_cryptography_is_said_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    private, _ = pair_of_files(tmp_path / "key")
    monkeypatch.setitem(sys.modules, "cryptography.exceptions", None)
    with pytest.raises(UsageProblem) as caught:
        Keyring.load(private)
    assert caught.value.message == "keys of Ed25519 need the package cryptography"
    assert "cachepod[sign]" in caught.value.hint
    assert isinstance(caught.value, CachepodError)
    Keyring.load(secret_file(tmp_path / "secret"))


def test_no_secret_is_in_what_a_programmer_prints(tmp_path: Path) -> None:
    for ring in (hmac_ring(tmp_path), ed25519_ring(tmp_path)):
        assert "5e5e" not in repr(ring).lower()
        assert "^^^^" not in repr(ring)
