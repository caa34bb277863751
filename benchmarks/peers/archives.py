"""cachepod, and the archives that one would make instead: tar and squashfs, both with zstd."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

from benchmarks import measure, stores
from benchmarks.peers.peer import LOCAL, MOOSEFS, S3, Peer, Settings, Where, said

KEY = "peers"
_WHY_AHEAD = (
    "Programs in C start within milliseconds, where Python and cachepod's modules take 0.1 to "
    "0.2 s: of a small tree that is most of the time."
)


class Cachepod(Peer):
    """What this project is."""

    name = "cachepod"
    sources = frozenset({LOCAL, MOOSEFS, S3})
    set_up = "As it comes: no option but where and what."

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._changes = itertools.count(1)

    def versions(self) -> dict[str, str]:
        """Its own."""
        return {"cachepod": said([measure.cachepod(), "--version"]).rpartition(" ")[2]}

    def publish(self, tree: Path, where: Where) -> list[str]:
        """``cachepod publish``."""
        return self._publish(tree, where, KEY)

    def publish_again(self, tree: Path, where: Where) -> list[str]:
        """Under another key, as other requirements give one."""
        return self._publish(tree, where, f"{KEY}-{next(self._changes)}")

    def restore(self, where: Where, target: Path) -> list[str]:
        """``cachepod restore``."""
        return self._command("restore", where, target, KEY, "--timeout", "0")

    def _publish(self, tree: Path, where: Where, key: str) -> list[str]:
        return self._command("publish", where, tree, key)

    def _command(self, action: str, where: Where, tree: Path, key: str, *more: str) -> list[str]:
        store = f"{where.url}?endpoint={where.endpoint}" if where.endpoint else where.url
        return [
            *(measure.cachepod(), action, "--json", "--config", os.devnull, *more),
            *("--store", store, "--key", key, "--tree", f"bench={tree}"),
        ]


class Tar(Peer):
    """A pipe of the two programs that are everywhere."""

    name = "zstd -dc | tar -x"
    set_up = (
        "zstd -T0 compresses with every core; to decompress, zstd has one thread and no option "
        "for more."
    )
    why_ahead = _WHY_AHEAD

    def missing(self) -> str:
        """Both are needed."""
        return measure.needs("zstd", "tar")

    def versions(self) -> dict[str, str]:
        """Of both."""
        return {
            "zstd": said(["zstd", "--version"]).partition(" v")[2].partition(",")[0],
            "tar": said(["tar", "--version"]).rpartition(" ")[2],
        }

    def publish(self, tree: Path, where: Where) -> list[str]:
        """As a pipe, too."""
        return stores.tar_words(tree, self._archive(where), level=self.settings.level)

    def restore(self, where: Where, target: Path) -> list[str]:
        """Into a directory made for it."""
        return stores.untar_words(self._archive(where), target)

    def _archive(self, where: Where) -> Path:
        return where.folder / "tree.tar.zst"


class Squashfs(Peer):
    """An image that a program unpacks with every core."""

    name = "unsquashfs"
    set_up = (
        "mksquashfs with zstd and blocks of 1 MiB, the largest, which unpack fastest; unsquashfs "
        "with a thread for each core (-p)."
    )
    why_ahead = _WHY_AHEAD

    def missing(self) -> str:
        """Both are needed."""
        return measure.needs("unsquashfs", "mksquashfs")

    def versions(self) -> dict[str, str]:
        """Of both, which are one."""
        return {"squashfs-tools": said(["unsquashfs", "-version"]).split(" ")[2]}

    def publish(self, tree: Path, where: Where) -> list[str]:
        """``mksquashfs``; it uses every core by itself."""
        return stores.squash_words(tree, self._image(where), level=self.settings.level)

    def restore(self, where: Where, target: Path) -> list[str]:
        """``unsquashfs``."""
        return stores.unsquash_words(self._image(where), target, measure.cores())

    def _image(self, where: Where) -> Path:
        return where.folder / "tree.squashfs"
