"""Running the starts, round by round."""

from __future__ import annotations

import argparse
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import measure
from benchmarks.cold_warm import starts as kinds
from benchmarks.cold_warm.plan import Plan
from benchmarks.cold_warm.starts import Start
from benchmarks.cold_warm.store import OwnStore, below, own_stores
from benchmarks.ground import Ground, drop_caches, open_ground
from benchmarks.hook import HOOK, run_hook
from benchmarks.results import Results, begin
from cachepod.errors import CachepodError

_INPUTS_OF_A_MACHINE = frozenset({"prefix", "interpreter"})


class NoSuchModule(Exception):
    """What is installed has no module of the name that is to be imported."""


class Measuring:
    """
    One run of the benchmark.

    Args:
        plan: What to measure.

        options: Rounds, and where the results go.

        ground: Where environments go.
    """

    def __init__(self, plan: Plan, options: argparse.Namespace, ground: Ground) -> None:
        self._plan = plan
        self._options = options
        self._ground = ground
        self._starts: dict[str, list[Start]] = {}
        self._version = [measure.run([measure.cachepod(), "--version"]).seconds for _ in range(5)]
        self._dropped = drop_caches()
        self._then = {}
        if plan.module:
            command = ["python", "-c", f"import {plan.module}"]
            self._then = {f"import {plan.module}": command}
        self._begun = begin("benchmarks.cold_warm", measure.machine(), {})
        self._store_kind = OwnStore(plan.store).kind
        each = 1 + 2 * options.warm + 2 * options.partial
        self._all = options.rounds * each

    @property
    def results(self) -> Results:
        """What was found so far, without tables."""
        plan = self._plan
        files, size = kinds.tree(self._starts)
        starts = {kind: len(several) for kind, several in self._starts.items()}
        subject = {
            "configuration": plan.title,
            "environment": f"{size / 1e9:.2f} GB in {files:,} files" if size else "unknown",
            "change": plan.changed.change if plan.changed else "none",
            "store": self._store_kind,
            "ground": self._ground.kind,
            "page cache": self.cache,
            "starts": ", ".join(f"{number} {kind}" for kind, number in starts.items()),
        }
        inputs = plan.base.identity.fingerprint.inputs
        samples: dict[str, Any] = {
            "starts": kinds.as_json(self._starts),
            "module": plan.module,
            "tree": {"files": files, "size": size},
            "configuration": {
                name: value for name, value in inputs.items() if name not in _INPUTS_OF_A_MACHINE
            },
            "version": self._version,
        }
        return replace(self._begun, subject=subject, samples=samples)

    @property
    def cache(self) -> str:
        """What is done about the page cache."""
        if self._dropped:
            return "dropped before each start but the repeated"
        if OwnStore(self._plan.store).directory is None:
            return "as it is, for dropping it needs root"
        return "as it is, for dropping it needs root; but for the store's own files"

    def head(self) -> str:
        """What is about to be measured, for a reader who waits."""
        plan = self._plan
        change = f"; changed: {plan.changed.change}" if plan.changed else ""
        lines = [
            f"$ {HOOK}",
            f"configuration: {plan.title}{change}",
            f"store: below {OwnStore(plan.store).url} ({self._store_kind}), in {plan.name}",
            f"ground: {self._ground.kind}; page cache: {self.cache}",
            *plan.remarks,
        ]
        return "\n".join(lines)

    def round(self, store: OwnStore) -> None:
        """
        One cold start, and what can follow it.

        Raises:
            NoSuchModule: There is none to import.

            CachepodError: The store cannot be listed any more.
        """
        plan, options = self._plan, self._options
        with self._ground.fresh() as place:
            cold = self._start(kinds.COLD, store, place)
        if not store.published:
            print("nothing was published, so no other start can follow", file=sys.stderr)
            return
        self._check_module(cold)
        for number in range(max(options.warm, options.partial)):
            if number < options.warm:
                with self._ground.fresh() as place:
                    self._start(kinds.WARM, store, place)
                    self._start(kinds.REPEATED, store, place)
            if plan.changed and number < options.partial:
                before = store.objects()
                with self._ground.fresh() as place:
                    partial = self._start(kinds.PARTIAL, store, place)
                if not partial.problems:
                    with self._ground.fresh() as place:
                        self._start(kinds.AFTER, store, place)
                last = number + 1 == options.partial
                if not (options.keep and last):
                    store.roll_back(before)

    def _start(self, kind: str, store: OwnStore, place: Path) -> Start:
        plan = self._plan
        of_change = plan.changed is not None and kind in (kinds.PARTIAL, kinds.AFTER)
        configuration = plan.changed if of_change and plan.changed else plan.base
        environ = {
            **configuration.environ,
            "CACHEPOD_STORE": store.url,
            "CACHEPOD_PREFIX": str(place / "env"),
        }
        if kind != kinds.REPEATED and not drop_caches():
            store.forget()
        run = run_hook(
            plan.file,
            environ=environ,
            arguments=configuration.arguments,
            then=self._then,
            watch=True,
        )
        start = Start(kind, run, store.stored() if kind in (kinds.COLD, kinds.PARTIAL) else 0)
        self._starts.setdefault(kind, []).append(start)
        self.results.write(self._options.json)
        self._say(start)
        return start

    def _say(self, start: Start) -> None:
        done = sum(map(len, self._starts.values()))
        steps = ", ".join(f"{step.name} {step.cost.seconds:.2f}" for step in start.run.steps)
        said = f"{done}/{self._all}  {start.kind}: {start.run.seconds:.2f} s ({steps})"
        print("; ".join([said, *start.problems]), file=sys.stderr, flush=True)

    def _check_module(self, cold: Start) -> None:
        top = self._plan.module.partition(".")[0]
        for problem in cold.run.problems:
            if top and f"No module named '{top}" in problem:
                raise NoSuchModule(
                    f"--import {self._plan.module}: what {self._plan.title} installs has no "
                    f"such module ({problem})"
                )


def measured(plan: Plan, options: argparse.Namespace) -> tuple[Results, str]:
    """
    All rounds; what was found, and why it ended early, empty if it did not.

    Raises:
        CachepodError: The store cannot be written to.
    """
    with ExitStack() as stack:
        root = stack.enter_context(own_stores(plan.store, plan.name))
        first = OwnStore(below(root, "1"))
        try:
            first.check()
        except CachepodError:
            with suppress(CachepodError, OSError):
                first.remove()
            raise
        ground = stack.enter_context(open_ground(plan.scratch, plan.size, plain=options.plain))
        if not options.keep:
            stack.callback(_removed, first)
        measuring = Measuring(plan, options, ground)
        print(measuring.head(), end="\n\n", flush=True)
        why = ""
        try:
            for number in range(options.rounds):
                store = first if not number else OwnStore(below(root, str(number + 1)))
                try:
                    measuring.round(store)
                finally:
                    if not options.keep:
                        _removed(store)
        except (KeyboardInterrupt, SystemExit):  # the ground turns SIGTERM into the latter
            print(file=sys.stderr)
            why = "interrupted: what was measured until then is above"
        except NoSuchModule as error:
            why = str(error)
        except CachepodError as error:
            why = f"ended early: {error.message}"
        if options.keep:
            print(
                f"kept: {root}, with a store for each round; delete it when done", file=sys.stderr
            )
        return measuring.results, why


def _removed(store: OwnStore) -> None:
    """Remove *store*; what cannot be removed is said."""
    try:
        store.remove()
    except (CachepodError, OSError) as error:
        print(f"{store.url} could not be removed: {error}", file=sys.stderr)
