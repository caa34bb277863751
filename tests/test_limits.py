"""Limits read from cgroup files as kernels write them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cachepod import limits
from cachepod.limits import cores, memory


def lay(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2_MOUNT = "31 23 0:28 / /sys/fs/cgroup rw,relatime - cgroup2 cgroup2 rw\n"
V1_CPU = "32 31 0:29 {root} /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n"
V1_MEMORY = "33 31 0:30 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
MEMINFO = "MemTotal:       16000000 kB\nMemFree:         1000000 kB\n"


@pytest.fixture
def sixteen_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits.os, "sched_getaffinity", lambda pid: set(range(16)))


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
        monkeypatch.setattr(limits.os, "sched_getaffinity", lambda pid: set())
        assert cores(tmp_path) == 1


def test_this_machine_has_as_many_cores_as_it_lets_us_use() -> None:
    assert 1 <= cores() <= len(os.sched_getaffinity(0))
    assert 2**28 < memory() <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
