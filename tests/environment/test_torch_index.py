"""Installing torch from indexes like PyTorch's own: which build comes, and from where."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.environment import gpu
from cachepod.environment import install as install_module
from cachepod.environment.install import install
from cachepod.environment.lock import lock
from cachepod.environment.uv import find_uv
from cachepod.errors import InstallFailed
from tests.support.installs import INSTALLERS, Notes, run
from tests.support.torch_index import OURS, TorchIndex, serving
from tests.support.wheels import configured, plain_environ

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64" or platform.libc_ver()[0] != "glibc",
    reason="the wheels are for x86-64 and glibc",
)
STACK = ("torch==2.7.0", "torchvision==0.22.0", "numpy")
SEEN = (
    "import torch, torchvision, numpy; "
    "print(torch.BUILD, torchvision.BUILD, torch.TAG, numpy.WHERE)"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TorchIndex]:
    with serving(tmp_path_factory.mktemp("torch-index")) as index:
        yield index


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "usable", lambda environ: False)


def brought(
    folder: Path, server: TorchIndex, *packages: str, installer: str = "uv", **keys: object
) -> Notes:
    asked = {
        "index_url": f"{server.url}/simple",
        "torch_index": f"{server.url}/whl/{{backend}}",
        "installer": installer,
        **keys,
    }
    settings, identity = configured(folder, None, packages, **asked)
    notes = Notes()
    server.requests.clear()
    install(settings, identity, progress=notes, environ=plain_environ(folder))
    return notes


def fetched(server: TorchIndex) -> set[str]:
    """The folders that wheels were fetched from."""
    return {each.rpartition("/")[0] for each in server.requests if each.endswith(".whl")}


def names(folder: Path) -> set[str]:
    site = next((folder / "env" / "lib").glob("python*/site-packages"))
    return {each.name.partition("-")[0] for each in site.glob("*.dist-info")}


@pytest.mark.parametrize("installer", INSTALLERS)
def test_a_build_comes_from_its_index_and_all_else_from_the_usual_one(
    tmp_path: Path, server: TorchIndex, installer: str
) -> None:
    brought(tmp_path, server, *STACK, cuda="12.8", installer=installer)
    assert run(tmp_path / "env", SEEN) == f"cu128 cu128 {OURS} usual"
    assert "/whl/cpu" not in fetched(server)
    assert "/whl/cu126" not in fetched(server)


def test_the_usual_index_is_enough_for_the_build_that_it_has(
    tmp_path: Path, server: TorchIndex
) -> None:
    brought(tmp_path, server, *STACK, cuda="12.6", torch_index="auto")
    assert run(tmp_path / "env", SEEN) == f"pypi pypi {OURS} usual"
    assert {each.split("/")[1] for each in server.requests} == {"simple"}


@pytest.mark.parametrize(
    ("installer", "torch"),
    [("uv", "torch==2.7.0"), ("uv", "torch==2.7.0+cu126"), ("pip", "torch==2.7.0+cu126")],
)
def test_without_a_gpu_the_build_for_the_cpu_comes_without_the_libraries_of_cuda(
    tmp_path: Path, server: TorchIndex, installer: str, torch: str
) -> None:
    notes = brought(
        tmp_path, server, torch, *STACK[1:], "flash-attn==2.8.0",
        cuda="12.6", without_gpu="cpu", installer=installer,
    )  # fmt: skip
    assert run(tmp_path / "env", SEEN) == f"cpu cpu {OURS} usual"
    assert names(tmp_path) == {"torch", "torchvision", "numpy"}
    assert any("torch's build for the CPU is installed" in note for note in notes.notes)


@pytest.mark.parametrize("installer", INSTALLERS)
def test_without_a_gpu_no_torch_comes_even_if_others_depend_on_it(
    tmp_path: Path, server: TorchIndex, installer: str
) -> None:
    brought(
        tmp_path, server, *STACK, "accelerate", cuda="12.6", without_gpu="none",
        installer=installer, check=["torch", "accelerate"],
    )  # fmt: skip
    assert names(tmp_path) == {"numpy", "accelerate"}
    if installer == "uv":  # pip asks for the metadata of all that others depend on
        assert not any("torch" in each for each in server.requests if each.endswith(".whl"))


def test_torch_alone_without_a_gpu_is_an_empty_environment(
    tmp_path: Path, server: TorchIndex
) -> None:
    brought(tmp_path, server, "torch==2.7.0", without_gpu="none")
    assert names(tmp_path) == set()
    assert run(tmp_path / "env", "print(1)") == "1"


def test_a_lock_is_for_every_machine_and_what_is_left_away_is_left_away_from_it(
    tmp_path: Path, server: TorchIndex
) -> None:
    asked = {"index_url": f"{server.url}/simple", "without_gpu": "none"}
    settings, identity = configured(tmp_path, None, [*STACK, "accelerate"], **asked)
    output = tmp_path / "requirements.lock"
    lock(settings, identity, output, environ=plain_environ(tmp_path))
    text = output.read_text()
    assert "torch==2.7.0 \\\n" in text
    assert "nvidia-cuda-runtime-cu12==12.6.77" in text
    settings, identity = configured(tmp_path, None, [], lock=str(output), **asked)
    install(settings, identity, environ=plain_environ(tmp_path))
    assert names(tmp_path) == {"numpy", "accelerate"}


def test_a_lock_names_its_build_and_no_other_is_taken(tmp_path: Path, server: TorchIndex) -> None:
    asked = {"index_url": f"{server.url}/simple", "without_gpu": "cpu"}
    settings, identity = configured(tmp_path, None, STACK, **asked)
    output = tmp_path / "requirements.lock"
    lock(settings, identity, output, environ=plain_environ(tmp_path))
    settings, identity = configured(tmp_path, None, [], lock=str(output), **asked)
    notes = Notes()
    install(settings, identity, progress=notes, environ=plain_environ(tmp_path))
    assert run(tmp_path / "env", SEEN) == f"pypi pypi {OURS} usual"
    assert any("torch stays as it is" in note for note in notes.notes)


def test_a_build_that_a_mirror_lacks_is_said_before_anything_is_downloaded(
    tmp_path: Path, server: TorchIndex
) -> None:
    with pytest.raises(InstallFailed, match="torch"):
        brought(tmp_path, server, "torch==2.7.0+cu118", cuda="11.8")
    assert fetched(server) == set()


def test_a_release_that_is_younger_than_uv_has_an_index_all_the_same(
    tmp_path: Path, server: TorchIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands at download.pytorch.org; a uv of the test's own takes the server's for it."""
    real = find_uv()
    assert real is not None
    wrapper = tmp_path / "uv"
    log = tmp_path / "log"
    wrapper.write_text(
        f"""#!/bin/sh
        echo "$*" >> {log}
        case "$*" in *cu149*) ;; *) exec "{real}" "$@";; esac
        case "$*" in *--torch-backend*) exec "{real}" "$@";; esac
        set -- $(echo "$*" | sed 's,https://download.pytorch.org/whl/cu149,{server.url}/whl/cu128,')
        exec "{real}" "$@"
        """
    )
    wrapper.chmod(0o755)
    monkeypatch.setattr(install_module, "find_uv", lambda: str(wrapper))
    url = "https://download.pytorch.org/whl/cu149"
    brought(tmp_path, server, "torch>=2.7", "numpy", torch_index=url)
    assert run(tmp_path / "env", "import torch; print(torch.BUILD)") == "cu128"
    asked = log.read_text().splitlines()
    assert sum("--torch-backend" in line for line in asked) == 1
