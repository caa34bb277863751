"""
A real MooseFS cluster: master, chunkserver and any number of FUSE mounts, on one machine.

For tests, :func:`cluster` starts one for as long as a ``with`` lasts. By hand and for benchmarks::

    python -m tests.support.moosefs start DIR     mounts it at DIR/first and DIR/second
    python -m tests.support.moosefs stop DIR      unmounts it and deletes DIR

MooseFS wants a master that is not at 127.0.0.1. So all of a cluster's daemons share a network
namespace of their own, in which 192.0.2.1 (TEST-NET-1) is an address of ``lo``; it is held by the
master and goes with it, and any number of clusters may run at once. The mounts are made where
everybody sees them. The daemons of a test die with the test's process, whatever ends that; the
mounts that then hang in the air are swept away by the next start.

Needs root, ``/dev/fuse`` and Debian's moosefs-master, moosefs-chunkserver and moosefs-client.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "192.0.2.1"
_TOOLS = ("mfsmaster", "mfschunkserver", "mfsmount", "mfssetquota", "ip", "unshare", "nsenter")
_FOLDER = re.compile(r"cachepod-moosefs-(?P<pid>[0-9]+)-(?P<born>[0-9]+)-[a-z0-9_]+")
_STATE = "cluster.json"
# The tools of an administrator's, which the PATH of a plain shell may lack.
_ENVIRON = {**os.environ, "PATH": f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin:/usr/bin:/bin"}
_PATIENCE = 60.0  # seconds; a start takes about 4

_DAEMON = """\
WORKING_USER = root
WORKING_GROUP = root
DATA_PATH = {folder}/{name}
NICE_LEVEL = 0
DISABLE_OOM_KILLER = 0
"""
_MASTER = """\
EXPORTS_FILENAME = {folder}/exports.cfg
TOPOLOGY_FILENAME = {folder}/topology.cfg
"""
_CHUNKSERVER = """\
HDD_CONF_FILENAME = {folder}/disks.cfg
MASTER_HOST = {address}
MASTER_RECONNECTION_DELAY = 1
"""


class Unavailable(Exception):
    """There can be no cluster on this machine; the message says why."""


def unavailable() -> str:
    """Why there can be no cluster on this machine; empty if nothing is known to be in the way."""
    if os.geteuid() != 0:
        return "a MooseFS cluster needs root"
    missing = [tool for tool in _TOOLS if shutil.which(tool, path=_ENVIRON["PATH"]) is None]
    if missing:
        return f"a MooseFS cluster needs {', '.join(missing)}"
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        return "a MooseFS cluster needs /dev/fuse"
    return ""


class Daemon:
    """A process of a cluster."""

    def __init__(self, name: str, pid: int, log: Path) -> None:
        self.name = name
        self.pid = pid
        self._log = log

    def freeze(self) -> None:
        """Let it answer nothing, as if the network hung."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    @property
    def frozen(self) -> bool:
        """Whether it answers nothing."""
        return _state(self.pid) == "T"

    def kill(self) -> None:
        """End it with SIGKILL, and wait until it has ended; harmless if it has already."""
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except ProcessLookupError:
            return
        except ChildProcessError:  # started by another process
            _until(lambda: _has_ended(self.pid), f"{self.name} does not end")

    def complain(self, problem: str) -> Unavailable:
        """*problem* and the end of what the daemon said."""
        said = self._log.read_text(errors="replace")[-500:].strip() if self._log.exists() else ""
        return Unavailable(f"{self.name} {problem}: {said}")


class Mount(Daemon):
    """One FUSE mount of the cluster, and the process that serves it."""

    def __init__(self, name: str, pid: int, log: Path, path: Path) -> None:
        super().__init__(name, pid, log)
        self.path = path

    def unmount(self) -> None:
        """Take it away, whatever state it is in."""
        # Killed first: an unmount waits for a frozen or wedged daemon's answer.
        self.kill()
        _unmount(self.path)


