"""
The apt layer, as the hook wants it: whether there is one, its inputs of the key, its tree.

A layer is wanted where the image lacks a package that the configuration asks for; what the image
has already changes nothing, and is no input. So a key says of apt packages what a restore of it
brings, and two containers of one image agree on it whether or not a layer is in place: what lies
below it is remembered (:mod:`cachepod.system.record`). A container that may not install packages,
and is told to do without them, has the key of the environment alone, and never publishes or
restores under the one that promises them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment.toolkit import package_of
from cachepod.errors import AptFailed, CachepodError, NotRoot, UsageProblem
from cachepod.model.fingerprint import Difference
from cachepod.snapshot.progress import Progress
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from cachepod.system.base import Base, base_of, distribution, installed, missing_of
from cachepod.system.record import TREE, place, read_record

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity
    from cachepod.system.layer import ApplyReport, LayerReport

#: The system that is changed; tests have one of their own.
ROOT = Path("/")

#: Kinds of inputs that a layer has, and that say nothing of the Python environment.
INPUTS = frozenset({"apt", "base", "distribution"})

_NAMED = 4  # packages that a sentence names


@dataclass(frozen=True)
class Layer:
    """
    What is to be had from apt on this machine.

    Args:
        packages: All that are asked for, those that the image has included.

        base: The image below the layer; None where there is no dpkg.

        obstacle: Why they can be neither installed nor restored here; None if they can.
    """

    packages: tuple[str, ...]
    base: Base | None
    obstacle: CachepodError | None = field(default=None, compare=False)


@dataclass(frozen=True)
class LayerInstallation:
    """
    What an install did about the layer.

    Args:
        report: Of apt and the capture; None if nothing was to be done, or it failed.

        seconds: It took.

        problem: Why the packages are not there, where the configuration lets that be.
    """

    report: LayerReport | None = None
    seconds: float = 0.0
    problem: CachepodError | None = None

    @property
    def withheld(self) -> bool:
        """Whether what is here now is not what the key promises."""
        return self.problem is not None or (self.report is not None and not self.report.publishable)


def is_root() -> bool:
    """Whether this process may change the system."""
    return os.geteuid() == 0


def packages_of(settings: Settings, cuda: str) -> tuple[str, ...]:
    """Every package that the configuration wants of apt; *cuda* is the toolkit's release."""
    return settings.apt if settings.toolkit is not True else (*settings.apt, package_of(cuda))


def layer_of(settings: Settings, cuda: str) -> tuple[Layer | None, CachepodError | None]:
    """
    The layer that is wanted on this machine, and why there is none although packages are missing.

    Args:
        cuda: The CUDA release that a toolkit is to be of.

    Returns:
        The layer, None where the image has all that is asked for; and, where it has not and the
        configuration says that this is no error, what keeps them from being installed.
    """
    packages = packages_of(settings, cuda)
    if not packages:
        return None, None
    found = installed(ROOT)
    lacking = missing_of(packages, found)
    record = read_record(ROOT)
    if not lacking and (record is None or record.base is None):
        return None, None
    base = base_of(ROOT, found)
    obstacle: CachepodError | None = None
    if base is None:
        obstacle = AptFailed(
            f"{_named(lacking)} cannot be installed: this image has no dpkg",
            hint="take an image of Debian or Ubuntu, or put them into the image",
        )
    elif lacking and not is_root():
        obstacle = NotRoot(f"installing {_named(lacking)}")
    if obstacle is not None and settings.apt_missing == "warning":
        return None, obstacle
    return Layer(packages, base, obstacle), None


def _named(packages: Iterable[str]) -> str:
    names = list(packages)
    said = ", ".join(names[:_NAMED])
    if len(names) > _NAMED:
        said += f" and {len(names) - _NAMED} more"
    return f"the apt package {said}" if len(names) == 1 else f"the apt packages {said}"


