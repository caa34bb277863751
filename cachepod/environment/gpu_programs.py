"""The programs that know of GPUs, each asked for a limited time; what they say is not trusted."""

from __future__ import annotations

import contextlib
import json
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cachepod.environment.gpu import Gpu

# nvidia-smi calls it "CUDA UMD Version" and "KMD Version" from 610 on
_CUDA = r"CUDA(?: UMD)? Version:\s*([0-9]+(?:\.[0-9]+)+)"
_DRIVER = r"(?:Driver|KMD) Version:\s*([0-9]+(?:\.[0-9]+)+)"
_VERSION = r"[0-9]{1,4}(?:\.[0-9]{1,4})+"
_MEMORY = r"[0-9]{1,9}"  # MiB
_FIELDS = "uuid,name,memory.total,compute_cap"
_MIB = 1 << 20
_ROOM = 256 * 1024  # bytes of an answer; more than that is none
_END = 1.0  # seconds that a killed program has to be gone
_TICK = 0.2  # seconds between two looks at a silent program


@dataclass(frozen=True)
class Answer:
    """
    What one source said.

    Args:
        source: Its name.

        driver: Version of the driver; empty if it did not answer.

        cuda: Latest CUDA release that the driver runs.

        gpus: All GPUs there are.

        trouble: What it said in place of an answer.

        late: Whether it did not end in time.
    """

    source: str
    driver: str = ""
    cuda: str = ""
    gpus: tuple[Gpu, ...] = ()
    trouble: str = ""
    late: bool = False


def ask_nvml(environ: Mapping[str, str], patience: float) -> Answer:
    """What the driver's library says."""
    from cachepod.environment import nvml

    program = os.path.abspath(nvml.__file__)
    said = _ask([sys.executable, "-I", "-S", program], environ, patience)
    if said is None:
        return Answer("NVML", trouble=f"no answer within {patience:g} s", late=True)
    try:
        facts = json.loads(said[1])
    except ValueError:
        facts = None
    if said[0] or not isinstance(facts, dict):
        return Answer("NVML", trouble="the library crashed" if said[0] < 0 else "")
    found = facts.get("gpus")
    gpus = [_gpu(each) for each in (found if isinstance(found, list) else [])]
    return Answer(
        "NVML",
        _version(facts.get("driver")),
        _release(facts.get("cuda")),
        tuple(each for each in gpus if each is not None),
        _words(facts.get("trouble")),
    )


def ask_smi(environ: Mapping[str, str], patience: float) -> Answer:
    """What ``nvidia-smi`` says."""
    program = _find("nvidia-smi", environ)
    if not program:
        return Answer("nvidia-smi")
    until = time.monotonic() + patience
    said = _ask([program], environ, patience)
    if said is None:
        return Answer("nvidia-smi", trouble=f"no answer within {patience:g} s", late=True)
    driver = re.search(_DRIVER, said[1])
    if driver is None:
        # "NVIDIA-SMI has failed because ...", "Failed to initialize NVML: ..."
        return Answer("nvidia-smi", trouble=_words(said[1].strip().partition("\n")[0]))
    cuda = re.search(_CUDA, said[1])
    gpus: list[Gpu] = []
    # an older one does not know every field, and says so in place of all of them
    for fields in (_FIELDS, _FIELDS.rpartition(",")[0]):
        query = [program, f"--query-gpu={fields}", "--format=csv,noheader,nounits"]
        listed = _ask(query, environ, until - time.monotonic())
        if listed is None:
            break
        if listed[0] == 0:
            rows = [line.split(", ") for line in listed[1].splitlines() if line.strip()]
            gpus = [each for each in map(_row, rows) if each is not None]
            break
    return Answer("nvidia-smi", driver[1], _release(cuda[1]) if cuda else "", tuple(gpus))


def _row(fields: Sequence[str]) -> Gpu | None:
    """A line of nvidia-smi's table; what it does not know is ``[N/A]`` there."""
    if len(fields) < 3:
        return None
    memory = int(fields[2]) * _MIB if re.fullmatch(_MEMORY, fields[2]) else 0
    capability = fields[3] if len(fields) > 3 else ""
    return _gpu({"uuid": fields[0], "name": fields[1], "memory": memory, "capability": capability})


def _gpu(said: Any) -> Gpu | None:
    """A GPU of what somebody said of one; None if not even a name is in it."""
    if not isinstance(said, dict):
        return None
    name, memory = _words(said.get("name")), said.get("memory")
    if not name:
        return None
    known = memory if isinstance(memory, int) and 0 < memory < 1 << 50 else 0
    return Gpu(name, known, _release(said.get("capability")), _words(said.get("uuid")))


def _version(said: Any) -> str:
    return said if isinstance(said, str) and re.fullmatch(_VERSION, said) else ""


def _release(said: Any) -> str:
    """A release of CUDA, or a compute capability; NVML says 0.0 where it does not know."""
    return said if _version(said) and not said.startswith("0.") else ""


def _words(said: Any) -> str:
    """One short line that a terminal can be shown."""
    if not isinstance(said, str):
        return ""
    return "".join(letter for letter in said if letter.isprintable())[:120].strip()


def _find(program: str, environ: Mapping[str, str]) -> str:
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(folder, program)
        if os.path.isabs(folder) and os.access(path, os.X_OK):
            return path
    return ""


def _ask(
    command: Sequence[str], environ: Mapping[str, str], patience: float
) -> tuple[int, str] | None:
    """
    Exit status and output of *command*; None if it does not end in time.

    Nothing here waits for it without a limit: a process inside a driver that hangs cannot be
    killed, and its pipe stays open.
    """
    until = time.monotonic() + patience
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(environ),
            start_new_session=True,
        )
    except OSError:
        return 127, ""
    assert child.stdout is not None
    output = bytearray()
    with child.stdout as pipe, selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        while len(output) < _ROOM and time.monotonic() < until:
            if not selector.select(timeout=min(_TICK, max(0.0, until - time.monotonic()))):
                if child.poll() is not None:
                    break  # something it started holds the pipe open, but it has ended
                continue
            data = os.read(pipe.fileno(), 65536)
            if not data:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, until - time.monotonic()))
                break
            output += data
    if child.poll() is None:
        with contextlib.suppress(OSError):
            os.killpg(child.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(_END)
        return None
    return child.returncode, output.decode(errors="replace")
