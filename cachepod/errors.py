"""
The errors that cachepod raises on purpose, each with the exit code of the command line.

Every one is a noun with fields; ``str(error)`` is one sentence for a user, and ``hint`` says what
to do next. Anything that is not a :class:`CachepodError` is a bug.
"""

from __future__ import annotations

import errno
import os

#: A full file system, or a quota that is used up.
SPACE_ERRORS = frozenset((errno.ENOSPC, errno.EDQUOT))

EXIT_DONE = 0
EXIT_FAILURE = 1
EXIT_USAGE = 2
EXIT_MISS = 3
EXIT_PARTIAL = 4
EXIT_UNREACHABLE = 5
EXIT_DAMAGED = 6
EXIT_NO_SPACE = 7
EXIT_SIGINT = 130
EXIT_SIGTERM = 143


def human_bytes(count: float) -> str:
    """*count* bytes for a reader, in powers of 1000 as disks are sold: ``2.6 GB``."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if abs(count) < 999.5 or unit == "TB":
            return f"{count:.0f} {unit}" if unit == "B" or count >= 99.5 else f"{count:.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


class CachepodError(Exception):
    """Base of all; *message* is one sentence without a full stop, *hint* what to do next."""

    exit_code = EXIT_FAILURE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageProblem(CachepodError):
    """What was asked for makes no sense: options, configuration, requirements."""

    exit_code = EXIT_USAGE


class ConfigurationProblem(UsageProblem):
    """A configuration file says something that cannot be; *where* is ``FILE:LINE``."""

    def __init__(self, where: str, problem: str, *, hint: str = "") -> None:
        super().__init__(f"{where}: {problem}", hint=hint)
        self.where = where
        self.problem = problem


class ToolkitMissing(ConfigurationProblem):
    """The CUDA tree that the configuration names is not there, and nobody here can bring it."""


class Miss(CachepodError):
    """No snapshot can be used for *key*; *why* tells the reader of a log."""

    exit_code = EXIT_MISS

    def __init__(self, key: str, why: str = "no snapshot of this key", *, hint: str = "") -> None:
        super().__init__(f"{key}: {why}", hint=hint)
        self.key = key
        self.why = why


class NewerFormat(Miss):
    """The object was written by a later cachepod; to this one it is a miss."""

    def __init__(self, name: str, version: int, known: int) -> None:
        super().__init__(
            name,
            f"format {version} is newer than this cachepod understands ({known})",
            hint="update cachepod in the image",
        )
        self.name = name
        self.version = version


class Untrusted(Miss):
    """Nobody who is trusted vouches for the snapshot; to a reader with a key it is a miss."""


class StoreUnreachable(CachepodError):
    """The store *url* did not answer, or refused; *transient* if trying again may well help."""

    exit_code = EXIT_UNREACHABLE

    def __init__(self, url: str, why: str, *, hint: str = "", transient: bool = False) -> None:
        super().__init__(f"store {url}: {why}", hint=hint)
        self.url = url
        self.why = why
        self.transient = transient


class ObjectMissing(CachepodError):
    """The store has no object *name*; a pruned snapshot looks like this."""

    exit_code = EXIT_DAMAGED

    def __init__(self, name: str) -> None:
        super().__init__(f"{name} is not in the store")
        self.name = name


class CorruptObject(CachepodError):
    """The stored bytes of *name* are not what was written."""

    exit_code = EXIT_DAMAGED

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name} is damaged: {why}")
        self.name = name
        self.why = why


class ManifestUnreadable(CachepodError):
    """What the manifest *name* needs is not known, so nothing can be deleted beside it."""

    exit_code = EXIT_DAMAGED

    def __init__(self, name: str, error: CachepodError) -> None:
        newer = isinstance(error, NewerFormat)
        super().__init__(
            f"{error.message}, and what it needs is not known: nothing is deleted",
            hint="update cachepod here" if newer else f"see cachepod verify, or delete {name}",
        )
        self.name = name
        if newer:
            self.exit_code = EXIT_FAILURE


class PinLost(CachepodError):
    """The holder of a pin was taken for dead, and *pack*, which it relied on, is gone or going."""

    def __init__(self, pack: str) -> None:
        super().__init__(
            f"the store could not be written to for so long that a prune took the pack {pack}, "
            "which was relied on",
            hint="run it again",
        )
        self.pack = pack


class NotEnoughSpace(CachepodError):
    """*path* has *free* bytes, *needed* are wanted."""

    exit_code = EXIT_NO_SPACE

    def __init__(self, path: str, needed: int, free: int, *, hint: str = "") -> None:
        super().__init__(
            f"{path}: {human_bytes(needed)} are needed, {human_bytes(free)} are free", hint=hint
        )
        self.path = path
        self.needed = needed
        self.free = free


class SpaceExhausted(CachepodError):
    """A write to *path* met ENOSPC or EDQUOT."""

    exit_code = EXIT_NO_SPACE

    def __init__(self, path: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {why}", hint=hint)
        self.path = path
        self.why = why


class ForeignDirectory(CachepodError):
    """*path* holds files that cachepod did not put there, and is left alone."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} is not empty and was not made by cachepod",
            hint="give another --prefix, empty it, or replace it with --force",
        )
        self.path = path


