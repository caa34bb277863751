"""The start-up script, by starting it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support import cli
from tests.support.cli import wait_until
from tests.support.startup import CACHEPOD, STARTUP, Container, lines, snapshots


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
        "ready after N s (restore N, install N, publish N): "
        f"starting {container.handlers}/greeter.py",
    ]
    assert len(snapshots(container.store)) == 1


def test_a_warm_start_restores_and_installs_nothing(container: Container) -> None:
    container.start_up()
    container.wipe()
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err) == [
        "restore: hit in N s",
        f"ready after N s (restore N): starting {container.handlers}/greeter.py",
    ]


def test_the_exit_code_is_the_handlers(container: Container) -> None:
    assert container.start_up(env={"ENDS_WITH": "17"}).code == 17


def test_a_command_takes_the_place_of_the_handler(container: Container) -> None:
    done = container.start_up("--", "python", "-c", "import alpha; print(alpha.__version__)")
    assert (done.code, done.out) == (0, "1.0\n"), done.err


def test_the_default_handler_serves_a_type_without_a_file(container: Container) -> None:
    container.handler("handler", "print('any type')")
    done = container.start_up(env={"HANDLER_TYPE": "singer"})
    assert (done.code, done.out) == (0, "any type\n"), done.err
    done = container.start_up(env={"HANDLER_TYPE": ""})
    assert (done.code, done.out) == (0, "any type\n"), done.err
    assert "HANDLER_TYPE is empty" in done.err


@pytest.mark.parametrize(
    ("handler_type", "sentence"),
    [
        ("", "HANDLER_TYPE is empty and there is no command"),
        ("speech", "there is no handler for HANDLER_TYPE=speech"),
        ("../greeter", "HANDLER_TYPE is not a name"),
    ],
)
def test_without_a_handler_it_says_which_there_are(
    container: Container, handler_type: str, sentence: str
) -> None:
    container.handler("audio", "")
    done = container.start_up(env={"HANDLER_TYPE": handler_type})
    assert done.code == 2
    (line,) = lines(done.err)
    assert sentence in line
    assert "audio, greeter" in line
    assert not container.prefix.exists()


def test_a_relative_is_topped_up(container: Container) -> None:
    container.configure('["alpha==1.0", "beta==1.0"]')
    container.start_up()
    container.wipe()
    container.configure('["alpha==2.0", "beta==1.0"]')
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 2.0\n"), done.err
    assert said(done.err)[0] == "restore: a relative, to be topped up after N s: installing"
    assert len(snapshots(container.store)) == 2


def test_a_damaged_snapshot_is_installed_and_stored_anew(container: Container) -> None:
    container.start_up()
    container.wipe()
    for pack in (container.store / "packs").glob("*/*"):
        pack.write_bytes(b"\xff" * pack.stat().st_size)
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[0] == "restore: the snapshot is damaged after N s: installing"
    container.wipe()
    assert said(container.start_up().err)[0] == "restore: hit in N s"


def test_a_store_that_is_out_of_reach_keeps_no_worker_from_starting(container: Container) -> None:
    container.store.write_text("this is no directory")
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[:3] == [
        "restore: the store could not be reached after N s: installing",
        "install: done in N s",
        "publish: the store could not be reached after N s: the next new container installs again",
    ]


# ---------------------------------------------------------------- configuration


def test_a_configuration_that_cannot_be_used_is_told_before_anything_is_installed(
    container: Container,
) -> None:
    container.configure(more="level = 99")
    done = container.start_up()
    assert done.code == 2
    assert re.search(r"cachepod: .*cachepod\.toml:5: .*level", done.err)
    assert lines(done.err) == [
        "the configuration cannot be used, as said above: mend it; nothing was installed"
    ]
    assert not container.prefix.exists()


def test_a_wrong_variable_about_caching_costs_the_cache_alone(container: Container) -> None:
    done = container.start_up(env={"CACHEPOD_LEVEL": "99"})
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert "CACHEPOD_LEVEL: level must be" in done.err
    assert "this start does without a cache" in done.err
    assert not container.store.exists()


def test_knobs_that_make_no_sense_are_told_and_passed_over(container: Container) -> None:
    done = container.start_up(
        env={
            "STARTUP_VOLUME_WAIT": "soon",
            "STARTUP_PUBLISH": "perhaps",
            "STARTUP_WARN_AT": "700",
            "RUNPOD_INIT_TIMEOUT": "-1",
        }
    )
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert lines(done.err)[:4] == [
        "STARTUP_VOLUME_WAIT must be a whole number from 0 to 3600, not 'soon': going on with 60",
        "STARTUP_WARN_AT must be a whole number from 1 to 100, not '700': going on with 70",
        "RUNPOD_INIT_TIMEOUT must be a whole number from 1 to 86400, not '-1': going on with 420",
        "STARTUP_PUBLISH must be before, beside or off, not 'perhaps': going on with before",
    ]


def test_a_store_in_s3_is_not_waited_for(container: Container) -> None:
    store = "s3://bucket/x?endpoint=http://127.0.0.1:9&retries=0"
    done = container.start_up(
        env={"CACHEPOD_STORE": store, "RUNPOD_POD_ID": "abc", "AWS_ACCESS_KEY_ID": "a"}
    )
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[0] == "restore: the store could not be reached after N s: installing"


def test_a_store_that_cannot_be_is_told_and_costs_the_cache_alone(container: Container) -> None:
    done = container.start_up(env={"CACHEPOD_STORE": "s3://"})
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert "s3://" in done.err


def test_no_variable_of_the_users_is_changed_for_the_handler(container: Container) -> None:
    mine = {"environment": "production", "prefix": "/x", "code": "7", "place": "Wien", "took": "1"}
    names = ", ".join(f"os.environ[{name!r}]" for name in mine)
    done = container.start_up("python", "-c", f"import os; print({names})", env=mine)
    assert (done.code, done.out) == (0, " ".join(mine.values()) + "\n"), done.err


def test_on_a_terminal_the_handler_has_the_terminal(container: Container) -> None:
    code, shown = cli.on_terminal(
        [str(STARTUP), "sh", "-c", "read -r line </dev/tty; test -t 0 && exit 9"],
        cwd=container.root,
        env=container.variables(),
        given=b"a line\n",
    )
    assert code == 9, shown


def test_with_nothing_to_install_the_command_is_started_as_it_is(container: Container) -> None:
    (container.root / "cachepod.toml").write_text("")
    done = container.start_up("echo", "as it is")
    assert (done.code, done.out) == (0, "as it is\n"), done.err
    assert lines(done.err)[0] == "nothing is configured to be installed: starting as it is"


# ---------------------------------------------------------------- when cachepod does not work

BROKEN = {
    "missing": None,
    "a module is missing": (
        "echo \"ModuleNotFoundError: No module named 'xxhash'\" >&2; exit 1",
        "cachepod does not work here (failed): installing without it",
    ),
    "a crash": ("kill -SEGV $$", "cachepod does not work here (was killed by signal 11)"),
    "an empty answer": ("exit 0", "cachepod does not work here (gave no answer)"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_without_a_working_cachepod_the_worker_starts_from_a_plain_install(
    container: Container, how: str
) -> None:
    broken = BROKEN[how]
    if broken is None:
        (container.bin / "cachepod").unlink()
        sentence = "there is no cachepod on the PATH"
    else:
        container.tool("cachepod", broken[0])
        sentence = broken[1]
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert any(line.startswith(sentence) for line in lines(done.err)), done.err
    assert any(line.startswith("plain install: done in ") for line in lines(done.err))


def test_what_a_plain_install_made_is_replaced_once_cachepod_works(container: Container) -> None:
    container.start_up()
    container.wipe()
    container.tool("cachepod", "exit 1")
    container.start_up()
    container.tool("cachepod", CACHEPOD)
    done = container.start_up()
    assert said(done.err)[0] == "restore: hit in N s", done.err
    assert (done.code, done.out) == (0, "alpha 1.0\n")


def test_a_bug_in_the_install_ends_in_a_plain_install(container: Container) -> None:
    container.tool(
        "cachepod",
        'if [ "$1" = install ]; then\n'
        '  echo "{\\"error\\": \\"KeyError: 1\\", \\"kind\\": \\"unexpected\\"}"; exit 1\n'
        f"fi\n{CACHEPOD}",
    )
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert not snapshots(container.store)


def test_a_bug_has_a_kind_of_its_own(container: Container) -> None:
    container.tool(
        "cachepod",
        f'if [ "$1" = install ]; then\n  export PYTHONPATH="{container.bin}:$PYTHONPATH"\nfi\n'
        f"{CACHEPOD}",
    )
    (container.bin / "sitecustomize.py").write_text(
        "import cachepod.environment.hook as hook\n"
        "def broken(*arguments, **more): raise KeyError(1)\n"
        "hook.install_environment = broken\n"
    )
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert "cachepod: unexpected KeyError" in done.err
    assert any(line.startswith("plain install: done in ") for line in lines(done.err))


def test_packages_that_cannot_be_had_end_the_start_with_the_installs_code(
    container: Container,
) -> None:
    container.configure('["gamma==1.0"]')
    done = container.start_up()
    assert done.code == 1
    assert said(done.err)[-1] == "install: failed after N s"
    assert "gamma" in done.err


def test_a_module_that_must_be_importable_and_is_not_starts_no_handler(
    container: Container,
) -> None:
    container.configure('["beta==1.0"]')
    done = container.start_up()
    assert done.code == 1
    assert "import alpha fails" in done.err
    assert done.out == ""


def test_an_environment_that_cachepod_did_not_make_is_used_where_it_lies(
    container: Container,
) -> None:
    done = container.install("--plain")
    assert done.code == 0, done.err
    (container.prefix / ".cachepod" / "stamp.json").unlink()
    (container.prefix / ".cachepod").rmdir()
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert not snapshots(container.store)


def test_a_directory_that_is_no_environment_is_left_alone(container: Container) -> None:
    container.prefix.mkdir()
    (container.prefix / "thesis.tex").write_text("precious")
    done = container.start_up()
    assert done.code == 1
    assert "is not empty and is no virtual environment; give another --prefix" in done.err
    assert (container.prefix / "thesis.tex").read_text() == "precious"


# ---------------------------------------------------------------- signals and publishing beside

STEP = """
if [ "$1" = {command} ]; then
  touch begun
  until [ -e go ]; do sleep 0.05; done
