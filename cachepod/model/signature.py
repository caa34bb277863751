"""
The signature behind a manifest: who vouches for it, and under which key.

The trailer of a manifest with the flag ``SIGNED``, everything little-endian::

    offset  size  what
    0       2     algorithm: 1 HMAC-SHA256, 2 Ed25519
    2       2     n, bytes of the signature
    4       16    id of the key that made it
    20      n     the signature, of the bytes below

What is signed::

    offset  size  what
    0       20    "cachepod-manifest-1\\0"
    20      2     algorithm
    22      16    id of the key that made it
    38      32    digest of the manifest
    70      ...   the key that the snapshot is published under, in UTF-8

So a signature is good for one manifest under one key, made by one algorithm with one key, and for
nothing else. How it is made and checked is in :mod:`cachepod.snapshot.signing`.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum

from cachepod.errors import CorruptObject

_HEAD = struct.Struct("<HH16s")
_CONTEXT = b"cachepod-manifest-1\0"
KEY_ID_SIZE = 16


class Algorithm(IntEnum):
    """How a signature is made."""

    HMAC_SHA256 = 1
    ED25519 = 2

    @property
    def label(self) -> str:
        """As people write it."""
        return "Ed25519" if self is Algorithm.ED25519 else "HMAC-SHA256"


@dataclass(frozen=True)
class Signature:
    """
    A signature as it stands in a manifest; nothing is known of whether it is good.

    Args:
        algorithm: One of :class:`Algorithm`, or a number that only a later cachepod knows.

        key_id: 16 bytes.

        value: The signature itself.
    """

    algorithm: int
    key_id: bytes
    value: bytes

    def encode(self) -> bytes:
        """The trailer."""
        return _HEAD.pack(self.algorithm, len(self.value), self.key_id) + self.value

    @classmethod
    def decode(cls, data: bytes, *, name: str) -> Signature:
        """
        Parse a trailer.

        Raises:
            CorruptObject: It is cut short or too long; *name* is the manifest's.
        """
        if len(data) < _HEAD.size:
            raise CorruptObject(name, "its signature is cut short")
        algorithm, size, key_id = _HEAD.unpack_from(data)
        if len(data) != _HEAD.size + size:
            raise CorruptObject(name, "its signature is cut short or too long")
        return cls(algorithm, key_id, bytes(data[_HEAD.size :]))


#: Makes the signature of a manifest: the key it is published under, and its digest, 32 bytes.
Signer = Callable[[str, bytes], Signature]


def signed_bytes(algorithm: int, key_id: bytes, key: str, digest: bytes) -> bytes:
    """What a signature of the manifest of *key* with this *digest* is made of."""
    return b"".join((_CONTEXT, struct.pack("<H", algorithm), key_id, digest, key.encode()))