class TreeChanged(CachepodError):
    """*path* changed while it was read; no snapshot is made of a moving target."""

    def __init__(self, path: str) -> None:
        super().__init__(
            f"{path} changed while it was read", hint="publish when nothing writes there"
        )
        self.path = path


class TreeUnreadable(CachepodError):
    """*path* cannot be read or written on this machine's own disk."""

    def __init__(self, path: str, why: str, *, hint: str = "") -> None:
        super().__init__(f"{path}: {why}", hint=hint)
        self.path = path
        self.why = why


def write_problem(path: str | bytes, error: OSError) -> SpaceExhausted | TreeUnreadable:
    """What a failed write to *path* on this machine's own disk is called."""
    name, why = os.fsdecode(path), error.strerror or str(error)
    if error.errno in SPACE_ERRORS:
        return SpaceExhausted(name, why, hint="free some space, or choose another --prefix")
    return TreeUnreadable(name, why)


class InstallFailed(CachepodError):
    """The package installer gave up; its own words are in *output*."""

    def __init__(self, why: str, *, output: str = "", hint: str = "") -> None:
        super().__init__(why, hint=hint)
        self.output = output


class CheckFailed(CachepodError):
    """The environment is there but *module* cannot be imported in it."""

    def __init__(self, module: str, why: str) -> None:
        super().__init__(f"import {module} fails in the environment: {why}")
        self.module = module
        self.why = why


class NotRoot(CachepodError):
    """*what* needs root, and this process is not root's."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} needs root", hint="run the container as root, or put them into the image"
        )
        self.what = what


class BaseDiffers(Miss):
    """A layer of apt packages is for another base than this image; *why* says how they differ."""

    def __init__(self, why: str, *, hint: str = "") -> None:
        super().__init__("apt packages", why, hint=hint)


class PlaceTaken(CachepodError):
    """*path*, where a layer of apt packages has something, cannot be written in this container."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(f"{path}: {why}", hint="apt is asked to install the packages instead")
        self.path = path
        self.why = why


class AptFailed(InstallFailed):
    """apt or dpkg gave up; *why* is one sentence made of its own words, all are in *output*."""


class AptLocked(AptFailed):
    """Another process held *lock* for *seconds*; *holder* says which, empty where unknown."""

    def __init__(self, lock: str, holder: str, seconds: float) -> None:
        by = f" by {holder}" if holder else ""
        super().__init__(
            f"{lock} was held{by} for {seconds:.0f} seconds",
            hint="run it again when the other package manager is done",
        )
        self.lock = lock
        self.holder = holder
        self.seconds = seconds


class DriverPackage(CachepodError):
    """
    *package* is a driver of the GPU, which the host provides and no container may install.

    Args:
        package: The driver.

        asked: What needs it; the same where it was asked for itself.
    """

    exit_code = EXIT_USAGE

    def __init__(self, package: str, asked: str) -> None:
        if package == asked:
            what = f"the apt package {package} is a driver"
        else:
            what = f"the apt package {asked} needs {package}, which is a driver"
        super().__init__(
            f"{what}: the host provides it, and one in the container would break it",
            hint="ask for a toolkit without it, such as cuda-toolkit-12-6 instead of cuda",
        )
        self.package = package
        self.asked = asked
