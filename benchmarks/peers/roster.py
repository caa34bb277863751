"""Every peer, in the order in which they take turns."""

from __future__ import annotations

from benchmarks.peers.archives import Cachepod, Squashfs, Tar
from benchmarks.peers.copies import Copy, Rsync, VolumeCache
from benchmarks.peers.peer import Peer, Settings

PEERS: tuple[type[Peer], ...] = (
    Cachepod,
    Tar,
    Squashfs,
    Copy,
    Rsync,
    VolumeCache,
)


def peers(settings: Settings) -> list[Peer]:
    """One of each."""
    return [kind(settings) for kind in PEERS]
