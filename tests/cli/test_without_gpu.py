"""The hook on a machine without a GPU, and what a warm start does not even look for."""

from __future__ import annotations

import pytest

from tests.support.imports import imported_by
from tests.support.project import Project, make_wheel

HIDDEN = {"CUDA_VISIBLE_DEVICES": ""}
PACKAGES = '["alpha==1.0", "torch==2.7.0"]'


@pytest.fixture
def project(project: Project) -> Project:
    make_wheel(project.wheels, "torch", "2.7.0")
    project.env.update(HIDDEN)
    return project


def test_a_warm_start_looks_for_no_gpu(project: Project) -> None:
    project.configure(PACKAGES)
    project.ready()
    for command in ("publish", "restore"):
        result, names = imported_by(command, cwd=project.root)
        assert result.code == 0, result.err
        assert "cachepod.environment.torch" in names
        assert not {name for name in names if name.startswith("cachepod.environment.gpu")}
        assert "cachepod.environment.nvml" not in names
        assert "cachepod.environment.advice" not in names


def test_without_a_gpu_the_hook_installs_publishes_and_restores_what_is_left(
    project: Project,
) -> None:
    project.configure(PACKAGES, 'without_gpu = "none"')
    done = project.run("install")
    assert done.code == 0, done.err
    assert "there is no GPU here: torch and what needs it are left out" in done.err
    assert "(without_gpu: cachepod.toml:5)" in done.err
    assert project.run("publish").code == 0
    project.wipe()
    assert project.run("restore").code == 0
    assert project.version_of("alpha") == "1.0"
    site = next((project.prefix / "lib").glob("python*/site-packages"))
    assert not (site / "torch").exists()


def test_a_miss_for_want_of_a_gpu_names_that_input(project: Project) -> None:
    project.configure(PACKAGES)
    project.ready()
    project.wipe()
    project.configure(PACKAGES, 'without_gpu = "none"')
    told = project.run("key", "--explain")
    assert "without-gpu" in told.out
    assert "cachepod.toml:5" in told.out
    key = project.run("key", "-q").out.strip()
    stored = project.run("ls", "--json").json["snapshots"][0]["key"]
    assert key != stored
    against = project.run("key", "--against", stored)
    assert "without-gpu" in against.out


def test_a_torch_that_does_not_exist_is_refused_with_the_place(project: Project) -> None:
    project.configure(PACKAGES, 'cuda = "12.4"')
    for command in ("key", "restore", "install"):
        done = project.run(command)
        assert done.code == 2
        assert (
            "cachepod.toml:5: there is no torch 2.7.0 for CUDA 12.4 (cachepod.toml:2)" in done.err
        )
        assert 'say cuda = "11.8"' in done.err


def test_the_doctor_tells_of_torch_and_of_the_gpu(project: Project) -> None:
    project.configure(PACKAGES, 'cuda = "12.8"\nwithout_gpu = "cpu"')
    done = project.run("doctor", "--json")
    checks = {check["check"]: check for check in done.json["checks"]}
    assert "for the CPU" in checks["torch"]["result"]
    assert checks["torch"]["meaning"] == "from https://download.pytorch.org/whl/cpu"
    assert checks["GPU"]["severity"] in ("ok", "warning")
