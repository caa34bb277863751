"""The way to a S3 service: credentials, names, connections, processes; and what the store keeps."""

from __future__ import annotations

import http.client
import itertools
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cachepod.errors import NewerFormat, ObjectMissing, StoreUnreachable
from cachepod.stores.base import exists, put
from cachepod.stores.local import LocalStore
from cachepod.stores.s3 import S3Store, upload_size
from cachepod.stores.s3url import MIB, S3Location
from cachepod.stores.url import open_store
from tests.support.s3 import BUCKET, SECRET, Server, environment, free_port, rclone_server
from tests.support.s3proxy import Fault, Proxy, proxy

pytestmark = pytest.mark.usefixtures("credentials")
_numbers = itertools.count()
NAME = "packs/ab/abcdef"


def prefix() -> str:
    return f"service-{next(_numbers)}"


def at(url: str) -> S3Store:
    return S3Store(S3Location.parse(url))


def refusal_of(store: S3Store) -> StoreUnreachable:
    with pytest.raises(StoreUnreachable) as caught:
        store.size(NAME)
    assert SECRET not in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 5
    return caught.value


# Connections


def test_an_endpoint_where_nothing_listens_is_told() -> None:
    endpoint = f"http://127.0.0.1:{free_port()}"
    error = refusal_of(at(f"s3://bucket?endpoint={endpoint}"))
    assert f"nothing listens at {endpoint}" in str(error)
    assert error.transient


def test_a_name_that_cannot_be_resolved_is_told() -> None:
    error = refusal_of(at("s3://bucket?endpoint=http://no-such-host.invalid"))
    assert "the name no-such-host.invalid cannot be resolved" in str(error)


@pytest.fixture
def deaf() -> Iterator[str]:
    """An endpoint that accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"


def test_a_service_that_does_not_answer_is_given_up_on(deaf: str) -> None:
    error = refusal_of(at(f"s3://bucket?endpoint={deaf}&timeout=1"))
    assert "did not answer within 1 s" in str(error)
    assert error.transient


@pytest.fixture
def rude() -> Iterator[str]:
    """An endpoint that speaks another protocol."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            client.sendall(b"220 mail.example ESMTP\r\n")
            client.close()

    threading.Thread(target=serve, daemon=True).start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_an_endpoint_that_is_no_web_server_is_told(rude: str) -> None:
    assert "broke off" in str(refusal_of(at(f"s3://bucket?endpoint=http://{rude}")))


def test_an_endpoint_without_tls_is_told(moto: Server) -> None:
    endpoint = moto.endpoint.replace("http://", "https://")
    error = refusal_of(at(f"s3://bucket?endpoint={endpoint}"))
    assert "does not speak TLS" in str(error)
    assert "http://" in error.hint
    assert not error.transient


def test_an_endpoint_that_goes_down_in_the_middle_is_told_and_found_again() -> None:
    with rclone_server() as server, proxy(server.endpoint) as front:
        store = at(Server(front.endpoint).url("x"))
        put(store, NAME, b"there")
        buffer = memoryview(bytearray(5))
        store.read_range(NAME, 0, buffer)
        os.kill(server.pid, signal.SIGSTOP)
        try:
            slow = at(Server(front.endpoint).url("x", timeout=1))
            assert "did not answer" in str(refusal_of(slow))
        finally:
            os.kill(server.pid, signal.SIGCONT)
        store.read_range(NAME, 0, buffer)
        assert bytes(buffer) == b"there"
        front.close()
        assert refusal_of(store).transient


