from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.snapshot.paths import remove_tree
from cachepod.stores.local import LocalStore


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Path]:
    """A directory that is deleted at the end, whatever its trees are closed against."""
    yield tmp_path
    remove_tree(tmp_path)


@pytest.fixture
def store(room: Path) -> LocalStore:
    return LocalStore(room / "store")
