"""Progress: alive on a terminal, sparse in a log, silent when asked, and never in the way."""

from __future__ import annotations

import io
import re
import sys
import threading
import time
from pathlib import Path

import pytest

from cachepod.cli import progress as module
from cachepod.cli.progress import Display
from cachepod.cli.render import Console
from cachepod.snapshot.progress import Progress
from tests.support.cli import on_terminal


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module._Lines, "interval", 0.05)


def test_a_display_is_a_progress() -> None:
    told: Progress = Display(Console())
    told.phase("nothing")
    Display.close(told)  # type: ignore[arg-type]


@pytest.mark.usefixtures("hurried")
def test_a_log_gets_lines_with_bytes_files_share_and_rate(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Display(Console()) as display:
        display.phase("store", files=100, size=2_000_000_000)
        display.advance(25, 500_000_000)
        time.sleep(0.2)
    lines = capsys.readouterr().err.splitlines()
    assert lines
    assert re.fullmatch(
        r"cachepod: store: 500 MB of 2\.0 GB \(25%\), 25 of 100 \(25%\) files, "
        r"\d+(\.\d)? [MG]B/s, 0\.\d\d s",
        lines[0],
    )


@pytest.mark.usefixtures("hurried")
def test_a_phase_without_totals_still_shows_that_it_lives(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Display(Console()) as display:
        display.phase("resolve")
        time.sleep(0.2)
    assert re.match(r"cachepod: resolve: 0\.\d\d s\n", capsys.readouterr().err)


def test_a_short_phase_leaves_no_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Console()) as display:
        display.phase("plan", size=10)
        display.advance(1, 10)
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("hurried")
def test_quiet_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Console(quiet=True)) as display:
        display.phase("store", size=10)
        display.advance(1, 10)
        display.note("something")
        time.sleep(0.2)
    captured = capsys.readouterr()
    assert captured.err == captured.out == ""


def test_a_note_is_a_line_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    with Display(Console()) as display:
        display.note("a FIFO was left out: a\x1bb")
        display.phase("store")
        display.note("another")
    assert capsys.readouterr().err.splitlines() == [
        "cachepod: a FIFO was left out: a\\x1bb",
        "cachepod: another",
    ]


def test_workers_count_without_losing_anything() -> None:
    with Display(Console(quiet=False)) as display:
        display.phase("store")

        def work() -> None:
            for _ in range(5000):
                display.advance(1, 3)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert display._state is not None
        assert (display._state.files, display._state.size) == (20000, 60000)


def test_no_thread_is_left_that_a_fork_could_meet() -> None:
    before = threading.active_count()
    display = Display(Console())
    display.phase("store", size=1)
    assert threading.active_count() == before + 1
    display.close()
    assert threading.active_count() == before


def test_everything_that_moves_tells_the_watchdog_even_when_quiet() -> None:
    beats: list[int] = []
    with Display(Console(quiet=True), beat=lambda: beats.append(1)) as display:
        display.phase("store")
        display.advance(1, 1)
        display.advance(1, 1)
    assert len(beats) == 3


class Gone(io.StringIO):
    """A stderr whose reader has gone away."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.mark.usefixtures("hurried")
def test_a_log_that_nobody_reads_any_more_does_not_stop_the_work(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    with Display(Console()) as display:
        display.phase("store", size=10)
        display.note("something")
        time.sleep(0.2)
        display.advance(1, 10)


PROGRAM = """
import time
from cachepod.cli.progress import Display
from cachepod.cli.render import Console

with Display(Console()) as display:
    display.phase("store", files=100, size=2_000_000_000)
    for _ in range(10):
        display.advance(5, 100_000_000)
        time.sleep(0.05)
    display.note("one was left out")
    display.phase("compile", files=50)
    display.advance(10, 0)
    time.sleep(0.3)
    display.phase("resolve")
    time.sleep(0.3)
"""


def test_a_terminal_gets_a_live_bar(tmp_path: Path) -> None:
    code, shown = on_terminal([sys.executable, "-c", PROGRAM], cwd=tmp_path)
    assert code == 0
    assert re.search(
        r"store: +\d+%\|[^\r]*\| \d+[\d.]*[MG]/2\.00G, \d+/100 files, \d[\d.]*[MG]B/s", shown
    )
    assert "cachepod: one was left out" in shown
    assert re.search(r"compile:\s+20%", shown)
    assert "resolve:" in shown


def test_a_dumb_terminal_gets_lines(tmp_path: Path) -> None:
    code, shown = on_terminal([sys.executable, "-c", PROGRAM], cwd=tmp_path, env={"TERM": "dumb"})
    assert code == 0
    assert "%|" not in shown
    assert "one was left out" in shown
