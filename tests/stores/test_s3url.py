from __future__ import annotations

import pytest

from cachepod.errors import UsageProblem
from cachepod.stores.s3url import MIB, S3Location
from cachepod.stores.url import directory_of, open_store


def test_a_bucket_alone_is_a_store_of_aws() -> None:
    location = S3Location.parse("s3://bucket")
    assert (location.bucket, location.prefix, location.endpoint) == ("bucket", "", None)
    assert location.url == "s3://bucket"
    assert location.where == "AWS"
    assert location.addressing == "auto"
    assert location.checksums is False
    assert location.conditional is None


def test_every_parameter_is_read() -> None:
    location = S3Location.parse(
        "s3://bucket/a/b/?endpoint=https://s3.example.com:9000&region=eu-1&addressing=virtual"
        "&profile=pod&checksums=on&conditional=off&timeout=30&connect_timeout=3&retries=0"
        "&part_size=16&parallel=8"
    )
    assert location.prefix == "a/b/"
    assert location.endpoint == "https://s3.example.com:9000"
    assert location.region == "eu-1"
    assert location.addressing == "virtual"
    assert location.profile == "pod"
    assert location.checksums is True
    assert location.conditional is False
    assert (location.timeout, location.connect_timeout) == (30.0, 3.0)
    assert (location.retries, location.part_size, location.parallel) == (0, 16 * MIB, 8)


@pytest.mark.parametrize(
    ("url", "clean"),
    [
        ("S3://bucket/", "s3://bucket"),
        ("s3://bucket/a/b//", "s3://bucket/a/b"),
        ("s3://bucket/a%20b", "s3://bucket/a%20b"),
        (
            "s3://bucket/a?region=r&endpoint=http%3A%2F%2Fhost%3A9000",
            "s3://bucket/a?endpoint=http://host:9000&region=r",
        ),
    ],
)
def test_its_own_url_is_in_one_form_and_names_the_same_store(url: str, clean: str) -> None:
    location = S3Location.parse(url)
    assert location.url == clean
    assert S3Location.parse(clean) == location


def test_an_endpoint_of_one_s_own_is_addressed_by_path_unless_it_is_said() -> None:
    url = "s3://bucket?endpoint=http://host:9000"
    assert S3Location.parse(url).addressing == "path"
    assert S3Location.parse(f"{url}&addressing=virtual").addressing == "virtual"


def test_the_region_of_a_runpod_volume_is_its_data_centre() -> None:
    url = "s3://volume?endpoint=https://s3api-eu-ro-1.runpod.io/"
    assert S3Location.parse(url).region == "EU-RO-1"
    assert S3Location.parse(f"{url}&region=other").region == "other"
    assert (
        S3Location.parse("s3://volume?endpoint=https://s3api-x.runpod.io.evil.example").region
        is None
    )


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://", "bucket"),
        ("s3:///a", "bucket"),
        ("s3://b", "bucket"),
        ("s3://buc ket", "bucket"),
        ("s3://bucket:80", "bucket"),
        ("s3://[bucket", "not a store"),
        ("s3://bucket/a//b", "prefix"),
        ("s3://bucket/../b", "prefix"),
        ("s3://bucket/a%00", "prefix"),
        ("s3://bucket/a#b", "#"),
        ("s3://bucket?endpont=http://host", "did you mean endpoint"),
        ("s3://bucket?colour=red", "no parameter 'colour'"),
        ("s3://bucket?endpoint=host:9000", "https://host:port"),
        ("s3://bucket?endpoint=ftp://host", "https://host:port"),
        ("s3://bucket?endpoint=http://host:port", "https://host:port"),
        ("s3://bucket?endpoint=http://host?x=1", "https://host:port"),
        ("s3://bucket?endpoint=", "https://host:port"),
        ("s3://bucket?region=", "region"),
        ("s3://bucket?region=a&region=b", "twice"),
        ("s3://bucket?addressing=dns", "addressing"),
        ("s3://bucket?checksums=yes", "checksums"),
        ("s3://bucket?timeout=0", "timeout"),
        ("s3://bucket?timeout=fast", "timeout"),
        ("s3://bucket?retries=-1", "retries"),
        ("s3://bucket?retries=1000", "retries"),
        ("s3://bucket?part_size=4", "part_size"),
        ("s3://bucket?parallel=99999", "parallel"),
    ],
)
def test_what_makes_no_sense_is_a_usage_problem_with_advice(url: str, said: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        open_store(url)
    assert said in str(caught.value)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_the_known_parameters_are_named() -> None:
    with pytest.raises(UsageProblem) as caught:
        open_store("s3://bucket?colour=red")
    for name in ("endpoint", "region", "addressing", "checksums", "part_size"):
        assert name in caught.value.hint


@pytest.mark.parametrize(
    "url",
    [
        "s3://AKIAX:hunter2@bucket/a",
        "s3://hunter2@bucket",
        "s3://bucket?secret=hunter2",
        "s3://bucket?access_key=hunter2",
        "s3://bucket?aws_secret_access_key=hunter2",
        "s3://bucket?session_token=hunter2",
        "s3://bucket?endpoint=https://me:hunter2@host",
        "s3://bucket?nonsense=hunter2",
        "s3://bucket/a?X-Amz-Signature=hunter2",
    ],
)
def test_credentials_are_refused_and_never_repeated(url: str) -> None:
    with pytest.raises(UsageProblem) as caught:
        open_store(url)
    assert "hunter2" not in str(caught.value) + caught.value.hint
    if "nonsense" not in url:
        assert "credentials" in str(caught.value)
        assert "AWS_SECRET_ACCESS_KEY" in caught.value.hint


def test_a_store_is_opened_without_a_word_to_the_service() -> None:
    store = open_store("s3://bucket/a?endpoint=http://127.0.0.1:1")
    assert store.url == "s3://bucket/a?endpoint=http://127.0.0.1:1"
    assert store.parallel_reads == 16


def test_it_is_no_directory() -> None:
    with pytest.raises(UsageProblem):
        directory_of("s3://bucket/a")
