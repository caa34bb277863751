"""
Figures in the text format of Prometheus, for node_exporter's textfile collector.

The format is three kinds of lines ("Exposition formats" in its documentation), so it is written
here, and the tests read it with Prometheus's own parser.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.errors import UsageProblem

if TYPE_CHECKING:
    from cachepod.snapshot.stats import StoreStats

# Name to help and value. All are gauges: records of use are swept after a while, so no number of
# events only grows.
_METRICS: Mapping[str, tuple[str, Callable[[StoreStats], float]]] = {
    "snapshots": ("Snapshots in the store.", lambda it: len(it.snapshots)),
    "unreadable_snapshots": (
        "Snapshots whose manifest cannot be read.",
        lambda it: len(it.unreadable),
    ),
    "snapshot_bytes": ("Plain bytes of all snapshots.", lambda it: it.size),
    "needed_bytes": (
        "Compressed bytes that snapshots need, shared ones counted for each.",
        lambda it: it.needed,
    ),
    "packs": ("Packs in the store.", lambda it: it.packs),
    "stored_bytes": ("Bytes of all packs.", lambda it: it.stored),
    "manifest_bytes": ("Bytes of all manifests.", lambda it: it.described),
    "hits": ("Restores of the snapshot that was asked for, as recorded.", lambda it: it.use.hits),
    "partials": ("Restores of a relative, as recorded.", lambda it: it.use.partials),
    "misses": ("Starts that had to install, as recorded.", lambda it: it.use.misses),
    "publishes": ("Snapshots that were stored, as recorded.", lambda it: it.use.publishes),
    "waits": (
        "Starts that waited for another container, as recorded.",
        lambda it: it.use.waits,
    ),
    "waited_seconds": ("Seconds that they waited.", lambda it: it.use.waited),
    "restored_bytes": ("Bytes that restores read from the store.", lambda it: it.use.restored),
    "published_bytes": ("Bytes that publishes wrote to it.", lambda it: it.use.published),
    "restore_seconds": ("Seconds that restores took.", lambda it: it.use.restoring),
    "publish_seconds": ("Seconds that publishes took.", lambda it: it.use.publishing),
    "saved_seconds": (
        "Seconds that installing would have taken longer than restoring.",
        lambda it: it.use.saved,
    ),
    "last_use_timestamp_seconds": (
        "When the store was last asked for a snapshot, by its own clock; 0 if never.",
        lambda it: it.use.last,
    ),
}


def exposition(found: Sequence[StoreStats], down: Sequence[str] = ()) -> str:
    """
    The text of all figures.

    Args:
        found: Of each store that answered.

        down: URLs of those that did not.
    """
    lines = _family(
        "store_up",
        "Whether the store could be read.",
        [(each.store, 1.0) for each in found] + [(url, 0.0) for url in down],
    )
    for name, (about, value) in _METRICS.items():
        lines += _family(name, about, [(each.store, float(value(each))) for each in found])
    return "\n".join(lines) + "\n"


def _family(name: str, about: str, samples: Sequence[tuple[str, float]]) -> list[str]:
    if not samples:
        return []
    metric = f"cachepod_{name}"
    lines = [f"# HELP {metric} {about}", f"# TYPE {metric} gauge"]
    for store, value in samples:
        number = str(int(value)) if value == int(value) else repr(value)
        lines.append(f'{metric}{{store="{_escaped(store)}"}} {number}')
    return lines


def _escaped(text: str) -> str:
    """*text* between quotes of a label; bytes that are no UTF-8 as escapes for a reader."""
    plain = text.encode("utf-8", "backslashreplace").decode()
    return plain.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def check_place(path: Path) -> None:
    """
    Whether a file can be written at *path*, before the work is done.

    Raises:
        UsageProblem: It cannot, for sure.
    """
    if path.is_dir():
        raise UsageProblem(f"--prometheus: {path} is a directory", hint="name a file in it")
    if not path.parent.is_dir():
        raise UsageProblem(f"--prometheus: the directory {path.parent} does not exist")


def write_atomically(path: Path, text: str) -> None:
    """
    Replace the file at *path*; who reads meanwhile gets the old one or the new one.

    Raises:
        OSError: As the file system has it.
    """
    # Not a name that ends in .prom: the collector reads every one that does.
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(0o644)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
