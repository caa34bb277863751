"""dpkg databases that no dpkg has written, and roots on which no apt has worked."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Mapping
from pathlib import Path

from cachepod.system.base import installed
from cachepod.system.capture import Before, Captured, capture, read_accounts
from cachepod.system.dpkg import Canonical, md5sums
from cachepod.system.look import Tokens, look
from cachepod.system.record import place


def lay(root: Path, files: Mapping[str, str]) -> None:
    """Write *files*, paths below *root* to what they hold."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def stanza(
    name: str,
    version: str,
    *,
    architecture: str = "amd64",
    status: str = "install ok installed",
    provides: str = "",
    conffiles: Mapping[str, str] | None = None,
) -> str:
    """What the database says of one package; *conffiles* is path to MD5."""
    lines = [
        f"Package: {name}",
        f"Status: {status}",
        "Maintainer: Somebody <somebody@example.org>",
        f"Architecture: {architecture}",
        f"Version: {version}",
    ]
    if provides:
        lines.append(f"Provides: {provides}")
    if conffiles:
        lines.append("Conffiles:")
        lines += (f" {path} {digest}" for path, digest in conffiles.items())
    lines += ["Description: says", " Version: of nothing", ""]
    return "\n".join(lines) + "\n"


def database(packages: Mapping[str, str]) -> str:
    """A database of *packages*, ``NAME:ARCHITECTURE`` to version."""
    said = []
    for package, version in packages.items():
        name, _, architecture = package.partition(":")
        said.append(stanza(name, version, architecture=architecture))
    return "".join(said)


#: What a root has before anything is installed.
BASE = {
    "etc/os-release": "ID=debian\nVERSION_ID=12\n",
    "etc/passwd": "root:x:0:0:root:/root:/bin/bash\nwww:x:33:33:www:/var/www:/bin/false\n",
    "etc/group": "root:x:0:\naudio:x:29:\nwww:x:33:\n",
    "etc/shadow": "root:*:19000:0:99999:7:::\nwww:*:19000:0:99999:7:::\n",
    "etc/base.conf": "of the base\n",
    "etc/left.conf": "of the base\n",
    "usr/bin/base": "base 1\n",
    "usr/bin/goes": "goes\n",
    "usr/share/gone/inside": "gone\n",
    "usr/share/index": "base\n",
    "var/lib/dpkg/status": "",
    "var/lib/dpkg/info/base.list": "/.\n/usr\n/usr/bin\n/usr/bin/base\n/usr/bin/goes\n",
    "var/lib/dpkg/info/base.md5sums": "",
    "var/lib/dpkg/diversions": "/bin/sh\n/bin/sh.distrib\ndash\n",
    "var/log/dpkg.log": "",
}
#: What is new or other after an installation; None is gone.
INSTALLED: dict[str, str | None] = {
    "etc/base.conf": "of the layer\n",
    "etc/left.conf": "of the layer\n",
    "etc/tool.conf": "tool\n",
    "etc/tool.d/": "",
    "usr/bin/base": "base 2, which is longer\n",
    "usr/bin/goes": None,
    "usr/bin/tool": "tool\n",
    "usr/bin/alias": "-> tool",
    "usr/share/gone/inside": None,
    "usr/share/gone": None,
    "usr/share/index": "base and tool\n",
    "usr/share/tool/a": "a\n",
    "usr/share/tool/b": "= a",
    "usr/share/tool/deep/er/c": "c\n",
    "var/lib/tool/state": "made by a script\n",
    "var/log/tool/": "",
    "var/log/dpkg.log": "installed\n",
    "var/lib/dpkg/info/tool.list": (
        "/.\n/etc\n/etc/tool.conf\n/etc/tool.d\n/usr\n/usr/bin\n/usr/bin/tool\n/usr/bin/alias\n"
        "/usr/share/tool\n/usr/share/tool/a\n/usr/share/tool/b\n/usr/share/tool/deep\n"
        "/usr/share/tool/deep/er\n/usr/share/tool/deep/er/c\n/var/log/tool\n"
    ),
    "var/lib/dpkg/info/base.md5sums": None,
    "var/lib/dpkg/info/base.postinst": "#!/bin/sh\n",
    "var/lib/dpkg/diversions": (
        "/bin/sh\n/bin/sh.distrib\ndash\n/usr/bin/x\n/usr/bin/x.real\ntool\n"
    ),
}
BASE_STATUS = stanza("dpkg", "1.21") + stanza("base", "1")
INSTALLED_STATUS = (
    stanza("dpkg", "1.21")
    + stanza("base", "2", conffiles={"/etc/base.conf": "0" * 32})
    + stanza("tool", "7:1.0", conffiles={"/etc/tool.conf": "0" * 32})
)


