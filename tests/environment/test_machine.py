"""The interpreter's facts, and limits read from cgroup files as kernels write them."""

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

from cachepod.environment import machine, probe
from cachepod.environment.machine import Interpreter, cores, distribution, interpreter, memory
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


class TestTheSystem:
    def test_its_name_and_release_come_from_os_release(self, tmp_path: Path) -> None:
        lay(tmp_path, {"etc/os-release": 'NAME="Ubuntu"\nVERSION_ID="22.04"\nID=ubuntu\n'})
        assert distribution(tmp_path) == "ubuntu 22.04"

    def test_the_vendor_s_file_counts_where_the_administrator_s_is_missing(
        self, tmp_path: Path
    ) -> None:
        lay(tmp_path, {"usr/lib/os-release": "ID=arch\n"})
        assert distribution(tmp_path) == "arch"
        assert distribution(tmp_path / "nowhere") == "unknown"


V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1_CPU = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "33 31 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set(range(16)))


@pytest.mark.usefixtures("sixteen_cores")
class TestLimits:
    def test_a_quota_of_version_2_limits_the_cores(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": V2_MOUNT,
                "proc/self/cgroup": "0::/\n",
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/cpu.max": "400000 100000\n",
                "sys/fs/cgroup/memory.max": "8000000000\n",
            },
        )
        assert cores(tmp_path) == 4
        assert memory(tmp_path) == 8_000_000_000

    def test_without_a_limit_the_affinity_and_the_machine_count(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": V2_MOUNT,
                "proc/self/cgroup": "0::/\n",
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/cpu.max": "max 100000\n",
                "sys/fs/cgroup/memory.max": "max\n",
            },
        )
        assert cores(tmp_path) == 16
        assert memory(tmp_path) == 16_000_000 * 1024

    def test_the_tightest_of_nested_groups_counts(self, tmp_path: Path) -> None:
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": V2_MOUNT,
                "proc/self/cgroup": "0::/pods/one/worker\n",
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/pods/one/worker/cpu.max": "800000 100000\n",
                "sys/fs/cgroup/pods/one/cpu.max": "300000 100000\n",
                "sys/fs/cgroup/pods/cpu.max": "900000 100000\n",
                "sys/fs/cgroup/pods/one/worker/memory.max": "max\n",
                "sys/fs/cgroup/pods/memory.max": "2000000000\n",
            },
        )
        assert cores(tmp_path) == 3
        assert memory(tmp_path) == 2_000_000_000

    def test_limits_of_version_1_count(self, tmp_path: Path) -> None:
        mounts = V1_CPU.format(root="/") + V1_MEMORY.format(root="/")
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": mounts,
                "proc/self/cgroup": "9:memory:/job\n4:cpu,cpuacct:/job\n0::/\n",
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_quota_us": "250000\n",
                "sys/fs/cgroup/cpu,cpuacct/job/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": "100000\n",
                "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "4000000000\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
        )
        assert cores(tmp_path) == 3, "a part of a core counts as one"
        assert memory(tmp_path) == 4_000_000_000

    def test_a_container_that_sees_only_its_own_part_of_the_hierarchy_finds_its_limit(
        self, tmp_path: Path
    ) -> None:
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": V1_MEMORY.format(root="/docker/ab12"),
                "proc/self/cgroup": "9:memory:/docker/ab12\n",
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "1000000000\n",
            },
        )
        assert memory(tmp_path) == 1_000_000_000

    def test_a_path_that_leads_out_of_the_namespace_is_read_at_its_top(
        self, tmp_path: Path
    ) -> None:
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": V2_MOUNT,
                "proc/self/cgroup": "0::/../other\n",
                "proc/meminfo": MEMINFO,
                "sys/fs/cgroup/cpu.max": "200000 100000\n",
                "sys/fs/other/cpu.max": "100000 100000\n",
            },
        )
        assert cores(tmp_path) == 2

    @pytest.mark.parametrize("nonsense", ["", "many 100000", "100000", "100000 0", "0 100000"])
    def test_a_limit_that_makes_no_sense_is_none(self, tmp_path: Path, nonsense: str) -> None:
        lay(
            tmp_path,
            {
                "proc/self/mountinfo": V2_MOUNT + "garbage\n",
                "proc/self/cgroup": "0::/\nnonsense\n",
                "sys/fs/cgroup/cpu.max": nonsense,
                "sys/fs/cgroup/memory.max": nonsense,
            },
        )
        assert cores(tmp_path) == 16
        assert memory(tmp_path) >= 100000

    def test_a_machine_without_proc_still_has_cores_and_memory(self, tmp_path: Path) -> None:
        assert cores(tmp_path) == 16
        assert memory(tmp_path) > 2**20

    def test_there_is_always_one_core(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine.os, "sched_getaffinity", lambda pid: set())
        assert cores(tmp_path) == 1


def test_this_machine_has_as_many_cores_as_it_lets_us_use() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
    assert 2**28 < memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
