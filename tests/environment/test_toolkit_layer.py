"""``toolkit = true`` in the hook: what is asked of apt, played by a dictionary, and of NVIDIA."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from cachepod.environment import hook
from cachepod.environment.config import Settings, load_settings
from cachepod.environment.explanation import explain
from cachepod.environment.identity import Identity, identify
from cachepod.environment.toolkit import with_toolkit
from cachepod.errors import AptFailed, ConfigurationProblem
from tests.support import apt
from tests.support.apt import Container
from tests.support.nvidia import KEYRING, Served

pytestmark = pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="there is no dpkg-deb")

ASKED = [f"debian12/x86_64/{KEYRING}"]


@pytest.fixture
def container(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Container:
    """A system whose apt knows CUDA 12.6 beside the usual."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(apt, "ARCHIVE", {**apt.ARCHIVE, "cuda-toolkit-12-6": "12.6.3-1"})
    return Container(tmp_path / "root", monkeypatch)


def configured(nvidia: Served, folder: Path, toml: str) -> tuple[Settings, Identity]:
    (folder / "cachepod.toml").write_text(f'toolkit_repository = "{nvidia.url}"\n{toml}\n')
    settings = load_settings({}, {}, folder)
    return settings, identify(settings)


def test_the_toolkit_is_a_package_of_the_apt_layer(
    nvidia: Served, container: Container, tmp_path: Path
) -> None:
    toml = 'toolkit = true\ncuda = "12.6"\napt = ["git"]'
    settings, identity = configured(nvidia, tmp_path, toml)
    rows = {row.name: row for row in explain(identity)}
    asked = rows["apt:cuda-toolkit-12-6"]
    assert asked.value == "any version"
    assert asked.where.endswith("cachepod.toml:2")
    hook.install_environment(settings, identity)
    assert container.called == [("git", "cuda-toolkit-12-6")]
    assert nvidia.asked == ASKED


def test_torch_says_which_release_where_the_configuration_does_not(
    nvidia: Served, container: Container, tmp_path: Path
) -> None:
    _, identity = configured(nvidia, tmp_path, 'toolkit = true\npackages = ["torch==2.7.0"]')
    assert identity.layer is not None
    assert identity.layer.packages == ("cuda-toolkit-12-6",)


@pytest.mark.parametrize("more", ["", 'packages = ["alpha"]', 'packages = ["torch==2.7.0+cpu"]'])
def test_a_toolkit_of_no_release_is_refused(
    nvidia: Served, container: Container, tmp_path: Path, more: str
) -> None:
    with pytest.raises(ConfigurationProblem, match=r"cachepod\.toml:2: toolkit: which CUDA") as no:
        configured(nvidia, tmp_path, f"toolkit = true\n{more}")
    assert no.value.hint == 'say it, as cuda = "12.6"'


def test_a_key_of_the_users_own_is_not_for_a_toolkit_of_apt(
    nvidia: Served, container: Container, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationProblem, match="cannot be had together with toolkit"):
        configured(nvidia, tmp_path, 'toolkit = true\nkey = "mine"')


def test_an_image_with_the_toolkit_asks_nobody(
    nvidia: Served, container: Container, tmp_path: Path
) -> None:
    container.user_installs("cuda-toolkit-12-6")
    settings, identity = configured(nvidia, tmp_path, 'toolkit = true\ncuda = "12.6"')
    assert identity.layer is None
    hook.install_environment(settings, identity)
    assert nvidia.asked == []


def test_without_nvidia_the_environment_is_made_all_the_same_if_that_is_allowed(
    nvidia: Served, container: Container, tmp_path: Path
) -> None:
    toml = 'toolkit = true\ncuda = "12.6"\napt_missing = "warning"'
    nvidia.instead[ASKED[0]] = [(404, b"")]
    settings, identity = configured(nvidia, tmp_path, toml)
    done = hook.install_environment(settings, identity)
    assert done is not None
    assert done.layer is not None
    assert isinstance(done.layer.problem, AptFailed)
    assert container.called == []
    assert "NVIDIA may have no packages for debian12" in hook.sentence(done.layer.problem)
    strict, identity = configured(nvidia, tmp_path, 'toolkit = true\ncuda = "12.6"')
    nvidia.instead[ASKED[0]] = [(404, b"")]
    with pytest.raises(AptFailed, match="404 Not Found"):
        hook.install_environment(strict, identity)


def test_a_distribution_that_nvidia_has_nothing_for_is_named(
    nvidia: Served, container: Container, tmp_path: Path
) -> None:
    (container.root / "etc/os-release").write_text("ID=kali\nVERSION_ID=2024.1\n")
    settings, identity = configured(nvidia, tmp_path, 'toolkit = true\ncuda = "12.6"')
    with pytest.raises(AptFailed, match=r"NVIDIA has no apt packages for kali 2024\.1 on amd64"):
        hook.install_environment(settings, identity)
    assert nvidia.asked == []


@pytest.mark.parametrize("package", ["cuda", "cuda-12-6", "nvidia-open", "cuda-drivers=560-1"])
def test_drivers_are_refused_before_anything_is_asked(
    nvidia: Served, container: Container, tmp_path: Path, package: str
) -> None:
    toml = f'toolkit = true\ncuda = "12.6"\napt = ["{package}"]'
    with pytest.raises(ConfigurationProblem, match=r"cachepod\.toml:4: apt: .* is a driver"):
        configured(nvidia, tmp_path, toml)


def test_programs_find_the_toolkit_of_the_release_that_is_named(tmp_path: Path) -> None:
    here = Path("/usr/local/cuda-0.1")
    settings = load_settings({"cuda": "0.1"}, {"CACHEPOD_TOOLKIT": "1"}, tmp_path)
    assert not here.exists()
    assert with_toolkit(settings, {"PATH": "/bin"}) == {"PATH": "/bin"}
