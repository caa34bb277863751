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
from xxhash import xxh3_64_hexdigest

from cachepod.errors import ForeignDirectory, TreeUnreadable, write_problem
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.stamp import (
    NOT_CONTENT,
    STATE_DIRECTORY,
    Stamp,
    State,
    has_stamp,
    read_stamp,
    state_directory,
    write_stamp,
)
from cachepod.stores.mounts import mount_at

_AT_FDCWD = -100
_RENAME_EXCHANGE = 2
#: Another restore of the same tree on the same machine takes no longer than this, or is stuck.
_LOCK_SECONDS = 600.0
_NO_EXCHANGE = frozenset((errno.EINVAL, errno.ENOSYS, errno.ENOTSUP))
_NO_RENAME = frozenset((errno.EXDEV, errno.EBUSY, errno.EACCES, errno.EPERM))
#: In the root of a tree, but not of it; the second is a mount point's own.
_LONGEST_NAME = 255
#: How deep, and to which length of path, directories are filled; deeper ones are replaced whole.
_MERGED = 100
_MERGED_PATH = 3000


@dataclass(frozen=True)
class Workspace:
    """
    Where one restore works.

    Args:
        root: The tree's directory, symlinks resolved.

        place: The directory that holds stage and old tree.

        inside: Whether *place* lies inside of the tree, which is then filled in place.

        token: In every name that this restore makes; no other has it, not even that of a
            container with the same process numbers.
    """

    root: Path
    place: Path
    inside: bool
    token: str

    @property
    def stage(self) -> Path:
        """The directory to be filled."""
        return self.place / f"stage-{self.token}"

    @property
    def old(self) -> Path:
        """Where the old tree goes."""
        return self.place / f"old-{self.token}"


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
            if _lock(stack, space.place, _LOCK_SECONDS):
                _sweep(space.place)
            stack.callback(discard, space.stage)
            yield space
        except OSError as error:
            raise write_problem(error.filename or str(root), error) from error


def clean_up(root: Path) -> None:
    """
    Remove what a killed restore of the tree at *root* left, unless another restore is at work.

    For a tree that needs no restore: nothing is waited for, and nothing raised.
    """
    root = Path(os.path.realpath(root))
    for place in (_beside(root), _inside(root)):
        try:
            if any(_is_left(name) for name in os.listdir(place)):
                with ExitStack() as stack:
                    if _lock(stack, place, 0.0):
                        _sweep(place)
        except OSError:
            continue


def discard(path: Path) -> bool:
    """Remove what is not needed any more; False if it would not go, which the next sweep tries."""
    try:
        remove_tree(path)
    except OSError:
        return False
    return True


def _beside(root: Path) -> Path:
    name = f".{root.name}.cachepod"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{xxh3_64_hexdigest(os.fsencode(root.name))}.cachepod"
    return root.parent / name


def _inside(root: Path) -> Path:
    return state_directory(root) / "work"


def _choose(root: Path) -> Workspace:
    root.parent.mkdir(parents=True, exist_ok=True)
    beside, inside = _beside(root), _inside(root)
    token = f"{os.getpid()}-{os.urandom(4).hex()}"
    # A bind mount within one file system is known from the table of mounts only.
    if root.is_dir() and (os.path.ismount(root) or mount_at(str(root)) is not None):
        inside.mkdir(parents=True, exist_ok=True)
        return Workspace(root, inside, True, token)
    try:
        beside.mkdir(exist_ok=True)
        if not os.access(beside, os.W_OK | os.X_OK):  # another user's
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(beside))
        return Workspace(root, beside, False, token)
    except OSError as error:
        if not root.is_dir() or error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        inside.mkdir(parents=True, exist_ok=True)
        return Workspace(root, inside, True, token)


def _lock(stack: ExitStack, place: Path, seconds: float) -> bool:
    """
    Keep other restores of this machine away; False where that cannot be had.

    Without the lock nothing can break: every name here is this restore's own, and the swap is one
    step.
    """
    lock = FileLock(place / "lock", timeout=seconds, fallback_to_soft=False)
    try:
        stack.enter_context(lock)
    except (Timeout, OSError, NotImplementedError):
        return False
    return True


def _is_left(name: str) -> bool:
    return name.startswith(("stage-", "old-"))


def _sweep(place: Path) -> None:
    for name in os.listdir(place):
        if _is_left(name):
            remove_tree(place / name)


def _check_ours(root: Path, force: bool) -> None:
    # A stamp that cannot be read is of a later cachepod, or damaged: ours all the same.
    if force or has_stamp(root):
        return
    try:
        foreign = any(name not in NOT_CONTENT for name in os.listdir(root))
    except FileNotFoundError:
        return
    except NotADirectoryError:
        raise TreeUnreadable(str(root), "it is a file, not a directory") from None
    # Looked for again: another restore may just have put its tree there.
    if foreign and not has_stamp(root):
        raise ForeignDirectory(str(root))


