"""
Who an environment is: its fingerprint and its key.

Every input is observed here and nowhere else. What does not change the result is not an input:
who resolves (uv or pip), where caches lie, credentials, and for a lock whose every line carries
hashes the index that the files are fetched from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.environment import pep508
from cachepod.environment.config import Settings
from cachepod.environment.flash_plan import NAME as FLASH_ATTN
from cachepod.environment.flash_plan import Plan, lacks_it, take_over
from cachepod.environment.machine import Interpreter, interpreter
from cachepod.environment.requirement import shown_path
from cachepod.environment.requirements import Requirements, read_requirements, read_steps
from cachepod.environment.torch import backend_of, choose
from cachepod.environment.without_gpu import importable, instead
from cachepod.errors import CachepodError, ConfigurationProblem, UsageProblem
from cachepod.model.fingerprint import KEY_FORMAT, Fingerprint
from cachepod.model.names import NAMED_FAMILY
from cachepod.system.urls import plain

if TYPE_CHECKING:
    from cachepod.environment.layer import Layer

TREES_FAMILY = "trees"
_PYPI = "https://pypi.org/simple"
_NOT_A_NAME = r"[^A-Za-z0-9._+]+"


@dataclass(frozen=True)
class Identity:
    """
    What :func:`identify` found out.

    Args:
        fingerprint: Every input of the key.

        key: What is looked up; the user's own where there is one.

        requirements: What to install; empty for trees alone.

        interpreter: What the environment is built on.

        torch_index: Where torch's wheels come from, empty for the usual index. It may hold
            credentials.

        flash_attn: What is wanted of it; it is not among the requirements.

        wheres: Name of an input to who gave it, as ``requirements.txt:3``.

        layer: What apt is to bring; None where the image has all of it, or cannot have it.

        without: Why packages that are missing are gone without; None if none are.

        without_gpu: What this machine gets for want of a GPU, ``cpu`` or ``none``; empty if that
            makes no difference.

        left_out: Names of the distributions that it does not get for that reason.
    """

    fingerprint: Fingerprint
    key: str
    requirements: Requirements = field(repr=False)
    interpreter: Interpreter
    torch_index: str = field(default="", repr=False)
    flash_attn: Plan | None = None
    wheres: Mapping[str, str] = field(default_factory=dict, repr=False)
    layer: Layer | None = None
    without: CachepodError | None = None
    without_gpu: str = ""
    left_out: tuple[str, ...] = ()

    def checked(self, modules: Sequence[str]) -> tuple[str, ...]:
        """Those of *modules* that this machine is meant to have, and can."""
        left_out = self.left_out
        plan = self.flash_attn
        if plan and plan.optional and lacks_it(Path(self.fingerprint.inputs["prefix"])):
            left_out += (FLASH_ATTN,)
        return importable(modules, left_out)


def identify(settings: Settings, environ: Mapping[str, str] | None = None) -> Identity:
    """
    Observe every input and compute the key.

    Args:
        settings: The configuration. With a lock in it, the lock is read and not the
            requirements.

        environ: Variables for ``${NAME}`` in requirements and the PATH; the process's own by
            default.

    Raises:
        UsageProblem: There is nothing to make a key of, or the interpreter does not work.

        ConfigurationProblem: Requirements cannot be read, or a line of them means nothing.
    """
    environ = os.environ if environ is None else environ
    python = interpreter(settings.python, environ=environ, where=settings.source("python"))
    if not settings.wants_environment:
        if not settings.trees and not settings.toolkit and not settings.wants_packages:
            raise UsageProblem(
                "there is nothing to do: no requirements and no tree", hint=_nothing_hint(settings)
            )
        return _of_trees(settings, python)
    if settings.lock is not None:
        requirements = _read_lock(settings, settings.lock, python, environ)
    else:
        requirements = read_steps(
            settings.steps or (settings.own_step,),
            root=settings.root,
            variables=python.markers,
            environ=environ,
            leave_out=(settings.prefix,),
        )
    if settings.steps:
        from cachepod.environment.profiles import judge

        settings = judge(settings, requirements, python.markers, environ)
    return _of_environment(settings, _merged(settings, requirements), python, environ)


def _nothing_hint(settings: Settings) -> str:
    usual = settings.root / "requirements.txt"
    if usual.is_file():
        return f"did you mean -r {shown_path(usual)}?"
    named = f"{settings.source('handler')} names no handler that is known; "
    return (named if settings.handler_unknown else "") + (
        "name a file with -r FILE or in cachepod.toml, or a directory with --tree NAME=DIR"
    )


def _layer_of(settings: Settings, cuda: str) -> tuple[Layer | None, CachepodError | None]:
    """What apt is to bring, and why nothing although packages are missing; *cuda* is a release."""
    if not settings.wants_packages:
        return None, None
    if settings.toolkit is True and not cuda:
        raise ConfigurationProblem(
            settings.source("toolkit"),
            "toolkit: which CUDA release is not said, and does not follow from torch",
            hint='say it, as cuda = "12.6"',
        )
    from cachepod.environment.layer import layer_of

    return layer_of(settings, cuda)


def _of_trees(settings: Settings, python: Interpreter) -> Identity:
    if settings.key:
        # the name alone decides: it may be restored to another directory than it was taken from
        inputs = {"key": settings.key}
        named = Fingerprint(NAMED_FAMILY, inputs)
        return Identity(
            named, settings.key, Requirements(), python, wheres={"key": settings.source("key")}
        )
    inputs = {"format": KEY_FORMAT, "machine": python.platform}
    wheres: dict[str, str] = {}
    layer, without = _layer_of(settings, settings.cuda)
    _add_shared(settings, layer, inputs, wheres)
    fingerprint = Fingerprint(TREES_FAMILY, inputs)
    return Identity(
        fingerprint,
        fingerprint.key,
        Requirements(),
        python,
        wheres=wheres,
        layer=layer,
        without=without,
    )


def _add_shared(
    settings: Settings, layer: Layer | None, inputs: dict[str, str], wheres: dict[str, str]
) -> None:
    """Trees, a CUDA toolkit that is one, apt packages and the handler."""
    for name, folder in settings.trees.items():
        inputs[f"tree:{name}"] = str(folder)
        wheres[f"tree:{name}"] = settings.source("trees")
    if isinstance(settings.toolkit, Path):
        # By its place alone: its release is not known where there is none yet, and must not change
        # the key of the container that restores it.
        inputs["toolkit"] = str(settings.toolkit)
        wheres["toolkit"] = settings.source("toolkit")
    if layer is not None:
        from cachepod.environment.layer import add_inputs

        add_inputs(layer, settings, inputs, wheres)
    if settings.handler:
        inputs["handler"] = settings.handler
        wheres["handler"] = settings.source("handler")


def _of_environment(
    settings: Settings,
    asked: Requirements,
    python: Interpreter,
    environ: Mapping[str, str],
) -> Identity:
    wanted = choose(settings, asked, python)
    layer, without = _layer_of(settings, wanted.cuda)
    found = instead(settings, asked, environ)
    if found.mode:
        requirements, plan = found.requirements, None
        build = wanted.without_gpu(settings, found.mode)
    else:
        requirements, plan = take_over(settings, asked)
        build = wanted
    inputs = {
        "format": KEY_FORMAT,
        "machine": python.platform,
        "libc": python.libc or "unknown",
        "python": f"{python.implementation} {python.version}",
        "abi": python.soabi or python.abi,
        "interpreter": str(python.executable),
        "prefix": str(settings.prefix),
    }
    wheres = {"prefix": settings.source("prefix")}
    if settings.python:
        wheres["python"] = settings.source("python")
    if build.cuda:
        inputs["cuda"] = build.cuda
        wheres["cuda"] = settings.source("cuda") if settings.cuda else "torch"
    if found.mode:
        inputs["without-gpu"] = found.mode
        wheres["without-gpu"] = settings.source("without_gpu")
    if not settings.compile:
        inputs["compile"] = "no"
        wheres["compile"] = settings.source("compile")
    _add_shared(settings, layer, inputs, wheres)
    _add_requirements(requirements, inputs, wheres)
    if plan is not None:
        plan.add_to(inputs, wheres)
    if settings.lock is not None:
        inputs["lock"] = "yes"
        wheres["lock"] = settings.source("lock")
    if settings.lock is None or not all(each.hashed for each in requirements.lines):
        _add_indexes(requirements, build.index, inputs)
    cu = backend_of(build.cuda) if build.cuda or found.mode == "cpu" else "nocuda"
    if build.version:
        # a local version says which CUDA, which the family says already
        family_torch = f"torch{build.version.partition('+')[0]}"
    else:
        family_torch = "torch" if build.wanted else "notorch"
    family = re.sub(_NOT_A_NAME, "_", python.abi) + "-" + re.sub(_NOT_A_NAME, "_", python.platform)
    fingerprint = Fingerprint(f"{family}-{cu}-{re.sub(_NOT_A_NAME, '_', family_torch)}", inputs)
    return Identity(
        fingerprint,
        fingerprint.key,
        requirements,
        python,
        build.index,
        plan,
        wheres,
        layer,
        without,
        without_gpu=found.mode,
        left_out=found.left_out,
    )


def _add_requirements(
    requirements: Requirements, inputs: dict[str, str], wheres: dict[str, str]
) -> None:
    """One input for each name; several lines about one name are one input."""
    for kind, lines in (
        ("requirement", requirements.lines),
        ("constraint", requirements.constraints),
    ):
        values: dict[str, set[str]] = {}
        for each in lines:
            name = f"{kind}:{each.name}"
            values.setdefault(name, set()).add(each.value)
            wheres[name] = f"{wheres[name]}, {each.where}" if name in wheres else each.where
        for name, found in values.items():
            inputs[name] = " and ".join(sorted(found))
    if requirements.pre:
        inputs["option:pre"] = "yes"
    if requirements.no_binary:
        inputs["option:no-binary"] = " ".join(requirements.no_binary)
    if requirements.only_binary:
        inputs["option:only-binary"] = " ".join(requirements.only_binary)


def _add_indexes(requirements: Requirements, torch_index: str, inputs: dict[str, str]) -> None:
    index = _index(requirements.index_url)
    if index and index != _PYPI:
        inputs["index"] = index
    # their order counts: uv takes a package from the first index that has it
    extra = [_index(url) for url in requirements.extra_index_urls]
    if extra:
        inputs["index:extra"] = " ".join(extra)
    if torch_index:
        inputs["index:torch"] = _index(torch_index)
    links = sorted({_link(place) for place in requirements.find_links})
    if links:
        inputs["index:find-links"] = " ".join(links)


def _index(url: str) -> str:
    return plain(url).rstrip("/")


def _link(place: str) -> str:
    """A URL, or a directory by the names in it: a wheel's name tells version and build."""
    if "://" in place:
        return plain(place)
    import hashlib

    try:
        names = [os.path.basename(place)] if os.path.isfile(place) else os.listdir(place)
    except OSError as error:
        raise UsageProblem(f"{place} cannot be read: {error.strerror}") from None
    archives = sorted(name for name in names if name.lower().endswith((*pep508.ARCHIVES, ".html")))
    digest = hashlib.sha256("\0".join(archives).encode("utf-8", "surrogateescape")).hexdigest()
    return f"directory sha256:{digest}"


