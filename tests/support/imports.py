"""Which modules a command imports, in its own process and in those that it forks."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support.cli import Result, environment

_PROGRAM = """
import sys

class Log:
    # First of the finders: it sees whatever is not imported yet, and finds nothing.
    @staticmethod
    def find_spec(name, path=None, target=None):
        with open({log!r}, "a") as log:
            log.write(name + "\\n")
        return None

sys.meta_path.insert(0, Log)
from cachepod.cli.main import main
main({words!r})
"""


def imported_by(*words: str, cwd: Path) -> tuple[Result, set[str]]:
    """Run a command, and name every module that it tried to import."""
    log = cwd / "imported.log"
    log.write_text("")
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM.format(log=str(log), words=list(words))],
        cwd=cwd,
        env=environment(cwd),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    return Result(done.returncode, done.stdout, done.stderr), set(log.read_text().split())
