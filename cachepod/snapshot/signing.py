"""
Keys that vouch for manifests: who may sign, and whom a reader trusts.

A key is a file: 64 hex digits or more (a secret of HMAC-SHA256, shared by all who read and write),
or PEM of Ed25519 as OpenSSL writes it (a private key for those who publish, a public one for those
who only restore). Nothing of a key is ever shown but its id.
"""

from __future__ import annotations

import hmac
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from cachepod.errors import CorruptObject, NewerFormat, ObjectMissing, Untrusted, UsageProblem
from cachepod.model.layout import MAX_MANIFEST_SIZE
from cachepod.model.manifest import digest_and_signature
from cachepod.model.names import MANIFESTS, manifest_name
from cachepod.model.signature import KEY_ID_SIZE, Algorithm, Signature, signed_bytes
from cachepod.stores.base import Buffer, ObjectInfo, Writer, WriteStore

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ed25519

_KEY_LIMIT = 64 * 1024
_SECRET_SIZE = 32  # bytes, at least
_ID_CONTEXT = b"cachepod-key-id"


class Key(Protocol):
    """One key, whatever its algorithm."""

    @property
    def algorithm(self) -> Algorithm:
        """What it is for."""
        ...

    @property
    def id(self) -> bytes:
        """16 bytes that say nothing of a secret."""
        ...

    @property
    def can_sign(self) -> bool:
        """Whether it is a secret or private key."""
        ...

    def sign(self, data: bytes) -> bytes:
        """A signature of *data*; only if it can sign."""
        ...

    def good(self, signature: bytes, data: bytes) -> bool:
        """Whether *signature* is one of *data* by this key."""
        ...


@dataclass(frozen=True)
class Secret:
    """A key of HMAC-SHA256."""

    secret: bytes = field(repr=False)

    algorithm = Algorithm.HMAC_SHA256
    can_sign = True

    @property
    def id(self) -> bytes:
        """As the protocol says."""
        return hmac.digest(self.secret, _ID_CONTEXT, "sha256")[:KEY_ID_SIZE]

    def sign(self, data: bytes) -> bytes:
        """As the protocol says."""
        return hmac.digest(self.secret, data, "sha256")

    def good(self, signature: bytes, data: bytes) -> bool:
        """As the protocol says; the time it takes tells nothing."""
        return hmac.compare_digest(signature, self.sign(data))


