"""Signatures: whether the keys can be used, and how much of a store is signed."""

from __future__ import annotations

from collections.abc import Iterator

from cachepod.environment.config import Settings
from cachepod.environment.diagnosis import Check, Severity, failed
from cachepod.errors import CachepodError, UsageProblem
from cachepod.model.manifest import HEADER, is_signed
from cachepod.model.names import MANIFESTS
from cachepod.snapshot.signing import Keyring
from cachepod.stores.base import Store

_LOOKED_AT = 200


def examine_keys(settings: Settings) -> Iterator[Check]:
    """The files of keys that the configuration names; nothing where it names none."""
    if not settings.signed:
        return
    about = "signatures"
    try:
        keyring = Keyring.load(
            settings.signing_key,
            settings.trusted_keys,
            (settings.source("signing_key"), settings.source("trusted_keys")),
        )
    except UsageProblem as error:
        yield failed(about, "keys", error)
        return
    own = keyring.own
    trusted = ", ".join(f"{key.id.hex()} ({key.algorithm.label})" for key in keyring.trusted)
    yield Check(
        about,
        "keys",
        f"trusted: {trusted}",
        f"what is published here is signed by {own.id.hex()}"
        if own is not None
        else "signed snapshots are restored here, and none are published",
        Severity.OK if own is not None else Severity.NOTE,
    )
    for number, warning in enumerate(keyring.warnings, 1):
        setting, _, said = warning.partition(": ")
        yield Check(about, f"{setting} {number}", *_in_two(said), Severity.WARNING)


def _in_two(said: str) -> tuple[str, str]:
    result, _, meaning = said.partition("; ")
    return result, meaning


def signed_part(about: str, store: Store, settings: Settings) -> Iterator[Check]:
    """How many of the newest snapshots say that they are signed, where only those are believed."""
    if not settings.signed:
        return
    signed = unsigned = 0
    try:
        found = sorted(store.list(MANIFESTS), key=lambda info: -info.modified)[:_LOOKED_AT]
        for info in found:
            head = bytearray(HEADER.size)
            try:
                store.read_range(info.name, 0, memoryview(head))
                marked = is_signed(bytes(head), name=info.name)
            except CachepodError:
                continue
            signed, unsigned = signed + marked, unsigned + (not marked)
    except CachepodError as error:
        yield failed(about, "signatures", error)
        return
    if signed or unsigned:
        yield Check(
            about,
            "signatures",
            f"{unsigned} of {signed + unsigned} snapshots are not signed",
            "they are a miss, and the next publish of their keys replaces them"
            if unsigned
            else "a restore checks whose signature each has",
            Severity.NOTE if unsigned else Severity.OK,
        )
