"""The process that a restore leaves behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cachepod.environment import filling
from cachepod.environment.config import load_settings
from cachepod.environment.filling import fill_behind
from cachepod.snapshot.progress import NoProgress
from tests.support.cli import ROOT

_PROGRAM = """
import ctypes, os, platform
from cachepod.environment.filling import stand_back
stand_back()
number = {"x86_64": 252, "aarch64": 31}[platform.machine()]  # ioprio_get(2)
print(os.getpriority(os.PRIO_PROCESS, 0), ctypes.CDLL(None).syscall(number, 1, 0) >> 13)
"""


class Told(NoProgress):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def test_a_filler_lets_everybody_else_go_first() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    nice, scheduling = map(int, done.stdout.split())
    assert nice >= min(19, os.getpriority(os.PRIO_PROCESS, 0) + 15)
    assert scheduling == 3, "the class idle"


def test_a_filler_is_a_session_of_its_own_and_reads_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    begun: list[dict[str, object]] = []
    monkeypatch.setattr(
        filling.subprocess, "Popen", lambda words, **more: begun.append({"words": words, **more})
    )
    settings = load_settings({"config": "/dev/null"}, {"HOME": str(tmp_path)}, tmp_path)
    told = Told()
    assert fill_behind(settings, "k", "/far", ["/a", "/b"], told) == ("/a", "/b")
    assert [each["words"][-3:] for each in begun] == [["/far", "/a", "k"], ["/far", "/b", "k"]]  # type: ignore[index]
    for each in begun:
        assert each["start_new_session"] is True
        assert each["stdin"] == subprocess.DEVNULL
        assert isinstance(each["stdout"], int)
    assert fill_behind(settings, "k", "/far", ["/a"], told, unless_begun=True) == ("/a",)
    assert len(begun) == 2, "this machine has one at it"
    assert fill_behind(settings, "k", "/far", ["/a"], told) == ("/a",)
    assert len(begun) == 3


def test_a_filler_that_cannot_be_started_is_noted_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*words: object, **more: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(filling.subprocess, "Popen", fails)
    settings = load_settings({"config": "/dev/null"}, {"HOME": str(tmp_path)}, tmp_path)
    told = Told()
    assert fill_behind(settings, "k", "/far", ["/near"], told) == ()
    assert told.notes == ["/near is not filled: Resource temporarily unavailable"]
