"""What apt says in its own words, and how it is run."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cachepod.errors import (
    AptFailed,
    AptLocked,
    DriverPackage,
    SpaceExhausted,
    TreeUnreadable,
)
from cachepod.snapshot.progress import NoProgress
from cachepod.system.apt import Apt, _environment
from cachepod.system.aptwords import explain, fetch_problem, progress_of, simulated
from cachepod.system.layer import apply
from cachepod.system.locks import alone, await_dpkg, dpkg_locked
from tests.support.dpkg import base_root, captured, carry, lay

# As apt 2.6 and dpkg 1.21 write it.
UNKNOWN = """Reading package lists...
Building dependency tree...
Reading state information...
E: Unable to locate package nosuchpkg
"""
NO_VERSION = """Reading package lists...
Package git is not available, but is referred to by another package.
This may mean that the package is missing, has been obsoleted, or
is only available from another source

E: Version '99' for 'git' was not found
"""
NO_CANDIDATE = """Package libfoo is a virtual package provided by:
  libfoo2 2.0
You should explicitly select one to install.

E: Package 'libfoo' has no installation candidate
"""
UNMET = """Some packages could not be installed. This may mean that you have
requested an impossible situation or if you are using the unstable
distribution that some required packages have not yet been created
The following information may help to resolve the situation:

The following packages have unmet dependencies:
 cuda-toolkit-12-6 : Depends: cuda-nvcc-12-6 (>= 12.6.85) but it is not installable
E: Unable to correct problems, you have held broken packages.
"""
DOWN = """Ign:1 http://mirror.example/debian bookworm InRelease
Err:1 http://mirror.example/debian bookworm InRelease
  Could not connect to mirror.example:80 (192.0.2.1). - connect (111: Connection refused)
Reading package lists...
W: Failed to fetch http://mirror.example/debian/dists/bookworm/InRelease  Could not connect to \
mirror.example:80 (192.0.2.1). - connect (111: Connection refused)
W: Some index files failed to download. They have been ignored, or old ones used instead.
"""
NO_RELEASE = """Err:5 http://mirror.example/debian nosuite Release
  404  Not Found [IP: 192.0.2.1 80]
E: The repository 'http://mirror.example/debian nosuite Release' does not have a Release file.
"""
UNSIGNED = """W: GPG error: http://mirror.example/debian bookworm InRelease: The following \
signatures couldn't be verified because the public key is not available: NO_PUBKEY A4B469963BF863CC
E: The repository 'http://mirror.example/debian bookworm InRelease' is not signed.
"""
LOCKED = """E: Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 20440 (apt-get)
E: Unable to acquire the dpkg frontend lock (/var/lib/dpkg/lock-frontend), is another process \
using it?
"""
LOCKED_BY_DPKG = """dpkg: error: dpkg frontend lock was locked by another process with pid 4711
Note: removing the lock file is always wrong, can damage the locked area
and the entire system. See <https://wiki.debian.org/Teams/Dpkg/FAQ#db-lock>.
"""
POSTINST = """Setting up broken (1.0) ...
dpkg: error processing package broken (--configure):
 installed broken package post-installation script subprocess returned error exit status 1
Errors were encountered while processing:
 broken
E: Sub-process /usr/bin/dpkg returned an error code (1)
"""
FULL = """dpkg: error processing archive /var/cache/x.deb (--unpack):
 cannot copy extracted data for './usr/lib/x' to '/usr/lib/x.dpkg-new': failed to write (No space \
left on device)
"""
PLAN = """The following NEW packages will be installed:
  git git-man
