"""
scripts/build-runpod-slim.sh up to the builder, with stand-ins for docker and buildah that note how
they are called. That a real builder builds a working image is in test_image.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from cachepod import __version__
from tests.image.test_sizes import layer, saved
from tests.support.cli import ROOT, Result

SCRIPT = ROOT / "scripts/build-runpod-slim.sh"
TOOLS = ("bash", "basename", "cat", "cp", "dirname", "env", "git", "grep", "mktemp", "rm", "sed")

DOCKER = """\
#!/bin/bash
printf '%s\\n' "$@" >>"$LOG"; echo -- >>"$LOG"
case "$1" in
version) exit "${DAEMON:-0}" ;;
build)
    env | grep -E '^(DOCKER_BUILDKIT|SOURCE_DATE_EPOCH)=' >>"$LOG"
    for word in "$@"; do
        case "$word" in id=*,src=*) echo "${word%%,*}: $(cat "${word#*,src=}")" >>"$LOG" ;; esac
    done
    exit "${BUILDS:-0}" ;;
save) cp "$IMAGE" "$3" ;;
image) echo 1 ;;
esac
"""


class Machine:
    """A PATH with little on it, and how its docker was called."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bin = root / "bin"
        self.bin.mkdir()
        self.log = root / "calls.log"
        self.image = saved(root / "made.tar", layer({"bin/sh": 900_000}), layer({"a": 900_000}))
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found
            (self.bin / tool).symlink_to(found)
        (self.bin / "python3").symlink_to(sys.executable)

    def has(self, name: str, text: str = DOCKER) -> None:
        """Put a program on the PATH."""
        program = self.bin / name
        program.write_text(text)
        program.chmod(0o755)

    def build(self, *words: str, env: Mapping[str, str] | None = None) -> Result:
        """Run the script, from a folder that is not the repository's."""
        done = subprocess.run(
            [SCRIPT, *words],
            cwd=self.root,
            env={
                "PATH": str(self.bin),
                "HOME": str(self.root),
                "LOG": str(self.log),
                "IMAGE": str(self.image),
                "GIT_CONFIG_COUNT": "1",
                "GIT_CONFIG_KEY_0": "safe.directory",
                "GIT_CONFIG_VALUE_0": "*",
                "TMPDIR": os.environ.get("TMPDIR", "/tmp"),
                **(env or {}),
            },
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def calls(self) -> list[list[str]]:
        """How docker was called, and what it noted of each call."""
        return [call.splitlines() for call in self.log.read_text().split("--\n")]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--colour"], "there is no option '--colour'; see --help"),
        (["image"], "there is no option 'image'; see --help"),
        (["--base"], "--base needs a value; see --help"),
        (["--tag", ""], "--tag needs a value; see --help"),
        (["--builder", "kaniko"], "--builder takes docker or buildah, not 'kaniko'"),
        (["--user", "root"], "--user takes a number of 1 or more, such as 1000, not 'root'"),
        (["--user", "-1"], "--user takes a number of 1 or more, such as 1000, not '-1'"),
        (["--limit", "2GB"], "--limit takes a whole number of megabytes, not '2GB'"),
        (["--limit", "0"], "--limit takes a whole number of megabytes, not '0'"),
        (["--tag", "a b"], "the name of an image has no blank in it: 'ubuntu:22.04', 'a b'"),
        (["--output", "/"], "/ is a directory; --output names a file"),
    ],
)
def test_what_cannot_be_is_answered_with_one_sentence(
    machine: Machine, words: list[str], sentence: str
) -> None:
    machine.has("docker")
    done = machine.build(*words)
    assert (done.code, done.err) == (2, f"build-runpod-slim: {sentence}\n")
    assert not machine.log.exists()


def test_a_file_that_is_not_there_is_named_before_anything_is_built(machine: Machine) -> None:
    machine.has("docker")
    for option in ("--pip-config", "--certificates"):
        done = machine.build(option, "none.conf")
        assert done.code == 2
        assert f"there is no file {machine.root}/none.conf, or it cannot be read" in done.err
    done = machine.build("--output", "none/image.tar")
    assert done.code == 2
    assert "there is no directory" in done.err
    done = machine.build(env={"SOURCE_DATE_EPOCH": "today"})
    assert done.code == 2
    assert "SOURCE_DATE_EPOCH is to be seconds since 1970, not 'today'" in done.err
    assert not machine.log.exists()


