"""A repository of small packages in a directory, as apt reads it from ``file:``."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path


def deb(
    repository: Path,
    name: str,
    *,
    version: str = "1.0",
    files: Mapping[str, str] | None = None,
    scripts: Mapping[str, str] | None = None,
    **fields: str,
) -> Path:
    """
    Build a package into *repository*.

    Args:
        files: Paths to what they hold.

        scripts: Names of maintainer scripts to their text.

        fields: More of its control file; an underscore stands for a hyphen.
    """
    work = repository / f".{name}"
    for path, text in (files or {f"usr/share/{name}/file": f"{name}\n"}).items():
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).write_text(text)
        (work / path).chmod(0o755 if path.startswith("usr/bin/") else 0o644)
    control = work / "DEBIAN"
    control.mkdir(parents=True, exist_ok=True)
    said = {
        "Package": name,
        "Version": version,
        "Architecture": "all",
        "Maintainer": "Somebody <somebody@example.org>",
        "Description": "for tests",
        **{field.replace("_", "-"): value for field, value in fields.items()},
    }
    (control / "control").write_text("".join(f"{key}: {value}\n" for key, value in said.items()))
    for script, text in (scripts or {}).items():
        (control / script).write_text(f"#!/bin/sh\nset -e\n{text}\n")
        (control / script).chmod(0o755)
    made = repository / f"{name}_{version}_all.deb"
    subprocess.run(
        ["dpkg-deb", "--root-owner-group", "-Zgzip", "--build", str(work), str(made)],
        check=True,
        capture_output=True,
    )
    shutil.rmtree(work)
    return made


def index(repository: Path) -> None:
    """Write the list of the packages in *repository*."""
    stanzas = []
    for made in sorted(repository.glob("*.deb")):
        said = subprocess.run(
            ["dpkg-deb", "--field", str(made)], check=True, capture_output=True, text=True
        ).stdout
        data = made.read_bytes()
        stanzas.append(
            f"{said}Filename: ./{made.name}\nSize: {len(data)}\n"
            f"SHA256: {hashlib.sha256(data).hexdigest()}\n"
        )
    (repository / "Packages").write_text("\n".join(stanzas))
