"""dpkg databases that no dpkg has written."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def lay(root: Path, files: Mapping[str, str]) -> None:
    """Write *files*, paths below *root* to what they hold."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def stanza(
    name: str,
    version: str,
    *,
    architecture: str = "amd64",
    status: str = "install ok installed",
    provides: str = "",
    conffiles: Mapping[str, str] | None = None,
) -> str:
    """What the database says of one package; *conffiles* is path to MD5."""
    lines = [
        f"Package: {name}",
        f"Status: {status}",
        "Maintainer: Somebody <somebody@example.org>",
        f"Architecture: {architecture}",
        f"Version: {version}",
    ]
    if provides:
        lines.append(f"Provides: {provides}")
    if conffiles:
        lines.append("Conffiles:")
        lines += (f" {path} {digest}" for path, digest in conffiles.items())
    lines += ["Description: says", " Version: of nothing", ""]
    return "\n".join(lines) + "\n"


def database(packages: Mapping[str, str]) -> str:
    """A database of *packages*, ``NAME:ARCHITECTURE`` to version."""
    said = []
    for package, version in packages.items():
        name, _, architecture = package.partition(":")
        said.append(stanza(name, version, architecture=architecture))
    return "".join(said)
