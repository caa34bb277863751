"""One file from a URL, a directory or S3: every way of not having it, and what is a wheel."""

from __future__ import annotations

import errno
import io
import os
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cachepod.environment import download, wheelhouse
from cachepod.environment.download import Unavailable, below
from cachepod.environment.wheelhouse import examine, fetch
from cachepod.errors import NotEnoughSpace, SpaceExhausted
from tests.support import s3
from tests.support.flash import Releases, add_flash, releases, wheel_name


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """A release of 2.8.0 with one wheel."""
    monkeypatch.setattr(download, "PAUSE", 0.01)
    monkeypatch.setenv("NETRC", os.devnull)
    add_flash(tmp_path / "served" / "2.8.0")
    with releases(tmp_path / "served") as server:
        yield server


def fetched(tmp_path: Path, place: str, name: str = "") -> bytes:
    """What comes from *place*; the bytes that were announced and counted must be those."""
    sized: list[int] = []
    counted: list[int] = []
    target = tmp_path / "target"
    fetch(place, name or wheel_name(), target, sized=sized.append, counted=counted.append)
    data = target.read_bytes()
    assert sum(counted) >= len(data)
    assert sized in ([], [len(data)], [len(data)] * 2)
    return data


def refused(tmp_path: Path, place: str, name: str = "") -> str:
    """Why nothing comes from *place*; nothing may be left of it."""
    with pytest.raises(Unavailable) as caught:
        fetched(tmp_path, place, name)
    assert not (tmp_path / "target").exists()
    return caught.value.why


def url_of(served: Releases, version: str = "2.8.0") -> str:
    return served.url.replace("{version}", version)


