"""The key: what changes it, what does not, and how it is explained."""

from __future__ import annotations

import dataclasses
import random
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachepod.environment import identity as module
from cachepod.environment import layer
from cachepod.environment.config import Settings, load_settings
from cachepod.environment.explanation import explain, in_words
from cachepod.environment.identity import Identity, identify
from cachepod.environment.machine import Interpreter
from cachepod.errors import ConfigurationProblem, UsageProblem
from cachepod.model.fingerprint import Difference, Fingerprint
from cachepod.model.names import family_of
from cachepod.system.base import STATUS
from tests.support.apt import IMAGE
from tests.support.dpkg import database, lay

CPYTHON = Interpreter(
    implementation="cpython",
    version="3.10.13",
    abi="cp310",
    soabi="cpython-310-x86_64-linux-gnu",
    platform="linux_x86_64",
    executable=Path("/usr/bin/python3.10"),
    prefix=Path("/usr"),
    libc="glibc 2.35",
    markers={
        "implementation_name": "cpython",
        "implementation_version": "3.10.13",
        "os_name": "posix",
        "platform_machine": "x86_64",
        "platform_python_implementation": "CPython",
        "platform_release": "6.1.0",
        "platform_system": "Linux",
        "platform_version": "#1 SMP",
        "python_full_version": "3.10.13",
        "python_version": "3.10",
        "sys_platform": "linux",
    },
)
SHA = "a" * 64
STACK = "torch==2.7.0\ntorchvision==0.22.0\ntransformers\n"


