"""
The command line: a group that imports a command's module only when that command is called.

A publish that finds its snapshot stored is run at every start of every container, so what it
imports counts.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

import click

from cachepod import __version__
from cachepod.cli.render import Console, Outcome, bug
from cachepod.cli.signals import Interrupted, raise_on_signals

# A command's name: the module under cachepod.cli.commands that has it as `command`, and its line
# in the list of commands.
COMMANDS = {
    "restore": ("restore", "Look the key up and bring the environment back from a snapshot."),
    "install": ("install", "Install what the configuration asks for into the prefix."),
    "publish": ("publish", "Store the environment under its key, unless it is stored already."),
    "up": ("up", "Restore, else install and publish; then run a command."),
    "run": ("run", "Run a command in the environment, nothing else."),
    "key": ("key", "Print the key, and on request what it is made of."),
    "config": ("config", "Print the effective configuration and where each value comes from."),
    "lock": ("lock", "Resolve the requirements into a lock file with hashes."),
    "ls": ("ls", "List the snapshots of the store."),
    "show": ("show", "Show one snapshot: its trees, distributions and sizes."),
    "diff": ("diff", "Show what changed between two snapshots."),
    "stats": ("stats", "Show what the stores hold and what they have been good for."),
    "verify": ("verify", "Read snapshots back and compare every digest."),
    "copy": ("copy", "Replicate snapshots from one store to another."),
    "prune": ("prune", "Drop snapshots by rule, and delete what nothing needs."),
    "doctor": ("doctor", "Check the machine, the volume and the interpreter."),
}

EPILOG = """\
The start-up hook of a container is

\b
    cachepod restore || cachepod install && cachepod publish

or, in one process, cachepod up -- COMMAND.

\b
Exit codes: 0 done, 1 failure, 2 usage, 3 miss, 4 partly restored,
5 store unreachable, 6 damaged data, 7 not enough space.

\b
Completion, for the start-up file of your shell:
    bash  eval "$(_CACHEPOD_COMPLETE=bash_source cachepod)"
    zsh   eval "$(_CACHEPOD_COMPLETE=zsh_source cachepod)"
    fish  _CACHEPOD_COMPLETE=fish_source cachepod | source
"""


class LazyGroup(click.Group):
    """Knows its commands by name, and the modules that hold them only when one is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order in which a newcomer needs them."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command called *cmd_name*, imported now."""
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(f"cachepod.cli.commands.{COMMANDS[cmd_name][0]}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands in the help, from the table alone."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, line) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    epilog=EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="cachepod", message="%(prog)s %(version)s")
def cli() -> None:
    """
    Start containers fast: bring an installed Python environment back from a snapshot.

    The first container for a set of requirements installs them and publishes a snapshot to the
    store, a directory on a network volume; every later one restores it in seconds.
    """


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code; see :mod:`cachepod.errors` for the table."""
    args = list(sys.argv[1:] if arguments is None else arguments)
    _prepare_streams()
    raise_on_signals()
    sys.exit(_run(args))


def _prepare_streams() -> None:
    """Whatever a supervisor has made of the standard streams, they can be written to."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed; the next file opened would take its number
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # until the process ends
        elif hasattr(stream, "reconfigure"):
            # A name that is not UTF-8 must not turn a finished restore into a failure.
            stream.reconfigure(errors="backslashreplace")


def _run(args: list[str]) -> int:
    console = Console(json="--json" in _own(args))
    try:
        code = cli.main(args, prog_name="cachepod", standalone_mode=False)
        _flush()
        return code if isinstance(code, int) else 0
    except click.ClickException as error:
        return _misused(error, console)
    except SystemExit:
        return 0  # what click does when the reader of its help has gone away
    except Interrupted as interrupted:
        sentence = f"stopped by {signal.Signals(interrupted.number).name}"
        code = interrupted.exit_code
        with suppress(OSError):
            console.show(Outcome(document={"error": sentence, "exit_code": code}, error=sentence))
        # Threads may still wait for a volume; an ordinary end would wait for them.
        _end(code)
    except (Exception, click.Abort) as error:
        console.show(bug(error, traceback.format_exc()))
    return 1


def _own(args: list[str]) -> list[str]:
    """The arguments before ``--``, which are cachepod's own."""
    return args[: args.index("--")] if "--" in args else args


def _misused(error: click.ClickException, console: Console) -> int:
    if console.json or not isinstance(error, click.UsageError):
        sentence = error.format_message()
        console.show(
            Outcome(
                document={"error": sentence, "exit_code": error.exit_code},
                error=sentence,
                exit_code=error.exit_code,
            )
        )
    else:
        try:
            error.show()
        except OSError:
            pass
    return error.exit_code


def _flush() -> None:
    """Write out what click has left in the buffers; a reader who has gone away is no failure."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError):
            stream.flush()
    os._exit(code)
