"""Installing from an index in a directory: what is there afterwards, and what is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachepod.environment import install as install_module
from cachepod.environment.install import InstallReport, install
from cachepod.environment.installer import Wanted
from cachepod.environment.pip import find_pip
from cachepod.environment.tidy import EPOCH
from cachepod.errors import (
    CheckFailed,
    ForeignDirectory,
    InstallFailed,
    NotEnoughSpace,
    SpaceExhausted,
    TreeUnreadable,
)
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from tests.support.wheels import (
    Index,
    change_times,
    configured,
    listing,
    plain_environ,
)

INSTALLERS = ("uv", "pip")


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Two versions of one package, one that needs it, one that stands alone."""
    made = Index(tmp_path / "index")
    made.add("alpha", "1.0", {"alpha/__init__.py": "VERSION = '1.0'\n", "alpha/old.py": "x = 1\n"})
    made.add("alpha", "2.0", {"alpha/__init__.py": "VERSION = '2.0'\n", "alpha/new.py": "x = 2\n"})
    made.add("beta", "1.0", requires=["alpha"], scripts={"beta-tool": "beta:main"})
    made.add("gamma", "1.0")
    return made


class Notes:
    """Progress that remembers what a user was told."""

    def __init__(self) -> None:
        self.phases: list[str] = []
        self.notes: list[str] = []

    def phase(self, name: str, *, files: int = 0, size: int = 0) -> None:
        self.phases.append(name)

    def advance(self, files: int, size: int) -> None:
        assert files >= 0
        assert size >= 0

    def note(self, text: str) -> None:
        self.notes.append(text)


def installed(
    folder: Path,
    index: Index | None,
    *packages: str,
    force: bool = False,
    progress: Notes | None = None,
    environ: dict[str, str] | None = None,
    **keys: object,
) -> InstallReport:
    folder.mkdir(exist_ok=True)
    settings, identity = configured(folder, index, packages, **keys)
    environ = {**plain_environ(folder), **(environ or {})}
    return install(settings, identity, force=force, progress=progress, environ=environ)


