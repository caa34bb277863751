"""Containers that build one key: some real, some only a lease in a store."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cachepod.snapshot import lease as leases
from cachepod.snapshot.lease import Lease, beating
from cachepod.snapshot.turn import await_turn
from cachepod.stores.local import LocalStore
from tests.support import cli
from tests.support.project import Project

QUICK = Path(__file__).parent / "quick"


def quick_leases(root: Path) -> dict[str, str]:
    """The environment of a container with a temporary directory of its own, and no patience."""
    root.mkdir(exist_ok=True)
    return {
        "PYTHONPATH": f"{QUICK}:{cli.ROOT}",
        "QUICK_LEASES": "5",
        "TMPDIR": str(root),
    }


def leased(project: Project) -> dict[str, Any]:
    """What the highest lease in the store says; empty where there is none."""
    found = sorted(project.store.glob("leases/*/[0-9]*"), key=lambda path: int(path.name))
    try:
        return dict(json.loads(found[-1].read_text())) if found else {}
    except FileNotFoundError:
        return {}


@contextmanager
def somebody_builds(project: Project) -> Iterator[Lease]:
    """Another container holds the lease of the project's key, and lives."""
    key = project.run("key", "-q").out.strip()
    store = LocalStore(project.store)
    lease = await_turn(store, key, ready=lambda: False, wait=0).lease
    assert lease is not None
    with mock.patch.object(leases, "BEAT", 0.2), beating(lease):
        yield lease


def said(process: subprocess.Popen[str], what: str) -> str:
    """The first line on the standard error of *process* that has *what* in it."""
    assert process.stderr is not None
    told = []
    for line in process.stderr:
        if what in line:
            return line
        told.append(line)
    raise AssertionError(f"{what!r} was never said, but: {''.join(told)}")
