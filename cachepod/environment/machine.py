"""The machine that an environment is made for: its interpreter and its system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cachepod.errors import UsageProblem

_PROBE_TIMEOUT = 30  # seconds; a first start from a cold network disk is slow, not this slow
_MARKER = "marker:"


@dataclass(frozen=True)
class Interpreter:
    """
    The interpreter that an environment is built on; never one inside a virtual environment.

    Args:
        implementation: ``cpython`` or ``pypy``.

        version: All of it: ``3.10.13``, ``3.14.0rc1``.

        abi: Tag as wheels have it: ``cp310``, ``cp313t``.

        soabi: What compiled modules are named after, ``cpython-310-x86_64-linux-gnu``.

        platform: ``linux_x86_64``.

        executable: The interpreter, links resolved.

        prefix: Where its standard library is installed.

        libc: ``glibc 2.36``, ``musl 1.2.4``, or empty where unknown.

        markers: Variables of environment markers and their values there.
    """

    implementation: str
    version: str
    abi: str
    soabi: str
    platform: str
    executable: Path
    prefix: Path
    libc: str
    markers: Mapping[str, str]

    @classmethod
    def from_facts(cls, facts: Mapping[str, str]) -> Interpreter:
        """From what :func:`cachepod.environment.probe.facts` says."""
        return cls(
            implementation=facts["implementation"],
            version=facts["version"],
            abi=facts["abi"],
            soabi=facts["soabi"],
            platform=facts["platform"],
            executable=Path(facts["executable"]),
            prefix=Path(facts["prefix"]),
            libc=facts["libc"],
            markers={
                name[len(_MARKER) :]: value
                for name, value in facts.items()
                if name.startswith(_MARKER)
            },
        )


def interpreter(
    python: str = "", *, environ: Mapping[str, str] | None = None, where: str = ""
) -> Interpreter:
    """
    The facts of the interpreter that *python* names.

    No process is started where that is the interpreter running cachepod, or the one behind the
    virtual environment that cachepod runs in.

    Args:
        python: A command or a path; empty for the one behind this process.

        environ: Gives the PATH on which a command is looked for; the process's own by default.

        where: What named it, for the error: ``cachepod.toml:4``.

    Raises:
        UsageProblem: There is no such interpreter, or it does not start.
    """
    from cachepod.environment import probe

    if not python:
        return Interpreter.from_facts(probe.facts())
    said_by = f"{where}: " if where else ""
    command = _find(python, os.environ if environ is None else environ)
    if command is None:
        raise UsageProblem(
            f"{said_by}there is no interpreter {python!r}",
            hint="give a path, or a command that is on the PATH",
        )
    facts = probe.facts()
    if os.path.realpath(command) == facts["executable"]:
        return Interpreter.from_facts(facts)
    return Interpreter.from_facts(_ask(command, said_by))


def _find(command: str, environ: Mapping[str, str]) -> str | None:
    """Where *command* lies; shutil.which would cost the import of five compression modules."""
    if os.sep in command:
        candidates = [os.path.expanduser(command)]
    else:
        folders = environ.get("PATH", os.defpath).split(os.pathsep)
        candidates = [os.path.join(folder, command) for folder in folders if folder]
    for candidate in candidates:
        if os.path.isfile(candidate) and os.access(candidate, os.X_OK):
            return candidate
    return None


def _ask(command: str, said_by: str) -> dict[str, str]:
    """Run the probe in another interpreter."""
    import json
    import subprocess

    from cachepod.environment import probe

    try:
        # -I: neither PYTHONPATH nor the user's site may change what it says of itself
        answer = subprocess.run(
            [command, "-I", os.path.abspath(probe.__file__)],
            capture_output=True,
            check=True,
            timeout=_PROBE_TIMEOUT,
            stdin=subprocess.DEVNULL,
        )
        facts = json.loads(answer.stdout)
        if isinstance(facts, dict) and all(isinstance(value, str) for value in facts.values()):
            return facts
        why = "its answer is not understood"
    except subprocess.TimeoutExpired:
        why = f"it gave no answer within {_PROBE_TIMEOUT} seconds"
    except subprocess.CalledProcessError as error:
        last = error.stderr.decode("utf-8", "replace").strip().rsplit("\n", 1)[-1]
        why = last or f"it ended with code {error.returncode}"
    except (OSError, ValueError) as error:
        why = str(error)
    raise UsageProblem(
        f"{said_by}{command} does not work as a Python interpreter: {why}",
        hint="cachepod needs Python 3.8 or later there",
    )
