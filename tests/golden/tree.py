"""The trees of the golden stores, and a listing of a tree as JSON can hold it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import Any

from blake3 import blake3

from tests.support.trees import Directory, File, Link, Node, Same, Sparse, make

MIB = 1 << 20


def _noise(seed: str, size: int) -> bytes:
    """Bytes that no compression shrinks, the same every time."""
    return blake3(seed.encode()).digest(length=size)


def _text(seed: str, size: int) -> bytes:
    """Bytes that shrink to almost nothing."""
    line = f"{seed}: every release of cachepod restores this line\n".encode()
    return (line * (size // len(line) + 1))[:size]


def _distribution(name: str, version: str, module: bytes, code: bytes) -> dict[bytes, Node]:
    """A wheel as an installer leaves it."""
    info = f"{name}-{version}.dist-info".encode()
    record = b"%s/__init__.py,,\n%s/METADATA,,\n%s/RECORD,,\n" % (module, info, info)
    return {
        module: Directory(
            {
                b"__init__.py": File(code),
                b"__pycache__": Directory({b"__init__.cpython-310.pyc": File(_noise(name, 900))}),
            }
        ),
        info: Directory({b"METADATA": File(f"Name: {name}\n".encode()), b"RECORD": File(record)}),
    }


def environment(release: int) -> Directory:
    """
    A small environment with every kind of entry; the second *release* differs in one distribution.
    """
    packages = {
        **_distribution("Alpha.Beta", "1.0", b"alpha", _text("alpha", 30_000)),
        **_distribution("gamma", f"2.{release}", b"gamma", _text(f"gamma {release}", 5_000)),
        b"noise.bin": File(_noise("noise", 3_000)),
    }
    return Directory(
        {
            b"bin": Directory(
                {
                    b"python": Link(b"/usr/bin/python3.10"),
                    b"tool": File(b"#!/bin/sh\nexit 0\n", mode=0o755),
                    b"tool-2": Same(b"bin/tool"),
                }
            ),
            b"lib": Directory({b"python3.10": Directory({b"site-packages": Directory(packages)})}),
            b"lib64": Link(b"lib"),
            b"dangling": Link(b"no/such\xff/target"),
            b"empty": File(),
            b"empty directory": Directory(mode=0o1777, mtime=1),
            b"closed": Directory({b"in it": File(b"read only", mode=0o400)}, mode=0o555),
            b"old": File(b"before 1970", mtime=-1_500_000_001),
            b"new": File(b"after 2038", mtime=4_000_000_000_999_999_999),
            b"noted": File(b"has a note", xattrs={"user.cachepod": b"\0note\xff"}),
            b"\xff\xfe not UTF-8 \n": File(b"odd name"),
            b"n" * 255: File(b"long name"),
            # 4 MiB twice and a little more: three chunks, of which two are one.
            b"big": File(_text("big", 64 * 1024) * 128 + b"the end"),
            # Data at 1 MiB that compression cannot shrink, then a hole to the end.
            b"holes": Sparse(3 * MIB, {MIB: _noise("holes", 64 * 1024)}),
            b"one hole": Sparse(MIB, {}),
            b"released": File(f"release {release}\n".encode()),
        },
        mode=0o750,
    )


def data(release: int) -> Directory:
    """A second tree; *release* says how much is in it."""
    return Directory({b"words": File(_text("words", 2_000 * release)), b"again": Link(b"words")})


def small_files() -> Directory:
    """Enough small files for several chunks, which end where the paths of files say so."""
    folders = {
        b"%02d" % folder: Directory(
            {b"%02d.py" % file: File(_text(f"{folder}/{file}", 9_000)) for file in range(60)}
        )
        for folder in range(20)
    }
    return Directory(folders)


def build(root: Path, release: int) -> list[tuple[str, Path]]:
    """Make the trees of *release* below *root*: their names and where they are."""
    root.mkdir(exist_ok=True)
    return [
        ("data", make(root / "data", data(release))),
        ("env", make(root / "env", environment(release))),
    ]


def keeps_xattrs(root: Path) -> bool:
    """Whether the file system at *root* has extended attributes of users."""
    probe = root / "xattr-probe"
    probe.touch()
    try:
        os.setxattr(probe, "user.cachepod", b"1")
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


def keeps_holes(root: Path) -> bool:
    """Whether a file at *root* may have holes, and the file system tells where they are."""
    probe = root / "hole-probe"
    try:
        with open(probe, "wb") as file:
            file.truncate(MIB)
            file.seek(MIB // 2)
            file.write(bytes(64 * 1024))
            file.flush()
            return os.lseek(file.fileno(), 0, os.SEEK_DATA) == MIB // 2
    except OSError:
        return False
    finally:
        probe.unlink()


def listing(root: Path) -> list[dict[str, Any]]:
    """Every path below *root* in order, the root itself first, with all that is promised of it."""
    base = os.fsencode(root)
    first: dict[int, str] = {}
    paths = [b""]
    for path in paths:
        whole = base + b"/" + path if path else base
        info = os.lstat(whole)
        if stat.S_ISDIR(info.st_mode):
            paths += [path + b"/" + name if path else name for name in os.listdir(whole)]
    return [
        _describe(base + b"/" + path if path else base, path, first)
        for path in sorted(paths)
        if path.split(b"/")[0] != b".cachepod"
    ]


def _describe(whole: bytes, path: bytes, first: dict[int, str]) -> dict[str, Any]:
    info = os.lstat(whole)
    name = path.decode("utf-8", "surrogateescape")
    entry: dict[str, Any] = {"path": name, "mtime": info.st_mtime_ns}
    if stat.S_ISLNK(info.st_mode):
        target = os.readlink(whole).decode("utf-8", "surrogateescape")
        return {**entry, "kind": "symlink", "target": target}
    entry["mode"] = oct(stat.S_IMODE(info.st_mode))
    if stat.S_ISDIR(info.st_mode):
        return {**entry, "kind": "directory"}
    with open(whole, "rb") as file:
        content = file.read()
    entry |= {"kind": "file", "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    if (same := first.setdefault(info.st_ino, name)) != name:
        entry["same as"] = same
    try:
        names = [name for name in os.listxattr(whole) if name.startswith("user.")]
    except OSError:
        names = []
    if names:
        entry["xattrs"] = {name: os.getxattr(whole, name).hex() for name in sorted(names)}
    return entry


def without(found: list[dict[str, Any]], *fields: str) -> list[dict[str, Any]]:
    """The same without *fields*, for a file system that does not keep them."""
    return [{name: it for name, it in entry.items() if name not in fields} for entry in found]
