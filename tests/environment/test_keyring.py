"""The keyring of NVIDIA's repository, from a stand-in for it."""

from __future__ import annotations

import gzip
import shutil
import subprocess
from pathlib import Path

import pytest

from cachepod.environment import download, keyring
from cachepod.environment.config import load_settings
from cachepod.environment.toolkit import package_of
from cachepod.errors import AptFailed, ConfigurationProblem
from cachepod.snapshot.progress import NoProgress
from tests.support.nvidia import HOST, KEYRING, Served

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb")

PATH = f"debian12/x86_64/{KEYRING}"


@pytest.fixture(autouse=True)
def without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)


def fetch(url: str, into: Path, distribution: str = "debian 12", machine: str = "amd64") -> Path:
    settings = load_settings({"toolkit_repository": url}, {}, into)
    return keyring.fetch_keyring(settings, distribution, machine, into, NoProgress(), into)


@pytest.mark.parametrize(
    ("distribution", "architecture", "folder"),
    [
        ("ubuntu 22.04", "amd64", "ubuntu2204/x86_64"),
        ("ubuntu 24.04", "arm64", "ubuntu2404/sbsa"),
        ("debian 12", "amd64", "debian12/x86_64"),
    ],
)
def test_a_system_has_its_folder(distribution: str, architecture: str, folder: str) -> None:
    assert keyring.folder_of(distribution, architecture) == folder


@pytest.mark.parametrize(
    ("distribution", "architecture"),
    [
        ("alpine 3.19", "amd64"),
        ("debian", "amd64"),
        ("linuxmint 21", "amd64"),
        ("ubuntu 22.04", "riscv64"),
        ("unknown", "amd64"),
    ],
)
def test_a_system_that_nvidia_does_not_know_is_named(distribution: str, architecture: str) -> None:
    with pytest.raises(AptFailed, match=f"no apt packages for {distribution} on {architecture}"):
        keyring.folder_of(distribution, architecture)


def test_a_release_is_a_package() -> None:
    assert package_of("12.6") == "cuda-toolkit-12-6"


def test_the_list_of_sources_names_the_repository_that_is_configured(
    nvidia: Served, tmp_path: Path
) -> None:
    file = fetch(nvidia.url, tmp_path)
    assert nvidia.asked == [PATH]
    subprocess.run(["dpkg-deb", "--raw-extract", file, tmp_path / "tree"], check=True)
    (sources,) = (tmp_path / "tree/etc/apt/sources.list.d").iterdir()
    text = sources.read_text()
    assert f"] {nvidia.url}/debian12/x86_64/ /\n" in text
    assert HOST not in text
    control = (tmp_path / "tree/DEBIAN/control").read_text()
    assert "Package: cuda-keyring\nVersion: 1.1-1\n" in control
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".deb"] == [KEYRING]


def test_the_package_is_as_it_came_where_its_list_is_right(
    nvidia: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keyring, "plain", lambda url: HOST)
    assert fetch(nvidia.url, tmp_path).read_bytes() == (nvidia.folder / PATH).read_bytes()


def test_credentials_of_a_mirror_stay_out_of_the_package(nvidia: Served, tmp_path: Path) -> None:
    url = nvidia.url.replace("http://", "http://me:secret@")
    file = fetch(url, tmp_path)
    subprocess.run(["dpkg-deb", "--raw-extract", file, tmp_path / "tree"], check=True)
    (sources,) = (tmp_path / "tree/etc/apt/sources.list.d").iterdir()
    assert f"] {nvidia.url}/debian12/x86_64/ /\n" in sources.read_text()


