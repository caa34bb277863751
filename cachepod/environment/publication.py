"""
Which stores get a snapshot, and how: written to one from the trees, replicated to the others.

After a restore that was a hit all of it is a look at each store, and imports nothing of the engine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cachepod.environment.hook import (
    brought,
    check_publishable,
    sentence,
    sources,
    stored_digest,
    trees,
)
from cachepod.environment.toolkit import captured
from cachepod.errors import CachepodError, StoreUnreachable
from cachepod.model.names import manifest_name
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.stamp import Stamp, State, read_stamp
from cachepod.stores.base import WriteStore, exists

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.snapshot.copy import CopyReport
    from cachepod.snapshot.publish import PublishReport
    from cachepod.snapshot.signing import Keyring


@dataclass(frozen=True)
class Publication:
    """
    What a publish did at one store.

    Args:
        store: Its URL.

        outcome: ``present``: it had the snapshot. ``stored``, or ``lost`` where another publisher
            was first: as :class:`.PublishReport` says. ``copied``: from another store.
            ``filling``: a process that was left behind copies it. ``absent``: it lacks the
            snapshot, and the setting ``fill`` leaves it so. ``unsigned``: no key to sign it with.
            ``withheld``: not what the key promises.

        report: Of a publish from the trees.

        copied: Of a copy.

        why: What it lacks if it is withheld, as a clause.
    """

    store: str
    outcome: str
    report: PublishReport | None = None
    copied: CopyReport | None = None
    why: str = ""


@dataclass(frozen=True)
class Standing:
    """
    How one store stands before a publish.

    Args:
        present: It has a snapshot of the key, and that is to stay.

        replace: What it has under the key, if anything, is not to stay.
    """

    store: WriteStore
    present: bool
    replace: bool = False


def publish_everywhere(
    settings: Settings,
    identity: Identity,
    stores: Sequence[WriteStore],
    force: bool,
    told: Progress,
) -> list[Publication]:
    """
    As :func:`.hook.publish_environment`, but for the lease.

    The nearest store that lacks the snapshot is written from the trees, unless another has it; the
    others are replicated to. After a hit no store is asked beyond the first that has it, and one
    that does not answer is no failure.
    """
    key = identity.key
    if not trees(settings, identity):  # apt packages alone, and the image has them
        return []
    stamps = {name: read_stamp(root) for name, root in brought(settings, identity).items()}
    known = not force and all(_is_known(stamp, key) for stamp in stamps.values())
    keyring: Keyring | None = None
    if settings.signed and not known:
        from cachepod.environment.trust import keyring_of

        keyring = keyring_of(settings, told)
    seen = ""
    if known:
        from cachepod.environment.recent import recent_hit

        seen = recent_hit(settings, key)
    run = _Publishing(settings, identity, keyring, told, seen)
    spoilt = "" if known else _spoilt(stamps, key)
    standings = run.look(stores, force, spoilt, once=known)
    lacking = [each for each in standings if not each.present]
    origin = next((each.store for each in standings if each.present), None)
    if known and origin is not None:
        run.forgive()
    if lacking:
        check_publishable(settings, identity, force)
        why = _withheld(settings, identity)
        if why:
            run.withhold([each.store for each in lacking], why)
        elif known and origin is not None:
            run.after_a_hit(origin, [each.store for each in lacking])
        elif origin is not None and not any(each.replace for each in lacking):
            run.replicate(origin, lacking)
        else:
            run.from_trees(lacking)
    if run.failed is not None:
        there = [each.store for each in run.done.values() if each.outcome in _THERE]
        for store in stores:
            if there and store.url not in run.done:
                command = f"cachepod copy {there[0]} {store.url} {key}"
                told.note(f"{key} is in {there[0]}; {command} brings it to the other later")
        raise run.failed
    return [run.done[store.url] for store in stores if store.url in run.done]


def _is_known(stamp: Stamp | None, key: str) -> bool:
    """Whether a tree holds the snapshot of *key*, so that a restore or publish has judged it."""
    return stamp is not None and stamp.state is State.COMPLETE and stamp.key == key


def _spoilt(stamps: Mapping[str, Stamp | None], key: str) -> str:
    """
    Digest of a snapshot of *key* that did not work here, where an install has; empty if none.

    A restore found it out, and the install that followed passed the same checks.
    """
    for stamp in stamps.values():
        if (
            stamp is not None
            and stamp.key == key
            and stamp.state is State.INSTALLED
            and stamp.spoils
        ):
            return stamp.spoils
    return ""


def _withheld(settings: Settings, identity: Identity) -> str:
    """Why the trees are not what the key promises, although they are whole; empty if they are."""
    toolkit = captured(settings)
    if toolkit is not None and not toolkit.is_dir():
        return f"it lacks the CUDA toolkit {toolkit}"
    if identity.layer is None:
        return ""
    from cachepod.environment.layer import withheld

    return withheld(settings, identity)


class _Publishing:
    """
    One publish to one or more stores; *failed* is what went wrong first.

    Args:
        seen: URL of a store that is known to have the snapshot, and need not be asked.
    """

    def __init__(
        self,
        settings: Settings,
        identity: Identity,
        keyring: Keyring | None,
        told: Progress,
        seen: str = "",
    ) -> None:
        self.done: dict[str, Publication] = {}
        self.failed: CachepodError | None = None
        self._settings = settings
        self._identity = identity
        self._key = identity.key
        self._keyring = keyring
        self._told = told
        self._seen = seen

    def look(
        self, stores: Sequence[WriteStore], force: bool, spoilt: str, *, once: bool
    ) -> list[Standing]:
        """
        How each store stands; those that do not answer are left out.

        Args:
            once: Ask no further than the first that has the snapshot.
        """
        standings = []
        for store in stores:
            try:
                standing = self._standing(store, force, spoilt)
            except CachepodError as error:
                self._fail(error)
                continue
            standings.append(standing)
            if standing.present:
                self._note(Publication(store.url, "present"))
                if once:
                    break
        return standings

    def forgive(self) -> None:
        """What the trees hold is safe in one store: one that does not answer is no failure."""
        if self.failed is not None:
            self._told.note(sentence(self.failed))
            self.failed = None

    def _standing(self, store: WriteStore, force: bool, spoilt: str) -> Standing:
        if store.url == self._seen:
            return Standing(store, True)
        name = manifest_name(self._key)
        if force or not exists(store, name):
            return Standing(store, False, replace=force)
        replace = bool(spoilt) and stored_digest(store, self._key) == spoilt
        if not replace and self._keyring is not None:
            from cachepod.snapshot.signing import vouched

            replace = not vouched(store, self._keyring, name)
        return Standing(store, not replace, replace)

    def withhold(self, lacking: Sequence[WriteStore], why: str) -> None:
        """Store nothing, for *why*; a worker may run what is there all the same."""
        for store in lacking:
            self._note(Publication(store.url, "withheld", why=why))

    def after_a_hit(self, origin: WriteStore, lacking: Sequence[WriteStore]) -> None:
        """What the trees hold is safe in *origin*; the setting says when the others get it."""
        if self._settings.fill == "after":
            self.replicate(origin, [Standing(store, False) for store in lacking])
            return
        urls = [store.url for store in lacking]
        filling: tuple[str, ...] = ()
        if self._settings.fill == "background":
            from cachepod.environment.filling import fill_behind

            filling = fill_behind(
                self._settings, self._key, origin.url, urls, self._told, unless_begun=True
            )
        for url in urls:
            self._note(Publication(url, "filling" if url in filling else "absent"))

    def from_trees(self, lacking: Sequence[Standing]) -> None:
        """Write the first of *lacking* that can be written, and replicate to those after it."""
        if self._settings.signed and self._keys().own is None:
            for each in lacking:  # it would be of no use to anybody who asks for signatures
                self._note(Publication(each.store.url, "unsigned"))
            return
        for place, each in enumerate(lacking):
            if self._publish(each):
                self.replicate(each.store, lacking[place + 1 :])
                return

    def _keys(self) -> Keyring:
        if self._keyring is None:
            from cachepod.environment.trust import keyring_of

            self._keyring = keyring_of(self._settings, self._told)
        return self._keyring

    def replicate(self, origin: WriteStore, lacking: Sequence[Standing]) -> None:
        """
        Copy the snapshot from *origin* to each of *lacking*.

        Where *origin* turns out to be damaged, or fails, or a prune is about to delete packs that
        are needed, the trees are published instead.
        """
        for each in lacking:
            try:
                report = self._copy(origin, each)
            except CachepodError as error:
                self._fail(error)
                if isinstance(error, StoreUnreachable) and error.url == origin.url:
                    self.from_trees([each])
                continue
            outcome = report.snapshots[0].outcome
            if outcome in ("damaged", "skipped", "busy"):
                self.from_trees([each])
            else:
                self._note(Publication(each.store.url, _WORDS.get(outcome, outcome), None, report))

    def _copy(self, origin: WriteStore, standing: Standing) -> CopyReport:
        from cachepod.snapshot.copy import copy

        return copy(
            self._believed(origin),
            self._believed(standing.store),
            [self._key],
            force=standing.replace,
            threads=self._settings.threads,
            progress=self._told,
            patience=0,  # a publish can choose other packs than those that a prune has condemned
        )

    def _believed(self, store: WriteStore) -> WriteStore:
        """*store*, whose manifests must be signed if the configuration asks for that."""
        if not self._settings.signed:
            return store
        from cachepod.snapshot.signing import Trusting

        return Trusting(store, self._keys())

    def _publish(self, standing: Standing) -> bool:
        from cachepod.snapshot.publish import publish

        try:
            report = publish(
                self._believed(standing.store),
                self._key,
                self._identity.fingerprint,
                sources(self._settings, self._identity),
                level=self._settings.level,
                threads=self._settings.threads,
                force=standing.replace,
                direct=self._settings.direct,
                sign=self._keys().sign if self._settings.signed else None,
                progress=self._told,
            )
        except CachepodError as error:
            self._fail(error)
            return False
        self._note(Publication(standing.store.url, report.outcome, report))
        return True

    def _note(self, publication: Publication) -> None:
        self.done[publication.store] = publication

    def _fail(self, error: CachepodError) -> None:
        """The others are still tried; what failed first is what the command ends with."""
        if self.failed is not None:
            self._told.note(sentence(error))
        self.failed = self.failed or error


_THERE = ("present", "stored", "copied", "lost")
_WORDS = {"replaced": "copied", "healed": "copied", "kept": "lost"}
