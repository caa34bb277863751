"""``cachepod up``."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from cachepod.cli.describe import attempts, installation, publication, restoration
from cachepod.cli.execute import execute
from cachepod.cli.options import KEY, STORE, Invocation, guarded, subcommand, watched_stage
from cachepod.cli.render import Document, Outcome, duration
from cachepod.cli.watchdog import timed_out
from cachepod.errors import EXIT_MISS, EXIT_UNREACHABLE

if TYPE_CHECKING:
    from cachepod.environment.config import Settings
    from cachepod.environment.identity import Identity


@subcommand(
    "up",
    *STORE,
    *KEY,
    "wait",
    "timeout",
    "fill",
    "threads",
    "direct",
    "level",
    "cache_dir",
    context_settings={"allow_interspersed_args": False},
)
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="[-- CMD...]")
def command(call: Invocation, words: tuple[str, ...]) -> Outcome:
    """
    The whole hook in one process: restore, else install and publish; then run a command.

    The command takes this process's place, with the environment first on its PATH. It starts
    even if the cache failed, as long as the install worked.
    """
    from cachepod.environment.identity import identify

    started = time.monotonic()
    settings = call.settings()
    identity = identify(settings)
    document: Document = {"key": identity.key, "exit_code": 0}

    def stage(name: str, outcome: Outcome) -> Outcome:
        document[name] = outcome.document
        call.console.show_stage(outcome)
        return outcome

    with _handing_over(settings, identity.key):
        restored = stage("restore", _restore(call, settings, identity))
        if restored.exit_code:
            installed = stage("install", _install(call, settings, identity))
            if installed.exit_code:
                return Outcome(document=installed.document, exit_code=installed.exit_code)
            stage("publish", _publish(call, settings, identity))
        elif settings.fill == "after" and len(settings.store) > 1:
            stage("publish", _publish(call, settings, identity))
    outcome = Outcome(
        document=document, summary=f"up: {identity.key} in {duration(time.monotonic() - started)}"
    )
    if not words:
        return outcome
    call.console.show(outcome)
    return execute(words, settings, settings.prefix if settings.wants_environment else None)


@contextmanager
def _handing_over(settings: Settings, key: str) -> Iterator[None]:
    """
    Nobody waits for this container in vain, however the stages end.

    Each of them sees to the lease itself, unless it was killed because the volume hung.
    """
    from cachepod.environment.building import abandon

    try:
        yield
    except BaseException:
        abandon(settings, key, failed=False)
        raise
    abandon(settings, key, failed=True)


def _restore(call: Invocation, settings: Settings, identity: Identity) -> Outcome:
    from cachepod.cli.profile import profile_line
    from cachepod.environment.account import note_restore
    from cachepod.environment.restoration import restore_environment

    def work(inner: Invocation) -> Outcome:
        started = time.monotonic()
        stores = inner.stores(settings)
        with inner.display() as progress:
            result = restore_environment(
                settings,
                identity,
                stores,
                progress=progress,
                pause=lambda: inner.waiting(settings.timeout),
            )
        seconds = time.monotonic() - started
        inner.mention(profile_line("restore", result.report))
        inner.mention(note_restore(result, stores, seconds))
        return restoration(result, settings, identity, seconds)

    return watched_stage(
        call,
        work,
        settings.timeout,
        lambda seconds: timed_out("restore", seconds, EXIT_MISS),
    )


def _install(call: Invocation, settings: Settings, identity: Identity) -> Outcome:
    from cachepod.environment.hook import install_environment

    def work() -> Outcome:
        started = time.monotonic()
        with call.display() as progress:
            report = install_environment(settings, identity, progress=progress)
        for line in attempts(report):
            call.mention(line)
        return installation(report, identity.key, settings, time.monotonic() - started)

    return guarded(work)


def _publish(call: Invocation, settings: Settings, identity: Identity) -> Outcome:
    from cachepod.cli.profile import profile_line
    from cachepod.environment.account import note_publish
    from cachepod.environment.hook import publish_environment

    def work(inner: Invocation) -> Outcome:
        started = time.monotonic()
        inner.limit(settings.timeout, stall=True)
        stores = inner.stores(settings)
        with inner.display() as progress:
            done = publish_environment(settings, identity, stores, progress=progress)
        seconds = time.monotonic() - started
        for each in done:
            inner.mention(profile_line(f"publish to {each.store}", each.report))
        inner.mention(note_publish(done, stores, identity.key))
        return publication(done, identity.key, seconds)

    return watched_stage(
        call,
        work,
        settings.timeout,
        lambda seconds: timed_out("publish", seconds, EXIT_UNREACHABLE),
    )
