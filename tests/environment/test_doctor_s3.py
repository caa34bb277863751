"""What doctor finds out about a S3 service, on two real ones and on one that is made to lie."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from cachepod.environment import doctor_s3
from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.doctor_store import examine_store
from cachepod.stores.base import put
from cachepod.stores.s3client import Service
from cachepod.stores.s3errors import Refusal
from cachepod.stores.s3url import MIB
from cachepod.stores.url import open_store
from tests.support.s3 import BUCKET, Server, free_port

_numbers = itertools.count()


pytestmark = pytest.mark.usefixtures("credentials")


@pytest.fixture(autouse=True)
def small_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """The least that a service takes as a part: moto is slow."""
    monkeypatch.setattr(doctor_s3, "_PART", 5 * MIB)


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    found = list(checks)
    assert len({check.name for check in found}) == len(found)
    assert all(check.result and check.meaning for check in found)
    return {check.name: check for check in found}


def keys(server: Server) -> set[str]:
    """Every object of these tests: others use the bucket, too."""
    answer = server.client().list_objects_v2(Bucket=BUCKET, Prefix="doctor-")
    return {found["Key"] for found in answer.get("Contents", ())}


def fresh() -> str:
    return f"doctor-{next(_numbers)}"


def examined(server: Server, **parameters: object) -> dict[str, Check]:
    """The checks of a store of its own, and nothing is left of them."""
    before = keys(server)
    found = by_name(examine_store(server.url(fresh(), **parameters)))
    assert keys(server) == before
    uploads = server.client().list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
    assert not [each for each in uploads if each["Key"].startswith("doctor-")]
    return found


def test_a_good_service_has_no_problems_and_nothing_is_left(moto: Server) -> None:
    found = examined(moto)
    assert {name: check.severity for name, check in found.items()} == {
        "service": Severity.OK,
        "clock": Severity.OK,
        "listing": Severity.OK,
        "contents": Severity.NOTE,
        "writable": Severity.OK,
        "ranges": Severity.OK,
        "conditional writes": Severity.OK,
        "copy": Severity.OK,
        "speed": Severity.OK,
        "unfinished uploads": Severity.OK,
        "deletion": Severity.OK,
    }
    assert found["conditional writes"].result == "honoured"
    assert "MB/s read" in found["speed"].result or "GB/s read" in found["speed"].result
    assert "sample" in found["speed"].meaning


def test_another_implementation_is_told_apart_by_what_it_does(rclone: Server) -> None:
    before = keys(rclone)
    found = by_name(examine_store(rclone.url(fresh())))
    assert keys(rclone) == before
    assert not [check for check in found.values() if check.severity == Severity.PROBLEM]
    check = found["conditional writes"]
    honoured = open_store(rclone.url(fresh())).exclusive
    assert (check.severity == Severity.OK) == honoured


def test_what_is_stored_is_seen(moto: Server) -> None:
    url = moto.url(fresh())
    put(open_store(url), "manifests/named/mine", b"1")
    found = by_name(examine_store(url))
    assert (found["contents"].result, found["contents"].severity) == ("snapshots", Severity.OK)


def test_a_url_that_is_none_is_a_problem_and_its_secrets_are_not_shown() -> None:
    [check] = examine_store("s3://key:hush@bucket/x")
    assert check.severity == Severity.PROBLEM
    assert "hush" not in check.about + check.result + check.meaning


def the_service(url: str) -> Check:
    [check] = examine_store(url)
    assert check.name == "service"
    assert check.severity == Severity.PROBLEM
    assert check.meaning
    return check


def test_a_bucket_that_is_not_there_is_named(moto: Server) -> None:
    check = the_service(moto.url(bucket="no-such-bucket"))
    assert "there is no bucket no-such-bucket" in check.result


def test_an_endpoint_where_nobody_listens_is_named() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    check = the_service(f"s3://bucket/x?endpoint={endpoint}&retries=0")
    assert endpoint in check.result
    assert not check.result.startswith("store")


def test_missing_credentials_are_told(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    check = the_service(moto.url(fresh()))
    assert "there are no credentials" in check.result
    assert "AWS_ACCESS_KEY_ID" in check.meaning


def test_wrong_credentials_are_told(rclone: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    check = the_service(rclone.url(fresh()))
    assert "signature does not match" in check.result
    assert "another" not in check.result + check.meaning


@pytest.mark.parametrize(
    ("off", "said", "severity"),
    [
        (0, "as the service's", Severity.OK),
        (60, "60 s behind the service's", Severity.OK),
        (-600, "600 s ahead of the service's", Severity.WARNING),
    ],
)
def test_a_clock_that_is_off_is_told(
    moto: Server, monkeypatch: pytest.MonkeyPatch, off: float, said: str, severity: Severity
) -> None:
    monkeypatch.setattr(doctor_s3, "service_time", lambda answer: time.time() + off)
    check = examined(moto)["clock"]
    assert (check.result, check.severity) == (said, severity)


# Services that lie or lack something

Call = Callable[..., Any]


def altered(
    monkeypatch: pytest.MonkeyPatch, operation: str, change: Callable[[Call, dict[str, Any]], Any]
) -> None:
    """Let *operation* be carried out by *change*, which is given the real one and its query."""
    real = Service.call

    def call(self: Service, name: str, about: str | None, **query: Any) -> Any:
        def act(**others: Any) -> Any:
            return real(self, name, about, **others)

        return change(act, query) if name == operation else act(**query)

    monkeypatch.setattr(Service, "call", call)


def refusing(status: int, code: str) -> Callable[[Call, dict[str, Any]], Any]:
    def change(act: Call, query: dict[str, Any]) -> Any:
        raise Refusal("s3://bucket", f"refused ({code})", status=status, code=code)

    return change


def test_a_service_that_denies_writing_can_be_restored_from(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    altered(monkeypatch, "put_object", refusing(403, "AccessDenied"))
    found = examined(moto)
    assert found["writable"].severity == Severity.PROBLEM
    assert "refused (AccessDenied)" in found["writable"].result
    assert "ranges" not in found


def test_a_service_that_ignores_the_condition_is_found_out(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ignoring(act: Call, query: dict[str, Any]) -> Any:
        query.pop("IfNoneMatch", None)
        return act(**query)

    altered(monkeypatch, "put_object", ignoring)
    check = examined(moto)["conditional writes"]
    assert check.severity == Severity.NOTE
    assert "ignored" in check.result
    assert "installed twice" in check.meaning
    check = examined(moto, conditional="on")["conditional writes"]
    assert check.severity == Severity.WARNING
    assert "conditional=off" in check.meaning


def test_a_service_that_does_not_know_the_condition_is_found_out(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuses(act: Call, query: dict[str, Any]) -> Any:
        if "IfNoneMatch" in query:
            raise Refusal("s3://bucket", "no", status=501, code="NotImplemented")
        return act(**query)

    altered(monkeypatch, "put_object", refuses)
    check = examined(moto)["conditional writes"]
    assert check.severity == Severity.NOTE
    assert check.result.startswith("refused")
    assert examined(moto, conditional="off")["conditional writes"].severity == Severity.NOTE


def test_a_url_that_says_less_than_the_service_does_is_told(moto: Server) -> None:
    check = examined(moto, conditional="off")["conditional writes"]
    assert check.severity == Severity.WARNING
    assert "conditional=on" in check.meaning


def test_a_service_that_ignores_ranges_is_a_problem(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    def whole(act: Call, query: dict[str, Any]) -> Any:
        query.pop("Range", None)
        return act(**query)

    altered(monkeypatch, "get_object", whole)
    found = examined(moto)
    assert found["ranges"].severity == Severity.PROBLEM
    assert "the whole object" in found["ranges"].result
    assert found["uploads in parts"].severity == Severity.PROBLEM


@pytest.mark.parametrize(
    ("operation", "name", "severity"),
    [
        ("copy_object", "copy", Severity.PROBLEM),
        ("create_multipart_upload", "uploads in parts", Severity.PROBLEM),
        ("upload_part", "uploads in parts", Severity.PROBLEM),
        ("complete_multipart_upload", "uploads in parts", Severity.PROBLEM),
        ("list_multipart_uploads", "unfinished uploads", Severity.NOTE),
    ],
)
def test_an_operation_that_a_service_lacks_is_told_with_what_it_means(
    moto: Server,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    name: str,
    severity: Severity,
) -> None:
    altered(monkeypatch, operation, refusing(501, "NotImplemented"))
    check = examined(moto)[name]
    assert check.severity == severity
    assert check.result == "no: refused (NotImplemented)"


def test_a_service_that_deletes_nothing_is_a_problem_and_what_is_left_is_named(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        altered(patch, "delete_object", refusing(403, "AccessDenied"))
        found = by_name(examine_store(moto.url(fresh())))
    assert found["deletion"].severity == Severity.PROBLEM
    assert found["clean-up"].severity == Severity.WARNING
    assert "/probes/doctor-" in found["clean-up"].result
    for key in keys(moto):
        moto.client().delete_object(Bucket=BUCKET, Key=key)


def test_a_slow_listing_is_warned_of(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = itertools.count()
    monkeypatch.setattr(doctor_s3.time, "monotonic", lambda: float(next(clock) * 3))
    check = doctor_s3._listing("store", {"Contents": [1, 2], "IsTruncated": True}, 3.0)
    assert check.severity == Severity.WARNING
    assert check.result == "2 and more objects in 3.00 s"
