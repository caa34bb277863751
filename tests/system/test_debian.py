"""Real packages of Debian, installed by apt in one container and put in place in another."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.roots import Container, Image

pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.slow, pytest.mark.timeout(600)]

HERE = Path(__file__).parent.parent / "support"
#: What dpkg and apt say of a system in order, and of its packages.
QUESTIONS = (
    ("dpkg", "-l"),
    ("dpkg", "--verify"),
    ("dpkg", "--audit"),
    ("apt-get", "check"),
    ("apt-mark", "showmanual"),
    ("dpkg-divert", "--list"),
    ("sh", "-c", "dpkg-statoverride --list || true"),  # 1 where there is none
    ("dpkg", "--get-selections"),
)


class Pod:
    """A container with a store."""

    def __init__(self, image: Image, place: Path, store: Path) -> None:
        store.mkdir(exist_ok=True)
        mounts = {"mnt/store": store, "mnt/tests": HERE}
        self.container: Container = image.container(place, **mounts)

    def run(self, *words: str) -> str:
        """What *words* print; they must succeed."""
        done = self.container.run(*words, timeout=500)
        assert done.code == 0, (words, done.out[-3000:], done.err[-3000:])
        return done.out

    def do(self, *words: str) -> Any:
        """Have layered.py do something."""
        return json.loads(self.run("python3", "/mnt/tests/layered.py", *words).splitlines()[-1])

    def says(self) -> dict[tuple[str, ...], str]:
        """Answers to :data:`QUESTIONS`."""
        return {words: self.run(*words) for words in QUESTIONS}


def differences(one: dict[str, Any], other: dict[str, Any]) -> dict[str, Any]:
    """Paths that differ, and how."""
    return {
        path: (one.get(path), other.get(path))
        for path in one.keys() | other.keys()
        if one.get(path) != other.get(path)
    }


def test_media_tools_and_git_work_where_apt_has_never_run(debian: Image, tmp_path: Path) -> None:
    packages = ["ffmpeg", "libsndfile1", "espeak-ng", "git"]
    one = Pod(debian, tmp_path / "one", tmp_path / "store")
    base = one.do("state")["base"]
    made = one.do("install", *packages)
    assert (made["outcome"], made["publishable"]) == ("installed", True), made
    assert one.do("state") == {"applied": True, "base": base}
    # Nothing of the work is left.
    assert "system.apt" not in one.run("ls", "/var/lib/cachepod")
    assert one.run("sh", "-c", "test -e /usr/sbin/policy-rc.d || echo none") == "none\n"
    assert one.do("put") == {"outcome": "stored"}

    two = Pod(debian, tmp_path / "two", tmp_path / "store")
    assert two.do("bring") == {"outcome": "restored"}
    assert two.do("state") == {"applied": False, "base": base}
    done = two.do("apply")
    assert (done["outcome"], done["notes"]) == ("applied", []), done
    assert differences(one.do("content"), two.do("content")) == {}
    assert two.says() == one.says()
    apt, applying = made["phases"]["apt"], done["seconds"]
    print(f"apt {apt:.1f} s of {made['seconds']:.1f} s, applied in {applying:.2f} s")
    assert two.do("state") == {"applied": True, "base": base}
    # The links to the tree's files are known, so that the next start has nothing to restore.
    assert two.do("bring") == {"outcome": "confirmed"}

    two.run("espeak-ng", "-w", "/tmp/said.wav", "It works")
    two.run("ffmpeg", "-loglevel", "error", "-i", "/tmp/said.wav", "/tmp/said.flac")
    opened = (
        "import ctypes; lib = ctypes.CDLL('libsndfile.so.1');"
        "lib.sf_open.restype = ctypes.c_void_p; info = ctypes.create_string_buffer(64);"
        "print(bool(lib.sf_open(b'/tmp/said.flac', 16, info)))"
    )
    assert two.run("python3", "-c", opened) == "True\n"
    two.run(
        "sh",
        "-c",
        "cd /tmp && git init -q r && cd r && git -c user.name=a -c user.email=b@c "
        "commit -q --allow-empty -m x && git fsck",
    )
    # apt goes on from there.
    two.run("apt-get", "update", "-q")
    two.run("apt-get", "install", "-q", "-y", "--no-install-recommends", "hello")
    assert "Hello" in two.run("hello")
    two.run("apt-get", "remove", "-q", "-y", "espeak-ng")
    assert two.run("dpkg", "--audit") == ""

    other = Pod(debian, tmp_path / "other", tmp_path / "store")
    other.run("dpkg", "--remove", "ca-certificates")
    other.do("bring")
    before = other.do("content")
    refused = other.do("apply")
    assert refused["error"] == "BaseDiffers"
    assert "ca-certificates is missing" in refused["message"]
    assert differences(before, other.do("content")) == {}


def test_accounts_powers_diversions_and_alternatives_come_along(
    debian: Image, tmp_path: Path
) -> None:
    packages = ["cron", "fuse3", "iputils-ping", "libcap2-bin", "molly-guard", "openssh-server"]
    packages += ["vim-tiny", "man-db"]
    one = Pod(debian, tmp_path / "one", tmp_path / "store")
    assert one.do("killed", *packages) == "killed"
    made = one.do("install", *packages)
    assert (made["outcome"], made["publishable"]) == ("installed", True), made
    (secrets,) = made["warnings"]
    assert "/etc/ssh/ssh_host_ed25519_key" in secrets
    one.do("put")

    trusting = Pod(debian, tmp_path / "trusting", tmp_path / "store")
    trusting.do("bring")
    done = trusting.do("apply", "trusted")
    assert (done["outcome"], done["notes"]) == ("applied", []), done
    assert differences(one.do("content"), trusting.do("content")) == {}
    assert trusting.says() == one.says()
    assert "cap_net_raw" in trusting.run("getcap", "/usr/bin/ping")
    assert trusting.run("stat", "-c", "%a %G", "/usr/bin/crontab") == "2755 crontab\n"
    assert trusting.run("stat", "-c", "%a", "/usr/bin/fusermount3") == "4755\n"
    assert trusting.run("update-alternatives", "--query", "vi") == one.run(
        "update-alternatives", "--query", "vi"
    )
    assert "sshd" in trusting.run("getent", "passwd", "sshd")
    trusting.run("sh", "-c", "ssh-keygen -A && mkdir -p /run/sshd && /usr/sbin/sshd -t")

    wary = Pod(debian, tmp_path / "wary", tmp_path / "store")
    wary.do("bring")
    (note,) = wary.do("apply")["notes"]
    for path in ("/usr/bin/ping", "/usr/bin/crontab", "/usr/bin/fusermount3"):
        assert path in note
    assert wary.run("find", "/usr/bin/fusermount3", "-perm", "/6000") == ""
    assert wary.run("stat", "-c", "%a %G", "/usr/bin/crontab") == "755 crontab\n"
    assert wary.run("getcap", "/usr/bin/ping") == ""
