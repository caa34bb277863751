"""Fixtures of several folders."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import moosefs
from tests.support.moosefs import Cluster


@pytest.fixture(scope="session")
def moose() -> Iterator[Cluster]:
    """A real MooseFS, mounted at two places; one for each process of a test run that asks."""
    try:
        with moosefs.cluster() as made:
            yield made
    except moosefs.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture
def mounts(moose: Cluster) -> tuple[Path, Path]:
    """A new directory on the MooseFS, by the one mount and by the other."""
    first, second = (moose.mounts[name].path for name in ("first", "second"))
    made = Path(tempfile.mkdtemp(dir=first))
    return made, second / made.name
