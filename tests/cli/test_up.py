"""One process for the whole hook, and the command that takes its place."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support.builders import somebody_builds
from tests.support.cli import children, wait_until
from tests.support.project import Project

PROBE = (
    "import alpha, json, os, sys\n"
    "print(json.dumps({'alpha': alpha.__version__, 'prefix': sys.prefix, 'words': sys.argv[1:],"
    " 'env': dict(os.environ), 'pid': os.getpid()}))\n"
)


def test_up_installs_publishes_and_runs_the_command_in_the_environment(project: Project) -> None:
    result = project.run("up", "--", "python", "-c", PROBE, "--json", "-v", env={"PYTHONHOME": ""})
    assert result.code == 0, result.err
    told = result.json
    assert told["alpha"] == "1.0"
    assert told["prefix"] == str(project.prefix)
    assert told["words"] == ["--json", "-v"]
    assert told["env"]["VIRTUAL_ENV"] == str(project.prefix)
    assert told["env"]["PATH"].split(":")[0] == str(project.prefix / "bin")
    assert "PYTHONHOME" not in told["env"]
    assert project.manifests()
    for said in ("miss: ", "installed ", " stored in ", "up: "):
        assert said in result.err


def test_up_restores_what_is_stored(project: Project) -> None:
    project.ready()
    project.wipe()
    result = project.run("up", "--", "python", "-c", PROBE)
    assert result.json["alpha"] == "1.0"
    assert "restored" in result.err
    assert "installed" not in result.err


def test_up_tops_up_a_relative_and_publishes_the_whole(project: Project) -> None:
    project.ready()
    project.wipe()
    project.configure('["alpha==1.0", "beta"]')
    result = project.run("up", "--json")
    assert result.code == 0
    assert result.json["restore"]["outcome"] == "partial"
    assert result.json["install"]["outcome"] == "topped up"
    assert result.json["publish"]["outcome"] == "stored"
    assert len(project.manifests()) == 2


def test_up_is_one_json_document(project: Project) -> None:
    document = project.run("up", "--json").json
    assert document["exit_code"] == 0
    assert document["restore"]["outcome"] == "miss"
    assert document["install"]["outcome"] == "installed"
    assert document["publish"]["outcome"] == "stored"
    again = project.run("up", "--json").json
    assert again["restore"]["outcome"] == "confirmed"
    assert "install" not in again


def test_the_command_starts_even_if_the_cache_failed(project: Project) -> None:
    project.store.write_text("not a directory")
    result = project.run("up", "--", "python", "-c", PROBE)
    assert result.code == 0
    assert result.json["alpha"] == "1.0"
    assert "store" in result.err


def test_the_command_starts_even_if_the_volume_hangs(project: Project) -> None:
    project.ready()
    project.wipe()
    running = project.start("up", "--timeout", "2", "--", "python", "-c", PROBE)
    worker = wait_until(lambda: children(running.pid), message="no worker was started")[0]
    os.kill(worker, signal.SIGSTOP)
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert json.loads(out)["alpha"] == "1.0"
    assert json.loads(out)["pid"] == running.pid
    assert "restore did not end within 2.00 s" in err
    assert "installed" in err


def test_the_command_does_not_start_without_an_environment(project: Project) -> None:
    project.configure('["no-such-package-anywhere"]')
    result = project.run("up", "--", "sh", "-c", "echo started")
    assert result.code == 1
    assert "started" not in result.out
    assert project.run("up", "--json").json["exit_code"] == 1


def test_a_damaged_snapshot_is_replaced_by_up(project: Project) -> None:
    project.ready()
    project.wipe()
    pack = max(project.packs(), key=lambda path: path.stat().st_size)
    os.truncate(pack, 1000)
    document = project.run("up", "--json").json
    assert document["restore"]["outcome"] == "damaged"
    assert document["publish"]["outcome"] == "stored"
    project.wipe()
    assert project.run("restore").code == 0
    assert project.version_of("alpha") == "1.0"


def publish_what_does_not_work(project: Project) -> None:
    """A snapshot published without a check, and without what the configuration checks for."""
    project.configure(more="")
    config = project.root / "cachepod.toml"
    text = config.read_text()
    config.write_text(text.replace('check = ["alpha"]', "check = []"))
    assert project.run("install").code == 0
    package = next(project.prefix.glob("lib/python*/site-packages/alpha"))
    (package / "__init__.py").write_text("raise ImportError('half of it is missing')\n")
    assert project.run("publish").code == 0
    config.write_text(text)
    project.wipe()


def test_a_snapshot_that_does_not_work_is_replaced_by_up(project: Project) -> None:
    publish_what_does_not_work(project)
    result = project.run("up", "--json")
    assert result.json["restore"]["outcome"] == "miss"
    assert "half of it is missing" in result.err
    assert result.json["publish"]["outcome"] == "stored"
    project.wipe()
    assert project.run("restore").code == 0
    assert project.version_of("alpha") == "1.0"


def test_a_snapshot_that_does_not_work_is_replaced_by_the_hook_of_three_commands(
    project: Project,
) -> None:
    publish_what_does_not_work(project)
    assert project.run("restore").code == 3
    assert project.run("install").code == 0
    assert project.run("publish", "--json").json["outcome"] == "stored"
    assert project.run("publish", "--json").json["outcome"] == "present"
    project.wipe()
    assert project.run("restore").code == 0
    assert project.version_of("alpha") == "1.0"


def test_the_exit_code_is_the_command_s(project: Project) -> None:
    project.ready()
    assert project.run("up", "--", "sh", "-c", "exit 42").code == 42
    assert project.run("run", "--", "sh", "-c", "exit 42").code == 42


def test_the_command_takes_the_place_of_the_process(project: Project) -> None:
    project.ready()
    running = project.start("run", "--", "sleep", "60")
    command_line = Path(f"/proc/{running.pid}/cmdline")
    wait_until(lambda: b"sleep" in command_line.read_bytes().split(b"\0")[0])
    running.terminate()
    running.communicate(timeout=10)
    assert running.returncode == -signal.SIGTERM


def test_the_command_inherits_no_ignored_or_blocked_signals(project: Project) -> None:
    project.ready()
    hangup = signal.getsignal(signal.SIGHUP)
    for command in ("run", "up"):
        signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored here already
        try:
            shown = project.run(command, "--", "grep", "-E", "^Sig(Ign|Blk)", "/proc/self/status")
        finally:
            signal.signal(signal.SIGHUP, hangup)
        masks = [int(line.split()[1], 16) for line in shown.out.splitlines()]
        # From 32 on they are the C library's own, and whatever runs the tests may ignore those.
        assert [mask & 0x7FFFFFFF for mask in masks] == [0, 0]


def test_the_command_s_options_are_its_own(project: Project) -> None:
    project.ready()
    result = project.run("run", "python", "-c", PROBE, "--json", "-q")
    assert result.json["words"] == ["--json", "-q"]
    assert project.run("run", "--jsn", "python").code == 2


def test_commands_that_cannot_run_end_as_in_a_shell(project: Project) -> None:
    project.ready()
    missing = project.run("run", "--", "no-such-command")
    assert missing.code == 127
    assert missing.err == "cachepod: no-such-command: command not found\n"
    assert project.run("run", "--", "./cachepod.toml").code == 126
    assert project.run("run", "--", str(project.root)).code == 126


def test_run_needs_an_environment(project: Project) -> None:
    result = project.run("run", "--", "python", "-V")
    assert result.code == 1
    assert "there is no environment" in result.err
    assert "cachepod up" in result.err


def test_run_does_not_touch_the_store(project: Project) -> None:
    project.ready()
    project.configure(more="level = 5")
    (project.root / "cachepod.toml").write_text('store = ["/proc/nowhere"]\n')
    result = project.run("run", "python", "-c", PROBE)
    assert result.json["alpha"] == "1.0"


def test_trees_alone_are_brought_up_too(project: Project) -> None:
    (project.root / "cachepod.toml").write_text('store = ["store"]\nkey = "data"\n')
    data = project.root / "data"
    data.mkdir()
    (data / "file").write_text("x")
    words = ("--tree", f"data={data}")
    first = project.run("up", *words, "--", "sh", "-c", "echo $VIRTUAL_ENV; cat data/file")
    assert (first.code, first.out) == (0, "\nx")
    (data / "file").unlink()
    data.rmdir()
    second = project.run("up", *words, "--", "cat", "data/file")
    assert (second.code, second.out) == (0, "x")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_up_before_the_command_starts(
    project: Project, number: int, code: int
) -> None:
    with somebody_builds(project):
        running = project.start("up", "--wait", "60", "--", "sh", "-c", "echo started")
        wait_until(lambda: children(running.pid), message="no worker was started")
        time.sleep(0.5)
        running.send_signal(number)
        out, err = running.communicate(timeout=30)
    assert running.returncode == code
    assert out == ""
    assert "Traceback" not in err
