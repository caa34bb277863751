"""
What scripts/demo runs: the hook cold, then warm, on the default store, and a table of both.

The environment is a real one, and so is the program that is run in it. The key is made new by the
name of the handler, so that the first start is a cold one however often the demo was run before.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import measure
from benchmarks.ground import drop_caches
from benchmarks.hook import HOOK, HookRun, comparison, run_hook


@dataclass(frozen=True)
class Stack:
    """One environment to show: what is installed, tried, run, and the disk it takes, in GB."""

    title: str
    packages: tuple[str, ...]
    check: tuple[str, ...]
    program: str
    prefix_gb: float
    store_gb: float


_SCIENCE = Stack(
    title="the scientific Python stack",
    packages=(
        "numpy==2.2.6",
        "scipy==1.15.3",
        "pandas==2.2.3",
        "pyarrow==20.0.0",
        "scikit-learn==1.6.1",
        "matplotlib==3.10.3",
    ),
    check=("numpy",),
    program='''\
"""Fit a forest to a table that went through Parquet, and draw what it learnt."""
import io
import sys

import matplotlib
import pandas
from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.model_selection import cross_val_score

matplotlib.use("agg")
table = load_wine(as_frame=True).frame
parquet = io.BytesIO()
table.to_parquet(parquet, engine="pyarrow")
table = pandas.read_parquet(parquet)
model = RandomForestClassifier(n_estimators=50, random_state=0)
features = table.drop(columns="target")
score = cross_val_score(model, features, table["target"]).mean()
axes = pandas.Series(model.fit(features, table["target"]).feature_importances_).plot.bar()
axes.figure.savefig(picture := io.BytesIO(), format="png")
print(f"accuracy {score:.2f} on {len(table)} rows, a figure of {picture.tell()} bytes,", sys.prefix)
''',
    prefix_gb=1.2,
    store_gb=0.4,
)

_TORCH = Stack(
    title="PyTorch 2.7.0 for CUDA 12.6 and its usual companions",
    packages=(
        "torch==2.7.0",
        "torchvision==0.22.0",
        "torchaudio==2.7.0",
        "transformers",
        "librosa",
        "soundfile",
        "runpod",
    ),
    check=("torch",),
    program='''\
"""Train a small network for a moment, on the GPU if there is one."""
import sys

import torch

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
x = torch.randn(512, 64, device=device)
y = x.square().sum(dim=1, keepdim=True)
model = torch.nn.Sequential(
    torch.nn.Linear(64, 128), torch.nn.ReLU(), torch.nn.Linear(128, 1)
).to(device)
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
for _ in range(200):
    optimizer.zero_grad()
    loss = torch.nn.functional.mse_loss(model(x), y)
    loss.backward()
    optimizer.step()
print(f"torch {torch.__version__} on {device}, loss {loss.item():.2f},", sys.prefix)
''',
    prefix_gb=14,
    store_gb=3.5,
)


def _say(text: str = "") -> None:
    print(text, flush=True)


def _require_space(folder: Path, needed_gb: float) -> None:
    usage = shutil.disk_usage(folder)
    # A restore leaves a tenth of the file system free.
    free = usage.free - 0.1 * usage.total
    if free < needed_gb * 1e9:
        raise SystemExit(
            f"{folder}: {needed_gb:.1f} GB are needed beside the tenth of the disk that stays "
            f"free, {max(free, 0) / 1e9:.1f} GB are there; try --folder DIR on another disk"
        )


def _default_store() -> Path:
    from cachepod.stores.url import default_store_url

    url = os.environ.get("CACHEPOD_STORE") or default_store_url(os.environ)
    return Path(url.removeprefix("file://"))


def _existing(path: Path) -> Path:
    while not path.exists():
        path = path.parent
    return path


def _write_project(folder: Path, stack: Stack) -> Path:
    def listed(values: Sequence[str]) -> str:
        return "[" + "".join(f'\n    "{value}",' for value in values) + "\n]"

    config = folder / "cachepod.toml"
    handler = f"demo-{time.strftime('%Y%m%d-%H%M%S')}"
    config.write_text(
        f'prefix = "env"\n'
        f"packages = {listed(stack.packages)}\n"
        f"check = {listed(stack.check)}\n"
        f'handler = "{handler}"\n\n[handlers.{handler}]\n',
        encoding="utf-8",
    )
    (folder / "program.py").write_text(stack.program, encoding="utf-8")
    return config


def _start(title: str, config: Path) -> HookRun:
    _say(f"\n== {title}\n$ {HOOK}\n$ cachepod run -- python program.py")
    then = {"the program": ["python", str(config.with_name("program.py"))]}
    run = run_hook(config, then=then, quiet=False)
    if run.problems:
        raise SystemExit(f"failed: {run.problems[0]}")
    _say(run.steps[-1].cost.output.strip())
    return run


def _wipe(prefix: Path, gone: Path) -> None:
    # Out of the way, not deleted yet: on ext4 the next thousands of files would take many times
    # longer right after a deletion, which a container on its new disk does not see.
    shutil.rmtree(gone, ignore_errors=True)
    prefix.rename(gone)


def _settings_of_the_caller() -> list[str]:
    """Names of variables that would make the hook do something else than the demo's own."""
    found = [name for name in os.environ if name.startswith("CACHEPOD_")]
    return [name for name in (*found, "HANDLER_TYPE") if name != "CACHEPOD_STORE"]


