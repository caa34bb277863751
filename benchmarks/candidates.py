"""The ways to store and to bring back a tree that :mod:`benchmarks.peers` compares."""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from benchmarks import measure

KEY = "peers"
CHANGED_KEY = "peers-changed"


@dataclass(frozen=True)
class Candidate:
    """
    One way to get a job done.

    Args:
        name: What the row is called.

        missing: Why it cannot run here; empty if it can.

        command: From the ground of a run to the command that is measured.

        before: What is made ready on the ground first, unmeasured.

        after: What is checked or put back afterwards, unmeasured.

        environ: Variables that the command needs.
    """

    name: str
    missing: str
    command: Callable[[Path], list[str]]
    before: Callable[[Path], None] = lambda ground: None
    after: Callable[[Path], None] = lambda ground: None
    environ: Mapping[str, str] = field(default_factory=dict)


def site_packages(tree: Path) -> Path:
    """The directory of installed distributions in the environment at *tree*."""
    found = sorted(tree.glob("lib/python3*/site-packages"))
    return found[0] if found else tree


def needs(*tools: str) -> str:
    """Which of *tools* are missing here, in words; empty if none is."""
    missing = [tool for tool in tools if measure.find_tool(tool) is None]
    return f"no {', '.join(missing)} here" if missing else ""


class Archives:
    """The tree in the form that each restoring tool reads; made once, kept where asked for."""

    def __init__(self, tree: Path, folder: Path, store: Path, level: int) -> None:
        self.tree = tree
        self.tar = folder / "tree.tar.zst"
        self.squash = folder / "tree.squashfs"
        self.store = store
        self._level = str(level)

    def make_store(self) -> None:
        """Publish the tree, unless the store has it; cachepod itself tells."""
        publish = [measure.cachepod(), "publish", "--store", str(self.store)]
        measure.run([*publish, "--tree", f"bench={self.tree}", "--key", KEY])

    def make_tar(self) -> None:
        """As ``tar | zstd`` makes it."""
        if not self.tar.exists():
            measure.run(self.tar_command(self.tar.with_suffix(".part")))
            self.tar.with_suffix(".part").rename(self.tar)

    def tar_command(self, output: Path) -> list[str]:
        """Every core compresses."""
        script = 'tar -C "$1" -cf - . | zstd -q -f "-$2" "-T$3" -o "$4"'
        return measure.pipeline(script, self.tree, self._level, str(measure.cores()), output)

    def make_squash(self) -> None:
        """With zstd at the same level and the largest block, which unpacks fastest."""
        if not self.squash.exists():
            part = self.squash.with_suffix(".part")
            part.unlink(missing_ok=True)
            zstd = ["-comp", "zstd", "-Xcompression-level", self._level, "-b", "1M"]
            measure.run(["mksquashfs", self.tree, part, *zstd, "-no-progress", "-quiet"])
            part.rename(self.squash)


def restorers(archives: Archives, options: argparse.Namespace) -> list[Candidate]:
    """Everything that can bring the tree back, to ``GROUND/tree``."""
    tree = archives.tree
    processors = str(measure.cores())
    from_store = ["restore", "--json", "--store", str(archives.store), "--key", KEY]
    unsquash = ["unsquashfs", "-q", "-n", "-p", processors, "-d"]
    found = [
        Candidate(
            "cachepod restore",
            needs("cachepod"),
            lambda ground: [
                measure.cachepod(),
                *from_store,
                "--tree",
                f"bench={ground / 'tree'}",
            ],
        ),
        Candidate(
            "zstd -dc | tar -x",
            needs("zstd", "tar"),
            lambda ground: measure.pipeline(
                'mkdir "$2" && zstd -dc "$1" | tar -x -C "$2"', archives.tar, ground / "tree"
            ),
        ),
        Candidate(
            f"unsquashfs -p {processors} (zstd)",
            needs("unsquashfs", "mksquashfs"),
            lambda ground: [*unsquash, str(ground / "tree"), str(archives.squash)],
        ),
        Candidate("cp -a", "", lambda ground: ["cp", "-a", str(tree), str(ground / "tree")]),
    ]
    for name, flags in (
        ("uv, warm cache, copy", []),
        ("uv, warm cache, copy and compile", ["--compile-bytecode"]),
    ):
        found.append(_uv(name, flags, tree, options))
    return found


