"""
One builder at a time, through the three processes of the hook.

A restore that misses takes the lease of the key and leaves a note of it on this machine; the
install that follows renews the lease while it works; the publish releases it. A part that fails
hands the lease over at once; one that is killed is noticed by the silence. Nothing of it is ever
an error of the hook: without a lease it goes on as it would alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cachepod.environment.private import private_file, write_private
from cachepod.errors import CachepodError, UsageProblem

if TYPE_CHECKING:
    from cachepod.environment.beater import Beater
    from cachepod.environment.config import Settings
    from cachepod.snapshot.lease import Lease
    from cachepod.stores.base import WriteStore

    AnyStore = TypeVar("AnyStore", bound=WriteStore)

_LIMIT = 64 * 1024


@dataclass(frozen=True)
class Note:
    """
    What one process of the hook leaves for the next.

    Args:
        key: What is being built.

        store: URL of the store that has the lease, without credentials.

        token: Whose lease it is.

        number: Of the lease.
    """

    key: str
    store: str
    token: str
    number: int = 0

    def resume(self, store: WriteStore) -> Lease | None:
        """
        The lease that the note speaks of; None if it is lost.

        Raises:
            StoreUnreachable: *store* cannot be asked.
        """
        from cachepod.snapshot.lease import Lease

        return Lease.resume(store, self.key, self.token, self.number)


def read_note(settings: Settings, key: str) -> Note | None:
    """The note for *key*; None where there is none that can be read."""
    try:
        with open(_file(settings, create=False), "rb") as file:
            found = json.loads(file.read(_LIMIT))
        note = Note(
            str(found["key"]), str(found["store"]), str(found["token"]), int(found["number"])
        )
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return note if note.key == key else None


def write_note(settings: Settings, note: Note) -> None:
    """
    Leave *note* for the next process.

    Raises:
        OSError: There is no place for it.
    """
    data = json.dumps(asdict(note))
    write_private(_file(settings), data)


def drop_note(settings: Settings) -> None:
    """The lease is over."""
    try:
        _file(settings, create=False).unlink(missing_ok=True)
    except OSError:
        pass  # what it speaks of is over, which whoever reads it will find out


def _file(settings: Settings, *, create: bool = True) -> Path:
    return private_file("build", settings.places, ".json", create=create)


@contextmanager
def kept(settings: Settings, lease: Lease | None) -> Iterator[None]:
    """
    The rest of a restore that has taken *lease*: renewed meanwhile, and kept for the install.

    A failure keeps it too, for the install comes then; only who is stopped hands it over.
    """
    if lease is None:
        yield
        return
    from cachepod.snapshot.lease import beating, quietly

    try:
        with beating(lease):
            yield
    except Exception:
        raise
    except BaseException:
        quietly(lease.hand_over)
        drop_note(settings)
        raise


@contextmanager
def installing(settings: Settings, key: str) -> Iterator[None]:
    """An install by whoever has the lease of *key*: renewed, and kept for the publish."""
    beater = _beater(settings, key)
    if beater is None:
        yield
        return
    from cachepod.environment.beater import DONE, FAILED, STOPPED

    try:
        yield
    except BaseException as error:
        beater.end(FAILED if isinstance(error, Exception) else STOPPED)
        drop_note(settings)
        raise
    beater.end(DONE)


@contextmanager
def publishing(settings: Settings, key: str, stores: Sequence[WriteStore]) -> Iterator[None]:
    """A publish by whoever has the lease of *key*: renewed, and released."""
    note = read_note(settings, key)
    if note is None:
        yield
        return
    from cachepod.snapshot.lease import held

    lease: Lease | None = None
    store = _named(stores, note.store)
    try:
        lease = note.resume(store) if store is not None else None
    except CachepodError:
        pass  # the publish will say what is wrong with the store
    try:
        with held(lease):
            yield
    finally:
        drop_note(settings)


def abandon(settings: Settings, key: str, *, failed: bool) -> None:
    """
    Hand over the lease of *key* if this machine still has it; takes a few seconds at most.

    Args:
        failed: Whether that says something of the key; else this machine was only stopped.
    """
    beater = _beater(settings, key)
    if beater is not None:
        from cachepod.environment.beater import FAILED, STOPPED

        beater.end(FAILED if failed else STOPPED)
        drop_note(settings)


def _beater(settings: Settings, key: str) -> Beater | None:
    note = read_note(settings, key)
    if note is None:
        return None
    from cachepod.environment.beater import Beater

    def resume() -> Lease | None:
        from cachepod.stores.url import open_store

        store = _named([open_store(url) for url in settings.store], note.store)
        if store is None:
            try:
                store = open_store(note.store)
            except UsageProblem:
                return None
        return note.resume(store)

    try:
        return Beater(resume)
    except OSError:  # no process to be had
        return None


def _named(stores: Sequence[AnyStore], url: str) -> AnyStore | None:
    return next((store for store in stores if store.url == url), None)
