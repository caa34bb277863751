"""
The disk of a container from nothing to a module that is imported: a fat image, or a slim one.

::

    scripts/build-runpod-slim.sh --output slim.tar
    python -m benchmarks.image --image slim.tar --handler tts [--import torch] [--rounds N]

Needs root. The slim image is unpacked, and its start-up script brings the environment from a store
in a directory that stands for the volume. The fat one is the same image with what a first, cold
start has installed as one layer more. Both are what a container host does once an image has
arrived, layer by layer: ``gzip -dc | tar -x``. The download before that is not measured, but
computed from the sizes; a host that has the image in its cache spares it.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import measure
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.measure import Cost

_SPEEDS = (1, 10)  # Gbit/s, for the download that is computed
#: Enters $1, with the folder $2 as its volume and the mounts of this machine that a container has,
#: and runs the rest there.
_ENTER = """
set -eu
root="$1" volume="$2"; shift 2
mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/runpod-volume"
mount --rbind /proc "$root/proc"
mount --rbind /sys "$root/sys"
mount --rbind /dev "$root/dev"
mount --bind "$volume" "$root/runpod-volume"
for pair in $BINDS; do
    mkdir -p "$root$(dirname "${pair#*:}")"
    [ -e "$root${pair#*:}" ] || touch "$root${pair#*:}"
    mount --bind "${pair%%:*}" "$root${pair#*:}"
done
cd /
exec chroot "$root" "$@"
"""
_OUTSIDE = ("proc", "sys", "dev", "runpod-volume", "tmp", "etc/resolv.conf")


@dataclass
class Image:
    """
    Layers as a registry has them.

    Args:
        name: For the table.

        layers: Compressed, the lowest first.

        start: What is run in the container.

        unpacking: Cost of each run's unpacking.

        starting: Cost of each run's start.
    """

    name: str
    layers: list[Path]
    start: list[str]
    unpacking: list[Cost] = field(default_factory=list)
    starting: list[Cost] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Bytes that a registry stores."""
        return sum(layer.stat().st_size for layer in self.layers)


@dataclass(frozen=True)
class Entering:
    """How a container's root is entered: its *volume*, *binds* as ``FROM:TO``, its *environ*."""

    volume: Path
    binds: list[str]
    environ: dict[str, str]

    def command(self, root: Path, words: list[str]) -> list[str]:
        """The command that runs *words* in *root*."""
        path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        environ = {"PATH": path, "HOME": "/root", "RUNPOD_POD_ID": "benchmark", **self.environ}
        pairs = [f"{name}={value}" for name, value in environ.items()]
        enter = _ENTER.replace("$BINDS", " ".join(self.binds))
        inside = ["env", "-i", *pairs, *words]
        place = [str(root), str(self.volume)]
        return ["unshare", "--mount", "bash", "-c", enter, "bash", *place, *inside]


def _compress(source: Path, target: Path) -> None:
    with target.open("wb") as file:
        tool = measure.find_tool("pigz") or "gzip"
        subprocess.run([tool, "-6", "-c", str(source)], stdout=file, check=True)


def unpack_archive(archive: Path, folder: Path) -> tuple[list[Path], dict[str, str]]:
    """
    The layers of a docker archive, compressed as a registry has them, and the image's variables.

    Args:
        archive: As ``docker save`` writes it.

        folder: Where the layers go.
    """
    with tarfile.open(archive) as opened:
        listed = opened.extractfile("manifest.json")
        assert listed is not None
        manifest = json.load(listed)[0]
        configured = opened.extractfile(manifest["Config"])
        assert configured is not None
        config = json.load(configured)["config"]
        layers = []
        for number, name in enumerate(manifest["Layers"]):
            raw = folder / f"layer-{number}.tar"
            member = opened.extractfile(name)
            assert member is not None
            with raw.open("wb") as file:
                shutil.copyfileobj(member, file, 1 << 20)
            layers.append(raw.with_suffix(".tar.gz"))
            _compress(raw, layers[-1])
            raw.unlink()
    environ = dict(variable.split("=", 1) for variable in config.get("Env", []))
    return layers, environ


def _unpack(image: Image, root: Path) -> Cost:
    text = 'for layer in "${@:2}"; do gzip -dc "$layer" | tar -x -C "$1" --numeric-owner; done'
    return measure.run(measure.pipeline(text, root, *image.layers))


def _make_fat(
    ground: Ground, slim: Image, entering: Entering, folder: Path, options: argparse.Namespace
) -> Image:
    """Start the slim image cold, which fills the store, and make a layer of all that is there."""
    with ground.fresh() as root:
        _unpack(slim, root)
        print("the cold start, which fills the store", file=sys.stderr)
        cold = measure.run(entering.command(root, slim.start), quiet=False)
        print(f"cold start: {cold.seconds:.1f} s", file=sys.stderr)
        layer = folder / "fat.tar.gz"
        tool = measure.find_tool("pigz") or "gzip"
        left_out = " ".join(f"--exclude=./{name}/*" for name in _OUTSIDE)
        text = f'tar -c -C "$1" {left_out} . | {tool} -6 -c > "$2"'
        measure.run(measure.pipeline(text, root, layer))
    python = entering.environ.get("CACHEPOD_PREFIX", "/opt/worker/venv") + "/bin/python"
    return Image("fat image", [layer], [python, "-c", f"import {options.module}"])


def _round(ground: Ground, image: Image, entering: Entering) -> None:
    with ground.fresh() as root:
        drop_caches()
        image.unpacking.append(_unpack(image, root))
        drop_caches()
        image.starting.append(measure.run(entering.command(root, image.start)))
    print(
        f"{image.name}: {image.unpacking[-1].seconds:.1f} s and {image.starting[-1].seconds:.1f} s",
        file=sys.stderr,
    )


def _table(images: list[Image], module: str) -> str:
    rows = []
    for image in images:
        unpacking = [cost.seconds for cost in image.unpacking]
        starting = [cost.seconds for cost in image.starting]
        both = [one + other for one, other in zip(unpacking, starting, strict=True)]
        total = measure.median(both)
        downloads = [image.size * 8 / speed / 1e9 for speed in _SPEEDS]
        rows.append(
            [
                image.name,
                f"{image.size / 1e6:,.0f}",
                f"{measure.median(unpacking):.1f}",
                f"{measure.median(starting):.1f}",
                f"{total:.1f}",
                measure.spread(both),
                *(f"{seconds + total:.1f}" for seconds in downloads),
            ]
        )
    headings = ["", "image MB", "unpack s", f"start and import {module} s", "both s", "range"]
    headings += [f"with a download at {speed} Gbit/s, computed" for speed in _SPEEDS]
    return measure.table(headings, rows)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.image", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--image", type=Path, required=True, help="a docker archive of the image")
    parser.add_argument("--handler", default="tts", help="the profile to start (default: tts)")
    parser.add_argument("--import", dest="module", default="torch", help="module to import")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each (default: 3)")
    parser.add_argument("--size", type=float, default=14, help="GB of the container's disk")
    parser.add_argument(
        "--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure"
    )
    parser.add_argument(
        "--bind", action="append", default=[], metavar="FROM:TO", help="a file that it gets"
    )
    parser.add_argument(
        "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable that it gets"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def main() -> None:
    """Prepare, measure, print."""
    options = _options()
    if os.geteuid() != 0:
        raise SystemExit("only root can enter the root of a container")
    facts = measure.machine()
    measure.print_machine(facts)
    with tempfile.TemporaryDirectory(prefix="image-", dir=options.scratch) as temporary:
        folder = Path(temporary)
        volume = folder / "volume"
        volume.mkdir()
        layers, environ = unpack_archive(options.image, folder)
        environ.pop("PATH", None)
        environ.update(variable.split("=", 1) for variable in options.env)
        environ["HANDLER_TYPE"] = options.handler
        entering = Entering(volume, ["/etc/resolv.conf:/etc/resolv.conf", *options.bind], environ)
        start = ["startup-runpod.sh", "python", "-c", f"import {options.module}"]
        slim = Image("slim image, warm start", layers, start)
        with open_ground(options.scratch, int(options.size * 1e9)) as ground:
            fat = _make_fat(ground, slim, entering, folder, options)
            for number in range(options.rounds):
                for image in measure.rotated([fat, slim], number):
                    _round(ground, image, entering)
        files, size = measure.tree_size(volume)
        print(f"handler {options.handler}; ground: {ground.kind}; {options.rounds} rounds")
        print(f"the store: {files} files, {size / 1e9:.2f} GB\n")
        print(_table([fat, slim], options.module))
        samples = {
            image.name: {
                "size": image.size,
                "unpack": [cost.seconds for cost in image.unpacking],
                "start": [cost.seconds for cost in image.starting],
            }
            for image in (fat, slim)
        }
        measure.write_json(options.json, {"machine": facts, "images": samples})


if __name__ == "__main__":
    measure.script(main)
