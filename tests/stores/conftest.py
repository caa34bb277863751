from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.s3 import BUCKET, Server, environment, moto_server, rclone_server
from tests.support.s3proxy import Proxy, proxy


@pytest.fixture(scope="session")
def moto() -> Iterator[Server]:
    with moto_server() as server:
        server.client().create_bucket(Bucket=BUCKET)
        yield server


@pytest.fixture(scope="session")
def rclone() -> Iterator[Server]:
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
