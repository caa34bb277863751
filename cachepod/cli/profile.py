"""Where the time of a restore or a publish went, for ``--json`` and for ``-v``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cachepod.cli.render import Document, count, duration, rate

if TYPE_CHECKING:
    from cachepod.snapshot.publish import PublishReport
    from cachepod.snapshot.restore import RestoreReport
    from cachepod.snapshot.spent import Profile, Share

#: Kinds by what a core does in a second of its own, and not by what a disk or network does.
_COMPUTED = ("hash", "decode", "compress")


def profile_document(profile: Profile) -> Document:
    """The member ``profile``; what counts neither bytes nor calls has none."""
    return {
        "wall": round(profile.wall, 4),
        "parallel": round(profile.parallel, 4),
        "threads": profile.threads,
        "readers": profile.readers,
        "kinds": {name: _share(share) for name, share in profile.kinds.items()},
    }


def _share(share: Share) -> Document:
    told: Document = {"seconds": round(share.seconds, 4), "cpu": round(share.cpu, 4)}
    if share.size:
        told["bytes"] = share.size
    if share.calls:
        told["calls"] = share.calls
    return told


def profile_line(what: str, report: RestoreReport | PublishReport | None) -> str:
    """One line of thread seconds, the most first, without what is under a hundredth."""
    if report is None or report.profile is None:
        return ""
    profile = report.profile
    least = sum(share.seconds for share in profile.kinds.values()) / 100
    told = [
        f"{name} {duration(share.seconds)}{_speed(name, share)}"
        for name, share in sorted(profile.kinds.items(), key=lambda kind: -kind[1].seconds)
        if share.seconds >= least
    ]
    threads = count(profile.threads, "thread")
    if profile.readers:
        threads += f" and {profile.readers} that read ahead"
    return f"{what}, seconds of {threads}: {', '.join(told)}"


def _speed(name: str, share: Share) -> str:
    if name not in _COMPUTED or share.cpu < 0.001:
        return ""
    return f" ({rate(share.size, share.cpu)} a core)"