def swap(space: Workspace) -> bool:
    """
    Put the finished stage in the tree's place; what was there is gone to ``space.old``.

    Returns:
        Whether the tree was replaced in one step. False: it was filled in place.

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


def swap_back(space: Workspace) -> None:
    """Undo a swap in one step: the old tree is back, or there is none, and the new one is gone."""
    os.rename(space.root, space.stage)
    if os.path.lexists(space.old):
        os.rename(space.old, space.root)


def _exchange(space: Workspace) -> None:
    stage, root = os.fsencode(space.stage), os.fsencode(space.root)
    if not os.path.lexists(root):
        os.rename(stage, root)
        return
    with _writable(root):
        _exchange_with(space, stage, root)


@contextmanager
def _writable(root: bytes) -> Iterator[None]:
    """A directory is moved only by who may write in it; its mode is as it was if that fails."""
    info = os.lstat(root)
    mode = stat.S_IMODE(info.st_mode)
    if not stat.S_ISDIR(info.st_mode) or mode & 0o300 == 0o300:
        yield
        return
    os.chmod(root, mode | 0o700)
    try:
        yield
    except BaseException:
        os.chmod(root, mode)
        raise


def _exchange_with(space: Workspace, stage: bytes, root: bytes) -> None:
    error = _renameat2(stage, root)
    if error == 0:
        try:
            os.rename(stage, space.old)
        except OSError:
            pass  # it goes with the stage, then
        return
    if error not in _NO_EXCHANGE:
        raise OSError(error, os.strerror(error), str(space.root))
    try:
        os.rename(root, space.old)
        os.rename(stage, root)
    except BaseException:
        if not os.path.lexists(root):
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
    mode = stat.S_IMODE(os.stat(root).st_mode)
    if mode & 0o300 != 0o300:
        os.chmod(root, mode | 0o700)
    stamp = read_stamp(space.stage)
    write_stamp(space.root, Stamp(State.FILLING, stamp.key if stamp else "", ""))
    _merge(stage, root, frozenset(name.encode() for name in NOT_CONTENT))
    ours, theirs = state_directory(space.stage), state_directory(space.root)
    for name in ("manifest", "index", "stamp.json"):
        if (ours / name).exists():
            os.replace(ours / name, theirs / name)


def _merge(stage: bytes, root: bytes, skip: frozenset[bytes] = frozenset(), depth: int = 0) -> None:
    with os.scandir(stage) as found:
        new = {child.name: child.is_dir(follow_symlinks=False) for child in found}
    with os.scandir(root) as found:
        old = {child.name: child.is_dir(follow_symlinks=False) for child in found}
    for name in old.keys() - new.keys() - skip:
        remove_tree(root + b"/" + name)
    for name, is_directory in new.items():
        if skip and name == STATE_DIRECTORY.encode():
            continue
        source, target = stage + b"/" + name, root + b"/" + name
        if is_directory and old.get(name) and depth < _MERGED and len(source) < _MERGED_PATH:
            info = os.lstat(source)
            for directory in (source, target):  # either may be closed against writing
                os.chmod(directory, 0o700)
            _merge(source, target, depth=depth + 1)
            _copy_attributes(source, target, info)
            continue
        if is_directory or old.get(name):
            remove_tree(target)
            old.pop(name, None)
        if is_directory:
            _move_directory(source, target)
        elif name not in old or not os.path.samestat(os.lstat(source), os.lstat(target)):
            # (A file that stays has both names, and renaming one to the other does nothing.)
            _replace(source, target)


def _replace(source: bytes, target: bytes) -> None:
    try:
        os.rename(source, target)
    except OSError as error:
        # An overlayfs says so where both are names of one file of its lower layer.
        if error.errno != errno.ESTALE:
            raise
        os.unlink(target)
        os.rename(source, target)


def _copy_attributes(source: bytes, target: bytes, info: os.stat_result) -> None:
    try:
        wanted = os.listxattr(source)
        for name in set(os.listxattr(target)) - set(wanted):
            if name.startswith("user."):
                os.removexattr(target, name)
        for name in wanted:
            if name.startswith("user."):
                os.setxattr(target, name, os.getxattr(source, name))
    except OSError as error:
        if error.errno != errno.ENOTSUP:
            raise
    os.chmod(target, stat.S_IMODE(info.st_mode))
    os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))


def _move_directory(source: bytes, target: bytes) -> None:
    """Rename a directory, which its owner may have closed against writing."""
    info = os.lstat(source)
    mode = stat.S_IMODE(info.st_mode)
    if mode & 0o300 == 0o300:
        os.rename(source, target)
        return
    os.chmod(source, mode | 0o700)
    os.rename(source, target)
    os.chmod(target, mode)
    os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
