"""
From names of packages to a root that has them and a tree of what that took.

===  ============================================  =============================================
     step                                          killed here, the next installation
===  ============================================  =============================================
1.   the file system is looked at, and what was    looks again
     seen is kept in ``system.state/before``
2.   the record says ``installing``                goes on: what counts is what was seen in 1
3.   apt: lists, simulation, download, dpkg        the same, after ``dpkg --configure -a``
4.   the difference goes into a new tree           captures again
5.   the tree is renamed to its place: the         captures again
     commit point
6.   the record says ``in place``                  finds everything there
===  ============================================  =============================================
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from blake3 import blake3

from cachepod.errors import (
    AptFailed,
    DriverPackage,
    NotEnoughSpace,
    NotRoot,
    UsageProblem,
    write_problem,
)
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.phases import Phases
from cachepod.snapshot.progress import NoProgress, Progress
from cachepod.system.accounts import FILES as ACCOUNT_FILES
from cachepod.system.apt import Apt
from cachepod.system.aptwords import Simulation
from cachepod.system.base import (
    DPKG,
    STATUS,
    Base,
    Installed,
    base_from,
    distribution,
    installed,
    missing_of,
)
from cachepod.system.capture import Before, Captured, capture, read_accounts
from cachepod.system.dpkg import Canonical, md5sums
from cachepod.system.drivers import is_driver
from cachepod.system.layer import LayerReport, applied
from cachepod.system.locks import alone
from cachepod.system.look import Tokens, load, look, read_text, save
from cachepod.system.paths import below, mounted
from cachepod.system.record import Progressed, Record, read_record, state_place, write_record

_PACKAGE = re.compile(
    r"[a-z0-9][a-z0-9+.\-]*(?<!-)(?::[a-z0-9\-]+)?"
    r"(?:=[A-Za-z0-9.+:~\-]+|/[A-Za-z0-9.+~\-_]+)?"
)
_SEEN, _PACKAGES, _STATUS = "paths", "packages", "status"


def install(
    packages: Sequence[str],
    *,
    debs: Sequence[Path],
    root: Path,
    exclude: Sequence[Path],
    key: str,
    min_free: float,
    progress: Progress | None,
    environ: Mapping[str, str] | None,
) -> LayerReport:
    """See :func:`cachepod.system.layer.install`."""
    progress = progress or NoProgress()
    asked = tuple(dict.fromkeys(packages))
    for name in asked:
        if not _PACKAGE.fullmatch(name):
            raise UsageProblem(
                f"{name!r} is no apt package", hint="give NAME, or NAME=VERSION for one version"
            )
        if is_driver(name):
            raise DriverPackage(name, name)
    if os.geteuid() != 0:
        raise NotRoot("installing apt packages")
    found = installed(root)
    if found is None:
        raise AptFailed(
            "there is no dpkg in this image",
            hint="apt packages need an image of Debian or Ubuntu",
        )
    phases = Phases(progress)
    try:
        with alone(root):
            apt = Apt(root, os.environ if environ is None else environ, progress)
            avoid = mounted(root) | frozenset(below(root, exclude))
            job = _Installation(root, asked, debs, avoid, key, min_free, apt, progress, phases)
            return job.run(found)
    except OSError as error:
        raise write_problem(error.filename or os.fspath(root), error) from error


class _Installation:
    def __init__(
        self,
        root: Path,
        asked: tuple[str, ...],
        debs: Sequence[Path],
        avoid: frozenset[str],
        key: str,
        min_free: float,
        apt: Apt,
        progress: Progress,
        phases: Phases,
    ) -> None:
        self._root = root
        self._asked = asked
        self._debs = debs
        self._avoid = avoid
        self._key = key
        self._min_free = min_free
        self._apt = apt
        self._progress = progress
        self._phases = phases
        self._kept = state_place(root) / "before"
        self._begun = False  # whether dpkg was at work already, and did not end

    def run(self, found: Installed) -> LayerReport:
        record = read_record(self._root)
        here = base_from(distribution(self._root), found.versions)
        base = here if record is None or record.base is None else record.base
        nothing = not self._debs and not missing_of(self._asked, found)
        if record is not None and record.state is Progressed.IN_PLACE and nothing:
            why = self._why_not(record)
            return LayerReport("present", {}, 0, 0, not why, why, self._phases.end())
        before, why = self._before(record, base, found)
        if not nothing or self._begun:
            self._work()
        return self._end(record, base, before, why, found)

    def _why_not(self, record: Record) -> str:
        """Why the layer in place is not that of what is asked for; empty if it is."""
        if record.why:
            return record.why
        more = sorted(set(record.asked) - set(self._asked))
        if more:
            return f"this container has packages that are not asked for any more: {_list(more)}"
        if set(record.asked) != set(self._asked):
            return f"this container has a layer of other packages: {_list(record.asked)}"
        if not applied(self._root):
            return "what was installed in this container has changed since"
        return ""

    def _before(
        self, record: Record | None, base: Base, found: Installed
    ) -> tuple[Before | None, str]:
        """What the root was before any layer, or why that is not known."""
        if record is None:
            return self._look(base, found), ""
        if record.state is Progressed.APPLYING:
            return None, "a layer was being put in place in this container when that was killed"
        if record.state is Progressed.IN_PLACE:
            # What was before it is not known, or what the user has changed since would come along.
            return None, self._why_not(record) or "packages were removed from this container"
        try:
            if (self._kept / _STATUS).read_text() == self._status():
                # Nothing was installed yet, and this look is newer.
                return self._look(base, found), ""
            self._begun = True
            before = self._load()
        except (OSError, ValueError):
            return None, "what was before the layer of this container is not known"
        more = sorted(set(record.asked) - set(self._asked))
        asked = _union(record.asked, self._asked)
        write_record(self._root, Record(Progressed.INSTALLING, base, asked=asked))
        if more:
            return None, f"an installation of other packages was killed here: {_list(more)}"
        return before, ""

    def _status(self) -> str:
        """Changes with the first thing that dpkg does."""
        updates = self._root / DPKG / "updates"
        waiting = sorted(os.listdir(updates)) if updates.is_dir() else []
        data = (self._root / STATUS).read_bytes() + "\n".join(waiting).encode()
        return blake3(data).hexdigest()

    def _look(self, base: Base, found: Installed) -> Before:
        """Look at everything, keep what was seen, and say that an installation begins."""
        self._phases.begin("look")
        canonical = Canonical(self._root)
        tokens = Tokens(md5sums(self._root, found.versions, canonical))
        seen = look(self._root, avoid=self._avoid, token=tokens)
        before = Before(found.versions, seen, read_accounts(self._root))
        new = self._kept.with_name("before.new")
        remove_tree(new)
        new.mkdir(mode=0o700, parents=True)
        save(seen, new / _SEEN)
        rows = (f"{name} {version}\n" for name, version in found.versions.items())
        (new / _PACKAGES).write_text("".join(rows), "utf-8")
        for name, text in before.accounts.items():
            (new / name).write_text(text, "utf-8", "surrogateescape")
        (new / _STATUS).write_text(self._status())
        remove_tree(self._kept)
        os.rename(new, self._kept)
        write_record(self._root, Record(Progressed.INSTALLING, base, asked=self._asked))
        return before

    def _load(self) -> Before:
        packages = {}
        for row in (self._kept / _PACKAGES).read_text("utf-8").splitlines():
            name, _, version = row.partition(" ")
            packages[name] = version
        accounts = {name: read_text(self._kept / name) for name in ACCOUNT_FILES}
        return Before(packages, load(self._kept / _SEEN), accounts)

    def _work(self) -> None:
        apt = self._apt
        with apt.workplace():
            if self._begun:
                self._phases.begin("repair")
                apt.repair()
            self._phases.begin("lists")
            if self._debs:
                apt.add(self._debs)
            # What the image has is left alone: apt would bring it up to date.
            lacking = missing_of(self._asked, installed(self._root))
            if not lacking:
                return
            apt.update()
            for warning in apt.warnings:
                self._progress.note(warning)
            self._phases.begin("simulate")
            plan = apt.simulate(lacking)
            self._check_space(plan)
            self._phases.begin("apt", size=plan.download)
            apt.install(lacking, plan.download)

    def _check_space(self, plan: Simulation) -> None:
        info = os.statvfs(self._root)
        free = info.f_bavail * info.f_frsize
        reserve = int(info.f_blocks * info.f_frsize * self._min_free)
        needed = plan.download + plan.unpacked
        if needed + reserve > free:
            raise NotEnoughSpace(
                os.fspath(self._root),
                needed,
                max(0, free - reserve),
                hint="apt packages need that while they are installed; give the disk more",
            )

    def _end(
        self,
        record: Record | None,
        base: Base,
        before: Before | None,
        why: str,
        found: Installed,
    ) -> LayerReport:
        now = installed(self._root)
        versions = {} if now is None else dict(now.versions)
        new = {
            name.partition(":")[0]: version
            for name, version in versions.items()
            if found.versions.get(name) != version
        }
        warnings = tuple(self._apt.warnings)
        current = read_record(self._root)
        asked = _union(current.asked if current is not None else (), self._asked)
        if before is None:
            layer = record.layer if record is not None else ""
            write_record(self._root, Record(Progressed.IN_PLACE, base, layer, asked, why=why))
            remove_tree(self._kept)
            phases = self._phases.end()
            return LayerReport("installed", new, 0, 0, False, why, phases, warnings)
        self._phases.begin("capture")
        done: Captured = capture(
            self._root, before, asked=self._asked, avoid=self._avoid, key=self._key
        )
        if not why and done.lacking:
            why = f"not everything could be captured: {done.lacking[0]}"
        if not why and done.layer.base.digest != base.digest:
            why = "the release of the distribution was changed"
        write_record(self._root, Record(Progressed.IN_PLACE, base, done.digest, asked, why=why))
        remove_tree(self._kept)
        for warning in done.warnings:
            self._progress.note(warning)
        return LayerReport(
            "installed",
            new,
            done.files,
            done.size,
            not why,
            why,
            self._phases.end(),
            (*warnings, *done.warnings, *done.lacking),
        )


def _union(one: Iterable[str], other: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*one, *other)))


def _list(names: Iterable[str]) -> str:
    return ", ".join(names)
