"""Small snapshots for tests, made by a real publish."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from cachepod.model.fingerprint import Fingerprint
from cachepod.model.manifest import Manifest
from cachepod.model.names import manifest_name
from cachepod.snapshot.publish import TreeSource, publish
from cachepod.stores.base import WriteStore

FAMILY = "cp310-linux_x86_64-cu126-torch2.7.0"
INPUTS = {
    "abi": "cpython-310-x86_64-linux-gnu",
    "libc": "glibc 2.36",
    "machine": "linux_x86_64",
    "prefix": "/app/.venv",
    "python": "cpython 3.10.13",
    "requirement:torch": "torch==2.7.0",
}


def fingerprint(family: str = FAMILY, **changes: str | None) -> Fingerprint:
    """INPUTS with *changes*: ``requirement__numpy="numpy==2"`` adds, None takes away."""
    inputs: dict[str, str] = dict(INPUTS)
    for name, value in changes.items():
        name = name.replace("__", ":")
        if value is None:
            inputs.pop(name, None)
        else:
            inputs[name] = value
    return Fingerprint(family, inputs)


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    """Write *files* below *root*; the content of a name that ends in ``@`` is a link's target."""
    for name, data in files.items():
        path = root / name.removesuffix("@")
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("@"):
            path.symlink_to(data.decode())
        else:
            path.write_bytes(data)
    root.mkdir(parents=True, exist_ok=True)
    return root


def publish_files(
    store: WriteStore,
    print_: Fingerprint,
    files: Mapping[str, bytes],
    *,
    key: str = "",
    tree: str = "env",
    force: bool = False,
) -> str:
    """Publish a tree of *files* and return its key."""
    key = key or print_.key
    with tempfile.TemporaryDirectory() as folder:
        root = write_tree(Path(folder, "tree"), files)
        report = publish(store, key, print_, [TreeSource(tree, root)], threads=2, force=force)
    assert report.outcome == "stored"
    return key


def manifest_of(store: WriteStore, key: str) -> Manifest:
    """The manifest of *key*, read and checked."""
    name = manifest_name(key)
    return Manifest.decode(store.read(name, limit=1 << 30), name=name)
