"""Trees for tests: made from a description, and compared in everything a snapshot promises."""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import strategies as st

MTIME = 1_600_000_000_123_456_789


@dataclass(frozen=True)
class File:
    """A regular file; *holes* are (offset, length) of data between which nothing was written."""

    content: bytes = b""
    mode: int = 0o644
    mtime: int = MTIME
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


@dataclass(frozen=True)
class Sparse:
    """A file of *size* bytes with data only at the offsets of *data*."""

    size: int
    data: Mapping[int, bytes]
    mode: int = 0o600
    mtime: int = MTIME


@dataclass(frozen=True)
class Link:
    """A symbolic link."""

    target: bytes
    mtime: int = MTIME


@dataclass(frozen=True)
class Same:
    """Another name of the file at *path*, relative to the tree's root."""

    path: bytes


@dataclass(frozen=True)
class Directory:
    """A directory and what is in it."""

    children: Mapping[bytes, Node] = field(default_factory=dict)
    mode: int = 0o755
    mtime: int = MTIME


Node = File | Sparse | Link | Same | Directory


def make(root: Path, tree: Directory) -> Path:
    """Make *tree* at *root*, which must not exist."""
    links: list[tuple[bytes, bytes]] = []
    base = os.fsencode(root)
    _make(base, tree, links)
    for path, target in links:
        os.link(base + b"/" + target, path)
    _close(base, tree)
    return root


def _make(path: bytes, node: Node, links: list[tuple[bytes, bytes]]) -> None:
    if isinstance(node, Directory):
        os.mkdir(path, 0o700)
        for name, child in node.children.items():
            _make(path + b"/" + name, child, links)
    elif isinstance(node, File):
        with open(path, "wb") as file:
            file.write(node.content)
        for name, value in node.xattrs.items():
            os.setxattr(path, name, value)
        os.chmod(path, node.mode)
        os.utime(path, ns=(node.mtime, node.mtime))
    elif isinstance(node, Sparse):
        with open(path, "wb") as file:
            file.truncate(node.size)
            for offset, data in node.data.items():
                file.seek(offset)
                file.write(data)
        os.chmod(path, node.mode)
        os.utime(path, ns=(node.mtime, node.mtime))
    elif isinstance(node, Link):
        os.symlink(node.target, path)
        os.utime(path, ns=(node.mtime, node.mtime), follow_symlinks=False)
    else:
        links.append((path, node.path))


def _close(path: bytes, node: Node) -> None:
    if isinstance(node, Directory):
        for name, child in node.children.items():
            _close(path + b"/" + name, child)
        os.chmod(path, node.mode)
        os.utime(path, ns=(node.mtime, node.mtime))


@dataclass(frozen=True)
class Seen:
    """What is compared of one path."""

    kind: str
    mode: int
    mtime: int
    content: bytes
    xattrs: tuple[tuple[str, bytes], ...] = ()
    same: bytes = b""
    blocks: int = 0


def look(root: Path, *, holes: bool = False) -> dict[bytes, Seen]:
    """Everything below *root*, by path; state of cachepod's own is left out."""
    base = os.fsencode(root)
    seen: dict[bytes, Seen] = {}
    inodes: dict[int, bytes] = {}
    pending = [b""]
    while pending:
        relative = pending.pop()
        path = base + b"/" + relative if relative else base
        info = os.lstat(path)
        mode = stat.S_IMODE(info.st_mode)
        if stat.S_ISDIR(info.st_mode):
            seen[relative] = Seen("directory", mode, info.st_mtime_ns, b"")
            pending.extend(
                relative + b"/" + name if relative else name
                for name in os.listdir(path)
                if relative or name != b".cachepod"
            )
        elif stat.S_ISLNK(info.st_mode):
            seen[relative] = Seen("symlink", 0, info.st_mtime_ns, os.readlink(path))
        else:
            with open(path, "rb") as file:
                content = file.read()
            xattrs = tuple(
                sorted(
                    (name, os.getxattr(path, name))
                    for name in os.listxattr(path)
                    if name.startswith("user.")
                )
            )
            same = min(inodes.setdefault(info.st_ino, relative), relative)
            blocks = info.st_blocks if holes else 0
            seen[relative] = Seen("file", mode, info.st_mtime_ns, content, xattrs, same, blocks)
    return _name_links(root, seen)


def _name_links(root: Path, seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """Name each group of hard links by its first path, whatever the order of the walk was."""
    first: dict[int, bytes] = {}
    base = os.fsencode(root)
    for relative in sorted(seen):
        if seen[relative].kind == "file":
            inode = os.lstat(base + b"/" + relative).st_ino
            name = first.setdefault(inode, relative)
            old = seen[relative]
            seen[relative] = Seen(
                old.kind, old.mode, old.mtime, old.content, old.xattrs, name, old.blocks
            )
    return seen


def forget_times(seen: dict[bytes, Seen]) -> dict[bytes, Seen]:
    """The same without mtimes, for file systems that do not keep them."""
    return {
        path: Seen(it.kind, it.mode, 0, it.content, it.xattrs, it.same, it.blocks)
        for path, it in seen.items()
    }


names = st.binary(min_size=1, max_size=24).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..", b".cachepod")
)
mtimes = st.integers(min_value=0, max_value=4_000_000_000_999_999_999)
files = st.builds(
    File,
    content=st.one_of(
        st.binary(max_size=200),
        st.builds(
            lambda seed, size: (seed * (size // len(seed) + 1))[:size],
            st.binary(min_size=1, max_size=50),
            st.integers(0, 300_000),
        ),
    ),
    mode=st.sampled_from([0o644, 0o755, 0o600, 0o444, 0o400, 0o777, 0o000 | 0o600]),
    mtime=mtimes,
)
links = st.builds(
    Link,
    target=st.binary(min_size=1, max_size=100).filter(lambda target: b"\0" not in target),
    mtime=mtimes,
)


def _directories(children: st.SearchStrategy[Node]) -> st.SearchStrategy[Node]:
    return st.builds(
        Directory,
        children=st.dictionaries(names, children, max_size=6),
        mode=st.sampled_from([0o755, 0o700, 0o555, 0o1777, 0o750]),
        mtime=mtimes,
    )


nodes: st.SearchStrategy[Node] = st.recursive(st.one_of(files, links), _directories, max_leaves=25)
trees: st.SearchStrategy[Directory] = st.builds(
    Directory,
    children=st.dictionaries(names, nodes, max_size=8),
    mode=st.sampled_from([0o755, 0o700, 0o555]),
    mtime=mtimes,
)
