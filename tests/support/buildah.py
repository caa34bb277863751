"""
Images built and run without a daemon: buildah, with storage of its own and chroot for isolation.

Whatever buildah needs to know is written into one folder, so that nothing of the machine's own
configuration is used and nothing is left on it.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import Result
from tests.support.mounts import need_root
from tests.support.shared import discard


class Buildah:
    """
    One storage of images and containers.

    Args:
        root: Holds all of it.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.environ = {
            **os.environ,
            "CONTAINERS_STORAGE_CONF": str(root / "storage.conf"),
            "CONTAINERS_REGISTRIES_CONF": str(root / "registries.conf"),
            "BUILDAH_ISOLATION": "chroot",
            "TMPDIR": str(root),
        }

    def set_up(self) -> None:
        """
        Write the configuration: with overlay for a driver where it works, else with vfs.
        """
        (self.root / "registries.conf").write_text("unqualified-search-registries = []\n")
        for driver in ("overlay", "vfs"):
            (self.root / "storage.conf").write_text(
                f'[storage]\ndriver = "{driver}"\n'
                f'graphroot = "{self.root}/graph"\nrunroot = "{self.root}/run"\n'
            )
            tried = self.try_("info")
            if tried.code == 0:
                return
            for name in ("graph", "run"):
                discard(self.root / name)
        pytest.skip(f"buildah does not work here: {tried.err.strip()}")

    def try_(self, *words: str | Path, timeout: float = 280) -> Result:
        """Run a command of buildah's."""
        done = subprocess.run(
            ["buildah", *words],
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def __call__(self, *words: str | Path) -> str:
        """Run a command that must work; what it wrote."""
        done = self.try_(*words)
        assert done.code == 0, done.err
        return done.out.strip()

    def import_root(self, root: Path, name: str, without: Sequence[str] = ()) -> None:
        """Make an image of one layer of the directory *root*, some paths in it left out."""
        layout, archive = self.root / "imported", self.root / "root.tar"
        excluded = [f"--exclude=./{path}" for path in without]
        subprocess.run(
            ["tar", "-C", root, "--numeric-owner", *excluded, "-cf", archive, "."], check=True
        )
        _layout(archive, layout)
        self("tag", self("pull", "--quiet", f"oci:{layout}"), name)
        shutil.rmtree(layout)

    def describe(self, image: str) -> dict[str, Any]:
        """What docker would be told of *image*."""
        found: dict[str, Any] = json.loads(self("inspect", "--type", "image", image))["Docker"]
        return found

    @contextmanager
    def container(self, image: str) -> Iterator[Container]:
        """A new container of *image*; gone at the end."""
        name = self("from", image)
        try:
            yield Container(self, name, self.describe(image)["config"])
        finally:
            self("rm", name)


class Container:
    """A container whose files stay until it is removed, and programs that are run in it."""

    def __init__(self, buildah: Buildah, name: str, config: Mapping[str, Any]) -> None:
        self._buildah = buildah
        self._name = name
        self.config = config

    def run(
        self,
        *words: str,
        volumes: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run a program as the image's user, in its directory and environment."""
        options: list[str] = []
        for source, target in (volumes or {}).items():
            options += ["--volume", f"{source}:{target}"]
        for name, value in (env or {}).items():
            options += ["--env", f"{name}={value}"]
        return self._buildah.try_("run", *options, self._name, "--", *words)

    def start(
        self,
        *words: str,
        volumes: Mapping[Path, str] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Result:
        """Run the entry point with *words* for its arguments, as a container's start does."""
        return self.run(*self.config["Entrypoint"], *words, volumes=volumes, env=env)

    def put(self, source: Path, target: str) -> None:
        """Copy a file or a directory's content into it."""
        self._buildah("copy", "--quiet", self._name, source, target)


def _layout(archive: Path, layout: Path) -> None:
    """Write *archive* as the one layer of an image in OCI's layout; it is moved there."""
    blobs = layout / "blobs/sha256"
    blobs.mkdir(parents=True)
    kind = "application/vnd.oci.image"

    def blob(media: str, document: object) -> dict[str, object]:
        data = json.dumps(document).encode()
        digest = hashlib.sha256(data).hexdigest()
        (blobs / digest).write_bytes(data)
        return {"mediaType": media, "digest": f"sha256:{digest}", "size": len(data)}

    hasher = hashlib.sha256()
    with archive.open("rb") as content:
        while data := content.read(1 << 20):
            hasher.update(data)
    diff = f"sha256:{hasher.hexdigest()}"
    layer = {"mediaType": f"{kind}.layer.v1.tar", "digest": diff, "size": archive.stat().st_size}
    archive.rename(blobs / hasher.hexdigest())
    machine = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
    config = {
        "architecture": machine,
        "os": "linux",
        "config": {"Cmd": ["/bin/sh"]},
        "rootfs": {"type": "layers", "diff_ids": [diff]},
        "history": [{"created_by": "mmdebstrap"}],  # one for each layer, or buildah is confused
    }
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "layers": [layer],
        "config": blob(f"{kind}.config.v1+json", config),
    }
    index = {"schemaVersion": 2, "manifests": [blob(f"{kind}.manifest.v1+json", manifest)]}
    (layout / "index.json").write_text(json.dumps(index))
    (layout / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def need_tools(names: Sequence[str] = ("buildah",)) -> None:
    """Skip the test where it cannot work."""
    need_root("building an image by chroot")
    for name in names:
        if shutil.which(name) is None:
            pytest.skip(f"there is no {name} on this machine")
