"""A change as an upgrade makes it: every file of one distribution."""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from benchmarks.peers.peer import site_packages

_SHARE = 0.02


class NothingToChange(Exception):
    """A tree does not hold the distribution; in words."""


class Change:
    """
    Changes to one distribution of an environment that may be written to.

    Args:
        tree: The environment.

        name: The distribution; empty for the largest one below 2% of the whole, or the smallest.

    Raises:
        NothingToChange: There is no such distribution.
    """

    def __init__(self, tree: Path, name: str = "") -> None:
        sizes = {}
        for each in metadata.distributions(path=[str(site_packages(tree))]):
            located = (Path(str(file.locate())) for file in each.files or ())
            paths = [path for path in located if path.is_file() and not path.is_symlink()]
            sizes[each.name] = {path: path.stat().st_size for path in paths}
        weights = {each: sum(files.values()) for each, files in sizes.items()}
        if not weights or (name and name not in weights):
            raise NothingToChange(f"no distribution {name or 'that could be changed'}")
        if not name:
            limit = _SHARE * sum(weights.values())
            small = [each for each in weights if weights[each] <= limit]
            name = max(small or [min(weights, key=weights.__getitem__)], key=weights.__getitem__)
        self._files = {path: path.read_bytes() for path in sizes[name]}
        self.title = f"{name} ({weights[name] / 1e6:.0f} MB)"

    def apply(self, number: int) -> None:
        """Write every file anew, with another content for each *number*."""
        for path, content in self._files.items():
            path.unlink()
            path.write_bytes(content + f"\n# changed {number}\n".encode())
