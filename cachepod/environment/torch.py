"""
Which build of torch an environment gets, and where its wheels come from.

A build is for one CUDA release, or for the CPU. PyTorch keeps each in an index of its own, such as
``https://download.pytorch.org/whl/cu126``, under versions like ``2.7.0+cu126``; of each version
one build is on PyPI as well. Nothing here asks a network: what exists is known from tables.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from cachepod.environment.without_gpu import BACKEND, OTHER_PLACE, place_for_cpu
from cachepod.errors import ConfigurationProblem
from cachepod.system.urls import plain

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.machine import Interpreter
    from cachepod.environment.requirements import Requirements

TORCH_INDEX = "https://download.pytorch.org/whl"

# CUDA releases that a torch release is built for. Sources: pytorch's RELEASE.md, and the commands
# under pytorch.org/get-started/previous-versions; 12.9 of 2.9 and later by wheels that are there.
_RELEASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "2.0": ("11.7", "11.8"),
        "2.1": ("11.8", "12.1"),
        "2.2": ("11.8", "12.1"),
        "2.3": ("11.8", "12.1"),
        "2.4": ("11.8", "12.1", "12.4"),
        "2.5": ("11.8", "12.1", "12.4"),
        "2.6": ("11.8", "12.4", "12.6"),
        "2.7": ("11.8", "12.6", "12.8"),
        "2.8": ("12.6", "12.8", "12.9"),
        "2.9": ("12.6", "12.8", "12.9", "13.0"),
        "2.10": ("12.6", "12.8", "12.9", "13.0"),
        "2.11": ("12.6", "12.8", "12.9", "13.0"),
    }
)
# of releases that are too young for a table to be sure of; they only say that a release exists
_ALSO = ("13.2",)
# CUDA release of the wheel on PyPI, by torch's release; none is the build for the CPU. Source: the
# wheels' own metadata, which name the CUDA runtime that they need.
_PYPI_X86_64: Mapping[str, str] = MappingProxyType(
    {
        "2.0": "11.7", "2.1": "12.1", "2.2": "12.1", "2.3": "12.1", "2.4": "12.1", "2.5": "12.4",
        "2.6": "12.4", "2.7": "12.6", "2.8": "12.8", "2.9": "12.8", "2.10": "12.8",
        "2.11": "13.0", "2.12": "13.0", "2.13": "13.0", "2.14": "13.0", "2.15": "13.2",
    }
)  # fmt: skip
_PYPI_AARCH64: Mapping[str, str] = MappingProxyType(
    {"2.11": "13.0", "2.12": "13.0", "2.13": "13.0", "2.14": "13.0", "2.15": "13.2"}
)
_PYPI = {"linux_x86_64": _PYPI_X86_64, "linux_aarch64": _PYPI_AARCH64}
# not compiled before they are used
_CUDA_LOCAL = r"\+cu(\d+)(\d)$"
_CUDA_PLACE = r"/cu(\d+)(\d)/?$"
_RELEASED = r"(\d+\.\d+)(\.\d+)*(\.post\d+)?"


@dataclass(frozen=True)
class Build:
    """
    The build that was chosen.

    Args:
        version: The pinned version, local part included; empty where several would do.

        wanted: Whether torch is among the requirements.

        index: Where it comes from; empty for the usual index. It may hold credentials.

        cuda: The CUDA release, ``12.6``; empty for the CPU, or where that is not known.
    """

    version: str
    wanted: bool
    index: str = field(default="", repr=False)
    cuda: str = ""

    def without_gpu(self, settings: Settings, mode: str) -> Build:
        """What is taken in its place where there is no GPU, by the *mode* ``cpu`` or ``none``."""
        if mode == "none":
            return Build("", False)
        auto = settings.torch_index == "auto"
        index = f"{TORCH_INDEX}/cpu" if auto else place_for_cpu(settings.torch_index)
        return Build(self.version.partition("+")[0], True, index)


def choose(settings: Settings, requirements: Requirements, python: Interpreter) -> Build:
    """
    The build that the configuration and the requirements ask for.

    Raises:
        ConfigurationProblem: There is no such build, or two places ask for different ones.
    """
    version = requirements.pinned("torch")
    wanted = requirements.wants("torch")
    index = ""
    if wanted:
        _check_pin(settings, requirements, version)
        index = _index(settings, python, version)
        if index.startswith(f"{TORCH_INDEX}/"):
            _check_exists(settings, requirements, version, _of_place(index))
    cuda = settings.cuda or _implied(requirements, index, python, version)
    return Build(version, wanted, index, cuda)


def backend_of(cuda: str) -> str:
    """The name of a build as PyTorch's indexes have it: ``cu126``, ``cpu``."""
    return f"cu{cuda.replace('.', '')}" if cuda else "cpu"


def builds_of(version: str) -> tuple[str, ...]:
    """The CUDA releases that torch *version* is built for; empty where that is not known."""
    return _RELEASES.get(_release(version), ())


def _release(version: str) -> str:
    """``2.7`` of ``2.7.0+cu126``; empty for a version before a release, or none."""
    match = re.fullmatch(_RELEASED, version.partition("+")[0])
    return match[1] if match else ""


