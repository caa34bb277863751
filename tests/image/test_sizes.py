"""The table of what an image costs."""

from __future__ import annotations

import gzip
import io
import json
import os
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path

import pytest

from tests.support.cli import ROOT

SITE = "opt/cachepod/lib/python3.10/site-packages"
BASE = {"usr/bin/bash": 40_000}
SYSTEM = {"usr/bin/python3.10": 30_000, "usr/local/bin/startup-runpod.sh": 500}
ADDED = {
    "opt/cachepod/bin/uv": 50_000,
    f"{SITE}/cachepod/errors.py": 7_000,
    f"{SITE}/botocore/client.py": 9_000,
    f"{SITE}/zstandard/backend_c.so": 8_000,
    f"{SITE}/click/core.py": 6_000,
}


def layer(files: Mapping[str, int]) -> bytes:
    """A layer with files of these sizes that do not compress."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        for path, size in files.items():
            member = tarfile.TarInfo(f"./{path}")
            member.size = size
            archive.addfile(member, io.BytesIO(os.urandom(size)))
    return content.getvalue()


def oci(folder: Path, *layers: bytes) -> Path:
    """An image in OCI's layout."""

    def blob(data: bytes) -> dict[str, object]:
        digest = sha256(data).hexdigest()
        (folder / "blobs/sha256" / digest).write_bytes(data)
        return {"digest": f"sha256:{digest}", "size": len(data)}

    (folder / "blobs/sha256").mkdir(parents=True)
    manifest = {"config": blob(b"{}"), "layers": [blob(gzip.compress(each)) for each in layers]}
    (folder / "index.json").write_text(
        json.dumps({"manifests": [blob(json.dumps(manifest).encode())]})
    )
    return folder


def saved(path: Path, *layers: bytes) -> Path:
    """The same as docker saves it: layers as they are, one tar around all."""
    with tarfile.open(path, "w") as archive:

        def add(name: str, data: bytes) -> None:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))

        for number, each in enumerate(layers):
            add(f"{number}/layer.tar", each)
        names = [f"{number}/layer.tar" for number in range(len(layers))]
        add("manifest.json", json.dumps([{"Config": "c.json", "Layers": names}]).encode())
    return path


def sizes(*words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "docker/sizes.py", *words],
        capture_output=True,
        text=True,
        check=False,
    )


def table(text: str) -> dict[str, tuple[float, float, int]]:
    """Rows by their names: megabytes stored, megabytes unpacked, files."""
    found = {}
    for line in text.splitlines()[1:]:
        name, _, numbers = line.partition("  ")
        words = numbers.replace("MB", "").split()
        found[name] = (float(words[0]), float(words[1]), int(words[2]))
    return found


@pytest.mark.parametrize("kind", ["oci", "saved"])
def test_every_file_is_counted_in_one_part(kind: str, tmp_path: Path) -> None:
    layers = [
        layer({path: size * 100 for path, size in files.items()}) for files in (BASE, SYSTEM, ADDED)
    ]
    make = oci if kind == "oci" else saved
    done = sizes(make(tmp_path / "image", *layers))
    assert done.returncode == 0, done.stderr
    rows = table(done.stdout)
    assert {name: row[1:] for name, row in rows.items()} == {
        "base image": (4.0, 1),
        "Python, curl, tini, certificates": (3.0, 1),
        "uv": (5.0, 1),
        "cachepod": (0.7, 1),
        "boto3 and what it needs": (0.9, 1),
        "zstandard, blake3, xxhash": (0.8, 1),
        "other dependencies": (0.6, 1),
        "start-up scripts": (0.1, 1),
        "together": (15.1, 8),
    }
    for stored, unpacked, _ in rows.values():  # what is random does not compress
        assert stored == pytest.approx(unpacked, abs=0.11)


def test_what_a_registry_stores_is_the_compressed_layers(tmp_path: Path) -> None:
    text = io.BytesIO()
    with tarfile.open(fileobj=text, mode="w") as archive:
        member = tarfile.TarInfo("usr/share/doc")
        member.size = 20_000_000
        archive.addfile(member, io.BytesIO(bytes(20_000_000)))
    image = oci(tmp_path / "image", layer({"bin": 1_000_000}), text.getvalue())
    blobs = sum(path.stat().st_size for path in (image / "blobs/sha256").iterdir())
    rows = table(sizes(image).stdout)
    assert rows["together"][0] == pytest.approx(blobs / 1e6, abs=0.06)
    assert rows["together"][1] == 21.0


def test_an_image_beyond_the_limit_is_a_failure_that_says_so(tmp_path: Path) -> None:
    image = oci(tmp_path / "image", layer({"bin": 3_000_000}))
    assert sizes("--limit", "4", image).returncode == 0
    done = sizes("--limit", "2", image)
    assert done.returncode == 1
    assert done.stderr == "the image takes 3.0 MB in a registry, more than 2 MB\n"


def test_layers_of_the_base_are_counted_as_the_base(tmp_path: Path) -> None:
    image = oci(tmp_path / "image", *(layer({f"usr/{n}": 1_000_000}) for n in range(3)))
    rows = table(sizes("--base-layers", "2", image).stdout)
    assert rows["base image"][1:] == (2.0, 2)
    assert rows["Python, curl, tini, certificates"][1:] == (1.0, 1)
