"""Installing flash-attn: the wheel that fits what is installed, from where there is one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.cli.describe import restoration
from cachepod.environment import download, flash_attn
from cachepod.environment.flash_plan import variables
from cachepod.environment.hook import publish_environment
from cachepod.environment.install import InstallReport
from cachepod.environment.lock import lock
from cachepod.environment.restoration import restore_environment
from cachepod.environment.settings import FLASH_ATTN_RELEASES
from cachepod.errors import ConfigurationProblem, InstallFailed, NotEnoughSpace
from cachepod.snapshot.stamp import State, read_stamp
from cachepod.stores.url import open_store
from tests.support.cli import cachepod
from tests.support.flash import (
    Releases,
    add_flash,
    add_torch,
    flash_index,
    other_pythons,
    python_tag,
    releases,
    wheel_name,
)
from tests.support.installs import INSTALLERS, Notes, installed, run
from tests.support.s3 import BUCKET, Server
from tests.support.wheels import Index, configured, listing, plain_environ

BUILD = "import flash_attn; print(flash_attn.__version__, flash_attn.BUILD)"
TORCH27 = "cu12torch2.7cxx11abiTRUE"


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return flash_index(tmp_path / "index")


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Releases]:
    """GitHub's releases, with one of 2.8.0.post2 and, as it is in truth, none of 2.8.0."""
    monkeypatch.setattr(download, "PAUSE", 0.01)
    add_flash(tmp_path / "served" / "2.8.0.post2", "2.8.0.post2")
    with releases(tmp_path / "served") as server:
        yield server


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    """A directory with a wheel of 2.8.0."""
    return add_flash(tmp_path / "wheels").parent


