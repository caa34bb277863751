"""Hand this process over to a command."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cachepod.cli.render import Outcome
from cachepod.cli.signals import default_signals

if TYPE_CHECKING:
    from cachepod.environment.config import Settings


def execute(words: Sequence[str], settings: Settings, prefix: Path | None) -> Outcome:
    """
    Replace this process by the command *words*.

    Args:
        words: Program and arguments.

        settings: Whether there is a CUDA toolkit, and where.

        prefix: The environment that comes first on its PATH; None for none.

    Returns:
        Only if that failed, with a shell's exit code for it: 127 not found, 126 not executable.
    """
    from cachepod.environment.hook import environment_of

    environ = environment_of(settings, prefix, os.environ)
    sys.stdout.flush()
    sys.stderr.flush()
    default_signals()
    # The interpreter ignores these two, and what is ignored stays ignored across an exec.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        os.execvpe(words[0], list(words), environ)
    except OSError as error:
        sentence, code = _why_not(error, words[0])
    except ValueError:  # a null byte
        sentence, code = f"{words[0]!r} is no command", 127
    return Outcome(document={"error": sentence, "exit_code": code}, error=sentence, exit_code=code)


def _why_not(error: OSError, command: str) -> tuple[str, int]:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return f"{command}: command not found", 127
    return f"{command}: {(error.strerror or str(error)).lower()}", 126