def _merged(settings: Settings, found: Requirements) -> Requirements:
    """What the files say of indexes, after what the configuration says, which comes first."""
    return replace(
        found,
        index_url=settings.index_url or found.index_url,
        extra_index_urls=_once((*settings.extra_index_urls, *found.extra_index_urls)),
        find_links=_once((*settings.find_links, *found.find_links)),
    )


def _once(items: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(items))


def _read_lock(
    settings: Settings, lock: Path, python: Interpreter, environ: Mapping[str, str]
) -> Requirements:
    where = settings.source("lock")
    if not lock.exists():
        raise ConfigurationProblem(
            where,
            f"the lock file {shown_path(lock)} does not exist",
            hint="make it with cachepod lock",
        )
    if lock.suffix in (".toml", ".json") or lock.name == "uv.lock":
        raise ConfigurationProblem(
            where,
            f"{shown_path(lock)} is not a lock in the form of a requirements file",
            hint="make one with cachepod lock, or uv export --format requirements-txt",
        )
    found = read_requirements(
        [(lock, where)],
        root=settings.root,
        variables=python.markers,
        environ=environ,
        leave_out=(settings.prefix,),
    )
    for each in found.lines:
        if not each.fixed:
            raise ConfigurationProblem(
                each.where,
                f"{each.name} is not pinned to one version, so this is no lock",
                hint="make one with cachepod lock, or give the file as requirements",
            )
    return found
