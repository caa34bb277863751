"""Whether an environment works: its interpreter, and the imports that a user names."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from cachepod.environment.machine import Interpreter
from cachepod.errors import CheckFailed

_START_TIMEOUT = 60.0  # seconds for a bare interpreter, on a machine that is busy starting

_VERSION = """
import sys
i = sys.version_info
print(sys.implementation.name, "%d.%d.%d" % i[:3] + (
    "" if i[3] == "final" else i[3][0] + str(i[4])))
"""

# Tells on a descriptor of its own: modules print as they like while they are imported.
_IMPORT = """
import importlib, json, os, sys
answer = os.fdopen(int(sys.argv[1]), "w")
for name in sys.argv[2:]:
    answer.write(json.dumps([name, None]) + "\\n")
    answer.flush()
    try:
        importlib.import_module(name)
    except BaseException as error:
        text = str(error).strip().splitlines()
        last = type(error).__name__ + (": " + text[-1] if text else "")
        answer.write(json.dumps([name, last]) + "\\n")
        answer.flush()
        os._exit(1)
answer.write(json.dumps(["", ""]) + "\\n")
answer.flush()
os._exit(0)
"""


def interpreter_works(prefix: Path, expected: Interpreter) -> bool:
    """
    Whether the environment at *prefix* starts, on an interpreter of the expected version.

    Takes about as long as a bare interpreter's start: packages and their ``.pth`` files are not
    looked at.
    """
    if not (prefix / "pyvenv.cfg").is_file():
        return False
    try:
        answer = subprocess.run(
            [str(prefix / "bin" / "python"), "-I", "-S", "-c", _VERSION],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_START_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return answer.returncode == 0 and answer.stdout.split() == [
        expected.implementation,
        expected.version,
    ]


def check(prefix: Path, modules: Sequence[str], environ: Mapping[str, str] | None = None) -> None:
    """
    Import *modules*, in this order, in one process of the environment's own interpreter.

    Args:
        environ: Its variables; this process's own by default.

    Raises:
        CheckFailed: One of them cannot be imported; the others after it were not tried.
    """
    if not modules:
        return
    reader, writer = os.pipe()
    with open(reader, "rb") as answers:
        try:
            child = subprocess.Popen(
                # -I: nothing but the environment counts; -B: trying leaves no trace in the tree
                [str(prefix / "bin" / "python"), "-I", "-B", "-c", _IMPORT, str(writer), *modules],
                pass_fds=(writer,),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env=environ,
            )
        except OSError as error:
            os.close(writer)
            raise CheckFailed(modules[0], f"the interpreter does not start: {error}") from None
        os.close(writer)
        try:
            _, said = child.communicate()
            answer = answers.read()
        except BaseException:
            child.kill()
            child.wait()
            raise
    _judge(modules, answer, said, child.returncode)


def _judge(modules: Sequence[str], answer: bytes, said: bytes, status: int) -> None:
    """Raise CheckFailed unless the last answer says that all was imported."""
    rows = answer.decode(errors="replace").splitlines()
    name, problem = json.loads(rows[-1]) if rows else (modules[0], None)
    if name == "" and status == 0:
        return
    if problem is None:
        # It died in the middle of an import: a signal, or an exit behind Python's back.
        words = said.decode(errors="replace").strip().splitlines()
        how = f"signal {-status}" if status < 0 else f"status {status}"
        problem = f"the interpreter ended with {how}" + (f": {words[-1]}" if words else "")
    raise CheckFailed(name, problem)
