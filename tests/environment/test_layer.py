"""The apt layer in the hook; what apt does is played by a dictionary (tests/support/apt.py)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepod.cli import describe
from cachepod.cli.render import Outcome
from cachepod.environment import doctor_layer, hook
from cachepod.environment.diagnosis import Check, Severity
from cachepod.environment.doctor_layer import examine_layer
from cachepod.environment.explanation import in_words
from cachepod.environment.identity import Identity
from cachepod.environment.restoration import Restoration, restore_environment
from cachepod.errors import (
    AptFailed,
    AptLocked,
    BaseDiffers,
    CachepodError,
    CheckFailed,
    ConfigurationProblem,
    NotRoot,
    SpaceExhausted,
    TreeUnreadable,
    UsageProblem,
)
from cachepod.snapshot.catalog import summaries
from cachepod.snapshot.lease import Standing, Watch
from cachepod.snapshot.uses import install_seconds
from cachepod.stores.local import LocalStore
from tests.support.apt import IMAGE, Container
from tests.support.installs import Notes
from tests.support.keys import secret_file
from tests.support.wheels import Index, configured


@dataclass
class Ran:
    """How one run of the hook ended; *install* and *publish* are None where they were not run."""

    restore: Restoration
    install: hook.Installation | None = None
    publish: Outcome | None = None
    notes: Sequence[str] = ()
    lines: Sequence[str] = ()

    @property
    def environment(self) -> str:
        """What the install did about the environment."""
        assert self.install is not None
        assert self.install.environment is not None
        return self.install.environment.outcome


class Worker:
    """A worker whose configuration asks for the package alpha and for ffmpeg."""

    def __init__(self, folder: Path, container: Container) -> None:
        self.folder = folder
        self.container = container
        self.prefix = folder / "env"
        self.store = LocalStore(folder / "store")
        self.index = Index(folder / "index")
        self.packages: list[str] = ["alpha"]
        self.keys: dict[str, object] = {"apt": ("ffmpeg",), "wait": 0.0}
        for version in ("1.0", "2.0"):
            self.index.add("alpha", version)

    def identify(self, **keys: object) -> Identity:
        return configured(self.folder, self.index, self.packages, **{**self.keys, **keys})[1]

    def hook(self, **keys: object) -> Ran:
        """``restore || install && publish``."""
        asked = {**self.keys, **keys}
        told = Notes()
        settings, identity = configured(self.folder, self.index, self.packages, **asked)
        stores = [self.store]
        restored = restore_environment(settings, identity, stores, progress=told)
        lines = [describe.restoration(restored, settings, identity, 1.0).summary]
        installed: hook.Installation | None = None
        if restored.exit_code:
            settings, identity = configured(self.folder, self.index, self.packages, **asked)
            installed = hook.install_environment(settings, identity, progress=told)
            lines.append(describe.installation(installed, identity.key, settings, 1.0).summary)
        settings, identity = configured(self.folder, self.index, self.packages, **asked)
        done = hook.publish_environment(settings, identity, stores, progress=told)
        published = describe.publication(done, identity.key, 1.0)
        lines.append(published.summary)
        return Ran(restored, installed, published, told.notes, lines)

    def new_container(self, image: dict[str, str] | None = None) -> None:
        """What a container finds that starts from the image."""
        shutil.rmtree(self.prefix, ignore_errors=True)
        self.container.start(image or IMAGE)
        self.container.called.clear()
        self.container.applies = 0

    def trees(self) -> list[list[str]]:
        """Names of the trees of every snapshot in the store, the oldest first."""
        found = sorted(summaries(self.store), key=lambda each: each.created)
        return [[tree.name for tree in each.trees] for each in found]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    return Worker(tmp_path, Container(tmp_path / "root", monkeypatch))


def test_what_apt_has_installed_in_one_container_is_restored_in_the_next(worker: Worker) -> None:
    cold = worker.hook()
    assert cold.restore.exit_code == 3
    assert worker.container.called == [("ffmpeg",)]
    assert worker.trees() == [["env", "system"]]
    assert "1 apt package (1 file, 100 B)" in cold.lines[1]
    (summary,) = summaries(worker.store)
    assert cold.install is not None
    assert cold.install.layer is not None
    assert install_seconds(summary) > cold.install.layer.seconds > 0
    worker.new_container()
    warm = worker.hook()
    assert warm.restore.outcome == "restored"
    assert warm.restore.report is not None
    assert "apply" in warm.restore.report.phases
    assert warm.restore.report.warnings == ("a file of yours stays",)
    assert worker.container.has("ffmpeg")
    assert worker.container.called == []
    assert warm.publish is not None
    assert warm.publish.document["outcome"] == "present"
    assert worker.hook().restore.outcome == "confirmed"
    assert worker.container.applies == 1


def test_packages_can_be_had_without_an_environment(worker: Worker) -> None:
    worker.packages = []
    cold = worker.hook()
    assert cold.lines[1].startswith("1 apt package (1 file, 100 B), ")
    assert worker.trees() == [["system"]]
    worker.new_container()
    assert worker.hook().restore.outcome == "restored"
    assert worker.container.has("ffmpeg")
    assert worker.hook().restore.outcome == "confirmed"


def test_packages_of_the_image_need_no_layer_and_change_no_key(worker: Worker) -> None:
    plain = worker.identify(apt=()).key
    assert worker.identify(apt=("curl",)).key == plain
    assert worker.identify(apt=("curl=7.88",)).key == plain
    assert worker.identify(apt=("curl=8",)).key != plain
    ran = worker.hook(apt=("curl",))
    assert worker.container.called == []
    assert worker.trees() == [["env"]]
    assert ran.publish is not None
    worker.packages = []
    alone = worker.hook(apt=("curl",))
    assert alone.restore.exit_code == 0
    assert alone.lines == [
        "nothing to restore: the image has the apt packages",
        "nothing to publish: the image has the apt packages",
    ]


def test_the_key_stays_when_the_layer_is_there_and_when_the_user_adds_to_it(
    worker: Worker,
) -> None:
    before = worker.identify().key
    worker.hook()
    assert worker.identify().key == before
    worker.container.user_installs("vim")
    assert worker.identify().key == before
    assert worker.hook().restore.outcome == "confirmed"
    assert worker.container.called == [("ffmpeg",)]
    assert worker.container.applies == 0


def test_another_image_is_a_miss_that_is_told_in_words(worker: Worker) -> None:
    worker.hook()
    worker.new_container({**IMAGE, "libc6:amd64": "2.37"})
    ran = worker.hook()
    assert ran.restore.exit_code == 4
    assert ran.restore.nearest is not None
    (said,) = in_words(ran.restore.nearest.differences)
    assert said.startswith("the base image differs: ")
    assert ran.environment == "present"
    assert worker.container.called == [("ffmpeg",)]
    assert worker.trees() == [["env", "system"]] * 2


def test_without_root_missing_packages_are_an_error_before_anything_is_brought(
    worker: Worker,
) -> None:
    worker.hook()
    worker.new_container()
    worker.container.is_root = False
    settings, identity = configured(worker.folder, worker.index, worker.packages, **worker.keys)
    restored = restore_environment(settings, identity, [worker.store])
    assert restored.exit_code == 3
    assert isinstance(restored.problem, NotRoot)
    assert not worker.prefix.exists()
    with pytest.raises(NotRoot, match=r"^installing the apt package ffmpeg needs root$"):
        hook.install_environment(settings, identity)


def test_two_containers_with_and_without_root_have_keys_of_their_own(worker: Worker) -> None:
    keys = {"apt_missing": "warning"}
    first = worker.hook(**keys)
    worker.new_container()
    worker.container.is_root = False
    second = worker.hook(**keys)
    said = "installing the apt package ffmpeg needs root; "
    assert [note.startswith(said) for note in second.notes] == [True]
    assert second.restore.key != first.restore.key
    assert second.restore.key == worker.identify(apt=()).key
    assert second.environment == "present"  # the same as the first one's
    assert worker.trees() == [["env", "system"], ["env"]]
    shutil.rmtree(worker.prefix)
    third = worker.hook(**keys)
    assert third.restore.outcome == "restored"
    assert [note.startswith(said) for note in third.notes] == [True]
    worker.new_container()
    worker.container.is_root = True
    assert worker.hook(**keys).restore.key == first.restore.key
    assert worker.container.has("ffmpeg")


def test_an_image_without_dpkg_is_told(worker: Worker) -> None:
    shutil.rmtree(worker.container.root / "var")
    with pytest.raises(AptFailed, match="this image has no dpkg"):
        worker.hook()
    assert worker.hook(apt_missing="warning").environment == "installed"
    assert worker.trees() == [["env"]]


def test_a_failed_apt_is_an_error(worker: Worker) -> None:
    worker.container.fails = AptFailed("the mirror is down")
    with pytest.raises(AptFailed, match="the mirror is down"):
        worker.hook()
    assert not worker.prefix.exists()
    worker.container.fails = None
    worker.hook()
    assert worker.trees() == [["env", "system"]]


def test_where_a_failed_apt_is_a_warning_nothing_is_published_until_it_works(
    worker: Worker,
) -> None:
    worker.keys["apt_missing"] = "warning"
    worker.container.fails = AptFailed("the mirror is down")
    for outcome in ("installed", "present"):
        ran = worker.hook()
        assert ran.environment == outcome
        assert ran.notes[-1] == "the mirror is down; going on without"
        assert ran.publish is not None
        assert ran.publish.exit_code == 0
        assert "it lacks the apt package ffmpeg" in ran.lines[2]
        assert worker.trees() == []
    worker.container.fails = None
    ran = worker.hook()
    assert ran.environment == "present"
    assert worker.trees() == [["env", "system"]]


def test_a_builder_that_will_not_publish_is_not_waited_for(worker: Worker) -> None:
    worker.keys |= {"apt_missing": "warning", "wait": 60.0}
    worker.container.fails = AptFailed("the mirror is down")
    settings, identity = configured(worker.folder, worker.index, worker.packages, **worker.keys)
    restored = restore_environment(settings, identity, [worker.store])
    assert restored.lease == "taken"
    assert Watch(worker.store, identity.key).look().standing is Standing.HELD
    hook.install_environment(settings, identity)
    sight = Watch(worker.store, identity.key).look()
    assert (sight.standing, sight.failures) == (Standing.FREE, 1)


def test_a_publish_without_the_packages_is_refused_where_they_must_be_there(
    worker: Worker,
) -> None:
    worker.container.fails = AptFailed("the mirror is down")
    worker.hook(apt_missing="warning")
    settings, identity = configured(worker.folder, worker.index, worker.packages, **worker.keys)
    with pytest.raises(UsageProblem, match="the apt package ffmpeg is not installed"):
        hook.publish_environment(settings, identity, [worker.store])


def test_what_is_not_only_the_layer_is_not_published_as_it(worker: Worker) -> None:
    worker.container.publishable = False
    ran = worker.hook()
    assert worker.container.has("ffmpeg")
    assert ran.publish is not None
    assert ran.publish.document["outcome"] == "withheld"
    assert "something else was installed meanwhile" in ran.lines[2]
    assert worker.trees() == []


@pytest.mark.parametrize("problem", [BaseDiffers("it differs"), TreeUnreadable("layer", "why")])
def test_a_layer_that_can_be_merged_nowhere_is_replaced_by_what_apt_installs(
    worker: Worker, problem: CachepodError
) -> None:
    if isinstance(problem, BaseDiffers):
        worker.container.mislabels = {"other:amd64": "1"}
    worker.hook()
    worker.container.mislabels = {}
    (first,) = (worker.folder / "store/manifests").rglob("*-*/*")
    before = first.read_bytes()
    worker.new_container()
    worker.container.refuses = problem
    ran = worker.hook()
    assert ran.restore.exit_code == 4
    assert ran.restore.problem is problem
    assert ran.environment == "present"
    assert worker.container.called == [("ffmpeg",)]
    assert first.read_bytes() != before
    worker.container.refuses = None
    worker.new_container()
    assert worker.hook().restore.outcome == "restored"


@pytest.mark.parametrize(
    "problem",
    [
        AptLocked("/var/lib/dpkg/lock", "apt", 10.0),
        BaseDiffers("dpkg was interrupted in this container"),
        SpaceExhausted("/", "No space left on device"),
    ],
)
def test_a_merge_that_this_machine_prevents_says_nothing_of_the_snapshot(
    worker: Worker, problem: CachepodError
) -> None:
    worker.hook()
    (first,) = (worker.folder / "store/manifests").rglob("*-*/*")
    before = first.read_bytes()
    worker.new_container()
    worker.container.refuses = problem
    ran = worker.hook()
    assert ran.restore.exit_code == 4
    assert ran.restore.problem is problem
    assert worker.container.called == [("ffmpeg",)]
    assert ran.publish is not None
    assert ran.publish.document["outcome"] == "present"
    assert first.read_bytes() == before


def test_without_an_environment_a_failed_merge_is_a_miss(worker: Worker) -> None:
    worker.packages = []
    worker.hook()
    worker.new_container()
    worker.container.refuses = AptLocked("/var/lib/dpkg/lock", "apt", 10.0)
    assert worker.hook().restore.exit_code == 3
    assert worker.container.has("ffmpeg")


def test_a_merge_that_was_killed_is_completed_without_the_store(worker: Worker) -> None:
    worker.hook()
    worker.new_container()
    worker.container.refuses = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        worker.hook()
    assert not worker.container.has("ffmpeg")
    worker.container.refuses = None
    shutil.move(worker.folder / "store", worker.folder / "elsewhere")
    settings, identity = configured(worker.folder, worker.index, worker.packages, **worker.keys)
    restored = restore_environment(settings, identity, [worker.store])
    assert restored.outcome == "confirmed"
    assert restored.report is not None
    assert "apply" in restored.report.phases
    assert worker.container.has("ffmpeg")


def test_a_change_of_the_requirements_costs_no_apt(worker: Worker) -> None:
    worker.packages = ["alpha==1.0"]
    worker.hook()
    worker.packages = ["alpha==2.0"]
    ran = worker.hook()  # in the container that runs
    assert ran.environment == "topped up"
    assert worker.container.called == [("ffmpeg",)]
    assert worker.container.applies == 0
    worker.new_container()
    worker.packages = ["alpha"]
    ran = worker.hook()  # in a new one
    assert ran.environment == "topped up"
    assert worker.container.called == []
    assert worker.container.applies == 1
    assert worker.container.has("ffmpeg")
    assert worker.trees() == [["env", "system"]] * 3


def test_a_change_of_the_packages_costs_no_installation_of_the_environment(
    worker: Worker,
) -> None:
    worker.hook()
    first = worker.prefix.stat().st_ino
    ran = worker.hook(apt=("ffmpeg", "git"))  # in the container that runs
    assert ran.restore.exit_code == 4
    assert ran.environment == "present"
    assert worker.prefix.stat().st_ino == first
    assert worker.container.has("git")
    assert ran.publish is not None
    assert ran.publish.document["outcome"] == "withheld"  # what apt does in a new one may differ
    worker.new_container()
    ran = worker.hook(apt=("ffmpeg", "git"))  # in a new one
    assert ran.environment == "present"
    assert worker.container.called == [("ffmpeg", "git")]
    assert worker.trees() == [["env", "system"]] * 2


def test_what_was_there_before_its_packages_is_tried_again_with_them(worker: Worker) -> None:
    worker.index.add("beta", files={"beta/__init__.py": "import gamma\n"})
    worker.packages = ["beta"]
    worker.hook()
    with pytest.raises(CheckFailed):
        worker.hook(apt=("git",), check=("beta",))
    assert worker.container.has("git")
    settings, identity = configured(
        worker.folder, worker.index, worker.packages, **{**worker.keys, "apt": ("git",)}
    )
    with pytest.raises(UsageProblem, match="not complete"):
        hook.publish_environment(settings, identity, [worker.store])


def test_what_was_made_beside_packages_is_tried_again_without_them(worker: Worker) -> None:
    worker.index.add("beta", files={"beta/__init__.py": "import gamma\n"})
    worker.packages = ["beta"]
    worker.hook()
    worker.new_container()
    worker.container.is_root = False
    with pytest.raises(CheckFailed):
        worker.hook(apt_missing="warning", check=("beta",))
    assert worker.trees() == [["env", "system"]]


def test_another_containers_snapshot_of_other_requirements_keeps_the_layer(
    worker: Worker,
) -> None:
    worker.packages = ["alpha==1.0"]
    worker.hook()
    worker.new_container()
    worker.packages = ["alpha==2.0"]
    worker.hook()  # published by another
    worker.packages = ["alpha==1.0"]
    applies = worker.container.applies
    ran = worker.hook()
    assert ran.restore.outcome == "updated"
    assert worker.container.applies == applies
    assert ran.publish is not None
    assert ran.publish.document["outcome"] == "present"
    assert worker.hook().restore.outcome == "confirmed"


def test_a_tree_of_the_users_cannot_have_the_name_of_the_layers(worker: Worker) -> None:
    with pytest.raises(ConfigurationProblem, match="the tree system is that of the apt packages"):
        worker.identify(trees=(f"system={worker.folder}/data",))


def doctor(worker: Worker, **keys: object) -> dict[str, Check]:
    settings, _ = configured(
        worker.folder, worker.index, worker.packages, **{**worker.keys, **keys}
    )
    return {check.name: check for check in examine_layer(settings)}


def test_the_doctor_knows_whether_packages_are_there_and_could_be_had(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_layer, "_mirrors", lambda: iter(()))
    found = doctor(worker)
    assert found["packages"].result == "1 of 1 missing: ffmpeg"
    assert found["base image"].result.startswith("debian 12, 3 packages, ")
    assert found["dpkg's lock"].result == "free"
    assert found["root"].severity is Severity.OK
    worker.container.is_root = False
    assert doctor(worker)["root"].severity is Severity.PROBLEM
    assert doctor(worker, apt_missing="warning")["root"].severity is Severity.WARNING
    assert doctor(worker, apt=("curl",))["packages"].result == "all 1 are in the image"
    worker.container.is_root = True
    worker.hook()
    assert doctor(worker)["packages"].meaning == "as they were installed or restored"
    (worker.container.root / "usr/bin/ffmpeg").unlink()
    assert doctor(worker)["packages"].meaning.startswith("some were changed since ")
    shutil.rmtree(worker.container.root / "var")
    assert doctor(worker)["dpkg"].severity is Severity.PROBLEM


@pytest.mark.parametrize("port", [9, None])
def test_the_doctor_asks_the_mirror_as_apt_would(
    worker: Worker, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, port: int | None
) -> None:
    if not Path("/usr/lib/apt/apt-helper").exists():
        pytest.skip("needs apt")
    monkeypatch.delenv("http_proxy", raising=False)
    uri = (
        f"http://127.0.0.1:{port}/debian/dists/bookworm/InRelease" if port else "http://h.invalid/"
    )
    script = tmp_path / "bin/apt-get"
    script.parent.mkdir()
    script.write_text(f"#!/bin/sh\necho \"'{uri}' InRelease 0\"\n")
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    found = doctor(worker)
    assert found["mirror"].severity is Severity.WARNING
    assert found["mirror"].result.startswith("127.0.0.1: " if port else "h.invalid: ")
    assert "\n" not in found["mirror"].result


def test_what_a_user_has_changed_in_a_layer_stays_and_costs_no_restore(worker: Worker) -> None:
    worker.hook()
    worker.new_container()
    worker.hook()
    worker.container.changed = True
    for _ in range(2):
        ran = worker.hook()
        assert ran.restore.exit_code == 4
        assert isinstance(ran.restore.problem, BaseDiffers)
        assert ran.restore.store == ""  # it was not asked
        assert ran.environment == "present"
        assert ran.publish is not None
        assert ran.publish.document["outcome"] == "present"
    assert worker.container.called == [("ffmpeg",)] * 2
    assert worker.container.applies == 1


@pytest.mark.parametrize("signed", [False, True])
def test_special_modes_are_for_layers_that_somebody_vouches_for(
    worker: Worker, signed: bool
) -> None:
    if signed:
        worker.keys["signing_key"] = secret_file(worker.folder / "secret")
    worker.hook()
    worker.new_container()
    assert worker.hook().restore.outcome == "restored"
    assert worker.container.trusted is signed


@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(asked=st.lists(st.sampled_from(["curl", "libc6", "ffmpeg", "git"]), unique=True))
def test_packages_are_in_the_key_if_the_image_lacks_one_and_their_order_is_not(
    worker: Worker, asked: list[str]
) -> None:
    key = worker.identify(apt=tuple(asked)).key
    lacks = not {"curl", "libc6"} >= set(asked)
    assert (key != worker.identify(apt=()).key) is lacks
    assert worker.identify(apt=tuple(reversed(asked))).key == key
    worker.container.is_root = not worker.container.is_root
    assert worker.identify(apt=tuple(asked)).key == key
