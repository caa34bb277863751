"""A volume behind a slow network, which is a model of a data centre's."""

from __future__ import annotations

import os
import time

import pytest

from benchmarks.ground import drop_caches
from tests.support.moosefs import Unavailable, cluster
from tests.support.wire import Lane


def test_a_packet_leaves_after_those_before_it_and_arrives_its_latency_later() -> None:
    lane = Lane(latency=0.5, rate=100.0)
    lane.send(b"x" * 100, now=10.0)
    lane.send(b"y" * 50, now=10.0)
    assert lane.next == pytest.approx(11.5)
    assert lane.arrived(11.4) == []
    assert lane.arrived(11.6) == [b"x" * 100]
    assert lane.arrived(12.1) == [b"y" * 50]
    lane.send(b"z", now=20.0)  # the wire was idle
    assert lane.next == pytest.approx(20.51)


def test_a_wire_without_a_limit_only_takes_its_latency() -> None:
    lane = Lane(latency=0.5, rate=0.0)
    lane.send(b"x" * 10**6, now=1.0)
    assert lane.next == pytest.approx(1.5)


@pytest.mark.root
@pytest.mark.slow
def test_a_volume_behind_a_wire_is_as_slow_as_that_and_loses_nothing() -> None:
    size, rate, latency = 8_000_000, 8_000_000, 0.02
    content = os.urandom(size)
    try:
        with cluster(("near",)) as moose:
            moose.lay_wire(latency, rate)
            far = moose.mount("far").path
            (moose.mounts["near"].path / "file").write_bytes(content)
            drop_caches()
            begun = time.monotonic()
            assert (far / "file").read_bytes() == content
            # No faster than the wire; how much slower is the machine's affair.
            assert time.monotonic() - begun > size / rate
            begun = time.monotonic()
            (far / "not there").exists()
            assert time.monotonic() - begun > latency
    except Unavailable as error:
        pytest.skip(str(error))
