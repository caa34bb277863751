"""What the image is built from, as far as it can be told without building it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.cli import ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "runpod.Dockerfile.slim").read_text()
LOCKS = ("requirements.txt", "requirements-build.txt")
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def instructions(text: str) -> list[tuple[str, str]]:
    """A Dockerfile's instructions and what follows them, comments left out and lines joined."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    return [
        (words[0], words[1].strip())
        for words in (line.split(None, 1) for line in joined.splitlines())
        if words
    ]


def stages(text: str) -> dict[str, list[tuple[str, str]]]:
    """The instructions of each stage by its name; those before the first by an empty one."""
    found: dict[str, list[tuple[str, str]]] = {"": []}
    name = ""
    for instruction, rest in instructions(text):
        if instruction == "FROM":
            name = rest.rpartition(" AS ")[2]
            found[name] = []
        found[name].append((instruction, rest))
    return found


def locked(name: str) -> list[Requirement]:
    """The pinned requirements of a lock file."""
    text = (DOCKER / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [Requirement(line.partition(" --hash=")[0]) for line in lines]


def pyproject() -> dict[str, dict[str, list[str]]]:
    """pyproject.toml."""
    found: dict[str, dict[str, list[str]]] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    return found


def applies(requirement: Requirement, python: str) -> bool:
    """Whether *requirement* counts on Linux with this version of Python."""
    return requirement.marker is None or requirement.marker.evaluate(
        {
            "python_version": python,
            "python_full_version": f"{python}.1",
            "sys_platform": "linux",
            "platform_system": "Linux",
        }
    )


def test_every_stage_is_built_on_an_argument_or_on_another_stage() -> None:
    seen = {"${BASE}"}
    for instruction, rest in instructions(DOCKERFILE):
        if instruction == "FROM":
            base, _, name = rest.partition(" AS ")
            assert base in seen
            seen.add(name)


def test_no_image_is_the_latest() -> None:
    ((_, base),) = (each for each in stages(DOCKERFILE)[""] if each[0] == "ARG")
    assert re.fullmatch(r"BASE=[\w./-]+:(?!latest$)[\w.-]+", base)


def test_the_image_says_what_it_is_and_how_it_is_stopped_and_examined() -> None:
    final = dict(stages(DOCKERFILE)["slim"])
    assert final["STOPSIGNAL"] == "SIGTERM"
    assert final["USER"] == "${RUN_AS}"
    assert "HEALTHCHECK" in final
    for label in ("title", "description", "licenses", "base.name"):
        assert f"org.opencontainers.image.{label}=" in final["LABEL"]


def test_the_entry_point_is_a_script_of_this_repository() -> None:
    (entry,) = (rest for name, rest in stages(DOCKERFILE)["slim"] if name == "ENTRYPOINT")
    (path,) = re.findall(r'"([^"]+)"', entry)
    script = ROOT / "scripts" / Path(path).name
    assert os.access(script, os.X_OK)
    assert script.name in (DOCKER / "make-tree.sh").read_text()


def test_what_pip_is_told_is_known_to_the_builder_alone() -> None:
    for name, content in stages(DOCKERFILE).items():
        text = " ".join(rest for _, rest in content)
        assert name == "builder" or not re.search("PIP_|/etc/pip|secret", text)
    ((_, making),) = (each for each in stages(DOCKERFILE)["builder"] if "make-tree.sh" in each[1])
    assert making.count("--mount=type=secret") == 2


def test_apt_takes_no_recommendations_and_leaves_no_lists() -> None:
    for name, rest in instructions(DOCKERFILE):
        if name == "RUN" and "apt-get" in rest:
            assert rest.count("apt-get install") == rest.count("--no-install-recommends")
    (installing,) = (rest for name, rest in stages(DOCKERFILE)["python"] if name == "RUN")
    assert "apt-get clean" in installing
    assert "/var/lib/apt/lists/*" in installing


def test_only_what_is_named_reaches_the_builder() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    rules = [line for line in lines if line and not line.startswith("#")]
    assert rules[0] == "*"
    named = [rule[1:] for rule in rules if rule.startswith("!")]
    for path in named:
        assert (ROOT / path).exists(), path
    for secret in (".git", ".venv", ".env", "tests", "docs", "shared"):
        assert not any(path == secret or path.startswith(f"{secret}/") for path in named)
    assert "**/__pycache__" in rules


def test_the_builder_finds_all_that_it_reads() -> None:
    ignored = (ROOT / ".dockerignore").read_text()
    script = (DOCKER / "make-tree.sh").read_text()
    for path in re.findall(r"docker/[\w.-]+", script.partition("set -eu")[2]):
        assert f"!{path}\n" in ignored
    for path in ("pyproject.toml", "README.md", "LICENSE", "cachepod"):  # what the wheel is made of
        assert f"!{path}\n" in ignored


@pytest.mark.parametrize("python", PYTHONS)
def test_the_lock_has_every_dependency_in_a_version_that_is_asked_for(python: str) -> None:
    pins = {
        canonicalize_name(pin.name): pin
        for pin in locked("requirements.txt")
        if applies(pin, python)
    }
    for text in pyproject()["project"]["dependencies"]:
        asked = Requirement(text)
        if applies(asked, python):
            (pinned,) = pins[canonicalize_name(asked.name)].specifier
            assert pinned.operator == "=="
            assert asked.specifier.contains(pinned.version), text


def test_the_build_asks_for_what_pyproject_asks_for() -> None:
    asked = (DOCKER / "requirements-build.in").read_text().split()
    assert asked == pyproject()["build-system"]["requires"]
    assert {Requirement(text).name for text in asked} <= {
        pin.name for pin in locked("requirements-build.txt")
    }


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_one_version_and_hashes(name: str) -> None:
    text = (DOCKER / name).read_text()
    packages = re.split(r"(?m)^(?=[a-z])", text)[1:]
    assert packages
    for package in packages:
        assert re.match(r"[\w.-]+==[\w.]+ ", package)
        assert package.count("--hash=sha256:") >= 1
        assert not re.search(r"--(extra-)?index|://", package)


@pytest.mark.network
@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_is_what_its_command_makes_of_its_source(name: str, tmp_path: Path) -> None:
    from uv import find_uv_bin

    lock = DOCKER / name
    _, command = lock.read_text().splitlines()[:2]
    words = command.lstrip("# ").split()
    assert words[:3] == ["uv", "pip", "compile"]
    # pins that are there are kept as long as they fit what is asked for
    (tmp_path / name).write_text(lock.read_text())
    words[words.index("--output-file") + 1] = str(tmp_path / name)
    done = subprocess.run(
        [find_uv_bin(), *words[1:], "--no-header", "-q"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / name).read_text() == lock.read_text().split("\n", 2)[2]
