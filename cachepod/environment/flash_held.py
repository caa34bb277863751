"""What is installed of flash-attn: which wheel it was, and removing it again."""

from __future__ import annotations

import base64
import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from cachepod.environment.distributions import distributions
from cachepod.environment.flash_plan import MODULE, NAME
from cachepod.errors import InstallFailed

# In its metadata: the name of the wheel, for the version alone does not tell which build it is.
_RECORD = "cachepod.json"
_UV_NOTE = "uv_cache.json"


def metadata(site: Path) -> Path | None:
    """Its ``.dist-info`` directory in *site*; None if it is not there."""
    return next(iter(sorted(site.glob(f"{MODULE}-*.dist-info"))), None)


def noted(site: Path) -> Mapping[str, object]:
    """What :func:`note` wrote down; nothing if it is not there, or somebody else installed it."""
    info = metadata(site)
    try:
        found = json.loads((info / _RECORD).read_bytes()) if info else {}
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def note(site: Path, wheel: str, sha256: str) -> None:
    """
    Write down which wheel was installed, and in its RECORD that this file is a part of it.

    uv's own note goes: it says when the file was made that was installed from, so that no two
    installations would be alike.

    Raises:
        InstallFailed: There is none.
    """
    info = metadata(site)
    if info is None:
        raise InstallFailed(f"{NAME} was installed and is not there")
    data = (json.dumps({"wheel": wheel, "sha256": sha256}) + "\n").encode()
    (info / _RECORD).write_bytes(data)
    digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
    row = io.StringIO()
    csv.writer(row, lineterminator="\n").writerow(
        [f"{info.name}/{_RECORD}", f"sha256={digest}", len(data)]
    )
    record = info / "RECORD"
    lines = [
        line
        for line in record.read_text("utf-8").splitlines()
        if not line.startswith(f"{info.name}/{_UV_NOTE},")
    ]
    (info / _UV_NOTE).unlink(missing_ok=True)
    # replaced, not appended to: the file may be a link to one in an installer's cache
    written = info / "RECORD.new"
    written.write_text("\n".join([*lines, row.getvalue()]), "utf-8")
    os.replace(written, record)


def remove(prefix: Path, site: Path, files: Iterable[str] = ()) -> None:
    """
    Remove it from *site* in the environment *prefix*, its bytecode and empty directories too.

    Args:
        files: Of a wheel whose installation broke off, relative to *site*: they are in no RECORD.
    """
    left = [os.path.normpath(os.path.join(site, name)) for name in files]
    for each in [each for each in distributions(site) if each.name == NAME]:
        left += each.files or ()
        shutil.rmtree(each.info, ignore_errors=True)
    folders = set()
    for path in map(Path, left):
        if prefix not in path.parents:
            continue
        with contextlib.suppress(IsADirectoryError):
            path.unlink(missing_ok=True)
        folders.add(path.parent)
        if path.suffix == ".py":
            folders.add(path.parent / "__pycache__")
            for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
                compiled.unlink(missing_ok=True)
    for folder in sorted(folders, key=lambda path: len(path.parts), reverse=True):
        with contextlib.suppress(OSError):
            while site in folder.parents:
                folder.rmdir()  # fails for all that are not empty
                folder = folder.parent
