"""
Containers without a container engine: root directories of one Debian image, entered by chroot.

The image is made once in a test run, by mmdebstrap, and has cachepod in ``/opt/cachepod``. Each
container is an overlay upon it, or a copy where overlays cannot be had. A command runs in a mount
namespace of its own, so that nothing is left mounted when it ends, however it ends.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from tests.support.cli import ROOT, Result

RELEASE = "bookworm"
PYTHON = "3.11"  # that of the release
_PACKAGES = "python3,ca-certificates"
_DONE = "done"


class Unavailable(Exception):
    """What a container needs is not there, in words."""


@dataclass
class Image:
    """
    A root directory that containers start from.

    Args:
        path: The image.

        overlays: Whether a container can be an overlay upon it.
    """

    path: Path
    overlays: bool

    def container(self, place: Path, **mounts: Path) -> Container:
        """A new container at *place*; *mounts* are names of directories in its root to others."""
        root = place / "root"
        root.mkdir(parents=True)
        if self.overlays:
            (place / "upper").mkdir()
            (place / "work").mkdir()
        else:
            copy(self.path, root)
        return Container(place, None if not self.overlays else self.path, dict(mounts))


@dataclass
class Container:
    """
    One container.

    Args:
        place: Its directories on this machine.

        image: What it is an overlay upon; None for a copy.

        mounts: Names of directories in its root to directories of this machine.
    """

    place: Path
    image: Path | None
    mounts: Mapping[str, Path] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        """Where its own files are: all of them for a copy, what differs for an overlay."""
        return self.place / ("root" if self.image is None else "upper")

    def command(self, *words: str, user: str = "root") -> list[str]:
        """What runs *words* in the container."""
        root = shlex.quote(str(self.place / "root"))
        script = ["set -e", "mount --make-rprivate /"]
        if self.image is not None:
            options = f"lowerdir={self.image},upperdir={self.place}/upper,workdir={self.place}/work"
            script.append(f"mount -t overlay overlay -o {shlex.quote(options)} {root}")
        script.append(f"mount -t proc proc {root}/proc")
        script.append(f"mount --rbind /dev {root}/dev")
        for name, directory in self.mounts.items():
            there = f"{root}/{name}"
            script.append(f"mkdir -p {there}; mount --bind {shlex.quote(str(directory))} {there}")
        chroot = ["chroot", f"--userspec={user}", str(self.place / "root")]
        script.append(f"exec {shlex.join([*chroot, *words])}")
        return ["unshare", "--mount", "sh", "-c", "\n".join(script)]

    def run(
        self,
        *words: str,
        env: Mapping[str, str] | None = None,
        user: str = "root",
        timeout: float = 240,
    ) -> Result:
        """Run *words* to their end."""
        done = subprocess.run(
            self.command(*words, user=user),
            env=environment(env),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def start(self, *words: str, env: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start *words*; the caller ends them."""
        return subprocess.Popen(
            self.command(*words),
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What a container's processes see: nothing of the developer's own but the proxies."""
    kept = {name: value for name, value in os.environ.items() if name.lower().endswith("_proxy")}
    return {
        **kept,
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PYTHONPATH": "/opt/cachepod",
        **(extra or {}),
    }


def image(shared: Path) -> Image:
    """
    The image of this test run, made by whoever comes first.

    Args:
        shared: A directory that all processes of the test run have.

    Raises:
        Unavailable: It cannot be made here.
    """
    if os.geteuid() != 0:
        raise Unavailable("needs root, for chroot and mounts")
    for tool in ("mmdebstrap", "unshare", "chroot"):
        if shutil.which(tool) is None:
            raise Unavailable(f"needs {tool}")
    if not _mounts("mount -t tmpfs tmpfs /mnt && mkdir /mnt/proc && mount -t proc proc /mnt/proc"):
        raise Unavailable("needs the right to mount file systems")
    place = shared / f"debian-{RELEASE}"
    failed = place.with_name("debian-failed")
    with FileLock(place.with_name("debian.lock")):
        if failed.exists():
            raise Unavailable(failed.read_text())
        if not (place / _DONE).exists():
            try:
                _make(place)
            except Unavailable as reason:
                failed.write_text(str(reason))
                raise
    return Image(place / "root", _overlays(place))


def _make(place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    root = place / "root"
    place.mkdir()
    _run("mmdebstrap", "--quiet", "--variant=apt", f"--include={_PACKAGES}", RELEASE, str(root))
    # As the machine reaches its mirrors, so does the container.
    for name in ("resolv.conf", "hosts"):
        if Path("/etc", name).exists():
            shutil.copy(f"/etc/{name}", root / "etc" / name)
    said = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False)
    lines = [line for line in said.stdout.splitlines() if line.startswith("Acquire::")]
    (root / "etc/apt/apt.conf.d/99tests").write_text("\n".join(lines) + "\n")
    sources = root / "etc/apt/sources.list"
    for kind in ("trusted.gpg.d", "auth.conf.d"):
        if Path("/etc/apt", kind).is_dir():
            shutil.copytree(f"/etc/apt/{kind}", root / "etc/apt" / kind, dirs_exist_ok=True)
    assert sources.exists()
    opt = root / "opt/cachepod"
    uv = shutil.which("uv", path=str(Path(sys.executable).parent)) or "uv"
    wanted = [uv, "pip", "install", "--quiet", "--target", str(opt), "--python-version", PYTHON]
    _run(*wanted, "--only-binary", ":all:", "--no-deps", *_dependencies())
    shutil.copytree(
        ROOT / "cachepod", opt / "cachepod", ignore=shutil.ignore_patterns("__pycache__")
    )
    command = root / "usr/local/bin/cachepod"
    command.write_text('#!/bin/sh\nexec python3 -m cachepod "$@"\n')
    command.chmod(0o755)
    (place / _DONE).touch()


def _dependencies() -> list[str]:
    """Everything that this environment has installed for cachepod, in the same versions."""
    from importlib.metadata import requires, version

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    wanted = ["cachepod"]
    while wanted:
        for line in requires(wanted.pop()) or []:
            each = Requirement(line)
            name = canonicalize_name(each.name)
            applies = each.marker is None or each.marker.evaluate(
                {"extra": "", "python_version": PYTHON, "python_full_version": f"{PYTHON}.2"}
            )
            if applies and name not in found:
                found[name] = f"{name}=={version(name)}"
                wanted.append(name)
    return sorted(found.values())


def _run(*words: str) -> None:
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, errors="replace", timeout=280, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{words[0]} does not work here: {error}") from error
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["it failed"])[-1]
        raise Unavailable(f"{words[0]} does not work here: {last}")


def _overlays(place: Path) -> bool:
    """Whether an overlay can be mounted there; not where that is one itself."""
    trial = place / f"trial-{os.getpid()}"
    for name in ("upper", "work", "root"):
        (trial / name).mkdir(parents=True)
    options = f"lowerdir={place}/root,upperdir={trial}/upper,workdir={trial}/work"
    works = _mounts(f"mount -t overlay overlay -o {options} {trial}/root")
    shutil.rmtree(trial, ignore_errors=True)
    return works


def _mounts(script: str) -> bool:
    """Whether *script*, which mounts something, works in a namespace of its own."""
    whole = f"mount --make-rprivate / && {script}"
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", whole], capture_output=True, check=False
    )
    return done.returncode == 0


def copy(source: Path, target: Path) -> None:
    """A root directory as it is."""
    subprocess.run(["cp", "-a", "--reflink=auto", f"{source}/.", str(target)], check=True)
