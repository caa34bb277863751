"""
What the commands share: their options, and the way from a function to an exit code.

A command is a function that takes an :class:`Invocation` and its own options, and returns an
:class:`Outcome`. Options that are settings (``--store``, ``--prefix``, ...) reach it through
``Invocation.settings``, merged with the environment and the configuration file.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cachepod.cli.progress import Display
from cachepod.cli.render import Console, Outcome, bug, failure, printable
from cachepod.errors import EXIT_FAILURE, CachepodError, TreeUnreadable, UsageProblem

if TYPE_CHECKING:
    from cachepod.cli.watchdog import Link
    from cachepod.environment.config import Settings
    from cachepod.stores.base import PruneStore

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

_ANSWERS = 15.0  # seconds for one look at the stores while a builder is waited for
DEFAULT_TIMEOUT = 180.0  # until the configuration is read, which may lie on the volume too


@dataclass
class Invocation:
    """One call of a command; *waited* are the seconds that do not count against its deadline."""

    console: Console
    flags: Mapping[str, object]
    link: Link | None = None
    waited: float = 0.0

    def settings(self) -> Settings:
        """The effective configuration; see :func:`cachepod.environment.config.load_settings`."""
        from cachepod.environment.config import load_settings

        try:
            here = Path.cwd()
        except FileNotFoundError:
            raise UsageProblem("the working directory is gone", hint="cd somewhere") from None
        settings = load_settings(self.flags, os.environ, here)
        for note in settings.notes:
            self.note(note)
        if self.console.verbose:
            from cachepod.environment.config import DEFAULT, rows

            for row in rows(settings):
                if row.source != DEFAULT:
                    self.note(f"{row.name} = {row.text} ({row.source})")
        return settings

    def stores(self, settings: Settings) -> list[PruneStore]:
        """The configured stores, nearest first."""
        from cachepod.stores.url import open_store

        if len(settings.store) > 1:
            from cachepod.stores.places import check_apart

            check_apart(settings.store)
        return [open_store(url, direct=settings.direct) for url in settings.store]

    def display(self) -> Display:
        """Progress for this call."""
        return Display(self.console, self.link.beat if self.link else None)

    def limit(self, seconds: float, *, stall: bool = False) -> None:
        """Set the deadline of a watched command; see :meth:`.watchdog.Link.limit`."""
        if self.link is not None:
            self.link.limit(seconds, stall=stall)

    @contextmanager
    def waiting(self, timeout: float) -> Iterator[None]:
        """
        What is done meanwhile may take long, as long as the store answers.

        Afterwards the deadline of *timeout* seconds goes on from where it was.
        """
        if not timeout:
            yield
            return
        started = time.monotonic()
        self.limit(max(timeout, _ANSWERS), stall=True)
        try:
            yield
        finally:
            self.waited += time.monotonic() - started
            self.limit(timeout + self.waited)

    def moved(self) -> None:
        """Tell the watchdog that the work goes on."""
        if self.link is not None:
            self.link.beat()

    def note(self, text: str) -> None:
        """Something that a user should know."""
        if not self.console.quiet:
            self.console.complain(f"cachepod: {printable(text)}")

    def mention(self, text: str) -> None:
        """Something that is of interest with ``-v`` only; nothing if empty."""
        if text and self.console.verbose:
            self.note(text)


def complete_key(
    ctx: click.Context, param: click.Parameter, incomplete: str
) -> list[click.shell_completion.CompletionItem]:
    """Keys of the store that begin with *incomplete*; none if anything goes wrong."""
    from click.shell_completion import CompletionItem

    from cachepod.model.names import MANIFESTS

    try:
        call = Invocation(Console(quiet=True), _given(ctx.params, ("store", "config")))
        found = set()
        for store in call.stores(call.settings()):
            for info in store.list(MANIFESTS):
                key = info.name.rpartition("/")[2]
                if key.startswith(incomplete):
                    found.add(key)
        return [CompletionItem(key) for key in sorted(found)]
    except Exception:  # a shell that waits for completions has no use for an error
        return []


# One entry for every option that is a setting: the field of Settings that it overrides.
_SETTINGS: dict[str, Decorator] = {
    "store": click.option(
        "--store",
        multiple=True,
        metavar="URL",
        help="Where snapshots lie: a directory or s3://bucket/prefix. Repeatable, nearest first.",
    ),
    "prefix": click.option(
        "--prefix", metavar="DIR", help="Where the environment lies or shall lie."
    ),
    "requirements": click.option(
        "-r",
        "--requirements",
        multiple=True,
        metavar="FILE",
        help="A file of requirements. Repeatable.",
    ),
    "trees": click.option(
        "--tree",
        "trees",
        multiple=True,
        metavar="NAME=DIR",
        help="A directory to capture besides the environment. Repeatable.",
    ),
    "key": click.option(
        "--key", metavar="NAME", help="A key of your own, for a snapshot of trees alone."
    ),
    "handler": click.option(
        "--handler", metavar="NAME", help="The kind of worker: tts, video, storage, audio, yours."
    ),
    "config": click.option(
        "--config", metavar="FILE", help="The configuration file, instead of cachepod.toml."
    ),
    "timeout": click.option(
        "--timeout",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="Give up when the volume does not answer; 0 waits for ever.",
    ),
    "wait": click.option(
        "--wait",
        type=click.FloatRange(min=0),
        metavar="SECONDS",
        help="How long to wait for another container that builds the key.",
    ),
    "fill": click.option(
        "--fill",
        type=click.Choice(["background", "after", "off"]),
        help="When a nearer store gets what a farther one had.",
    ),
    "threads": click.option(
        "--threads",
        type=click.IntRange(min=0),
        metavar="N",
        help="Threads; 0 counts the cores that this container may use.",
    ),
    "direct": click.option(
        "--direct/--no-direct",
        default=None,
        help="Whether big files are written, and network volumes read, past the page cache.",
    ),
    "level": click.option(
        "--level", type=click.IntRange(1, 22), metavar="N", help="zstd level, 1 to 22."
    ),
    "keep_last": click.option(
        "--keep-last",
        type=click.IntRange(min=0),
        metavar="N",
        help="Keep the newest N snapshots of each family.",
    ),
    "max_age": click.option(
        "--max-age", metavar="TIME", help="Keep what was used within TIME: 45s, 90m, 12h, 30d."
    ),
    "max_size": click.option(
        "--max-size",
        metavar="SIZE",
        help="Drop the least recently used until the store has SIZE: 500MB, 50GB, 40GiB.",
    ),
    "keep": click.option(
        "--keep",
        multiple=True,
        metavar="KEY",
        help="Keep this snapshot whatever the other rules say. Repeatable.",
        shell_complete=complete_key,
    ),
    "grace": click.option(
        "--grace", metavar="TIME", help="How long others get before anything is deleted: 180s."
    ),
    "cache_dir": click.option(
        "--cache-dir", metavar="DIR", help="Where the installer keeps its downloads."
    ),
}

STORE = ("store",)
KEY = ("prefix", "requirements", "trees", "key", "handler")


def all_settings() -> tuple[str, ...]:
    """The names of all settings that are options of some command."""
    return tuple(name for name in _SETTINGS if name != "config")


def _given(params: Mapping[str, object], settings: Container[str]) -> dict[str, object]:
    return {
        name: value
        for name, value in params.items()
        if name in settings and value is not None and value != ()
    }


def subcommand(
    name: str, *settings: str, expired: Callable[[float], Outcome] | None = None, **attributes: Any
) -> Callable[[Callable[..., Outcome]], click.Command]:
    """
    Make a command of a function ``(Invocation, **own options) -> Outcome``.

    Args:
        name: What the user types.

        settings: The settings that are options of this command; ``--config`` always is.

        expired: Makes the outcome of a missed deadline. With it the function runs in a child
            process that is left behind when the volume does not answer.

        attributes: More for :func:`click.command`.
    """

    def decorate(function: Callable[..., Outcome]) -> click.Command:
        flags = (*settings, "config")

        def run(as_json: bool, verbose: int, quiet: bool, **params: Any) -> int:
            own = {key: value for key, value in params.items() if key not in flags}
            call = Invocation(Console(as_json, quiet, verbose), _given(params, flags))
            if expired is None:
                outcome = guarded(lambda: function(call, **own))
            else:
                outcome = _watched(call, lambda inner: function(inner, **own), expired)
            return end(call.console, outcome)

        decorated: Callable[..., Any] = run
        for option in reversed([_SETTINGS[setting] for setting in flags]):
            decorated = option(decorated)
        for option in (
            click.option("-q", "--quiet", is_flag=True, help="Say nothing but errors."),
            click.option("-v", "--verbose", count=True, help="Say more; -vv with tracebacks."),
            click.option("--json", "as_json", is_flag=True, help="One JSON document on stdout."),
        ):
            decorated = option(decorated)
        for parameter in getattr(function, "__click_params__", []):
            decorated.__click_params__.append(parameter)  # type: ignore[attr-defined]
        decorated.__doc__ = function.__doc__
        return click.command(name, cls=click.Command, **attributes)(decorated)

    return decorate


def guarded(work: Callable[[], Outcome]) -> Outcome:
    """What *work* returns, or the outcome of what it raised; only Interrupted goes through."""
    try:
        return work()
    except CachepodError as error:
        return failure(error, traceback.format_exc())
    except OSError as error:
        if error.filename is None or error.strerror is None:
            return bug(error, traceback.format_exc())
        path = os.fsdecode(error.filename)
        return failure(TreeUnreadable(path, error.strerror.lower()), traceback.format_exc())
    except MemoryError:
        return Outcome(
            document={"error": "not enough memory", "exit_code": EXIT_FAILURE},
            error="not enough memory; give the container more, or use fewer --threads",
            exit_code=EXIT_FAILURE,
        )
    except Exception as error:
        return bug(error, traceback.format_exc())


def end(console: Console, outcome: Outcome) -> int:
    """Show *outcome* and give its exit code."""
    try:
        console.show(outcome)
    except OSError as error:
        console.complain(f"cachepod: stdout: {error.strerror}")
        # What could not be written is in the buffer still, and would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return outcome.exit_code or EXIT_FAILURE
    return outcome.exit_code


def _watched(
    call: Invocation,
    function: Callable[[Invocation], Outcome],
    expired: Callable[[float], Outcome],
) -> Outcome:
    timeout = call.flags.get("timeout", DEFAULT_TIMEOUT)
    assert isinstance(timeout, (int, float))
    return watched_stage(call, function, timeout, expired)


def watched_stage(
    call: Invocation,
    function: Callable[[Invocation], Outcome],
    limit: float,
    expired: Callable[[float], Outcome],
) -> Outcome:
    """Run *function* in a child with a deadline; see :func:`cachepod.cli.watchdog.watched`."""
    from cachepod.cli.watchdog import watched

    def work(link: Link) -> Outcome:
        inner = Invocation(call.console, call.flags, link)
        return guarded(lambda: function(inner))

    return watched(work, limit=limit, expired=expired)
