"""
From a root on which apt has worked to a tree that another root can be given.

::

    /var/lib/cachepod/system/
      layer.json       see metadata.py
      files/           what was added or changed, as it lies below the root

Files that nobody writes to where they lie (those of /usr and the like) are hard links to the
root's own and cost no room; what is edited in place is copied, and so is whatever has owners or
powers of its own, which a file of the tree shall not have.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from cachepod.errors import write_problem
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.stamp import Stamp, State, write_stamp
from cachepod.system.accounts import FILES as ACCOUNT_FILES
from cachepod.system.accounts import added as added_accounts
from cachepod.system.base import DPKG, distribution, installed
from cachepod.system.dpkg import Canonical, conffiles, owned_paths
from cachepod.system.look import Names, Seen, differences, look, no_token, read_text
from cachepod.system.metadata import FILES, METADATA, Layer, digest_of
from cachepod.system.paths import (
    NEVER,
    holds_private_key,
    is_below,
    is_closed,
    is_secret,
    is_unseen,
    mounted,
)
from cachepod.system.record import TREE, place

CAPABILITY = "security.capability"
#: Where files are written to where they lie.
EDITED = ("etc", "var", "srv")
_SPECIAL = stat.S_ISUID | stat.S_ISGID
_MODE = 0o1777
_ROOTS = "root root"
_NO_LINK = frozenset(
    (errno.EXDEV, errno.EPERM, errno.EACCES, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS)
)


@dataclass(frozen=True)
class Before:
    """
    What the root was before the installation.

    Args:
        packages: ``NAME:ARCHITECTURE`` to version.

        seen: Its file system.

        accounts: Name of a file of accounts to its text.
    """

    packages: Mapping[str, str]
    seen: Mapping[str, Seen]
    accounts: Mapping[str, str]


@dataclass
class Captured:
    """
    What a capture made.

    Args:
        layer: What ``layer.json`` says.

        digest: What it is called by.

        files: Files and links in the tree.

        size: Their bytes.

        warnings: What was left out, in words.

        lacking: What was left out though a package needs it.
    """

    layer: Layer
    digest: str = ""
    files: int = 0
    size: int = 0
    warnings: list[str] = field(default_factory=list)
    lacking: list[str] = field(default_factory=list)


def read_accounts(root: Path) -> dict[str, str]:
    """The files of accounts that *root* has, and their text."""
    found = {name: read_text(root / "etc" / name) for name in ACCOUNT_FILES}
    return {name: text for name, text in found.items() if text}


def capture(
    root: Path, before: Before, *, asked: tuple[str, ...], avoid: frozenset[str], key: str
) -> Captured:
    """
    Make the tree of all that *root* has and *before* had not; one that is there is replaced.

    Args:
        avoid: Paths below the root that are none of apt's business.

        key: For the stamp of the tree.

    Raises:
        TreeUnreadable, SpaceExhausted: The root cannot be read, or the tree not written.
    """
    target = place(root)
    stage = target.with_name(f".{TREE}.new")
    try:
        remove_tree(stage)
        remove_tree(target.with_name(f".{TREE}.old"))
        stage.mkdir(mode=0o700, parents=True)
        work = _Capture(root, before, stage / FILES, avoid)
        done = work.run(asked)
        data = done.layer.encode()
        (stage / METADATA).write_bytes(data)
        done.digest = digest_of(data)
        write_stamp(stage, Stamp(State.INSTALLED, key, TREE))
        if os.path.lexists(target):
            try:
                os.rename(target, target.with_name(f".{TREE}.old"))
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EBUSY):
                    raise
                remove_tree(target)  # it is of the image, whose directories cannot be renamed
        os.rename(stage, target)
        remove_tree(target.with_name(f".{TREE}.old"))
    except OSError as error:
        raise write_problem(error.filename or os.fspath(stage), error) from error
    return done


def _is_a_trace(path: str, seen: Mapping[str, Seen], changed: Collection[str]) -> bool:
    """
    Whether *path* is bytecode of a module that was there before.

    Whoever imports a module leaves that, be it cachepod itself at work; a package has its own.
    """
    folder, _, name = path.rpartition("/")
    if name == "__pycache__":
        return True  # made on the way to what is in it
    above, _, last = folder.rpartition("/")
    source = f"{above}/{name.partition('.')[0]}.py"
    return last == "__pycache__" and source in seen and source not in changed


class _Capture:
    def __init__(self, root: Path, before: Before, files: Path, avoid: frozenset[str]) -> None:
        self._root = os.path.abspath(root).rstrip("/")
        self._before = before
        self._files = os.fspath(files)
        self._mounted = mounted(root)
        self._avoid = avoid | self._mounted
        self._names = Names(root)
        self._made: dict[str, os.stat_result] = {}
        self._copies: dict[tuple[int, int], str] = {}
        self._counted: set[tuple[int, int]] = set()
        self._owners: dict[str, str] = {}
        self._modes: dict[str, int] = {}
        self._capabilities: dict[str, str] = {}
        self._rows: list[str] = []
        self._warnings: list[str] = []
        self._secrets: list[str] = []
        self._lacking: list[str] = []
        self._size = 0

    def run(self, asked: tuple[str, ...]) -> Captured:
        root, before = Path(self._root or "/"), self._before
        found = installed(root)
        after = dict(found.versions) if found is not None else {}
        new = [name for name, version in after.items() if before.packages.get(name) != version]
        canonical = Canonical(root)
        owned = owned_paths(root, new, canonical)
        now = look(root, avoid=self._avoid, token=no_token)
        added, changed, removed = differences(root, before.seen, now)
        added = [
            path for path in added if path in owned or not _is_a_trace(path, before.seen, changed)
        ]
        # Packages own directories also where nothing else is captured: in /var/log, /var/cache.
        elsewhere = [
            path
            for path in owned
            if path not in now
            and not is_closed(path)
            and (is_below(path, self._mounted) or is_unseen(path))
        ]
        os.mkdir(self._files, 0o755)
        taken = {path for path in (*added, *changed, *elsewhere) if self._take(path, owned)}
        layer = Layer(
            distribution=distribution(root),
            before=before.packages,
            after=after,
            asked=asked,
            owners=self._owners,
            modes=self._modes,
            capabilities=self._capabilities,
            accounts=added_accounts(before.accounts, read_accounts(root)),
            removed=tuple(path for path in reversed(removed) if not is_closed(path)),
            changed={path: before.seen[path].token for path in changed if path in taken},
            conffiles=frozenset(path for path in conffiles(root, canonical) if path in taken),
            left=frozenset(
                path for path in taken if path not in owned and not is_below(path, (DPKG,))
            ),
            content=blake3(
                "\0".join(sorted(self._rows)).encode("utf-8", "surrogateescape")
            ).hexdigest()[:32],
        )
        self._close_directories()
        if self._secrets:
            named = ", ".join(f"/{path}" for path in self._secrets)
            self._warnings.append(f"not captured, for it is of this machine alone: {named}")
        files = sum(1 for info in self._made.values() if not stat.S_ISDIR(info.st_mode))
        return Captured(layer, "", files, self._size, self._warnings, self._lacking)

    def _take(self, path: str, owned: Mapping[str, str]) -> bool:
        """Put *path* into the tree; False if it is left out."""
        full = f"{self._root}/{path}"
        if is_secret(path) or (path not in owned and holds_private_key(full)):
            self._secrets.append(path)
            return False
        try:
            info = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return False  # excluded by dpkg's configuration (path-exclude), or removed since
        if is_below(path, self._mounted):
            self._lacking.append(f"/{path} lies on a mount of its own")
            return False
        if is_below(path, NEVER):
            return False
        unseen = is_unseen(path) and not stat.S_ISDIR(info.st_mode)
        if unseen and path not in owned:
            return False
        if not (
            stat.S_ISDIR(info.st_mode) or stat.S_ISREG(info.st_mode) or stat.S_ISLNK(info.st_mode)
        ):
            self._warnings.append(f"/{path} is neither file, link nor directory: not captured")
            return False
        self._parents(path)
        self._describe(path, full, info)
        if stat.S_ISDIR(info.st_mode):
            self._directory(path, info)
        elif stat.S_ISLNK(info.st_mode):
            os.symlink(os.readlink(full), f"{self._files}/{path}")
            os.utime(
                f"{self._files}/{path}",
                ns=(info.st_mtime_ns, info.st_mtime_ns),
                follow_symlinks=False,
            )
        else:
            self._file(path, full, info)
            if info.st_nlink == 1 or (info.st_dev, info.st_ino) not in self._counted:
                self._size += info.st_size
                self._counted.add((info.st_dev, info.st_ino))
        self._made[path] = info
        return True

    def _describe(self, path: str, full: str, info: os.stat_result) -> None:
        owners = self._names.owners(info.st_uid, info.st_gid)
        if owners != _ROOTS:
            self._owners[path] = owners
        what = os.readlink(full) if stat.S_ISLNK(info.st_mode) else ""
        if stat.S_ISREG(info.st_mode):
            what = f"{info.st_size} {info.st_mtime_ns // 1_000_000_000}"
            try:
                value = os.getxattr(full, CAPABILITY, follow_symlinks=False)
                self._capabilities[path] = value.hex()
            except OSError:
                pass  # it has none, or the file system has none
        if info.st_mode & _SPECIAL and not stat.S_ISLNK(info.st_mode):
            self._modes[path] = stat.S_IMODE(info.st_mode)
        self._rows.append(f"{path}\n{info.st_mode:o} {what}")

    def _parents(self, path: str) -> None:
        """Make the directories above *path*, as they are in the root."""
        above = os.path.dirname(path)
        missing = []
        while above and above not in self._made:
            missing.append(above)
            above = os.path.dirname(above)
        for folder in reversed(missing):
            info = os.lstat(f"{self._root}/{folder}")
            self._directory(folder, info)
            self._made[folder] = info
            # It may be new to the other root as well, where nobody has made it on the way.
            owners = self._names.owners(info.st_uid, info.st_gid)
            if owners != _ROOTS:
                self._owners[folder] = owners
            if info.st_mode & _SPECIAL:
                self._modes[folder] = stat.S_IMODE(info.st_mode)

    def _directory(self, path: str, info: os.stat_result) -> None:
        if path not in self._made:
            os.mkdir(f"{self._files}/{path}", 0o700)

    def _close_directories(self) -> None:
        """Modes and times last, the deepest first."""
        for path, info in sorted(self._made.items(), reverse=True):
            if stat.S_ISDIR(info.st_mode):
                target = f"{self._files}/{path}"
                os.chmod(target, info.st_mode & _MODE)
                os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))

    def _file(self, path: str, full: str, info: os.stat_result) -> None:
        target = f"{self._files}/{path}"
        plain = not (
            path in self._owners
            or path in self._modes
            or path in self._capabilities
            or is_below(path, EDITED)
        )
        if plain:
            try:
                os.link(full, target, follow_symlinks=False)
                return
            except OSError as error:
                if error.errno not in _NO_LINK:
                    raise
        first = self._copies.get((info.st_dev, info.st_ino)) if info.st_nlink > 1 else None
        if first is not None:
            os.link(first, target, follow_symlinks=False)
            return
        self._copies[info.st_dev, info.st_ino] = target
        shutil.copyfile(full, target, follow_symlinks=False)
        os.chmod(target, info.st_mode & _MODE)
        os.utime(target, ns=(info.st_mtime_ns, info.st_mtime_ns))
