"""Backup programs, which keep snapshots as cachepod does: restic and borg."""

from __future__ import annotations

import re
from pathlib import Path

from benchmarks import measure
from benchmarks.peers.peer import LOCAL, MOOSEFS, S3, Peer, Where, said

# Whoever can read the volume may read the tree, so neither program is asked to hide it; restic has
# no way not to encrypt.
_PASSWORD = "no secret"


class Restic(Peer):
    """One program, written in Go."""

    name = "restic"
    sources = frozenset({LOCAL, MOOSEFS, S3})
    set_up = (
        "A repository of format 2 with the default compression; backup --no-scan, as its page on "
        "tuning recommends for network file systems; 5 connections to a directory, as is its "
        "default for everything but directories, since a volume is a network; its cache is empty "
        "at a restore, as in a new container. The first publish makes the repository."
    )

    def missing(self) -> str:
        """One program, of a version that compresses."""
        if why := measure.needs("restic"):
            return why
        version = self._version()
        return "" if version >= (0, 14) else f"restic {_dotted(version)} here cannot compress"

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"restic": _dotted(self._version())}

    def environ(self, where: Where) -> dict[str, str]:
        """The password of a repository that has no secrets."""
        return {**where.environ, "RESTIC_PASSWORD": _PASSWORD}

    def publish(self, tree: Path, where: Where) -> list[str]:
        """A new repository, and a snapshot in it whose root is the tree."""
        script = 'cd "$1" && "${@:2}" init && "${@:2}" backup . --tag first --no-scan'
        return self._backup(script, tree, where)

    def publish_again(self, tree: Path, where: Where) -> list[str]:
        """One more snapshot; files that look as they did are not read."""
        return self._backup('cd "$1" && "${@:2}" backup . --no-scan', tree, where)

    def restore(self, where: Where, target: Path) -> list[str]:
        """What :meth:`publish` stored."""
        words = ["--no-lock", "restore", "latest", "--tag", "first", "--target", str(target)]
        return [*self._command(where, target.with_name("restic-cache")), *words]

    def _backup(self, script: str, tree: Path, where: Where) -> list[str]:
        if self._version() < (0, 15):
            script = script.replace(" --no-scan", "")
        cache = self.settings.scratch / "restic-cache"
        return measure.pipeline(script, tree, *self._command(where, cache))

    def _command(self, where: Where, cache: Path) -> list[str]:
        repository, options = where.url, ["--option", "local.connections=5"]
        if where.endpoint:
            repository, options = f"s3:{where.endpoint}/{where.url.removeprefix('s3://')}", []
        command = [_tool("restic"), "--quiet", "--repo", repository, "--cache-dir", str(cache)]
        return [*command, *options]

    def _version(self) -> tuple[int, ...]:
        found = re.search(r"restic (\d+)\.(\d+)\.(\d+)", said([_tool("restic"), "version"]))
        return tuple(int(part) for part in found.groups()) if found else ()


class Borg(Peer):
    """One program, written in Python and C; it has one thread."""

    name = "borg"
    set_up = (
        "zstd at the same level; no encryption, and the hash that its documentation recommends "
        "for this CPU: SHA-256 where the CPU has instructions for it, else BLAKE2b; without ACLs, "
        "extended attributes and file flags, which an environment does not have. The first publish "
        "makes the repository."
    )

    def missing(self) -> str:
        """One program; borg 2 has other commands."""
        if why := measure.needs("borg"):
            return why
        version = self._version()
        return "" if version.startswith("1.") else f"borg {version} here is not borg 1"

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"borg": self._version()}

    def environ(self, where: Where) -> dict[str, str]:
        """What keeps it from asking, and from the user's own caches."""
        return {
            **where.environ,
            "BORG_BASE_DIR": str(self.settings.scratch / "borg"),
            "BORG_PASSPHRASE": _PASSWORD,
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
        }

    def publish(self, tree: Path, where: Where) -> list[str]:
        """A new repository, and an archive in it whose root is the tree."""
        script = 'cd "$1" && "$2" init --encryption "$3" "$4" && "$2" create "${@:5}" .'
        repository = str(where.folder / "repository")
        words = [_tool("borg"), _encryption(), repository, *self._create(f"{repository}::first")]
        return measure.pipeline(script, tree, *words)

    def publish_again(self, tree: Path, where: Where) -> list[str]:
        """One more archive; files that look as they did are not read."""
        archive = f"{where.folder / 'repository'}::{{now:%Y-%m-%dT%H:%M:%S.%f}}"
        script = 'cd "$1" && "$2" create "${@:3}" .'
        return measure.pipeline(script, tree, _tool("borg"), *self._create(archive))

    def restore(self, where: Where, target: Path) -> list[str]:
        """It extracts to where it is, and no faster if not asked for attributes."""
        script = 'mkdir "$1" && cd "$1" && "$2" extract --noacls --noxattrs --noflags "$3"'
        archive = f"{where.folder / 'repository'}::first"
        return measure.pipeline(script, target, _tool("borg"), archive)

    def _create(self, archive: str) -> list[str]:
        compression = f"zstd,{self.settings.level}"
        return ["--noacls", "--noxattrs", "--noflags", "--compression", compression, archive]

    def _version(self) -> str:
        return said([_tool("borg"), "--version"]).rpartition(" ")[2]


def _tool(name: str) -> str:
    return measure.find_tool(name) or name


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version)) or "of an unknown version"


def _encryption() -> str:
    """Of a repository that is not encrypted: what its chunks are named and checked by."""
    flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    hashes = flags is not None and "sha_ni" in flags[1].split()
    return "none" if hashes else "authenticated-blake2"
