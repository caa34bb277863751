"""
The image itself: built by the script on Debian 12, and the start of containers made of it.

Both variants are built once for all tests, without a daemon. See tests/support/buildah.py.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.image.test_sizes import table
from tests.image.test_trim import USE
from tests.support import buildah
from tests.support.buildah import Buildah, Container
from tests.support.cli import ROOT
from tests.support.roots import Image
from tests.support.shared import shared
from tests.support.wheels import Index

pytestmark = [
    pytest.mark.root,
    pytest.mark.network,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

SCRIPT = ROOT / "scripts/build-runpod-slim.sh"
BASE = "localhost/base:bookworm"
SLIM = "localhost/slim:root"
OTHER = "localhost/slim:user"
UID = 1000
MARK = "of-no-concern-to-the-image"

CONFIGURATION = """\
packages = ["alpha==1.0"]
index_url = "file:///srv/index"
check = ["alpha"]
"""
HANDLER = """\
import os, sys
import alpha
print(alpha.VERSION, sys.prefix, os.path.realpath(sys.executable), os.getuid())
"""


def make(folder: Path, debian: Image) -> None:
    """Fill *folder* with the images and what the script said of them."""
    buildah.need_tools()
    tool = Buildah(folder)
    tool.set_up()
    tool.import_root(debian.path, BASE, without=("opt/cachepod", "usr/local/bin/cachepod"))
    (folder / "pip.conf").write_text(f"# {MARK}\n[global]\nretries = 5\n")

    def build(image: str, *more: str) -> None:
        done = subprocess.run(
            [
                *(SCRIPT, "--builder", "buildah", "--base", BASE, "--tag", image),
                *("--pip-config", folder / "pip.conf", *more),
            ],
            cwd=folder,
            env=tool.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        (folder / f"{image.rpartition(':')[2]}.txt").write_text(done.stdout)

    with ThreadPoolExecutor() as pool:
        for building in (pool.submit(build, SLIM), pool.submit(build, OTHER, "--user", str(UID))):
            building.result()


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory, debian: Image) -> Iterator[Buildah]:
    with shared(tmp_path_factory, "image", lambda folder: make(folder, debian)) as folder:
        yield Buildah(folder)


class Machine:
    """What is outside of the containers of one test: a volume, an index, a worker's files."""

    def __init__(self, root: Path, images: Buildah) -> None:
        self.images = images
        self.volume = root / "volume"
        self.index = Index(root / "index")
        self.index.add("alpha")
        self.app = root / "app"
        (self.app / "handlers").mkdir(parents=True)
        (self.app / "cachepod.toml").write_text(CONFIGURATION)
        (self.app / "handlers/handler.py").write_text(HANDLER)
        self.volume.mkdir()
        self.volumes = {self.volume: "/runpod-volume", self.index.root: "/srv/index"}


@pytest.fixture
def machine(tmp_path: Path, images: Buildah) -> Machine:
    return Machine(tmp_path, images)


def new(machine: Machine, image: str = SLIM) -> Iterator[Container]:
    with machine.images.container(image) as made:
        made.put(machine.app, "/app")
        yield made


@pytest.fixture
def first(machine: Machine) -> Iterator[Container]:
    yield from new(machine)


@pytest.fixture
def second(machine: Machine) -> Iterator[Container]:
    yield from new(machine)


@pytest.fixture
def user(machine: Machine) -> Iterator[Container]:
    yield from new(machine, OTHER)


@pytest.mark.parametrize("name", ["root", "user"])
def test_a_registry_stores_at_most_200_mb(images: Buildah, name: str) -> None:
    rows = table((images.root / f"{name}.txt").read_text().partition("\n")[2])
    assert rows["together"][0] <= 200
    # what is added to the base; a package that has grown is worth a look
    assert rows["together"][0] - rows["base image"][0] < 40
    assert rows["together"][1] - rows["base image"][1] < 100


def test_a_second_container_restores_what_the_first_has_installed_with_root_or_without(
    machine: Machine, first: Container, second: Container, user: Container
) -> None:
    cold = first.start(volumes=machine.volumes)
    assert cold.code == 0, cold.err
    assert "startup: restore: miss" in cold.err
    assert "startup: publish: done" in cold.err
    assert cold.out.split()[:2] == ["1.0", "/opt/worker/venv"]
    assert cold.out.split()[2].startswith("/usr/bin/python3")

    (machine.index.root / "alpha/index.html").unlink()  # nothing can be installed any more
    for container, uid in ((second, 0), (user, UID)):
        warm = container.start(volumes=machine.volumes)
        assert warm.code == 0, warm.err
        assert "startup: restore: hit" in warm.err
        assert "install" not in warm.err
        assert warm.out.split() == [*cold.out.split()[:3], str(uid)]