def base_root(root: Path) -> Path:
    """A small root, the same each time."""
    lay(root, {**BASE, "var/lib/dpkg/status": BASE_STATUS})
    digest = hashlib.md5(BASE["usr/bin/base"].encode(), usedforsecurity=False).hexdigest()
    lay(root, {"var/lib/dpkg/info/base.md5sums": f"{digest}  usr/bin/base\n"})
    for folder, _, names in os.walk(root):
        for name in names:
            os.utime(os.path.join(folder, name), (1_700_000_000, 1_700_000_000))
    return root


def write(root: Path, name: str, text: str | None) -> None:
    """Bring one path of :data:`INSTALLED` about, as dpkg would: by a new file."""
    path = root / name.rstrip("/")
    if text is None:
        path.rmdir() if path.is_dir() else path.unlink()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if name.endswith("/"):
        path.mkdir()
        return
    path.unlink(missing_ok=True)
    if text.startswith("-> "):
        path.symlink_to(text[3:])
    elif text.startswith("= "):
        path.hardlink_to(path.parent / text[2:])
    else:
        path.write_text(text)


def install_into(root: Path, changes: Mapping[str, str | None] = INSTALLED) -> None:
    """Make of a :func:`base_root` what it is after an installation."""
    for name, text in changes.items():
        write(root, name, text)
    write(root, "var/lib/dpkg/status", INSTALLED_STATUS)


def seen_before(root: Path) -> Before:
    """What an installation remembers of *root*."""
    found = installed(root)
    versions = {} if found is None else found.versions
    tokens = Tokens(md5sums(root, versions, Canonical(root)))
    return Before(versions, look(root, avoid=(), token=tokens), read_accounts(root))


def captured(
    root: Path, change: Callable[[Path], None] = install_into, *, asked: tuple[str, ...] = ("tool",)
) -> Captured:
    """Make *root* a base, let *change* install something in it, and capture that."""
    base_root(root)
    before = seen_before(root)
    change(root)
    return capture(root, before, asked=asked, avoid=frozenset(), key="key")


def carry(source: Path, target: Path) -> Path:
    """The tree of *source* to *target*, as a snapshot keeps it: no owners, no powers."""
    tree = place(target)
    tree.parent.mkdir(parents=True, exist_ok=True)
    shutil.copytree(place(source), tree, symlinks=True)
    shutil.rmtree(tree / ".cachepod")
    inodes: dict[int, Path] = {}
    for folder, _, names in os.walk(place(source)):
        for name in names:
            old = Path(folder, name)
            new = tree / old.relative_to(place(source))
            info = old.lstat()
            if ".cachepod" in old.parts or stat.S_ISLNK(info.st_mode):
                continue
            first = inodes.setdefault(info.st_ino, new)
            if first != new:
                new.unlink()
                new.hardlink_to(first)
            new.chmod(info.st_mode & 0o1777)
    return target


#: What no layer has, or what is made anew.
NOT_OF_A_LAYER = (
    "var/lib/cachepod",
    "var/log/dpkg.log",
    "var/lib/dpkg/lock",
    "var/lib/dpkg/lock-frontend",
)


def content_of(
    root: Path, leave_out: tuple[str, ...] = NOT_OF_A_LAYER
) -> dict[str, tuple[object, ...]]:
    """Every path of *root* with mode, owner and content, and which names are one file."""
    found: dict[str, tuple[object, ...]] = {}
    names_of: dict[int, list[str]] = {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted((*folders, *names)):
            path = Path(folder, name)
            short = str(path.relative_to(root))
            if short in leave_out or any(short.startswith(f"{each}/") for each in leave_out):
                continue
            info = path.lstat()
            said: tuple[object, ...] = (oct(info.st_mode), info.st_uid, info.st_gid)
            if stat.S_ISREG(info.st_mode):
                said += (path.read_bytes(), int(info.st_mtime))
                names_of.setdefault(info.st_ino, []).append(short)
            elif stat.S_ISLNK(info.st_mode):
                said += (os.readlink(path),)
            found[short] = said
    for same in names_of.values():
        for name in same[1:]:
            found[name] += (same[0],)
    return found
