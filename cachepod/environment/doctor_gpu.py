"""What ``cachepod doctor`` says of GPUs, of the driver, and of the torch that is meant for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from cachepod.environment import gpu
from cachepod.environment.config import Settings
from cachepod.environment.cuda import Runs, highest, runs, too_old, unsuited
from cachepod.environment.diagnosis import Check, Severity, failed
from cachepod.environment.identity import Identity, identify
from cachepod.environment.torch import backend_of, builds_of
from cachepod.environment.without_gpu import COMPANIONS, unmoved
from cachepod.errors import CachepodError, ConfigurationProblem, human_bytes
from cachepod.system.urls import masked, plain

_ABOUT = "machine"


def examine_gpu(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """The GPUs, the driver, and the build of torch that the configuration asks for."""
    driver = gpu.detect(environ)
    identity: Identity | None = None
    problem: CachepodError | None = None
    if settings.wants_environment:
        try:
            identity = identify(settings, environ)
        except ConfigurationProblem as error:
            problem = error
        except CachepodError:
            pass  # of the interpreter, which has a line of its own
    cuda = identity.fingerprint.inputs.get("cuda", "") if identity else settings.cuda
    yield _gpus(settings, identity, driver, cuda)
    if driver is not None:
        yield _driver(identity, driver, cuda)
    if problem is not None:
        yield failed(_ABOUT, "requirements", problem)
    elif identity is not None and _wants_torch(identity):
        yield _torch(settings, identity)


def _gpus(
    settings: Settings, identity: Identity | None, driver: gpu.Driver | None, cuda: str
) -> Check:
    if driver is None:
        return Check(_ABOUT, "GPU", "none", _without(identity))
    if not driver.gpus and driver.hidden:
        return Check(
            _ABOUT,
            "GPU",
            f"none of {driver.hidden} is visible",
            f"CUDA_VISIBLE_DEVICES hides them; {_without(identity)}",
            Severity.WARNING,
        )
    if not driver.gpus:
        known = driver.source not in ("", "/proc")
        return Check(
            _ABOUT,
            "GPU",
            "no GPU is visible",
            "the driver is there, but this container was given no GPU"
            if known
            else "the driver is there, but nothing tells of its GPUs: neither NVML nor nvidia-smi",
            Severity.WARNING,
        )
    result = _named(driver)
    if identity is not None and identity.without_gpu:
        missing = f"{driver.source} names it, but its device is not in /dev"
        return Check(_ABOUT, "GPU", result, f"{missing}; {_without(identity)}", Severity.WARNING)
    for each in driver.gpus:
        wrong = unsuited(each.capability, cuda) if cuda and each.capability else ""
        if wrong:
            return Check(_ABOUT, "GPU", result, wrong, Severity.PROBLEM)
    return Check(_ABOUT, "GPU", result, "the driver comes from the host, never from a snapshot")


def _named(driver: gpu.Driver) -> str:
    """``2 x NVIDIA L4 (24.1 GB, compute capability 8.9)``"""
    kinds: dict[str, int] = {}
    for each in driver.gpus:
        facts = [human_bytes(each.memory)] if each.memory else []
        facts += [f"compute capability {each.capability}"] if each.capability else []
        kind = f"{each.name} ({', '.join(facts)})" if facts else each.name
        kinds[kind] = kinds.get(kind, 0) + 1
    named = ", ".join(
        f"{number} x {kind}" if number > 1 else kind for kind, number in kinds.items()
    )
    return f"{named}; {driver.hidden} more are hidden" if driver.hidden else named


def _without(identity: Identity | None) -> str:
    if identity is None or not identity.without_gpu:
        return "environments are installed, published and restored all the same"
    where = identity.wheres["without-gpu"]
    if identity.without_gpu == "cpu":
        return f"torch's build for the CPU is installed here (without_gpu: {where})"
    return f"torch and what needs it are left out here (without_gpu: {where})"


def _driver(identity: Identity | None, driver: gpu.Driver, cuda: str) -> Check:
    name = "driver"
    latest = highest(driver)
    result = f"{driver.version}, CUDA up to {latest or '?'} (says {driver.source})"
    if not driver.source:
        result = "unknown"
    if driver.trouble:
        result += f"; {driver.trouble}"
    if not cuda:
        trouble = Severity.WARNING if driver.trouble else Severity.OK
        return Check(_ABOUT, name, result, "nothing here asks for a release of CUDA", trouble)
    found = runs(driver, cuda)
    if found is Runs.NO:
        version = identity.requirements.pinned("torch") if identity is not None else ""
        why, hint = too_old(driver, cuda, builds_of(version))
        return Check(_ABOUT, name, result, f"{why}; {hint}", Severity.PROBLEM)
    if driver.trouble:
        return Check(_ABOUT, name, result, "programs may not find the GPU", Severity.WARNING)
    if found is Runs.MINOR:
        return Check(
            _ABOUT,
            name,
            result,
            f"it runs CUDA {cuda} by compatibility within a major version: "
            f"all but code that is compiled at run time by newer tools",
            Severity.NOTE,
        )
    if found is Runs.UNKNOWN:
        return Check(
            _ABOUT, name, result, f"whether it runs CUDA {cuda} is not known", Severity.NOTE
        )
    return Check(_ABOUT, name, result, f"it runs CUDA {cuda}, which is asked for")


def _wants_torch(identity: Identity) -> bool:
    return bool(identity.without_gpu) or any(
        each.name in COMPANIONS for each in identity.requirements.lines
    )


def _torch(settings: Settings, identity: Identity) -> Check:
    if identity.without_gpu == "none":
        return Check(_ABOUT, "torch", "left out", _without(identity))
    python, inputs = identity.interpreter, identity.fingerprint.inputs
    version = identity.requirements.pinned("torch").partition("+")[0] or "any version"
    cuda = inputs.get("cuda", "")
    if cuda:
        kind = f"for CUDA {cuda}"
    else:
        kind = "for the CPU" if identity.without_gpu else "for whatever the index has"
    tag = f"wheels {python.abi}-{python.abi}, {python.platform}"
    build = f", +{backend_of(cuda)}" if cuda or identity.without_gpu else ""
    index = masked(plain(identity.torch_index)) or "the usual index"
    meaning = f"from {index}"
    if unmoved(settings, identity.requirements):
        meaning += '; without_gpu = "cpu" makes no difference, for a lock, hash or URL says which'
    return Check(_ABOUT, "torch", f"{version} {kind} ({tag}{build})", meaning)
