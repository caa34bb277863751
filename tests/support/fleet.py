"""Containers that start at once: each with its own disk at the same path, all with one store."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import cli
from tests.support.builders import QUICK
from tests.support.mounts import need_root
from tests.support.project import make_slow_package, make_wheel

# Kills what is in it when it is killed itself, as the end of a container does.
_UNSHARE = ("unshare", "--mount", "--mount-proc", "--pid", "--fork", "--kill-child")

# $1 is this container's disk, $2 where all see theirs.
_CONTAINER = """
mount --make-rprivate / && mount --bind "$1" "$2" && cd "$2" || exit 99
cachepod restore --json >restore.json 2>restore.err \\
  || cachepod install --json >install.json 2>install.err \\
  && cachepod publish --json >publish.json 2>publish.err \\
  && .venv/bin/python -c 'import alpha; print(alpha.__version__)' >works
"""


class Fleet:
    """
    Many containers of one configuration.

    Args:
        root: A directory of the test's own.

        store_of: The URL of the store as the container of this number sees it.

        env: Further variables of all of them.
    """

    def __init__(
        self, root: Path, store_of: Callable[[int], str], env: Mapping[str, str] | None = None
    ) -> None:
        need_root("a container's own mounts")
        if shutil.which("unshare") is None:
            pytest.skip("there is no unshare on this machine")
        self.root = root
        self._store_of = store_of
        self._env = dict(env or {})
        make_wheel(root / "wheels", "alpha", "1.0", {"alpha/data.bin": b"\0\1" * 50_000})
        self.packages = ["alpha==1.0"]
        (root / "machine").mkdir()
        binaries = root / "bin"
        binaries.mkdir()
        script = binaries / "cachepod"
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -m cachepod "$@"\n')
        script.chmod(0o755)
        self.disks: list[Path] = []

    def let_the_first_build_hang(self) -> Path:
        """The first container that installs hangs in it; the file that then is there."""
        mark = self.root / "begun"
        wheel = make_wheel(self.root / "built", "slow", "1")
        package = make_slow_package(
            self.root / "slow",
            "import os, shutil, time",
            "def build_wheel(folder, *words, **more):",
            "    try:",
            f"        os.mkdir({str(mark)!r})",
            "        time.sleep(300)",
            "    except FileExistsError:",
            "        pass",
            f"    return os.path.basename(shutil.copy({str(wheel)!r}, folder))",
        )
        self.packages.append(str(package))
        return mark

    def start(self, env: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start one more container, which runs the hook."""
        number = len(self.disks)
        disk = self.root / "disks" / str(number)
        (disk / "tmp").mkdir(parents=True)
        (disk / "cachepod.toml").write_text(
            f'store = ["{self._store_of(number)}"]\npackages = {json.dumps(self.packages)}\n'
            f'find_links = ["{self.root}/wheels"]\ncheck = ["alpha"]\nthreads = 2\n'
        )
        self.disks.append(disk)
        machine = self.root / "machine"
        variables = cli.environment(machine, {**self._env, **(env or {})})
        return subprocess.Popen(
            [*_UNSHARE, "sh", "-c", _CONTAINER, "sh", str(disk), str(machine)],
            env={
                **variables,
                "PATH": f"{self.root}/bin:{variables['PATH']}",
                "PYTHONPATH": f"{QUICK}:{cli.ROOT}",
                "TMPDIR": str(machine / "tmp"),
            },
            stdin=subprocess.DEVNULL,
        )

    def said(self, command: str) -> list[dict[str, Any]]:
        """What *command* told in JSON, in every container that ran it to its end."""
        found = []
        for disk in self.disks:
            file = disk / f"{command}.json"
            if file.exists() and file.stat().st_size:
                found.append(json.loads(file.read_text()))
        return found

    def errors(self) -> str:
        """What went to the standard error of all of them."""
        files = sorted(self.root.glob("disks/*/*.err"))
        return "\n".join(f"{file}: {file.read_text()}" for file in files if file.stat().st_size)

    def works(self) -> list[bool]:
        """Whether the environment of each container works."""
        files = [disk / "works" for disk in self.disks]
        return [file.exists() and file.read_text() == "1.0\n" for file in files]
