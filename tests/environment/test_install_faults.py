"""Installs that cannot succeed, or are not let to: what is said, and what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachepod.environment import install as install_module
from cachepod.environment.uv import find_uv
from cachepod.errors import (
    CheckFailed,
    ForeignDirectory,
    InstallFailed,
    NotEnoughSpace,
    SpaceExhausted,
    TreeUnreadable,
)
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from tests.support.installs import INSTALLERS, Notes, installed, run, small_index
from tests.support.wheels import Index, listing


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return small_index(tmp_path / "index")


@pytest.mark.parametrize("state", [State.INSTALLING, State.FILLING])
def test_a_killed_install_is_not_mistaken_for_an_environment(
    tmp_path: Path, index: Index, state: State
) -> None:
    installed(tmp_path, index, "beta")
    prefix = tmp_path / "env"
    stamp = read_stamp(prefix)
    assert stamp is not None
    write_stamp(prefix, Stamp(state, stamp.key, stamp.tree))
    site = next((prefix / "lib").glob("*/site-packages"))
    (site / "alpha" / "__init__.py").write_text("half a fi")
    (prefix / ".cachepod" / "install").mkdir()
    (prefix / ".cachepod" / "install" / "cache").write_text("gigabytes")
    report = installed(tmp_path, index, "beta")
    assert report.outcome == "installed"
    assert run(prefix, "import alpha; print(alpha.VERSION)") == "2.0"
    assert os.listdir(prefix / ".cachepod") == ["stamp.json"]


def test_an_environment_of_another_interpreter_is_made_anew(tmp_path: Path, index: Index) -> None:
    installed(tmp_path, index, "beta")
    prefix = tmp_path / "env"
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to("/nowhere/python")
    assert installed(tmp_path, index, "beta").outcome == "installed"
    assert run(prefix, "import beta; print(beta.VERSION)") == "1.0"


def test_a_directory_that_cachepod_did_not_make_is_left_alone(tmp_path: Path, index: Index) -> None:
    prefix = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", prefix], check=True)
    before = listing(prefix)
    with pytest.raises(ForeignDirectory) as caught:
        installed(tmp_path, index, "beta")
    assert listing(prefix) == before
    assert not (prefix / ".cachepod").exists()
    assert str(prefix) in str(caught.value)


def test_force_replaces_a_foreign_directory_only_once_the_packages_are_known(
    tmp_path: Path, index: Index
) -> None:
    prefix = tmp_path / "env"
    prefix.mkdir()
    (prefix / "precious").write_text("data")
    with pytest.raises(InstallFailed):
        installed(tmp_path, index, "no-such-package", force=True)
    assert os.listdir(prefix) == ["precious"]
    assert installed(tmp_path, index, "beta", force=True).outcome == "installed"
    assert not (prefix / "precious").exists()


def test_a_file_at_the_prefix_is_foreign(tmp_path: Path, index: Index) -> None:
    (tmp_path / "env").write_text("not a directory")
    with pytest.raises(ForeignDirectory):
        installed(tmp_path, index, "beta")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_prefix_that_cannot_be_made_is_named(tmp_path: Path, index: Index) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    with pytest.raises(TreeUnreadable) as caught:
        installed(tmp_path, index, "beta", prefix=closed / "env")
    assert str(closed) in str(caught.value)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
def test_a_disk_that_fills_up_is_its_own_error_and_leaves_nothing(
    tmp_path: Path, index: Index
) -> None:
    # A wheel that unpacks to far more than its size tells.
    index.add("zeros", "1.0", {"zeros/__init__.py": "", "zeros/data.bin": bytes(64_000_000)})
    mount = tmp_path / "mount"
    mount.mkdir()
    done = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount], check=False)
    if done.returncode:
        pytest.skip("no mounts here")
    try:
        with pytest.raises(SpaceExhausted) as caught:
            installed(tmp_path, index, "zeros", prefix=mount)
        assert caught.value.exit_code == 7
        assert os.listdir(mount) == []
    finally:
        subprocess.run(["umount", mount], check=True)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_too_little_space_is_known_before_anything_is_changed(
    tmp_path: Path, index: Index, installer: str
) -> None:
    free = os.statvfs(tmp_path)
    if free.f_bavail > 0.9 * free.f_blocks:
        pytest.skip("this file system is too empty to be too full")
    installed(tmp_path, index, "gamma", installer=installer)
    before = listing(tmp_path / "env")
    with pytest.raises(NotEnoughSpace) as caught:
        installed(tmp_path, index, "gamma", "alpha", installer=installer, min_free=0.9)
    assert caught.value.exit_code == 7
    assert 0 < caught.value.needed < 10_000
    assert listing(tmp_path / "env") == before
    assert installed(tmp_path, index, "gamma", installer=installer).outcome == "present"


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_package_that_does_not_exist_is_named(
    tmp_path: Path, index: Index, installer: str
) -> None:
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, index, "beta", "no-such-package", installer=installer)
    assert "no-such-package does not exist" in caught.value.message
    assert "no-such-package" in caught.value.output
    assert not (tmp_path / "env").exists()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_version_that_does_not_exist_is_named(
    tmp_path: Path, index: Index, installer: str
) -> None:
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, index, "alpha==9", installer=installer)
    assert "alpha==9" in caught.value.message


@pytest.mark.parametrize("installer", INSTALLERS)
def test_without_a_network_the_error_says_so(tmp_path: Path, installer: str) -> None:
    url = "http://user:hunter2@127.0.0.1:9/simple"  # the discard port: nobody listens
    environ = {"UV_HTTP_RETRIES": "0", "PIP_RETRIES": "1"}
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, None, "alpha", installer=installer, index_url=url, environ=environ)
    assert "cannot be reached" in caught.value.message
    assert "hunter2" not in caught.value.message + caught.value.output + caught.value.hint
    assert not (tmp_path / "env").exists()


def test_a_wheel_for_another_interpreter_only_is_told_apart_from_a_missing_package(
    tmp_path: Path, index: Index
) -> None:
    index.add("elsewhere", "1.0", tag="cp27-cp27m-manylinux1_x86_64")
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, index, "elsewhere")
    assert "no wheel fits this interpreter" in caught.value.message


BROKEN_BACKEND = """
def build_wheel(directory, config_settings=None, metadata_directory=None):
    raise SystemExit("the compiler is missing: nvcc not found")
