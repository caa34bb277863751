"""
Carrying out the plan of an apply, so that it can be killed at any moment and begun again.

Every step looks first whether it is done. A file gets its place by a rename from a temporary name
beside it; of those there is one at a time, and the next run removes it.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping
from hashlib import sha256
from pathlib import Path

from cachepod.errors import PlaceTaken
from cachepod.snapshot.progress import Progress
from cachepod.system.accounts import FILES as ACCOUNT_FILES
from cachepod.system.accounts import ids_of
from cachepod.system.base import STATUS
from cachepod.system.capture import CAPABILITY
from cachepod.system.dpkg import SHARED, united
from cachepod.system.look import Names, matches, read_text
from cachepod.system.metadata import Layer
from cachepod.system.plan import Entry, Plan

#: Begins every name that is on its way to another.
TEMPORARY = ".cachepod-"
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_MODE = 0o1777
_BLOCK = 1 << 20
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_EVERY = 200  # files between two reports
_NO_LINK = frozenset(
    (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
)


class Merge:
    """
    One apply at work.

    Args:
        root: Where the layer goes.

        layer: What it says of itself.

        trusted: Whether set-uid and set-gid bits and capabilities are given.

        progress: Told of files and bytes.
    """

    def __init__(self, root: Path, layer: Layer, *, trusted: bool, progress: Progress) -> None:
        self._top = os.path.abspath(root).rstrip("/")
        self._root = root
        self._layer = layer
        self._trusted = trusted
        self._progress = progress
        # Root's, or in a root that belongs to somebody else his.
        self._own = (0, 0) if os.geteuid() == 0 else (os.geteuid(), os.getegid())
        self._users: dict[str, int] = {}
        self._groups: dict[str, int] = {}
        self._placed: dict[tuple[int, int], str] = {}
        self._powers: set[str] = set()
        self.notes: list[str] = []
        self.files = 0
        self.size = 0

    def accounts(self, texts: Mapping[str, str]) -> None:
        """Write the files of accounts that change, and learn who is who."""
        for name in ACCOUNT_FILES:  # groups before those who are in them
            if name in texts:
                self._replace_text(f"etc/{name}", texts[name], ACCOUNT_FILES[name][1])
        self._users = ids_of(read_text(self._root / "etc/passwd"))
        self._groups = ids_of(read_text(self._root / "etc/group"))

    def _replace_text(self, path: str, text: str, mode: int) -> None:
        full = f"{self._top}/{path}"
        data = text.encode("utf-8", "surrogateescape")
        temporary = self._temporary(full)
        try:
            info = os.lstat(full)
            if not stat.S_ISREG(info.st_mode):
                raise PlaceTaken(full, "it is no file here")
            owner, mode = (info.st_uid, info.st_gid), stat.S_IMODE(info.st_mode)
        except FileNotFoundError:
            owner = self._own
            os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(os.open(temporary, _NEW, 0o600), "wb") as file:
            file.write(data)
        self._give(temporary, owner, mode)
        try:
            os.rename(temporary, full)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            # Some runtimes mount a file of their own there.
            os.unlink(temporary)
            with open(full, "r+b") as file:
                file.write(data)
                file.truncate()

    def directories(self, entries: Iterable[Entry]) -> None:
        """Make what is missing, with mode and owner from its first moment on."""
        for entry in entries:
            full = f"{self._top}/{entry.path}"
            owner, mode = self._owner(entry.path), self._mode(entry)
            base = self._layer.changed.get(entry.path)
            try:
                info = os.lstat(full)
            except FileNotFoundError:
                self._new_directory(full, owner, mode)
                continue
            if stat.S_ISDIR(info.st_mode):
                if base is not None and self._is_bases(base, full, info):
                    self._give(full, owner, mode)
                continue
            # The plan has seen that it is what the base has, and that the layer replaces it.
            if base is None:
                raise PlaceTaken(full, "it is no directory here")
            os.unlink(full)
            self._new_directory(full, owner, mode)

    def _new_directory(self, full: str, owner: tuple[int, int], mode: int) -> None:
        temporary = self._temporary(full)
        os.mkdir(temporary, 0o700)
        self._give(temporary, owner, mode)
        os.rename(temporary, full)

    def put(self, entries: Iterable[Entry], *, always: bool = False) -> None:
        """
        Put files and links in place, but for what is the container's own.

        Args:
            always: Whether what is there is replaced, whosesoever it is.
        """
        count = size = 0
        for entry in entries:
            if entry.path in self._layer.modes or entry.path in self._layer.capabilities:
                self._powers.add(entry.path)
            if self._put(entry, always):
                self.files += 1
                self.size += entry.info.st_size
            count, size = count + 1, size + entry.info.st_size
            if count >= _EVERY:
                self._progress.advance(count, size)
                count = size = 0
        self._progress.advance(count, size)

    def _put(self, entry: Entry, always: bool) -> bool:
        full = f"{self._top}/{entry.path}"
        try:
            info = os.lstat(full)
        except FileNotFoundError:
            if entry.path in self._layer.changed and entry.path in self._layer.conffiles:
                # As dpkg has it: a configuration file that was removed stays so.
                self.notes.append(f"/{entry.path} was removed here, and stays so")
                return False
        else:
            if self._is_there(entry, full, info):
                self._remember(entry, full)
                return False
            if entry.path in SHARED and not self._bases_own(entry.path, full, info):
                self._unite(entry, full)
                return True
            if not always and self._is_the_containers(entry.path, full, info):
                self.notes.append(f"/{entry.path} was changed here, and stays as it is")
                return False
            if stat.S_ISDIR(info.st_mode):
                self._clear(entry.path, full)
        temporary = self._temporary(full)
        if entry.is_link:
            os.symlink(os.readlink(entry.source), temporary)
            self._give_link(temporary, self._owner(entry.path))
            self._times(temporary, entry)
        elif not (entry.linked and self._link(self._twin(entry) or entry.source, temporary)):
            self._copy(entry, temporary)
        os.rename(temporary, full)
        self._remember(entry, full)
        return True

    def _is_there(self, entry: Entry, full: str, info: os.stat_result) -> bool:
        """Whether the entry is in place already, by an earlier run or by chance."""
        if os.path.samestat(entry.info, info):
            return True
        if stat.S_IFMT(entry.info.st_mode) != stat.S_IFMT(info.st_mode):
            return False
        if (info.st_uid, info.st_gid) != self._owner(entry.path):
            return False
        if entry.is_link:
            return os.readlink(full) == os.readlink(entry.source)
        return (
            stat.S_IMODE(info.st_mode) == self._mode(entry)
            and info.st_size == entry.info.st_size
            and self._capability(entry.path) == _capability(full)
            and _same_bytes(entry.source, full)
        )

    def _bases_own(self, path: str, full: str, info: os.stat_result) -> bool:
        token = self._layer.changed.get(path)
        return token is not None and self._is_bases(token, full, info)

    def _is_bases(self, token: str, full: str, info: os.stat_result) -> bool:
        owners = Names(self._root).owners(info.st_uid, info.st_gid) if token[:4] == "dir:" else ""
        return matches(token, full, info, owners)

    def _is_the_containers(self, path: str, full: str, info: os.stat_result) -> bool:
        if path in self._layer.changed:
            return not self._bases_own(path, full, info)
        # dpkg replaces what lies where it puts a file, but for configuration.
        return path in self._layer.conffiles or path in self._layer.left

    def _unite(self, entry: Entry, full: str) -> None:
        ours, theirs = read_text(Path(full)), read_text(Path(entry.source))
        text = united(ours, theirs, SHARED[entry.path])
        if text != ours:
            self._replace_text(entry.path, text, 0o644)

    def _clear(self, path: str, full: str) -> None:
        """Empty the directory that a file or link takes the place of, of what the base had."""
        for removed in self._layer.removed:
            if removed.startswith(path + "/"):
                self._remove(removed)
        try:
            os.rmdir(full)
        except OSError as error:
            if error.errno != errno.ENOTEMPTY:
                raise
            raise PlaceTaken(full, "it is a directory here, with files of its own") from error

    def _link(self, source: str, temporary: str) -> bool:
        try:
            os.link(source, temporary, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _NO_LINK:
                raise
            return False
        return True

    def _copy(self, entry: Entry, temporary: str) -> None:
        twin = self._twin(entry)
        if twin is not None and self._link(twin, temporary):
            return
        _copy_bytes(entry.source, temporary)
        self._give(temporary, self._owner(entry.path), self._mode(entry))
        capability = self._capability(entry.path)
        if capability:
            os.setxattr(temporary, CAPABILITY, capability, follow_symlinks=False)
        self._times(temporary, entry)

    def _twin(self, entry: Entry) -> str | None:
        """Where another name of the same file has its place already."""
        info = entry.info
        return self._placed.get((info.st_dev, info.st_ino)) if info.st_nlink > 1 else None

    def _remember(self, entry: Entry, full: str) -> None:
        if entry.info.st_nlink > 1:
            self._placed.setdefault((entry.info.st_dev, entry.info.st_ino), full)

    def _times(self, path: str, entry: Entry) -> None:
        mtime = entry.info.st_mtime_ns
        os.utime(path, ns=(mtime, mtime), follow_symlinks=False)

    def _temporary(self, full: str) -> str:
        folder, _, name = full.rpartition("/")
        path = f"{folder}/{TEMPORARY}{sha256(os.fsencode(name)).hexdigest()[:16]}"
        _discard(path)
        return path

    def _owner(self, path: str) -> tuple[int, int]:
        said = self._layer.owners.get(path)
        if said is None:
            return self._own
        user, _, group = said.partition(" ")
        ids = _id(user, self._users), _id(group, self._groups)
        # Of accounts that the base had and this container has not: root's then.
        return self._own if None in ids else (ids[0] or 0, ids[1] or 0)

    def _mode(self, entry: Entry) -> int:
        mode = entry.info.st_mode & _MODE
        special = self._layer.modes.get(entry.path, 0) & _SPECIAL
        if entry.is_directory:
            return mode | special  # there it gives no power: files made in it get its group
        if not special or not self._trusted:
            return mode
        names = self._layer.owners.get(entry.path, "").split()
        for name, known in zip(names, (self._users, self._groups), strict=False):
            if _id(name, known) is None:
                return mode  # what was to be another's power does not become root's
        return mode | special

    def _capability(self, path: str) -> bytes:
        return bytes.fromhex(self._layer.capabilities.get(path, "")) if self._trusted else b""

    def _give(self, path: str, owner: tuple[int, int], mode: int) -> None:
        """Owner first: a change of it takes set-uid away."""
        info = os.lstat(path)
        if (info.st_uid, info.st_gid) != owner:
            os.chown(path, *owner)
        os.chmod(path, mode)

    def _give_link(self, path: str, owner: tuple[int, int]) -> None:
        info = os.lstat(path)
        if (info.st_uid, info.st_gid) != owner:
            os.lchown(path, *owner)

    def remove(self, paths: Iterable[str]) -> None:
        """Remove what the base has and the layer has not; a directory only if it is empty."""
        for path in paths:
            self._remove(path)

    def _remove(self, path: str) -> None:
        full = f"{self._top}/{path}"
        try:
            info = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return
        if not stat.S_ISDIR(info.st_mode):
            os.unlink(full)
            return
        try:
            os.rmdir(full)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EBUSY):
                raise
            # The container has something of its own in there.

    def commit(self, entry: Entry) -> None:
        """Replace dpkg's list of what is installed: the commit point of an apply."""
        full = f"{self._top}/{STATUS}"
        temporary = self._temporary(full)
        self._copy(entry, temporary)
        descriptor = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, full)

    def sweep(self, plan: Plan) -> None:
        """Remove what a killed run has left under a temporary name."""
        folders = {entry.path.rpartition("/")[0] for entry in (*plan.files, *plan.directories)}
        folders |= {entry.path.rpartition("/")[0] for entry in plan.database} | {"etc"}
        for folder in sorted(folders):
            full = f"{self._top}/{folder}"
            try:
                names = os.listdir(full)
            except (FileNotFoundError, NotADirectoryError):
                continue
            for name in names:
                if name.startswith(TEMPORARY):
                    _discard(f"{full}/{name}")

    def dropped(self) -> str:
        """What was not given because nobody vouches for the layer, in words; empty for nothing."""
        if self._trusted:
            return ""
        if not self._powers:
            return ""
        named = ", ".join(f"/{path}" for path in sorted(self._powers))
        return (
            f"without the set-uid and set-gid bits and capabilities that apt gives them, "
            f"for the snapshot is not signed: {named}"
        )


def _id(name: str, known: Mapping[str, int]) -> int | None:
    if name.startswith("#") and name[1:].isdigit():
        return int(name[1:])
    return known.get(name)


def _copy_bytes(source: str, target: str) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    reading = os.open(source, flags)
    try:
        writing = os.open(target, _NEW, 0o600)
        try:
            while block := os.read(reading, _BLOCK):
                view = memoryview(block)
                while view:
                    view = view[os.write(writing, view) :]
        finally:
            os.close(writing)
    finally:
        os.close(reading)


def _discard(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
    except (IsADirectoryError, PermissionError):
        os.rmdir(path)


def _capability(full: str) -> bytes:
    try:
        return os.getxattr(full, CAPABILITY, follow_symlinks=False)
    except OSError:
        return b""


def _same_bytes(one: str, other: str) -> bool:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    with open(os.open(one, flags), "rb") as first, open(os.open(other, flags), "rb") as second:
        while block := first.read(_BLOCK):
            if second.read(len(block)) != block:
                return False
        return not second.read(1)