def test_the_bucket_stands_in_the_path_or_in_the_host_as_it_is_asked_for(
    troubled: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolve = socket.getaddrinfo
    monkeypatch.setattr(
        socket, "getaddrinfo", lambda host, *more, **named: resolve("127.0.0.1", *more, **named)
    )
    endpoint = troubled.endpoint.replace("127.0.0.1", "s3.example.com")
    troubled.faults.append(Fault(status=404, code="NoSuchKey"))
    for addressing in ("path", "virtual"):
        with pytest.raises(ObjectMissing):
            at(f"s3://pods/a?endpoint={endpoint}&addressing={addressing}").size(NAME)
    by_path, _, by_host, _ = troubled.requests
    port = endpoint.rpartition(":")[2]
    assert by_path.headers["host"] == f"s3.example.com:{port}"
    assert by_path.target == "/pods/a/cachepod.json"
    assert by_host.headers["host"] == f"pods.s3.example.com:{port}"
    assert by_host.target == "/a/cachepod.json"


def test_requests_are_signed_for_the_region_that_is_given(troubled: Proxy) -> None:
    url = Server(troubled.endpoint).url(prefix(), region="eu-north-7")
    with pytest.raises(ObjectMissing):
        at(url).size(NAME)
    assert "/eu-north-7/s3/" in troubled.requests[0].headers["authorization"]


def test_a_body_goes_from_the_connection_into_the_buffer(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = at(moto.url(prefix()))
    put(store, NAME, b"x" * 100_000)
    filled: list[int] = []
    readinto = http.client.HTTPResponse.readinto

    def count(self: http.client.HTTPResponse, into: memoryview) -> int:
        filled.append(readinto(self, into))
        return filled[-1]

    monkeypatch.setattr(http.client.HTTPResponse, "readinto", count)
    store.read_range(NAME, 0, memoryview(bytearray(90_000)))
    assert sum(filled) == 90_000


def test_connections_are_used_again(rclone: Server) -> None:
    with proxy(rclone.endpoint) as front:  # moto closes each after one answer
        store = at(Server(front.endpoint).url(prefix()))
        put(store, NAME, b"x" * 1000)
        for _ in range(5):
            store.read(NAME, limit=1000)
            store.read_range(NAME, 0, memoryview(bytearray(10)))
            store.size(NAME)
            list(store.list("packs"))
            with pytest.raises(ObjectMissing):
                store.size("packs/ab/other")
        assert front.connections == 1


# Credentials


def test_without_credentials_it_is_told_how_to_give_them(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    error = refusal_of(at(moto.url(prefix())))
    assert "there are no credentials" in str(error)
    assert "AWS_ACCESS_KEY_ID" in error.hint


def test_half_of_the_credentials_is_told(moto: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert "credentials are not complete" in str(refusal_of(at(moto.url(prefix()))))


def test_a_profile_that_is_not_there_is_told(moto: Server) -> None:
    assert "no profile nobody" in str(refusal_of(at(moto.url(prefix(), profile="nobody"))))


def test_a_profile_gives_the_credentials_and_the_region(
    rclone: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = environment()
    (tmp_path / "credentials").write_text(
        f"[pod]\naws_access_key_id = {variables['AWS_ACCESS_KEY_ID']}\n"
        f"aws_secret_access_key = {variables['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert put(at(rclone.url(prefix(), profile="pod")), NAME, b"x")


def test_a_broken_configuration_file_is_told(
    moto: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "config").write_text("no section\n")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    assert "configuration cannot be read" in str(refusal_of(at(moto.url(prefix()))))


def test_the_endpoint_may_come_from_boto3_s_own_settings(
    moto: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", moto.endpoint)
    name = prefix()
    assert put(at(f"s3://bucket/{name}?addressing=path"), NAME, b"x")
    assert moto.client().head_object(Bucket=BUCKET, Key=f"{name}/{NAME}")["ContentLength"] == 1


# What the store keeps


def keys(server: Server, prefix: str) -> list[str]:
    answer = server.client().list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/")
    return [found["Key"].removeprefix(f"{prefix}/") for found in answer.get("Contents", ())]


def test_the_first_write_makes_the_store_and_reading_makes_nothing(moto: Server) -> None:
    name = prefix()
    store = at(moto.url(name))
    assert list(store.list("packs")) == []
    assert not exists(store, NAME)
    store.delete(NAME)
    assert keys(moto, name) == []
    put(store, NAME, b"x")
    assert {"cachepod.json", "CACHEDIR.TAG", NAME} < set(keys(moto, name))


def test_what_a_directory_holds_and_what_a_bucket_holds_is_the_same(
    moto: Server, tmp_path: Path
) -> None:
    name = prefix()
    stores = (at(moto.url(name)), LocalStore(tmp_path / "store"))
    for store in stores:
        put(store, NAME, b"x" * 10)
        store.replace("leases/k/1", b"y")
    directory = tmp_path / "store"
    held = {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }
    found = {key for key in keys(moto, name) if not key.startswith("probes/")}
    assert found == set(held)
    client = moto.client()
    for key in found:
        assert client.get_object(Bucket=BUCKET, Key=f"{name}/{key}")["Body"].read() == held[key]


def test_a_volume_is_one_store_as_a_directory_and_through_s3() -> None:
    with rclone_server() as server:
        through = at(server.url("cachepod"))
        mounted = LocalStore(server.directory / BUCKET / "cachepod")
        put(mounted, "packs/ab/one", b"1")
        put(through, "packs/ab/two", b"2")
        assert through.read("packs/ab/one", limit=9) == b"1"
        assert mounted.read("packs/ab/two", limit=9) == b"2"
        assert not put(through, "packs/ab/one", b"3")
        assert not put(mounted, "packs/ab/two", b"3")
        names = {info.name for info in through.list("packs")}
        assert (
            names
            == {info.name for info in mounted.list("packs")}
            == {
                "packs/ab/one",
                "packs/ab/two",
            }
        )
        unfinished = mounted.create("packs/ab/three")
        unfinished.write(b"3")
        assert {info.name for info in through.list("packs")} == names
        unfinished.abort()


def test_a_bucket_without_a_prefix_is_a_store(moto: Server) -> None:
    moto.client().create_bucket(Bucket="whole-bucket")
    store = at(moto.url("", bucket="whole-bucket"))
    put(store, NAME, b"x")
    assert [info.name for info in store.list("packs")] == [NAME]
    assert list(store.leftovers()) == []


def test_keys_that_are_no_names_are_not_listed(moto: Server) -> None:
    name = prefix()
    store = at(moto.url(name))
    put(store, NAME, b"x")
    for key in ("packs/", "packs/ab/", "packs/ab/.tmp-h-1-0", "packs/a b", "packs//x", "packsx/y"):
        moto.client().put_object(Bucket=BUCKET, Key=f"{name}/{key}", Body=b"")
    assert [info.name for info in store.list("packs")] == [NAME]


def test_a_listing_of_many_pages_is_whole(moto: Server) -> None:
    name = prefix()
    store = at(moto.url(name))
    client = moto.client()
    for i in range(1005):
        client.put_object(Bucket=BUCKET, Key=f"{name}/uses/k/{i:04}", Body=b"")
    assert sorted(info.name for info in store.list("uses")) == [
        f"uses/k/{i:04}" for i in range(1005)
    ]


@pytest.mark.parametrize(
    ("call"),
    [
        lambda store: store.read(NAME, limit=1),
        lambda store: store.read_range(NAME, 0, memoryview(bytearray(1))),
        lambda store: store.size(NAME),
        lambda store: list(store.list("packs")),
        lambda store: store.create(NAME),
        lambda store: store.replace(NAME, b""),
        lambda store: store.move(NAME, "trash/x"),
        lambda store: store.delete(NAME),
        lambda store: list(store.leftovers()),
        lambda store: store.exclusive,
    ],
)
def test_a_store_of_a_newer_format_is_a_miss_for_every_call(
    moto: Server, call: Callable[[S3Store], object]
) -> None:
    name = prefix()
    document = b'{"store": "cachepod", "format": 2}'
    moto.client().put_object(Bucket=BUCKET, Key=f"{name}/cachepod.json", Body=document)
    with pytest.raises(NewerFormat):
        call(at(moto.url(name)))
    assert keys(moto, name) == ["cachepod.json"]


@pytest.mark.parametrize("content", [b"", b"{", b'{"format": 0}', b"[1]", b"x" * 70_000])
def test_a_format_that_cannot_be_read_is_an_error_with_advice(moto: Server, content: bytes) -> None:
    name = prefix()
    moto.client().put_object(Bucket=BUCKET, Key=f"{name}/cachepod.json", Body=content)
    error = refusal_of(at(moto.url(name)))
    assert "which format" in str(error)
    assert f"s3://bucket/{name}/cachepod.json" in error.hint


def test_an_exact_read_lists_nothing(troubled: Proxy) -> None:
    url = Server(troubled.endpoint).url(prefix())
    put(at(url), NAME, b"x" * 100)
    troubled.requests.clear()
    store = open_store(url)
    store.read(NAME, limit=100)
    store.read_range(NAME, 5, memoryview(bytearray(5)))
    store.size(NAME)
    assert set(troubled.operations()) == {"GetObject", "HeadObject"}


def test_deletions_are_of_one_key_each(troubled: Proxy) -> None:
    store = at(Server(troubled.endpoint).url(prefix()))
    for i in range(3):
        put(store, f"packs/ab/{i}", b"")
        store.delete(f"packs/ab/{i}")
    assert troubled.operations()["DeleteObject"] == 3
    assert troubled.operations()["DeleteObjects"] == 0


# Uploads


def test_parts_are_of_one_size_but_the_last_and_go_in_parallel(troubled: Proxy) -> None:
    store = at(Server(troubled.endpoint).url(prefix()))
    put(store, "packs/x", b"founds the store")
    troubled.requests.clear()
    data = os.urandom(17 * MIB)
    with store.create(NAME) as writer:
        for offset in range(0, len(data), 3 * MIB + 7):
            writer.write(data[offset : offset + 3 * MIB + 7])
        assert writer.commit()
    sizes = sorted(
        int(request.headers["content-length"])
        for request in troubled.requests
        if request.operation == "UploadPart"
    )
    assert sizes == [2 * MIB, 5 * MIB, 5 * MIB, 5 * MIB]
    found = memoryview(bytearray(len(data)))
    store.read_range(NAME, 0, found)
    assert found == data


def test_an_object_of_one_part_at_most_is_one_request(troubled: Proxy) -> None:
    store = at(Server(troubled.endpoint).url(prefix()))
    put(store, "packs/x", b"founds the store")
    troubled.requests.clear()
    assert put(store, NAME, bytes(5 * MIB))
    assert troubled.operations() == {"PutObject": 1}


def test_parts_on_their_way_are_bounded(troubled: Proxy) -> None:
    store = at(Server(troubled.endpoint).url(prefix()))
    uploads = store._writers()
    gate = threading.Event()
    for _ in range(uploads.at_once):
        uploads.submit(lambda: gate.wait(60))
    waiting = threading.Thread(target=lambda: uploads.submit(lambda: None), daemon=True)
    waiting.start()
    waiting.join(0.2)
    assert waiting.is_alive()
    gate.set()
    waiting.join(60)
    assert not waiting.is_alive()


def test_parts_fit_into_the_memory_that_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def limits(cores: int, memory: int) -> tuple[int, int]:
        monkeypatch.setattr("cachepod.stores.s3.cores", lambda: cores)
        monkeypatch.setattr("cachepod.stores.s3.memory", lambda: memory)
        return upload_size(0)

    assert limits(2, 24 << 30) == (16 * MIB, 8)
    assert limits(2, 1 << 30) == (16 * MIB, 8)
    assert limits(2, 512 << 20) == (8 * MIB, 13)
    assert limits(1, 128 << 20) == (8 * MIB, 2)
    assert limits(64, 256 << 30) == (16 * MIB, 16)
    assert upload_size(5 * MIB)[0] == 5 * MIB
    limits(2, 1 << 30)
    assert upload_size(64 * MIB) == (64 * MIB, 2)


# Processes


def _read_in_child(store: S3Store, answer: object) -> None:
    buffer = bytearray(5)
    store.read_range(NAME, 0, memoryview(buffer))
    put(store, f"packs/ab/{os.getpid()}", bytes(6 * MIB))
    answer.put((bytes(buffer), store.size(f"packs/ab/{os.getpid()}")))  # type: ignore[attr-defined]


def test_a_forked_child_may_go_on_with_the_store(rclone: Server) -> None:
    store = at(rclone.url(prefix()))
    put(store, NAME, b"there")
    put(store, "packs/ab/big", bytes(6 * MIB))
    context = multiprocessing.get_context("fork")
    answer = context.Queue()
    children = [context.Process(target=_read_in_child, args=(store, answer)) for _ in range(3)]
    for child in children:
        child.start()
    results = [answer.get(timeout=60) for _ in children]
    for child in children:
        child.join(60)
        assert child.exitcode == 0
    assert results == [(b"there", 6 * MIB)] * 3
    buffer = bytearray(5)
    store.read_range(NAME, 0, memoryview(buffer))
    assert buffer == b"there"


_WRITER = """
import sys
from cachepod.stores.url import open_store
store = open_store(sys.argv[1])
with store.create("packs/ab/killed") as writer:
    writer.write(bytes(11 << 20))
    print("written", flush=True)
    sys.stdin.read()
    writer.commit()
"""


@pytest.mark.parametrize("service", ["moto", "rclone"])
def test_a_writer_that_was_killed_leaves_a_leftover_and_no_object(
    service: str, request: pytest.FixtureRequest
) -> None:
    url = request.getfixturevalue(service).url(prefix())
    store = open_store(url)
    put(store, NAME, b"there")
    child = subprocess.Popen(
        [sys.executable, "-c", _WRITER, url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "written\n"
    child.kill()
    child.communicate()
    assert [info.name for info in store.list("packs")] == [NAME]
    with pytest.raises(ObjectMissing):
        store.size("packs/ab/killed")
    (leftover,) = store.leftovers()
    assert leftover.name == "packs/ab/killed"
    store.remove(leftover)
    assert list(store.leftovers()) == []
    assert put(store, "packs/ab/killed", b"another may write it")


def test_of_several_processes_that_create_one_name_one_is_first(moto: Server) -> None:
    url = moto.url(prefix())
    put(open_store(url), "packs/x", b"founds the store")
    program = (
        "import os, sys; from cachepod.stores.url import open_store; "
        "from cachepod.stores.base import put; store = open_store(sys.argv[1]); "
        "store.exclusive; print(flush=True); sys.stdin.readline(); "
        "print(put(store, 'leases/k/1', str(os.getpid()).encode()))"
    )
    children = [
        subprocess.Popen(
            [sys.executable, "-c", program, url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    said = [child.communicate(timeout=60)[0].strip() for child in children]
    assert sorted(said) == ["False", "False", "False", "True"]
    winner = children[said.index("True")].pid
    assert open_store(url).read("leases/k/1", limit=20) == str(winner).encode()
