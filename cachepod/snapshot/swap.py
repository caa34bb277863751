"""
From stage to place, all or nothing.

Beside the tree ``DIR`` there is a hidden ``.DIR.cachepod/`` on the same file system while a restore
works, and in it::

    lock        held by the restore at work; within one machine only
    stage-N     the new tree being filled
    old-N       the old tree on its way out

The swap is one rename: RENAME_EXCHANGE (renameat2(2)) where the tree exists, so that there is a
whole tree under its name at every moment; where the kernel or file system has none, the old tree
is moved aside first. Where the tree cannot be renamed at all (it is a mount point, lies in the
lower layer of an overlayfs, or its parent may not be written to) it is filled in place from a
stage inside of it, each file renamed into place and the stamp of completeness last.
"""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from cachepod.errors import ForeignDirectory, TreeUnreadable, write_problem
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.stamp import (
    STATE_DIRECTORY,
    Stamp,
    State,
    read_stamp,
    state_directory,
    write_stamp,
)

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: Another restore of the same tree on the same machine takes no longer than this, or is stuck.
_LOCK_SECONDS = 600.0
_NO_EXCHANGE = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP))
_NO_RENAME = frozenset((errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM))


@dataclass(frozen=True)
class Workspace:
    """
    Where one restore works.

    Args:
        root: The tree's directory, symlinks resolved.

        place: The directory that holds stage and old tree.

        inside: Whether *place* lies inside of the tree, which is then filled in place.
    """

    root: Path
    place: Path
    inside: bool

    @property
    def stage(self) -> Path:
        """The directory to be filled."""
        return self.place / f"stage-{os.getpid()}"

    @property
    def old(self) -> Path:
        """Where the old tree goes."""
        return self.place / f"old-{os.getpid()}"


@contextmanager
def workspace(root: Path, *, force: bool) -> Iterator[Workspace]:
    """
    Take the place to work at for the tree at *root*, and clean up after a killed restore.

    Raises:
        ForeignDirectory: The tree was not made by cachepod, and *force* is not set.

        TreeUnreadable: There is no such place.
    """
    root = Path(os.path.realpath(root))
    with ExitStack() as stack:
        try:
            _check_ours(root, force)
            space = _choose(root)
            if _lock(stack, space.place):
                _sweep(space.place)
            stack.callback(remove_tree, space.stage)
            yield space
        except OSError as error:
            raise write_problem(error.filename or str(root), error) from error


def _choose(root: Path) -> Workspace:
    root.parent.mkdir(parents=True, exist_ok=True)
    beside = root.parent / f".{root.name}.cachepod"
    inside = state_directory(root) / "work"
    if root.is_dir() and os.path.ismount(root):
        inside.mkdir(parents=True, exist_ok=True)
        return Workspace(root, inside, True)
    try:
        beside.mkdir(exist_ok=True)
        return Workspace(root, beside, False)
    except OSError as error:
        if not root.is_dir() or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        inside.mkdir(parents=True, exist_ok=True)
        return Workspace(root, inside, True)


def _lock(stack: ExitStack, place: Path) -> bool:
    """
    Keep other restores of this machine away; False where that cannot be had.

    Without the lock nothing can break: every name here has the process's number in it, and the
    swap is one step.
    """
    lock = FileLock(place / "lock", timeout=_LOCK_SECONDS)
    try:
        stack.enter_context(lock)
    except (Timeout, OSError, NotImplementedError):
        return False
    return True


def _sweep(place: Path) -> None:
    for left in place.iterdir():
        if left.name.startswith(("stage-", "old-")):
            remove_tree(left)


def _check_ours(root: Path, force: bool) -> None:
    if force or read_stamp(root) is not None:
        return
    try:
        foreign = any(name != STATE_DIRECTORY for name in os.listdir(root))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise TreeUnreadable(str(root), "it is a file, not a directory") from None
    if foreign:
        raise ForeignDirectory(str(root))


def swap(space: Workspace) -> bool:
    """
    Put the finished stage in the tree's place; what was there is gone to ``space.old`` or replaced.

    Returns:
        Whether the old tree, if there was one, was replaced in one step. False: the tree was filled
        in place.

    Raises:
        OSError: As the file system has it; the old tree is then as it was, or, filled in place,
            marked as incomplete.
    """
    if not space.inside:
        try:
            _exchange(space)
            return True
        except OSError as error:
            if error.errno not in _NO_RENAME:
                raise
    _fill(space)
    return False


def _exchange(space: Workspace) -> None:
    stage, root = os.fsencode(space.stage), os.fsencode(space.root)
    if not os.path.lexists(root):
        os.rename(stage, root)
        return
    error = _renameat2(stage, root)
    if error == 0:
        os.rename(stage, space.old)
        return
    if error not in _NO_EXCHANGE:
        raise OSError(error, os.strerror(error), str(space.root))
    os.rename(root, space.old)
    try:
        os.rename(stage, root)
    except OSError:
        os.rename(space.old, root)
        raise


def _renameat2(stage: bytes, root: bytes) -> int:
    """Exchange two names; the error's number, zero for none."""
    try:
        function = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:
        return errno.ENOSYS
    if function(_AT_FDCWD, stage, _AT_FDCWD, root, _RENAME_EXCHANGE) == 0:
        return 0
    return ctypes.get_errno()


def _fill(space: Workspace) -> None:
    """Make the tree what the stage is, path by path; the stamp goes first and comes last."""
    root, stage = os.fsencode(space.root), os.fsencode(space.stage)
    os.makedirs(root, exist_ok=True)
    stamp = read_stamp(space.stage)
    write_stamp(space.root, Stamp(State.FILLING, stamp.key if stamp else "", ""))
    _merge(stage, root, skip=STATE_DIRECTORY.encode())
    ours, theirs = state_directory(space.stage), state_directory(space.root)
    for name in ("manifest", "index", "stamp.json"):
        if (ours / name).exists():
            os.replace(ours / name, theirs / name)


def _merge(stage: bytes, root: bytes, *, skip: bytes = b"") -> None:
    with os.scandir(stage) as found:
        new = {child.name: child.is_dir(follow_symlinks=False) for child in found}
    with os.scandir(root) as found:
        old = {child.name: child.is_dir(follow_symlinks=False) for child in found}
    for name in old.keys() - new.keys() - {skip}:
        _remove(root + b"/" + name, old[name])
    for name, is_directory in new.items():
        if name == skip:
            continue
        source, target = stage + b"/" + name, root + b"/" + name
        if not is_directory:
            if old.get(name):
                remove_tree(target)
            os.rename(source, target)
        elif old.get(name):
            info = os.lstat(source)
            for directory in (source, target):  # either may be closed against writing
                os.chmod(directory, 0o700)
            _merge(source, target)
            os.chmod(target, stat.S_IMODE(info.st_mode))
            os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
        else:
            if name in old:
                os.unlink(target)
            _move_directory(source, target)


def _move_directory(source: bytes, target: bytes) -> None:
    """Rename a directory, which its owner may have closed against writing."""
    mode = stat.S_IMODE(os.lstat(source).st_mode)
    if mode & 0o300 != 0o300:
        info = os.lstat(source)
        os.chmod(source, mode | 0o700)
        os.rename(source, target)
        os.chmod(target, mode)
        os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
    else:
        os.rename(source, target)


def _remove(path: bytes, is_directory: bool) -> None:
    if is_directory:
        remove_tree(path)
    else:
        os.unlink(path)
