"""
The table of mounts, ``/proc/self/mountinfo``, whose lines look so (proc(5))::

    36 35 98:0 /dir /mnt/volume rw,noatime shared:1 - fuse mfs#host:9421 rw,user_id=0
    |        | |    |           |          |          |    |             options of the file system
    |        | |    |           |          |          |    device
    |        | |    |           |          |          kind
    |        | |    |           |          any number of optional fields, then " - "
    |        | |    |           options of the mount
    |        | |    mount point; blanks and the like as \\040
    id, parent, device number, root within the file system
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass

_TABLE = "/proc/self/mountinfo"
_MOST_LINKS = 40  # as the kernel has it; more are a loop
_ESCAPE = re.compile(rb"\\([0-7]{3})")
_NETWORK_KINDS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "ceph", "lustre", "gpfs"),
        *("beegfs", "glusterfs", "afs", "pvfs2", "orangefs", "wekafs", "moosefs"),
    }
)


@dataclass(frozen=True)
class Mount:
    """
    One mounted file system.

    Args:
        point: Where it is mounted.

        kind: Type of the file system: ``ext4``, ``overlay``, ``fuse``, ``fuse.sshfs``.

        device: What is mounted, ``mfs#HOST:9421`` for a MooseFS.

        options: Those of the mount and those of the file system.
    """

    point: str
    kind: str
    device: str
    options: tuple[str, ...]

    @property
    def read_only(self) -> bool:
        """Whether it is mounted read-only."""
        return "ro" in self.options

    @property
    def remote(self) -> bool:
        """Whether each read probably crosses a network or another process."""
        return self.kind in _NETWORK_KINDS or self.kind.split(".")[0] in ("fuse", "fuseblk")

    def option(self, name: str) -> str:
        """Value of the option *name*; empty where it has none."""
        for option in self.options:
            key, _, value = option.partition("=")
            if key == name:
                return value
        return ""


def _plain(field: bytes) -> str:
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def parse_mounts(text: bytes) -> tuple[Mount, ...]:
    """The mounts of a table in the format above; lines that make no sense are passed over."""
    found = []
    for line in text.splitlines():
        fields = line.split()
        try:
            dash = fields.index(b"-", 6)
            kind, device = fields[dash + 1], fields[dash + 2]
            options = fields[5].split(b",") + b",".join(fields[dash + 3 :]).split(b",")
        except (ValueError, IndexError):
            continue
        found.append(
            Mount(
                point=_plain(fields[4]),
                kind=_plain(kind),
                device=_plain(device),
                options=tuple(_plain(option) for option in options if option),
            )
        )
    return tuple(found)


def mounts() -> tuple[Mount, ...]:
    """Every mount that this process sees, in the order they were made; none where not Linux."""
    try:
        with open(_TABLE, "rb") as file:
            return parse_mounts(file.read())
    except OSError:
        return ()


def mount_at(path: str, table: Sequence[Mount] | None = None) -> Mount | None:
    """What is mounted exactly at *path*; the latest where several are."""
    hits = [mount for mount in (mounts() if table is None else table) if mount.point == path]
    return hits[-1] if hits else None


def place_of(path: str, table: Sequence[Mount] | None = None) -> str:
    """
    As :func:`os.path.realpath`, but no remote file system is asked, for it may be wedged.

    What lies below the mount point of one is taken as it is written.

    Args:
        path: It need not exist.

        table: The mounts to look among, those of this process by default.
    """
    remote = {mount.point for mount in (mounts() if table is None else table) if mount.remote}
    place, pending = "/", os.path.join(os.getcwd(), path).split("/")[::-1]
    links = 0
    while pending:
        name = pending.pop()
        if name in ("", "."):
            continue
        if name == "..":
            place = os.path.dirname(place)
            continue
        here = os.path.join(place, name)
        if here in remote:
            return os.path.normpath("/".join((here, *pending[::-1])))
        try:
            target = os.readlink(here)
        except OSError:  # no link, or nothing at all
            place = here
            continue
        links += 1
        if links > _MOST_LINKS:
            return os.path.normpath("/".join((here, *pending[::-1])))
        if target.startswith("/"):
            place = "/"
        pending += target.split("/")[::-1]
    return place


def mount_of(path: str, table: Sequence[Mount] | None = None) -> Mount | None:
    """
    The mount that *path* lies on, whether or not it exists yet.

    Args:
        path: Absolute; symbolic links in it are followed.

        table: The mounts to look among, those of this process by default.
    """
    real = os.path.realpath(path)
    best: Mount | None = None
    for mount in mounts() if table is None else table:
        inside = mount.point == "/" or real == mount.point or real.startswith(mount.point + "/")
        # >=: of two mounts at one point the later hides the earlier.
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best