fi
"""


def until(path: Path) -> None:
    wait_until(path.exists, timeout=60, message=f"there never was {path.name}")


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"]
)
def test_a_stop_during_a_phase_ends_that_phase_and_starts_no_handler(
    container: Container, number: signal.Signals, code: int
) -> None:
    container.tool(
        "cachepod",
        'if [ "$1" = install ]; then\n'
        "  trap 'touch stopped; kill $!; exit 143' TERM\n  touch begun\n  sleep 600 & wait\nfi\n"
        f"{CACHEPOD}",
    )
    process = container.begin()
    until(container.root / "begun")
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (code, ""), err
    assert lines(err)[-1] == f"stopped by {number.name} during the phase install"
    assert (container.root / "stopped").exists()


def test_a_phase_that_does_not_care_is_killed_with_all_that_it_has_started(
    container: Container,
) -> None:
    container.tool(
        "cachepod",
        f"trap '' TERM\nif [ \"$1\" = restore ]; then touch begun; sleep 600; fi\n{CACHEPOD}",
    )
    process = container.begin()
    until(container.root / "begun")
    process.terminate()
    process.communicate(timeout=60)  # what still runs would hold the pipes open
    assert process.returncode == 143


def test_a_stop_while_a_volume_is_waited_for_ends_the_wait(container: Container) -> None:
    process = container.begin(env={"CACHEPOD_STORE": str(container.root / "far" / "store")})
    assert process.stderr is not None
    assert "waiting up to 60 s" in process.stderr.readline()
    process.terminate()
    assert process.wait(60) == 143
    process.communicate()


def test_the_handler_gets_the_signal_and_its_code_is_the_containers(container: Container) -> None:
    container.handler(
        "greeter",
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print(os.getpid(), flush=True)\n"
        "while True: signal.pause()\n",
    )
    process = container.begin()
    assert process.stdout is not None
    assert int(process.stdout.readline()) == process.pid
    process.terminate()
    process.communicate(timeout=60)
    assert process.returncode == 42


def test_a_publish_beside_lets_the_handler_start_first(container: Container) -> None:
    container.tool("cachepod", STEP.format(command="publish") + CACHEPOD)
    done = container.begin("sh", "-c", "touch go; echo serving", env={"STARTUP_PUBLISH": "beside"})
    out, err = done.communicate(timeout=60)
    assert (done.returncode, out) == (0, "serving\n"), err
    told = lines(err)
    assert told[-2].startswith("ready after ")
    assert told[-1].startswith("publish: done in ")
    assert len(snapshots(container.store)) == 1


def test_a_publish_beside_is_no_child_of_the_handler(container: Container) -> None:
    container.tool("cachepod", STEP.format(command="publish") + CACHEPOD)
    process = container.begin(
        "sh",
        "-c",
        "until [ -e begun ]; do sleep 0.05; done; echo $$; read -r _; exit 3",
        env={"STARTUP_PUBLISH": "beside"},
        stdin=subprocess.PIPE,
    )
    assert process.stdout is not None
    handler = int(process.stdout.readline())
    assert handler == process.pid
    assert cli.children(handler) == []
    (container.root / "go").touch()
    wait_until(lambda: snapshots(container.store), timeout=60)
    assert cli.children(handler) == []
    process.communicate("\n", timeout=60)
    assert process.returncode == 3


def test_publishing_can_be_left_out(container: Container) -> None:
    done = container.start_up(env={"STARTUP_PUBLISH": "off"})
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert not snapshots(container.store)


def test_a_publish_that_is_killed_keeps_no_worker_from_starting(container: Container) -> None:
    container.tool("cachepod", f'if [ "$1" = publish ]; then kill -KILL $$; fi\n{CACHEPOD}')
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[-2] == (
        "publish: was killed by signal 9 after N s: the next new container installs again"
    )


# ---------------------------------------------------------------- RunPod's limit


def test_a_start_that_comes_near_the_limit_is_told_while_it_still_runs(
    container: Container,
) -> None:
    container.tool("cachepod", STEP.format(command="config") + CACHEPOD)
    process = container.begin(
        env={"RUNPOD_ENDPOINT_ID": "abc", "RUNPOD_INIT_TIMEOUT": "200", "STARTUP_WARN_AT": "1"}
    )
    assert process.stderr is not None
    warning = next(line for line in process.stderr if "warning" in line)
    assert warning.startswith(
        "startup: warning: 2 of the 200 s that RunPod gives a worker to start have passed, "
        "in the phase configuration; "
    )
    (container.root / "go").touch()
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "alpha 1.0\n"), err
    assert "% of the 200 s that RunPod allows" in err


def test_a_publish_goes_on_beside_once_the_start_has_taken_long(container: Container) -> None:
    container.tool("cachepod", STEP.format(command="publish") + CACHEPOD)
    process = container.begin(
        "sh",
        "-c",
        "touch go; echo serving",
        env={"RUNPOD_ENDPOINT_ID": "abc", "RUNPOD_INIT_TIMEOUT": "300", "STARTUP_WARN_AT": "1"},
    )
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "serving\n"), err
    assert "publish: goes on beside the handler" in err
    assert len(snapshots(container.store)) == 1


def test_nothing_of_the_start_is_left_running_beside_the_handler(container: Container) -> None:
    process = container.begin(
        "sh", "-c", "echo; read -r _", env={"RUNPOD_ENDPOINT_ID": "abc"}, stdin=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()
    here = os.stat(f"/proc/{process.pid}/cwd").st_ino
    group = [
        pid
        for pid in map(int, filter(str.isdigit, os.listdir("/proc")))
        if pid != process.pid and _directory(pid) == here
    ]
    assert group == []
    assert len(os.listdir(f"/proc/{process.pid}/fd")) == 3
    process.communicate("\n", timeout=60)


def _directory(pid: int) -> int:
    try:
        return os.stat(f"/proc/{pid}/cwd").st_ino
    except OSError:
        return 0


# ---------------------------------------------------------------- folders of stores


def test_a_folder_that_comes_late_is_waited_for(container: Container) -> None:
    place = container.root / "volume"
    process = container.begin(env={"CACHEPOD_STORE": str(place / "of" / "store")})
    assert process.stderr is not None
    waiting = process.stderr.readline()
    assert waiting == f"startup: volume: waiting up to 60 s for {place}/of/store\n"
    (place / "of").mkdir(parents=True)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (0, "alpha 1.0\n"), err
    assert said(err)[0] == "volume: there after N s"
    assert len(snapshots(place / "of" / "store")) == 1


def test_a_folder_that_never_comes_leaves_the_other_stores(container: Container) -> None:
    far = container.root / "far" / "store"
    done = container.start_up(
        env={"CACHEPOD_STORE": f"{far} file://{container.store}", "STARTUP_VOLUME_WAIT": "1"}
    )
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    told = said(done.err)
    assert told[:2] == [
        f"volume: waiting up to 1 s for {far}",
        f"there is no folder {far.parent} for the store {far}: going on with the other stores",
    ]
    assert len(snapshots(container.store)) == 1
    assert not far.parent.exists()


def test_without_any_store_that_is_there_it_installs(container: Container) -> None:
    far = container.root / "far" / "store"
    done = container.start_up(env={"CACHEPOD_STORE": str(far), "STARTUP_VOLUME_WAIT": "0"})
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[:2] == [
        f"there is no folder {far.parent} for the store {far}: this start does without a cache",
        "install: done in N s",
    ]
    assert not far.parent.exists()


def test_nothing_is_waited_for_where_nothing_speaks_of_a_volume(container: Container) -> None:
    (container.root / "cachepod.toml").write_text(
        'packages = ["alpha==1.0"]\nfind_links = ["wheels"]\n'
    )
    done = container.start_up()
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert "volume" not in "".join(lines(done.err))
    assert len(snapshots(container.root / ".cache" / "cachepod" / "store")) == 1
