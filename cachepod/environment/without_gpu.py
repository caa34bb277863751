"""
What an environment holds on a machine without a GPU: torch's build for the CPU, or no torch.

Nobody looks for a GPU unless it makes a difference, by the configuration and the requirements: a
key that is the same with and without one must not wait for a driver.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cachepod.errors import ConfigurationProblem
from cachepod.system.urls import plain

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.requirement import Requirement
    from cachepod.environment.requirements import Requirements

BACKEND = "{backend}"
#: Distributions that PyTorch's indexes have in several builds.
FAMILY = frozenset({"torch", "torchvision", "torchaudio", "torchcodec", "torchtext"})
#: Those that can be installed on a machine with CUDA alone.
NEEDS_CUDA = frozenset({"flash-attn"})
#: Those that are of no use without torch, or without a GPU.
COMPANIONS = FAMILY | NEEDS_CUDA | {"bitsandbytes", "pytorch-triton", "triton", "xformers"}
# CUDA's libraries as torch's wheels ask for them: nvidia-cublas-cu12, or nvidia-cublas for CUDA 13
_LIBRARIES = (
    r"nvidia-(cu[a-z0-9]*|nccl|nvjitlink|nvtx|nvshmem)(-.+)?|cuda-(toolkit|bindings|pathfinder)"
)
_LOCAL = r"\+cu\d+"
_OTHER = r"\+(cpu|rocm|xpu)"
_PLACE = r"/cu\d+(/?)$"
#: Indexes of builds for something else than CUDA.
OTHER_PLACE = r"/(cpu|rocm[\d.]*|xpu)/?$"


@dataclass(frozen=True)
class Instead:
    """
    What is installed in place of what was asked for.

    Args:
        mode: ``cpu`` or ``none``; empty for just what was asked for.

        requirements: What is left of them.

        left_out: Names of distributions that are not to be installed, whoever asks for them.
    """

    mode: str
    requirements: Requirements
    left_out: tuple[str, ...] = ()


def instead(settings: Settings, requirements: Requirements, environ: Mapping[str, str]) -> Instead:
    """What is installed on this machine. A GPU is looked for only if that decides it."""
    if not concerns(settings, requirements) or unmoved(settings, requirements):
        return Instead("", requirements)
    from cachepod.environment.gpu import usable

    if usable(environ):
        return Instead("", requirements)
    if settings.without_gpu == "none":
        return Instead("none", _kept(requirements, COMPANIONS), tuple(sorted(COMPANIONS)))
    moved = _kept(requirements, NEEDS_CUDA)
    moved = replace(
        moved,
        lines=tuple(_for_cpu(each) for each in moved.lines),
        constraints=tuple(_for_cpu(each) for each in moved.constraints),
        index_url=place_for_cpu(moved.index_url),
        extra_index_urls=tuple(map(place_for_cpu, moved.extra_index_urls)),
    )
    return Instead("cpu", moved, tuple(sorted(NEEDS_CUDA)))


def concerns(settings: Settings, requirements: Requirements) -> bool:
    """Whether a machine without a GPU is to have something else."""
    if settings.without_gpu == "same":
        return False
    wanted = {each.name for each in requirements.lines} & COMPANIONS
    if settings.without_gpu == "none" or not wanted:
        return bool(wanted)
    places = (settings.torch_index, requirements.index_url, *requirements.extra_index_urls)
    return not any(re.search(OTHER_PLACE, plain(url)) for url in places) and not any(
        each.name in FAMILY and re.search(_OTHER, each.pinned) for each in requirements.lines
    )


def unmoved(settings: Settings, requirements: Requirements) -> str:
    """
    What says which build of torch it is, so that there is no other to take; empty if nothing does.

    A lock, a hash or a URL means one file. ``none`` needs no other: it leaves lines out.
    """
    if settings.without_gpu != "cpu":
        return ""
    if settings.lock is not None:
        return settings.source("lock")
    for each in requirements.lines:
        named = each.pinned and not re.search(r"://|^-e|^/", each.line)
        if each.name in FAMILY and (each.hashed or (each.fixed and not named)):
            return each.where
    return ""


def place_for_cpu(url: str) -> str:
    """*url* with the build for the CPU in place of one for CUDA, if it names one."""
    return re.sub(_PLACE, r"/cpu\1", url.replace(BACKEND, "cpu"))


def check_index(settings: Settings) -> None:
    """
    Refuse an index of torch that can have no build for the CPU where one may be needed.

    Raises:
        ConfigurationProblem: As with ``without_gpu = "cpu"`` and ``torch_index = "pypi"``.
    """
    url = settings.torch_index
    if settings.without_gpu != "cpu" or url == "auto" or re.search(OTHER_PLACE, plain(url)):
        return
    if place_for_cpu(url) == url:
        raise ConfigurationProblem(
            settings.source("torch_index"),
            "this index has no build of torch for the CPU "
            f"(without_gpu: {settings.source('without_gpu')})",
            hint=f'say torch_index = "auto", or write {BACKEND} where the URL names the build',
        )


def importable(modules: Sequence[str], left_out: Iterable[str]) -> tuple[str, ...]:
    """Those of *modules* that are not of a distribution that was left out."""
    gone = set(left_out)
    return tuple(
        name for name in modules if name.partition(".")[0].lower().replace("_", "-") not in gone
    )


def is_left_out(name: str, left_out: Iterable[str]) -> bool:
    """Whether the distribution *name* is one of *left_out*, or comes with torch alone."""
    gone = set(left_out)
    return name in gone or ("torch" in gone and re.fullmatch(_LIBRARIES, name) is not None)


def _kept(requirements: Requirements, gone: Iterable[str]) -> Requirements:
    gone = frozenset(gone)
    return replace(
        requirements,
        lines=tuple(each for each in requirements.lines if not is_left_out(each.name, gone)),
        constraints=tuple(
            each for each in requirements.constraints if not is_left_out(each.name, gone)
        ),
    )


def _for_cpu(each: Requirement) -> Requirement:
    """*each* without the build for CUDA that it names: ``torch==2.7.0`` of ``==2.7.0+cu126``."""
    if each.name not in FAMILY or "+cu" not in each.line:
        return each
    return replace(
        each,
        value=re.sub(_LOCAL, "", each.value),
        line=re.sub(_LOCAL, "", each.line),
        pinned=re.sub(_LOCAL, "", each.pinned),
    )
