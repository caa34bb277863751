"""The NVIDIA driver that the host lends to a container, if any, and its GPUs."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TIMEOUT = 20.0  # seconds; waking a GPU that sleeps takes several
_CUDA = re.compile(r"CUDA Version:\s*([0-9]+(?:\.[0-9]+)+)")
_DRIVER = re.compile(r"Driver Version:\s*([0-9]+(?:\.[0-9]+)+)")
_GPU = re.compile(r"GPU [0-9]+: (.+?) \(UUID: ", re.MULTILINE)
_KERNEL_MODULE = re.compile(r"Kernel Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)")


@dataclass(frozen=True)
class Driver:
    """
    The driver.

    Args:
        version: Of the driver, ``550.54.15``; empty where unknown.

        cuda: Latest CUDA release that it can run, ``12.4``; empty where unknown.

        gpus: Names of the GPUs that this process may use.
    """

    version: str
    cuda: str
    gpus: tuple[str, ...]


def detect(environ: Mapping[str, str], proc: Path = Path("/proc")) -> Driver | None:
    """
    The driver and its GPUs; None if there is no driver.

    Args:
        environ: The environment of ``nvidia-smi``; its PATH says where that is looked for.

        proc: Where the kernel's own word is, if there is no such program.
    """
    overview = _ask(["nvidia-smi"], environ)
    kernel = _kernel_module(proc)
    driver = _DRIVER.search(overview)
    if driver is None and not kernel:
        return None
    cuda = _CUDA.search(overview)
    names = _GPU.findall(_ask(["nvidia-smi", "-L"], environ)) if overview else []
    return Driver(driver[1] if driver else kernel, cuda[1] if cuda else "", tuple(names))


def _kernel_module(proc: Path) -> str:
    try:
        text = (proc / "driver" / "nvidia" / "version").read_text("ascii", "replace")
    except OSError:
        return ""
    match = _KERNEL_MODULE.search(text)
    return match[1] if match else ""


def _ask(command: list[str], environ: Mapping[str, str]) -> str:
    """What *command* says; empty where there is none, or it does not work."""
    for folder in environ.get("PATH", os.defpath).split(os.pathsep):
        program = os.path.join(folder, command[0])
        if os.path.isabs(folder) and os.access(program, os.X_OK):
            break
    else:
        return ""
    try:
        answer = subprocess.run(
            [program, *command[1:]],
            capture_output=True,
            check=False,
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TIMEOUT,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout if answer.returncode == 0 else ""
