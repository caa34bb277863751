"""Snapshots in a S3 service, and every way in which such a store cannot be used, for a user."""

from __future__ import annotations

import itertools
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from cachepod.model.names import STORE_FORMAT
from cachepod.stores.s3url import S3Location
from tests.support.cli import Result, cachepod, environment, start, wait_until
from tests.support.project import Project
from tests.support.s3 import BUCKET, SECRET, Server, free_port
from tests.support.s3 import environment as credentials
from tests.support.s3proxy import Fault, Proxy

KEY = "data-1"
_numbers = itertools.count()


@pytest.fixture(params=["moto", "rclone"])
def server(request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    (directory / "sub").mkdir(parents=True)
    (directory / "big.bin").write_bytes(os.urandom(7 << 20))
    (directory / "sub" / "text").write_text("text\n" * 100)
    (directory / "link").symlink_to("sub/text")
    return directory


def prefix() -> str:
    return f"cli-{next(_numbers)}"


class Pod:
    """Somebody who runs commands on the tree ``data`` and one store."""

    def __init__(self, folder: Path, url: str, env: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.url = url
        self.env = {**credentials(), **(env or {})}

    def __call__(self, *words: str) -> Result:
        result = cachepod(*words, "--store", self.url, cwd=self.folder, env=self.env)
        assert SECRET not in result.out + result.err
        assert "Traceback" not in result.err
        return result

    def publish(self, *words: str) -> Result:
        return self("publish", "--tree", "data=data", "--key", KEY, *words)

    def restore(self, *words: str) -> Result:
        return self("restore", "--tree", "data=data", "--key", KEY, "--wait", "0", *words)


def contents(directory: Path) -> dict[str, bytes | str]:
    return {
        str(path.relative_to(directory)): os.readlink(path)
        if path.is_symlink()
        else path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if (path.is_file() or path.is_symlink()) and ".cachepod" not in path.parts
    }


def stored(server: Server, url: str) -> int:
    """Bytes of the packs of a store."""
    root = f"{url.removeprefix(f's3://{BUCKET}/').partition('?')[0]}/packs/"
    listed = server.client().list_objects_v2(Bucket=BUCKET, Prefix=root)
    return sum(found["Size"] for found in listed["Contents"])


def remove(directory: Path) -> None:
    directory.rename(directory.parent / f"gone-{next(_numbers)}")


def test_a_tree_comes_back_as_it_was_and_every_reading_command_works(
    server: Server, tree: Path
) -> None:
    pod = Pod(tree.parent, server.url(prefix()))
    before = contents(tree)
    result = pod.publish()
    assert (result.code, result.err) == (0, result.err)
    assert f"stored in {pod.url}" in result.err
    remove(tree)
    assert pod.restore().code == 0
    assert contents(tree) == before
    assert "confirmed" in pod.restore().err
    assert pod.publish().code == 0
    (tree / "sub" / "text").write_text("other\n")
    second = pod("publish", "--tree", "data=data", "--key", "data-2")
    assert second.code == 0
    assert KEY in pod("ls").out
    assert KEY in pod("show", KEY).out
    diff = pod("diff", KEY, "data-2")
    assert diff.code == 0
    assert "text" in diff.out
    verify = pod("verify")
    assert (verify.code, "verified 2 snapshots" in verify.err) == (0, True)
    assert pod("doctor").code == 0
    shown = pod("config")
    assert pod.url in shown.out


def test_the_second_snapshot_stores_only_what_is_new(server: Server, tree: Path) -> None:
    pod = Pod(tree.parent, server.url(prefix()))
    assert pod.publish().code == 0
    (tree / "new.bin").write_bytes(os.urandom(100_000))
    before = stored(server, pod.url)
    assert pod("publish", "--tree", "data=data", "--key", "data-2").code == 0
    assert 100_000 < stored(server, pod.url) - before < 200_000


def test_a_key_that_is_not_there_is_a_miss(server: Server, tree: Path) -> None:
    pod = Pod(tree.parent, server.url(prefix()))
    remove(tree)
    assert pod.restore().code == 3


def test_an_exact_hit_lists_nothing(troubled: Proxy, tree: Path) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    assert pod.publish().code == 0
    remove(tree)
    troubled.requests.clear()
    assert pod.restore().code == 0
    assert troubled.operations()["GetObject"] >= 3
    assert troubled.operations()["ListObjects"] == 0
    asked = [each.key.partition("/")[2].partition("/")[0] for each in troubled.requests]
    until = len(asked) - asked[::-1].index("packs")
    assert set(asked[:until]) == {"cachepod.json", "manifests", "packs"}


def restored_from(proxy: Proxy, project: Project) -> None:
    """A project whose environment has just come from the service behind *proxy*."""
    project.env.update(credentials(), CACHEPOD_STORE=Server(proxy.endpoint).url(prefix()))
    project.ready()
    remove(project.prefix)
    assert project.run("restore").code == 0
    proxy.requests.clear()


def test_the_publish_of_the_same_hook_asks_nothing_after_a_hit(
    troubled: Proxy, project: Project
) -> None:
    restored_from(troubled, project)
    published = project.run("publish")
    assert published.code == 0
    assert "present in s3://" in published.err
    assert troubled.requests == []


def test_a_service_that_goes_down_after_a_hit_does_not_end_the_hook(
    troubled: Proxy, project: Project
) -> None:
    restored_from(troubled, project)
    troubled.faults += [Fault("GetObject", reset=True), Fault("HeadObject", reset=True)]
    assert project.run("publish").code == 0
    assert project.run("publish").code == 5  # it was down indeed


def test_a_later_publish_asks_one_question_and_writes_nothing(
    troubled: Proxy, project: Project
) -> None:
    restored_from(troubled, project)
    for expected in ([], ["GetObject", "HeadObject"], ["GetObject", "HeadObject"]):
        troubled.requests.clear()
        assert project.run("publish").code == 0
        assert [each.operation for each in troubled.requests] == expected


def test_a_forced_publish_after_a_hit_stores_it_anew(troubled: Proxy, project: Project) -> None:
    restored_from(troubled, project)
    assert project.run("publish", "--force").code == 0
    assert "PutObject" in {each.operation for each in troubled.requests}


def test_the_hook_installs_once_and_restores_after(moto: Server, project: Project) -> None:
    url = moto.url(prefix())
    project.env.update(credentials(), CACHEPOD_STORE=url)
    words = ("up", "--", "true")
    first = cachepod(*words, cwd=project.root, env=project.env)
    assert first.code == 0, first.err
    remove(project.prefix)
    second = cachepod(*words, cwd=project.root, env=project.env)
    assert second.code == 0, second.err
    assert "restored" in second.err


def test_a_restore_needs_no_right_to_write(troubled: Proxy, tree: Path) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    assert pod.publish().code == 0
    remove(tree)
    for operation in ("PutObject", "DeleteObject", "CopyObject", "CreateMultipartUpload"):
        troubled.faults.append(Fault(operation, status=403, code="AccessDenied"))
    assert pod.restore().code == 0
    remove(tree)
    missing = pod("restore", "--tree", "data=data", "--key", "data-9", "--wait", "0")
    assert missing.code == 3


def test_wrong_bytes_on_the_way_are_asked_for_again(troubled: Proxy, tree: Path) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    before = contents(tree)
    assert pod.publish().code == 0
    remove(tree)
    troubled.faults.append(Fault("GetObject", key="/packs/", times=1, flip=1000))
    assert pod.restore().code == 0
    assert contents(tree) == before
    assert troubled.faults[0].times == 0


def test_damage_in_the_service_is_set_aside_and_the_next_publish_heals_it(
    moto: Server, tree: Path
) -> None:
    name = prefix()
    pod = Pod(tree.parent, moto.url(name))
    before = contents(tree)
    assert pod.publish().code == 0
    client = moto.client()
    listed = client.list_objects_v2(Bucket=BUCKET, Prefix=f"{name}/packs/")["Contents"]
    for found in listed:
        body = bytearray(client.get_object(Bucket=BUCKET, Key=found["Key"])["Body"].read())
        body[len(body) // 2] ^= 1
        client.put_object(Bucket=BUCKET, Key=found["Key"], Body=bytes(body))
    kept = tree.rename(tree.parent / "kept")
    result = pod.restore()
    assert (result.code, "is damaged" in result.err) == (6, True)
    assert pod.restore().code == 3
    kept.rename(tree)
    assert pod.publish().code == 0
    remove(tree)
    assert pod.restore().code == 0
    assert contents(tree) == before


@pytest.mark.parametrize(
    "faults",
    [
        [Fault("GetObject", status=503, code="SlowDown", times=1)],
        [Fault("GetObject", key="/packs/", cut=1000, times=1)],
        [Fault("GetObject", key="/packs/", reset=True, times=1)],
    ],
    ids=["overloaded", "cut", "reset"],
)
def test_a_restore_survives_a_bad_moment(troubled: Proxy, tree: Path, faults: list[Fault]) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    before = contents(tree)
    assert pod.publish().code == 0
    remove(tree)
    troubled.faults += faults
    assert pod.restore().code == 0
    assert contents(tree) == before


def test_a_service_that_goes_down_in_the_middle_of_a_restore_leaves_no_half_tree(
    troubled: Proxy, tree: Path
) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    assert pod.publish().code == 0
    remove(tree)
    troubled.faults.append(Fault("GetObject", key="/packs/", reset=True))
    result = pod.restore()
    assert result.code == 5
    assert "broke off" in result.err
    assert not tree.exists()
    troubled.faults.clear()
    assert pod.restore().code == 0


@pytest.mark.parametrize(
    ("faults", "code", "words"),
    [
        ([Fault("PutObject", key="/packs/", status=507)], 7, "no space left"),
        ([Fault("UploadPart", key="/packs/", status=507)], 7, "no space left"),
        ([Fault("UploadPart", key="/packs/", status=403, code="AccessDenied")], 5, "denied"),
        ([Fault("PutObject", key="/manifests/", status=503, code="SlowDown")], 5, "overloaded"),
        ([Fault("CompleteMultipartUpload", status=524)], 5, "gave up waiting"),
    ],
    ids=["full", "full-part", "denied-part", "no-manifest", "no-complete"],
)
def test_a_publish_that_fails_leaves_no_snapshot_and_no_pack(
    troubled: Proxy, tree: Path, faults: list[Fault], code: int, words: str
) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    before = contents(tree)
    troubled.faults += faults
    if "Put" in faults[0].operation:
        (tree / "big.bin").write_bytes(b"small")
        before = contents(tree)
    result = pod.publish()
    assert result.code == code
    assert words in result.err
    troubled.faults.clear()
    listed = cachepod("ls", "--json", "--store", pod.url, cwd=tree.parent, env=pod.env)
    assert KEY not in listed.out
    assert contents(tree) == before
    assert pod.publish().code == 0


def test_a_publish_that_is_stopped_leaves_no_upload_and_no_snapshot(
    troubled: Proxy, tree: Path
) -> None:
    pod = Pod(tree.parent, Server(troubled.endpoint).url(prefix()))
    troubled.faults.append(Fault("UploadPart", delay=1))
    words = ("publish", "--tree", "data=data", "--key", KEY, "--store", pod.url)
    process = start(*words, cwd=tree.parent, env=pod.env)
    wait_until(lambda: troubled.operations()["UploadPart"], timeout=60)
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 143
    troubled.faults.clear()
    client = Server(troubled.endpoint).client()
    root = S3Location.parse(pod.url).prefix
    assert "Uploads" not in client.list_multipart_uploads(Bucket=BUCKET, Prefix=root)
    assert KEY not in pod("ls").out


# Bad input: one sentence, what to do, and the documented exit code


def refused(result: Result, code: int, *words: str) -> None:
    assert result.code == code, result.err
    for word in words:
        assert word in result.err
    errors = [line for line in result.err.splitlines() if line]
    assert len(errors) <= 2, result.err


COMMANDS = (
    ("restore", "--tree", "data=data", "--key", KEY, "--wait", "0"),
    ("publish", "--tree", "data=data", "--key", KEY),
    ("ls",),
    ("verify",),
)
each_command = pytest.mark.parametrize("words", COMMANDS, ids=[words[0] for words in COMMANDS])


@each_command
@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket/a?colour=red", "known are endpoint"),
        ("s3://bucket/a?endpoint=nowhere", "https://host:port"),
        ("s3://x", "bucket"),
        ("s3://key:secret@bucket/a", "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_wrong_url_is_a_usage_problem(
    words: tuple[str, ...], url: str, said: str, tmp_path: Path
) -> None:
    (tmp_path / "data").mkdir()
    result = Pod(tmp_path, url)(*words)
    refused(result, 2, said)
    assert "key:secret" not in result.err


def test_a_secret_in_a_url_is_not_shown_by_config(tmp_path: Path) -> None:
    result = Pod(tmp_path, "s3://key:hunter2@bucket/a?secret=hunter3")("config")
    assert "hunter" not in result.out + result.err


@each_command
def test_a_bucket_that_does_not_exist(moto: Server, words: tuple[str, ...], tree: Path) -> None:
    if words[0] == "restore":
        remove(tree)
    url = moto.url("a", bucket="no-such-bucket")
    refused(Pod(tree.parent, url)(*words), 5, "there is no bucket no-such-bucket", "region")


@each_command
def test_an_endpoint_that_is_down(words: tuple[str, ...], tree: Path) -> None:
    if words[0] == "restore":
        remove(tree)
    endpoint = f"http://127.0.0.1:{free_port()}"
    refused(Pod(tree.parent, Server(endpoint).url("a"))(*words), 5, "nothing listens", "endpoint")


@each_command
def test_no_credentials(moto: Server, words: tuple[str, ...], tree: Path) -> None:
    if words[0] == "restore":
        remove(tree)
    none = {"AWS_ACCESS_KEY_ID": "", "AWS_SECRET_ACCESS_KEY": ""}
    refused(Pod(tree.parent, moto.url("a"), none)(*words), 5, "no credentials", "profile=")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault(status=403, code="AccessDenied"), "access is denied"),
        (Fault(status=400, code="ExpiredToken"), "credentials have expired"),
        (Fault(status=403, code="InvalidAccessKeyId"), "does not know the access key"),
        (Fault(status=403, code="SignatureDoesNotMatch"), "signature does not match"),
        (Fault(status=403, code="RequestTimeTooSkewed", clock=3600), "clock is 60 minutes behind"),
        (Fault(status=301, code="PermanentRedirect"), "another region"),
        (Fault(status=503, code="SlowDown"), "overloaded"),
    ],
    ids=lambda value: value.code if isinstance(value, Fault) else "",
)
@each_command
def test_a_service_that_refuses(
    troubled: Proxy, words: tuple[str, ...], tree: Path, fault: Fault, said: str
) -> None:
    if words[0] == "restore":
        remove(tree)
    troubled.faults.append(fault)
    refused(Pod(tree.parent, Server(troubled.endpoint).url("a"))(*words), 5, said)


