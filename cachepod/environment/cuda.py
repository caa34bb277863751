"""
Which CUDA releases a driver runs, and which GPUs a release of CUDA has code for.

Sources: the table of drivers in the release notes of the CUDA Toolkit, NVIDIA's "CUDA
Compatibility" for what runs across minor versions, and the banners of nvidia-smi for the latest
branches.
"""

from __future__ import annotations

from enum import Enum

from cachepod.environment.gpu import Driver
from cachepod.environment.torch import numbers

# branch of the driver (the number before the first dot) to the latest CUDA release that it runs
_BRANCHES = (
    (450, "11.0"), (455, "11.1"), (460, "11.2"), (465, "11.3"), (470, "11.4"), (495, "11.5"),
    (510, "11.6"), (515, "11.7"), (520, "11.8"), (525, "12.0"), (530, "12.1"), (535, "12.2"),
    (545, "12.3"), (550, "12.4"), (555, "12.5"), (560, "12.6"), (565, "12.7"), (570, "12.8"),
    (575, "12.9"), (580, "13.0"), (590, "13.1"), (595, "13.2"), (610, "13.3"), (615, "13.4"),
)  # fmt: skip
# what is built for one release of a major version runs on every driver from this one on
_MINIMUM = {11: (450, 80), 12: (525, 60), 13: (580, 65)}
# the first release with code for GPUs of a compute capability, and the first without it
_FIRST = (((10, 0), (12, 8)), ((9, 0), (11, 8)), ((8, 0), (11, 0)))
_LAST = (((7, 5), (13, 0)), ((5, 0), (12, 0)))


class Runs(Enum):
    """Whether a driver runs what is built for a CUDA release."""

    YES = "yes"
    MINOR = "minor"  # by compatibility within a major version
    NO = "no"
    UNKNOWN = "unknown"


def highest(driver: Driver) -> str:
    """The latest CUDA release that *driver* runs; empty if it is older than all that is known."""
    if driver.cuda:
        return driver.cuda
    branch = (numbers(driver.version) or (0,))[0]
    return next((cuda for first, cuda in reversed(_BRANCHES) if first <= branch), "")


def runs(driver: Driver, cuda: str) -> Runs:
    """Whether *driver* runs what is built for the release *cuda*."""
    version, wanted, latest = numbers(driver.version), numbers(cuda), numbers(highest(driver))
    if not latest:
        return Runs.NO if version else Runs.UNKNOWN
    if wanted <= latest:
        return Runs.YES
    if not driver.cuda and version[0] > _BRANCHES[-1][0]:
        return Runs.UNKNOWN  # younger than the table
    least = _MINIMUM.get(wanted[0], (0,))
    if wanted[0] == latest[0] and (not version or version >= least):
        return Runs.MINOR
    return Runs.NO


def driver_for(cuda: str) -> str:
    """The first branch of drivers that runs *cuda*, in words: ``580``; empty where not known."""
    least = _MINIMUM.get(numbers(cuda)[0])
    return str(least[0]) if least else ""


def unsuited(capability: str, cuda: str) -> str:
    """What is wrong with code for the release *cuda* on a GPU of *capability*; empty if nothing."""
    gpu, release = numbers(capability), numbers(cuda)
    for first, since in _FIRST:
        if gpu >= first:
            if release < since:
                return f"CUDA {cuda} has no code for it: it needs {_dotted(since)} or later"
            break
    for least, until in _LAST:
        if gpu < least and release >= until:
            return f"CUDA {cuda} has no code for it: {until[0]}.x left GPUs before {_dotted(least)}"
    return ""


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def too_old(driver: Driver, cuda: str, built: tuple[str, ...] = ()) -> tuple[str, str]:
    """
    What is to be said of a driver that is too old for *cuda*, and what to do.

    Args:
        built: The releases that the torch in question is built for; empty where not known.
    """
    latest = highest(driver)
    known = f"CUDA up to {latest}" if latest else "no CUDA of 11.0 or later"
    named = f"the driver {driver.version} runs {known}"
    fitting = [each for each in built if runs(driver, each) in (Runs.YES, Runs.MINOR)]
    other = f'cuda = "{fitting[-1]}"' if fitting else "another CUDA release and a torch for it"
    newer = driver_for(cuda)
    host = f"a host with driver {newer} or later" if newer else "a host with a newer driver"
    compat = f"cuda-compat-{cuda.replace('.', '-')}"
    return (
        f"{named}, and {cuda} is asked for: torch will find no GPU",
        f"take {other}, or {host}, or, on data-centre GPUs, NVIDIA's package {compat}",
    )
