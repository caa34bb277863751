"""A container's root in small: the start-up script, a handler, and cachepod on the PATH."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from uv import find_uv_bin

from tests.support import cli, mounts
from tests.support.project import Project

SCRIPTS = cli.ROOT / "scripts"
STARTUP = SCRIPTS / "startup-runpod.sh"
INSTALL = SCRIPTS / "install-runpod-deps.sh"

#: The body of a tool that is cachepod itself; more may stand before it.
CACHEPOD = f'exec "{sys.executable}" -m cachepod "$@"'

#: What must never be seen in a log.
SECRET = "rpa_0123456789SECRET"

HANDLER = """\
import os, sys
import alpha
print("alpha", alpha.__version__, flush=True)
sys.exit(int(os.environ.get("ENDS_WITH", "0")))
"""


#: Makes a root of its own with what is at `/` and two mount points more, does what $1 says there,
#: and starts the rest as process 1 of it.
BOX = """
set -eu
mount -t tmpfs -o mode=755 none "$BOX"
for entry in /*; do
    name="${entry#/}"
    case "$name" in proc | runpod-volume | workspace) continue ;; esac
    if [ -L "$entry" ]; then cp -P "$entry" "$BOX/$name"
    elif [ -d "$entry" ]; then mkdir "$BOX/$name"; mount --rbind "$entry" "$BOX/$name"
    fi
done
mkdir "$BOX/proc" "$BOX/runpod-volume" "$BOX/workspace"
mount -t proc proc "$BOX/proc"
eval "$1"
shift
exec chroot "$BOX" /bin/sh -c 'cd "$0" && exec "$@"' "$PWD" "$@"
"""


class Container(Project):
    """
    A folder with a configuration, ``handlers/greeter.py``, and a ``bin`` that is first on the PATH.

    Args:
        root: A new directory.
    """

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.handlers = root / "handlers"
        self.handlers.mkdir()
        self.bin = root / "bin"
        self.bin.mkdir()
        self.tool("cachepod", CACHEPOD)
        self.tool("python3", f'exec "{sys.executable}" "$@"')
        self.tool("uv", f'exec "{find_uv_bin()}" "$@"')
        self.handler("greeter", HANDLER)

    def tool(self, name: str, script: str) -> Path:
        """Put a shell script called *name* on the PATH."""
        path = self.bin / name
        path.write_text(f"#!/bin/bash\n{script}\n")
        path.chmod(0o755)
        return path

    def handler(self, name: str, program: str) -> Path:
        """Write a handler."""
        path = self.handlers / f"{name}.py"
        path.write_text(program)
        return path

    def variables(self, env: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment that a script gets: no RunPod's, but what *env* adds."""
        made = {
            "PATH": f"{self.bin}:/usr/sbin:/usr/bin:/sbin:/bin",
            "HANDLER_DIR": str(self.handlers),
            "HANDLER_TYPE": "greeter",
            "RUNPOD_API_KEY": SECRET,
            "PIP_NO_INDEX": "1",
        }
        return cli.environment(self.root, {**made, **self.env, **(env or {})})

    def start_up(
        self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> cli.Result:
        """Run the start-up script until what it has started ends."""
        return self._finish([str(STARTUP), *words], env, timeout)

    def install(
        self, *words: str, env: Mapping[str, str] | None = None, timeout: float = 120
    ) -> cli.Result:
        """Run the script that installs."""
        return self._finish([str(INSTALL), *words], env, timeout)

    def begin(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[str]:
        """Start the start-up script; the caller ends it."""
        return subprocess.Popen(
            [str(STARTUP), *words],
            cwd=self.root,
            env=self.variables(env),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def boxed(
        self,
        *words: str,
        before: str = "",
        env: Mapping[str, str] | None = None,
    ) -> subprocess.Popen[str]:
        """
        Start the start-up script as process 1 of a root of its own; the caller ends it.

        Args:
            words: The command of the container.

            before: Shell that is run first, outside the new root, which lies at ``$BOX``.

            env: More of the environment.
        """
        mounts.need_root("a root of its own")
        box = self.root / "box"
        box.mkdir(exist_ok=True)
        return subprocess.Popen(
            [
                *("unshare", "--mount", "--pid", "--fork", "--kill-child"),
                *("bash", "-c", BOX, "box", before, str(STARTUP), *words),
            ],
            cwd=self.root,
            env=self.variables({"BOX": str(box), **(env or {})}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def _finish(
        self, words: list[str], env: Mapping[str, str] | None, timeout: float
    ) -> cli.Result:
        done = subprocess.run(
            words,
            cwd=self.root,
            env=self.variables(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        assert SECRET not in done.stdout + done.stderr
        return cli.Result(done.returncode, done.stdout, done.stderr)


def lines(text: str, opening: str = "startup: ") -> list[str]:
    """What the start-up script itself said."""
    return [line.removeprefix(opening) for line in text.splitlines() if line.startswith(opening)]


def snapshots(store: Path) -> list[str]:
    """Names of the snapshots in the directory *store*."""
    return sorted(name for _, _, names in os.walk(store / "manifests") for name in names)
