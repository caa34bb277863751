"""
The GPUs of this machine and the driver that the host lends to it.

Three sources, the first that answers: NVML, the driver's own library, asked by a child process
(nvml.py); the program ``nvidia-smi``; the kernel's ``/proc/driver/nvidia``. A driver can hang for
ever whoever asks it, in a state that no signal ends. So both programs are given a time, and what
does not end is left behind; the kernel's word is a file, and costs nothing.

:func:`usable` asks none of them. It looks for a device, and is for the way to a key.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

# NVIDIA's; those of WSL and of Jetson
_DEVICE = r"nvidia\d+|dxg|nvhost-gpu"
_MODULE = r"Kernel Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)"
_MOST = 64  # GPUs; what says that it has more is not believed


@dataclass(frozen=True)
class Gpu:
    """
    One GPU.

    Args:
        name: ``NVIDIA L4``.

        memory: In bytes, 0 where unknown.

        capability: Compute capability, ``8.9``; empty where unknown.

        uuid: ``GPU-...``; empty where unknown.
    """

    name: str
    memory: int = 0
    capability: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class Driver:
    """
    The driver.

    Args:
        version: ``550.54.15``; empty where unknown.

        cuda: Latest CUDA release that it runs, as it says itself, ``12.4``; empty where unknown.

        gpus: Those that this process may use.

        source: Who said so: ``NVML``, ``nvidia-smi`` or ``/proc``; empty if nobody did.

        hidden: How many more there are, which CUDA_VISIBLE_DEVICES hides.

        trouble: What NVML or nvidia-smi said in place of an answer.
    """

    version: str
    cuda: str = ""
    gpus: tuple[Gpu, ...] = ()
    source: str = ""
    hidden: int = 0
    trouble: str = ""


def usable(environ: Mapping[str, str], devices: Path = Path("/dev")) -> bool:
    """
    Whether this process has a GPU, without asking a driver.

    A container runtime passes the devices of the GPUs that a container is given, and no others.
    Its NVIDIA_VISIBLE_DEVICES says nothing here: that is what it was asked for, not what it did,
    and is ``void`` in a container that got its GPUs by CDI. CUDA_VISIBLE_DEVICES counts,
    for torch counts it.
    """
    if visible(environ) == ():
        return False
    try:
        names = os.listdir(devices)
    except OSError:
        return False
    return any(re.fullmatch(_DEVICE, name) for name in names)


def visible(environ: Mapping[str, str]) -> tuple[str, ...] | None:
    """
    The GPUs that CUDA_VISIBLE_DEVICES leaves, as it names them; None if it says nothing.

    CUDA reads it up to the first name that it does not know, so ``-1`` and a word hide all.
    """
    said = environ.get("CUDA_VISIBLE_DEVICES")
    if said is None:
        return None
    found = []
    for name in (part.strip() for part in said.split(",")):
        if not re.fullmatch(r"[0-9]{1,4}|(GPU|MIG)-\S+", name):
            break
        found.append(name)
    return tuple(found)


def kernel_driver(proc: Path = Path("/proc")) -> str:
    """Version of the driver in the kernel; empty if there is none. Starts nothing, cannot hang."""
    try:
        with open(
            proc / "driver" / "nvidia" / "version", encoding="ascii", errors="replace"
        ) as file:
            match = re.search(_MODULE, file.read(4096))
    except OSError:
        return ""
    return match[1] if match else ""


def detect(
    environ: Mapping[str, str], proc: Path = Path("/proc"), *, patience: float = 20.0
) -> Driver | None:
    """
    The driver and its GPUs; None if there is no driver.

    One that does not answer is a driver of which nothing is known.

    Args:
        environ: What the child processes get: the PATH on which ``nvidia-smi`` lies, the
            LD_LIBRARY_PATH on which NVML lies, and CUDA_VISIBLE_DEVICES.

        proc: Where the kernel's own word is.

        patience: Seconds for NVML and for nvidia-smi, each; waking a GPU takes several.
    """
    from cachepod.environment.gpu_programs import ask_nvml, ask_smi

    kernel = kernel_driver(proc)
    answer = ask_nvml(environ, patience)
    if not answer.driver and not answer.late:
        # whoever waits for NVML in vain would wait for nvidia-smi in vain: it asks NVML
        smi = ask_smi(environ, patience)
        answer = replace(smi, trouble=smi.trouble or answer.trouble)
    version = answer.driver or kernel
    if not version and not answer.late:
        return None
    gpus = answer.gpus[:_MOST]
    seen = _seen(gpus, visible(environ))
    source = answer.source if answer.driver else "/proc" if kernel else ""
    return Driver(version, answer.cuda, seen, source, len(gpus) - len(seen), answer.trouble)


def _seen(gpus: Sequence[Gpu], names: tuple[str, ...] | None) -> tuple[Gpu, ...]:
    """Those that CUDA_VISIBLE_DEVICES leaves."""
    if names is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for name in names:
        if name.isdigit():
            matching = [gpus[int(name)]] if int(name) < len(gpus) else []
        elif name.startswith("GPU-"):
            matching = [each for each in gpus if each.uuid.startswith(name)]
        else:
            matching = list(gpus[:1])  # a slice of a GPU: which one is not known here
        if len(matching) != 1 or matching[0] in found:
            break
        found += matching
    return tuple(found)