class Machine:
    """A machine whose interpreter and system are known, with a project on it."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.python = CPYTHON
        self.root = folder.parent / "root"
        self.system("22.04")
        monkeypatch.setattr(module, "interpreter", lambda *args, **kwargs: self.python)
        monkeypatch.setattr(layer, "ROOT", self.root)

    def system(self, release: str, packages: Mapping[str, str] = IMAGE) -> None:
        """What the machine is."""
        os_release = f'ID=ubuntu\nVERSION_ID="{release}"\n'
        lay(self.root, {"etc/os-release": os_release, STATUS: database(packages)})

    def settings(
        self,
        requirements: str | None = STACK,
        flags: Mapping[str, object] | None = None,
        **keys: object,
    ) -> Settings:
        self.folder.mkdir(exist_ok=True)
        (self.folder / "requirements.txt").write_text(requirements or "")
        base: dict[str, object] = {"store": ("/stores/main",), "prefix": "/opt/venv"}
        if requirements is not None:
            base["requirements"] = ("requirements.txt",)
        environ = {"HOME": "/home/nobody"}
        found = load_settings({**base, **(flags or {})}, environ, self.folder)
        return dataclasses.replace(found, **keys)  # type: ignore[arg-type]

    def identify(
        self,
        requirements: str | None = STACK,
        flags: Mapping[str, object] | None = None,
        environ: Mapping[str, str] | None = None,
        **keys: object,
    ) -> Identity:
        return identify(self.settings(requirements, flags, **keys), environ or {})

    def key(self, *args: object, **keys: object) -> str:
        return self.identify(*args, **keys).key  # type: ignore[arg-type]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    return Machine(tmp_path / "project", monkeypatch)


class TestTheKey:
    def test_of_known_inputs_is_known(self, machine: Machine) -> None:
        """If this fails, every snapshot there is has become a miss: was that meant?"""
        found = machine.identify(STACK, handler="tts")
        assert found.fingerprint.family == "cp310-linux_x86_64-cu126-torch2.7.0"
        assert dict(found.fingerprint.inputs) == {
            "format": "1",
            "machine": "linux_x86_64",
            "libc": "glibc 2.35",
            "python": "cpython 3.10.13",
            "abi": "cpython-310-x86_64-linux-gnu",
            "interpreter": "/usr/bin/python3.10",
            "prefix": "/opt/venv",
            "cuda": "12.6",
            "handler": "tts",
            "requirement:torch": "==2.7.0",
            "requirement:torchvision": "==0.22.0",
            "requirement:transformers": "any version",
        }
        assert found.key == "cp310-linux_x86_64-cu126-torch2.7.0-a91a2ac0f984b440"
        assert family_of(found.key) == found.fingerprint.family

    def test_is_the_same_wherever_the_project_lies(
        self, tmp_path: Path, machine: Machine, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        one = machine.key()
        machine.folder = tmp_path / "elsewhere"
        (tmp_path / "other").mkdir()
        monkeypatch.chdir(tmp_path / "other")
        assert machine.key() == one

    @pytest.mark.parametrize(
        "text",
        [
            "# c\ntransformers\n\nTorchVision == 0.22.0  # x\ntorch\\\n==2.7.0",
            "torchvision==0.22.0\n-r more.txt\n",
            STACK + "tomllib-backport; python_version < '3'\n",
            "torch==2.7.0; python_version >= '3.8'\ntorchvision==0.22.0\ntransformers\n",
            "-i https://pypi.org/simple/\n" + STACK,
        ],
    )
    def test_is_the_same_for_the_same_requirements(self, machine: Machine, text: str) -> None:
        machine.folder.mkdir()
        (machine.folder / "more.txt").write_text("transformers\ntorch==2.7.0\n")
        assert machine.key(text) == machine.key(STACK)

    def test_is_the_same_for_a_file_and_for_inline_packages(self, machine: Machine) -> None:
        assert machine.key(None, packages=tuple(STACK.split())) == machine.key(STACK)

    @pytest.mark.parametrize(
        "keys",
        [
            {"store": ("/other",)}, {"check": ("torch",)}, {"installer": "pip"}, {"level": 9},
            {"threads": 3}, {"direct": False}, {"timeout": 1.0}, {"wait": 9.0}, {"min_free": 0.5},
            {"cache_dir": Path("/cache")},
        ],
        ids=lambda keys: next(iter(keys)),
    )  # fmt: skip
    def test_does_not_depend_on_how_it_is_made(
        self, machine: Machine, keys: dict[str, object]
    ) -> None:
        assert machine.key(STACK, **keys) == machine.key(STACK)

    @pytest.mark.parametrize(
        ("keys", "name"),
        [
            ({"prefix": Path("/venv")}, "prefix"),
            ({"handler": "tts"}, "handler"),
            ({"cuda": "12.8"}, "cuda"),
            ({"index_url": "https://h.example/simple"}, "index"),
            ({"extra_index_urls": ("https://h.example/simple",)}, "index:extra"),
            ({"find_links": ("https://h.example/links",)}, "index:find-links"),
            ({"torch_index": "https://h.example/whl"}, "index:torch"),
            ({"apt": ("ffmpeg",)}, "apt:ffmpeg"),
            ({"trees": {"data": Path("/data")}}, "tree:data"),
            ({"compile": False}, "compile"),
            ({"packages": ("einops",)}, "requirement:einops"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_depends_on_what_is_made(
        self, machine: Machine, keys: dict[str, object], name: str
    ) -> None:
        plain, other = machine.identify(STACK), machine.identify(STACK, **keys)
        assert plain.key != other.key
        assert name in {each.name for each in plain.fingerprint.differences(other.fingerprint)}

    @pytest.mark.parametrize(
        ("change", "name"),
        [
            ({"version": "3.10.14"}, "python"),
            ({"implementation": "pypy"}, "python"),
            ({"soabi": "cpython-310d-x86_64-linux-gnu"}, "abi"),
            ({"libc": "musl 1.2.4"}, "libc"),
            ({"executable": Path("/opt/python/bin/python3.10")}, "interpreter"),
            ({"platform": "linux_aarch64"}, "machine"),
        ],
        ids=lambda value: value if isinstance(value, str) else None,
    )
    def test_depends_on_the_interpreter_and_the_machine(
        self, machine: Machine, change: dict[str, str], name: str
    ) -> None:
        before = machine.identify()
        machine.python = dataclasses.replace(CPYTHON, **change)  # type: ignore[arg-type]
        after = machine.identify()
        assert before.key != after.key
        assert name in {each.name for each in before.fingerprint.differences(after.fingerprint)}

    def test_depends_on_the_system_only_where_apt_packages_are_missing(
        self, machine: Machine
    ) -> None:
        plain, apt = machine.key(), machine.key(STACK, apt=("ffmpeg=7:4.4.2",))
        machine.system("24.04")
        assert machine.key(STACK, apt=("curl",)) == plain
        assert machine.key() == plain
        found = machine.identify(STACK, apt=("ffmpeg=7:4.4.2",))
        assert found.key != apt
        assert found.fingerprint.inputs["apt:ffmpeg"] == "7:4.4.2"
        assert found.fingerprint.inputs["distribution"] == "ubuntu 24.04"
        machine.system("24.04", {**IMAGE, "tzdata:all": "2024a"})
        again = machine.identify(STACK, apt=("ffmpeg=7:4.4.2",))
        (said,) = in_words(found.fingerprint.differences(again.fingerprint))
        assert re.fullmatch(
            r"the base image differs: \w{16} \(3 packages\) here, \w{16} \(4 packages\) in the "
            r"snapshot",
            said,
        )

    def test_depends_on_constraints_and_options(self, machine: Machine) -> None:
        machine.folder.mkdir()
        (machine.folder / "c.txt").write_text("numpy<3\n")
        keys = {
            machine.key(STACK + extra)
            for extra in ("", "-c c.txt\n", "--pre\n", "--no-binary torch\n",
                          "--only-binary :all:\n")
        }  # fmt: skip
        assert len(keys) == 5
        inputs = machine.identify(STACK + "-c c.txt\n--pre\n--no-binary A_b,c\n").fingerprint.inputs
        assert inputs["constraint:numpy"] == "<3"
        assert inputs["option:pre"] == "yes"
        assert inputs["option:no-binary"] == "a-b c"

    def test_two_lines_about_one_name_are_one_input(self, machine: Machine) -> None:
        found = machine.identify("numpy<3\nnumpy>=1\nnumpy < 3\n")
        assert found.fingerprint.inputs["requirement:numpy"] == "<3 and >=1"
        assert found.key == machine.key("numpy>=1\nnumpy<3\n")

    def test_the_order_of_indexes_counts_but_not_their_slash(self, machine: Machine) -> None:
        def key(*urls: str) -> str:
            return machine.key(STACK, extra_index_urls=urls)

        assert key("https://a.example/", "https://b.example") == key(
            "https://A.example", "https://b.example/"
        )
        assert key("https://a.example", "https://b.example") != key(
            "https://b.example", "https://a.example"
        )

    def test_the_configuration_s_index_wins_over_the_file_s(self, machine: Machine) -> None:
        text = "-i https://file.example/s\n--extra-index-url https://more.example/s\n" + STACK
        found = machine.identify(
            text, index_url="https://own.example/s", extra_index_urls=("https://first.example/s",)
        )
        assert found.requirements.index_url == "https://own.example/s"
        assert found.fingerprint.inputs["index"] == "https://own.example/s"
        assert found.fingerprint.inputs["index:extra"] == (
            "https://first.example/s https://more.example/s"
        )
        assert machine.identify(text).fingerprint.inputs["index"] == "https://file.example/s"

    def test_a_directory_of_wheels_counts_by_the_names_in_it(
        self, tmp_path: Path, machine: Machine
    ) -> None:
        for folder in ("a", "b"):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / "x-1-py3-none-any.whl").write_bytes(b"x")
        (tmp_path / "b" / "notes.txt").write_text("x")

        def key(folder: str) -> str:
            return machine.key(STACK, find_links=(str(tmp_path / folder),))

        assert key("a") == key("b")
        (tmp_path / "b" / "y-1-py3-none-any.whl").write_bytes(b"y")
        assert key("a") != key("b")
        with pytest.raises(UsageProblem, match="gone"):
            key("gone")


class TestTheFamily:
    @pytest.mark.parametrize(
        ("requirements", "keys", "end"),
        [
            ("numpy\n", {}, "nocuda-notorch"),
            ("torch\n", {}, "nocuda-torch"),
            ("torch>=2\n", {"cuda": "12.6"}, "cu126-torch"),
            ("torch==2.7.0\n", {}, "cu126-torch2.7.0"),
            ("torch==2.6.1\n", {}, "cu124-torch2.6.1"),
            ("torch==2.8.0\n", {}, "cu128-torch2.8.0"),
            ("torch==1.13.1\n", {}, "nocuda-torch1.13.1"),
            ("torch==2.7.0+cu118\n", {}, "cu118-torch2.7.0"),
            ("torch==2.7.0+cpu\n", {}, "nocuda-torch2.7.0"),
            ("torch==2.7.0\n", {"cuda": "12.8"}, "cu128-torch2.7.0"),
            ("-i https://download.pytorch.org/whl/cu128\ntorch==2.7.0\n", {}, "cu128-torch2.7.0"),
            ("--extra-index-url https://download.pytorch.org/whl/cpu/\ntorch==2.7.0\n", {},
             "nocuda-torch2.7.0"),
            ("torch==2.7.0\n", {"torch_index": "https://download.pytorch.org/whl/rocm6.3"},
             "nocuda-torch2.7.0"),
            ("numpy\n", {"cuda": "12.6"}, "cu126-notorch"),
            ("-c c.txt\ntorch\n", {}, "cu126-torch2.7.0"),
        ],
    )  # fmt: skip
    def test_tells_cuda_and_torch(
        self, machine: Machine, requirements: str, keys: dict[str, object], end: str
    ) -> None:
        machine.folder.mkdir()
        (machine.folder / "c.txt").write_text("torch==2.7.0\n")
        found = machine.identify(requirements, **keys)
        assert found.fingerprint.family == f"cp310-linux_x86_64-{end}"

    def test_does_not_take_wheels_of_other_machines_for_cuda_builds(self, machine: Machine) -> None:
        machine.python = dataclasses.replace(CPYTHON, platform="linux_aarch64")
        family = machine.identify("torch==2.7.0\n").fingerprint.family
        assert family == "cp310-linux_aarch64-nocuda-torch2.7.0"


class TestWhereTorchComesFrom:
    @pytest.mark.parametrize(
        ("requirements", "keys", "index"),
        [
            ("torch==2.7.0\n", {}, ""),
            ("torch==2.7.0\n", {"cuda": "12.6"}, ""),
            ("torch==2.7.1\n", {"cuda": "12.6"}, ""),
            ("torch==2.6.0\n", {"cuda": "12.4"}, ""),
            ("torch==2.7.0\n", {"cuda": "12.8"}, "https://download.pytorch.org/whl/cu128"),
            ("torch==2.7.0+cu126\n", {"cuda": "12.6"}, "https://download.pytorch.org/whl/cu126"),
            ("torch\n", {"cuda": "12.6"}, "https://download.pytorch.org/whl/cu126"),
            ("torch==2.7.0\n", {"cuda": "12.6", "torch_index": "pypi"}, ""),
            ("torch\n", {"cuda": "12.6", "torch_index": "pypi"}, ""),
            ("torch==2.7.0\n", {"torch_index": "https://h.example/x"}, "https://h.example/x"),
            ("numpy\n", {"cuda": "12.6"}, ""),
        ],
    )
    def test_follows_from_cuda_and_the_pin(
        self, machine: Machine, requirements: str, keys: dict[str, object], index: str
    ) -> None:
        assert machine.identify(requirements, **keys).torch_index == index

    def test_another_machine_has_no_cuda_build_in_the_usual_index(self, machine: Machine) -> None:
        machine.python = dataclasses.replace(CPYTHON, platform="linux_aarch64")
        found = machine.identify("torch==2.7.0\n", cuda="12.6")
        assert found.torch_index == "https://download.pytorch.org/whl/cu126"

    def test_a_release_that_the_usual_index_does_not_have_is_named(self, machine: Machine) -> None:
        with pytest.raises(ConfigurationProblem, match=r"built for CUDA 12\.6, not 12\.8"):
            machine.identify("torch==2.7.0\n", cuda="12.8", torch_index="pypi")


class TestLocks:
    LOCK = f"torch==2.7.0 \\\n  --hash=sha256:{SHA}\nnumpy==2.0.0 --hash=sha256:{'b' * 64}\n"

    def locked(self, machine: Machine, text: str, **keys: object) -> Identity:
        machine.folder.mkdir(exist_ok=True)
        lock = machine.folder / "my.lock"
        lock.write_text(text)
        return machine.identify(STACK, lock=lock, **keys)

    def test_the_key_comes_from_the_lock_and_not_from_the_requirements(
        self, machine: Machine
    ) -> None:
        found = self.locked(machine, self.LOCK)
        inputs = found.fingerprint.inputs
        assert inputs["requirement:numpy"] == f"==2.0.0 sha256:{'b' * 64}"
        assert "requirement:transformers" not in inputs
        assert inputs["lock"] == "yes"
        assert found.requirements.text == (
            f"torch==2.7.0 --hash=sha256:{SHA}\nnumpy==2.0.0 --hash=sha256:{'b' * 64}\n"
        )

    def test_hashes_and_versions_count(self, machine: Machine) -> None:
        keys = {
            self.locked(machine, text).key
            for text in (self.LOCK, self.LOCK.replace("a" * 64, "c" * 64),
                         self.LOCK.replace("2.0.0", "2.0.1"))
        }  # fmt: skip
        assert len(keys) == 3

    def test_where_every_line_has_hashes_the_index_does_not_count(self, machine: Machine) -> None:
        mirror = "https://mirror.example/simple"
        assert self.locked(machine, self.LOCK, index_url=mirror).key == (
            self.locked(machine, self.LOCK).key
        )
        without = "torch==2.7.0\n"
        assert self.locked(machine, without, index_url=mirror).key != (
            self.locked(machine, without).key
        )

    def test_a_line_that_is_not_pinned_is_named(self, machine: Machine) -> None:
        with pytest.raises(ConfigurationProblem, match=r"my.lock:2: numpy is not pinned"):
            self.locked(machine, "torch==2.7.0\nnumpy>=2\n")

    def test_urls_and_versions_both_pin(self, machine: Machine) -> None:
        assert self.locked(machine, "a @ https://h.example/a-1.tar.gz\nb===1\n").key

    def test_one_that_is_missing_or_of_another_form_is_named(self, machine: Machine) -> None:
        with pytest.raises(ConfigurationProblem, match=r"gone.lock does not exist"):
            machine.identify(STACK, lock=machine.folder / "gone.lock")
        for name in ("uv.lock", "pylock.toml"):
            (machine.folder / name).write_text("")
            with pytest.raises(ConfigurationProblem, match=f"{name} is not a lock in the form"):
                machine.identify(STACK, lock=machine.folder / name)


class TestTreesAlone:
    def test_the_key_comes_from_their_names_and_places(self, machine: Machine) -> None:
        one = machine.identify(None, trees={"data": Path("/data")})
        assert one.fingerprint.family == "trees"
        assert one.requirements.lines == ()
        assert one.key == machine.key(None, trees={"data": Path("/data")}, prefix=Path("/x"))
        assert one.key != machine.key(None, trees={"data": Path("/other")})
        assert one.key != machine.key(None, trees={"more": Path("/data")})

    def test_a_key_of_ones_own_is_the_key_whatever_the_place(self, machine: Machine) -> None:
        one = machine.identify(None, trees={"data": Path("/data")}, key="voices")
        other = machine.identify(None, trees={"data": Path("/other")}, key="voices", handler="x")
        assert one.key == other.key == "voices"
        assert one.fingerprint == other.fingerprint
        assert one.fingerprint.family == family_of("voices")


class TestNothing:
    def test_to_do_is_said_with_what_to_do_about_it(self, machine: Machine) -> None:
        with pytest.raises(UsageProblem, match="no requirements and no tree") as caught:
            machine.identify(None)
        assert caught.value.exit_code == 2
        assert caught.value.hint == "did you mean -r project/requirements.txt?"
        settings = machine.settings(None)
        (machine.folder / "requirements.txt").unlink()
        with pytest.raises(UsageProblem) as caught:
            identify(settings, {})
        assert "--tree NAME=DIR" in caught.value.hint

    def test_in_a_requirements_file_is_an_environment_without_packages(
        self, machine: Machine
    ) -> None:
        assert machine.identify("# nothing\n").fingerprint.family.endswith("nocuda-notorch")

    def test_of_a_file_that_is_missing_names_who_asked_for_it(self, machine: Machine) -> None:
        settings = machine.settings(STACK, {"requirements": ("gone.txt",)})
        with pytest.raises(ConfigurationProblem, match=r"^-r: .*gone.txt does not exist"):
            identify(settings, {})


class TestSecrets:
    def test_are_nowhere_in_the_fingerprint_nor_in_what_explains_it(
        self, tmp_path: Path, machine: Machine
    ) -> None:
        found = machine.identify(
            "-i https://me:hunter2@h.example/simple\n"
            "--extra-index-url https://hunter2@h.example/more?api_key=hunter2\n"
            "-f https://me:hunter2@h.example/links\n"
            "a @ git+https://${TOKEN}@h.example/a@v1\n"
            "https://me:hunter2@h.example/b-1-py3-none-any.whl\n"
            "https://me:hunter2@h.example/nameless\n"
            "torch==2.7.0\n",
            environ={"TOKEN": "hunter2"},
            torch_index="https://me:hunter2@h.example/cu126",
        )
        everything = f"{found.fingerprint.to_json()} {explain(found)} {found!r}"
        assert "hunter2" not in everything
        assert "hunter2" in found.requirements.text
        assert "hunter2" in found.torch_index

    def test_do_not_change_the_key(self, machine: Machine) -> None:
        text = "-i https://{}@h.example/simple\nhttps://{}@h.example/b-1-py3-none-any.whl\n"
        assert machine.key(text.format("me:1", "me:1")) == machine.key(text.format("you:2", "x"))


class TestExplaining:
    def test_every_input_is_there_once_and_with_who_gave_it(self, machine: Machine) -> None:
        found = machine.identify(
            STACK + "numpy\n",
            {"handler": "mine", "handlers": {"mine": {}}, "trees": ("data=/data",)},
            packages=("numpy<3",),
        )
        rows = explain(found)
        assert {row.name: row.value for row in rows} == dict(found.fingerprint.inputs)
        assert len(rows) == len(found.fingerprint.inputs)
        wheres = {row.name: row.where for row in rows}
        assert wheres["requirement:torchvision"] == "project/requirements.txt:2"
        assert wheres["requirement:numpy"] == "project/requirements.txt:4, default"
        assert wheres["handler"] == "--handler"
        assert wheres["tree:data"] == "--tree"
        assert wheres["machine"] == ""
        names = [row.name for row in rows]
        assert names[0] == "format"
        assert names[-1] == "requirement:transformers"
        assert names.index("prefix") < names.index("handler") < names.index("tree:data")

    def test_differences_are_told_in_words(self, machine: Machine) -> None:
        ours = machine.identify("torch==2.7.0\nnumpy\n").fingerprint
        theirs = machine.identify(
            "torch==2.7.0\nnumpy<3\neinops\n", prefix=Path("/venv"), index_url="https://h.example/s"
        ).fingerprint
        assert in_words(ours.differences(theirs), "abc-1") == [
            "prefix is /opt/venv here, /venv in abc-1",
            "index (https://h.example/s) is in abc-1 only",
            "requirement einops (any version) is in abc-1 only",
            "requirement numpy is any version here, <3 in abc-1",
        ]
        assert in_words([Difference("base", "abc", None)]) == [
            "the base image counts here only, where packages are added to it"
        ]
        assert in_words([Difference("requirement:x", "==1", None)]) == [
            "requirement x (==1) is asked for here, not in the snapshot"
        ]

    def test_an_input_of_a_later_cachepod_is_told_too(self) -> None:
        ours, theirs = Fingerprint("f", {}), Fingerprint("f", {"new:thing": "1", "prefix": "/v"})
        assert in_words(ours.differences(theirs)) == [
            "prefix (/v) is in the snapshot only",
            "new thing (1) is in the snapshot only",
        ]


def test_a_local_project_that_holds_the_environment_keeps_its_key_through_an_installation(
    machine: Machine,
) -> None:
    machine.folder.mkdir()
    (machine.folder / "pyproject.toml").write_text("[project]\nname = 'app'\n")
    settings = machine.settings("-e .\n", {"prefix": None})
    before = identify(settings, {})
    assert "requirement:app" in before.fingerprint.inputs
    assert settings.prefix == machine.folder / ".venv"
    (settings.prefix / "bin").mkdir(parents=True)
    (settings.prefix / "bin" / "x").write_text("half made")
    (machine.folder / "app.egg-info").mkdir()
    (machine.folder / "app.egg-info" / "PKG-INFO").write_text("x")
    assert identify(settings, {}).key == before.key


LINES = [
    "torch==2.7.0", "numpy>=1,<3", "Foo_Bar[x,y]", "a @ https://h.example/a-1.tar.gz",
    "git+https://h.example/b@v1#egg=b", "tomli; python_version < '3.11'",
    "pywin32; sys_platform == 'win32'", f"c==1 --hash=sha256:{SHA}",
]  # fmt: skip


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.sampled_from(LINES), unique=True), st.integers(0, 2**32))
def test_shuffled_and_divided_into_files_the_same_lines_give_the_same_key(
    machine: Machine, lines: list[str], seed: int
) -> None:
    chance = random.Random(seed)
    expected = machine.key("".join(f"{line}\n" for line in lines))
    chance.shuffle(lines)
    cut = chance.randrange(len(lines) + 1)
    inner = [*lines[cut:], "# a comment", ""]
    chance.shuffle(inner)
    (machine.folder / "inner.txt").write_text("\n".join(inner))
    outer = [*lines[:cut], "-r inner.txt", "   # another"]
    chance.shuffle(outer)
    assert machine.key("\n".join(outer)) == expected


def test_a_key_is_computed_without_what_only_others_need(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(STACK)
    code = (
        "import sys, pathlib\n"
        "from cachepod.environment.config import load_settings\n"
        "from cachepod.environment.explanation import explain\n"
        "from cachepod.environment.identity import identify\n"
        "flags = {'store': ('/stores/main',), 'requirements': ('r.txt',)}\n"
        f"folder = pathlib.Path({str(tmp_path)!r})\n"
        "explain(identify(load_settings(flags, {'HOME': '/'}, folder)))\n"
        "print([name for name in ('packaging', 'subprocess', 'shlex', 'shutil', 'difflib', 'uv', "
        "'boto3', 'blake3', 'zstandard', 'tqdm', 'xxhash', 'click') if name in sys.modules])"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert said.stdout.strip() == "[]"


def test_the_real_machine_has_a_key(tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text("numpy\n")
    found = identify(
        load_settings(
            {"store": ("/stores/main",), "requirements": ("r.txt",)}, {"HOME": "/"}, tmp_path
        )
    )
    version = f"{sys.version_info[0]}{sys.version_info[1]}"
    assert found.key.startswith(f"cp{version}-linux_")
    assert found.fingerprint.inputs["libc"].split()[0] in ("glibc", "musl")
