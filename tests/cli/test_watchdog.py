"""A deadline must hold against work that nothing can wake."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cachepod.cli.render import Outcome
from cachepod.cli.signals import Interrupted
from cachepod.cli.watchdog import Link, timed_out, watched
from tests.support.cli import ROOT, children, wait_until


def expired(seconds: float) -> Outcome:
    return timed_out("restore", seconds, 3)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


def test_the_outcome_comes_back_whole() -> None:
    sent = Outcome(
        document={"files": 3, "name": "f\udcff", "big": "x" * 300_000},
        text="text",
        summary="summary",
        error="error",
        details=("one", "two"),
        trace="trace",
        exit_code=4,
    )
    assert watched(lambda link: sent, limit=20, expired=expired) == sent


def test_work_that_never_returns_is_given_up_at_the_deadline() -> None:
    started = time.monotonic()
    outcome = watched(lambda link: signal.pause() or Outcome(), limit=0.3, expired=expired)
    assert outcome.exit_code == 3
    assert "0.30 s" in outcome.error
    assert time.monotonic() - started < 3


def test_a_child_that_ignores_every_signal_is_killed(tmp_path: Path) -> None:
    def work(link: Link) -> Outcome:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        (tmp_path / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(60)

    outcome = watched(work, limit=0.3, expired=expired)
    assert outcome.exit_code == 3
    assert not alive(int((tmp_path / "pid").read_text()))


def test_a_stopped_child_is_given_up_too() -> None:
    def work(link: Link) -> Outcome:
        os.kill(os.getpid(), signal.SIGSTOP)
        return Outcome()

    assert watched(work, limit=0.3, expired=expired).exit_code == 3


def test_the_child_sets_the_deadline_that_its_configuration_has() -> None:
    def work(link: Link) -> Outcome:
        link.limit(0.2)
        time.sleep(30)
        return Outcome()

    started = time.monotonic()
    outcome = watched(work, limit=100, expired=expired)
    assert "0.20 s" in outcome.error
    assert time.monotonic() - started < 5


def test_no_deadline_is_no_deadline() -> None:
    def work(link: Link) -> Outcome:
        link.limit(0)
        time.sleep(0.6)
        return Outcome(text="done")

    assert watched(work, limit=0.3, expired=expired).text == "done"


def test_work_that_moves_may_take_longer_than_a_stall_is_allowed() -> None:
    def work(link: Link) -> Outcome:
        link.limit(1.6, stall=True)
        for _ in range(25):
            time.sleep(0.1)
            link.beat()
        return Outcome(text="done")

    assert watched(work, limit=100, expired=expired).text == "done"


def test_work_that_stalls_is_given_up() -> None:
    def work(link: Link) -> Outcome:
        link.limit(0.5, stall=True)
        time.sleep(30)
        return Outcome()

    assert watched(work, limit=100, expired=expired).exit_code == 3


def test_what_is_done_counts_even_if_the_child_cannot_end() -> None:
    def work(link: Link) -> Outcome:
        link.result(Outcome(text="done"))
        time.sleep(60)
        return Outcome()

    started = time.monotonic()
    assert watched(work, limit=100, expired=expired).text == "done"
    assert time.monotonic() - started < 5


def test_a_child_killed_by_the_kernel_is_a_failure_with_a_reason() -> None:
    def work(link: Link) -> Outcome:
        os.kill(os.getpid(), signal.SIGKILL)
        return Outcome()

    outcome = watched(work, limit=20, expired=expired)
    assert outcome.exit_code == 1
    assert "memory" in outcome.error


def test_a_signal_to_the_child_alone_counts_as_one_to_the_command() -> None:
    def work(link: Link) -> Outcome:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        return Outcome()

    with pytest.raises(Interrupted) as caught:
        watched(work, limit=20, expired=expired)
    assert caught.value.exit_code == 143


PROGRAM = """
import os, pathlib, sys, time
from cachepod.cli.render import Outcome
from cachepod.cli.signals import Interrupted
from cachepod.cli.watchdog import watched

def work(link):
    here = pathlib.Path(sys.argv[1])
    try:
        (here / "started").write_text(str(os.getpid()))
        time.sleep(60)
    finally:
        time.sleep(float(sys.argv[2]))
        (here / "cleaned").touch()
    return Outcome()

try:
    watched(work, limit=100, expired=lambda seconds: Outcome(exit_code=3))
except Interrupted as error:
    sys.exit(error.exit_code)
"""


def start(here: Path, cleaning: float = 0.0) -> subprocess.Popen[bytes]:
    child = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(here), str(cleaning)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    wait_until((here / "started").exists)
    wait_until(lambda: children(child.pid))
    time.sleep(0.05)
    return child


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_reaches_the_child_which_cleans_up(tmp_path: Path, number: int, code: int) -> None:
    child = start(tmp_path)
    child.send_signal(number)
    assert child.wait(20) == code
    assert (tmp_path / "cleaned").exists()


def test_a_second_signal_does_not_wait_for_the_cleaning(tmp_path: Path) -> None:
    child = start(tmp_path, cleaning=30)
    child.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    child.send_signal(signal.SIGTERM)
    assert child.wait(5) == 143
    assert not (tmp_path / "cleaned").exists()


def test_a_killed_parent_takes_its_child_along(tmp_path: Path) -> None:
    child = start(tmp_path)
    worker = int((tmp_path / "started").read_text())
    child.kill()
    child.wait()
    wait_until(lambda: not alive(worker), message="the worker outlived its parent")
    assert not (tmp_path / "cleaned").exists()


LEFT_BEHIND = """
import os, sys, time
from cachepod.cli.render import Outcome
from cachepod.cli.watchdog import watched

def work(link):
    # Another session: out of reach, as a process is that waits in the kernel.
    if os.fork() == 0:
        os.setsid()
        time.sleep(60)
        os._exit(0)
    os.write(1, b"a part\\n")
    os.write(2, b"so far\\n" + 200_000 * b".")
    time.sleep(60)

outcome = watched(work, limit=1, expired=lambda seconds: Outcome(exit_code=3))
print("document", outcome.exit_code)
print("given up", file=sys.stderr)
"""


def test_what_is_left_behind_does_not_hold_the_output_open() -> None:
    """Else ``(cachepod restore || cachepod install) | tee log`` would not end."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT_BEHIND],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert done.stdout == "a part\ndocument 3\n"
    assert done.stderr == "so far\n" + 200_000 * "." + "given up\n"


def test_a_reader_that_has_gone_does_not_end_the_command() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", LEFT_BEHIND],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stderr is not None
        assert running.stdout is not None
        running.stderr.close()
        assert running.stdout.read() == b"a part\ndocument 3\n"