def _uv(name: str, flags: list[str], tree: Path, options: argparse.Namespace) -> Candidate:
    """uv installing the tree's own distributions, offline, from a cache that has them."""
    pins = sorted(
        f"{each.name}=={each.version}"
        for each in metadata.distributions(path=[str(site_packages(tree))])
    )
    missing = needs("uv")
    if not missing and options.uv_cache is None:
        missing = "no --uv-cache given"
    if not missing and not pins:
        missing = "no distributions in the tree"
    python = options.python or tree / "bin" / "python"
    script = """
        uv=$1 cache=$3 tree=$4
        "$uv" venv -q -p "$2" "$tree" &&
        "$uv" pip install -q --offline --no-deps --link-mode copy --cache-dir "$cache" \
            -p "$tree/bin/python" "${@:5}"
    """
    return Candidate(
        name,
        missing,
        lambda ground: measure.pipeline(
            script,
            measure.find_tool("uv") or "uv",
            python,
            options.uv_cache,
            ground / "tree",
            *flags,
            *pins,
        ),
    )


def import_command(tree: Path, module: str, python: Path | None) -> list[str]:
    """Import *module* in the environment at *tree*, or in one that lends it its interpreter."""
    own = tree / "bin" / "python"
    if own.exists():
        return [str(own), "-c", f"import {module}"]
    path = f"import sys; sys.path.insert(0, {str(site_packages(tree))!r}); import {module}"
    return [str(python or sys.executable), "-c", path]


def change_distribution(tree: Path, name: str) -> tuple[str, int]:
    """
    Change every file of one distribution, as an upgrade does.

    Args:
        tree: An environment that may be written to.

        name: The distribution; empty for the largest one below 2% of the whole.

    Returns:
        Its name and the bytes of its files.
    """
    site = site_packages(tree)
    sizes: dict[str, list[Path]] = {}
    for each in metadata.distributions(path=[str(site)]):
        located = (Path(str(file.locate())) for file in each.files or ())
        sizes[each.name] = [path for path in located if path.is_file()]
    if not sizes:
        raise SystemExit(f"{tree} holds no distribution that could be changed")
    weights = {each: sum(p.stat().st_size for p in files) for each, files in sizes.items()}
    if not name:
        limit = 0.02 * sum(weights.values())
        name = max((each for each in weights if weights[each] <= limit), key=weights.__getitem__)
    if name not in sizes:
        raise SystemExit(f"{tree} holds no distribution {name}")
    for path in sizes[name]:
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content + b"\n# changed\n")
    return name, weights[name]


def publishers(archives: Archives, changed: Path, kept: Path, title: str) -> list[Candidate]:
    """Everything that can store the tree, below the ground of the run."""

    def publish(store: Path, tree: Path, key: str) -> list[str]:
        target = ["--store", str(store), "--tree", f"bench={tree}", "--key", key]
        return [measure.cachepod(), "publish", "--json", *target]

    def with_store(ground: Path) -> None:
        measure.run(["cp", "-a", archives.store, ground / "store"])

    def without_state(ground: Path) -> None:
        with_store(ground)
        shutil.rmtree(changed / ".cachepod", ignore_errors=True)

    def put_state_back(ground: Path) -> None:
        shutil.rmtree(changed / ".cachepod", ignore_errors=True)
        if kept.is_dir():
            shutil.copytree(kept, changed / ".cachepod", symlinks=True)

    return [
        Candidate(
            "cachepod publish, first",
            "",
            lambda ground: publish(ground / "store", archives.tree, KEY),
        ),
        Candidate(
            f"tar | zstd -T{measure.cores()}",
            needs("zstd", "tar"),
            lambda ground: archives.tar_command(ground / "tree.tar.zst"),
        ),
        Candidate(
            f"cachepod publish, {title} changed after a restore",
            "",
            lambda ground: publish(ground / "store", changed, CHANGED_KEY),
            before=with_store,
            after=put_state_back,
        ),
        Candidate(
            f"cachepod publish, {title} changed, installed anew",
            "",
            lambda ground: publish(ground / "store", changed, CHANGED_KEY),
            before=without_state,
            after=put_state_back,
        ),
    ]