def with_flash(tmp_path: Path, index: Index, *packages: str, **keys: object) -> InstallReport:
    """Install torch and what is asked for."""
    return installed(tmp_path, index, "torch", *packages, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("installer", INSTALLERS)
def test_the_first_version_that_has_a_fitting_wheel_is_installed(
    tmp_path: Path, index: Index, served: Releases, installer: str
) -> None:
    notes = Notes()
    report = with_flash(
        tmp_path, index, flash_attn=["2.8.0", "2.8.0.post2"], flash_attn_sources=[served.url],
        installer=installer, progress=notes,
    )  # fmt: skip
    prefix = tmp_path / "env"
    assert run(prefix, BUILD) == "2.8.0.post2 cu12torch2.7cxx11abiTRUE"
    assert report.flash_attn is not None
    assert report.flash_attn.outcome == "installed"
    assert report.flash_attn.wheel == wheel_name("2.8.0.post2")
    assert len(report.flash_attn.tried) == 1
    assert "404 Not Found" in report.flash_attn.tried[0]
    assert report.packages == 3
    assert "flash-attn" in notes.phases
    assert os.listdir(prefix / ".cachepod") == ["stamp.json"]
    # the plus sign is a blank to some servers unless it is written out
    assert [path for path in served.asked if "+" in path and "objects" not in path] == []


def test_a_wheel_is_looked_for_by_what_is_installed_and_not_by_what_was_asked_for(
    tmp_path: Path, index: Index, served: Releases
) -> None:
    add_torch(index, "2.6.1+cu118", cuda="11.8", abi=False)
    build = "cu11torch2.6cxx11abiFALSE"
    add_flash(served.folder / "2.8.0", "2.8.0", build=build)
    installed(tmp_path, index, "torch<2.7", flash_attn=["2.8.0"], flash_attn_sources=[served.url])
    assert run(tmp_path / "env", BUILD) == f"2.8.0 {build}"


@pytest.mark.parametrize("python", other_pythons(), ids=lambda path: path.name)
def test_each_python_gets_its_own_wheel(tmp_path: Path, index: Index, python: Path) -> None:
    tag = python_tag(python)
    for each in ("cp310", "cp311", "cp312", "cp313"):
        add_flash(tmp_path / "wheels", tag=each, code=f"TAG = {each!r}")
    with_flash(
        tmp_path, index, python=str(python), flash_attn=["2.8.0"],
        flash_attn_sources=[str(tmp_path / "wheels")],
    )  # fmt: skip
    assert run(tmp_path / "env", "import flash_attn; print(flash_attn.TAG)") == tag


@pytest.mark.usefixtures("credentials")
def test_places_are_tried_in_order_and_s3_is_one(
    tmp_path: Path, index: Index, served: Releases, moto: Server
) -> None:
    (tmp_path / "none").mkdir()
    data = add_flash(tmp_path / "wheels").read_bytes()
    moto.client().put_object(Bucket=BUCKET, Key=f"wheels/2.8.0/{wheel_name()}", Body=data)
    report = with_flash(
        tmp_path, index, flash_attn=["2.8.0", "2.8.0.post2"],
        flash_attn_sources=[served.url, str(tmp_path / "none"), moto.url("wheels/{version}")],
    )  # fmt: skip
    assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"
    assert report.flash_attn is not None
    assert [text.partition(": ")[2] for text in report.flash_attn.tried] == [
        "404 Not Found",
        "it is not there",
    ]


def test_a_place_that_does_not_answer_is_asked_for_one_version_only(
    tmp_path: Path, index: Index, served: Releases, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    served.fault = "stall"
    with_flash(
        tmp_path, index, flash_attn=["2.8.0.post2", "2.8.0"],
        flash_attn_sources=[served.url, str(wheels)],
    )  # fmt: skip
    assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"
    assert served.asked.count("stalled") == download.ATTEMPTS


class TestRequirements:
    def test_a_line_with_a_version_is_a_wish_for_a_wheel(
        self, tmp_path: Path, index: Index, wheels: Path
    ) -> None:
        report = with_flash(tmp_path, index, "flash-attn==2.8.0", flash_attn_sources=[str(wheels)])
        assert report.flash_attn is not None
        assert report.flash_attn.outcome == "installed"
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"

    @pytest.mark.parametrize("installer", INSTALLERS)
    def test_what_others_need_is_met_by_the_wheel(
        self, tmp_path: Path, index: Index, wheels: Path, installer: str
    ) -> None:
        report = installed(
            tmp_path, index, "model", flash_attn=["2.8.0"], flash_attn_sources=[str(wheels)],
            installer=installer,
        )  # fmt: skip
        assert report.packages == 4
        assert run(tmp_path / "env", f"import model; {BUILD}") == f"2.8.0 {TORCH27}"

    @pytest.mark.parametrize("installer", INSTALLERS)
    def test_nothing_is_compiled_because_somebody_needs_it(
        self, tmp_path: Path, index: Index, installer: str
    ) -> None:
        with pytest.raises(InstallFailed) as caught:
            installed(tmp_path, index, "model", installer=installer)
        assert "hours to build" in caught.value.message
        assert "flash_attn = " in caught.value.hint
        assert not (tmp_path / "env").exists()

    def test_a_line_that_names_a_wheel_is_installed_as_any_other(
        self, tmp_path: Path, index: Index
    ) -> None:
        tag = python_tag()
        wheel = add_flash(tmp_path / "wheels")
        named = wheel.with_name(f"flash_attn-2.8.0-{tag}-{tag}-linux_x86_64.whl")
        wheel.rename(named)
        report = with_flash(tmp_path, index, str(named))
        assert report.flash_attn is None
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"

    def test_hashes_of_a_line_are_those_of_the_wheel(self, tmp_path: Path, index: Index) -> None:
        wheel = add_flash(tmp_path / "wheels")
        torch, einops = (
            f"{name} --hash={Index.digest(path)}"
            for name, path in (
                ("torch==2.7.0+cu126", next((index.root / "torch").glob("*.whl"))),
                ("einops==0.8.1", next((index.root / "einops").glob("*.whl"))),
            )
        )
        good = f"flash-attn==2.8.0 --hash={Index.digest(wheel)}"
        keys = {"flash_attn_sources": [str(wheel.parent)]}
        installed(tmp_path, index, torch, einops, good, **keys)
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"
        bad = f"flash-attn==2.8.0 --hash=sha256:{'0' * 64}"
        with pytest.raises(InstallFailed) as caught:
            installed(tmp_path / "other", index, torch, einops, bad, **keys)
        assert "digest" in caught.value.message

    @pytest.mark.parametrize(
        ("line", "keys", "problem"),
        [
            ("flash-attn", {}, "this line names none"),
            ("flash-attn>=2.7", {}, "this line names none"),
            ("flash-attn @ https://h/flash_attn-2.8.0.tar.gz", {}, "hours"),
            ("flash-attn @ git+https://h/flash-attention@v2.8.0", {}, "hours"),
            (
                "flash-attn @ https://h/flash_attn-2.8.0-cp311-cp311-linux_x86_64.whl",
                {"flash_attn": ["2.8.0"]},
                "names a wheel of",
            ),
        ],
    )
    def test_a_line_that_would_be_compiled_or_says_too_little_is_refused_by_its_place(
        self, tmp_path: Path, line: str, keys: dict[str, object], problem: str
    ) -> None:
        with pytest.raises(ConfigurationProblem) as caught:
            configured(tmp_path, None, ["torch", line], **keys)
        assert problem in caught.value.message

    def test_a_lock_has_what_it_needs_and_not_the_wheel_itself(
        self, tmp_path: Path, index: Index, wheels: Path
    ) -> None:
        settings, identity = configured(tmp_path, index, ["model", "torch", "flash-attn==2.8.0"])
        output = tmp_path / "requirements.lock"
        report = lock(settings, identity, output, environ=plain_environ(tmp_path))
        text = output.read_text()
        assert [line.split("=")[0] for line in text.splitlines() if "==" in line] == [
            "einops",
            "model",
            "torch",
        ]
        assert "flash" not in text
        (warning,) = report.warnings
        assert 'flash_attn = ["2.8.0"]' in warning
        done = installed(
            tmp_path, index, lock=output, flash_attn=["2.8.0"], flash_attn_sources=[str(wheels)]
        )
        assert done.packages == 4
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"
        output.write_text("torch==2.7.0+cu126\n")
        with pytest.raises(ConfigurationProblem, match="the lock has no einops"):
            configured(tmp_path, index, lock=output, flash_attn=["2.8.0"])


class TestKey:
    def inputs(self, tmp_path: Path, *packages: str, **keys: object) -> str:
        _, identity = configured(tmp_path, None, ["torch", *packages], **keys)
        return identity.fingerprint.inputs.get("flash-attn", "")

    def test_what_may_be_installed_is_part_of_the_key(self, tmp_path: Path) -> None:
        two = {"flash_attn": ["2.8.0", "2.8.0.post2"]}
        assert self.inputs(tmp_path) == ""
        assert self.inputs(tmp_path, **two) == "2.8.0 or 2.8.0.post2"
        assert self.inputs(tmp_path, "flash-attn==2.8.0") == "2.8.0"
        built = self.inputs(tmp_path, **two, flash_attn_build=True)
        assert built == "2.8.0 or 2.8.0.post2 or a build from source"
        optional = self.inputs(tmp_path, **two, flash_attn_missing="warning")
        assert optional == "2.8.0 or 2.8.0.post2 or nothing"

    def test_where_the_wheels_lie_is_not(self, tmp_path: Path) -> None:
        keys = [
            configured(tmp_path, None, ["torch"], flash_attn=["2.8.0"], flash_attn_sources=places)[
                1
            ].key
            for places in ([FLASH_ATTN_RELEASES], ["/wheels", "s3://bucket/{version}"])
        ]
        assert keys[0] == keys[1]

    def test_a_key_without_it_is_what_it_was(self, tmp_path: Path) -> None:
        _, identity = configured(tmp_path, None, ["torch"], flash_attn_build=True)
        assert identity.flash_attn is None
        assert not [name for name in identity.fingerprint.inputs if "flash" in name]


class TestMissing:
    def test_it_is_an_error_that_tells_what_was_tried(
        self, tmp_path: Path, index: Index, served: Releases
    ) -> None:
        place = served.url.replace("http://", "http://me:hunter2@")
        with pytest.raises(InstallFailed) as caught:
            with_flash(
                tmp_path, index, flash_attn=["2.8.0", "2.7.4"],
                flash_attn_sources=[place, str(tmp_path)],
            )  # fmt: skip
        message = caught.value.message
        assert "flash-attn 2.8.0 and 2.7.4" in message
        assert "torch 2.7, CUDA 12, C++ ABI TRUE" in message
        assert len(caught.value.output.splitlines()) == 4
        assert "hunter2" not in message + caught.value.output
        assert "***@localhost" in caught.value.output
        assert not (tmp_path / "env").exists()

    def test_it_is_a_warning_where_that_is_said_and_the_environment_is_made(
        self, tmp_path: Path, index: Index
    ) -> None:
        notes = Notes()
        report = with_flash(
            tmp_path, index, flash_attn=["2.8.0"], flash_attn_sources=[str(tmp_path)],
            flash_attn_missing="warning", progress=notes,
        )  # fmt: skip
        (note,) = notes.notes
        assert note.startswith("no wheel of flash-attn 2.8.0 works with Python cp3")
        assert report.flash_attn is not None
        assert report.flash_attn.outcome == "missing"
        assert run(tmp_path / "env", "import torch, einops; print('works')") == "works"
        stamp = read_stamp(tmp_path / "env")
        assert stamp is not None
        assert stamp.state is State.INSTALLED

    @pytest.mark.parametrize(
        ("torch", "packages", "words"),
        [
            ("2.7.0+cpu", ["torch"], "torch 2.7.0+cpu is built for the CPU"),
            ("", ["einops"], "torch, which it needs, is not among what was installed"),
            ("broken", ["torch"], "torch cannot be imported: OSError: libcudart"),
        ],
    )
    def test_torch_that_no_wheel_can_fit_is_told_in_words(
        self, tmp_path: Path, torch: str, packages: list[str], words: str
    ) -> None:
        made = Index(tmp_path / "index")
        made.add("einops")
        if torch == "broken":
            made.add("torch", "1.0", {"torch/__init__.py": "raise OSError('libcudart.so.12')"})
        elif torch:
            add_torch(made, torch, cuda=None)
        with pytest.raises(InstallFailed) as caught:
            installed(tmp_path, made, *packages, flash_attn=["2.8.0"])
        assert caught.value.message.startswith("flash-attn cannot be had: ")
        assert words in caught.value.message

    def test_a_disk_without_room_for_it_is_no_missing_wheel(
        self, tmp_path: Path, index: Index, served: Releases
    ) -> None:
        served.fault = "huge"
        with pytest.raises(NotEnoughSpace) as caught:
            with_flash(
                tmp_path, index, flash_attn=["2.8.0.post2"], flash_attn_sources=[served.url],
                flash_attn_missing="warning",
            )  # fmt: skip
        assert caught.value.needed == 10**15
        assert not (tmp_path / "env").exists()

    @pytest.mark.root
    @pytest.mark.skipif(os.geteuid() != 0, reason="mounts a tmpfs")
    def test_what_unpacks_to_more_than_there_is_room_for_is_not_unpacked(
        self, tmp_path: Path, index: Index
    ) -> None:
        zeros = {"flash_attn/data.bin": bytes(64_000_000)}
        wheels = add_flash(tmp_path / "wheels", more=zeros).parent
        mount = tmp_path / "mount"
        mount.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", mount]
        if subprocess.run(command, check=False).returncode:
            pytest.skip("no mounts here")
        try:
            with pytest.raises(NotEnoughSpace) as caught:
                with_flash(
                    tmp_path, index, prefix=mount, flash_attn=["2.8.0"],
                    flash_attn_sources=[str(wheels)],
                )  # fmt: skip
            assert 64_000_000 < caught.value.needed < 65_000_000
            assert os.listdir(mount) == []
        finally:
            subprocess.run(["umount", mount], check=True)

    def test_v_tells_what_was_tried_and_json_has_it(self, tmp_path: Path, index: Index) -> None:
        (tmp_path / "cachepod.toml").write_text(
            f'packages = ["torch"]\nindex_url = "{index.url}"\nflash_attn = ["2.8.0"]\n'
            'flash_attn_sources = ["a", "b"]\nflash_attn_missing = "warning"\nmin_free = 0\n'
        )
        done = cachepod("install", "-v", "--json", cwd=tmp_path)
        assert done.code == 0, done.err
        lines = [line for line in done.err.splitlines() if ".whl from " in line]
        assert len(lines) == 3  # the sentence, and each place
        assert done.json["flash_attn"]["outcome"] == "missing"
        assert len(done.json["flash_attn"]["tried"]) == 2
        assert "without flash-attn" in done.err
        assert cachepod("publish", "--store", "store", cwd=tmp_path).code == 0
        quiet = cachepod("restore", "--store", "store", cwd=tmp_path)
        assert quiet.err.count("flash-attn is not in it") == 1

    def test_a_restore_says_that_it_is_not_in_the_environment(
        self, tmp_path: Path, index: Index
    ) -> None:
        # what cannot be had cannot be checked either
        keys = {
            "flash_attn": ["2.8.0"],
            "flash_attn_sources": [str(tmp_path)],
            "check": ["torch", "flash_attn"],
        }
        with_flash(tmp_path, index, **keys, flash_attn_missing="warning")
        settings, identity = configured(
            tmp_path, index, ["torch"], **keys, flash_attn_missing="warning"
        )
        store = open_store(str(tmp_path / "store"))
        publish_environment(settings, identity, [store])
        shutil.rmtree(tmp_path / "env")
        for expected in ("restored", "confirmed"):
            result = restore_environment(settings, identity, [store])
            assert (result.outcome, result.lacks) == (expected, "flash-attn")
            said = restoration(result, settings, identity, 1.0)
            assert "flash-attn is not in it" in said.summary
            assert said.document["lacks"] == "flash-attn"


class TestCandidates:
    def test_a_wheel_that_cannot_be_imported_goes_again_and_the_next_one_is_tried(
        self, tmp_path: Path, index: Index
    ) -> None:
        add_flash(
            tmp_path / "bad", code="raise ImportError('undefined symbol: _ZN3c105ErrorC2E')",
            more={"flash_attn/only_here.py": "", "only_here.py": ""},
        )  # fmt: skip
        good = add_flash(tmp_path / "good").parent
        report = with_flash(
            tmp_path, index, flash_attn=["2.8.0"],
            flash_attn_sources=[str(tmp_path / "bad"), str(good)],
        )  # fmt: skip
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"
        assert not list((tmp_path / "env").rglob("*only_here*"))
        assert report.flash_attn is not None
        (tried,) = report.flash_attn.tried
        assert "was removed again" in tried
        assert "undefined symbol" in tried

    @pytest.mark.parametrize("installer", INSTALLERS)
    def test_a_wheel_that_is_damaged_within_is_no_wheel(
        self, tmp_path: Path, index: Index, installer: str
    ) -> None:
        bad = add_flash(tmp_path / "bad", more={"flash_attn/data.bin": os.urandom(50_000)})
        data = bytearray(bad.read_bytes())
        data[len(data) // 2] ^= 255
        bad.write_bytes(data)
        good = add_flash(tmp_path / "good").parent
        report = with_flash(
            tmp_path, index, flash_attn=["2.8.0"],
            flash_attn_sources=[str(bad.parent), str(good)], installer=installer,
        )  # fmt: skip
        assert report.flash_attn is not None
        assert "it cannot be installed" in report.flash_attn.tried[0]
        assert not list((tmp_path / "env").rglob("data.bin"))
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"


class TestTopUp:
    @pytest.mark.parametrize("installer", INSTALLERS)
    def test_the_right_wheel_stays_and_is_not_fetched_again(
        self, tmp_path: Path, index: Index, served: Releases, installer: str
    ) -> None:
        index.add("gamma")
        keys = {
            "flash_attn": ["2.8.0.post2"],
            "flash_attn_sources": [served.url],
            "installer": installer,
        }
        with_flash(tmp_path, index, **keys)
        asked = list(served.asked)
        report = with_flash(tmp_path, index, "gamma", **keys)
        assert (report.outcome, report.packages) == ("topped up", 4)
        assert report.flash_attn is not None
        assert report.flash_attn.outcome == "kept"
        assert served.asked == asked
        topped_up = listing(tmp_path / "env")
        shutil.rmtree(tmp_path / "env")
        with_flash(tmp_path, index, "gamma", **keys)
        assert listing(tmp_path / "env") == topped_up

    def test_another_torch_gets_another_wheel_of_the_same_version(
        self, tmp_path: Path, index: Index
    ) -> None:
        add_torch(index, "2.6.0+cu124")
        for build in (TORCH27, "cu12torch2.6cxx11abiTRUE"):
            add_flash(tmp_path / "wheels", build=build)
        keys = {"flash_attn": ["2.8.0"], "flash_attn_sources": [str(tmp_path / "wheels")]}
        with_flash(tmp_path, index, **keys)
        installed(tmp_path, index, "torch<2.7", **keys)
        assert run(tmp_path / "env", BUILD) == "2.8.0 cu12torch2.6cxx11abiTRUE"

    def test_what_is_not_wanted_any_more_goes(
        self, tmp_path: Path, index: Index, wheels: Path
    ) -> None:
        keys = {"flash_attn_sources": [str(wheels)]}
        with_flash(tmp_path, index, "einops", flash_attn=["2.8.0"], **keys)
        report = with_flash(tmp_path, index, "einops", **keys)
        assert (report.outcome, report.packages) == ("topped up", 2)
        assert not list((tmp_path / "env").rglob("*flash*"))

    def test_a_top_up_that_fails_before_it_changes_anything_leaves_it_as_it_was(
        self, tmp_path: Path, index: Index, wheels: Path
    ) -> None:
        keys = {"flash_attn": ["2.8.0"], "flash_attn_sources": [str(wheels)]}
        with_flash(tmp_path, index, **keys)
        stamp = read_stamp(tmp_path / "env")
        index.add_source("needsbuild", "1.0", "raise SystemExit('no compiler')")
        with pytest.raises(InstallFailed):
            with_flash(tmp_path, index, "needsbuild", **keys)
        assert read_stamp(tmp_path / "env") == stamp
        assert run(tmp_path / "env", BUILD) == f"2.8.0 {TORCH27}"


def nvcc(folder: Path) -> Path:
    """Something that is called nvcc, in ``folder/bin``."""
    program = folder / "bin" / "nvcc"
    program.parent.mkdir(parents=True)
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return folder


class TestBuild:
    @pytest.mark.parametrize("installer", INSTALLERS)
    def test_it_is_built_with_the_torch_that_is_there_if_that_is_allowed_and_no_wheel_fits(
        self, tmp_path: Path, index: Index, installer: str
    ) -> None:
        cuda = nvcc(tmp_path / "cuda")
        notes = Notes()
        report = with_flash(
            tmp_path, index, flash_attn=["2.8.3"], flash_attn_sources=[str(tmp_path)],
            flash_attn_build=True, installer=installer, progress=notes,
            environ={"CUDA_HOME": str(cuda), "MAX_JOBS": "7"},
        )  # fmt: skip
        code = "import flash_attn; print(flash_attn.BUILD)"
        assert run(tmp_path / "env", code) == f"source 12.6 7 {cuda}"
        assert report.flash_attn is not None
        assert report.flash_attn.outcome == "built"
        assert report.packages == 3  # without what only the build needed
        assert any("from source" in note for note in notes.notes)

    def test_a_wheel_is_preferred_to_a_build(
        self, tmp_path: Path, index: Index, wheels: Path
    ) -> None:
        report = with_flash(
            tmp_path, index, flash_attn=["2.8.0"], flash_attn_sources=[str(wheels)],
            flash_attn_build=True, environ={"CUDA_HOME": str(nvcc(tmp_path / "cuda"))},
        )  # fmt: skip
        assert report.flash_attn is not None
        assert report.flash_attn.outcome == "installed"

    def test_a_line_that_names_sources_is_built_from_these(
        self, tmp_path: Path, index: Index
    ) -> None:
        source = index.root / "flash-attn" / "flash-attn-2.8.3.tar.gz"
        with_flash(
            tmp_path, index, f"flash-attn @ {source.as_uri()}", flash_attn_build=True,
            environ={"CUDA_HOME": str(nvcc(tmp_path / "cuda")), "MAX_JOBS": "1"},
        )  # fmt: skip
        assert run(tmp_path / "env", "import flash_attn; print(flash_attn.BUILD)").startswith(
            "source 12.6 1 "
        )

    def test_without_a_compiler_or_with_a_build_that_fails_it_is_missing(
        self, tmp_path: Path, index: Index, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keys = {"flash_attn": ["2.8.1"], "flash_attn_sources": [str(tmp_path)]}
        environ = {"CUDA_HOME": str(nvcc(tmp_path / "cuda"))}
        with pytest.raises(InstallFailed) as caught:
            with_flash(tmp_path, index, **keys, flash_attn_build=True, environ=environ)
        assert "a build from source failed" in caught.value.message
        monkeypatch.setattr(flash_attn, "_toolkit", lambda settings, environ: None)
        with pytest.raises(InstallFailed) as caught:
            with_flash(tmp_path, index, **keys, flash_attn_build=True)
        assert "needs nvcc" in caught.value.message

    def test_the_memory_says_how_many_compilers_run_at_once(self) -> None:
        said = variables({"PATH": "/bin"}, 3, Path("/cuda"))
        assert said["MAX_JOBS"] == "3"
        assert said["PATH"] == "/cuda/bin:/bin"
        assert variables({"MAX_JOBS": "9"}, 3, Path("/cuda"))["MAX_JOBS"] == "9"


HARNESS = """
import sys
from pathlib import Path
from tests.support.installs import installed
from tests.support.wheels import Index
installed(
    Path(sys.argv[1]), Index(Path(sys.argv[2])), "torch",
    flash_attn=["2.8.0.post2"], flash_attn_sources=[sys.argv[3]],
)
"""


def test_after_a_kill_in_the_middle_the_next_install_makes_it_good(
    tmp_path: Path, index: Index, served: Releases
) -> None:
    served.fault = "stall"
    home = tmp_path / "home"
    child = subprocess.Popen(
        [sys.executable, "-c", HARNESS, home, index.root, served.url], cwd=Path(__file__).parents[2]
    )
    deadline = time.monotonic() + 60
    while "stalled" not in served.asked:
        assert child.poll() is None, "the install ended before it asked for the wheel"
        assert time.monotonic() < deadline, "nobody asked for the wheel"
        time.sleep(0.02)
    child.kill()
    child.wait(30)
    stamp = read_stamp(home / "env")
    assert stamp is not None
    assert stamp.state is State.INSTALLING
    served.fault = ""
    report = with_flash(home, index, flash_attn=["2.8.0.post2"], flash_attn_sources=[served.url])
    assert report.outcome == "installed"
    assert run(home / "env", BUILD) == f"2.8.0.post2 {TORCH27}"
    assert os.listdir(home / "env" / ".cachepod") == ["stamp.json"]
