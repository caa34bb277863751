"""
Cold and warm start of one configuration, by phase.

::

    python -m benchmarks.cold_warm --config cachepod.toml [--import torch] [--rounds N]

A cold start meets an empty store: it installs from the package index and publishes. A warm start
meets what that one published, on a new disk and with an empty page cache. A repeated start meets
the environment as the warm one left it, in the page cache, as a container does that is restarted.
Rounds follow one another, each with a store of its own unless ``--store`` names one.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks import measure
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.hook import HOOK, HookRun, comparison, run_hook
from benchmarks.measure import Cost


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cold_warm", description=(__doc__ or "").splitlines()[1]
    )
    parser.add_argument("--config", type=Path, required=True, help="the configuration file")
    parser.add_argument("--store", help="a store to use (default: a new one for each round)")
    parser.add_argument(
        "--scratch", type=Path, default=Path("/var/tmp"), help="a directory on the disk to measure"
    )
    parser.add_argument("--rounds", type=int, default=1, help="cold starts (default: 1)")
    parser.add_argument("--warm", type=int, default=3, help="warm starts a round (default: 3)")
    parser.add_argument("--size", type=float, default=10, help="GB of the prefix's disk")
    parser.add_argument("--import", dest="module", default="", help="module to import afterwards")
    parser.add_argument("--plain", action="store_true", help="directories, no loop devices")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample there")
    return parser.parse_args()


def _round(
    ground: Ground, store: str, options: argparse.Namespace, runs: dict[str, list[HookRun]]
) -> None:
    then = {}
    if options.module:
        then[f"import {options.module}"] = ["python", "-c", f"import {options.module}"]

    def start(kind: str, place: Path) -> None:
        if kind != "repeated":
            drop_caches()
        environ = {"CACHEPOD_STORE": store, "CACHEPOD_PREFIX": str(place / "env")}
        run = run_hook(options.config, environ=environ, then=then)
        runs.setdefault(kind, []).append(run)
        print(f"{kind}: {run.seconds:.2f} s", file=sys.stderr)
        if run.restored != (kind != "cold") and not options.store:
            raise SystemExit(f"a {kind} start was expected, something else happened")

    with ground.fresh() as place:
        start("cold", place)
    for _ in range(options.warm):
        with ground.fresh() as place:
            start("warm", place)
            start("repeated", place)


def main() -> None:
    """Measure and print."""
    options = _options()
    options.config = options.config.resolve()
    facts = measure.machine()
    measure.print_machine(facts)
    runs: dict[str, list[HookRun]] = {}
    version = [measure.run([measure.cachepod(), "--version"]) for _ in range(5)]
    with open_ground(options.scratch, int(options.size * 1e9), plain=options.plain) as ground:
        cache = "dropped before cold and warm starts" if drop_caches() else "as it was"
        print(f"$ {HOOK}\nground: {ground.kind}; page cache: {cache}\n")
        for _ in range(options.rounds):
            store = options.store or tempfile.mkdtemp(prefix="store-", dir=options.scratch)
            try:
                _round(ground, store, options, runs)
            finally:
                if not options.store:
                    shutil.rmtree(store, ignore_errors=True)
    print(comparison(runs), end="\n\n")
    print(_publish_again(runs["repeated"], version))
    for kind, several in runs.items():
        peak = max((step.cost.peak, step.name) for run in several for step in run.steps[:3])
        print(f"peak resident size, {kind}: {peak[0] / 1e6:.0f} MB ({peak[1]})")
    measure.write_json(options.json, {"machine": facts, "starts": _as_json(runs)})


def _publish_again(repeated: list[HookRun], version: list[Cost]) -> str:
    """What the publish that is run at every start costs, where there is nothing to do."""
    steps = [step for run in repeated for step in run.steps if step.name == "publish"]
    again = measure.median([step.cost.seconds for step in steps])
    bare = measure.median([cost.seconds for cost in version])
    return f"publish with nothing to do: {again:.3f} s; cachepod --version: {bare:.3f} s"


def _as_json(runs: dict[str, list[HookRun]]) -> dict[str, list[list[dict[str, object]]]]:
    return {
        kind: [
            [
                {
                    "step": step.name,
                    "seconds": step.cost.seconds,
                    "cpu": step.cost.cpu,
                    "peak": step.cost.peak,
                    "code": step.cost.code,
                    "phases": step.cost.phases,
                }
                for step in run.steps
            ]
            for run in several
        ]
        for kind, several in runs.items()
    }


if __name__ == "__main__":
    measure.script(main)
