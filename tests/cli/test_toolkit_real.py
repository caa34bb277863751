"""A real CUDA tree between two machines: the second one is a mount namespace that never had it."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.cli import environment
from tests.support.cuda import listing
from tests.support.mounts import need_root, tmpfs
from tests.support.project import Project

MIB = 1 << 20
PROGRAM = """\
#include <cstdio>
#include <cuda_runtime.h>
__global__ void twice(int *value) { *value *= 2; }
int main() {
    int version = 0;
    if (cudaRuntimeGetVersion(&version) != cudaSuccess) return 1;
    std::printf("runtime %d\\n", version);
    return 0;
}
"""


def real_tree() -> Path:
    """The CUDA tree of this machine; the test is skipped where there is none that compiles."""
    for place in sorted(Path("/usr/local").glob("cuda-*.*")):
        if os.access(place / "bin/nvcc", os.X_OK) and not place.is_symlink():
            return place
    pytest.skip("there is no CUDA tree on this machine")


def on_a_new_machine(place: Path, below: Path, script: str, env: dict[str, str]) -> str:
    """
    Run *script* where neither the tree nor anything around it is, as if it had never been there.

    ``/usr/local`` and ``/etc`` are overlays of this machine's: what is deleted or written there is
    so in this namespace alone. Those of this machine itself are ``$BELOW/usr`` and ``$BELOW/etc``.
    """
    words = {"BELOW": str(below), "TREE": str(place), **env}
    prepare = """
        set -e
        for name in usr etc; do mkdir -p $BELOW/$name $BELOW/up-$name $BELOW/work-$name; done
        mount --bind /usr/local $BELOW/usr
        mount --bind /etc $BELOW/etc
        over() {
            mount -t overlay -o lowerdir=$1,upperdir=$BELOW/up-$2,workdir=$BELOW/work-$2 new $1
        }
        over /usr/local usr
        over /etc etc
        for link in /usr/local/cuda*; do [ ! -L $link ] || rm $link; done
        rm -rf $TREE
        grep -l /usr/local/cuda /etc/ld.so.conf.d/* | xargs -r rm
        ldconfig
        if [ -e $TREE ] || ldconfig -p | grep -q /usr/local/cuda; then exit 99; fi
    """
    done = subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-c", prepare + script],
        env=words,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.root
@pytest.mark.slow
def test_a_compiler_from_a_restored_tree_compiles_and_links(tmp_path: Path) -> None:
    need_root("a mount namespace")
    place = real_tree()
    project = Project(tmp_path)
    project.configure(more=f'toolkit = "{place}"')
    before = listing(place)
    around = [
        f"{path} {os.readlink(path)}"
        for path in sorted(place.parent.glob("cuda*"))
        if path.is_symlink()
    ]
    (tmp_path / "twice.cu").write_text(PROGRAM)
    project.ready()
    project.wipe()
    command = f"{shlex.quote(sys.executable)} -m cachepod"
    with tmpfs(tmp_path / "below", 2048 * MIB) as below:
        told = on_a_new_machine(
            place,
            below,
            f"""
            cd {tmp_path}
            {command} restore 2>restore.log || {{ cat restore.log; exit 3; }}
            for link in /usr/local/cuda*; do [ ! -L $link ] || echo "$link $(readlink $link)"; done
            echo ==
            diff -r $BELOW/etc/ld.so.conf.d /etc/ld.so.conf.d
            ldconfig -p | grep libcudart.so
            {command} run -- sh -c 'echo "home $CUDA_HOME"; echo "path $LD_LIBRARY_PATH"'
            {command} run -- nvcc -cudart shared -o twice twice.cu
            ./twice
            {command} restore 2>again.log
            cp -a $TREE copy
            """,
            environment(tmp_path, {"LD_LIBRARY_PATH": ""}),
        )
    links, _, rest = told.partition("==\n")
    assert links.splitlines() == around
    assert f"=> {place}/" in rest
    assert f"home {place}\npath \n" in rest
    assert "runtime 1" in rest
    assert listing(tmp_path / "copy") == before
    assert listing(place) == before
    assert not (place / ".cachepod").exists()
    assert "confirmed" in (tmp_path / "again.log").read_text()
