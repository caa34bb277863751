"""A root directory with a dpkg database, and a layer whose apt is a dictionary."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cachepod.environment import layer as wanted
from cachepod.errors import AptFailed, BaseDiffers, NotRoot
from cachepod.snapshot.stamp import Stamp, State, write_stamp
from cachepod.system import layer
from cachepod.system.base import STATUS, base_of, installed
from cachepod.system.layer import ApplyReport, LayerReport
from cachepod.system.metadata import METADATA, Layer, decode
from cachepod.system.record import Progressed, Record, read_record, write_record
from tests.support.dpkg import database, lay, stanza

IMAGE = {"dpkg:amd64": "1.21", "libc6:amd64": "2.36", "curl:amd64": "7.88"}
ARCHIVE = {"ffmpeg": "5.1", "git": "2.39", "libsndfile1": "1.2"}


class Container:
    """
    A system that the hook of this process takes for its own.

    Args:
        called: What was asked of apt so far.

        applies: How often a layer was merged.

        trusted: Whether somebody vouched for the last one.

        fails: What the next installations fail with.

        refuses: What the next merges fail with.

        publishable: What installations say of that.

        mislabels: What layers say that the image has besides.

        changed: Whether somebody has put a package of the layer into another version.
    """

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root = root
        self.called: list[tuple[str, ...]] = []
        self.applies = 0
        self.trusted = False
        self.fails: BaseException | None = None
        self.refuses: BaseException | None = None
        self.publishable = True
        self.mislabels: dict[str, str] = {}
        self.changed = False
        self.is_root = True
        self.start()
        monkeypatch.setattr(wanted, "ROOT", root)
        monkeypatch.setattr(wanted, "is_root", lambda: self.is_root)
        for name in ("install", "apply", "applied"):
            monkeypatch.setattr(layer, name, getattr(self, name))

    def start(self, image: Mapping[str, str] = IMAGE) -> None:
        """Begin anew from an image with these packages."""
        self.image = dict(image)
        shutil.rmtree(self.root, ignore_errors=True)
        lay(
            self.root,
            {"etc/os-release": "ID=debian\nVERSION_ID=12\n", STATUS: database(image)},
        )

    def has(self, package: str) -> bool:
        """Whether the program of *package* can be run."""
        return (self.root / "usr/bin" / package).is_file()

    def user_installs(self, package: str, version: str = "1") -> None:
        """What somebody does by hand in a container that runs."""
        with open(self.root / STATUS, "a") as status:
            status.write(stanza(package, version))

    # What cachepod.system.layer has

    def install(
        self,
        packages: Sequence[str],
        *,
        root: Path,
        key: str = "",
        debs: Sequence[Path] = (),
        **others: object,
    ) -> LayerReport:
        assert root == self.root
        if not self.is_root:
            raise NotRoot("apt")
        self.called.append(tuple(packages))
        base = base_of(root)
        write_record(root, Record(Progressed.INSTALLING, base))
        if self.fails is not None:
            raise self.fails
        if self.changed:
            why = "the tree of what was installed here is gone"
            write_record(
                root, Record(Progressed.IN_PLACE, base, self._digest(), self._asked(), why)
            )
            return LayerReport("present", publishable=False, why=why)
        names = [package.partition("=")[0] for package in packages]
        for name in names:
            if name not in ARCHIVE:
                raise AptFailed(f"apt has no package {name}")
        had = self._asked()
        asked = tuple(dict.fromkeys((*had, *packages)))
        everything = {**self._layer(), **{name: ARCHIVE[name] for name in names}}
        home = layer.place(root)
        shutil.rmtree(home, ignore_errors=True)
        lay(home, {f"files/usr/bin/{name}": f"#!/bin/{name}\n" for name in everything})
        after = {**self.image, **{f"{name}:amd64": found for name, found in everything.items()}}
        made = Layer("debian 12", {**self.image, **self.mislabels}, after, asked)
        (home / METADATA).write_bytes(made.encode())
        write_stamp(home, Stamp(State.INSTALLED, key, "system"))
        self._merge(everything)
        why = "" if self.publishable else "something else was installed meanwhile"
        if set(asked) != set(packages) or (had and set(had) != set(asked)):
            why = "this container has a layer of other packages"
        write_record(root, Record(Progressed.IN_PLACE, base, self._digest(), asked, why))
        return LayerReport("installed", everything, 1, 100, not why, why)

    def apply(self, root: Path, *, trusted: bool = False, **others: object) -> ApplyReport:
        assert root == self.root
        if self.applied(root):
            return ApplyReport("confirmed")
        base = base_of(root)
        if self.changed:
            raise BaseDiffers("other packages were installed in this container since it started")
        write_record(root, Record(Progressed.APPLYING, base))
        if self.refuses is not None:
            raise self.refuses
        self.applies += 1
        self.trusted = trusted
        self._merge(self._layer())
        write_record(root, Record(Progressed.IN_PLACE, base, self._digest(), self._asked()))
        return ApplyReport("applied", len(self._layer()), notes=("a file of yours stays",))

    def applied(self, root: Path) -> bool:
        record = read_record(root)
        if self.changed or record is None or record.state is not Progressed.IN_PLACE:
            return False
        return record.layer == self._digest() and all(map(self.has, self._layer()))

    def _layer(self) -> dict[str, str]:
        found = self._read()
        return (
            {}
            if found is None
            else {name.partition(":")[0]: version for name, version in found.packages.items()}
        )

    def _asked(self) -> tuple[str, ...]:
        found = self._read()
        return () if found is None else found.asked

    def _read(self) -> Layer | None:
        data = self._digest()
        return decode(data.encode(), METADATA) if data else None

    def _digest(self) -> str:
        file = layer.place(self.root) / METADATA
        return file.read_text() if file.exists() else ""

    def _merge(self, packages: Mapping[str, str]) -> None:
        found = installed(self.root)
        assert found is not None
        for name, version in packages.items():
            if found.version(name) is None:
                self.user_installs(name, version)
            program = self.root / "usr/bin" / name
            program.parent.mkdir(parents=True, exist_ok=True)
            program.unlink(missing_ok=True)
            program.hardlink_to(layer.place(self.root) / "files/usr/bin" / name)