def _index(settings: Settings, python: Interpreter, version: str) -> str:
    """Where torch comes from; empty for the usual index, which is right where its build is."""
    cuda = settings.cuda
    on_pypi = _on_pypi(python, version)
    if settings.torch_index == "pypi":
        if cuda and on_pypi and on_pypi != cuda and not settings.index_url:
            raise ConfigurationProblem(
                settings.source("torch_index"),
                f"torch {version} on PyPI is built for CUDA {on_pypi}, not {cuda} "
                f"(cuda: {settings.source('cuda')})",
                hint='say torch_index = "auto"',
            )
        return ""
    if BACKEND in settings.torch_index:
        cuda = cuda or _of_local(version) or on_pypi
        if not cuda:
            raise ConfigurationProblem(
                settings.source("torch_index"),
                f"{BACKEND} stands for a CUDA release, and none is configured",
                hint='say which: cuda = "12.6"',
            )
        return settings.torch_index.replace(BACKEND, backend_of(cuda))
    if settings.torch_index != "auto":
        named = _of_place(settings.torch_index)
        if named and cuda and named != cuda:
            raise ConfigurationProblem(
                settings.source("torch_index"),
                f"this is the index of builds for CUDA {named}, not {cuda} "
                f"(cuda: {settings.source('cuda')})",
                hint=f"write {BACKEND} in place of {backend_of(named)}",
            )
        return settings.torch_index
    if not cuda or (on_pypi == cuda and "+" not in version):
        return ""
    return f"{TORCH_INDEX}/{backend_of(cuda)}"


def _on_pypi(python: Interpreter, version: str) -> str:
    """CUDA release of the wheel of *version* on PyPI; empty where that is not known."""
    return _PYPI.get(python.platform, {}).get(_release(version), "")


def _of_local(version: str) -> str:
    """``12.6`` of ``2.7.0+cu126``."""
    match = re.search(_CUDA_LOCAL, version)
    return f"{match[1]}.{match[2]}" if match else ""


def _of_place(url: str) -> str:
    """``12.6`` of ``https://download.pytorch.org/whl/cu126``."""
    match = re.search(_CUDA_PLACE, plain(url))
    return f"{match[1]}.{match[2]}" if match else ""


def _implied(requirements: Requirements, index: str, python: Interpreter, version: str) -> str:
    """CUDA release that follows from torch where the configuration names none."""
    if not version:
        return ""
    if "+" in version:  # +cu126; +cpu and +rocm6.2 are for no CUDA
        return _of_local(version)
    for url in (index, requirements.index_url, *requirements.extra_index_urls):
        if _of_place(url):
            return _of_place(url)
        if re.search(OTHER_PLACE, plain(url)):
            return ""
    return _on_pypi(python, version)


# What does not exist


def _check_pin(settings: Settings, requirements: Requirements, version: str) -> None:
    """Refuse a pin of one build where the configuration asks for another."""
    pinned = _of_local(version)
    if pinned and settings.cuda and pinned != settings.cuda:
        raise ConfigurationProblem(
            settings.source("cuda"),
            f"torch {version} ({_where(requirements)}) is built for CUDA {pinned}, "
            f"not {settings.cuda}",
            hint=f'say cuda = "{pinned}", or leave {version[version.index("+") :]} out',
        )


def _check_exists(settings: Settings, requirements: Requirements, version: str, cuda: str) -> None:
    """
    Refuse a build for the release *cuda* that PyTorch does not have.

    Of releases that are younger than the tables, and of versions before a release, nothing is
    known, and so nothing is refused.
    """
    if not cuda:
        return
    where = settings.source("cuda" if settings.cuda else "torch_index")
    built = builds_of(version)
    if built:
        if cuda in built:
            return
        raise ConfigurationProblem(
            where,
            f"there is no torch {version} for CUDA {cuda} ({_where(requirements)}): "
            f"it is built for {_listed(built)}",
            hint=f'say cuda = "{_nearest(cuda, built)}", or take another torch',
        )
    every = sorted({*_ALSO, *(each for row in _RELEASES.values() for each in row)}, key=numbers)
    newest = numbers(every[-1])
    young = newest < numbers(cuda) < (newest[0] + 2,)
    if version or cuda in every or young:
        return
    raise ConfigurationProblem(
        where,
        f"there is no torch for CUDA {cuda}: it is built for {_listed(every)}",
        hint=f'say cuda = "{_nearest(cuda, every)}"',
    )


def _where(requirements: Requirements) -> str:
    """The place that pins torch."""
    for each in (*requirements.lines, *requirements.constraints):
        if each.name == "torch" and each.pinned:
            return each.where
    return "torch"


def _listed(releases: tuple[str, ...] | list[str]) -> str:
    return f"{', '.join(releases[:-1])} and {releases[-1]}"


def _nearest(cuda: str, releases: tuple[str, ...] | list[str]) -> str:
    """The latest of *releases* that a driver for *cuda* runs, else the first."""
    earlier = [each for each in releases if numbers(each) <= numbers(cuda)]
    return earlier[-1] if earlier else releases[0]


def numbers(version: str) -> tuple[int, ...]:
    """``(12, 6)`` of ``12.6``, so that 12.10 comes after it."""
    return tuple(int(part) for part in version.split(".") if part.isdecimal())
