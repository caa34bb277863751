"""The health check of a container, on processes written down and on real ones."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.support.startup import SCRIPTS, Container

CHECK = SCRIPTS / "healthcheck-runpod.sh"
STARTUP = "/usr/local/bin/startup-runpod.sh"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    return tmp_path / "proc"


def process(proc: Path, pid: int, *words: str, parent: int = 0) -> None:
    (proc / str(pid)).mkdir(parents=True)
    (proc / str(pid) / "cmdline").write_text("".join(f"{word}\0" for word in words))
    (proc / str(pid) / "status").write_text(f"Name:\tx\nPid:\t{pid}\nPPid:\t{parent}\n")


def healthy(proc: Path) -> bool:
    done = subprocess.run([CHECK, proc], capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1)
    assert done.stderr == ""
    return done.returncode == 0


def test_while_the_start_up_script_is_process_1_the_container_is_starting(proc: Path) -> None:
    process(proc, 1, "/bin/bash", STARTUP, "python", "handler.py")
    process(proc, 9, "cachepod", "restore", parent=1)
    assert not healthy(proc)


def test_once_the_handler_has_taken_its_place_the_container_is_healthy(proc: Path) -> None:
    process(proc, 1, "python", "-u", "/app/handlers/tts.py")
    assert healthy(proc)


def test_a_publish_beside_the_handler_makes_nothing_of_that(proc: Path) -> None:
    process(proc, 1, "python", "-u", "/app/handlers/tts.py")
    process(proc, 9, "/bin/bash", STARTUP, parent=1)
    assert healthy(proc)


def test_under_an_init_the_script_is_looked_for_among_its_children(proc: Path) -> None:
    process(proc, 1, "/sbin/docker-init", "--", STARTUP, "python", "handler.py")
    process(proc, 7, "/bin/bash", STARTUP, "python", "handler.py", parent=1)
    assert not healthy(proc)


def test_under_an_init_the_handler_makes_the_container_healthy(proc: Path) -> None:
    process(proc, 1, "/sbin/docker-init", "--", STARTUP, "python", "handler.py")
    process(proc, 7, "python", "handler.py", parent=1)
    process(proc, 9, "/bin/bash", STARTUP, parent=7)
    assert healthy(proc)


def test_a_process_that_ends_meanwhile_is_no_failure(proc: Path) -> None:
    process(proc, 1, "/sbin/docker-init", "--", STARTUP)
    process(proc, 7, "/bin/bash", STARTUP, parent=1)
    (proc / "7/cmdline").unlink()
    assert healthy(proc)


@pytest.mark.root
def test_a_real_container_is_starting_during_the_hook_and_healthy_in_the_handler(
    tmp_path: Path,
) -> None:
    container = Container(tmp_path)
    container.tool(
        "cachepod",
        f'[ "$1" != restore ] || {{ {CHECK}; echo "hook: $?" >&2; }}\n'
        + (container.bin / "cachepod").read_text().partition("\n")[2],
    )
    running = container.boxed("sh", "-c", f"{CHECK}; echo handler: $?")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert "hook: 1" in err
    assert out == "handler: 0\n"
