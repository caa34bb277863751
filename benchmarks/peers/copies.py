"""Copies of the tree as it is: ``cp``, ``rsync``, and RunPod's VolumeCache."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

from benchmarks import measure
from benchmarks.peers.peer import Peer, Where, said

#: What peers share that restore from a plain copy of the tree.
PLAIN = "plain copy"
_COPY = "tree"
_WHY_AHEAD = (
    "Whoever stores the plain bytes has nothing to compress, and is quicker to a disk that takes "
    "them faster than zstd makes them fewer; every restore then has to read all of them."
)


def plain_copy(where: Where) -> Path:
    """Where a peer that shares :data:`PLAIN` finds the tree."""
    return where.folder / _COPY


class Copy(Peer):
    """What one does without any tool."""

    name = "cp -a"
    set_up = "One process, file after file; it has no option for more."
    why_ahead = _WHY_AHEAD
    shares = PLAIN

    def versions(self) -> dict[str, str]:
        """Of coreutils."""
        return {"cp": said(["cp", "--version"]).rpartition(" ")[2]}

    def publish(self, tree: Path, where: Where) -> list[str]:
        """There."""
        return ["cp", "-a", str(tree), str(plain_copy(where))]

    def restore(self, where: Where, target: Path) -> list[str]:
        """And back."""
        return ["cp", "-a", str(plain_copy(where)), str(target)]


class Rsync(Peer):
    """The same, by a tool that compares first."""

    name = "rsync -a"
    set_up = (
        "--whole-file, which its manual recommends between local paths, and is the default there."
    )
    why_ahead = _WHY_AHEAD
    shares = PLAIN

    def missing(self) -> str:
        """One program."""
        return measure.needs("rsync")

    def versions(self) -> dict[str, str]:
        """Of it."""
        words = said(["rsync", "--version"]).split()
        return {"rsync": words[words.index("version") + 1] if "version" in words else ""}

    def publish(self, tree: Path, where: Where) -> list[str]:
        """There."""
        return self._command(tree, plain_copy(where))

    def publish_again(self, tree: Path, where: Where) -> list[str]:
        """Over the old copy, and without what is gone."""
        return [*self._command(tree, plain_copy(where)), "--delete"]

    def restore(self, where: Where, target: Path) -> list[str]:
        """And back."""
        return self._command(plain_copy(where), target)

    def _command(self, source: Path, target: Path) -> list[str]:
        return ["rsync", "-a", "--whole-file", f"{source}/", f"{target}/"]


# The module alone: a handler of RunPod's imports the package, which takes seconds, in any case.
_VOLUME_CACHE = """
import importlib.util, os, sys, types
root = importlib.util.find_spec("runpod").submodule_search_locations[0]
for name in ("runpod", "runpod.serverless", "runpod.serverless.modules", "runpod.serverless.utils"):
    package = sys.modules[name] = types.ModuleType(name)
    package.__path__ = [os.path.join(root, *name.split(".")[1:])]
from runpod.serverless.utils.rp_volume_cache import VolumeCache
action, volume, directory = sys.argv[1:]
cache = VolumeCache([directory], namespace="bench", volume_path=volume, best_effort=False)
if action == "sync":
    cache.sync(background=False)
else:
    print(cache.hydrate(), "files")
"""
# VolumeCache stores absolute paths: what is to be hydrated elsewhere must be synced from there. The
# mount goes with the namespace.
_AS_TARGET = 'mkdir -p "$2" && mount --bind "$1" "$2" && shift 2 && exec "$@"'


class VolumeCache(Peer):
    """What RunPod has for the purpose."""

    name = "VolumeCache"
    set_up = (
        "sync() and hydrate() of one directory with the defaults of its documentation: files below "
        "256 KiB in one tar, the others copied by 4 threads a core, at most 32. The import of the "
        "package runpod, which a handler needs in any case, is not in its time."
    )
    leaves_out = (
        "VolumeCache brings neither symbolic links nor the further names of hard-linked files nor "
        "empty directories nor *.lock files; the import after it uses the interpreter that the "
        "tree's bin/python leads to."
    )
    why_ahead = _WHY_AHEAD

    def missing(self) -> str:
        """From PyPI; and a mount namespace."""
        why = measure.needs("unshare", "mount") or self.settings.programs.install("runpod>=1.12")
        if why:
            return why
        tried = subprocess.run([*_namespace(), "true"], capture_output=True, check=False)
        return "no mount namespace can be made here" if tried.returncode else ""

    def versions(self) -> dict[str, str]:
        """Of RunPod's package."""
        return {"runpod": self.settings.programs.version("runpod")}

    def publish(self, tree: Path, where: Where) -> list[str]:
        """``sync()``."""
        target = str(self.settings.target)
        shell = ["sh", "-c", _AS_TARGET, "sh", str(tree), target]
        return [*_namespace(), *shell, *self._call("sync", where, target)]

    def publish_again(self, tree: Path, where: Where) -> list[str]:
        """The same, which copies what changed."""
        return self.publish(tree, where)

    def restore(self, where: Where, target: Path) -> list[str]:
        """``hydrate()``."""
        return self._call("hydrate", where, str(target))

    def _call(self, action: str, where: Where, directory: str) -> list[str]:
        python = self.settings.programs["python"]
        return [python, "-c", _VOLUME_CACHE, action, str(where.folder), directory]


def _namespace() -> list[str]:
    """The prefix of a command that may mount what nobody else sees."""
    return ["unshare", "--mount", *(["--map-root-user"] if os.geteuid() else [])]