@each_command
def test_a_store_of_a_newer_format_is_a_miss(
    moto: Server, words: tuple[str, ...], tree: Path
) -> None:
    if words[0] == "restore":
        remove(tree)
    name = prefix()
    document = f'{{"store": "cachepod", "format": {STORE_FORMAT + 1}}}'.encode()
    moto.client().put_object(Bucket=BUCKET, Key=f"{name}/cachepod.json", Body=document)
    result = Pod(tree.parent, moto.url(name))(*words)
    refused(result, 3, "is newer than this cachepod understands", "update cachepod")


def test_a_worker_starts_though_the_service_is_down(project: Project) -> None:
    url = Server(f"http://127.0.0.1:{free_port()}").url("a")
    project.env.update(credentials(), CACHEPOD_STORE=url)
    result = cachepod("up", "--", "echo", "started", cwd=project.root, env=project.env)
    assert (result.code, result.out) == (0, "started\n")
    assert "nothing listens" in result.err


def test_doctor_tells_what_is_wrong_with_a_service(moto: Server, tmp_path: Path) -> None:
    for url, said in [
        (moto.url("a", bucket="no-such-bucket"), "there is no bucket"),
        ("s3://bucket?colour=red", "no parameter 'colour'"),
        ("s3://key:hunter2@bucket", "credentials do not belong"),
    ]:
        result = Pod(tmp_path, url)("doctor")
        assert said in result.out
        assert "hunter2" not in result.out + result.err


def test_keys_are_completed_from_a_service(moto: Server, tree: Path) -> None:
    pod = Pod(tree.parent, moto.url(prefix()))
    assert pod.publish().code == 0
    shell = {
        **pod.env,
        "_CACHEPOD_COMPLETE": "bash_complete",
        "COMP_WORDS": "cachepod show dat",
        "COMP_CWORD": "2",
        "CACHEPOD_STORE": pod.url,
    }
    assert environment(tree.parent, shell)["CACHEPOD_STORE"] == pod.url
    result = cachepod(cwd=tree.parent, env=shell)
    assert KEY in result.out