"""


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_build_that_fails_shows_its_last_words(
    tmp_path: Path, index: Index, installer: str
) -> None:
    index.add_source("needsbuild", "1.0", BROKEN_BACKEND)
    notes = Notes()
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, index, "needsbuild", installer=installer, progress=notes)
    assert "needsbuild" in caught.value.message
    assert "nvcc not found" in caught.value.output
    assert "built" in caught.value.message


def test_a_failed_top_up_leaves_the_relative_as_it_was(tmp_path: Path, index: Index) -> None:
    installed(tmp_path, index, "gamma")
    before, stamp = listing(tmp_path / "env"), read_stamp(tmp_path / "env")
    index.add_source("needsbuild", "1.0", BROKEN_BACKEND)
    with pytest.raises(InstallFailed):
        installed(tmp_path, index, "gamma", "needsbuild")
    left = listing(tmp_path / "env")
    left.pop(".lock", None)
    left.pop(".")
    before.pop(".")
    assert left == before
    assert read_stamp(tmp_path / "env") == stamp


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_wheel_that_does_not_match_its_hash_is_refused(
    tmp_path: Path, index: Index, installer: str
) -> None:
    wheel = index.add("pinned", "1.0")
    good = Index.digest(wheel)
    installed(tmp_path, index, f"pinned==1.0 --hash={good}", installer=installer)
    bad = good[:-4] + ("0000" if good[-4:] != "0000" else "1111")
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path / "other", index, f"pinned==1.0 --hash={bad}", installer=installer)
    assert "hash" in caught.value.message.lower()
    assert "pinned" in caught.value.message


def test_a_dependency_without_a_hash_beside_hashed_ones_is_refused(
    tmp_path: Path, index: Index
) -> None:
    wheel = index.add("needy", "1.0", requires=["alpha"])
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, index, f"needy==1.0 --hash={Index.digest(wheel)}")
    assert "alpha==2.0" in caught.value.message
    assert "no hash" in caught.value.message


def test_a_check_that_fails_is_no_environment(tmp_path: Path, index: Index) -> None:
    index.add("crooked", "1.0", {"crooked/__init__.py": "import nowhere_at_all\n"})
    with pytest.raises(CheckFailed):
        installed(tmp_path, index, "crooked", check=["crooked"])
    assert not (tmp_path / "env").exists()


def test_without_any_installer_the_error_says_what_to_install(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_module, "find_uv", lambda: None)
    monkeypatch.setattr(install_module, "find_pip", lambda base: None)
    with pytest.raises(InstallFailed) as caught:
        installed(tmp_path, index, "beta")
    assert "neither uv nor pip" in caught.value.message
    assert not (tmp_path / "env").exists()


SLOW_BACKEND = """
import pathlib, subprocess, time
def build_wheel(directory, config_settings=None, metadata_directory=None):
    child = subprocess.Popen(["sleep", "300"])
    pathlib.Path({mark!r}).write_text(str(child.pid))
    time.sleep(300)
