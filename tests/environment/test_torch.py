"""Which build of torch is chosen, from where, and what is refused because it does not exist."""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from cachepod.environment import torch
from cachepod.environment.config import load_settings
from cachepod.environment.requirements import read_requirements
from cachepod.environment.torch import TORCH_INDEX, Build, choose
from cachepod.environment.uv import find_uv
from cachepod.errors import ConfigurationProblem
from tests.environment.test_identity import CPYTHON


def chosen(*packages: str, platform: str = "linux_x86_64", **keys: object) -> Build:
    """The build for *packages*, which stand in a file of their own."""
    flags = {"store": "/store", "prefix": "/opt/venv", "packages": packages, **keys}
    settings = load_settings(flags, {"HOME": "/nowhere"}, Path("/"))
    requirements = read_requirements(
        [],
        packages,
        root=Path("/"),
        packages_where="base.txt:1",
        variables=CPYTHON.markers,
        environ={},
    )
    return choose(settings, requirements, replace(CPYTHON, platform=platform))


# As the metadata of the wheels on PyPI name the CUDA runtime that they need
@pytest.mark.parametrize(
    ("version", "x86_64", "aarch64"),
    [
        ("2.0.1", "11.7", ""), ("2.1.2", "12.1", ""), ("2.2.2", "12.1", ""),
        ("2.3.1", "12.1", ""), ("2.4.1", "12.1", ""), ("2.5.1", "12.4", ""),
        ("2.6.0", "12.4", ""), ("2.7.1", "12.6", ""), ("2.8.0", "12.8", ""),
        ("2.9.1", "12.8", ""), ("2.10.0", "12.8", ""), ("2.11.0", "13.0", "13.0"),
        ("2.14.0", "13.0", "13.0"), ("2.15.0", "13.2", "13.2"), ("2.99.0", "", ""),
    ],
)  # fmt: skip
def test_the_usual_index_has_one_build_of_each_version(
    version: str, x86_64: str, aarch64: str
) -> None:
    for platform, cuda in (("linux_x86_64", x86_64), ("linux_aarch64", aarch64)):
        assert chosen(f"torch=={version}", platform=platform).cuda == cuda
        if cuda:
            asked = chosen(f"torch=={version}", platform=platform, cuda=cuda)
            assert asked == Build(version, True, "", cuda)


@pytest.mark.network
@pytest.mark.parametrize(
    ("version", "machine"),
    [("2.5.1", "x86_64"), ("2.7.1", "x86_64"), ("2.10.0", "x86_64"), ("2.11.0", "aarch64"),
     ("2.9.1", "aarch64")],
)  # fmt: skip
def test_the_wheels_there_say_so(tmp_path: Path, version: str, machine: str) -> None:
    uv = find_uv()
    assert uv is not None
    (tmp_path / "torch.in").write_text(f"torch=={version}\n")
    said = subprocess.run(
        [uv, "pip", "compile", "torch.in", "--no-header", "--no-annotate", "--python-version",
         "3.11", "--python-platform", f"{machine}-manylinux_2_28"],
        cwd=tmp_path, capture_output=True, text=True, check=True, timeout=120,
    ).stdout  # fmt: skip
    found = re.search(r"^nvidia-cuda-runtime(?:-cu\d+)?==(\d+\.\d+)", said, re.MULTILINE)
    cuda = found[1] if found else ""
    assert chosen(f"torch=={version}", platform=f"linux_{machine}").cuda == cuda


def test_every_build_of_the_usual_index_is_known_to_exist() -> None:
    for version, releases in torch._RELEASES.items():
        assert torch._PYPI_X86_64[version] in releases


@pytest.mark.parametrize(
    ("version", "cuda"),
    [("2.0.1", "11.8"), ("2.5.1", "12.1"), ("2.6.0", "12.6"), ("2.7.0", "12.8"),
     ("2.8.0", "12.9"), ("2.9.0", "13.0"), ("2.7.0.post1", "11.8")],
)  # fmt: skip
def test_a_build_that_exists_comes_from_its_own_index(version: str, cuda: str) -> None:
    build = chosen(f"torch=={version}", cuda=cuda)
    assert build.index == f"{TORCH_INDEX}/cu{cuda.replace('.', '')}"
    assert build.cuda == cuda


