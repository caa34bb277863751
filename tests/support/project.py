"""A worker's directory with configuration, wheels and store; its hook needs no network."""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import subprocess
import zipfile
from collections.abc import Mapping
from pathlib import Path

from tests.support import cli


def make_wheel(
    folder: Path, name: str, version: str, files: Mapping[str, bytes] | None = None
) -> Path:
    """A wheel with the package *name*, and *files* by their paths in it."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    contents: dict[str, bytes] = {
        f"{name}/__init__.py": f"__version__ = {version!r}\n".encode(),
        **(files or {}),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n".encode(),
        f"{info}/WHEEL": (
            b"Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        ),
    }
    record = "".join(
        f"{path},sha256={_digest(data)},{len(data)}\n" for path, data in contents.items()
    )
    contents[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    wheel = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for path, data in contents.items():
            archive.writestr(path, data)
    return wheel


def make_slow_package(folder: Path, *lines: str) -> Path:
    """A package from source in the new *folder*, whose build backend are these *lines*."""
    folder.mkdir()
    (folder / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "slow"\nbackend-path = ["."]\n'
        '[project]\nname = "slow"\nversion = "1"\n'
    )
    (folder / "slow.py").write_text("".join(f"{line}\n" for line in lines))
    return folder


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()


class Project:
    """
    A worker's directory.

    Its configuration asks for the package ``alpha`` out of a folder of wheels, to be installed in
    ``.venv``; its store is ``store``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.prefix = root / ".venv"
        self.store = root / "store"
        self.wheels = root / "wheels"
        self.env: dict[str, str] = {}
        make_wheel(self.wheels, "alpha", "1.0", {"alpha/data.bin": os.urandom(300_000)})
        make_wheel(self.wheels, "alpha", "2.0", {"alpha/data.bin": os.urandom(300_000)})
        make_wheel(self.wheels, "beta", "1.0")
        self.configure()

    def configure(self, packages: str = '["alpha==1.0"]', more: str = "") -> None:
        """Write the configuration; *more* is TOML to add."""
        (self.root / "cachepod.toml").write_text(
            f'store = ["store"]\npackages = {packages}\nfind_links = ["wheels"]\n'
            f'check = ["alpha"]\n{more}\n'
        )

    def run(
        self,
        *words: str | os.PathLike[str],
        env: Mapping[str, str] | None = None,
        timeout: float = 120,
    ) -> cli.Result:
        """Run a cachepod command here."""
        return cli.cachepod(*words, cwd=self.root, env={**self.env, **(env or {})}, timeout=timeout)

    def start(
        self, *words: str | os.PathLike[str], env: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start one."""
        return cli.start(*words, cwd=self.root, env={**self.env, **(env or {})})

    def ready(self, *words: str) -> str:
        """Install and publish; the key."""
        for command in ("install", "publish"):
            done = self.run(command, *words)
            assert done.code == 0, done.err
        key: str = self.run("key", "-q", *words).out.strip()
        return key

    def wipe(self) -> None:
        """Remove the environment, as a new container has none."""
        shutil.rmtree(self.prefix)

    def version_of(self, package: str) -> str:
        """The version of *package* that the environment imports."""
        done = subprocess.run(
            [self.prefix / "bin/python", "-c", f"import {package}; print({package}.__version__)"],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    def packs(self) -> list[Path]:
        """The packs of the store."""
        return sorted(self.store.glob("packs/*/*"))

    def manifests(self) -> list[Path]:
        """Its manifests."""
        return sorted(self.store.glob("manifests/*/*"))

    def trash(self) -> list[Path]:
        """What was set aside."""
        return sorted(self.store.glob("trash/*"))
