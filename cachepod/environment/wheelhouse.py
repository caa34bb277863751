"""
Wheels that lie in no package index: one file by its exact name from a URL, a directory or S3.

What came is looked at before anything is installed from it: a proxy's page, half a download or
another package under this name are no wheel.
"""

from __future__ import annotations

import contextlib
import email
import hashlib
import os
import queue
import threading
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from cachepod.environment import download as waiting
from cachepod.environment.distributions import normal_name
from cachepod.environment.download import Unavailable, below, download, patiently
from cachepod.errors import (
    SPACE_ERRORS,
    CachepodError,
    ObjectMissing,
    SpaceExhausted,
    StoreUnreachable,
    UsageProblem,
)
from cachepod.stores.url import directory_of, is_s3

_PIECE = 4 * 1024 * 1024
_METADATA_LIMIT = 4 * 1024 * 1024

Sized = Callable[[int], None]
Counted = Callable[[int], None]


@dataclass(frozen=True)
class Wheel:
    """
    A wheel that was fetched and looked at.

    Args:
        path: Where it lies.

        version: As its metadata says it.

        sha256: Of the whole file, hexadecimal.

        unpacked: Bytes of the files in it.

        files: Their names.
    """

    path: Path
    version: str
    sha256: str
    unpacked: int
    files: tuple[str, ...] = ()


def fetch(place: str, name: str, target: Path, *, sized: Sized, counted: Counted) -> None:
    """
    Bring the file *name* from *place* to *target*.

    Args:
        place: A directory, ``file:///directory``, ``http(s)://...`` or ``s3://bucket/prefix``.

        name: Of the file, as it is.

        target: Written anew; removed again if this fails.

        sized: Called with the bytes that will come, before the first of them.

        counted: Called with those that came since the last call.

    Raises:
        Unavailable: It is not there, or the place does not hand it out.

        SpaceExhausted: The disk is full.
    """
    try:
        with open(target, "wb") as into:
            if is_s3(place):
                _from_s3(place, name, into, sized, counted)
            elif place.partition("://")[0].lower() in ("http", "https"):
                download(below(place, name), into, sized=sized, counted=counted)
            else:
                _from_directory(place, name, into, sized, counted)
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno in SPACE_ERRORS:
            raise SpaceExhausted(str(target.parent), error.strerror or str(error)) from error
        raise


def _from_directory(place: str, name: str, into: IO[bytes], sized: Sized, counted: Counted) -> None:
    """Read in a thread of its own: a volume that hangs must not keep a worker from starting."""
    try:
        path = directory_of(place) / name
    except UsageProblem as problem:
        raise Unavailable(problem.message) from None
    pieces: queue.Queue[int | bytes | OSError] = queue.Queue(2)
    wanted = True

    def give(what: int | bytes | OSError) -> None:
        while wanted:
            with contextlib.suppress(queue.Full):
                pieces.put(what, timeout=1.0)
                return

    def read() -> None:
        try:
            with open(path, "rb") as source:
                give(os.fstat(source.fileno()).st_size)
                while wanted and (piece := source.read(_PIECE)):
                    give(piece)
                give(b"")
        except OSError as error:
            give(error)

    threading.Thread(target=read, name="wheel", daemon=True).start()
    try:
        while what := pieces.get(timeout=waiting.TIMEOUT):
            if isinstance(what, FileNotFoundError):
                raise Unavailable("it is not there")
            if isinstance(what, OSError):
                raise Unavailable(what.strerror or str(what))
            if isinstance(what, int):
                sized(what)
            else:
                into.write(what)
                counted(len(what))
    except queue.Empty:
        raise Unavailable("it does not answer in time", silent=True) from None
    finally:
        wanted = False


def _from_s3(place: str, name: str, into: IO[bytes], sized: Sized, counted: Counted) -> None:
    from cachepod.stores.s3client import Service
    from cachepod.stores.s3read import read_range
    from cachepod.stores.s3url import S3Location

    try:
        location = S3Location.parse(place)
    except UsageProblem as problem:
        raise Unavailable(problem.message) from None
    service, key = Service(location), location.prefix + name
    size = 0

    def ask() -> None:
        nonlocal size
        size = int(service.call("head_object", name, Key=key)["ContentLength"])

    _asked(ask, location.retries + 1)
    sized(size)
    buffer = bytearray(min(_PIECE, size))
    for offset in range(0, size, _PIECE):
        view = memoryview(buffer)[: min(_PIECE, size - offset)]
        _asked(lambda: read_range(service, key, name, offset, view), location.retries + 1)  # noqa: B023
        into.write(view)
        counted(len(view))


def _asked(act: Callable[[], None], attempts: int) -> None:
    """A request to a S3 service, again if it failed for a reason that may pass."""

    def once() -> None:
        try:
            act()
        except ObjectMissing:
            raise Unavailable("it is not there") from None
        except StoreUnreachable as problem:
            passing = problem.transient
            raise Unavailable(problem.why, passing=passing, silent=passing) from None
        except CachepodError as problem:
            raise Unavailable(problem.message) from None

    patiently(once, attempts)


def examine(path: Path, name: str, version: str) -> Wheel:
    """
    Whether *path* is a wheel of *name* in *version*, by what is in it.

    The version in it may have a local part or none: builds for several releases of CUDA often
    differ in the name of the file alone.

    Raises:
        Unavailable: It is not; the sentence says what it is.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            files = {entry.filename: entry for entry in entries}
            infos = {
                each.partition("/")[0] for each in files if each.endswith(".dist-info/METADATA")
            }
            if len(infos) != 1:
                raise Unavailable("it is no wheel: it has no metadata")
            (info,) = infos
            for part in ("RECORD", "WHEEL"):
                if f"{info}/{part}" not in files:
                    raise Unavailable(f"it is no wheel: it has no {part}")
            if files[f"{info}/METADATA"].file_size > _METADATA_LIMIT:
                raise Unavailable("it is no wheel: its metadata have no end")
            metadata = email.message_from_bytes(archive.read(f"{info}/METADATA"))
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise Unavailable(f"it is no wheel: {error}") from None
    except OSError as error:
        raise Unavailable(f"it is no wheel: {error.strerror or error}") from None
    found = normal_name(str(metadata.get("Name", ""))), str(metadata.get("Version", "")).strip()
    if found[0] != name or found[1].partition("+")[0] != version:
        raise Unavailable(f"it is a wheel of {found[0]} {found[1]}")
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    unpacked = sum(entry.file_size for entry in entries)
    return Wheel(path, found[1], digest.hexdigest(), unpacked, tuple(files))
