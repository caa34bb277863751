"""
Takes out of an installed cachepod what it never needs: run by docker/make-tree.sh, on the image's.

Nothing that is imported goes. What goes, and what it takes unpacked (x86_64, November 2026):

    botocore/data         25.6 MB  models of services, except what a store in S3 needs
    symbols of *.so       13.0 MB  for debuggers; they stay where there is no strip
    zstandard/_cffi       12.3 MB  a second binding to zstd, for other interpreters than CPython
    boto3/data, examples   0.9 MB  resources other than S3's, texts
    bin/                   0.4 MB  programs other than python, uv and cachepod
    *.pyi, RECORD, ...     0.4 MB  what type checkers and uninstallers read
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

#: What a client of S3 asks for, and botocore's providers of credentials: a role (sts), single
#: sign-on (sso, sso-oidc), and ``aws login`` (signin).
SERVICES = frozenset({"s3", "sts", "sso", "sso-oidc", "signin"})
PROGRAMS = frozenset({"python", "python3", "uv", "cachepod"})


def trim(root: Path) -> None:
    """
    Take what is not needed out of the environment at *root*.

    Raises:
        SystemExit: It does not look as it should: a package has changed its folders, and a
            person must look at what may go.
    """
    (packages,) = root.glob("lib/python3*/site-packages")
    for path in (*unneeded(root, packages),):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    strip(packages)


def unneeded(root: Path, packages: Path) -> Iterator[Path]:
    """The files and folders that go."""
    for name in ("botocore/data", "boto3/data"):
        folders = {each.name: each for each in (packages / name).iterdir() if each.is_dir()}
        if "s3" not in folders:
            raise SystemExit(f"trim: {packages / name} has no s3: where does this version keep it?")
        yield from (path for service, path in folders.items() if service not in SERVICES)
    kept = [packages / "botocore/data" / service for service in SERVICES]
    yield from (path for folder in kept for path in folder.glob("*/examples-1.json*"))
    yield from packages.glob("boto3/examples")
    yield from packages.glob("zstandard/_cffi*.so")
    yield from packages.glob("zstandard/backend_cffi.py")
    yield from (path for path in (root / "bin").iterdir() if path.name not in PROGRAMS)
    for pattern in ("*.pyi", "py.typed"):
        yield from packages.rglob(pattern)
    # Nothing is uninstalled from here, and hashes of what was trimmed would be wrong.
    for name in ("RECORD", "INSTALLER", "REQUESTED", "direct_url.json"):
        yield from packages.glob(f"*.dist-info/{name}")


def strip(packages: Path) -> None:
    """Take the symbols for debuggers out of compiled modules, where there is a program for it."""
    program = shutil.which("strip")
    if program is None:
        print("trim: there is no strip, so compiled modules keep symbols", file=sys.stderr)
        return
    for module in sorted(packages.rglob("*.so")):
        subprocess.run([program, "--strip-unneeded", str(module)], check=True)


if __name__ == "__main__":
    trim(Path(sys.argv[1]))
