"""Small CUDA trees, shaped like real ones: links in them and to them, a compiler that answers."""

from __future__ import annotations

import os
from pathlib import Path

NVCC = """\
#!/bin/sh
echo 'nvcc: NVIDIA (R) Cuda compiler driver'
echo 'Cuda compilation tools, release 13.0, V13.0.88'
"""


def make_tree(place: Path, *, version: str = "1") -> Path:
    """
    A CUDA tree at *place*, with links to it beside it.

    Args:
        version: Told by a file in it, to tell trees apart.
    """
    for name in ("bin", "include", "lib", "nvvm/bin", "targets/x86_64-linux"):
        (place / name).mkdir(parents=True)
    nvcc = place / "bin/nvcc"
    nvcc.write_text(NVCC)
    nvcc.chmod(0o755)
    (place / "include/cuda.h").write_text("#define CUDA_VERSION 13000\n")
    (place / "include/version-of-this-tree.h").write_text(version)
    (place / "lib/libcudart.so.13").write_bytes(os.urandom(200_000))
    (place / "lib/libcudart.so").symlink_to("libcudart.so.13")
    (place / "lib64").symlink_to("lib")
    for name in ("include", "lib"):
        (place / "targets/x86_64-linux" / name).symlink_to(f"../../{name}")
    (place / "nvvm/outside").symlink_to("/nowhere/of/this/tree")
    (place.parent / "cuda").symlink_to(place)
    (place.parent / "cuda-13").symlink_to(place.name)
    return place


def listing(place: Path) -> dict[str, tuple[str, int, bytes]]:
    """Every path in a tree, but cachepod's own: what it is, its mode and time, what it holds."""
    found = {}
    for path in sorted(place.rglob("*")):
        name = str(path.relative_to(place))
        if name.startswith(".cachepod"):
            continue
        info = path.lstat()
        if path.is_symlink():
            found[name] = ("link", 0, os.fsencode(os.readlink(path)))
        elif path.is_dir():
            found[name] = (f"directory {info.st_mode:o}", info.st_mtime_ns, b"")
        else:
            found[name] = (f"file {info.st_mode:o}", info.st_mtime_ns, path.read_bytes())
    return found