def main() -> None:
    """Show it."""
    parser = argparse.ArgumentParser(prog="scripts/demo")
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--keep", action="store_true")
    options = parser.parse_args()
    for name in _settings_of_the_caller():
        os.environ.pop(name, None)
    stack = _TORCH if options.full else _SCIENCE
    folder: Path = options.folder.resolve()
    store = _default_store()
    _require_space(folder, stack.prefix_gb)
    _require_space(_existing(store), stack.store_gb)
    config = _write_project(folder, stack)
    prefix, gone, new_store = folder / "env", folder / "wiped", not store.exists()
    try:
        shutil.rmtree(prefix, ignore_errors=True)
        _say(f"{config}: {stack.title}\n\n{config.read_text().strip()}\n\nstore: {store}")
        cold = _start("cold start: nothing is there, packages come from the index", config)
        files, size = measure.tree_size(prefix)
        _wipe(prefix, gone)
        cache = "and the page cache is dropped" if drop_caches() else "the page cache is warm"
        warm = _start(f"warm start: the environment is wiped, {cache}", config)
        if not warm.restored:
            raise SystemExit("the warm start did not find the snapshot; see above")
        _say(f"\n{files:,} files, {size / 1e6:,.0f} MB\n")
        _say(comparison({"cold start": [cold], "warm start": [warm]}))
        _say(f"\n{_verdict({'cold': cold, 'warm': warm})}")
    finally:
        shutil.rmtree(gone, ignore_errors=True)
        if not options.keep:
            shutil.rmtree(prefix, ignore_errors=True)
    _say(_remains(folder, prefix if options.keep else None, store, new_store))


def _verdict(runs: Mapping[str, HookRun]) -> str:
    cold, warm = (runs[name].hook for name in ("cold", "warm"))
    return f"the hook took {cold:.1f} s cold and {warm:.1f} s warm, {cold / warm:.0f} times faster"


def _remains(folder: Path, prefix: Path | None, store: Path, new_store: bool) -> str:
    lines = ["", "What stays on this machine:"]
    also = "" if new_store else ", with what else it held before"
    lines.append(f"  {store}: the store, {measure.tree_size(store)[1] / 1e6:,.0f} MB{also}")
    if prefix is not None:
        lines.append(f"  {prefix}: the environment")
    lines.append(f"  {folder}: cachepod in a virtual environment of its own, the demo's program")
    lines.append(f"To remove it: rm -r {folder}{f' {store}' if new_store else ''}")
    return "\n".join(lines)


if __name__ == "__main__":
    measure.script(main)
