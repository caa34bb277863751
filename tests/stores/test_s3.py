from __future__ import annotations

import itertools
from typing import Any

import pytest

from cachepod.stores.base import PruneStore
from cachepod.stores.s3 import S3Store
from cachepod.stores.s3url import MIB, S3Location
from cachepod.stores.wrappers import Patience, Retrying
from tests.stores.conformance import PruneStoreConformance
from tests.stores.stateful import compare_with_a_dictionary
from tests.support.s3 import BUCKET, Server

pytestmark = pytest.mark.usefixtures("credentials")
_numbers = itertools.count()


def fresh(server: Server, **parameters: object) -> S3Store:
    """A store of its own in the server's bucket."""
    return S3Store(S3Location.parse(server.url(f"store-{next(_numbers)}/a", **parameters)))


def patient(store: S3Store) -> Retrying:
    """*store*, tried again as a user's is."""
    return Retrying(store, Patience(attempts=6, delay=0.02, longest=0.5))


class S3Conformance(PruneStoreConformance):
    server: Server

    @pytest.fixture
    def store(self) -> Any:
        return fresh(self.server)

    def key(self, store: PruneStore, name: str) -> str:
        return f"{S3Location.parse(store.url).prefix}{name}"

    def put_behind(self, store: PruneStore, name: str, data: bytes) -> None:
        self.server.client().put_object(Bucket=BUCKET, Key=self.key(store, name), Body=data)

    def get_behind(self, store: PruneStore, name: str) -> bytes | None:
        client = self.server.client()
        try:
            answer = client.get_object(Bucket=BUCKET, Key=self.key(store, name))
        except client.exceptions.NoSuchKey:
            return None
        data: bytes = answer["Body"].read()
        return data

    def settle(self, store: Any) -> None:
        # When a part arrived is what moto knows; when its upload began it makes up.
        uploads = (store._store if isinstance(store, Retrying) else store)._writers()
        for _ in range(uploads.at_once):
            uploads._slots.acquire()
        for _ in range(uploads.at_once):
            uploads._slots.release()

    @property
    def big(self) -> bytes:
        return bytes(11 * MIB)


class TestOnMoto(S3Conformance):
    @pytest.fixture(autouse=True)
    def _server(self, moto: Server) -> None:
        self.server = moto


class TestOnRclone(S3Conformance):
    """
    Through the wrapper that a user's store has: for a moment while rclone replaces an object, it
    answers with an internal error.
    """

    @pytest.fixture
    def store(self) -> Any:
        return patient(fresh(self.server))

    @pytest.fixture(autouse=True)
    def _server(self, rclone: Server) -> None:
        self.server = rclone


def test_on_moto_it_behaves_as_a_dictionary(moto: Server) -> None:
    compare_with_a_dictionary(lambda: fresh(moto), examples=10)


def test_on_rclone_it_behaves_as_a_dictionary(rclone: Server) -> None:
    compare_with_a_dictionary(lambda: fresh(rclone), examples=10)