class TestServer:
    def test_a_wheel_comes_through_a_redirect_to_another_host(
        self, tmp_path: Path, served: Releases
    ) -> None:
        wheel = served.folder / "2.8.0" / wheel_name()
        assert fetched(tmp_path, url_of(served)) == wheel.read_bytes()
        assert [path.partition("/")[2].partition("/")[0] for path in served.asked] == [
            "Dao-AILab",
            "objects",
        ]

    def test_the_plus_sign_of_a_name_is_written_out_and_a_query_stays_behind_it(self) -> None:
        assert below("https://h/a/?token=x", "f-1+cu12.whl") == "https://h/a/f-1%2Bcu12.whl?token=x"

    def test_credentials_are_sent_to_their_own_host_only(
        self, tmp_path: Path, served: Releases
    ) -> None:
        place = url_of(served).replace("http://", "http://me:s%40cret@")
        fetched(tmp_path, place)
        first, second = served.headers.values()
        assert first["Authorization"] == "Basic bWU6c0BjcmV0"
        assert "Authorization" not in second
        assert "s@cret" not in "".join(served.asked)

    def test_netrc_gives_credentials_as_well(
        self, tmp_path: Path, served: Releases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        netrc = tmp_path / "netrc"
        netrc.write_text("machine localhost login me password secret\n")
        netrc.chmod(0o600)
        monkeypatch.setenv("NETRC", str(netrc))
        fetched(tmp_path, url_of(served))
        first, second = served.headers.values()
        assert first["Authorization"].startswith("Basic ")
        assert "Authorization" not in second

    def test_a_redirect_from_https_to_http_is_not_followed(self) -> None:
        redirects = download._Redirects("host", "")
        asked = urllib.request.Request("https://host/a")
        with pytest.raises(Unavailable) as caught:
            redirects.redirect_request(asked, io.BytesIO(), 302, "", {}, "http://other/a")
        assert "https" in caught.value.why

    @pytest.mark.parametrize(
        ("fault", "why", "requests"),
        [
            ("401", "401 Unauthorized", 1),
            ("403", "403 Forbidden", 1),
            ("404", "404 Not Found", 1),
            ("500", "500 Internal Server Error", 3),
            ("503", "503 Service Unavailable", 3),
            ("html", "a web page came", 1),
            ("truncated", "broke off after", 6),
        ],
    )
    def test_what_a_server_says_instead_of_a_wheel_is_told_and_tried_again_if_it_may_pass(
        self, tmp_path: Path, served: Releases, fault: str, why: str, requests: int
    ) -> None:
        served.fault = fault
        assert why in refused(tmp_path, url_of(served))
        assert len(served.asked) == requests

    def test_what_passes_is_no_failure(self, tmp_path: Path, served: Releases) -> None:
        served.fault, served.times = "503", 2
        wheel = served.folder / "2.8.0" / wheel_name()
        assert fetched(tmp_path, url_of(served)) == wheel.read_bytes()

    def test_an_answer_of_unknown_length_is_read_to_its_end(
        self, tmp_path: Path, served: Releases
    ) -> None:
        served.fault = "chunked"
        wheel = served.folder / "2.8.0" / wheel_name()
        assert fetched(tmp_path, url_of(served)) == wheel.read_bytes()

    def test_redirects_without_end_have_one(self, tmp_path: Path, served: Releases) -> None:
        served.fault = "circle"
        assert "302" in refused(tmp_path, url_of(served))

    def test_a_server_that_says_nothing_is_given_up(
        self, tmp_path: Path, served: Releases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "TIMEOUT", 0.2)
        served.fault = "stall"
        assert "in time" in refused(tmp_path, url_of(served))
        assert served.asked.count("stalled") == 3

    def test_a_server_that_is_too_slow_is_given_up(
        self, tmp_path: Path, served: Releases, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "_RATE_WINDOW", 0.0)
        monkeypatch.setattr(download, "_LEAST_RATE", 10**15)
        assert "too slowly" in refused(tmp_path, url_of(served))

    def test_nobody_at_the_address_is_told(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "PAUSE", 0.01)
        assert "refused" in refused(tmp_path, f"http://127.0.0.1:{s3.free_port()}/wheels").lower()
        assert "no such address" in refused(tmp_path, "http://host:port/wheels")

    def test_too_big_a_wheel_is_refused_by_its_size_before_it_comes(
        self, tmp_path: Path, served: Releases
    ) -> None:
        def refuse(size: int) -> None:
            raise NotEnoughSpace("/", size, 0)

        with pytest.raises(NotEnoughSpace):
            fetch(url_of(served), wheel_name(), tmp_path / "target", sized=refuse, counted=print)
        assert not (tmp_path / "target").exists()


class TestDirectory:
    def test_a_file_comes_by_path_and_by_url(self, tmp_path: Path) -> None:
        folder = tmp_path / "a place"
        wheel = add_flash(folder)
        assert fetched(tmp_path, str(folder)) == wheel.read_bytes()
        assert fetched(tmp_path, folder.as_uri()) == wheel.read_bytes()

    def test_what_is_no_file_there_is_told(self, tmp_path: Path) -> None:
        assert refused(tmp_path, str(tmp_path / "none")) == "it is not there"
        (tmp_path / "folder" / "name").mkdir(parents=True)
        assert refused(tmp_path, str(tmp_path / "folder"), "name") == "Is a directory"
        assert "ftp" in refused(tmp_path, "ftp://host/wheels")

    def test_an_empty_file_is_no_end_of_the_story(self, tmp_path: Path) -> None:
        (tmp_path / "name").touch()
        assert fetched(tmp_path, str(tmp_path), "name") == b""

    def test_a_volume_that_hangs_is_given_up(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(download, "TIMEOUT", 0.2)
        os.mkfifo(tmp_path / "name")  # whoever opens it waits for a writer
        assert refused(tmp_path, str(tmp_path), "name") == "it does not answer in time"
        os.close(os.open(tmp_path / "name", os.O_WRONLY | os.O_NONBLOCK))

    def test_a_full_disk_is_no_missing_wheel(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_flash(tmp_path / "wheels")
        real = open

        class Full(io.FileIO):
            def write(self, data: Any) -> int:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        def opened(path: Path, mode: str) -> Any:
            return Full(path, "wb") if mode == "wb" else real(path, mode)

        monkeypatch.setattr(wheelhouse, "open", opened, raising=False)
        with pytest.raises(SpaceExhausted):
            fetched(tmp_path, str(tmp_path / "wheels"))
        assert not (tmp_path / "target").exists()


@pytest.mark.usefixtures("credentials")
class TestS3:
    def test_a_wheel_comes_from_below_a_prefix_in_pieces(
        self, tmp_path: Path, moto: s3.Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(wheelhouse, "_PIECE", 500)
        data = add_flash(tmp_path / "wheels").read_bytes()
        assert len(data) > 1000
        client = moto.client()
        client.create_bucket(Bucket="wheels")
        client.put_object(Bucket="wheels", Key=f"flash/2.8.0/{wheel_name()}", Body=data)
        assert fetched(tmp_path, moto.url("flash/2.8.0", "wheels")) == data
        assert refused(tmp_path, moto.url("flash/2.8.1", "wheels")) == "it is not there"
        assert refused(tmp_path, moto.url("flash", "no-such-bucket")) == "it is not there"
        assert "parameter" in refused(tmp_path, moto.url("flash", "wheels", nonsense=1))

    def test_a_service_that_is_not_there_is_told(self, tmp_path: Path) -> None:
        url = s3.Server(f"http://127.0.0.1:{s3.free_port()}").url("flash", retries=0)
        assert "nothing listens" in refused(tmp_path, url)


class TestExamine:
    def test_a_wheel_says_its_version_its_size_and_its_digest(self, tmp_path: Path) -> None:
        path = add_flash(tmp_path, more={"flash_attn/data.bin": bytes(100_000)})
        wheel = examine(path, "flash-attn", "2.8.0")
        assert wheel.version == "2.8.0"
        assert 100_000 < wheel.unpacked < 110_000
        assert len(wheel.sha256) == 64

    def test_the_version_within_may_have_the_local_part_that_the_name_has(
        self, tmp_path: Path
    ) -> None:
        path = add_flash(tmp_path, "2.8.0+cu12torch2.7cxx11abitrue")
        assert examine(path, "flash-attn", "2.8.0").version == "2.8.0+cu12torch2.7cxx11abitrue"

    @pytest.mark.parametrize(
        ("name", "version", "why"),
        [
            ("flash-attn", "2.8.1", "it is a wheel of flash-attn 2.8.0"),
            ("flash-attn", "2.8", "it is a wheel of flash-attn 2.8.0"),
            ("xformers", "2.8.0", "it is a wheel of flash-attn 2.8.0"),
        ],
    )
    def test_another_package_or_version_under_the_name_is_told(
        self, tmp_path: Path, name: str, version: str, why: str
    ) -> None:
        with pytest.raises(Unavailable) as caught:
            examine(add_flash(tmp_path), name, version)
        assert caught.value.why == why

    def test_what_is_no_wheel_is_told(self, tmp_path: Path) -> None:
        wheel = add_flash(tmp_path / "good").read_bytes()
        cases = {"empty": b"", "page": b"<html>", "half": wheel[: len(wheel) // 2]}
        for name, data in cases.items():
            path = tmp_path / name
            path.write_bytes(data)
            with pytest.raises(Unavailable, match="it is no wheel"):
                examine(path, "flash-attn", "2.8.0")

    @pytest.mark.parametrize("part", ["METADATA", "RECORD", "WHEEL"])
    def test_a_zip_file_without_a_part_of_a_wheel_is_none(self, tmp_path: Path, part: str) -> None:
        cut = tmp_path / "cut.whl"
        with zipfile.ZipFile(add_flash(tmp_path)) as whole, zipfile.ZipFile(cut, "w") as archive:
            for entry in whole.infolist():
                if not entry.filename.endswith(f".dist-info/{part}"):
                    archive.writestr(entry, whole.read(entry))
        with pytest.raises(Unavailable, match="it is no wheel"):
            examine(cut, "flash-attn", "2.8.0")
