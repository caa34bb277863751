"""Wheels written by hand, an index of them in a directory, and what installing them needs."""

from __future__ import annotations

import hashlib
import os
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cachepod.environment.config import Settings, load_settings
from cachepod.environment.identity import Identity, identify


class Index:
    """A package index (PEP 503) that is a directory, read by uv and pip through ``file://``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        return self.root.as_uri()

    def add(
        self,
        name: str,
        version: str = "1.0",
        files: Mapping[str, str | bytes] | None = None,
        *,
        requires: Sequence[str] = (),
        scripts: Mapping[str, str] | None = None,
        tag: str = "py3-none-any",
    ) -> Path:
        """Put a wheel of *name* into the index; by default its module knows its version."""
        content: dict[str, str | bytes] = dict(
            files if files is not None else {f"{name}/__init__.py": f"VERSION = {version!r}\n"}
        )
        info = f"{name}-{version}.dist-info"
        content[f"{info}/METADATA"] = (
            f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
            + "".join(f"Requires-Dist: {each}\n" for each in requires)
        )
        content[f"{info}/WHEEL"] = (
            f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
        )
        if scripts:
            content[f"{info}/entry_points.txt"] = "[console_scripts]\n" + "".join(
                f"{script} = {target}\n" for script, target in scripts.items()
            )
        folder = self.root / name
        folder.mkdir(exist_ok=True)
        wheel = folder / f"{name}-{version}-{tag}.whl"
        record = []
        with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, text in content.items():
                data = text.encode() if isinstance(text, str) else text
                digest = urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
                record.append(f"{path},sha256={digest},{len(data)}\n")
                archive.writestr(zipfile.ZipInfo(path), data, zipfile.ZIP_DEFLATED)
            record.append(f"{info}/RECORD,,\n")
            archive.writestr(zipfile.ZipInfo(f"{info}/RECORD"), "".join(record))
        self._list(folder)
        return wheel

    def add_source(self, name: str, version: str, setup: str) -> None:
        """Put a source release into the index whose build runs *setup*."""
        import io
        import tarfile

        folder = self.root / name
        folder.mkdir(exist_ok=True)
        base = f"{name}-{version}"
        with tarfile.open(folder / f"{base}.tar.gz", "w:gz") as archive:
            for path, text in (
                ("PKG-INFO", f"Metadata-Version: 2.2\nName: {name}\nVersion: {version}\n"),
                (
                    "pyproject.toml",
                    f'[project]\nname = "{name}"\nversion = "{version}"\n'
                    '[build-system]\nrequires = []\nbuild-backend = "backend"\n'
                    'backend-path = ["."]\n',
                ),
                ("backend.py", setup),
            ):
                member = tarfile.TarInfo(f"{base}/{path}")
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
        self._list(folder)

    @staticmethod
    def digest(wheel: Path) -> str:
        """As a requirements file has it, behind ``--hash=``."""
        return "sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest()

    @staticmethod
    def _list(folder: Path) -> None:
        names = sorted(each.name for each in folder.iterdir() if each.name != "index.html")
        (folder / "index.html").write_text(
            "".join(f'<a href="{name}">{name}</a>\n' for name in names)
        )


def configured(
    folder: Path, index: Index | None, packages: Sequence[str] = (), **keys: Any
) -> tuple[Settings, Identity]:
    """A configuration in *folder* with the prefix ``folder/env``, and its identity."""
    flags: dict[str, Any] = {"prefix": folder / "env", "packages": list(packages), "min_free": 0.0}
    if index is not None:
        flags["index_url"] = index.url
    flags.update(keys)
    settings = load_settings(flags, {}, folder)
    return settings, identify(settings)


def plain_environ(home: Path) -> dict[str, str]:
    """An environment in which no installer finds settings of the developer's own."""
    return {
        "PATH": os.environ.get("PATH", os.defpath),
        "HOME": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"),
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
    }


def listing(root: Path) -> dict[str, tuple[object, ...]]:
    """Everything under *root* but the state directory: kind, mode, mtime and content."""
    found: dict[str, tuple[object, ...]] = {}
    for path, status in _walk(root):
        relative = os.path.relpath(path, root)
        if os.path.islink(path):
            content: object = os.readlink(path)
        elif os.path.isdir(path):
            content = None
        else:
            content = hashlib.sha256(Path(path).read_bytes()).hexdigest()
        found[relative] = (oct(status.st_mode), status.st_mtime_ns, content)
    return found


def change_times(root: Path) -> dict[str, int]:
    """When each file under *root* was last touched in any way."""
    return {
        os.path.relpath(path, root): status.st_ctime_ns
        for path, status in _walk(root)
        if not os.path.isdir(path)
    }


def _walk(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    for directory, folders, names in os.walk(root):
        if Path(directory) == root and ".cachepod" in folders:
            folders.remove(".cachepod")
        yield directory, os.lstat(directory)
        links = [each for each in folders if os.path.islink(os.path.join(directory, each))]
        for name in (*names, *links):
            path = os.path.join(directory, name)
            yield path, os.lstat(path)


@contextmanager
def bytecode_allowed() -> Iterator[None]:
    """Without what a developer's shell may say of bytecode."""
    names = ("PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "SOURCE_DATE_EPOCH")
    kept = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)
