"""Trying an environment: what works, and what a user is told of what does not."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from cachepod.environment.check import check, interpreter_works
from cachepod.environment.machine import Interpreter, interpreter
from cachepod.errors import CheckFailed
from tests.support.wheels import listing


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    made = tmp_path / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", made], check=True)
    return made


@pytest.fixture
def expected() -> Interpreter:
    return interpreter()


def module(prefix: Path, name: str, text: str) -> None:
    site = next((prefix / "lib").glob("*/site-packages"))
    (site / f"{name}.py").write_text(text)


def test_modules_that_import_pass_whatever_they_print(prefix: Path) -> None:
    module(
        prefix, "chatty", "import sys\nprint('x' * 100000)\nprint('y' * 100000, file=sys.stderr)\n"
    )
    check(prefix, ["json", "chatty", "xml.dom"])


def test_nothing_to_check_needs_no_interpreter(tmp_path: Path) -> None:
    check(tmp_path / "nowhere", [])


def test_a_failing_import_is_named_with_the_last_line_of_its_error(prefix: Path) -> None:
    module(prefix, "broken", "raise OSError('first line\\nlibcudnn.so.9: no such file')\n")
    with pytest.raises(CheckFailed) as caught:
        check(prefix, ["json", "broken", "never"])
    assert caught.value.module == "broken"
    assert caught.value.why == "OSError: libcudnn.so.9: no such file"


def test_a_module_that_is_missing_is_named(prefix: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        check(prefix, ["no_such_module"])
    assert caught.value.module == "no_such_module"
    assert "No module named 'no_such_module'" in caught.value.why


@pytest.mark.parametrize(
    ("text", "how"),
    [
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n", "signal 11"),
        ("import os\nos._exit(0)\n", "status 0"),
        ("raise SystemExit(0)\n", "SystemExit"),
    ],
)
def test_an_import_that_ends_the_interpreter_is_a_failure(
    prefix: Path, text: str, how: str
) -> None:
    module(prefix, "deadly", text)
    with pytest.raises(CheckFailed) as caught:
        check(prefix, ["deadly"])
    assert caught.value.module == "deadly"
    assert how in caught.value.why


def test_a_check_leaves_no_trace_in_the_environment(prefix: Path) -> None:
    module(prefix, "fine", "x = 1\n")
    before = listing(prefix)
    check(prefix, ["fine"])
    assert listing(prefix) == before


def test_a_check_sees_the_environment_and_not_the_working_directory(
    prefix: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nearby.py").write_text("x = 1\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with pytest.raises(CheckFailed):
        check(prefix, ["nearby"])


def test_an_interpreter_works_if_it_starts_and_is_the_expected_one(
    prefix: Path, expected: Interpreter
) -> None:
    assert interpreter_works(prefix, expected)
    assert not interpreter_works(prefix, replace(expected, version="3.8.0"))
    assert not interpreter_works(prefix, replace(expected, implementation="pypy"))


def test_an_environment_whose_interpreter_is_gone_does_not_work(
    prefix: Path, expected: Interpreter
) -> None:
    (prefix / "bin" / "python").unlink()
    (prefix / "bin" / "python").symlink_to("/usr/bin/no-such-python")
    assert not interpreter_works(prefix, expected)


def test_an_interpreter_without_its_environment_does_not_work(
    prefix: Path, expected: Interpreter
) -> None:
    (prefix / "pyvenv.cfg").unlink()
    assert not interpreter_works(prefix, expected)
    assert not interpreter_works(prefix.parent / "nowhere", expected)