class PublicKey:
    """A public key of Ed25519."""

    algorithm = Algorithm.ED25519
    can_sign = False

    def __init__(self, key: ed25519.Ed25519PublicKey) -> None:
        self._public = key

    @property
    def id(self) -> bytes:
        """As the protocol says."""
        return sha256(_ID_CONTEXT + self._public.public_bytes_raw()).digest()[:KEY_ID_SIZE]

    def sign(self, data: bytes) -> bytes:
        """It cannot."""
        raise TypeError("a public key cannot sign")

    def good(self, signature: bytes, data: bytes) -> bool:
        """As the protocol says."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._public.verify(signature, data)
        except InvalidSignature:
            return False
        return True


class PrivateKey(PublicKey):
    """A private key of Ed25519, which checks as well."""

    can_sign = True

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        super().__init__(key.public_key())
        self._private = key

    def sign(self, data: bytes) -> bytes:
        """As the protocol says."""
        return self._private.sign(data)


@dataclass(frozen=True)
class Keyring:
    """
    Whom a reader trusts, and with what a publisher signs.

    Args:
        own: Signs; None for those who only read.

        trusted: Every key whose signatures count, *own* included.

        warnings: What a user should know of the files that they came from.
    """

    own: Key | None
    trusted: tuple[Key, ...]
    warnings: tuple[str, ...] = ()

    @classmethod
    def load(
        cls,
        signing_key: Path | None,
        trusted_keys: Sequence[Path] = (),
        names: tuple[str, str] = ("signing_key", "trusted_keys"),
    ) -> Keyring:
        """
        Read the files of keys.

        Args:
            signing_key: Of a secret or a private key.

            trusted_keys: Of public keys and of secrets.

            names: What errors call the settings that these come from. A path is shown only if
                there is such a file: what is no path may be a secret in the wrong place.

        Raises:
            UsageProblem: A file cannot be read or is no key, or ``cryptography`` is missing.
        """
        warnings: list[str] = []
        own: Key | None = None
        if signing_key is not None:
            own = _load(signing_key, names[0], warnings)
            if not own.can_sign:
                raise UsageProblem(
                    f"{names[0]}: {signing_key} is a public key, which cannot sign",
                    hint="name it in trusted_keys, and the private one in signing_key",
                )
        trusted = [own] if own is not None else []
        for path in trusted_keys:
            key = _load(path, names[1], warnings)
            if key.algorithm is Algorithm.ED25519 and key.can_sign:
                raise UsageProblem(
                    f"{names[1]}: {path} is a private key, and those who only read need none",
                    hint=f"take its public part: openssl pkey -in {path} -pubout",
                )
            trusted.append(key)
        return cls(own, tuple(trusted), tuple(warnings))

    def sign(self, key: str, digest: bytes) -> Signature:
        """
        Sign the manifest of the snapshot *key*; see :data:`cachepod.model.signature.Signer`.

        Raises:
            UsageProblem: There is no key to sign with.
        """
        own = self.own
        if own is None:
            raise UsageProblem(
                "there is no key to sign a snapshot with", hint="name one with signing_key"
            )
        data = signed_bytes(own.algorithm, own.id, key, digest)
        return Signature(own.algorithm, own.id, own.sign(data))

    def check(self, key: str, data: bytes, *, name: str) -> None:
        """
        Believe in a manifest, or do not.

        Args:
            key: What it is found under.

            data: The object.

            name: Its name.

        Raises:
            Untrusted: It is not signed, or not by a trusted key, or was altered since.

            NewerFormat, CorruptObject: As :meth:`cachepod.model.manifest.Manifest.decode`.
        """
        digest, signature = digest_and_signature(data, name=name)
        if signature is None:
            raise Untrusted(
                key,
                "the snapshot is not signed",
                hint="only signed ones are restored where a key is configured",
            )
        for trusted in self.trusted:
            if (trusted.algorithm, trusted.id) == (signature.algorithm, signature.key_id):
                signed = signed_bytes(trusted.algorithm, trusted.id, key, digest)
                if trusted.good(signature.value, signed):
                    return
                raise Untrusted(
                    key, "the signature of the snapshot is not of this content under this key"
                )
        raise Untrusted(
            key,
            f"the snapshot is signed by a key that is not trusted ({signature.key_id.hex()})",
            hint="name its public key in trusted_keys if it is one of yours",
        )


class Trusting(WriteStore):
    """
    A store whose manifests are believed only if a key of *keyring* vouches for them.

    Reading a whole manifest raises Untrusted if none does; a manifest of another name raises it
    too, for a signature counts under one key only. A listing, a size and a part of a manifest
    pass: who acts on a manifest reads it whole.

    Args:
        store: Does the work.

        keyring: Whom to trust.
    """

    def __init__(self, store: WriteStore, keyring: Keyring) -> None:
        self._store = store
        self.keyring = keyring

    @property
    def url(self) -> str:
        """The store's."""
        return self._store.url

    @property
    def parallel_reads(self) -> int:
        """The store's."""
        return self._store.parallel_reads

    def read(self, name: str, *, limit: int) -> bytes:
        """As the protocol says; Untrusted for a manifest that nobody trusted vouches for."""
        data = self._store.read(name, limit=limit)
        if name.startswith(f"{MANIFESTS}/"):
            self.keyring.check(name.rpartition("/")[2], data, name=name)
        return data

    def read_range(self, name: str, offset: int, into: memoryview) -> None:
        """As the protocol says; not checked."""
        self._store.read_range(name, offset, into)

    def size(self, name: str) -> int:
        """As the protocol says."""
        return self._store.size(name)

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """As the protocol says."""
        return self._store.list(prefix)

    @property
    def exclusive(self) -> bool:
        """The store's."""
        return self._store.exclusive

    def create(self, name: str) -> Writer:
        """As the protocol says."""
        return self._store.create(name)

    def replace(self, name: str, data: Buffer) -> None:
        """As the protocol says."""
        self._store.replace(name, data)

    def move(self, name: str, to: str) -> None:
        """As the protocol says."""
        self._store.move(name, to)

    def delete(self, name: str) -> None:
        """As the protocol says."""
        self._store.delete(name)