def test_without_a_builder_it_says_what_to_install(machine: Machine) -> None:
    done = machine.build()
    assert done.code == 1
    assert done.err == (
        "build-runpod-slim: there is neither docker nor buildah; install one of them\n"
    )
    for name in ("docker", "buildah"):
        done = machine.build("--builder", name)
        assert (done.code, done.err) == (
            1,
            f"build-runpod-slim: there is no {name} on the PATH\n",
        )


def test_a_docker_without_its_daemon_is_no_builder(machine: Machine) -> None:
    machine.has("docker")
    done = machine.build(env={"DAEMON": "1"})
    assert done.code == 1
    assert done.err == (
        "build-runpod-slim: docker's daemon does not answer, and there is no buildah; "
        "start the daemon, or install buildah\n"
    )
    done = machine.build("--builder", "docker", env={"DAEMON": "1"})
    assert done.code == 1
    assert "docker's daemon does not answer; start it, or use --builder buildah" in done.err
    machine.has("buildah", "#!/bin/bash\necho reached buildah >&2; exit 1\n")
    assert "reached buildah" in machine.build(env={"DAEMON": "1"}).err


def test_docker_builds_what_was_asked_for_from_any_folder(machine: Machine) -> None:
    machine.has("docker")
    done = machine.build(
        *("--base", "debian@sha256:0a", "--tag", "mine:2", "--user", "1000"),
        *("--output", "out.tar", "--", "--no-cache"),
        env={"SOURCE_DATE_EPOCH": "1700000000"},
    )
    assert done.code == 0, done.err
    build = next(call for call in machine.calls() if call[0] == "build")
    for argument in ("BASE=debian@sha256:0a", "RUN_AS=1000", "SOURCE_DATE_EPOCH=1700000000"):
        assert build[build.index(argument) - 1] == "--build-arg"
    assert build[build.index("mine:2") - 1] == "--tag"
    assert f"org.opencontainers.image.version={__version__}" in build
    assert build[-2:] == ["--no-cache", "."]
    noted = machine.calls()[machine.calls().index(build) + 1]
    assert {"DOCKER_BUILDKIT=1", "SOURCE_DATE_EPOCH=1700000000"} <= set(noted)
    assert (machine.root / "out.tar").read_bytes() == machine.image.read_bytes()
    assert done.out.startswith("mine:2: built by docker on debian@sha256:0a in ")
    assert "together" in done.out


def test_where_packages_are_found_is_a_secret_of_the_build(machine: Machine) -> None:
    machine.has("docker")
    authorities = machine.root / "authorities.crt"
    authorities.write_text("AUTHORITIES\n")
    done = machine.build(
        env={
            "PIP_INDEX_URL": "https://user:hidden@index.example/simple",
            "PIP_TRUSTED_HOST": "index.example",
            "SSL_CERT_FILE": str(authorities),
        }
    )
    assert done.code == 0, done.err
    build = next(call for call in machine.calls() if call[0] == "build")
    assert "hidden" not in " ".join(build) + done.out + done.err
    noted = "\n".join(machine.calls()[machine.calls().index(build) + 1])
    assert (
        "id=pip: [global]\n"
        "index-url = https://user:hidden@index.example/simple\n"
        "trusted-host = index.example\n" in noted
    )
    assert "id=certificates: AUTHORITIES" in noted


def test_a_pip_config_that_is_named_is_the_one_that_counts(machine: Machine) -> None:
    machine.has("docker")
    (machine.root / "own.conf").write_text("[global]\nretries = 9\n")
    done = machine.build(
        "--pip-config", "own.conf", env={"PIP_INDEX_URL": "https://other.example/simple"}
    )
    assert done.code == 0, done.err
    assert "id=pip: [global]\nretries = 9" in machine.log.read_text()
    assert "other.example" not in machine.log.read_text()


def test_a_build_that_fails_is_a_failure(machine: Machine) -> None:
    machine.has("docker")
    done = machine.build(env={"BUILDS": "3"})
    assert (done.code, done.out) == (1, "")
    assert "docker could not build the image; what it said is above" in done.err


def test_an_image_beyond_the_limit_is_a_failure(machine: Machine) -> None:
    machine.has("docker")
    assert machine.build("--limit", "2").code == 0
    done = machine.build("--limit", "1")
    assert done.code == 1
    assert "the image takes 1.8 MB in a registry, more than 1 MB" in done.err


def test_the_builders_files_are_removed_at_the_end(machine: Machine) -> None:
    machine.has("docker")
    temporary = machine.root / "tmp"
    temporary.mkdir()
    for env in ({}, {"BUILDS": "1"}):
        machine.build(env={"TMPDIR": str(temporary), **env})
        assert list(temporary.iterdir()) == []
