"""Fixtures of several folders."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import moosefs, roots
from tests.support.moosefs import Cluster
from tests.support.nvidia import Served, make_repository, served
from tests.support.s3 import BUCKET, Server, environment, moto_server, rclone_server
from tests.support.s3proxy import Proxy, proxy


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


@pytest.fixture(scope="session")
def debian(tmp_path_factory: pytest.TempPathFactory) -> roots.Image:
    """A Debian image with cachepod in it, for containers; one for the whole test run."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    try:
        return roots.image(shared)
    except roots.Unavailable as reason:
        pytest.skip(str(reason))


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    """moto's server with a bucket; one for each process of a test run that asks."""
    with moto_server() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="session")
def rclone() -> Iterator[Server]:
    """``rclone serve s3`` with a bucket; likewise."""
    with rclone_server() as server:
        yield server


@pytest.fixture(scope="session")
def _moto_proxy(moto: Server) -> Iterator[Proxy]:
    with proxy(moto.endpoint) as served:
        yield served


@pytest.fixture
def troubled(_moto_proxy: Proxy) -> Iterator[Proxy]:
    """A proxy before moto, with no faults yet."""
    _moto_proxy.reset()
    yield _moto_proxy
    _moto_proxy.reset()


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the servers of the tests know, and none of the user's own."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment().items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def repository_of_nvidia(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A server that has what NVIDIA's apt repository has, as far as names and structure go."""
    folder = tmp_path_factory.mktemp("nvidia")
    make_repository(folder)
    with served(folder) as host:
        yield host


@pytest.fixture
def nvidia(repository_of_nvidia: Served) -> Served:
    """The same, which answers well unless a test says otherwise, and was asked nothing so far."""
    repository_of_nvidia.instead.clear()
    repository_of_nvidia.asked.clear()
    return repository_of_nvidia
