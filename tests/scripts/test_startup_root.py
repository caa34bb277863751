"""The start-up script as process 1 of a container's root, with volumes that really are mounted."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.scripts.test_startup import STEP, said
from tests.support import cli, mounts
from tests.support.startup import CACHEPOD, Container, lines, snapshots

pytestmark = pytest.mark.root

SERVERLESS = {"RUNPOD_ENDPOINT_ID": "abc"}


@pytest.fixture
def container(tmp_path: Path) -> Container:
    mounts.need_root("a root of its own")
    if shutil.which("unshare") is None:
        pytest.skip("there is no unshare on this machine")
    made = Container(tmp_path)
    (made.root / "cachepod.toml").write_text('packages = ["alpha==1.0"]\nfind_links = ["wheels"]\n')
    return made


def finished(process: subprocess.Popen[str]) -> cli.Result:
    out, err = process.communicate(timeout=120)
    return cli.Result(process.returncode, out, err)


def on_volume(container: Container, options: str = "") -> str:
    """Shell that mounts a folder of the test as the volume."""
    folder = container.root / "volume"
    folder.mkdir(exist_ok=True)
    more = f'; mount -o remount,bind,{options} "$BOX/runpod-volume"' if options else ""
    return f'mount --bind "{folder}" "$BOX/runpod-volume"{more}'


def small_disk(size: str) -> str:
    """Shell that mounts a disk of this *size* at ``/small``."""
    return f'mkdir "$BOX/small"; mount -t tmpfs -o size={size} none "$BOX/small"'


def test_a_mounted_volume_is_the_store_without_any_configuration(container: Container) -> None:
    volume = on_volume(container)
    done = finished(container.boxed(before=volume, env=SERVERLESS))
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert len(snapshots(container.root / "volume" / "cachepod")) == 1
    container.wipe()
    done = finished(container.boxed(before=volume, env=SERVERLESS))
    assert said(done.err)[0] == "restore: hit in N s", done.err


def test_a_volume_that_is_mounted_late_is_waited_for(container: Container) -> None:
    process = container.boxed(
        before=f"(until [ -e go ]; do sleep 0.05; done; {on_volume(container)}) &",
        env={**SERVERLESS, "CACHEPOD_STORE": "/runpod-volume/cachepod"},
    )
    assert process.stderr is not None
    assert "waiting up to 60 s for /runpod-volume/cachepod" in process.stderr.readline()
    (container.root / "go").touch()
    done = finished(process)
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[0] == "volume: there after N s"
    assert len(snapshots(container.root / "volume" / "cachepod")) == 1


@pytest.mark.parametrize("store", ["", "/workspace/cachepod"])
def test_a_volume_that_is_never_mounted_costs_the_cache_alone(
    container: Container, store: str
) -> None:
    env = {"RUNPOD_POD_ID": "abc", "STARTUP_VOLUME_WAIT": "1", "CACHEPOD_STORE": store}
    process = container.boxed("sh", "-c", "ls /workspace $HOME/.cache; echo served", env=env)
    done = finished(process)
    assert done.out == "/workspace:\nserved\n" or done.out == "served\n", done.out + done.err
    told = said(done.err)
    assert told[1].endswith(": this start does without a cache")
    assert told[1].startswith("no volume is mounted ")
    assert told[2] == "install: done in N s"


def test_a_folder_on_no_volume_is_waited_for_where_it_is_said_to_be_one(
    container: Container,
) -> None:
    folder = container.root / "plain"
    folder.mkdir()
    env = {
        "STARTUP_VOLUME": str(folder),
        "STARTUP_VOLUME_WAIT": "1",
        "CACHEPOD_STORE": f"{folder}/s",
    }
    done = finished(container.boxed(env=env))
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert f"no volume is mounted for the store {folder}/s" in done.err
    assert not list(folder.iterdir())


def test_a_volume_that_is_read_only_gives_what_it_has(container: Container) -> None:
    finished(container.boxed(before=on_volume(container), env=SERVERLESS))
    container.wipe()
    done = finished(container.boxed(before=on_volume(container, "ro"), env=SERVERLESS))
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert said(done.err)[0] == "restore: hit in N s"


def test_a_volume_that_is_read_only_and_empty_keeps_no_worker_from_starting(
    container: Container,
) -> None:
    done = finished(container.boxed(before=on_volume(container, "ro"), env=SERVERLESS))
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    (publish,) = (line for line in said(done.err) if line.startswith("publish: "))
    assert publish.endswith(": the next new container installs again")
    assert "read-only" in done.err.lower()


def test_a_full_volume_keeps_no_worker_from_starting(container: Container) -> None:
    done = finished(
        container.boxed(
            before='mount -t tmpfs -o size=128k none "$BOX/runpod-volume"', env=SERVERLESS
        )
    )
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert (
        "publish: there is not enough space after N s: the next new container installs again"
        in said(done.err)
    )


def test_a_root_that_is_read_only_has_its_environment_in_a_temporary_directory(
    container: Container,
) -> None:
    temporary = container.root / "tmp"
    temporary.mkdir()
    process = container.boxed(
        "python",
        "-c",
        "import alpha, sys; print(sys.prefix, alpha.__version__)",
        before=f'{on_volume(container)}; mount -o remount,ro "$BOX"',
        env={**SERVERLESS, "CACHEPOD_PREFIX": "/venv", "TMPDIR": str(temporary)},
    )
    done = finished(process)
    assert (done.code, done.out) == (0, f"{temporary}/cachepod-env 1.0\n"), done.err
    assert lines(done.err)[0] == (
        f"/venv cannot be written to: the environment goes to {temporary}/cachepod-env instead"
    )
    assert len(snapshots(container.root / "volume" / "cachepod")) == 1


def test_a_disk_that_is_nearly_full_is_filled_rather_than_no_worker_started(
    container: Container,
) -> None:
    process = container.boxed(
        before=f"{on_volume(container)}; {small_disk('4m')}",
        env={**SERVERLESS, "CACHEPOD_PREFIX": "/small/venv", "CACHEPOD_MIN_FREE": "0.9"},
    )
    done = finished(process)
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert "install: there is not enough space: trying again without a reserve" in said(done.err)


def test_a_disk_that_is_full_is_told_with_its_own_code(container: Container) -> None:
    process = container.boxed(
        before=f"{on_volume(container)}; {small_disk('200k')}",
        env={**SERVERLESS, "CACHEPOD_PREFIX": "/small/venv"},
    )
    done = finished(process)
    assert (done.code, done.out) == (7, ""), done.err
    assert said(done.err)[-1] == "install: there is not enough space after N s"


LOOK = """\
import os, pathlib, sys, time
store = pathlib.Path("/runpod-volume/cachepod/manifests")
pathlib.Path("go").touch()
until = time.monotonic() + 60
while not any(file.is_file() for file in store.rglob("*")) and time.monotonic() < until:
    time.sleep(0.05)
