"""The scripts, as shellcheck sees them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import ROOT


def test_shellcheck_has_nothing_to_say() -> None:
    beside = str(Path(sys.executable).parent)
    program = shutil.which("shellcheck", path=beside) or shutil.which("shellcheck")
    if program is None:
        pytest.skip("there is no shellcheck on this machine")
    files = [*(ROOT / "scripts").iterdir(), *(ROOT / "docker").iterdir(), ROOT / ".ci" / "run"]
    scripts = [
        path
        for path in files
        if path.is_file() and (path.suffix == ".sh" or path.read_bytes().startswith(b"#!"))
    ]
    done = subprocess.run(
        [program, "--format=gcc", *map(str, scripts)], capture_output=True, text=True, check=False
    )
    assert done.stdout == ""
