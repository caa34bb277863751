"""Files of keys for tests."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from cachepod.snapshot.signing import Keyring


def secret_file(path: Path, secret: str = "5e" * 32) -> Path:
    """A secret of HMAC, that nobody else may read."""
    path.write_text(secret + "\n")
    path.chmod(0o600)
    return path


def pair_of_files(path: Path, seed: int = 1) -> tuple[Path, Path]:
    """A private and a public key of Ed25519: *path* and ``PATH.pub``."""
    private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes((seed,)) * 32)
    path.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    path.chmod(0o600)
    public = path.with_name(f"{path.name}.pub")
    public.write_bytes(
        private.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path, public


def hmac_ring(folder: Path) -> Keyring:
    """Signs and checks with one secret."""
    return Keyring.load(secret_file(folder / "secret"))


def ed25519_ring(folder: Path, seed: int = 1) -> Keyring:
    """Signs with a private key."""
    return Keyring.load(pair_of_files(folder / f"key-{seed}", seed)[0])


def reading_ring(folder: Path, seed: int = 1) -> Keyring:
    """Only checks, with a public key."""
    return Keyring.load(None, [pair_of_files(folder / f"key-{seed}", seed)[1]])