def _load(path: Path, setting: str, warnings: list[str]) -> Key:
    """The key in the file *path*."""
    try:
        # Not waiting for the other end of a FIFO; a secret handed over as one is not a file.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except (OSError, ValueError) as error:
        # A value that is no path of a file may be the secret itself: it is not shown.
        shown = str(path) if os.path.lexists(path) else "the file that it names"
        why = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageProblem(f"{setting}: {shown} cannot be read: {why}") from None
    try:
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise UsageProblem(f"{setting}: {path} is not a regular file")
        data = os.read(descriptor, _KEY_LIMIT + 1)
    except OSError as error:
        raise UsageProblem(f"{setting}: {path} cannot be read: {error.strerror}") from None
    finally:
        os.close(descriptor)
    try:
        key = parse_key(data)
    except ValueError as error:
        raise UsageProblem(
            f"{setting}: {path} {error}",
            hint="make one with 'openssl genpkey -algorithm ed25519' or 'openssl rand -hex 32'",
        ) from None
    if key.can_sign and info.st_mode & 0o004:
        warnings.append(f"{setting}: others on this machine may read {path}; chmod 600 it")
    return key


def parse_key(data: bytes) -> Key:
    """
    The key that a file holds.

    Raises:
        ValueError: It holds none; the message continues the sentence that names the file.

        UsageProblem: It needs ``cryptography``, which is not installed.
    """
    text = data.strip()
    if len(data) > _KEY_LIMIT or not text:
        raise ValueError("is empty" if not text else "is too large for a key")
    if not text.startswith(b"-----BEGIN "):
        try:
            secret = bytes.fromhex(text.decode("ascii"))
        except ValueError:
            raise ValueError("is neither PEM nor hexadecimal digits") from None
        if len(secret) < _SECRET_SIZE:
            raise ValueError(f"has fewer than {2 * _SECRET_SIZE} hexadecimal digits")
        return Secret(secret)
    try:
        from cryptography.exceptions import UnsupportedAlgorithm
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519
    except ImportError:
        raise UsageProblem(
            "keys of Ed25519 need the package cryptography",
            hint="pip install 'cachepod[sign]', or use a secret of HMAC",
        ) from None
    key: object
    try:
        if b"PUBLIC KEY" in text.splitlines()[0]:
            key = serialization.load_pem_public_key(text)
        else:
            key = serialization.load_pem_private_key(text, password=None)
    except TypeError:
        raise ValueError("is protected by a passphrase, which nobody could enter") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("is damaged, or not a key") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return PrivateKey(key)
    if isinstance(key, ed25519.Ed25519PublicKey):
        return PublicKey(key)
    raise ValueError("is a key, but not one of Ed25519")


def vouched(store: WriteStore, keyring: Keyring, name: str) -> bool:
    """
    Whether the manifest *name* in *store* can be believed, or is none that this version can judge.

    Raises:
        StoreUnreachable, ObjectMissing: As reading has it.
    """
    try:
        Trusting(store, keyring).read(name, limit=MAX_MANIFEST_SIZE)
    except (Untrusted, CorruptObject):
        return False
    except NewerFormat:
        return True
    return True


def untrusted(
    store: WriteStore, keyring: Keyring, keys: Sequence[str] | None = None
) -> Iterator[tuple[str, str]]:
    """
    Key of each snapshot, or of each of *keys*, that is not believed, and why.

    What is damaged, gone, or of a later format is left out: that is for others to tell.

    Raises:
        StoreUnreachable: As the store has it.
    """
    if keys is None:
        keys = sorted(info.name.rpartition("/")[2] for info in store.list(MANIFESTS))
    trusting = Trusting(store, keyring)
    for key in keys:
        try:
            trusting.read(manifest_name(key), limit=MAX_MANIFEST_SIZE)
        except Untrusted as error:
            yield key, error.why
        except (CorruptObject, NewerFormat, ObjectMissing):
            continue