"""

HARNESS = """
import sys
from pathlib import Path
from cachepod.cli.signals import Interrupted, raise_on_signals
from tests.support.installs import installed
from tests.support.wheels import Index
raise_on_signals()
try:
    installed(Path(sys.argv[1]), Index(Path(sys.argv[2])), "slow")
except Interrupted as signal:
    sys.exit(signal.exit_code)
"""


def _start_slow_install(tmp_path: Path, index: Index) -> tuple[subprocess.Popen[bytes], int]:
    """An install that hangs in a build; the process, and the pid of the build's own child."""
    mark = tmp_path / "mark"
    index.add_source("slow", "1.0", SLOW_BACKEND.format(mark=str(mark)))
    (tmp_path / "home").mkdir()
    child = subprocess.Popen(
        [sys.executable, "-c", HARNESS, tmp_path / "home", index.root],
        cwd=Path(__file__).parents[2],
    )
    deadline = time.monotonic() + 60
    while not mark.exists() or not mark.read_text():
        assert child.poll() is None, "the install ended before its build began"
        assert time.monotonic() < deadline, "the build never began"
        time.sleep(0.05)
    return child, int(mark.read_text())


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_installer_and_cleans_up(
    tmp_path: Path, index: Index, number: signal.Signals
) -> None:
    child, grandchild = _start_slow_install(tmp_path, index)
    child.send_signal(number)
    assert child.wait(30) == 128 + number
    deadline = time.monotonic() + 10
    while _alive(grandchild) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _alive(grandchild)
    assert not (tmp_path / "home" / "env").exists()


def test_after_a_kill_the_next_install_starts_anew(tmp_path: Path, index: Index) -> None:
    child, grandchild = _start_slow_install(tmp_path, index)
    (installer,) = Path(f"/proc/{child.pid}/task/{child.pid}/children").read_text().split()
    child.kill()
    child.wait(30)
    try:
        deadline = time.monotonic() + 10
        while _alive(int(installer)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not _alive(int(installer)), "the installer would write into the next environment"
        stamp = read_stamp(tmp_path / "home" / "env")
        assert stamp is not None
        assert stamp.state is State.INSTALLING
        report = installed(tmp_path / "home", index, "beta")
        assert report.outcome == "installed"
        assert os.listdir(tmp_path / "home" / "env" / ".cachepod") == ["stamp.json"]
    finally:
        if _alive(grandchild):
            os.kill(grandchild, signal.SIGKILL)


def test_an_authority_that_only_the_machine_knows_is_asked_for(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = find_uv()
    if real is None:
        pytest.skip("uv is not installed")
    wrapper = tmp_path / "uv"
    wrapper.write_text(
        "#!/bin/sh\n"
        'if [ "$UV_SYSTEM_CERTS" != true ]; then\n'
        '  echo "cause: invalid peer certificate: UnknownIssuer" >&2; exit 2\n'
        "fi\n"
        f'exec "{real}" "$@"\n'
    )
    wrapper.chmod(0o755)
    monkeypatch.delenv("UV_SYSTEM_CERTS", raising=False)
    monkeypatch.setattr(install_module, "find_uv", lambda: str(wrapper))
    assert installed(tmp_path, index, "beta").outcome == "installed"
