"""The hook with apt packages, from the command line in containers of a real Debian image."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.cli import Result
from tests.support.project import make_wheel
from tests.support.roots import Container, Image

pytestmark = [pytest.mark.root, pytest.mark.network, pytest.mark.slow]

HOOK = "cachepod restore || cachepod install && cachepod publish"
CONFIGURATION = """\
store = ["/store/cachepod"]
prefix = "/opt/venv"
packages = ["alpha==1.0"]
find_links = ["wheels"]
check = ["alpha"]
apt = ["jq", "libsndfile1"]
min_free = 0
"""


@dataclass
class Worker:
    """A container with a project, its store on a volume that others mount too."""

    container: Container
    project: Path

    def sh(self, script: str, **others: str) -> Result:
        """Run a shell script in the project's directory."""
        user = others.pop("user", "root")
        return self.container.run(
            "sh", "-c", f"cd /project; {script}", env={"UV_OFFLINE": "1", **others}, user=user
        )

    def configure(self, old: str, new: str) -> None:
        file = self.project / "cachepod.toml"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    def json(self, command: str) -> dict[str, object]:
        found: dict[str, object] = json.loads(self.sh(f"{command} --json").out)
        return found


@dataclass
class Fleet:
    """Containers of one image."""

    image: Image
    folder: Path
    store: Path
    number: int = 0

    def worker(self, store: Path | None = None) -> Worker:
        self.number += 1
        place = self.folder / str(self.number)
        project = place / "project"
        for version in ("1.0", "2.0"):
            make_wheel(project / "wheels", "alpha", version)
        (project / "cachepod.toml").write_text(CONFIGURATION)
        container = self.image.container(place, store=store or self.store, project=project)
        return Worker(container, project)


@dataclass
class Cold:
    """The first container of all, and what its hook said."""

    worker: Worker
    hook: Result


@pytest.fixture(scope="module")
def _cold(debian: Image, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fleet, Cold]:
    folder = tmp_path_factory.mktemp("fleet")
    (folder / "store").mkdir()
    fleet = Fleet(debian, folder, folder / "store")
    worker = fleet.worker()
    return fleet, Cold(worker, worker.sh(HOOK))


@pytest.fixture
def fleet(_cold: tuple[Fleet, Cold]) -> Fleet:
    return _cold[0]


@pytest.fixture
def cold(_cold: tuple[Fleet, Cold]) -> Cold:
    return _cold[1]


def test_a_new_container_has_the_packages_as_if_apt_had_run(fleet: Fleet, cold: Cold) -> None:
    assert cold.hook.code == 0, cold.hook.err
    assert "apt packages (" in cold.hook.err
    assert " stored in /store/cachepod: " in cold.hook.err
    tree = cold.worker.container.root / "var/lib/cachepod/system/files"
    assert sorted(path.name for path in tree.iterdir()) == ["usr", "var"]
    warm = fleet.worker()
    hook = warm.sh(f"{HOOK}; echo '[1]' | jq -c .; dpkg --verify; dpkg --audit")
    assert hook.code == 0
    assert "cachepod: restored " in hook.err
    assert " apply 0." in hook.err
    assert hook.out == "[1]\n"
    assert "apt-get" not in hook.err
    listed = "dpkg-query -W -f '${Package} ${Version} ${Status}\\n'"
    assert warm.sh(listed).out == cold.worker.sh(listed).out
    (before, after) = (each.sh("ldconfig -p | grep -c sndfile").out for each in (cold.worker, warm))
    assert before == after != "0\n"
    again = warm.sh(HOOK)
    assert again.code == 0
    assert "cachepod: confirmed " in again.err
    assert " apply " not in again.err
    more = warm.sh(f"apt-get -qq update && apt-get -qq install -y bc >&2 && {HOOK}")
    assert more.code == 0, more.err
    assert "cachepod: confirmed " in more.err
    assert warm.sh("cachepod up -- jq -n -c '[2]'").out == "[2]\n"


def test_the_packages_of_a_snapshot_are_shown_and_compared(cold: Cold) -> None:
    worker = cold.worker
    key = worker.sh("cachepod key").out.strip()
    assert "HOLDS" in worker.sh("cachepod ls").out
    assert "env,system" in worker.sh("cachepod ls").out
    shown = worker.json(f"cachepod show {key}")
    names = {each["name"] for each in shown["distributions"]}  # type: ignore[attr-defined]
    assert {"alpha", "deb:jq", "deb:libsndfile1"} <= names
    assert worker.sh("cachepod verify").code == 0
    copied = worker.sh("cachepod copy /store/cachepod /store/other && cachepod prune --dry-run")
    assert copied.code == 0, copied.err
    assert worker.sh("cachepod doctor").code == 0


