"""Which snapshots are believed: the keys that the configuration names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cachepod.snapshot.progress import Progress
from cachepod.snapshot.signing import Keyring, Trusting
from cachepod.stores.base import WriteStore

if TYPE_CHECKING:
    from cachepod.environment.config import Settings


def keyring_of(settings: Settings, progress: Progress) -> Keyring:
    """
    The keys that *settings* names; there must be one.

    Raises:
        UsageProblem: One cannot be used; the message says which, and who named it.
    """
    keyring = Keyring.load(
        settings.signing_key,
        settings.trusted_keys,
        (settings.source("signing_key"), settings.source("trusted_keys")),
    )
    for warning in keyring.warnings:
        progress.note(warning)
    return keyring


def believed(
    stores: Sequence[WriteStore], settings: Settings, progress: Progress
) -> Sequence[WriteStore]:
    """
    *stores*, which give only signed snapshots if *settings* asks for that.

    Raises:
        UsageProblem: As :func:`keyring_of`.
    """
    if not settings.signed:
        return stores
    keyring = keyring_of(settings, progress)
    return [Trusting(store, keyring) for store in stores]


def may_publish(stores: Sequence[WriteStore]) -> bool:
    """Whether what is published from here would be believed by those who read *stores* as we do."""
    return all(store.keyring.own is not None for store in stores if isinstance(store, Trusting))
