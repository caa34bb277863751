"""What a machine without a GPU gets, and where it makes no difference that it has none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cachepod.environment import check, gpu
from cachepod.environment import identity as module
from cachepod.environment.advice import advice
from cachepod.environment.config import load_settings
from cachepod.environment.explanation import explain, in_words
from cachepod.environment.identity import Identity
from cachepod.environment.inplace import tried
from cachepod.environment.outcome import Restoration
from cachepod.environment.torch import TORCH_INDEX
from cachepod.environment.without_gpu import check_index, importable
from cachepod.errors import ConfigurationProblem
from tests.environment.test_identity import SHA, STACK, Machine
from tests.support.installs import Notes

EVERYTHING = (
    STACK + "torchaudio==2.7.0\nflash_attn==2.8.0\nxformers\ntriton\nbitsandbytes\n"
    "nvidia-cudnn-cu12\nnvidia-ml-py\naccelerate\n"
)


class Presence:
    """Whether there is a GPU, and how often somebody asked."""

    def __init__(self) -> None:
        self.there = False
        self.asked = 0

    def __call__(self, environ: object, devices: object = None) -> bool:
        self.asked += 1
        return self.there


@pytest.fixture
def presence(monkeypatch: pytest.MonkeyPatch) -> Presence:
    found = Presence()
    monkeypatch.setattr(gpu, "usable", found)
    return found


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    return Machine(tmp_path / "project", monkeypatch)


def lines(identity: Identity) -> list[str]:
    return [each.line for each in identity.requirements.lines]


class TestSame:
    def test_looks_for_no_gpu_on_the_way_to_a_key(
        self, machine: Machine, presence: Presence, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def never(*args: object, **kwargs: object) -> Iterator[object]:
            raise AssertionError("somebody looked for a driver")

        for name in ("detect", "kernel_driver", "visible"):
            monkeypatch.setattr(gpu, name, never)
        machine.identify(EVERYTHING)
        machine.identify(EVERYTHING, cuda="12.6")
        assert presence.asked == 0

    def test_gives_the_key_of_before(self, machine: Machine, presence: Presence) -> None:
        assert "without-gpu" not in machine.identify(STACK).fingerprint.inputs


@pytest.mark.parametrize("mode", ["cpu", "none"])
class TestAMachineWithAGpu:
    def test_has_the_key_of_one_that_does_not_care(
        self, machine: Machine, presence: Presence, mode: str
    ) -> None:
        presence.there = True
        assert machine.key(EVERYTHING, without_gpu=mode) == machine.key(EVERYTHING)
        assert presence.asked == 1

    def test_is_not_looked_for_where_it_makes_no_difference(
        self, machine: Machine, presence: Presence, mode: str
    ) -> None:
        for text in ("numpy\n", "accelerate\n-c c.txt\n"):
            machine.folder.mkdir(exist_ok=True)
            (machine.folder / "c.txt").write_text("torch==2.7.0\n")
            assert machine.key(text, without_gpu=mode) == machine.key(text)
        assert presence.asked == 0


class TestTheBuildForTheCpu:
    def test_has_its_own_key_family_and_index_and_no_cuda(
        self, machine: Machine, presence: Presence
    ) -> None:
        found = machine.identify(STACK, cuda="12.6", without_gpu="cpu")
        assert found.fingerprint.family == "cp310-linux_x86_64-cpu-torch2.7.0"
        assert "cuda" not in found.fingerprint.inputs
        assert found.fingerprint.inputs["without-gpu"] == "cpu"
        assert found.fingerprint.inputs["index:torch"] == f"{TORCH_INDEX}/cpu"
        assert found.torch_index == f"{TORCH_INDEX}/cpu"
        assert lines(found) == ["torch==2.7.0", "torchvision==0.22.0", "transformers"]

    @pytest.mark.parametrize(
        ("torch_index", "index"),
        [
            ("auto", f"{TORCH_INDEX}/cpu"),
            (f"{TORCH_INDEX}/cu126", f"{TORCH_INDEX}/cpu"),
            ("https://me:pw@mirror.example/whl/{backend}", "https://me:pw@mirror.example/whl/cpu"),
            ("https://mirror.example/whl/cu126/", "https://mirror.example/whl/cpu/"),
        ],
    )
    def test_comes_from_the_index_beside_that_of_cuda(
        self, machine: Machine, presence: Presence, torch_index: str, index: str
    ) -> None:
        asked = {"cuda": "12.6", "torch_index": torch_index}
        assert machine.identify(STACK, without_gpu="cpu", **asked).torch_index == index

    def test_takes_the_place_of_what_names_a_build_for_cuda(
        self, machine: Machine, presence: Presence
    ) -> None:
        text = (
            f"--extra-index-url {TORCH_INDEX}/cu126\n"
            "torch==2.7.0+cu126\ntorchvision==0.22.0+cu126\nflash-attn==2.8.0\nnumpy\n"
        )
        found = machine.identify(text, without_gpu="cpu")
        assert lines(found) == ["torch==2.7.0", "torchvision==0.22.0", "numpy"]
        assert found.requirements.extra_index_urls == (f"{TORCH_INDEX}/cpu",)
        assert found.fingerprint.inputs["requirement:torch"] == "==2.7.0"
        assert found.left_out == ("flash-attn",)

    def test_is_taken_even_if_only_a_companion_of_torch_is_named(
        self, machine: Machine, presence: Presence
    ) -> None:
        found = machine.identify("torchaudio\n", without_gpu="cpu")
        assert found.torch_index == f"{TORCH_INDEX}/cpu"
        assert found.fingerprint.family.endswith("-cpu-torch")

    @pytest.mark.parametrize(
        "text",
        [
            "torch==2.7.0+cpu\n",
            f"-i {TORCH_INDEX}/cpu\ntorch==2.7.0\n",
            f"--extra-index-url {TORCH_INDEX}/rocm6.3\ntorch==2.7.0\n",
            "torch==2.7.0+rocm6.3\n",
        ],
    )
    def test_is_no_news_where_cuda_was_not_asked_for(
        self, machine: Machine, presence: Presence, text: str
    ) -> None:
        assert machine.key(text, without_gpu="cpu") == machine.key(text)
        assert presence.asked == 0

    @pytest.mark.parametrize(
        "text",
        [
            f"torch==2.7.0 --hash=sha256:{SHA}\nnumpy==2.0.0 --hash=sha256:{SHA}\n",
            f"torch @ {TORCH_INDEX}/cu126/torch-2.7.0%2Bcu126-cp310-cp310-linux_x86_64.whl\n",
        ],
    )
    def test_cannot_take_the_place_of_one_file(
        self, machine: Machine, presence: Presence, text: str
    ) -> None:
        settings = machine.settings(text, without_gpu="cpu")
        found = machine.identify(text, without_gpu="cpu")
        assert found.key == machine.key(text)
        assert presence.asked == 0
        note = next(advice(settings, found, {}, Path("/nowhere")))
        assert "torch stays as it is: project/requirements.txt:1 says which build" in note

    def test_cannot_take_the_place_of_a_lock(self, machine: Machine, presence: Presence) -> None:
        machine.folder.mkdir()
        lock = machine.folder / "requirements.lock"
        lock.write_text("torch==2.7.0\nnvidia-cudnn-cu12==9.5.1.17\n")
        found = machine.identify(None, lock=lock, without_gpu="cpu")
        assert found.key == machine.key(None, lock=lock)
        assert presence.asked == 0

    @pytest.mark.parametrize("index", ["pypi", "https://mirror.example/simple"])
    def test_is_refused_where_the_index_cannot_have_it(self, machine: Machine, index: str) -> None:
        """On every machine, so that nobody is surprised on the one without a GPU."""
        flags = {"torch_index": index, "without_gpu": "cpu", "packages": ["torch"]}
        with pytest.raises(ConfigurationProblem, match="no build of torch for the CPU") as caught:
            load_settings(flags, {"HOME": "/"}, Path("/"))
        assert "{backend}" in caught.value.hint
        check_index(machine.settings(STACK, torch_index=index, without_gpu="none"))


class TestNone:
    def test_leaves_torch_and_what_needs_it_away(
        self, machine: Machine, presence: Presence
    ) -> None:
        found = machine.identify(EVERYTHING, cuda="12.6", without_gpu="none")
        assert lines(found) == ["transformers", "nvidia-ml-py", "accelerate"]
        assert found.fingerprint.family == "cp310-linux_x86_64-nocuda-notorch"
        assert "cuda" not in found.fingerprint.inputs
        assert "index:torch" not in found.fingerprint.inputs
        assert "torch" in found.left_out

    def test_leaves_them_away_from_a_lock_and_keeps_the_rest_of_it(
        self, machine: Machine, presence: Presence
    ) -> None:
        machine.folder.mkdir()
        lock = machine.folder / "requirements.lock"
        names = (
            "torch", "triton", "nvidia-cudnn-cu12", "nvidia-cublas", "nvidia-nccl-cu13",
            "cuda-toolkit", "cuda-bindings", "nvidia-ml-py", "numpy", "nvidia-dali-cuda120",
        )  # fmt: skip
        lock.write_text("".join(f"{name}==1.0 --hash=sha256:{SHA}\n" for name in names))
        found = machine.identify(None, lock=lock, without_gpu="none")
        assert [each.name for each in found.requirements.lines] == [
            "nvidia-ml-py",
            "numpy",
            "nvidia-dali-cuda120",
        ]
        assert all(each.hashed for each in found.requirements.lines)

    def test_does_not_check_what_it_left_away(self, machine: Machine, presence: Presence) -> None:
        found = machine.identify(EVERYTHING, without_gpu="none")
        asked = ("torch", "torch.cuda", "flash_attn", "transformers", "torchvision.ops")
        assert found.checked(asked) == ("transformers",)
        presence.there = True
        assert machine.identify(EVERYTHING, without_gpu="none").checked(asked) == asked

    def test_a_check_of_the_cpus_build_is_of_torch_too(self) -> None:
        assert importable(("torch", "flash_attn"), ("flash-attn",)) == ("torch",)


def test_what_counts_is_explained_and_a_miss_says_so(machine: Machine, presence: Presence) -> None:
    ours = machine.identify(STACK, without_gpu="cpu")
    rows = {each.name: each for each in explain(ours)}
    assert rows["without-gpu"].value == "cpu"
    assert rows["without-gpu"].where == "default"  # set behind the configuration's back here
    theirs = machine.identify(STACK)
    words = in_words(ours.fingerprint.differences(theirs.fingerprint))
    assert "without-gpu (cpu) is asked for here, not in the snapshot" in words
    assert "cuda (12.6) is in the snapshot only" in words


def test_a_toolkit_is_that_of_the_cuda_that_was_asked_for(
    machine: Machine, presence: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    releases = []
    monkeypatch.setattr(
        module, "_layer_of", lambda settings, cuda: (releases.append(cuda), (None, None))[1]
    )
    machine.identify(STACK, without_gpu="cpu", toolkit=True)
    assert releases == ["12.6"]


def test_a_build_that_does_not_exist_is_refused_without_a_gpu_too(
    machine: Machine, presence: Presence
) -> None:
    with pytest.raises(ConfigurationProblem, match=r"there is no torch 2\.7\.0 for CUDA 12\.4"):
        machine.identify(STACK, cuda="12.4", without_gpu="cpu")


class TestAdvice:
    def test_says_what_is_installed_instead(self, machine: Machine, presence: Presence) -> None:
        for mode, said in (("cpu", "build for the CPU is installed"), ("none", "are left out")):
            settings = machine.settings(STACK, without_gpu=mode)
            found = machine.identify(STACK, without_gpu=mode)
            assert [said in note for note in advice(settings, found, {}, Path("/x"))] == [True]

    def test_names_a_driver_that_is_too_old(
        self, tmp_path: Path, machine: Machine, presence: Presence
    ) -> None:
        folder = tmp_path / "proc" / "driver" / "nvidia"
        folder.mkdir(parents=True)
        module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  {}  Sun May 12 2024\n"
        settings, found = machine.settings(STACK), machine.identify(STACK)
        for version, notes in (("470.161.03", 1), ("535.183.01", 0), ("570.86.15", 0)):
            (folder / "version").write_text(module.format(version))
            said = list(advice(settings, found, {}, tmp_path / "proc"))
            assert len(said) == notes
            for note in said:
                assert "the driver 470.161.03 runs CUDA up to 11.4, and 12.6 is asked for" in note
                assert 'take cuda = "11.8"' in note

    def test_follows_a_restore_too(self, machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(gpu, "kernel_driver", lambda proc=None: "470.161.03")
        monkeypatch.setattr(check, "interpreter_works", lambda *given: True)
        settings, found, notes = machine.settings(STACK), machine.identify(STACK), Notes()
        for outcome, said in (("confirmed", 0), ("restored", 1)):
            restored = Restoration(outcome, found.key)
            assert tried(settings, found, restored, notes).outcome == outcome
            assert len(notes.notes) == said

    def test_is_silent_where_all_is_well(self, machine: Machine, presence: Presence) -> None:
        presence.there = True
        settings, found = machine.settings(STACK), machine.identify(STACK)
        assert list(advice(settings, found, {}, Path("/nowhere"))) == []
