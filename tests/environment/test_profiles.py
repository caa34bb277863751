"""Profiles of handlers: what is built in, how tables change it, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cachepod.environment import pep508, profile_tables
from cachepod.environment.config import KEYS, Settings, load_settings, rows
from cachepod.environment.explanation import explain
from cachepod.environment.identity import Identity, identify
from cachepod.environment.profile_tables import BASES, BUILT_IN, JOINED, USABLE
from cachepod.environment.profiles import _joined
from cachepod.environment.uv import find_uv
from cachepod.errors import UsageProblem

PROFILES = Path(profile_tables.__file__).with_name("profiles.json")
REFERENCE = Path(__file__).parents[2] / "docs" / "configuration.md"


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def load(
    text: str = "",
    environ: Mapping[str, str] | None = None,
    name: str = "cachepod.toml",
    **flags: Any,
) -> Settings:
    """The settings from a file in the working directory."""
    if text:
        Path(name).write_text(text)
    everything = {"HOME": "/home/nobody", **(environ or {})}
    return load_settings({"store": ("/stores/main",), **flags}, everything, Path.cwd())


def known(text: str = "", **given: Any) -> Identity:
    return identify(load(text, **given), {})


def requirements(found: Identity) -> dict[str, str]:
    """What is to be installed, by name."""
    return {each.name: each.value for each in found.requirements.lines}


def refused(*args: Any, **given: Any) -> str:
    with pytest.raises(UsageProblem) as caught:
        load(*args, **given)
    assert caught.value.exit_code == 2
    return f"{caught.value}; {caught.value.hint}" if caught.value.hint else str(caught.value)


class TestBuiltIn:
    @pytest.mark.parametrize("name", BUILT_IN)
    def test_ones_are_complete_without_a_configuration_file(self, name: str) -> None:
        found = load(handler=name)
        assert found.file is None
        assert {found.sources[key] for key in ("packages", "apt", "check")} == {f"profile {name}"}
        lines = [pep508.parse(line) for line in found.packages]
        assert all(line.pinned for line in lines), "versions are exact"
        assert {line.name for line in lines} >= {pep508.normalized(each) for each in found.check}
        assert found.apt
        assert ("torch" in found.check) == (found.cuda == "12.6") == (name != "storage")

    def test_ones_are_those_of_the_file_and_of_the_reference(self) -> None:
        document = json.loads(PROFILES.read_text())
        assert (set(document["handlers"]), set(document["bases"])) == (set(BUILT_IN), set(BASES))
        text = REFERENCE.read_text()
        shown = re.findall(r"^\| `(\w+)` \| (`.+`) \| (`.+`) \|$", text, re.MULTILINE)
        assert [row[0] for row in shown] == list(BUILT_IN)
        for name, apt, packages in shown:
            found = load(handler=name)
            assert re.findall(r"`(.+?)`", apt) == sorted(found.apt, key=apt.index)
            assert len(found.apt) == apt.count("`") / 2
            names = [pep508.parse(line).name for line in found.packages]
            assert re.findall(r"`(.+?)`", packages) == names
        for key in (*USABLE, "base", "without"):
            assert f"`{key}`" in text.partition("### `handlers`")[2].partition("\n### ")[0]

    def test_ones_have_a_key_each_and_one_version_of_what_they_share(self) -> None:
        found = [known(handler=name) for name in BUILT_IN]
        assert len({each.key for each in found}) == len(BUILT_IN)
        pairs = {pair for each in found for pair in requirements(each).items()}
        assert len(pairs) == len(dict(pairs))
        with_torch = {each.fingerprint.family for each in found if "torch" in requirements(each)}
        assert len(with_torch) == 1, "snapshots of one family share chunks"

    @pytest.mark.network
    @pytest.mark.slow
    @pytest.mark.parametrize("version", ["3.10", "3.11", "3.12"])
    def test_ones_can_be_installed_together_by_wheels_alone(self, version: str) -> None:
        lines = {line for name in BUILT_IN for line in load(handler=name).packages}
        done = subprocess.run(
            [str(find_uv()), "pip", "compile", "-q", "--no-config", "--only-binary", ":all:",
             "--python-version", version, "--python-platform", "x86_64-manylinux_2_28", "-"],
            input="\n".join(lines), capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert lines <= set(done.stdout.split())

    def test_ones_are_no_reason_not_to_start_where_there_is_no_apt(self) -> None:
        assert load(handler="tts").apt_missing == "warning"
        for text in ("apt = ['git']\n", "[handlers.tts]\napt = ['git']\n"):
            found = load(text, handler="tts")
            assert (found.apt_missing, found.sources["apt_missing"]) == ("error", "default")
        assert load("apt_missing = 'error'\n", handler="tts").apt_missing == "error"
        text = "apt = ['git']\n[handlers.tts]\napt_missing = 'warning'\n"
        assert load(text, handler="tts").apt_missing == "warning"

    def test_ones_change_no_key_but_of_those_who_name_a_handler(self) -> None:
        plain = known("packages = ['six']\n")
        assert known("packages = ['six']\n[handlers.tts]\napt = ['git']\n").key == plain.key


class TestTheConfigurationsOwn:
    def test_lists_are_added_and_say_both_givers(self) -> None:
        found = load("apt = ['git']\ncheck = ['six']\npackages = ['six']\n", handler="storage")
        assert found.apt == ("curl", "wget", "git")
        assert found.check == ("runpod", "boto3", "six")
        assert found.packages[-1] == "six"
        assert found.sources["apt"] == "profile storage, cachepod.toml:1"
        shown = {row.name: row for row in rows(found)}
        assert shown["packages"].source == "profile storage, cachepod.toml:3"
        assert shown["cuda"].source == "default"

    def test_scalars_win_whoever_gives_them(self) -> None:
        assert load("cuda = '12.4'\n", handler="tts").sources["cuda"] == "cachepod.toml:1"
        found = load("cuda = '12.4'\n", {"CACHEPOD_CUDA": "12.1"}, handler="tts")
        assert (found.cuda, found.sources["cuda"]) == ("12.1", "environment CACHEPOD_CUDA")

    @pytest.mark.parametrize(
        "line",
        [
            "boto3<2",
            "Boto3 == 1.40.0",
            "boto3[crt]",
            "boto3 @ https://h.example/boto3-1-py3-none-any.whl",
        ],
    )
    def test_a_line_about_the_same_distribution_replaces_the_profiles(self, line: str) -> None:
        found = known(f"packages = ['{line}']\n", handler="storage")
        where = {row.name: row.where for row in explain(found)}["requirement:boto3"]
        assert where == "cachepod.toml:1"
        assert "==1.44.8" not in requirements(found)["boto3"]
        assert not any("==1.44.8" in line for line in load(handler="storage").packages)

    def test_a_line_in_a_requirements_file_replaces_it_too(self) -> None:
        Path("r.txt").write_text("# ours\nBOTO3==1.40.0\n")
        found = known(handler="storage", requirements=("r.txt",))
        assert requirements(found) == {"runpod": "==1.12.0", "boto3": "==1.40.0"}
        wheres = {row.name: row.where for row in explain(found)}
        assert wheres["requirement:boto3"] == "r.txt:2"
        assert wheres["requirement:runpod"] == "profile storage"

    def test_a_line_whose_marker_does_not_hold_replaces_nothing(self) -> None:
        found = known("packages = [\"boto3==1; python_version < '3'\"]\n", handler="storage")
        assert requirements(found)["boto3"] == "==1.44.8"

    def test_lines_of_ones_own_about_one_distribution_still_count_together(self) -> None:
        Path("r.txt").write_text("boto3<2\n")
        text = "requirements = 'r.txt'\npackages = ['boto3>1']\n"
        inputs = known(text, handler="storage").fingerprint.inputs
        assert inputs["requirement:boto3"] == "<2 and >1"

    def test_two_local_projects_without_names_do_not_replace_each_other(self) -> None:
        for name in ("a", "b"):
            Path(name).mkdir()
            Path(name, "setup.py").write_text(f"# {name}\n")
        text = "packages = ['./a']\nhandler = 'x'\n[handlers.x]\npackages = ['./b']\n"
        assert len(known(text).requirements.lines) == 2

    def test_a_version_of_an_apt_package_replaces_the_profiles(self) -> None:
        assert load("apt = ['curl=7.88']\n", handler="storage").apt == ("wget", "curl=7.88")

    def test_the_first_index_stays_the_one_that_was_said_last(self) -> None:
        text = (
            "extra_index_urls = ['https://own.example/s']\nhandler = 'x'\n"
            "[handlers.x]\nextra_index_urls = ['https://x.example/s']\n"
        )
        assert load(text).extra_index_urls == ("https://x.example/s", "https://own.example/s")

    @pytest.mark.parametrize(
        ("torch", "audio"),
        [("torch==2.8.0", "==2.8.*"), ("torch==2.6.0+cu126", "==2.6.*"), ("torch>=2.5", "==2.7.0")],
    )
    def test_another_torch_brings_the_torchaudio_that_is_made_for_it(
        self, torch: str, audio: str
    ) -> None:
        found = requirements(known(f"packages = ['{torch}']\n", handler="tts"))
        assert found["torchaudio"] == audio
        vision = requirements(known(f"packages = ['{torch}']\n", handler="video"))["torchvision"]
        assert vision == {"==2.8.*": "==0.23.*", "==2.6.*": "==0.21.*"}.get(audio, "==0.22.0")

    @pytest.mark.parametrize(
        ("torch", "cuda", "index"),
        [
            ("2.7.1", "12.6", None),
            ("2.8.0", "12.6", "https://download.pytorch.org/whl/cu126"),
            ("2.4.0", "12.1", None),
            ("2.7.0+cu118", "11.8", None),
            ("2.7.0+cpu", None, None),
            ("2.16.0.dev1", None, None),
        ],
    )
    def test_the_built_in_cuda_is_no_reason_to_refuse_another_torch(
        self, torch: str, cuda: str | None, index: str | None
    ) -> None:
        """A plain installation of it would work."""
        inputs = known(f"packages = ['torch=={torch}']\n", handler="tts").fingerprint.inputs
        assert inputs.get("cuda") == cuda
        assert inputs.get("index:torch") == index

    def test_a_cuda_of_ones_own_is_one(self) -> None:
        text = "packages = ['torch==2.4.0']\n[handlers.tts]\ncuda = '12.6'\n"
        with pytest.raises(UsageProblem, match=r"cachepod.toml:3: there is no torch 2.4.0"):
            known(text, handler="tts")

    def test_a_torchaudio_of_ones_own_stays_what_it_is(self) -> None:
        text = "packages = ['torch==2.8.0', 'torchaudio==2.7.1']\n"
        assert requirements(known(text, handler="tts"))["torchaudio"] == "==2.7.1"

    def test_a_key_of_ones_own_needs_no_profile(self) -> None:
        for name in ("tts", "whatever"):
            found = load(handler=name, key="voices", trees=("voices=/opt/voices",))
            assert (found.packages, found.apt) == ((), ())


DUBBING = """\
handler = "dubbing"
cuda = "12.4"
packages = ["six"]

