"""
The machine that an environment is made for: its interpreter, its system, its limits.

``nproc`` and ``free`` may show the host's cores and memory; what a container may use is what its
cgroup allows, so the limits are read from there.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
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


def distribution(root: Path = Path("/")) -> str:
    """
    The system's name and release from os-release, ``debian 12``; ``unknown`` where there is none.

    Source: os-release(5).
    """
    for name in ("etc/os-release", "usr/lib/os-release"):
        try:
            text = (root / name).read_text("utf-8", "replace")
        except OSError:
            continue
        said = {}
        for line in text.splitlines():
            field, _, value = line.partition("=")
            said[field.strip()] = value.strip().strip("\"'")
        return " ".join(filter(None, (said.get("ID", "linux"), said.get("VERSION_ID", ""))))
    return "unknown"


def cores(root: Path = Path("/")) -> int:
    """
    Cores that this process may use at once: its affinity, cut by the CPU quota of its cgroup and
    of every one above; a part of a core counts as one.
    """
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        allowed = os.cpu_count() or 1
    for folder, version in _cgroups(root, "cpu"):
        if version == 2:
            quota, _, period = _first(folder / "cpu.max").partition(" ")
        else:
            quota, period = (
                _first(folder / "cpu.cfs_quota_us"),
                _first(folder / "cpu.cfs_period_us"),
            )
        if quota.isdigit() and period.isdigit() and int(quota) and int(period):
            allowed = min(allowed, -(-int(quota) // int(period)))
    return max(allowed, 1)


def memory(root: Path = Path("/")) -> int:
    """Bytes of memory that this process may use: the machine's, cut by its cgroups' limits."""
    total = 0
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemTotal:"):
            total = int(line.split()[1]) * 1024
            break
    limits = [total] if total else []
    for folder, version in _cgroups(root, "memory"):
        text = _first(folder / ("memory.max" if version == 2 else "memory.limit_in_bytes"))
        if text.isdigit():
            limits.append(int(text))
    return min(limits, default=os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))


def _cgroups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """
    The folders that can limit this process for *controller*, innermost first, with 1 or 2 for the
    version of the hierarchy.

    Source: cgroups(7). A line of ``/proc/self/cgroup`` is ``4:memory:/path``, or ``0::/path`` for
    version 2. The path counts from the hierarchy's root, of which a container may see only a part:
    the mount's own root is taken off it.
    """
    paths: dict[str, str] = {}
    for line in _lines(root / "proc/self/cgroup"):
        parts = line.split(":", 2)
        if len(parts) == 3:
            paths.update((name, parts[2]) for name in parts[1].split(","))
    for line in _lines(root / "proc/self/mountinfo"):
        left, _, right = line.partition(" - ")
        mount, system = left.split(" "), right.split(" ")
        if len(mount) < 5 or len(system) < 3:
            continue
        if system[0] == "cgroup2":
            version, path = 2, paths.get("")
        elif system[0] == "cgroup" and controller in system[2].split(","):
            version, path = 1, paths.get(controller)
        else:
            continue
        if path is None:
            continue
        shown, point = _unescape(mount[3]), _unescape(mount[4])
        if shown != "/":
            path = path[len(shown) :] if f"{path}/".startswith(f"{shown}/") else "/"
        top = folder = root / point.lstrip("/")
        if ".." not in path.split("/"):  # else it leads out of what this namespace can see
            folder = top / path.lstrip("/")
        while True:
            yield folder, version
            if folder == top:
                break
            folder = folder.parent


def _first(path: Path) -> str:
    """The first line of *path*; empty where it cannot be read."""
    return next(iter(_lines(path)), "").strip()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return []


def _unescape(text: str) -> str:
    """Undo the kernel's octal escapes of space, tab, newline and backslash."""
    return re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), text)
