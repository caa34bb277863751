"""What a user should know before an installation begins, in words; none of it stops one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from cachepod.environment import gpu
from cachepod.environment.config import Settings
from cachepod.environment.cuda import Runs, runs, too_old
from cachepod.environment.identity import Identity
from cachepod.environment.torch import builds_of
from cachepod.environment.without_gpu import concerns, unmoved


def advice(
    settings: Settings,
    identity: Identity,
    environ: Mapping[str, str],
    proc: Path = Path("/proc"),
) -> Iterator[str]:
    """
    What will not be as it was asked for, and what will not work here.

    Nothing is started: of the driver it is known what the kernel says.
    """
    where = settings.source("without_gpu")
    if identity.without_gpu == "cpu":
        yield f"there is no GPU here: torch's build for the CPU is installed (without_gpu: {where})"
    elif identity.without_gpu == "none":
        yield f"there is no GPU here: torch and what needs it are left out (without_gpu: {where})"
    elif concerns(settings, identity.requirements) and not gpu.usable(environ):
        said_by = unmoved(settings, identity.requirements)
        yield (
            "there is no GPU here, but torch stays as it is: "
            f"{said_by} says which build (without_gpu: {where})"
        )
    outdated = driver_advice(identity, proc)
    if outdated:
        yield outdated


def driver_advice(identity: Identity, proc: Path = Path("/proc")) -> str:
    """That the driver is too old for the environment, and what to do; empty where it is not."""
    cuda = identity.fingerprint.inputs.get("cuda", "")
    version = gpu.kernel_driver(proc) if cuda else ""
    driver = gpu.Driver(version, source="/proc")
    if not version or runs(driver, cuda) is not Runs.NO:
        return ""
    why, hint = too_old(driver, cuda, builds_of(identity.requirements.pinned("torch")))
    return f"{why}; {hint}"
