"""A S3 service on its bad days: what is tried again, what is not, and what is never lost."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest

from cachepod.errors import CachepodError, ObjectMissing, SpaceExhausted, StoreUnreachable
from cachepod.stores.base import PruneStore, exists, put
from cachepod.stores.s3 import S3Store
from cachepod.stores.s3errors import Refusal
from cachepod.stores.s3url import MIB, S3Location
from cachepod.stores.wrappers import Patience, Retrying
from tests.support.s3 import SECRET, Server
from tests.support.s3proxy import Fault, Proxy, ignores, refuses_checksums

pytestmark = pytest.mark.usefixtures("credentials")
_numbers = itertools.count()

DATA = bytes(range(256)) * 16
BIG = bytes(range(256)) * (11 * MIB // 256)


def bare(proxy: Proxy, prefix: str = "", **parameters: object) -> S3Store:
    prefix = prefix or f"faults-{next(_numbers)}"
    url = Server(proxy.endpoint).url(prefix, **{"timeout": 20, **parameters})
    return S3Store(S3Location.parse(url), quick())


def hasty(store: S3Store, proxy: Proxy) -> S3Store:
    """*store* anew, for a test that waits for its patience to end."""
    return bare(proxy, S3Location.parse(store.url).prefix.rstrip("/"), timeout=1)


def quick() -> Patience:
    return Patience(attempts=3, delay=0.01, longest=0.02)


def patient(store: S3Store) -> Retrying:
    return Retrying(store, quick())


@pytest.fixture
def store(troubled: Proxy) -> S3Store:
    """Founded, and with an object; no faults yet."""
    store = bare(troubled)
    assert put(store, "packs/ab/there", DATA)
    troubled.requests.clear()
    return store


def read(store: PruneStore) -> None:
    assert store.read("packs/ab/there", limit=5000) == DATA


def read_range(store: PruneStore) -> None:
    buffer = bytearray(1000)
    store.read_range("packs/ab/there", 100, memoryview(buffer))
    assert buffer == DATA[100:1100]


def size(store: PruneStore) -> None:
    assert store.size("packs/ab/there") == len(DATA)


def list_objects(store: PruneStore) -> None:
    assert [info.name for info in store.list("packs")] == ["packs/ab/there"]


def create(store: PruneStore) -> None:
    assert put(store, "packs/ab/new", b"new")
    assert store.read("packs/ab/new", limit=5) == b"new"
    assert not put(store, "packs/ab/new", b"late")
    assert store.read("packs/ab/new", limit=5) == b"new"


def create_big(store: PruneStore) -> None:
    with store.create("packs/ab/big") as writer:
        for offset in range(0, len(BIG), 3 * MIB):
            writer.write(BIG[offset : offset + 3 * MIB])
        assert writer.commit()
    assert store.read("packs/ab/big", limit=len(BIG)) == BIG


def replace(store: PruneStore) -> None:
    store.replace("leases/k/1", b"old")
    store.replace("leases/k/1", b"new")
    assert store.read("leases/k/1", limit=5) == b"new"


def move(store: PruneStore) -> None:
    store.move("packs/ab/there", "trash/there")
    assert not exists(store, "packs/ab/there")
    assert store.read("trash/there", limit=5000) == DATA


def delete(store: PruneStore) -> None:
    store.delete("packs/ab/there")
    assert not exists(store, "packs/ab/there")


def sweep(store: PruneStore) -> None:
    left = store.create("packs/ab/left")
    left.write(BIG)
    (leftover,) = store.leftovers()
    assert leftover.name == "packs/ab/left"
    store.remove(leftover)
    assert list(store.leftovers()) == []


Act = Callable[[PruneStore], None]
ACTS: list[tuple[Act, str]] = [
    (read, "GetObject"),
    (read_range, "GetObject"),
    (size, "HeadObject"),
    (list_objects, "ListObjects"),
    (create, "PutObject"),
    (create_big, "CreateMultipartUpload"),
    (create_big, "UploadPart"),
    (create_big, "HeadObject"),
    (create_big, "CompleteMultipartUpload"),
    (replace, "PutObject"),
    (move, "CopyObject"),
    (move, "DeleteObject"),
    (delete, "DeleteObject"),
    (sweep, "ListMultipartUploads"),
    (sweep, "ListParts"),
    (sweep, "AbortMultipartUpload"),
]
each_request = pytest.mark.parametrize(
    ("act", "operation"), ACTS, ids=[f"{act.__name__}-{name}" for act, name in ACTS]
)
PASSING = {
    "overloaded": {"status": 503, "code": "SlowDown"},
    "internal": {"status": 500, "code": "InternalError"},
    "given-up": {"status": 524},
    "no-gateway": {"status": 502},
    "too-many": {"status": 429},
    "reset": {"reset": True},
    "silent": {"silent": True},
}


@each_request
@pytest.mark.parametrize("kind", ["overloaded", "given-up", "reset"])
def test_what_fails_once_is_done_again(
    store: S3Store, troubled: Proxy, act: Act, operation: str, kind: str
) -> None:
    troubled.faults.append(Fault(operation, times=1, **PASSING[kind]))  # type: ignore[arg-type]
    act(patient(store))
    assert troubled.faults[0].times == 0


@pytest.mark.parametrize("kind", ["internal", "no-gateway", "too-many", "silent"])
def test_so_is_what_fails_in_other_ways(store: S3Store, troubled: Proxy, kind: str) -> None:
    troubled.faults.append(Fault("GetObject", times=1, **PASSING[kind]))  # type: ignore[arg-type]
    read_range(patient(hasty(store, troubled)))
    assert troubled.faults[0].times == 0


@each_request
def test_a_request_whose_answer_is_lost_was_carried_out_once(
    store: S3Store, troubled: Proxy, act: Act, operation: str
) -> None:
    troubled.faults.append(Fault(operation, times=1, lost=True))
    act(patient(store))
    assert troubled.faults[0].times == 0


@each_request
def test_a_proxy_that_gives_up_on_a_request_that_is_carried_out_changes_nothing(
    store: S3Store, troubled: Proxy, act: Act, operation: str
) -> None:
    troubled.faults.append(Fault(operation, times=1, lost=True, status=524))
    act(patient(store))
    assert troubled.faults[0].times == 0


@each_request
def test_what_fails_for_ever_is_one_clear_error_and_leaves_what_was_there(
    store: S3Store, troubled: Proxy, act: Act, operation: str
) -> None:
    troubled.faults.append(Fault(operation, status=503, code="SlowDown"))
    with pytest.raises(StoreUnreachable, match="the service is overloaded") as caught:
        act(patient(store))
    assert caught.value.hint
    troubled.faults.clear()
    assert {info.name for info in store.list("packs")} <= {"packs/ab/there"}
    assert exists(store, "packs/ab/there") or exists(store, "trash/there") or act is delete


def test_a_failing_part_is_tried_as_often_as_anything_else_and_no_oftener(
    store: S3Store, troubled: Proxy
) -> None:
    troubled.faults.append(Fault("UploadPart", key="big", status=503, code="SlowDown"))
    with pytest.raises(StoreUnreachable):
        create_big(patient(store))
    assert troubled.operations()["UploadPart"] <= 3 * 3  # three parts, three attempts


def test_an_upload_that_fails_is_aborted(store: S3Store, troubled: Proxy) -> None:
    troubled.faults.append(Fault("UploadPart", key="big", skip=1, status=400, code="Nonsense"))
    with pytest.raises(StoreUnreachable, match="Nonsense"):
        create_big(patient(store))
    assert troubled.operations()["AbortMultipartUpload"] == 1
    assert list(store.leftovers()) == []


def test_an_upload_that_cannot_even_be_aborted_is_a_leftover_and_no_second_error(
    store: S3Store, troubled: Proxy
) -> None:
    troubled.faults.append(Fault("UploadPart", key="big", skip=1, status=400, code="Nonsense"))
    troubled.faults.append(Fault("AbortMultipartUpload", reset=True))
    with pytest.raises(StoreUnreachable, match="Nonsense"):
        create_big(patient(store))
    troubled.faults.clear()
    assert [leftover.name for leftover in store.leftovers()] == ["packs/ab/big"]


# Bodies


@pytest.mark.parametrize("act", [read, read_range])
@pytest.mark.parametrize("how", ["cut", "stall"])
def test_a_body_that_does_not_come_whole_is_asked_for_again(
    store: S3Store, troubled: Proxy, act: Act, how: str
) -> None:
    troubled.faults.append(Fault("GetObject", key="there", times=2, **{how: 500}))  # type: ignore[arg-type]
    act(patient(hasty(store, troubled)))
    assert troubled.faults[0].times == 0


@pytest.mark.parametrize("act", [read, read_range])
def test_a_body_that_never_comes_whole_is_an_error_that_says_so(
    store: S3Store, troubled: Proxy, act: Act
) -> None:
    troubled.faults.append(Fault("GetObject", key="there", cut=500))
    with pytest.raises(StoreUnreachable, match="broke off") as caught:
        act(patient(store))
    assert caught.value.transient


def test_a_service_that_ignores_ranges_is_told_and_its_bytes_are_not_taken(
    store: S3Store, troubled: Proxy
) -> None:
    troubled.faults.append(ignores("range"))
    with pytest.raises(StoreUnreachable, match="whole object") as caught:
        read_range(patient(store))
    assert "ranges" in caught.value.hint
    buffer = bytearray(len(DATA))
    store.read_range("packs/ab/there", 0, memoryview(buffer))  # the whole is what was asked for
    assert buffer == DATA


def test_a_range_other_than_the_one_asked_for_is_not_taken(store: S3Store, troubled: Proxy) -> None:
    troubled.faults.append(
        Fault("GetObject", key="there", status=206, headers={"Content-Range": "bytes 0-999/4096"})
    )
    with pytest.raises(StoreUnreachable, match="bytes 0-999/4096"):
        read_range(store)


# Creates


def test_whether_creates_are_exclusive_is_found_out_once_and_remembered(
    troubled: Proxy,
) -> None:
    first = bare(troubled, prefix := f"probed-{next(_numbers)}")
    assert first.exclusive
    assert troubled.operations()["PutObject"] == 3
    assert first.exclusive
    assert put(first, "packs/x", b"1")
    troubled.requests.clear()
    assert bare(troubled, prefix).exclusive
    assert troubled.operations()["PutObject"] == 0


def test_a_service_that_ignores_if_none_match_is_found_out(troubled: Proxy) -> None:
    troubled.faults.append(ignores("if-none-match"))
    prefix = f"probed-{next(_numbers)}"
    assert not bare(troubled, prefix).exclusive
    troubled.requests.clear()
    second = bare(troubled, prefix)
    assert not second.exclusive
    assert troubled.operations()["PutObject"] == 0
    create(second)
    create_big(second)


@pytest.mark.parametrize("status", [400, 501])
def test_so_is_one_that_refuses_it(troubled: Proxy, status: int) -> None:
    troubled.faults.append(
        Fault(
            when=lambda request: "if-none-match" in request.headers,
            status=status,
            code="NotImplemented",
        )
    )
    store = bare(troubled)
    assert not store.exclusive
    create(store)
    create_big(store)


def test_a_reader_never_asks_whether_creates_are_exclusive(store: S3Store, troubled: Proxy) -> None:
    reader = bare(troubled, S3Location.parse(store.url).prefix.rstrip("/"))
    read(reader)
    read_range(reader)
    size(reader)
    assert troubled.operations() == {"GetObject": 3, "HeadObject": 1}


def test_a_damaged_memory_of_it_is_made_anew(store: S3Store, troubled: Proxy) -> None:
    (record,) = store.list("probes")
    for content in (b"", b"{", b"[]", b'{"if_none_match": null}', b"x" * 9000):
        store.replace(record.name, content)
        assert bare(troubled, S3Location.parse(store.url).prefix.rstrip("/")).exclusive
        assert b"true" in store.read(record.name, limit=1000)


@pytest.mark.parametrize("ignored", [(), ("if-none-match",)])
@pytest.mark.parametrize("data", [b"mine", BIG])
def test_a_commit_is_first_though_its_answer_was_lost_and_another_s_is_not(
    troubled: Proxy, ignored: tuple[str, ...], data: bytes
) -> None:
    if ignored:
        troubled.faults.append(ignores(*ignored))
    store = bare(troubled)
    put(store, "packs/x", b"founds the store")
    for operation in ("PutObject", "CompleteMultipartUpload"):
        troubled.faults.insert(0, Fault(operation, key="ours", times=1, lost=True))
    ours = patient(store).create("packs/ab/ours")
    ours.write(data)
    assert ours.commit()
    assert store.size("packs/ab/ours") == len(data)
    late = patient(store).create("packs/ab/ours")
    late.write(data[::-1])
    assert not late.commit()


@pytest.mark.parametrize("data", [b"mine", BIG])
def test_a_commit_that_times_out_and_was_carried_out_is_first(
    store: S3Store, troubled: Proxy, data: bytes
) -> None:
    for operation in ("PutObject", "CompleteMultipartUpload"):
        troubled.faults.append(Fault(operation, key="ours", times=1, lost=True, silent=True))
    assert put(patient(hasty(store, troubled)), "packs/ab/ours", data)
    assert store.size("packs/ab/ours") == len(data)
    completed = troubled.operations()["CompleteMultipartUpload"]
    assert completed == (len(data) > 5 * MIB)  # found by a HeadObject, not done again


def test_a_retried_commit_that_another_was_quicker_than_is_not_first(
    store: S3Store, troubled: Proxy
) -> None:
    writer = patient(store).create("packs/ab/x")
    writer.write(b"slow")
    put(store, "packs/ab/x", b"fast")
    troubled.faults.append(Fault("PutObject", times=1, status=503))
    assert not writer.commit()
    assert store.read("packs/ab/x", limit=10) == b"fast"


def test_an_upload_that_somebody_swept_away_is_an_error_not_an_object(
    store: S3Store, troubled: Proxy
) -> None:
    writer = store.create("packs/ab/big")
    writer.write(BIG)
    sweeper = patient(store)  # parts may be on their way, which not every service takes well
    for leftover in sweeper.leftovers():
        sweeper.remove(leftover)
    with pytest.raises(StoreUnreachable):
        writer.commit()
    writer.abort()
    assert not exists(store, "packs/ab/big")


def test_a_conflict_of_two_conditional_creates_is_tried_again(
    store: S3Store, troubled: Proxy
) -> None:
    troubled.faults.append(
        Fault("PutObject", times=1, status=409, code="ConditionalRequestConflict")
    )
    create(patient(store))


# Full, too large, not known


@pytest.mark.parametrize(
    ("status", "code"), [(507, ""), (507, "InsufficientStorage"), (403, "QuotaExceeded")]
)
@pytest.mark.parametrize("act", [create, create_big, replace])
def test_a_full_service_is_no_space_and_not_tried_again(
    store: S3Store, troubled: Proxy, act: Act, status: int, code: str
) -> None:
    for operation in ("PutObject", "UploadPart"):
        troubled.faults.append(Fault(operation, status=status, code=code))
    with pytest.raises(SpaceExhausted, match="no space left") as caught:
        act(patient(store))
    assert "prune" in caught.value.hint
    assert troubled.operations()["PutObject"] <= 1
    troubled.faults.clear()
    assert [info.name for info in store.list("packs")] == ["packs/ab/there"]
    assert list(store.leftovers()) == []


@pytest.mark.parametrize("act", [create, create_big])
def test_a_request_that_is_too_large_is_told_with_the_parameter_that_helps(
    store: S3Store, troubled: Proxy, act: Act
) -> None:
    for operation in ("PutObject", "UploadPart"):
        troubled.faults.append(Fault(operation, status=413))
    with pytest.raises(StoreUnreachable, match="of this size") as caught:
        act(patient(store))
    assert "part_size" in caught.value.hint


@pytest.mark.parametrize("status", [405, 501])
def test_a_service_that_cannot_list_uploads_has_no_leftovers(
    store: S3Store, troubled: Proxy, status: int
) -> None:
    troubled.faults.append(Fault("ListMultipartUploads", status=status, code="NotImplemented"))
    assert list(store.leftovers()) == []


def test_a_service_that_rejects_the_checksums_of_boto3_works(troubled: Proxy) -> None:
    troubled.faults.append(refuses_checksums())
    store = bare(troubled)
    for act in (create, create_big, replace, sweep):
        act(store)


def test_checksums_that_were_asked_for_and_are_refused_are_told(troubled: Proxy) -> None:
    troubled.faults.append(refuses_checksums())
    with pytest.raises(StoreUnreachable) as caught:
        create(bare(troubled, checksums="on", conditional="off"))
    assert "checksums" in caught.value.hint


def test_with_checksums_everything_works_where_the_service_has_them(troubled: Proxy) -> None:
    store = bare(troubled, checksums="on")
    put(store, "packs/ab/there", DATA)
    for act in (read, read_range, create, create_big, replace, sweep):
        act(patient(store))
    assert any(
        name.startswith("x-amz-checksum")
        for request in troubled.requests
        for name in request.headers
    )


def test_with_checksums_a_wrong_byte_on_the_way_is_noticed(troubled: Proxy) -> None:
    store = bare(troubled, checksums="on")
    put(store, "packs/ab/there", DATA)
    troubled.faults.append(Fault("GetObject", key="there", times=1, flip=10))
    with pytest.raises(StoreUnreachable, match="not whole"):
        store.read("packs/ab/there", limit=len(DATA))
    troubled.faults.append(Fault("GetObject", key="there", times=1, flip=10))
    read(patient(store))


def test_an_upload_that_arrives_altered_is_refused_by_the_service_that_checks_it(
    store: S3Store, troubled: Proxy
) -> None:
    troubled.faults.append(
        Fault("PutObject", times=1, status=400, code="XAmzContentSHA256Mismatch")
    )
    create(patient(store))
    sent = [each for each in troubled.requests if each.operation == "PutObject"]
    assert all(len(each.headers["x-amz-content-sha256"]) == 64 for each in sent)


# Words

REFUSALS = [
    (403, "AccessDenied", {}, "access is denied", "s3:ListBucket"),
    (403, "InvalidAccessKeyId", {}, "does not know the access key", "AWS_ACCESS_KEY_ID"),
    (403, "SignatureDoesNotMatch", {}, "signature does not match", "AWS_SECRET_ACCESS_KEY"),
    (400, "ExpiredToken", {}, "credentials have expired", "new ones"),
    (400, "InvalidToken", {}, "session token", "new credentials"),
    (403, "RequestTimeTooSkewed", {}, "this machine's clock", "set the clock"),
    (404, "NoSuchBucket", {}, "there is no bucket bucket at http", "endpoint"),
    (301, "PermanentRedirect", {}, "another region", "region="),
    (
        *(301, "PermanentRedirect", {"x-amz-bucket-region": "eu-west-1"}),
        *("the region eu-west-1", "region=eu-west-1"),
    ),
    (400, "AuthorizationHeaderMalformed", {}, "another region", "region="),
    (501, "NotImplemented", {}, "cannot do this", "doctor"),
    (418, "Teapot", {}, "418 Teapot", "endpoint"),
]


@pytest.mark.parametrize(
    ("status", "code", "headers", "why", "hint"), REFUSALS, ids=[f"{r[0]}-{r[1]}" for r in REFUSALS]
)
def test_a_refusal_says_what_is_wrong_and_what_to_do_and_is_not_tried_again(
    troubled: Proxy, status: int, code: str, headers: dict[str, str], why: str, hint: str
) -> None:
    troubled.faults.append(Fault(status=status, code=code, headers=headers))
    store = patient(bare(troubled))
    with pytest.raises(Refusal) as caught:
        store.read("packs/x", limit=10)
    assert caught.value.code == code
    assert why in str(caught.value)
    assert hint in caught.value.hint
    assert SECRET not in str(caught.value) + caught.value.hint
    assert not caught.value.transient
    assert len([r for r in troubled.requests if r.operation == "GetObject"]) <= 2


@pytest.mark.parametrize(
    ("off", "words"), [(7200, "is 120 minutes behind"), (-3600, "is 60 minutes ahead of")]
)
def test_a_wrong_clock_is_told_with_how_wrong_it_is(
    troubled: Proxy, off: float, words: str
) -> None:
    troubled.faults.append(Fault(status=403, code="RequestTimeTooSkewed", clock=off))
    with pytest.raises(StoreUnreachable, match=words):
        bare(troubled).size("packs/x")


def test_a_refusal_without_a_body_is_told_by_its_status(store: S3Store, troubled: Proxy) -> None:
    troubled.faults.append(Fault("HeadObject", status=403))
    with pytest.raises(StoreUnreachable, match="access is denied"):
        store.size("packs/ab/there")


def test_what_does_not_answer_as_a_s3_service_is_told(troubled: Proxy) -> None:
    troubled.faults.append(Fault(status=200, code="<not xml"))
    store = bare(troubled)
    with pytest.raises(CachepodError) as caught:
        list(store.list("packs"))
    assert caught.value.exit_code == 5
    assert "\n" not in str(caught.value)


def test_a_missing_bucket_is_not_an_empty_store(moto: Server) -> None:
    store = S3Store(S3Location.parse(moto.url("x", bucket="no-such-bucket")))
    for call in (
        lambda: store.read("packs/x", limit=1),
        lambda: store.size("packs/x"),
        lambda: list(store.list("packs")),
        lambda: put(store, "packs/x", b""),
        lambda: store.delete("packs/x"),
    ):
        with pytest.raises(StoreUnreachable, match="no bucket no-such-bucket"):
            call()


def test_wrong_keys_are_told_apart_by_a_service_that_checks_them(
    rclone: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Store(S3Location.parse(rclone.url("x")))
    with pytest.raises(ObjectMissing):
        store.size("packs/x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreUnreachable, match="signature does not match"):
        S3Store(S3Location.parse(rclone.url("x"))).size("packs/x")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIANOBODYNOBODYNOBO")
    with pytest.raises(StoreUnreachable, match="does not know the access key"):
        S3Store(S3Location.parse(rclone.url("x"))).size("packs/x")