def test_another_image_is_a_miss_whose_explanation_says_so(fleet: Fleet, cold: Cold) -> None:
    key = cold.worker.sh("cachepod key").out.strip()
    worker = fleet.worker()
    # An image with one package less, as dpkg sees it.
    worker.sh("dpkg --purge --force-depends media-types")
    missed = worker.sh("cachepod restore")
    assert missed.code == 4  # the environment is brought, for it does not depend on the image
    assert "the base image differs: " in missed.err
    assert " packages) here, " in missed.err
    against = worker.sh(f"cachepod key --against {key}").out
    assert [line.split()[0] for line in against.splitlines()[3:]] == ["base"]


def test_what_apt_installs_twice_is_stored_once(fleet: Fleet, cold: Cold) -> None:
    key = cold.worker.sh("cachepod key").out.strip()
    worker = fleet.worker()
    assert worker.sh("cachepod install").code == 0
    document = worker.json("cachepod publish --force")
    assert document["key"] == key
    (stored,) = document["stores"]  # type: ignore[misc]
    assert stored["size"] > 4_000_000
    assert stored["stored_new"] < 200_000


def test_a_user_who_is_not_root_is_told_and_may_do_without(fleet: Fleet, cold: Cold) -> None:
    worker = fleet.worker()
    shutil.copytree(fleet.store, fleet.folder / "theirs")
    worker = fleet.worker(fleet.folder / "theirs")
    worker.configure("/opt/venv", "/tmp/venv")
    worker.sh("chmod -R a+rwX /store; chmod 1777 /tmp")
    refused = worker.sh("cachepod restore; echo $?; cachepod install; echo $?", user="1234:1234")
    assert refused.out.split() == ["3", "1"]
    assert refused.err.count("needs root") == 2
    without = worker.sh(HOOK, user="1234:1234", CACHEPOD_APT_MISSING="warning")
    assert without.code == 0, without.err
    assert without.err.count("needs root") == 1
    assert worker.json("cachepod key --explain")["key"] != (
        worker.sh("cachepod key", user="1234:1234", CACHEPOD_APT_MISSING="warning").out.strip()
    )


def test_the_doctor_knows_whether_packages_can_be_had(fleet: Fleet, cold: Cold) -> None:
    worker = fleet.worker()
    checks = worker.json("cachepod doctor")["checks"]
    (asked,) = {each["result"] for each in checks if each["check"] == "packages"}  # type: ignore[attr-defined]
    assert asked == "2 of 2 missing: jq, libsndfile1"
    said = worker.sh("cachepod doctor")
    assert said.code == 0
    assert "deb.debian.org answers; packages can be installed" in said.out + said.err
    worker.sh("sed -i s/deb.debian.org/nowhere.invalid/ /etc/apt/sources.list")
    said = worker.sh("cachepod doctor")
    assert said.code == 0
    assert "nowhere.invalid: " in said.out + said.err
    # A mirror that is down keeps nobody from what a store has.
    assert worker.sh("cachepod restore && echo '[1]' | jq -c .").out == "[1]\n"


def test_a_package_that_does_not_exist_is_one_sentence(fleet: Fleet, cold: Cold) -> None:
    worker = fleet.worker()
    worker.configure('"libsndfile1"', '"no-such-package"')
    failed = worker.sh("cachepod restore -q; cachepod install")
    assert failed.code == 1
    assert "no-such-package" in failed.err
    assert "Traceback" not in failed.err
    worker.configure("min_free", 'apt_missing = "warning"\nmin_free')
    hook = worker.sh(f"{HOOK} && /opt/venv/bin/python -c 'import alpha'")
    assert hook.code == 0, hook.err
    assert "not stored in /store/cachepod: it lacks the apt package" in hook.err


KILLED = """
import os, signal, sys
import cachepod.system.apply as module

def killed(*args, **others):
    os.kill(os.getpid(), signal.SIGKILL)

owner = module if {name!r} == "_ldconfig" else module.Merge
setattr(owner, {name!r}, killed)
from cachepod.cli.main import main
main(["restore"])
"""


@pytest.mark.parametrize("name", ["directories", "remove", "commit", "_ldconfig"])
def test_a_restore_that_was_killed_while_it_put_packages_in_place_is_completed(
    fleet: Fleet, cold: Cold, name: str
) -> None:
    worker = fleet.worker()
    (worker.project / "killed.py").write_text(KILLED.format(name=name))
    assert worker.sh("python3 killed.py").code != 0
    hook = worker.sh(f"{HOOK}; echo '[1]' | jq -c .; dpkg --verify; dpkg --audit")
    assert hook.code == 0, hook.err
    assert "cachepod: confirmed " in hook.err
    assert " apply 0." in hook.err
    assert hook.out == "[1]\n"
    assert "cachepod: confirmed " in worker.sh(HOOK).err