def run(prefix: Path, code: str) -> str:
    return subprocess.run(
        [prefix / "bin" / "python", "-c", code], capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_install_makes_an_environment_that_imports_what_was_asked_for(
    tmp_path: Path, index: Index, installer: str
) -> None:
    notes = Notes()
    report = installed(tmp_path, index, "beta", installer=installer, progress=notes)
    prefix = tmp_path / "env"
    assert run(prefix, "import alpha, beta; print(alpha.VERSION, beta.VERSION)") == "2.0 1.0"
    assert (report.outcome, report.packages) == ("installed", 2)
    assert report.files > 10
    assert report.size > 0
    assert {"resolve", "packages", "bytecode"} <= set(report.phases)
    assert notes.phases == ["resolve", "packages", "bytecode"]
    assert os.access(prefix / "bin" / "beta-tool", os.X_OK)
    stamp = read_stamp(prefix)
    assert stamp is not None
    assert stamp.state is State.INSTALLED


@pytest.mark.parametrize("installer", INSTALLERS)
def test_an_install_leaves_no_cache_and_no_temporary_files(
    tmp_path: Path, index: Index, installer: str
) -> None:
    installed(tmp_path / "home", index, "beta", installer=installer)
    prefix = tmp_path / "home" / "env"
    assert os.listdir(prefix / ".cachepod") == ["stamp.json"]
    expected = {".cachepod", "bin", "include", "lib", "lib64", "pyvenv.cfg"}
    assert set(os.listdir(prefix)) == expected
    # pip asks rustc for its version, and rustup makes itself a directory when asked
    assert set(os.listdir(tmp_path / "home")) - {".rustup"} == {"env"}


def test_every_time_in_an_environment_is_the_same_one(tmp_path: Path, index: Index) -> None:
    installed(tmp_path, index, "beta")
    times = {entry[1] for entry in listing(tmp_path / "env").values()}
    assert times == {EPOCH * 10**9}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_two_installs_into_one_prefix_are_byte_for_byte_the_same(
    tmp_path: Path, index: Index, installer: str
) -> None:
    installed(tmp_path, index, "beta", "gamma", installer=installer)
    first = listing(tmp_path / "env")
    shutil.rmtree(tmp_path / "env")
    time.sleep(1.1)  # so that a time of installation in whole seconds would differ, too
    installed(tmp_path, index, "beta", "gamma", installer=installer)
    assert listing(tmp_path / "env") == first
    assert any(name.endswith(".pyc") for name in first)


@pytest.mark.network
@pytest.mark.slow
def test_two_installs_of_real_packages_are_byte_for_byte_the_same(tmp_path: Path) -> None:
    packages = ("numpy==2.2.6", "requests==2.32.3", "click==8.1.8")
    environ = dict(os.environ)  # proxies, certificates
    installed(tmp_path, None, *packages, environ=environ)
    first = listing(tmp_path / "env")
    shutil.rmtree(tmp_path / "env")
    installed(tmp_path, None, *packages, environ=environ)
    second = listing(tmp_path / "env")
    assert [name for name in first if first[name] != second.get(name)] == []
    assert first.keys() == second.keys()
    assert sum(name.endswith(".pyc") for name in first) > 300


def test_a_second_install_finds_the_environment_present(tmp_path: Path, index: Index) -> None:
    installed(tmp_path, index, "beta")
    before = change_times(tmp_path / "env")
    report = installed(tmp_path, index, "beta")
    assert (report.outcome, report.packages) == ("present", 2)
    assert change_times(tmp_path / "env") == before


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("state", [State.INSTALLED, State.PARTIAL, State.COMPLETE])
def test_a_topped_up_relative_is_the_same_as_a_fresh_install(
    tmp_path: Path, index: Index, installer: str, state: State
) -> None:
    installed(tmp_path, index, "beta", "alpha<2", "gamma", installer=installer)
    prefix = tmp_path / "env"
    stamp = read_stamp(prefix)
    assert stamp is not None
    write_stamp(prefix, Stamp(state, stamp.key, stamp.tree, "ab" * 32))
    report = installed(tmp_path, index, "beta", installer=installer)
    topped_up = listing(prefix)
    assert report.outcome == "topped up"
    stamp = read_stamp(prefix)
    assert stamp is not None
    assert (stamp.state, stamp.manifest) == (State.INSTALLED, "ab" * 32)
    shutil.rmtree(prefix)
    installed(tmp_path, index, "beta", installer=installer)
    assert topped_up == listing(prefix)


def test_a_top_up_touches_nothing_of_the_packages_that_stay(tmp_path: Path, index: Index) -> None:
    installed(tmp_path, index, "gamma", "alpha<2")
    before = change_times(tmp_path / "env")
    installed(tmp_path, index, "gamma", "alpha")
    after = change_times(tmp_path / "env")
    changed = {name for name in before.keys() & after.keys() if before[name] != after[name]}
    assert changed
    assert all("alpha" in name for name in changed)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_new_source_of_the_old_ones_size_is_not_shadowed_by_old_bytecode(
    tmp_path: Path, index: Index, installer: str
) -> None:
    index.add("single", "1.0", {"single.py": "VALUE = 1\n"})
    index.add("single", "2.0", {"single.py": "VALUE = 2\n"})
    installed(tmp_path, index, "single==1.0", installer=installer)
    installed(tmp_path, index, "single==2.0", installer=installer)
    assert run(tmp_path / "env", "import single; print(single.VALUE)") == "2"


def test_a_top_up_removes_what_belongs_to_no_package_and_says_so(
    tmp_path: Path, index: Index
) -> None:
    installed(tmp_path, index, "gamma")
    site = next((tmp_path / "env" / "lib").glob("*/site-packages"))
    (site / "left").mkdir()
    (site / "left" / "behind.py").write_text("x = 1\n")
    notes = Notes()
    installed(tmp_path, index, "gamma", "alpha", progress=notes)
    assert not (site / "left").exists()
    assert any("behind.py" in note for note in notes.notes)


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


def test_an_empty_prefix_keeps_its_inode_as_a_mount_point_must(
    tmp_path: Path, index: Index
) -> None:
    prefix = tmp_path / "env"
    prefix.mkdir()
    (prefix / "lost+found").mkdir()
    before = prefix.stat().st_ino
    installed(tmp_path, index, "beta")
    write_stamp(prefix, Stamp(State.INSTALLING, "x", "env"))
    assert installed(tmp_path, index, "beta").outcome == "installed"
    assert prefix.stat().st_ino == before
    assert (prefix / "lost+found").is_dir()


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


def test_a_lasting_cache_is_never_written_through(tmp_path: Path, index: Index) -> None:
    cache = tmp_path / "cache"
    installed(tmp_path, index, "beta", cache_dir=cache)
    wheels = change_times(cache)
    assert wheels
    links = [os.lstat(path).st_nlink for path in (tmp_path / "env").rglob("*") if path.is_file()]
    assert set(links) == {1}
    kept = {name: (cache / name).stat().st_mtime_ns for name in wheels}
    assert EPOCH * 10**9 not in kept.values()
    shutil.rmtree(tmp_path / "env")
    installed(tmp_path, index, "beta", cache_dir=cache)
    assert {name: (cache / name).stat().st_mtime_ns for name in kept if "archive" in name} == {
        name: when for name, when in kept.items() if "archive" in name
    }


def test_a_users_own_variables_do_not_lead_the_installer_astray(
    tmp_path: Path, index: Index
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    astray = {
        "VIRTUAL_ENV": str(other),
        "UV_PYTHON": "3.6",
        "UV_SYSTEM_PYTHON": "1",
        "UV_LINK_MODE": "symlink",
        "UV_COMPILE_BYTECODE": "1",
        "PYTHONPATH": str(other),
        "PYTHONHOME": str(other),
        "PIP_TARGET": str(other),
        "PIP_USER": "1",
    }
    for installer in INSTALLERS:
        folder = tmp_path / installer
        installed(folder, index, "beta", installer=installer, environ=astray)
        assert run(folder / "env", "import beta; print(beta.VERSION)") == "1.0"
        assert not any(path.is_symlink() for path in (folder / "env" / "lib").rglob("*.py"))
    assert os.listdir(other) == []


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_local_wheel_is_installed_anew_when_its_content_changed(
    tmp_path: Path, index: Index, installer: str
) -> None:
    wheel = index.add("local", "1.0", {"local/__init__.py": "VALUE = 1\n"})
    installed(tmp_path, index, str(wheel), installer=installer)
    index.add("local", "1.0", {"local/__init__.py": "VALUE = 2\n"})
    report = installed(tmp_path, index, str(wheel), installer=installer)
    assert report.outcome == "topped up"
    assert run(tmp_path / "env", "import local; print(local.VALUE)") == "2"


# Builds a wheel of the module beside it, or one that points there; names the project itself.
BACKEND = """
import os, zipfile
def wheel(folder, files):
    info = "project-1.0.dist-info/"
    files[info + "METADATA"] = "Metadata-Version: 2.1\\nName: project\\nVersion: 1.0\\n"
    files[info + "WHEEL"] = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[info + "RECORD"] = "".join(f"{name},,\\n" for name in [*files, info + "RECORD"])
    name = "project-1.0-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
def build_wheel(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, {"project.py": open("project.py").read()})
def build_editable(folder, config_settings=None, metadata_directory=None):
    return wheel(folder, {"project.pth": os.getcwd()})
"""


@pytest.mark.parametrize("installer", INSTALLERS)
@pytest.mark.parametrize("editable", ["", "-e "])
def test_a_local_project_is_built_and_installed_as_it_is_now(
    tmp_path: Path, index: Index, installer: str, editable: str
) -> None:
    project = tmp_path / "project"
    project.mkdir()
    (project / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (project / "backend.py").write_text(BACKEND)
    for value in ("1", "2"):
        (project / "project.py").write_text(f"VALUE = {value}\n")
        installed(tmp_path, index, f"{editable}{project}", "alpha", installer=installer)
        assert run(tmp_path / "env", "import project; print(project.VALUE)") == value
        site = next((tmp_path / "env" / "lib").glob("*/site-packages"))
        assert (site / "project.py").exists() is not bool(editable)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_torch_comes_from_the_torch_index_and_all_else_from_the_usual_one(
    tmp_path: Path, index: Index, installer: str
) -> None:
    index.add("torch", "2.7.0", requires=["alpha"])
    mirror = Index(tmp_path / "mirror")
    mirror.add("torch", "2.7.0+cu126", {"torch/__init__.py": "CUDA = 126\n"}, requires=["alpha"])
    mirror.add("alpha", "0.5")
    installed(tmp_path, index, "torch==2.7.0", installer=installer, torch_index=mirror.url)
    code = "import torch, alpha; print(torch.CUDA, alpha.VERSION)"
    assert run(tmp_path / "env", code) == "126 2.0"


def test_pytorchs_own_index_is_for_torch_alone_however_it_is_given(
    tmp_path: Path, index: Index
) -> None:
    url = "https://download.pytorch.org/whl/cu126"
    for keys in ({"torch_index": url}, {"extra_index_urls": [url]}):
        settings, identity = configured(tmp_path, index, ["torch==2.7.0"], **keys)
        wanted = Wanted.of(settings, identity, {})
        assert wanted.torch_backend == "cu126"
        assert url not in wanted.options(torch_as_extra=False)
        assert f"--extra-index-url {url}\n" in wanted.options(torch_as_extra=True)


def test_pip_takes_over_where_there_is_no_uv(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install_module, "find_uv", lambda: None)
    installed(tmp_path, index, "beta")
    names = [path.read_text().strip() for path in (tmp_path / "env").rglob("INSTALLER")]
    assert names == ["pip", "pip"]


def test_pip_runs_from_the_wheel_that_an_interpreter_carries(
    tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    _, identity = configured(tmp_path, index, ["beta"])
    command = find_pip(identity.interpreter.executable)
    if command is None:
        pytest.skip("this interpreter carries no pip")
    assert command[0].endswith(".whl/pip")
    installed(tmp_path, index, "beta", installer="pip")
    assert run(tmp_path / "env", "import beta; print(beta.VERSION)") == "1.0"
    assert not list((tmp_path / "env").rglob("pip*"))


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
from tests.environment.test_install import installed
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
