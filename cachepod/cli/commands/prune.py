"""``cachepod prune``."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from cachepod.cli.options import STORE, Invocation, subcommand
from cachepod.cli.render import (
    Document,
    Outcome,
    age,
    count,
    duration,
    failure,
    phases,
    printable,
    table,
)
from cachepod.cli.watchdog import timed_out
from cachepod.errors import (
    EXIT_DONE,
    EXIT_UNREACHABLE,
    EXIT_USAGE,
    CachepodError,
    UsageProblem,
    human_bytes,
)

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.snapshot.prune import PruneReport
    from cachepod.snapshot.survey import Plan
    from cachepod.stores.base import PruneStore

_HEADER = ("KEY", "LAST USED", "NEEDS", "ALONE", "FATE", "WHY")


@subcommand(
    "prune",
    *STORE,
    "keep_last",
    "max_age",
    "max_size",
    "keep",
    "grace",
    "timeout",
    expired=lambda seconds: timed_out("prune", seconds, EXIT_UNREACHABLE),
)
@click.option("--dry-run", is_flag=True, help="Show what would go and what would stay, and why.")
@click.option("--force", is_flag=True, help="Also if no snapshot is left.")
def command(call: Invocation, dry_run: bool, force: bool) -> Outcome:
    """
    Drop snapshots by rule, and delete what nothing needs.

    What any rule keeps stays; without a rule no snapshot goes, and only what dead publishes and the
    like have left is swept. Safe beside publishes, restores and other prunes: what is to be deleted
    is announced first, and looked at once more after a grace period. Each store is pruned on its
    own.
    """
    started = time.monotonic()
    settings = call.settings()
    call.limit(settings.timeout, stall=True)
    with call.display() as progress:
        from cachepod.snapshot.prune import prune
        from cachepod.snapshot.survey import Policy, plan_prune

        keyring = None
        if settings.signed:
            from cachepod.environment.trust import keyring_of

            keyring = keyring_of(settings, progress)
        policy = Policy(
            keep_last=settings.keep_last,
            max_age=settings.max_age,
            max_size=settings.max_size,
            keep=frozenset(settings.keep),
        )
        problem: CachepodError | None = None
        plans: list[tuple[PruneStore, Plan]] = []
        for store in call.stores(settings):
            try:
                plans.append((store, plan_prune(store, policy, keyring=keyring, progress=progress)))
            except CachepodError as error:
                if len(settings.store) > 1:
                    progress.note(error.message)
                problem = problem or error
        if not plans and problem is not None:
            raise problem
        _check_named(call, settings, [plan for _, plan in plans], complete=problem is None)
        refused = [] if force else [plan for _, plan in plans if plan.drops_all]
        reports: list[PruneReport | None] = [None] * len(plans)
        if not dry_run and not refused:
            for place, (store, plan) in enumerate(plans):
                try:
                    reports[place] = prune(
                        store, plan, grace=settings.grace, keyring=keyring, progress=progress
                    )
                except CachepodError as error:
                    if len(plans) > 1:
                        progress.note(error.message)
                    problem = problem or error
    done = [(plan, report) for (_, plan), report in zip(plans, reports, strict=True)]
    seconds = time.monotonic() - started
    return _outcome(call, done, dry_run, refused, problem, seconds)


def _check_named(
    call: Invocation, settings: Settings, plans: Sequence[Plan], *, complete: bool
) -> None:
    """
    A key to be kept that is in no store: a slip of the finger would drop the one that was meant.

    In a configuration it may be one that is yet to be published.
    """
    absent = [key for key in settings.keep if all(key in plan.absent for plan in plans)]
    if not absent:
        return
    sentence = f"no store has the snapshot {', '.join(absent)}, which is to be kept"
    if complete and settings.sources.get("keep", "").startswith("flag"):
        raise UsageProblem(f"--keep: {sentence}", hint="cachepod ls lists the keys")
    call.note(sentence)


def _outcome(
    call: Invocation,
    done: Sequence[tuple[Plan, PruneReport | None]],
    dry_run: bool,
    refused: Sequence[Plan],
    problem: CachepodError | None,
    seconds: float,
) -> Outcome:
    code = problem.exit_code if problem is not None else EXIT_DONE
    error = ""
    if refused:
        code = EXIT_USAGE
        number = sum(len(plan.verdicts) for plan in refused)
        what = "the only snapshot" if number == 1 else f"all {number:,} snapshots"
        where = ", ".join(plan.url for plan in refused)
        error = f"these rules would drop {what} of {where}; if that is meant, add --force"
    elif problem is not None:
        error = failure(problem).error
    document: Document = {
        "stores": [_document(plan, report) for plan, report in done],
        "dry_run": dry_run,
        "seconds": round(seconds, 3),
        "exit_code": code,
    }
    if error:
        document["error"] = error
    whole = dry_run or bool(refused) or call.console.verbose > 0
    return Outcome(
        document=document,
        text="\n\n".join(filter(None, (_text(plan, whole, len(done) > 1) for plan, _ in done))),
        error=printable(error),
        summary=_summary(done, dry_run, seconds) if not refused else "",
        exit_code=code,
    )


def _text(plan: Plan, whole: bool, named: bool) -> str:
    """The plan for a person; without *whole* only what goes."""
    rows = [
        (
            verdict.snapshot.key or verdict.snapshot.name,
            age(verdict.used),
            human_bytes(verdict.needs),
            human_bytes(verdict.exclusive),
            "stays" if verdict.kept else "goes",
            verdict.why,
        )
        for verdict in plan.verdicts
        if whole or not verdict.kept
    ]
    lines = [plan.url] if named else []
    if rows:
        lines += [table(_HEADER, rows, right="NEEDS ALONE"), ""]
    if whole:
        lines += _packs(plan)
    lines += _remarks(plan)
    return "\n".join(lines).rstrip()


def _packs(plan: Plan) -> list[str]:
    deleted = [pack for pack in plan.deleted if not pack.pinned]
    pinned = [pack for pack in plan.deleted if pack.pinned]
    kept, size = plan.kept_packs
    parts = [("to delete", len(deleted), sum(pack.size for pack in deleted))]
    parts += [("to delete if those who pinned them are dead", len(pinned), plan.pinned)]
    parts += [("to stay", kept, size)]
    lines = [
        f"{what}: {count(number, 'pack')}, {human_bytes(total)}"
        for what, number, total in parts
        if number
    ]
    if plan.rewritten:
        before = sum(pack.size for pack in plan.rewritten)
        after = sum(pack.after for pack in plan.rewritten)
        lines.append(
            f"to write anew without what nothing needs: {count(len(plan.rewritten), 'pack')}, "
            f"{human_bytes(before)} become {human_bytes(after)}"
        )
    if plan.swept or plan.leftovers:
        litter = sum(info.size for info in plan.swept) + sum(each.size for each in plan.leftovers)
        number = count(len(plan.swept) + len(plan.leftovers), "object")
        lines.append(f"to sweep: {number} of no use, {human_bytes(litter)}")
    if plan.watched:
        number = count(len(plan.watched), "object")
        lines.append(f"to sweep if those who hold them are dead: {number}")
    return lines


def _remarks(plan: Plan) -> list[str]:
    lines = []
    if plan.over:
        lines.append(f"{human_bytes(plan.over)} more than max_size stay, for rules keep the rest")
    if plan.missing:
        lines.append(
            f"snapshots need {count(len(plan.missing), 'pack')} not there: see cachepod verify"
        )
    return lines


def _summary(done: Sequence[tuple[Plan, PruneReport | None]], dry_run: bool, seconds: float) -> str:
    parts = []
    for plan, report in done:
        of = f"of {count(len(plan.verdicts), 'snapshot')}"
        if dry_run and not plan.idle:
            parts.append(
                f"would drop {len(plan.dropped):,} {of} and free {human_bytes(plan.freed)} "
                f"in {plan.url}"
            )
        elif plan.idle:
            parts.append(f"nothing to do in {plan.url}")
        elif report is not None:
            notes = "".join(f"; {note}" for note in report.notes)
            parts.append(
                f"dropped {len(report.dropped):,} {of}, deleted {count(report.deleted, 'pack')} "
                f"and freed {human_bytes(report.freed)} in {plan.url}"
                f"{phases(report.phases)}{notes}"
            )
    return f"{'; '.join(parts)} ({duration(seconds)})" if parts else ""


def _document(plan: Plan, report: PruneReport | None) -> Document:
    document: Document = {
        "store": plan.url,
        "snapshots": [
            {
                "key": verdict.snapshot.key or None,
                "manifest": verdict.snapshot.name,
                "kept": verdict.kept,
                "why": verdict.why,
                "last_used": verdict.used,
                "needs": verdict.needs,
                "exclusive": verdict.exclusive,
            }
            for verdict in plan.verdicts
        ],
        "packs": {
            "deleted": [
                {"id": pack.id, "size": pack.size, "pinned": pack.pinned} for pack in plan.deleted
            ],
            "rewritten": [
                {"id": pack.id, "size": pack.size, "after": pack.after} for pack in plan.rewritten
            ],
            "kept": {"count": plan.kept_packs[0], "size": plan.kept_packs[1]},
            "missing": list(plan.missing),
        },
        "swept": [info.name for info in plan.swept],
        "watched": [info.name for info in plan.watched],
        "leftovers": [each.name for each in plan.leftovers],
        "over": plan.over,
        "freed": plan.freed,
        "result": None,
    }
    if report is not None:
        document["result"] = {
            "dropped": list(report.dropped),
            "deleted": report.deleted,
            "rewritten": report.rewritten,
            "spared": report.spared,
            "swept": report.swept,
            "freed": report.freed,
            "phases": {name: round(value, 3) for name, value in report.phases.items()},
            "notes": list(report.notes),
        }
    return document
