"""Sources of the peers: a volume with a model of a slower network."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.ground import drop_caches
from tests.support.moosefs import Cluster, Unavailable, cluster

pytestmark = [pytest.mark.root, pytest.mark.slow]


def test_a_volume_with_a_limit_moves_no_more_than_that() -> None:
    size, rate, burst = 12_000_000, 4_000_000, 4 * 1024 * 1024
    try:
        with cluster(("volume",)) as moose:
            (moose.mounts["volume"].path / "file").write_bytes(os.urandom(size))
            moose.limit(rate)
            volume = moose.remount("volume").path
            drop_caches()
            begun = time.monotonic()
            assert len((volume / "file").read_bytes()) == size
            # No faster than the wire; how much slower is the machine's affair.
            assert time.monotonic() - begun > (size - burst) / rate * 0.9
    except Unavailable as error:
        pytest.skip(str(error))


def test_where_a_kernel_cannot_limit_a_volume_it_is_said_in_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(self: Cluster, *command: object) -> str:
        raise RuntimeError("Specified qdisc kind is unknown.")

    monkeypatch.setattr(Cluster, "tool", refuse)
    made = Cluster.__new__(Cluster)
    with pytest.raises(Unavailable, match="cannot be limited here: Specified qdisc"):
        made.limit(1e6)
