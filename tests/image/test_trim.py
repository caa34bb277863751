"""What the image leaves out of the packages that it has."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from tests.support.cli import ROOT

TRIM: dict[str, Any] = runpy.run_path(str(ROOT / "docker/trim.py"), run_name="trim")
PACKAGES = (
    *("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3"),
    *("zstandard", "blake3", "xxhash"),
)

# What cachepod and botocore's providers of credentials do with these packages.
USE = """
import blake3, boto3, xxhash, zstandard
plain = b"plain " * 1000
packed = zstandard.ZstdCompressor(level=3).compress(plain)
assert zstandard.ZstdDecompressor().decompress(packed) == plain
assert len(blake3.blake3(plain).digest()) == 32 and len(xxhash.xxh3_128_digest(plain)) == 16
for service in ("s3", "sts", "sso", "sso-oidc", "signin"):
    client = boto3.client(service, "us-east-1", aws_access_key_id="a", aws_secret_access_key="b")
client = boto3.session.Session().client("s3", "us-east-1")
assert client.get_paginator("list_objects_v2") and client.get_waiter("object_exists")
print(boto3.session.Session().get_available_services())
"""


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the packages that are trimmed most, trimmed."""
    root = tmp_path_factory.mktemp("trimmed")
    site = root / "lib/python3/site-packages"
    site.mkdir(parents=True)
    installed = Path(sysconfig.get_path("purelib"))
    for name in PACKAGES:
        shutil.copytree(installed / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(installed / "six.py", site)
    (root / "bin").mkdir()
    for name in ("python3", "uv", "uvx", "tqdm"):
        (root / "bin" / name).write_text("")
    TRIM["trim"](root)
    return root


def test_what_stays_is_enough_for_a_store_in_s3_and_its_credentials(tree: Path) -> None:
    site = tree / "lib/python3/site-packages"
    done = subprocess.run(
        [sys.executable, "-S", "-c", USE],
        env={"PATH": os.defpath, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "['s3', 'signin', 'sso', 'sso-oidc', 'sts']"


def test_programs_that_are_not_cachepods_go(tree: Path) -> None:
    assert sorted(path.name for path in (tree / "bin").iterdir()) == ["python3", "uv"]


def test_what_goes_is_most_of_it(tree: Path) -> None:
    def size(folder: Path) -> int:
        return sum(path.stat().st_size for path in folder.rglob("*") if path.suffix != ".pyc")

    whole = Path(sysconfig.get_path("purelib"))
    assert size(tree) < sum(size(whole / name) for name in PACKAGES) / 2


def test_a_package_that_has_moved_its_folders_stops_the_build(tmp_path: Path) -> None:
    site = tmp_path / "lib/python3/site-packages"
    (site / "botocore/data/moved").mkdir(parents=True)
    (tmp_path / "bin").mkdir()
    with pytest.raises(SystemExit, match="botocore/data has no s3"):
        TRIM["trim"](tmp_path)