def add_inputs(
    layer: Layer, settings: Settings, inputs: dict[str, str], wheres: dict[str, str]
) -> None:
    """What the layer adds to a key: packages as they are asked for, and what they lie upon."""
    for package in layer.packages:
        name, _, version = package.partition("=")
        inputs[f"apt:{name}"] = version or "any version"
        wheres[f"apt:{name}"] = settings.source("apt" if package in settings.apt else "toolkit")
    base = layer.base
    if base is None:
        inputs["distribution"] = distribution(ROOT)
        inputs["base"] = "no dpkg"
    else:
        inputs["distribution"] = base.distribution
        inputs["base"] = f"{base.digest} ({base.packages} packages)"


def of_layer(difference: Difference) -> bool:
    """Whether an input that differs is one of the layer's."""
    return difference.name.partition(":")[0] in INPUTS


def tree_place() -> Path:
    """Where the tree of the layer lies."""
    return place(ROOT)


def holds_layer(key: str) -> bool:
    """Whether the tree of the layer is that of the snapshot *key*, be it merged or not."""
    stamp = read_stamp(tree_place())
    return stamp is not None and stamp.state is State.COMPLETE and stamp.key == key


def in_place(identity: Identity) -> bool:
    """Whether just what the layer shall have is merged into this system, under whatever key."""
    wanted = identity.layer
    if wanted is None:
        return True
    stamp = read_stamp(tree_place())
    if stamp is None or stamp.state not in (State.COMPLETE, State.INSTALLED):
        return False
    record = read_record(ROOT)
    if record is None or record.base != wanted.base or record.why:
        return False
    if set(record.asked) != set(wanted.packages):
        return False
    from cachepod.system.layer import applied

    return applied(ROOT)


def is_mislabelled(identity: Identity) -> bool:
    """Whether the tree of the layer is for another base than its key says."""
    from cachepod.system.metadata import decode, read_metadata

    root = tree_place()
    try:
        found = decode(read_metadata(root), str(root))
    except CachepodError:
        return True
    return identity.layer is None or found.base != identity.layer.base


def adopt(identity: Identity, state: State) -> None:
    """
    Say that the layer in place is that of the key, in *state*; it stays as it is.

    Raises:
        OSError: As the file system has it.
    """
    root = tree_place()
    stamp = read_stamp(root)
    if stamp is None or (stamp.key == identity.key and stamp.state is State.COMPLETE):
        return
    manifest = stamp.manifest
    if (stamp.key, stamp.state) != (identity.key, state):
        write_stamp(
            root, Stamp(state, identity.key, TREE, manifest, install_seconds=stamp.install_seconds)
        )


def make_ours() -> None:
    """
    Stamp what an interrupted capture has left, so that a restore may replace it.

    The directory is cachepod's own, whoever has been interrupted there.
    """
    root = tree_place()
    if root.is_dir() and read_stamp(root) is None:
        try:
            write_stamp(root, Stamp(State.INSTALLING, "", TREE))
        except OSError:
            pass  # whoever writes there next says why


def apply_layer(settings: Settings, progress: Progress) -> ApplyReport:
    """
    Merge the restored tree into the system.

    Raises:
        NotRoot, BaseDiffers, AptLocked, NotEnoughSpace, SpaceExhausted, TreeUnreadable: As
            :func:`cachepod.system.layer.apply`.
    """
    from cachepod.system import layer

    if layer.applied(ROOT):
        return layer.ApplyReport("confirmed")
    return layer.apply(ROOT, trusted=settings.signed, progress=progress)


def refuse(identity: Identity, *, for_all: bool) -> None:
    """
    Mark a tree that could not be merged, so that nothing takes it for complete.

    Args:
        for_all: The snapshot is at fault, and what is installed here instead may replace it.
    """
    root = tree_place()
    stamp = read_stamp(root)
    spoils = stamp.manifest if stamp is not None and for_all else ""
    try:
        write_stamp(root, Stamp(State.INSTALLING, identity.key, TREE, spoils=spoils))
    except OSError:
        pass  # then it is tried once more


