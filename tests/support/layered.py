"""
What tests do inside of a container: ``python3 layered.py WORD ...``; prints JSON.

Runs with what a container has: Python, cachepod, and this file.
"""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cachepod.errors import CachepodError
from cachepod.model.fingerprint import Fingerprint
from cachepod.snapshot.publish import publish
from cachepod.snapshot.restore import Target, restore
from cachepod.snapshot.scan import TreeSource
from cachepod.stores.local import LocalStore
from cachepod.system.base import base_of
from cachepod.system.layer import TREE, applied, apply, install, place

STORE = Path("/mnt/store")
FINGERPRINT = Fingerprint("layers", {"made": "by a test"})
KEY = FINGERPRINT.key
#: What no layer brings: of one machine or one run, or made anew.
NOT_COMPARED = (
    *("proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/tmp", "var/lib/cachepod"),
    *("var/log", "var/cache", "var/lib/apt/lists", "var/lib/dpkg/status-old", "opt/cachepod"),
    *("etc/ssh/ssh_host_", "var/lib/dbus/machine-id", "etc/passwd-", "etc/group-", "etc/shadow-"),
    *("etc/gshadow-", "var/lib/dpkg/statoverride-old", "var/lib/dpkg/diversions-old"),
    *("var/lib/dpkg/triggers/Lock", "var/lib/dpkg/lock", "etc/machine-id"),
)
#: Directories and files that are the layer's all the same.
COMPARED = ("var/cache/debconf/config.dat", "var/cache/debconf/templates.dat", "var/log/runit/ssh")


def content() -> dict[str, list[Any]]:
    """Every path that a layer may bring: mode, owners, content, capability."""
    found: dict[str, list[Any]] = {}
    names: dict[int, str] = {}
    for folder, folders, files in os.walk("/"):
        folders.sort()
        for name in sorted((*folders, *files)):
            path = os.path.join(folder, name)
            short = path.lstrip("/")
            if short.startswith(NOT_COMPARED) and short not in COMPARED:
                continue
            info = os.lstat(path)
            said: list[Any] = [oct(info.st_mode), info.st_uid, info.st_gid]
            if stat.S_ISLNK(info.st_mode):
                said.append(os.readlink(path))
            elif stat.S_ISREG(info.st_mode):
                said.append(hashlib.md5(Path(path).read_bytes()).hexdigest())
                if short not in ("etc/ld.so.cache", "etc/passwd", "etc/group", "etc/shadow"):
                    said.append(int(info.st_mtime) if short != "etc/gshadow" else 0)
                if "security.capability" in os.listxattr(path):
                    said.append(os.getxattr(path, "security.capability").hex())
                if info.st_nlink > 1 and short.startswith("usr/"):
                    said.append(names.setdefault(info.st_ino, short))
            found[short] = said
    return found


def killed(packages: list[str]) -> str:
    """An installation that is killed when dpkg has unpacked half of the packages."""
    before = len(os.listdir("/var/lib/dpkg/info"))
    child = os.fork()
    if child == 0:
        install(packages, key=KEY)
        os._exit(0)
    while len(os.listdir("/var/lib/dpkg/info")) < before + 12:
        if os.waitpid(child, os.WNOHANG) != (0, 0):
            return "it was over before it could be killed"
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return "killed"


def bring() -> dict[str, Any]:
    """The tree from the store."""
    place().parent.mkdir(parents=True, exist_ok=True)
    return {"outcome": restore(LocalStore(STORE), KEY, [Target(TREE, place())]).outcome}


def put() -> dict[str, Any]:
    """The tree to the store."""
    done = publish(LocalStore(STORE), KEY, FINGERPRINT, [TreeSource(TREE, place())])
    return {"outcome": done.outcome}


def timed(act: Callable[[], Any]) -> dict[str, Any]:
    """What the report of *act* says, and how long it took."""
    started = time.monotonic()
    try:
        report = act()
    except CachepodError as error:
        return {"error": type(error).__name__, "message": error.message}
    return {**vars(report), "seconds": time.monotonic() - started}


def main(word: str, *rest: str) -> Any:
    """Do one thing."""
    if word == "install":
        debs = [Path(name[4:]) for name in rest if name.startswith("deb:")]
        names = [name for name in rest if not name.startswith("deb:")]
        return timed(lambda: install(names, debs=debs, key=KEY))
    if word == "killed":
        return killed(list(rest))
    if word == "apply":
        return timed(lambda: apply(trusted="trusted" in rest))
    if word == "state":
        base = base_of()
        return {"applied": applied(), "base": base.digest if base else ""}
    return {"content": content, "bring": bring, "put": put}[word]()


if __name__ == "__main__":
    print(json.dumps(main(*sys.argv[1:]), default=str))