0 upgraded, 2 newly installed, 0 to remove and 0 not upgraded.
Need to get {get} of archives.
After this operation, {used} of additional disk space will be used.
'http://mirror.example/pool/git_1_amd64.deb' git_1_amd64.deb 7264380 MD5Sum:b493c1ad1233619
"""
SIMULATION = """NOTE: This is only a simulation!
Inst git-man (1:2.39.5-0+deb12u2 Debian:12.11/stable [all])
Inst libc6 [2.36-9] (2.36-10 Debian:12.11/stable [amd64]) []
Conf git-man (1:2.39.5-0+deb12u2 Debian:12.11/stable [all])
"""


class TestWords:
    @pytest.mark.parametrize(
        ("output", "says"),
        [
            (UNKNOWN, "there is no apt package nosuchpkg in the sources of this image"),
            (NO_VERSION, "the apt package git is not to be had as version 99"),
            (NO_CANDIDATE, "there is no apt package libfoo"),
            (UNMET, "cuda-toolkit-12-6 cannot be installed: Depends: cuda-nvcc-12-6"),
            (DOWN, "mirror.example/debian/dists/bookworm/InRelease cannot be fetched: Could not"),
            (NO_RELEASE, "http://mirror.example/debian nosuite Release does not have a Release"),
            (POSTINST, "dpkg cannot install broken: installed broken package post-installation"),
            ("E: Something new.", "apt failed: Something new"),
            ("whatever\n\n", "apt failed: whatever"),
            ("", "apt failed: it said nothing"),
        ],
    )
    def test_an_error_is_one_sentence_of_apts_own_words(self, output: str, says: str) -> None:
        error = explain(output, where="/")
        assert isinstance(error, AptFailed)
        assert says in error.message
        assert "\n" not in error.message
        assert not error.message.endswith(".")
        assert error.hint
        assert error.output == output

    @pytest.mark.parametrize("output", [UNKNOWN, NO_VERSION])
    def test_a_package_that_a_mirror_which_is_down_may_have_is_blamed_on_the_mirror(
        self, output: str
    ) -> None:
        error = explain(output, where="/", mirror=fetch_problem(DOWN))
        assert "mirror.example" in error.message
        assert "Connection refused" in error.message

    @pytest.mark.parametrize(
        ("output", "holder"),
        [(LOCKED, "process 20440 (apt-get)"), (LOCKED_BY_DPKG, "process 4711")],
    )
    def test_a_lock_names_who_holds_it(self, output: str, holder: str) -> None:
        error = explain(output, where="/", seconds=30)
        assert isinstance(error, AptLocked)
        assert error.holder == holder
        assert "for 30 seconds" in error.message

    def test_a_full_disk_is_called_that(self) -> None:
        assert isinstance(explain(FULL, where="/"), SpaceExhausted)

    @pytest.mark.parametrize(
        ("output", "says"),
        [
            ("", ""),
            ("Reading package lists...\n", ""),
            (NO_RELEASE, "does not have a Release file"),
            (UNSIGNED, "NO_PUBKEY A4B469963BF863CC"),
        ],
    )
    def test_lists_that_cannot_be_had_are_told_of(self, output: str, says: str) -> None:
        assert says in fetch_problem(output)
        assert bool(says) == bool(fetch_problem(output))

    @pytest.mark.parametrize(
        ("get", "used", "sizes"),
        [
            ("11.9 MB", "54.9 MB", (11_900_000, 54_900_000)),
            ("512 kB/11.9 MB", "1,024 B", (11_900_000, 1024)),
            ("0 B/11.9 MB", "3.2 GB", (11_900_000, 3_200_000_000)),
        ],
    )
    def test_sizes_are_apts(self, get: str, used: str, sizes: tuple[int, int]) -> None:
        found = simulated(SIMULATION, PLAN.format(get=get, used=used))
        assert found.names == ("git-man", "libc6")
        assert (found.download, found.unpacked) == sizes

    @pytest.mark.parametrize(
        ("row", "said"),
        [
            (
                "dlstatus:1:20.5:Retrieving file 1 of 5\n",
                ("dlstatus", 20.5, "Retrieving file 1 of 5"),
            ),
            ("pmstatus:git:40:Unpacking git: it", ("pmstatus", 40.0, "Unpacking git: it")),
            ("pmstatus:git:much:x", None),
            ("media-change:x:y:z", None),
            ("", None),
        ],
    )
    def test_progress_is_apts(self, row: str, said: tuple[str, float, str] | None) -> None:
        assert progress_of(row) == said


HOLDER = """
import fcntl, sys, time
file = open(sys.argv[1], "a")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
time.sleep(60)
"""


class TestLocks:
    @pytest.fixture
    def root(self, tmp_path: Path) -> Path:
        return base_root(tmp_path / "root")

    def test_another_package_manager_is_waited_for_and_then_named(self, root: Path) -> None:
        path = root / "var/lib/dpkg/lock-frontend"
        with subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True
        ) as holder:
            assert holder.stdout is not None
            holder.stdout.readline()
            said: list[str] = []
            try:
                with pytest.raises(AptLocked) as caught:
                    await_dpkg(root, seconds=0.3, say=said.append)
            finally:
                holder.kill()
        assert f"process {holder.pid} (" in caught.value.message
        assert str(path) in caught.value.message
        assert said[0].startswith(f"waiting for process {holder.pid}")
        await_dpkg(root, seconds=0.0, say=said.append)

    def test_an_apply_holds_dpkgs_locks(self, root: Path, tmp_path: Path) -> None:
        with dpkg_locked(root):
            program = "import fcntl, sys; fcntl.lockf(open(sys.argv[1], 'a'), fcntl.LOCK_EX | 4)"
            for name in ("lock", "lock-frontend"):
                path = root / "var/lib/dpkg" / name
                done = subprocess.run(
                    [sys.executable, "-c", program, str(path)], capture_output=True, check=False
                )
                assert b"BlockingIOError" in done.stderr

    def test_two_applies_at_once_do_the_work_once(self, tmp_path: Path) -> None:
        captured(tmp_path / "source")
        root = carry(tmp_path / "source", base_root(tmp_path / "target"))
        program = (
            "import sys; from pathlib import Path; from cachepod.system.layer import apply;"
            "print(apply(Path(sys.argv[1])).outcome)"
        )
        started = [
            subprocess.Popen(
                [sys.executable, "-c", program, str(root)], stdout=subprocess.PIPE, text=True
            )
            for _ in range(3)
        ]
        outcomes = sorted(each.communicate()[0].strip() for each in started)
        assert outcomes == ["applied", "confirmed", "confirmed"]

    def test_another_cachepod_is_not_waited_for_without_end(self, root: Path) -> None:
        with alone(root), pytest.raises(AptLocked, match="another cachepod"), alone(root, 0.1):
            pass

    def test_the_lock_is_gone_with_its_holder(self, root: Path) -> None:
        with alone(root):
            pass
        with alone(root, 0.0):
            pass
        descriptor = os.open(root / "var/lib/cachepod/system.state/lock", os.O_RDWR)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(descriptor)


class TestRuns:
    def test_maintainer_scripts_see_no_interpreter_of_another(self) -> None:
        given = {"PYTHONPATH": "x", "LD_PRELOAD": "y", "VIRTUAL_ENV": "z", "http_proxy": "p"}
        environ = _environment({**given, "PATH": "/opt/env/bin"})
        assert not environ.keys() & {"PYTHONPATH", "LD_PRELOAD", "VIRTUAL_ENV"}
        assert environ["http_proxy"] == "p"
        assert environ["PATH"].split(":")[-1] == "/bin"
        assert "/opt/env/bin" not in environ["PATH"]
        assert environ["DEBIAN_FRONTEND"] == "noninteractive"

    def test_an_image_without_apt_is_told_of(self, tmp_path: Path) -> None:
        with pytest.raises(AptFailed, match="no apt-get in this image"):
            Apt(base_root(tmp_path), {}, NoProgress())

    def test_a_policy_of_the_image_stays_and_ours_goes(self, tmp_path: Path) -> None:
        root = base_root(tmp_path)
        lay(root, {"usr/bin/apt-get": "", "usr/sbin/policy-rc.d": "#!/bin/sh\nexit 0\n"})
        policy = root / "usr/sbin/policy-rc.d"
        if os.geteuid() == 0:  # another root than / is entered by chroot
            with Apt(root, {}, NoProgress()).workplace():
                assert policy.read_text() == "#!/bin/sh\nexit 0\n"
            assert policy.exists()
            policy.unlink()
            with Apt(root, {}, NoProgress()).workplace():
                ours = policy.read_text()
                assert "exit 101" in ours
                assert os.access(policy, os.X_OK)
            assert not policy.exists()
            assert not (root / "var/lib/cachepod/system.apt").exists()
            policy.write_text(ours)  # as a run that was killed leaves it
            with Apt(root, {}, NoProgress()).workplace():
                pass
            assert not policy.exists()


def test_the_tree_is_not_taken_for_a_driver() -> None:
    error = DriverPackage("libcuda1", "cuda")
    assert "cuda needs libcuda1" in error.message
    assert error.exit_code == 2


def test_apply_without_a_tree_says_where_it_should_be(tmp_path: Path) -> None:
    with pytest.raises(TreeUnreadable, match=r"var/lib/cachepod/system/layer\.json"):
        apply(base_root(tmp_path))