time.sleep(0.5)  # what has ended by now and was not reaped would be seen
states = {
    pid: pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    for pid in os.listdir("/proc") if pid.isdigit()
}
print(os.getpid(), "Z" in states.values())
sys.exit(5)
"""


@pytest.mark.parametrize("publish", ["before", "beside"])
def test_a_handler_that_is_process_1_has_no_dead_children(
    container: Container, publish: str
) -> None:
    if publish == "beside":
        container.tool("cachepod", STEP.format(command="publish") + CACHEPOD)
    container.handler("greeter", LOOK)
    env = {**SERVERLESS, "STARTUP_PUBLISH": publish}
    done = finished(container.boxed(before=on_volume(container), env=env))
    assert (done.code, done.out) == (5, "1 False\n"), done.err


def test_a_handler_that_is_process_1_gets_the_signal(container: Container) -> None:
    container.handler(
        "greeter",
        "import signal, sys\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(42))\n"
        "print('ready', flush=True)\nwhile True: signal.pause()\n",
    )
    process = container.boxed(before=on_volume(container))
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    (first,) = cli.children(process.pid)
    os.kill(first, 15)
    process.communicate(timeout=60)
    assert process.returncode == 42


def test_an_init_of_the_image_becomes_process_1(container: Container) -> None:
    container.tool("tini", 'echo "tini $$ $1"; shift; "$@"')
    container.handler("greeter", "import os; print('handler', os.getpid() != 1)\n")
    done = finished(container.boxed(before=on_volume(container)))
    assert (done.code, done.out) == (0, "tini 1 --\nhandler True\n"), done.err


def test_a_stop_of_process_1_ends_the_phase(container: Container) -> None:
    container.tool("cachepod", STEP.format(command="install") + CACHEPOD)
    process = container.boxed(before=on_volume(container))
    cli.wait_until((container.root / "begun").exists, timeout=60)
    (first,) = cli.children(process.pid)
    os.kill(first, 15)
    done = finished(process)
    assert (done.code, done.out) == (143, ""), done.err


def test_handlers_and_configuration_on_the_volume_are_waited_for(container: Container) -> None:
    folder = container.root / "volume"
    shutil.copytree(container.handlers, folder / "handlers")
    (container.root / "cachepod.toml").unlink()
    (folder / "cachepod.toml").write_text(
        f'packages = ["alpha==1.0"]\nfind_links = ["{container.wheels}"]\n'
        f'prefix = "{container.prefix}"\n'
    )
    process = container.boxed(
        before=f"(until [ -e go ]; do sleep 0.05; done; {on_volume(container)}) &",
        env={
            **SERVERLESS,
            "CACHEPOD_CONFIG": "/runpod-volume/cachepod.toml",
            "HANDLER_DIR": "/runpod-volume/handlers",
        },
    )
    assert process.stderr is not None
    waiting = process.stderr.readline()
    assert waiting.endswith("for /runpod-volume/cachepod.toml /runpod-volume/handlers\n")
    (container.root / "go").touch()
    done = finished(process)
    assert (done.code, done.out) == (0, "alpha 1.0\n"), done.err
    assert len(snapshots(folder / "cachepod")) == 1
