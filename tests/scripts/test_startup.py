"""The start-up script, by starting it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.startup import Container, lines, snapshots


@pytest.fixture
def container(tmp_path: Path) -> Container:
    return Container(tmp_path)


def said(result_err: str) -> list[str]:
    """The script's own lines, with every number of seconds as N."""
    return [
        re.sub(r"\d+\.\d s", "N s", re.sub(r" \d+\.\d(?=[,)])", " N", line))
        for line in lines(result_err)
    ]


def test_a_cold_start_installs_publishes_and_starts_the_handler(container: Container) -> None:
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err) == [
        "restore: miss after N s: installing",
        "install: done in N s",
        "publish: done in N s",
        f"ready after N s (restore N, install N, publish N): starting {container.handlers}/tts.py",
    ]
    assert len(snapshots(container.store)) == 1


def test_a_warm_start_restores_and_installs_nothing(container: Container) -> None:
    container.start_up()
    container.wipe()
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err) == [
        "restore: hit in N s",
        f"ready after N s (restore N): starting {container.handlers}/tts.py",
    ]


def test_the_exit_code_is_the_handlers(container: Container) -> None:
    assert container.start_up(env={"ENDS_WITH": "17"}).code == 17
