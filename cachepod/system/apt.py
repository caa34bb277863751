"""
Runs apt and dpkg in a root.

Lists of packages and downloads go to a directory that is removed afterwards; nothing of them
stays in the root. apt's progress comes through a descriptor of its own (``APT::Status-Fd``,
documented in apt's ``progress-reporting.md``).
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from cachepod.errors import AptFailed, DriverPackage
from cachepod.snapshot.paths import remove_tree
from cachepod.snapshot.progress import Progress
from cachepod.system.aptwords import Simulation, explain, fetch_problem, progress_of, simulated
from cachepod.system.drivers import is_driver
from cachepod.system.locks import PATIENCE, await_dpkg
from cachepod.system.process import Outcome, run
from cachepod.system.record import HOME

_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_WORK = f"{HOME}/system.apt"
_POLICY = "usr/sbin/policy-rc.d"
_POLICY_TEXT = (
    "#!/bin/sh\n# made by cachepod while apt is at work: no service is started\nexit 101\n"
)
# What belongs to another interpreter or linker than those that maintainer scripts are to use.
_FOREIGN = ("PYTHON", "PERL", "LD_", "VIRTUAL_ENV", "UV_", "PIP_", "CONDA", "DPKG_", "APT_CONFIG")
_HELD = 30  # seconds that apt itself waits, should somebody come between


class Apt:
    """
    apt in one root.

    Args:
        root: Where it works.

        environ: The user's environment.

        progress: Told of downloads and of what dpkg does.

    Raises:
        AptFailed: There is no apt.
    """

    def __init__(self, root: Path, environ: Mapping[str, str], progress: Progress) -> None:
        self._root = root
        self._progress = progress
        self._environ = _environment(environ)
        self._prefix: list[str] = []
        if os.path.realpath(root) != "/":
            self._prefix = [_chroot(), os.fspath(root)]
        if not (root / "usr/bin/apt-get").exists():
            raise AptFailed(
                "there is no apt-get in this image",
                hint="apt packages need an image of Debian or Ubuntu",
            )
        self._mirror = ""

    @contextmanager
    def workplace(self) -> Iterator[None]:
        """Have a place for lists and downloads, and no service started, for as long as it lasts."""
        work = self._root / _WORK
        remove_tree(work)
        for name in ("lists/partial", "cache", "archives/partial"):
            (work / name).mkdir(parents=True)
        for folder in (work.parent, work, *work.iterdir()):
            os.chmod(folder, 0o755)  # apt fetches as a user of its own
        policy = self._root / _POLICY
        ours = _is_ours(policy) or not os.path.lexists(policy)
        try:
            if ours:
                policy.parent.mkdir(parents=True, exist_ok=True)
                policy.write_text(_POLICY_TEXT)
                policy.chmod(0o755)
            yield
        finally:
            if ours:
                policy.unlink(missing_ok=True)
            remove_tree(work)

    @property
    def warnings(self) -> list[str]:
        """What went wrong without keeping the installation from going on."""
        return [f"apt-get update: {self._mirror}"] if self._mirror else []

    def repair(self) -> None:
        """End what a killed run of dpkg has begun; the installation tells of what cannot be."""
        self._wait()
        self._run("dpkg", "--configure", "-a", "--force-confold")

    def add(self, debs: Sequence[Path]) -> None:
        """
        Install package files.

        Raises:
            AptFailed, AptLocked, SpaceExhausted: It could not be done.
        """
        names = []
        for deb in debs:
            try:
                shutil.copyfile(deb, self._root / _WORK / deb.name)
            except OSError as error:
                raise AptFailed(f"{deb}: {error.strerror or error}") from error
            names.append(f"/{_WORK}/{deb.name}")
        for deb, name in zip(debs, names, strict=True):
            said = self._run("dpkg-deb", "--field", name, "Package")
            if said.status == 0 and is_driver(said.output.strip()):
                raise DriverPackage(said.output.strip(), deb.name)
        self._wait()
        self._must("dpkg", "--install", "--force-confold", *names)

    def update(self) -> None:
        """
        Fetch the lists of packages.

        A source that cannot be reached is not yet an error: another one may have what is wanted.

        Raises:
            AptFailed, SpaceExhausted: The lists cannot be written.
        """
        done = self._get("update")
        self._mirror = fetch_problem(done.output)
        if done.status and not self._mirror:
            raise self._problem(done)

    def simulate(self, packages: Sequence[str]) -> Simulation:
        """
        What installing *packages* would bring.

        Raises:
            AptFailed: They cannot be installed.

            DriverPackage: A driver would come with them.
        """
        done = self._get("install", "--simulate", *packages)
        if done.status:
            raise self._problem(done)
        found = simulated(done.output, "")
        for name in found.names:
            if is_driver(name):
                raise DriverPackage(name, self._who_needs(name, packages))
        # Not --assume-no: apt does not ask where it adds no package to those that were named.
        sizes = self._get("install", "--yes", "--print-uris", *packages)
        return simulated(done.output, sizes.output)

    def _who_needs(self, driver: str, packages: Sequence[str]) -> str:
        """Which of *packages* brings *driver*."""
        for package in packages:
            done = self._get("install", "--simulate", package)
            if driver in simulated(done.output, "").names:
                return package
        return ", ".join(packages)

    def install(self, packages: Sequence[str], download: int) -> None:
        """
        Install *packages* and what they need.

        Args:
            download: Bytes that are to be fetched, for the progress.

        Raises:
            AptFailed, AptLocked, SpaceExhausted: It could not be done.
        """
        self._wait()
        done = self._get("install", "--yes", "--fix-broken", *packages, download=download)
        if done.status:
            raise self._problem(done)

    def _wait(self) -> None:
        await_dpkg(self._root, seconds=PATIENCE, say=self._progress.status)

    def _get(self, word: str, *arguments: str, download: int = 0) -> Outcome:
        options = {
            "Dir::State::Lists": f"/{_WORK}/lists",
            "Dir::Cache": f"/{_WORK}/cache",
            "Dir::Cache::archives": f"/{_WORK}/archives",
            "Acquire::Languages": "none",
            "Acquire::Retries": "2",
            "Acquire::http::Timeout": "30",
            "Acquire::https::Timeout": "30",
            "APT::Install-Recommends": "false",
            "APT::Get::Show-Versions": "false",
            "DPkg::Lock::Timeout": str(_HELD),
            "Dpkg::Use-Pty": "0",
            # Nobody minds what a container holds after the machine has lost its power.
            "Dpkg::Options::": "--force-unsafe-io",
        }
        command = ["apt-get", "-q", word, *arguments, "--no-install-recommends"]
        command += ["--allow-downgrades", "-o", "Dpkg::Options::=--force-confold"]
        for name, value in options.items():
            command += ["-o", f"{name}={value}"]
        if "--simulate" in arguments or "--print-uris" in arguments:
            return self._run(*command)
        with _status(self._progress, download) as descriptor:
            return self._run(*command, "-o", f"APT::Status-Fd={descriptor}", inherit=(descriptor,))

    def _run(self, *command: str, inherit: Sequence[int] = ()) -> Outcome:
        program, *arguments = command
        whole = [*self._prefix, f"/usr/bin/{program}", *arguments]
        return run(whole, environ=self._environ, directory=Path("/"), inherit=inherit)

    def _must(self, *command: str) -> None:
        done = self._run(*command)
        if done.status:
            raise self._problem(done)

    def _problem(self, done: Outcome) -> Exception:
        return explain(
            done.output, where=os.fspath(self._root), mirror=self._mirror, seconds=float(_HELD)
        )


def _environment(environ: Mapping[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in environ.items() if not name.startswith(_FOREIGN)}
    return {
        **kept,
        "PATH": _PATH,
        "LC_ALL": "C.UTF-8",
        "LANGUAGE": "",
        "DEBIAN_FRONTEND": "noninteractive",
        "DEBCONF_NONINTERACTIVE_SEEN": "true",
        "APT_LISTCHANGES_FRONTEND": "none",
        "NEEDRESTART_SUSPEND": "1",
        "UCF_FORCE_CONFFOLD": "1",
    }


def _chroot() -> str:
    found = shutil.which("chroot", path=_PATH)
    if found is None:
        raise AptFailed("there is no chroot, by which apt could work in another root")
    return found


def _is_ours(policy: Path) -> bool:
    """Whether *policy* was left by a run that was killed."""
    try:
        return policy.read_text("utf-8", "replace") == _POLICY_TEXT
    except OSError:
        return False


@contextmanager
def _status(progress: Progress, download: int) -> Iterator[int]:
    """A descriptor that apt writes its progress to."""
    reading, writing = os.pipe()

    def follow() -> None:
        told = 0
        with open(reading, encoding="utf-8", errors="replace") as rows:
            for row in rows:
                said = progress_of(row)
                if said is None:
                    continue
                kind, share, words = said
                if kind == "dlstatus" and download:
                    now = int(download * min(share, 100.0) / 100)
                    progress.advance(0, max(0, now - told))
                    told = max(told, now)
                progress.status(words if kind == "dlstatus" else f"{words} ({share:.0f}%)")

    thread = threading.Thread(target=follow, name="apt-status", daemon=True)
    thread.start()
    try:
        yield writing
    finally:
        os.close(writing)
        # A process that apt left behind may hold the other end for ever.
        thread.join(2.0)