def install_layer(settings: Settings, identity: Identity, progress: Progress) -> LayerInstallation:
    """
    Have apt install what the layer shall have, and capture it, unless it is in place.

    Raises:
        CachepodError: As :func:`cachepod.system.layer.install`, where the configuration says that
            packages which cannot be had are an error.
    """
    wanted = identity.layer
    if wanted is None or in_place(identity):
        if wanted is not None:
            adopt(identity, State.INSTALLED)
        return LayerInstallation()
    from cachepod.system import layer

    started = time.monotonic()
    root = tree_place()
    before = read_stamp(root)
    spoils = before.spoils if before is not None and before.key == identity.key else ""
    try:
        if wanted.obstacle is not None:
            raise wanted.obstacle
        with _repositories(settings, wanted, progress) as debs:
            report = layer.install(
                wanted.packages,
                debs=debs,
                root=ROOT,
                exclude=_not_the_systems(settings),
                key=identity.key,
                min_free=settings.min_free,
                progress=progress,
            )
    except CachepodError as error:
        if settings.apt_missing != "warning":
            raise
        return LayerInstallation(seconds=time.monotonic() - started, problem=error)
    seconds = time.monotonic() - started
    if not report.files and holds_layer(identity.key):
        return LayerInstallation(report, seconds)  # nothing was captured: the tree is as it was
    state = State.INSTALLED if report.publishable else State.INSTALLING
    write_stamp(root, Stamp(state, identity.key, TREE, spoils=spoils, install_seconds=seconds))
    return LayerInstallation(report, seconds)


@contextmanager
def _repositories(settings: Settings, layer: Layer, progress: Progress) -> Iterator[list[Path]]:
    """Packages that bring repositories: NVIDIA's keyring, where the toolkit is to come of it."""
    from tempfile import TemporaryDirectory

    from cachepod.system.layer import missing

    if settings.toolkit is not True or layer.base is None or not missing(layer.packages, ROOT):
        yield []
        return
    from cachepod.environment import keyring

    system = layer.base.distribution, layer.base.architecture
    with TemporaryDirectory(prefix="cachepod-keyring-") as folder:
        debs = []
        if not keyring.is_nvidias(settings) or missing([keyring.PACKAGE], ROOT):
            debs = [keyring.fetch_keyring(settings, *system, Path(folder), progress, ROOT)]
        try:
            yield debs
        except AptFailed as error:
            raise keyring.explained(settings, *system, error) from error


def _not_the_systems(settings: Settings) -> list[Path]:
    """Directories in which nothing is apt's."""
    kept = [settings.prefix, *settings.trees.values()]
    if isinstance(settings.toolkit, Path):
        kept.append(settings.toolkit)
    if settings.cache_dir is not None:
        kept.append(settings.cache_dir)
    for url in settings.store:
        path = url.removeprefix("file://")
        if "://" not in path:
            kept.append(Path(path))
    return kept


def withheld(settings: Settings, identity: Identity) -> str:
    """
    Why what is here is not to be stored under a key that promises the layer; empty if it may be.

    Raises:
        UsageProblem: The packages are not there, and the configuration says that they must be.
    """
    wanted = identity.layer
    if wanted is None:
        return ""
    stamp = read_stamp(tree_place())
    if (
        stamp is not None
        and stamp.key == identity.key
        and stamp.state in (State.COMPLETE, State.INSTALLED)
    ):
        return ""
    from cachepod.system.layer import missing

    lacking = missing(wanted.packages, ROOT)
    if not lacking:
        record = read_record(ROOT)
        why = record.why if record is not None else ""
        return why or "its apt packages were not captured"
    if settings.apt_missing != "warning":
        raise UsageProblem(
            f"{_named(lacking)} {'is' if len(lacking) == 1 else 'are'} not installed",
            hint="run cachepod install first",
        )
    return f"it lacks {_named(lacking)}, which the next start tries to install"