class Cluster:
    """
    A MooseFS in *folder*; its data lies there too.

    Args:
        folder: An empty directory on a disk, under an absolute path.

        bound: Whether the daemons die with this process.
    """

    def __init__(self, folder: Path, *, bound: bool) -> None:
        self.folder = folder
        self._bound = bound
        self.mounts: dict[str, Mount] = {}
        self.master: Daemon
        self.chunkserver: Daemon

    def start(self) -> None:
        """
        Start master and chunkserver.

        Raises:
            Unavailable: It does not work on this machine.
        """
        if reason := unavailable():
            raise Unavailable(reason)
        for name, more in (("master", _MASTER), ("chunkserver", _CHUNKSERVER)):
            (self.folder / name).mkdir()
            text = (_DAEMON + more).format(folder=self.folder, name=name, address=ADDRESS)
            (self.folder / f"{name}.cfg").write_text(text)
        (self.folder / "master" / "metadata.mfs").write_text("MFSM NEW")
        (self.folder / "exports.cfg").write_text("* / rw,alldirs,admin,maproot=0:0\n")
        (self.folder / "topology.cfg").touch()
        (self.folder / "disk").mkdir()
        (self.folder / "disks.cfg").write_text(f"{self.folder}/disk\n")
        bring_up = f"ip link set lo up && ip addr add {ADDRESS}/32 dev lo"
        script = f'{bring_up} && exec mfsmaster -f -c "$0" start'
        config = str(self.folder / "master.cfg")
        self.master = self._spawn("master", ["unshare", "--net", "sh", "-c", script, config])
        log = self.folder / "master.log"
        self._wait_for(self.master, lambda: "initialized properly" in log.read_text())
        config = str(self.folder / "chunkserver.cfg")
        self.chunkserver = self._spawn(
            "chunkserver", self._inside("mfschunkserver", "-f", "-c", config, "start")
        )

    def mount(self, name: str) -> Mount:
        """
        Mount it at ``FOLDER/name``, with the options that a plain mfsmount has.

        Raises:
            Unavailable: It does not work on this machine.
        """
        path = self.folder / name
        path.mkdir(exist_ok=True)
        options = "mfsnice=0,mfsallowoomkiller"
        place = getattr(self, "_clients", self.master).pid
        command = ["nsenter", f"--net=/proc/{place}/ns/net"]
        command += ["mfsmount", "-f", str(path), "-H", ADDRESS, "-o", options]
        daemon = self._spawn(name, command)
        mounted = Mount(name, daemon.pid, self.folder / f"{name}.log", path)
        self._wait_for(mounted, lambda: _is_mounted(path) and os.statvfs(path).f_blocks > 0)
        self.mounts[name] = mounted
        self._remember()
        return mounted

    def remount(self, name: str) -> Mount:
        """Mount *name* anew: no cache of the old one's daemon or kernel is left."""
        self.mounts.pop(name).unmount()
        return self.mount(name)

    def tool(self, *command: str | Path) -> str:
        """Run one of MooseFS's own tools on a path of a mount; what it printed."""
        inside = self._inside(*map(str, command))
        done = subprocess.run(inside, env=_ENVIRON, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stdout}{done.stderr}")
        return done.stdout

    def lay_wire(self, latency: float, rate: float) -> None:
        """
        Let the mounts made from now on reach the servers through a slow network only.

        Args:
            latency: Of a round trip, in seconds.

            rate: Bytes a second each way, all mounts together; 0 for no limit.

        Raises:
            Unavailable: It does not work on this machine.
        """
        self._clients = self._spawn("clients", ["unshare", "--net", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        place = f"/proc/{self._clients.pid}/ns/net"
        self._wait_for(self._clients, lambda: os.readlink(place) != own)
        self.tool("nsenter", f"--net={place}", "ip", "link", "set", "lo", "up")
        ends = [str(self.master.pid), str(self._clients.pid)]
        pace = ["--latency", str(latency), "--rate", str(rate)]
        self._wire = self._spawn("wire", [sys.executable, "-m", "tests.support.wire", *ends, *pace])
        log = self.folder / "wire.log"
        self._wait_for(self._wire, lambda: "up" in log.read_text())

    def stop(self) -> None:
        """Unmount, end the daemons, delete the folder with all data."""
        for mounted in self.mounts.values():
            mounted.unmount()
        self.mounts.clear()
        for name in ("_wire", "_clients", "chunkserver", "master"):
            if hasattr(self, name):
                getattr(self, name).kill()
        _clear(self.folder)

    def _inside(self, *command: str) -> list[str]:
        return ["nsenter", f"--net=/proc/{self.master.pid}/ns/net", *command]

    def _spawn(self, name: str, command: Sequence[str]) -> Daemon:
        if self._bound:
            command = ["setpriv", "--pdeathsig", "KILL", *command]
        log = self.folder / f"{name}.log"
        with open(log, "wb") as output:
            process = subprocess.Popen(
                command,
                env=_ENVIRON,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a key pressed in a terminal is for the tests
            )
        process.returncode = 0  # reaped by Daemon.kill()
        return Daemon(name, process.pid, log)

    def _wait_for(self, daemon: Daemon, condition: Callable[[], bool]) -> None:
        until = time.monotonic() + _PATIENCE
        while not condition():
            if _has_ended(daemon.pid):
                raise daemon.complain("ended")
            if time.monotonic() > until:
                raise daemon.complain("is not ready")
            time.sleep(0.05)

    # For clusters that outlive the process that started them

    def _remember(self) -> None:
        state = {
            "master": self.master.pid,
            "chunkserver": self.chunkserver.pid,
            "mounts": {name: mounted.pid for name, mounted in self.mounts.items()},
        }
        (self.folder / _STATE).write_text(json.dumps(state))

    @classmethod
    def at(cls, folder: Path) -> Cluster:
        """The running cluster in *folder*."""
        state = json.loads((folder / _STATE).read_text())
        found = cls(folder, bound=False)
        for name in ("master", "chunkserver"):
            setattr(found, name, Daemon(name, state[name], folder / f"{name}.log"))
        for name, pid in state["mounts"].items():
            found.mounts[name] = Mount(name, pid, folder / f"{name}.log", folder / name)
        return found


@contextmanager
def cluster(names: Sequence[str] = ("first", "second")) -> Iterator[Cluster]:
    """
    A cluster in a temporary directory, mounted once for each of *names*.

    Raises:
        Unavailable: It does not work on this machine.
    """
    if reason := unavailable():
        raise Unavailable(reason)
    sweep()
    prefix = f"cachepod-moosefs-{os.getpid()}-{_born(os.getpid())}-"
    made = Cluster(Path(tempfile.mkdtemp(prefix=prefix)), bound=True)
    try:
        made.start()
        for name in names:
            made.mount(name)
        # What is deleted makes room at once.
        made.tool("mfssettrashtime", "-r", "0", made.mounts[names[0]].path)
        yield made
    finally:
        made.stop()


def sweep() -> None:
    """Unmount and delete what tests left that died; their daemons have died with them."""
    dead: set[Path] = set()
    for point in _mount_points():
        dead.update(parent for parent in point.parents if _is_left(parent))
    dead.update(path for path in Path(tempfile.gettempdir()).iterdir() if _is_left(path))
    for folder in dead:
        _clear(folder)


def _is_left(folder: Path) -> bool:
    match = _FOLDER.fullmatch(folder.name)
    return match is not None and _born(int(match["pid"])) != match["born"]


def _clear(folder: Path) -> None:
    for point in _mount_points():
        if folder in point.parents:
            _unmount(point)
    shutil.rmtree(folder, ignore_errors=True)


def _born(pid: int) -> str:
    """When process *pid* started, in ticks since the machine did; empty if there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def _has_ended(pid: int) -> bool:
    return _state(pid) in ("", "Z")


def _state(pid: int) -> str:
    """``R``, ``S``, ``T``, ... as proc(5) has them; empty if there is no process *pid*."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def _mount_points() -> list[Path]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [Path(line.split()[4]) for line in lines]


def _is_mounted(path: Path) -> bool:
    return path in _mount_points()


def _unmount(path: Path) -> None:
    if _is_mounted(path):
        # Lazily, for a failed test may still have a file open.
        subprocess.run(["umount", "--lazy", path], env=_ENVIRON, check=True)


def _until(condition: Callable[[], bool], problem: str) -> None:
    until = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(problem)
        time.sleep(0.05)


def main() -> None:
    """Start or stop a cluster by hand."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.support.moosefs", description="A real MooseFS on this machine."
    )
    parser.add_argument("action", choices=["start", "stop"])
    parser.add_argument("folder", type=Path, metavar="DIR", help="where it lies; made by start")
    parser.add_argument("--mounts", nargs="+", default=["first", "second"], metavar="NAME")
    options = parser.parse_args()
    folder = options.folder.absolute()
    if options.action == "stop":
        Cluster.at(folder).stop()
        return
    folder.mkdir(parents=True)
    made = Cluster(folder, bound=False)
    try:
        made.start()
        for name in options.mounts:
            print(made.mount(name).path)
        made.tool("mfssettrashtime", "-r", "0", folder / options.mounts[0])
    except BaseException as error:
        made.stop()
        if isinstance(error, Unavailable):
            sys.exit(str(error))
        raise


if __name__ == "__main__":
    main()
