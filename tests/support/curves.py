"""Running a benchmark of a curve as its users do, in this process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from benchmarks.results import Results


def curve_runner(
    module: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, *always: str
) -> Callable[..., Results]:
    """
    What runs *module* with options and reads the result that it wrote.

    Nothing but that and a picture ``curves.svg`` may be left in *folder*. The page cache of the
    machine stays as it is.
    """
    monkeypatch.setattr(module, "drop_caches", lambda: True)

    def run(*options: str) -> Results:
        file = folder / f"{module.__name__.rpartition('.')[2]}.json"
        words = [*always, *options, "--scratch", str(folder), "--json", str(file)]
        monkeypatch.setattr("sys.argv", [module.__name__, *words])
        try:
            module.main()
        finally:
            left = {path.name for path in folder.iterdir()}
            assert left <= {file.name, "curves.svg"}  # no tree, no store
        return Results.read(file)

    return run