def test_what_passes_is_tried_again(nvidia: Served, tmp_path: Path) -> None:
    nvidia.instead[PATH] = [(503, b""), (500, b"")]
    assert fetch(nvidia.url, tmp_path).is_file()
    assert nvidia.asked == [PATH] * 3


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (404, b"", "is not to be had: 404 Not Found; NVIDIA may have no packages for debian12/x86"),
        (403, b"", "is not to be had: 403 Forbidden; name a mirror with toolkit_repository"),
        (200, b"<html>log in</html>", "is not the package cuda-keyring; see whether a proxy"),
        (200, b"!<arch>\nand nothing", "is not the package cuda-keyring; see whether a proxy"),
        (200, b"", "is not the package cuda-keyring; see whether a proxy"),
        (200, bytes(2_000_000), "is not to be had: 2000000 bytes are too many for it"),
    ],
)
def test_a_keyring_that_is_none_is_refused(
    nvidia: Served, tmp_path: Path, status: int, body: bytes, sentence: str
) -> None:
    nvidia.instead[PATH] = [(status, body)] * 3
    with pytest.raises(AptFailed) as caught:
        fetch(nvidia.url, tmp_path)
    assert f"toolkit: {nvidia.url}/{PATH} {sentence}" in f"{caught.value}; {caught.value.hint}"


def test_another_package_under_the_keyrings_name_is_refused(nvidia: Served, tmp_path: Path) -> None:
    (other,) = (nvidia.folder / "debian12/x86_64").glob("cuda-drivers_*.deb")
    nvidia.instead[PATH] = [(200, other.read_bytes())]
    with pytest.raises(AptFailed, match="is not the package cuda-keyring but cuda-drivers"):
        fetch(nvidia.url, tmp_path)


def test_a_package_that_is_cut_short_is_refused(nvidia: Served, tmp_path: Path) -> None:
    whole = (nvidia.folder / PATH).read_bytes()
    nvidia.instead[PATH] = [(200, whole[: len(whole) * 2 // 3])]
    with pytest.raises(AptFailed, match="is not the package cuda-keyring"):
        fetch(nvidia.url, tmp_path)


def test_a_host_that_is_down_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "PAUSE", 0.0)
    with pytest.raises(AptFailed, match=r"127\.0\.0\.1:9/debian12/.* Connection refused"):
        fetch("http://127.0.0.1:9", tmp_path)


def test_https_without_certificates_is_said_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(AptFailed, match="lacks the certificates") as caught:
        fetch("https://mirror.invalid", tmp_path)
    assert "ca-certificates" in caught.value.hint


def test_a_release_that_nvidia_does_not_have_is_answered_with_those_that_it_has(
    nvidia: Served, tmp_path: Path
) -> None:
    settings = load_settings({"toolkit_repository": nvidia.url}, {}, tmp_path)
    error = AptFailed("there is no apt package cuda-toolkit-99-9 in the sources of this image")
    told = keyring.explained(settings, "debian 12", "amd64", error)
    assert told.message.startswith("toolkit: NVIDIA has no CUDA 99.9 for debian12/x86_64: there is")
    assert told.hint == "it has 12.6"
    for other in (
        "there is no apt package cuda-toolkit-12-6 in the sources of this image",
        "there is no apt package ffmpeg in the sources of this image",
        "the disk ran full",
    ):
        same = AptFailed(other)
        assert keyring.explained(settings, "debian 12", "amd64", same) is same


def test_an_index_that_cannot_be_read_says_nothing_of_releases(
    nvidia: Served, tmp_path: Path
) -> None:
    settings = load_settings({"toolkit_repository": nvidia.url}, {}, tmp_path)
    error = AptFailed("there is no apt package cuda-toolkit-99-9 in the sources of this image")
    for answer in ((404, b""), (200, b"not gzip"), (200, gzip.compress(b"x" * 99)[:-9])):
        nvidia.instead["debian12/x86_64/Packages.gz"] = [answer]
        assert keyring.explained(settings, "debian 12", "amd64", error) is error


@pytest.mark.parametrize("url", ["s3://bucket/repos", "file:///srv/repos"])
def test_a_repository_that_apt_is_not_given_by_http_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationProblem, match="is not a http or https URL"):
        fetch(url, tmp_path)
