"""apt itself, with a repository of its own: what goes wrong, and what stays behind."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support import aptrepo
from tests.support.roots import Container, Image

pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.slow]

SUPPORT = Path(__file__).parent.parent / "support"


def make_repository(place: Path) -> Path:
    place.mkdir()
    deb = aptrepo.deb
    deb(place, "tool", Depends="library (>= 1.0)", files={"usr/bin/tool": "#!/bin/sh\necho tool\n"})
    deb(place, "library")
    deb(place, "tool-new", Depends="library (>= 9)")
    deb(place, "wants-driver", Depends="nvidia-driver-550")
    deb(place, "nvidia-driver-550")
    deb(place, "broken", scripts={"postinst": "echo it does not work >&2; exit 3"})
    deb(place, "huge", Installed_Size=str(1 << 40))
    deb(
        place,
        "archive-keyring",
        files={"etc/apt/sources.list.d/x.list": "deb [trusted=yes] file:/mnt/repository ./\n"},
    )
    service = 'code=0; /usr/sbin/policy-rc.d it start || code=$?; echo "policy $code" >/etc/it.said'
    deb(place, "service", scripts={"postinst": service})
    deb(place, "ca-certificates", version="99999999")
    aptrepo.index(place)
    return place


class Pod:
    """A container whose only source of packages is the repository."""

    def __init__(self, image: Image, place: Path, repository: Path) -> None:
        mounts = {"mnt/tests": SUPPORT, "mnt/repository": repository}
        self.container: Container = image.container(place, **mounts)
        self.sources("deb [trusted=yes] file:/mnt/repository ./")

    def sources(self, text: str) -> None:
        self.sh(f"rm -f /etc/apt/sources.list.d/*; echo {text!r} >/etc/apt/sources.list")

    def sh(self, script: str) -> str:
        done = self.container.run("sh", "-ec", script)
        assert done.code == 0, (script, done.out, done.err)
        return done.out

    def install(self, *packages: str, before: str = ":") -> dict[str, Any]:
        said = self.sh(f"{before}; python3 /mnt/tests/layered.py install {' '.join(packages)}")
        return dict(json.loads(said.splitlines()[-1]))


@pytest.fixture
def pod(debian: Image, tmp_path: Path) -> Pod:
    return Pod(debian, tmp_path / "pod", make_repository(tmp_path / "repository"))


def test_what_apt_refuses_is_one_sentence_and_leaves_nothing_behind(pod: Pod) -> None:
    before = pod.sh("cat /var/lib/dpkg/status | md5sum")
    for packages, error, message in (
        (["nosuchpkg"], "AptFailed", "there is no apt package nosuchpkg"),
        (["tool=7"], "AptFailed", "the apt package tool is not to be had as version 7"),
        (["tool-new"], "AptFailed", "tool-new cannot be installed: Depends: library (>= 9)"),
        (["tool", "wants-driver"], "DriverPackage", "wants-driver needs nvidia-driver-550"),
        (["huge"], "NotEnoughSpace", "TB are needed"),
    ):
        said = pod.install(*packages)
        assert said["error"] == error, said
        assert message in said["message"]
    assert pod.sh("cat /var/lib/dpkg/status | md5sum") == before
    assert pod.sh("ls /var/lib/cachepod") == "system.state\n"
    assert pod.install("tool")["publishable"]
    assert pod.sh("tool") == "tool\n"


def test_a_source_that_is_down_is_named_only_where_it_is_needed(pod: Pod) -> None:
    pod.sources("deb [trusted=yes] http://127.0.0.1:9/debian ./")
    said = pod.install("tool")
    assert said["error"] == "AptFailed"
    assert "apt knows no package tool, for http://127.0.0.1:9/debian" in said["message"]
    pod.sh("echo 'deb [trusted=yes] file:/mnt/repository ./' >>/etc/apt/sources.list")
    said = pod.install("tool")
    assert said["publishable"]
    (warning,) = said["warnings"]
    assert "127.0.0.1:9" in warning


def test_a_script_that_fails_is_told_of_and_the_next_installation_goes_on(pod: Pod) -> None:
    said = pod.install("tool", "broken")
    assert said["error"] == "AptFailed"
    assert "dpkg cannot install broken" in said["message"]
    pod.sh("sed -i 's/exit 3/exit 0/' /var/lib/dpkg/info/broken.postinst")
    said = pod.install("tool", "broken")
    assert said["publishable"], said
    assert pod.sh("dpkg --audit") == ""
    files = pod.sh("cd /var/lib/cachepod/system/files && find . -name 'tool' -o -name 'broken.*'")
    assert "./usr/bin/tool" in files
    assert "./var/lib/dpkg/info/broken.list" in files


def test_no_service_is_started_and_what_the_image_has_is_not_brought_up_to_date(pod: Pod) -> None:
    version = pod.sh("dpkg-query -W ca-certificates")
    assert pod.install("service", "ca-certificates")["publishable"]
    assert pod.sh("cat /etc/it.said") == "policy 101\n"
    assert pod.sh("ls /usr/sbin/policy-rc.d 2>/dev/null || echo none") == "none\n"
    assert pod.sh("dpkg-query -W ca-certificates") == version
    assert "etc/it.said" in pod.sh("cat /var/lib/cachepod/system/layer.json")


def test_a_package_file_that_brings_a_repository_comes_first(pod: Pod) -> None:
    pod.sources("")
    assert pod.install("tool")["error"] == "AptFailed"
    said = pod.install("tool", "deb:/mnt/repository/archive-keyring_1.0_all.deb")
    assert said["publishable"], said
    assert said["packages"].keys() == {"tool", "library", "archive-keyring"}
    assert "x.list" in pod.sh("find /var/lib/cachepod/system/files/etc/apt")
    refused = pod.install("service", "deb:/mnt/repository/nvidia-driver-550_1.0_all.deb")
    assert refused["error"] == "DriverPackage"
    missing = pod.install("service", "deb:/mnt/repository/none.deb")
    assert missing["error"] == "AptFailed"
    assert "/mnt/repository/none.deb" in missing["message"]
