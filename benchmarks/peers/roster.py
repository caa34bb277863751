"""Every peer, in the order in which they take turns."""

from __future__ import annotations

from benchmarks.peers.archives import Cachepod, Squashfs, Tar
from benchmarks.peers.backups import Borg, Restic
from benchmarks.peers.buckets import Aws, RcloneCat, RcloneCopy, RcloneTree, S5cmd
from benchmarks.peers.copies import Copy, Rsync, VolumeCache
from benchmarks.peers.inplace import InPlace
from benchmarks.peers.installers import Pip, Uv, UvBytecode
from benchmarks.peers.peer import Peer, Settings

PEERS: tuple[type[Peer], ...] = (
    Cachepod,
    Tar,
    Squashfs,
    Copy,
    Rsync,
    VolumeCache,
    Restic,
    Borg,
    Uv,
    UvBytecode,
    Pip,
    InPlace,
    Aws,
    S5cmd,
    RcloneCat,
    RcloneCopy,
    RcloneTree,
)


def peers(settings: Settings) -> list[Peer]:
    """One of each."""
    return [kind(settings) for kind in PEERS]
