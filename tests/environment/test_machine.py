"""The interpreter's facts, and the system's."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from packaging.markers import default_environment

from cachepod.environment import probe
from cachepod.environment.machine import Interpreter, interpreter
from cachepod.errors import UsageProblem


def other_interpreters() -> list[str]:
    """Those of other versions that start; a version manager's shim may stand for none."""
    found = []
    for version in ("3.9", "3.11", "3.12", "3.13"):
        command = shutil.which(f"python{version}")
        if command and not sys.version.startswith(version):
            said = subprocess.run(
                [command, "-c", "import sys; print(sys.executable)"],
                capture_output=True,
                text=True,
                check=False,
            )
            found += said.stdout.split()
    return found


OTHERS = other_interpreters()


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.fixture
def no_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError("a process was started")

    monkeypatch.setattr(subprocess, "run", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)


class TestTheInterpreter:
    @pytest.mark.usefixtures("no_processes")
    def test_the_facts_of_the_running_one_need_no_process(self) -> None:
        facts = interpreter()
        assert facts.version.startswith(".".join(map(str, sys.version_info[:3])))
        assert facts.implementation == sys.implementation.name
        assert facts.platform == sysconfig.get_platform().replace("-", "_")
        assert facts.soabi == sysconfig.get_config_var("SOABI")
        assert facts.abi.startswith("cp" + "".join(map(str, sys.version_info[:2])))

    @pytest.mark.usefixtures("no_processes")
    def test_its_own_base_by_path_needs_no_process_either(self) -> None:
        base = interpreter()
        assert interpreter(str(base.executable)) == base

    def test_marker_variables_are_those_of_packaging(self) -> None:
        theirs = {name: value for name, value in default_environment().items() if name != "extra"}
        assert interpreter().markers == theirs

    def test_the_base_is_the_interpreter_behind_a_virtual_environment(self) -> None:
        facts = interpreter()
        said = subprocess.run(
            [str(facts.executable), "-c", "import sys; print(sys.prefix == sys.base_prefix)"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert said.stdout.strip() == "True"
        assert not facts.executable.is_symlink()

    @pytest.mark.parametrize("symlinks", [True, False], ids=["of links", "of copies"])
    def test_asked_in_a_virtual_environment_it_names_the_one_behind(
        self, tmp_path: Path, symlinks: bool
    ) -> None:
        base = interpreter()
        venv.EnvBuilder(symlinks=symlinks, with_pip=False).create(tmp_path / "venv")
        program = tmp_path / "venv" / "bin" / "python"
        said = subprocess.run([str(program), "-I", probe.__file__], capture_output=True, check=True)
        assert Interpreter.from_facts(json.loads(said.stdout)).executable == base.executable
        assert interpreter(str(program)).executable == base.executable

    @pytest.mark.skipif(not OTHERS, reason="this machine has one interpreter alone")
    def test_another_one_is_asked(self) -> None:
        for other in OTHERS:
            facts = interpreter(other)
            said = subprocess.run(
                [
                    other,
                    "-c",
                    "import sys, sysconfig, os; print('%d.%d.%d' % sys.version_info[:3]);"
                    "print(sysconfig.get_config_var('SOABI'));"
                    "print(os.path.realpath(sys.executable))",
                ],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
            assert facts.version.startswith(said[0])
            assert facts.soabi == said[1]
            assert str(facts.executable) == said[2]
            assert facts.markers["python_version"] == ".".join(said[0].split(".")[:2])

    @pytest.mark.skipif(not OTHERS, reason="this machine has one interpreter alone")
    def test_a_command_is_looked_for_on_the_path_that_was_given(self, tmp_path: Path) -> None:
        (tmp_path / "my-python").symlink_to(OTHERS[0])
        found = interpreter("my-python", environ={"PATH": str(tmp_path)})
        assert found == interpreter(OTHERS[0])

    def test_one_that_is_not_there_is_named_with_who_asked_for_it(self) -> None:
        with pytest.raises(UsageProblem, match=r"cachepod.toml:4: .*'python9.9'"):
            interpreter("python9.9", where="cachepod.toml:4")

    def test_a_program_that_is_no_interpreter_is_named(self, tmp_path: Path) -> None:
        program = tmp_path / "python"
        program.write_text("#!/bin/sh\necho 'cannot start' >&2\nexit 3\n")
        program.chmod(0o755)
        with pytest.raises(UsageProblem, match=r"does not work .*cannot start"):
            interpreter(str(program))
        program.write_text("#!/bin/sh\necho '[1]'\n")
        with pytest.raises(UsageProblem, match="not understood"):
            interpreter(str(program))

    def test_a_folder_of_the_path_that_holds_a_directory_of_that_name_is_passed_over(
        self, tmp_path: Path
    ) -> None:
        (tmp_path / "a" / "tool").mkdir(parents=True)
        (tmp_path / "b").mkdir()
        (tmp_path / "b" / "tool").symlink_to(sys.executable)
        path = f"{tmp_path / 'a'}{os.pathsep}{tmp_path / 'b'}"
        assert interpreter("tool", environ={"PATH": path}) == interpreter()