def test_the_hook_works_in_the_shell_as_well(machine: Machine, first: Container) -> None:
    done = first.run(
        *("sh", "-c", "cachepod restore || cachepod install && cachepod publish"),
        volumes=machine.volumes,
    )
    assert done.code == 0, done.err
    assert list(machine.volume.glob("cachepod/manifests/*/*"))
    assert first.run("cachepod", "run", "--", "python", "-c", "import alpha").code == 0


def test_without_the_cache_the_plain_installation_works_where_there_is_no_pip(
    machine: Machine, first: Container
) -> None:
    assert first.run("python3", "-c", "import pip").code != 0
    assert first.run("python3", "-c", "import ensurepip").code != 0
    done = first.run("install-runpod-deps.sh", "--alone", volumes=machine.volumes)
    assert done.code == 0, done.err
    assert done.out.strip().endswith("/opt/worker/venv")
    assert first.run("/opt/worker/venv/bin/python", "-c", "import alpha").code == 0


def test_a_container_without_root_installs_publishes_and_restores(
    machine: Machine, user: Container
) -> None:
    os.chown(machine.volume, UID, UID)
    assert user.config["User"] == str(UID)
    cold = user.start(volumes=machine.volumes)
    assert cold.code == 0, cold.err
    assert cold.out.split()[0] == "1.0"
    assert cold.out.split()[3] == str(UID)
    assert "startup: publish: done" in cold.err
    for warm in new(machine, OTHER):
        again = warm.start(volumes=machine.volumes)
        assert "startup: restore: hit" in again.err
        assert again.out == cold.out


def test_a_container_that_does_without_the_cache_is_healthy(first: Container) -> None:
    # Process 1, as it is seen there, is that of this machine: no start-up script.
    kind, *check = first.config["Healthcheck"]["Test"]
    assert kind == "CMD"
    done = first.run(*check)
    assert (done.code, done.err) == (0, "")


@pytest.mark.parametrize("name", [SLIM, OTHER])
def test_the_doctor_finds_nothing_wrong(machine: Machine, name: str) -> None:
    os.chown(machine.volume, UID, UID)
    for container in new(machine, name):
        done = container.run("cachepod", "doctor", volumes=machine.volumes)
        assert done.code == 0, done.out + done.err
        assert "/opt/cachepod/bin/uv" in done.out
        assert "/usr/bin/python3" in done.out
        assert "/runpod-volume/cachepod" in done.out


def test_a_store_in_s3_can_be_used_in_the_image(first: Container) -> None:
    done = first.run("/opt/cachepod/bin/python3", "-I", "-c", USE)
    assert done.code == 0, done.err


def test_no_module_is_compiled_at_a_start(first: Container) -> None:
    # flags of PEP 552: 1 is a hash that nobody checks
    program = (
        "import glob, importlib.util as u, sys\n"
        "sources = glob.glob('/opt/cachepod/lib/**/*.py', recursive=True)\n"
        "flags = {open(u.cache_from_source(path), 'rb').read(8)[4:] for path in sources}\n"
        "print(len(sources) > 500, flags)"
    )
    done = first.run("python3", "-c", program)
    assert done.out == "True {b'\\x01\\x00\\x00\\x00'}\n", done.err


def test_what_the_users_variables_say_of_python_does_not_reach_cachepod(
    first: Container, tmp_path: Path
) -> None:
    (tmp_path / "click.py").write_text("raise SystemExit('not this one')\n")
    done = first.run(
        "cachepod", "--version", volumes={tmp_path: "/srv/own"}, env={"PYTHONPATH": "/srv/own"}
    )
    assert done.code == 0, done.err
    assert done.out.startswith("cachepod ")


def test_nothing_of_the_build_is_left_in_the_image(images: Buildah, first: Container) -> None:
    assert MARK not in str(images.describe(SLIM))
    found = first.run("grep", "-rlsF", MARK, "/app", "/etc", "/opt", "/root", "/tmp", "/usr/local")
    assert found.out == ""
    for path in ("/build", "/out", "/etc/pip.conf", "/usr/bin/strip", "/usr/bin/gcc"):
        assert first.run("test", "-e", path).code == 1, path


def test_two_builds_give_the_same_files_at_the_same_times(
    first: Container, user: Container
) -> None:
    # Both variants were built from the start, one after the other.
    program = (
        "find /opt/cachepod /usr/local -printf '%p %m %T@ %l\\n'; "
        "find /opt/cachepod /usr/local -type f -exec sha256sum {} +"
    )
    one, other = (container.run("sh", "-c", f"({program}) | sort") for container in (first, user))
    assert one.code == 0, one.err
    assert one.out.count("\n") > 2000
    assert one.out == other.out


def test_the_image_is_labelled_and_stops_by_sigterm(images: Buildah) -> None:
    config = images.describe(SLIM)["config"]
    assert config["StopSignal"] == "SIGTERM"
    assert config["Labels"]["org.opencontainers.image.base.name"] == BASE
    assert config["Labels"]["org.opencontainers.image.version"]