@pytest.mark.parametrize(
    ("packages", "cuda", "said", "hint"),
    [
        (["torch==2.7.0"], "12.4",
         "there is no torch 2.7.0 for CUDA 12.4 (base.txt:1): it is built for 11.8, 12.6 and 12.8",
         'say cuda = "11.8", or take another torch'),
        (["torch==2.7.0"], "13.0",
         "there is no torch 2.7.0 for CUDA 13.0 (base.txt:1): it is built for 11.8, 12.6 and 12.8",
         'say cuda = "12.8", or take another torch'),
        (["torch==2.0.1"], "11.0",
         "there is no torch 2.0.1 for CUDA 11.0 (base.txt:1): it is built for 11.7 and 11.8",
         'say cuda = "11.7", or take another torch'),
        (["torch"], "12.7",
         "there is no torch for CUDA 12.7: it is built for 11.7, 11.8, 12.1, 12.4, 12.6, 12.8, "
         "12.9, 13.0 and 13.2", 'say cuda = "12.6"'),
        (["torch>=2.6"], "99.9",
         "there is no torch for CUDA 99.9: it is built for 11.7, 11.8, 12.1, 12.4, 12.6, 12.8, "
         "12.9, 13.0 and 13.2", 'say cuda = "13.2"'),
        (["torch==2.7.0+cu118"], "12.6",
         "torch 2.7.0+cu118 (base.txt:1) is built for CUDA 11.8, not 12.6",
         'say cuda = "11.8", or leave +cu118 out'),
    ],
)  # fmt: skip
def test_a_build_that_does_not_exist_is_refused_and_those_that_do_are_named(
    packages: list[str], cuda: str, said: str, hint: str
) -> None:
    with pytest.raises(ConfigurationProblem) as caught:
        chosen(*packages, cuda=cuda)
    assert caught.value.message.endswith(said)
    assert caught.value.hint == hint


@pytest.mark.parametrize(
    ("package", "cuda"),
    [("torch==2.99.0", "13.9"), ("torch==2.7.0.dev20250301", "12.4"), ("torch==2.8.0rc1", "13.0"),
     ("torch==1.13.1", "11.6"), ("torch", "13.3"), ("torch", "14.0"), ("numpy", "12.7")],
)  # fmt: skip
def test_what_no_table_can_know_is_let_through(package: str, cuda: str) -> None:
    assert chosen(package, cuda=cuda).cuda == cuda


def test_a_mirror_may_have_builds_that_pytorch_has_not() -> None:
    mirror = "https://mirror.example/torch"
    assert chosen("torch==2.7.0", cuda="12.4", torch_index=mirror).index == mirror
    template = "https://mirror.example/whl/{backend}"
    assert chosen("torch==2.7.0", cuda="12.4", torch_index=template).index.endswith("/whl/cu124")


def test_pytorchs_own_index_is_no_mirror() -> None:
    with pytest.raises(ConfigurationProblem, match=r"there is no torch 2\.7\.0 for CUDA 12\.4"):
        chosen("torch==2.7.0", torch_index=f"{TORCH_INDEX}/cu124")


@pytest.mark.parametrize(
    ("package", "keys", "end"),
    [
        ("torch==2.7.0", {"cuda": "12.8"}, "cu128"),
        ("torch", {"cuda": "13.0"}, "cu130"),
        ("torch==2.7.0", {}, "cu126"),  # as the usual index has it
        ("torch==2.7.0+cu118", {}, "cu118"),
    ],
)
def test_backend_in_an_index_stands_for_the_build(
    package: str, keys: dict[str, object], end: str
) -> None:
    url = "https://me:secret@mirror.example/whl/{backend}/"
    build = chosen(package, torch_index=url, **keys)
    assert build.index == f"https://me:secret@mirror.example/whl/{end}/"
    assert build.cuda == f"{end[2:4]}.{end[4]}"
    assert "secret" not in repr(build)


def test_backend_without_a_release_is_refused() -> None:
    with pytest.raises(ConfigurationProblem, match=r"\{backend\} stands for a CUDA release"):
        chosen("torch", torch_index="https://mirror.example/whl/{backend}")


def test_an_index_of_another_release_is_refused() -> None:
    with pytest.raises(ConfigurationProblem, match=r"builds for CUDA 12\.6, not 12\.8"):
        chosen("torch", cuda="12.8", torch_index="https://mirror.example/whl/cu126")
