"""Installing from an index in a directory: what is there afterwards, and what is not."""

from __future__ import annotations

import importlib.util
import os
import shutil
import time
from pathlib import Path

import pytest

from cachepod.environment import install as install_module
from cachepod.environment.installer import Wanted
from cachepod.environment.pip import find_pip
from cachepod.environment.tidy import EPOCH
from cachepod.snapshot.stamp import Stamp, State, read_stamp, write_stamp
from tests.support.installs import INSTALLERS, Notes, installed, run, small_index
from tests.support.wheels import Index, change_times, configured, listing


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return small_index(tmp_path / "index")


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