[handlers.speech]
base = "tts"
apt = ["git"]
cuda = "12.8"
trees = { voices = "voices" }
requirements = ["speech.txt"]

[handlers.dubbing]
base = "speech"
without = ["sentencepiece", "espeak-ng", "Six"]
packages = ["einops==0.8.0"]

[handlers.dubbing.trees]
models = "/opt/models"
"""


class TestTables:
    def test_inherit_over_several_steps(self) -> None:
        Path("speech.txt").write_text("librosa==0.10.2\neinops\n")
        settings = load(DUBBING)
        assert settings.apt == ("ffmpeg", "libsndfile1", "git")
        assert settings.cuda == "12.8"
        assert settings.sources["cuda"] == "cachepod.toml:8"
        assert settings.sources["apt"] == "profile tts, cachepod.toml:7"
        assert settings.trees == {"voices": Path.cwd() / "voices", "models": Path("/opt/models")}
        assert settings.sources["trees"] == "cachepod.toml:9, cachepod.toml:17"
        assert settings.requirements == (Path.cwd() / "speech.txt",)
        assert "sentencepiece" not in settings.check
        found = requirements(identify(settings, {}))
        assert found["librosa"] == "==0.10.2"
        assert found["einops"] == "==0.8.0"
        assert found["torch"] == "==2.7.0"
        assert not {"sentencepiece", "six"} & set(found)

    def test_count_as_well_in_a_project_file(self) -> None:
        text = (
            "[tool.cachepod]\nhandler = 'a'\n\n"
            "[tool.cachepod.handlers.a]\nbase = 'storage'\napt = ['git']\n"
        )
        found = load(text, name="pyproject.toml")
        assert found.sources["apt"] == "profile storage, pyproject.toml:6"

    def test_written_in_one_line_have_its_place(self) -> None:
        text = "handler = 'a'\nhandlers = { a = { apt = ['git'] } }\n"
        assert load(text).sources["apt"] == "cachepod.toml:2"

    def test_called_like_a_built_in_one_change_it(self) -> None:
        text = "[handlers.storage]\napt = ['git']\n"
        assert load(text, handler="storage").apt == ("curl", "wget", "git")
        assert load(f"{text}base = ''\n", handler="storage").apt == ("git",)
        assert load(f"{text}base = 'storage'\n", handler="storage").apt == ("curl", "wget", "git")
        assert load("[handlers.torch]\n", handler="torch").check == ("runpod", "torch")

    def test_that_are_empty_make_a_name_known_and_nothing_more(self) -> None:
        found = load("packages = ['six']\n[handlers.mine]\n", handler="mine")
        plain = load("packages = ['six']\n")
        assert (found.packages, found.apt, found.steps) == (plain.packages, (), ())
        inputs = identify(found, {}).fingerprint.inputs
        assert inputs == {**identify(plain, {}).fingerprint.inputs, "handler": "mine"}

    def test_give_way_to_flags_and_variables(self) -> None:
        text = "[handlers.a]\npackages = ['six==1.16.0']\ncuda = '12.4'\n"
        environ = {"CACHEPOD_PACKAGES": "six==1.17.0", "CACHEPOD_CUDA": "12.6"}
        found = load(text, environ, handler="a")
        assert (found.packages, found.cuda) == (("six==1.17.0",), "12.6")

    def test_that_leave_out_what_is_not_there_say_so_and_go_on(self) -> None:
        text = "[handlers.storage]\nwithout = ['wget', 'boto4']\n"
        found = load(text, handler="storage")
        assert found.apt == ("curl",)
        assert found.notes == ("cachepod.toml:2: there is no boto4 to leave out",)

    def test_are_shown_by_their_names_and_as_they_are(self) -> None:
        shown = {row.name: row for row in rows(load(DUBBING))}["handlers"]
        assert (shown.text, shown.source) == ("speech, dubbing", "cachepod.toml:5")
        assert shown.value["speech"]["cuda"] == "12.8"


WRONG = [
    ("apt = 3", "3: apt must be a list of texts, not the number 3"),
    ("\napt = ['FFmpeg']", "4: apt: 'FFmpeg' is not the name of an apt package"),
    ("base = ['tts']", "3: base must be text in quotes, not a list"),
    ("without = 1", "3: without must be a list of texts, not the number 1"),
    ("aptt = []", "3: unknown key 'aptt' in handlers.a; did you mean apt?"),
    ("xyzzy = []", "3: unknown key 'xyzzy' in handlers.a"),
    ("store = ['/a']", "3: store cannot be set for one handler"),
    ("handler = 'b'", "3: handler cannot be set for one handler"),
    ("prefix = '/a'", "3: prefix cannot be set for one handler"),
    ("base = 'a'", "3: handlers are based on each other in a circle: a -> a"),
    ("base = 'ttss'", "3: handlers.a has the base 'ttss', which is not there; known are audio, b, "
     "runpod, sound, storage, torch, tts, video; did you mean tts?"),
    ("[handlers.a.trees]\nT = '/t'", "4: 'T' cannot be the name of a tree"),
    ("base = 'b'\n[handlers.b]\nbase = 'a'",
     "5: handlers are based on each other in a circle: a -> b -> a"),
]  # fmt: skip


class TestWrongTables:
    @pytest.mark.parametrize("handler", ["a", None])
    @pytest.mark.parametrize(("lines", "problem"), WRONG)
    def test_are_named_with_their_line_whichever_handler_runs(
        self, lines: str, problem: str, handler: str | None
    ) -> None:
        text = f"# one\n[handlers.a]\n{lines}\n" + ("[handlers.b]\n" if "b]" not in lines else "")
        said = refused(text, handler=handler)
        assert said.startswith(f"cachepod.toml:{problem}")
        assert "\n" not in said

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ("handlers = 'tts'", "1: handlers must be tables [handlers.NAME], not text"),
            (
                "[[handlers]]\nbase = 'tts'",
                "1: handlers must be tables [handlers.NAME], not a list",
            ),
            ("[handlers]\ntts = 3", "2: handlers.tts must be a table, not the number 3"),
            ("[handlers.'a b']", "1: 'a b' cannot be the name of a handler"),
            ("[handlers.'']", "1: '' cannot be the name of a handler"),
        ],
    )
    def test_that_are_none_are_named_too(self, text: str, problem: str) -> None:
        assert refused(f"{text}\n").startswith(f"cachepod.toml:{problem}")

    def test_come_from_no_variable(self) -> None:
        assert "CACHEPOD_HANDLER?" in load(environ={"CACHEPOD_HANDLERS": "x"}).notes[0]


class TestAnUnknownName:
    def test_is_refused_with_its_giver_and_the_known_ones_nearest_first(self) -> None:
        known_ones = "known are storage, audio, tts and video; did you mean storage?"
        for said_by, who in (
            ({"handler": "storge"}, "--handler"),
            ({"environ": {"CACHEPOD_HANDLER": "storge"}}, "CACHEPOD_HANDLER"),
            ({"text": "\nhandler = 'storge'\n"}, "cachepod.toml:2"),
        ):
            said = refused(**said_by)
            assert said.startswith(f"{who}: there is no handler 'storge', {known_ones}")
        assert "[handlers.storge]" in said

    def test_may_be_one_of_the_users(self) -> None:
        said = refused("[handlers.dubbing]\n", handler="dubing")
        assert "known are dubbing, audio, storage, tts and video; did you mean dubbing?" in said

    def test_in_the_platforms_variable_keeps_no_worker_from_starting(self) -> None:
        """Other software may have set it; what is asked for without a profile is installed."""
        found = load("packages = ['six']\n", {"HANDLER_TYPE": "gpu-pool"})
        assert (found.handler, found.packages, found.handler_unknown) == (
            "gpu-pool",
            ("six",),
            True,
        )
        assert len(found.notes) == 1
        assert found.notes[0].startswith("HANDLER_TYPE: there is no handler 'gpu-pool', known are")
        inputs = identify(found, {}).fingerprint.inputs
        assert inputs["handler"] == "gpu-pool"

    def test_there_gives_way_to_the_handler_of_the_file(self) -> None:
        found = load("# x\nhandler = 'storage'\n", {"HANDLER_TYPE": "gpu-pool"})
        assert (found.handler, found.sources["handler"]) == ("storage", "cachepod.toml:2")
        assert found.apt == ("curl", "wget")
        assert found.notes[0].endswith("the handler is storage (cachepod.toml:2)")

    def test_there_is_told_where_nothing_else_says_what_to_install(self) -> None:
        with pytest.raises(UsageProblem, match="there is nothing to do") as caught:
            known(environ={"HANDLER_TYPE": "ttss"})
        assert caught.value.hint.startswith("HANDLER_TYPE names no handler that is known")

    def test_there_that_is_empty_is_none(self) -> None:
        assert load(environ={"HANDLER_TYPE": " "}).handler == ""


def locked(*names: str) -> str:
    text = "".join(f"{name}==1.0 --hash=sha256:{'a' * 64}\n" for name in names)
    Path("x.lock").write_text(text)
    return "lock = 'x.lock'\n"


class TestALock:
    def test_of_a_table_is_what_is_installed(self) -> None:
        text = f"[handlers.storage]\n{locked('runpod', 'boto3', 'six')}"
        found = known(text, handler="storage")
        assert requirements(found).keys() == {"runpod", "boto3", "six"}
        assert load(text, handler="tts").lock is None

    @pytest.mark.parametrize("top", [True, False])
    def test_that_lacks_what_the_handler_needs_is_refused(self, top: bool) -> None:
        line = locked("runpod")
        text = line if top else f"[handlers.storage]\n{line}"
        with pytest.raises(
            UsageProblem, match="has no boto3, which the handler storage needs"
        ) as c:
            known(text, handler="storage")
        assert str(c.value).startswith(f"cachepod.toml:{1 if top else 2}: the lock x.lock")

    def test_need_not_have_what_the_handler_goes_without(self) -> None:
        text = f"{locked('runpod')}[handlers.storage]\nwithout = ['boto3']\n"
        assert requirements(known(text, handler="storage")).keys() == {"runpod"}

    def test_of_a_base_is_not_that_of_a_handler_which_adds_to_it(self) -> None:
        text = f"[handlers.a]\n{locked('six')}[handlers.b]\nbase = 'a'\n"
        assert load(text, handler="b").lock is not None
        for more in ("packages = ['six']", "without = ['six']"):
            found = load(f"{text}{more}\n", handler="b")
            assert (found.lock, found.sources["lock"]) == (None, "default")

    def test_gives_way_to_requirements_that_were_asked_for_since(self) -> None:
        text = f"[handlers.a]\n{locked('six')}"
        assert load(text, handler="a", requirements=("r.txt",)).lock is None


def test_nothing_of_it_is_imported_where_there_is_no_handler() -> None:
    code = (
        "import sys, pathlib\n"
        "from cachepod.environment.config import load_settings\n"
        "for flags in ({}, {'handler': 'tts'}):\n"
        "    load_settings({'store': ('/a',), **flags}, {'HOME': '/'}, pathlib.Path('/'))\n"
        "    print(*[name for name in sys.modules if 'profile' in name or 'toml' in name])\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        cwd=REFERENCE.parents[1], env={**os.environ, "PYTHONPATH": str(REFERENCE.parents[1])},
    )  # fmt: skip
    without, with_one = said.stdout.splitlines()
    assert without == ""
    assert "cachepod.environment.profiles" in with_one.split()
    assert "toml" not in with_one


def test_every_key_that_a_handler_may_have_is_one() -> None:
    assert JOINED < USABLE < set(KEYS)


names = st.sampled_from(["a", "B", "b", "c_d", "C-d"])
lines = st.builds(lambda name, version: f"{name}=={version}", names, st.integers(1, 3))
layers = st.lists(st.lists(lines, max_size=4), min_size=1, max_size=4)


@given(layers)
def test_the_last_layer_about_a_distribution_is_the_one_that_counts(found: list[list[str]]) -> None:
    joined: tuple[str, ...] | None = None
    for layer in found:
        joined = _joined("packages", joined, tuple(layer))
    last = {}
    for layer in found:
        of_layer: dict[str, set[str]] = {}
        for line in layer:
            of_layer.setdefault(pep508.parse(line).name, set()).add(line)
        last.update(of_layer)
    assert joined is not None
    assert set(joined) == {line for each in last.values() for line in each}
