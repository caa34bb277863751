"""
What is good and what is not about the machine, the store and the prefix, and what it means.

Nothing is printed, and nothing is left behind: the store is not even made where it is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from cachepod.environment.config import Settings
from cachepod.environment.diagnosis import Check, Severity, failed
from cachepod.environment.doctor_gpu import examine_gpu
from cachepod.environment.doctor_prefix import examine_prefix
from cachepod.environment.doctor_store import examine_store
from cachepod.environment.doctor_trust import examine_keys
from cachepod.environment.filesystem import free_space
from cachepod.environment.machine import interpreter
from cachepod.environment.uv import find_uv
from cachepod.errors import CachepodError, UsageProblem, human_bytes
from cachepod.limits import cores, memory
from cachepod.stores.mounts import mount_at, mounts
from cachepod.stores.places import check_apart
from cachepod.stores.url import VOLUMES, default_store_url

__all__ = ["Check", "Severity", "examine", "examine_machine", "examine_prefix", "examine_store"]

_LITTLE_MEMORY = 4_000_000_000
_ROOT_FREE = 0.10


def examine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """
    Look at the machine, then every store, then the prefix; one after another, for a volume that
    hangs must not keep back what is known already.
    """
    yield from examine_machine(settings, environ)
    try:
        stores = settings.store or (default_store_url(environ),)
    except UsageProblem as error:
        stores = ()
        yield failed("store", "store", error)
    yield from examine_keys(settings)
    try:
        check_apart(stores, environ)
    except UsageProblem as error:
        yield failed("stores", "places", error)
        stores = stores[:1]
    for url in stores:
        yield from examine_store(url, settings)
    if settings.wants_environment:
        yield from examine_prefix(settings.prefix, settings.min_free)
    for name, root in settings.trees.items():
        if not root.is_dir():
            yield Check(
                f"tree {name}",
                "directory",
                f"{root} does not exist",
                "a restore makes it; there is nothing to publish yet",
                Severity.NOTE,
            )


# The machine


def examine_machine(settings: Settings, environ: Mapping[str, str]) -> Iterator[Check]:
    """Limits, interpreter, installer and GPU."""
    about = "machine"
    usable, seen = cores(), os.cpu_count() or 1
    yield Check(
        about,
        "cores",
        f"{usable}" if usable == seen else f"{usable} of the {seen} that the host has",
        "a publish and a restore use one thread for each",
    )
    limit = memory()
    little = limit < _LITTLE_MEMORY
    yield Check(
        about,
        "memory",
        human_bytes(limit),
        "some services stop a worker that has under 4 GB" if little else "enough for a restore",
        Severity.WARNING if little else Severity.OK,
    )
    free, total = free_space(Path("/"))
    full = free < total * _ROOT_FREE
    yield Check(
        about,
        "system disk",
        f"{human_bytes(free)} of {human_bytes(total)} free",
        "less than 10% is free: some services do not start such a worker"
        if full
        else "enough is left of /",
        Severity.WARNING if full else Severity.OK,
    )
    yield _volume(environ)
    yield _interpreter(settings, environ)
    yield _uv(settings)
    yield from examine_gpu(settings, environ)
    if settings.toolkit:
        from cachepod.environment.doctor_toolkit import examine_toolkit

        yield from examine_toolkit(settings, environ)
    if settings.apt:
        from cachepod.environment.doctor_layer import examine_layer

        yield from examine_layer(settings)


def _volume(environ: Mapping[str, str]) -> Check:
    table = mounts()
    for point in VOLUMES:
        mount = mount_at(point, table)
        if mount is not None:
            return Check(
                "machine",
                "volume",
                f"{point} ({mount.kind}, {mount.device})",
                "it is mounted but read-only: nothing can be published there"
                if mount.read_only
                else "the default place of the store",
                Severity.WARNING if mount.read_only else Severity.OK,
            )
    in_pod = "RUNPOD_POD_ID" in environ
    return Check(
        "machine",
        "volume",
        f"nothing is mounted at {' or '.join(VOLUMES)}",
        "attach a network volume; it may also appear some minutes after the start"
        if in_pod
        else "without a volume the store is where --store or CACHEPOD_STORE says",
        Severity.WARNING if in_pod else Severity.NOTE,
    )


def _interpreter(settings: Settings, environ: Mapping[str, str]) -> Check:
    try:
        found = interpreter(settings.python, environ=environ, where=settings.source("python"))
    except CachepodError as error:
        return failed("machine", "interpreter", error)
    return Check(
        "machine",
        "interpreter",
        f"{found.implementation} {found.version} ({found.executable}), {found.libc or 'libc ?'}",
        "environments are made on it, and its version is part of the key",
    )


def _uv(settings: Settings) -> Check:
    found = find_uv()
    if found is not None:
        return Check("machine", "uv", found, "installs packages")
    needed = settings.installer == "uv"
    return Check(
        "machine",
        "uv",
        "not found",
        'the configuration says installer = "uv": pip install uv'
        if needed
        else "pip installs instead, several times slower: pip install uv",
        Severity.PROBLEM if needed else Severity.WARNING,
    )
