"""What ``cachepod doctor`` says of apt packages: whether they are there, or could be had."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

from cachepod.environment import layer
from cachepod.environment.config import Settings
from cachepod.environment.diagnosis import Check, Severity
from cachepod.errors import AptLocked
from cachepod.system import layer as system
from cachepod.system.base import base_of
from cachepod.system.locks import dpkg_locked
from cachepod.system.record import read_record

_ABOUT = "apt packages"
_HELPER = "usr/lib/apt/apt-helper"
_PATIENCE = 10  # seconds for one mirror
_MIRRORS = 3  # that are asked
_URI = re.compile(r"^'(https?://[^']+)'", re.MULTILINE)


def examine_layer(settings: Settings) -> Iterator[Check]:
    """The packages, the image below them, and what an installation needs."""
    root = layer.ROOT
    base = base_of(root)
    lacking = system.missing(settings.apt, root)
    needed = bool(lacking)
    bad = Severity.WARNING if settings.apt_missing == "warning" else Severity.PROBLEM
    yield _packages(settings, lacking)
    if base is None:
        yield Check(
            _ABOUT,
            "dpkg",
            "this image has none",
            "take an image of Debian or Ubuntu",
            bad if needed else Severity.NOTE,
        )
        return
    yield Check(
        _ABOUT,
        "base image",
        f"{base.distribution}, {base.packages} packages, {base.digest}",
        "a layer of packages is restored where this is the same",
    )
    if not needed:
        return
    if not layer.is_root():
        yield Check(
            _ABOUT,
            "root",
            f"no: user {os.geteuid()}",
            "packages can be neither installed nor restored: run the container as root, or put "
            "them into the image",
            bad,
        )
        return
    yield Check(_ABOUT, "root", "yes", "packages can be installed and restored")
    yield _lock(root)
    if shutil.which("apt-get") is None:
        yield Check(
            _ABOUT, "apt-get", "not found", "packages can be restored, but not installed", bad
        )
        return
    yield from _mirrors()


def _packages(settings: Settings, lacking: list[str]) -> Check:
    asked = len(settings.apt)
    if lacking:
        named = ", ".join(lacking[:_MIRRORS]) + (", ..." if len(lacking) > _MIRRORS else "")
        return Check(
            _ABOUT,
            "packages",
            f"{len(lacking)} of {asked} missing: {named}",
            "a restore or an install brings them",
            Severity.NOTE,
        )
    record = read_record(layer.ROOT)
    if record is None:
        return Check(
            _ABOUT, "packages", f"all {asked} are in the image", "they are no input of the key"
        )
    if record.why:
        return Check(
            _ABOUT,
            "packages",
            f"all {asked} are there",
            f"they are not published from here: {record.why}",
            Severity.NOTE,
        )
    return Check(
        _ABOUT,
        "packages",
        f"all {asked} are there",
        "as they were installed or restored"
        if system.applied(layer.ROOT)
        else "some were changed since they were installed or restored",
    )


def _lock(root: Path) -> Check:
    try:
        with dpkg_locked(root, seconds=0):
            pass
    except AptLocked as error:
        held = f"held by {error.holder}" if error.holder else "held"
        return Check(_ABOUT, "dpkg's lock", held, "an install waits for it", Severity.WARNING)
    except OSError as error:
        return Check(
            _ABOUT,
            "dpkg's lock",
            f"cannot be had: {error.strerror}",
            "packages can be neither installed nor restored",
            Severity.PROBLEM,
        )
    return Check(_ABOUT, "dpkg's lock", "free", "no other package manager is at work")


def _mirrors() -> Iterator[Check]:
    """Each host that apt takes its lists from, asked as apt would ask it."""
    try:
        said = subprocess.run(
            ["apt-get", "--print-uris", "update"],
            capture_output=True,
            text=True,
            errors="replace",
            stdin=subprocess.DEVNULL,
            timeout=_PATIENCE,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield Check(
            _ABOUT,
            "apt-get",
            f"does not work: {error}",
            "packages can be restored, but not installed",
            Severity.WARNING,
        )
        return
    hosts: dict[str, str] = {}
    for uri in _URI.findall(said.stdout):
        hosts.setdefault(urlsplit(uri).hostname or "", uri)
    if not hosts:
        yield Check(
            _ABOUT,
            "mirror",
            "apt has no sources",
            "packages can be restored, but not installed: see /etc/apt/sources.list",
            Severity.WARNING,
        )
    for host, uri in list(hosts.items())[:_MIRRORS]:
        why = _unreachable(uri)
        yield Check(
            _ABOUT,
            "mirror",
            f"{host}: {why}" if why else f"{host} answers",
            "packages can be restored, but not installed" if why else "packages can be installed",
            Severity.WARNING if why else Severity.OK,
        )


def _unreachable(uri: str) -> str:
    """Why apt's own helper, with apt's proxies, does not get *uri*; empty if it does."""
    with tempfile.TemporaryDirectory(prefix="cachepod-doctor-") as folder:
        try:
            done = subprocess.run(
                [
                    f"/{_HELPER}",
                    *("-o", f"Acquire::http::Timeout={_PATIENCE}"),
                    *("-o", f"Acquire::https::Timeout={_PATIENCE}"),
                    *("-o", "Acquire::Retries=0"),
                    *("download-file", uri, f"{folder}/list"),
                ],
                capture_output=True,
                text=True,
                errors="replace",
                stdin=subprocess.DEVNULL,
                timeout=2 * _PATIENCE,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "no answer"
        except OSError:
            return ""  # an apt without its helper is no reason to mistrust the mirror
    if done.returncode == 0:
        return ""
    errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return errors[0].removeprefix("E: ").replace(f"Failed to fetch {uri}", "").strip()
