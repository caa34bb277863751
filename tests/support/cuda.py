"""Small CUDA trees, shaped like real ones: links in them and to them, a compiler that answers."""

from __future__ import annotations

import os
import struct
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
    (place / "lib/libcudart.so.13").write_bytes(shared_library("libcudart.so.13"))
    (place / "lib/libcudart_static.a").write_bytes(os.urandom(200_000))
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


def shared_library(name: str) -> bytes:
    """The least ELF file that ldconfig takes for the library *name*; it holds nothing to call."""
    strings = b"\0" + name.encode() + b"\0"
    header, entry = 64, 56
    dynamic = header + 2 * entry
    entries = [(5, dynamic + 5 * 16), (10, len(strings)), (6, 0), (14, 1), (0, 0)]
    body = b"".join(struct.pack("<QQ", *each) for each in entries) + strings
    size = dynamic + len(body)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack(
        "<HHIQQQIHHHHHH", 3, 62, 1, 0, header, 0, 0, header, entry, 2, 64, 0, 0
    )  # fmt: skip
    load = struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, size, size, 4096)
    table = struct.pack("<IIQQQQQQ", 2, 4, dynamic, dynamic, dynamic, 80, 80, 8)
    return head + load + table + body
