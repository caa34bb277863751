"""
A stand-in for NVIDIA's apt repository: its names, its folders and what its packages do, small.

Packages put files below ``/usr/local/cuda-12.6`` and into ``/etc/ld.so.conf.d``, and make links by
update-alternatives; the keyring's package brings the key and the list of sources, which names
NVIDIA's own host. Built with dpkg-deb, signed with gpg where there is one.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.support.cuda import shared_library

HOST = "https://developer.download.nvidia.com/compute/cuda/repos"
KEYRING = "cuda-keyring_1.1-1_all.deb"
_PIN = """\
Package: nsight-compute
Pin: origin *ubuntu.com*
Pin-Priority: -1

Package: *
Pin: release l=NVIDIA CUDA
Pin-Priority: 600
"""
_NVCC = """\
#!/bin/sh
echo 'Cuda compilation tools, release 12.6, V12.6.85'
"""
_CONFIGURED = """\
#!/bin/sh
set -e
if [ "$1" = configure ]; then
    update-alternatives --install /usr/local/cuda cuda /usr/local/cuda-12.6 126
    update-alternatives --install /usr/local/cuda-12 cuda-12 /usr/local/cuda-12.6 126
fi
"""
_REMOVED = """\
#!/bin/sh
set -e
if [ "$1" = remove ]; then
    update-alternatives --remove cuda /usr/local/cuda-12.6
    update-alternatives --remove cuda-12 /usr/local/cuda-12.6
fi
"""


@dataclass(frozen=True)
class Package:
    """
    A package to be built.

    Args:
        files: Path to bytes; text that begins with ``-> `` is a link.

        scripts: Maintainer scripts and lists in its ``DEBIAN`` directory.
    """

    name: str
    version: str
    architecture: str = "amd64"
    depends: str = ""
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    scripts: Mapping[str, str] = field(default_factory=dict)

    def build(self, folder: Path, work: Path) -> Path:
        """Its file, in *folder*."""
        tree = work / self.name
        for name, data in self.files.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(data, str) and data.startswith("-> "):
                path.symlink_to(data[3:])
            else:
                path.write_bytes(data.encode() if isinstance(data, str) else data)
                path.chmod(0o755 if "/bin/" in f"/{name}" else 0o644)
        control = tree / "DEBIAN"
        control.mkdir(parents=True)
        lines = [
            f"Package: {self.name}",
            f"Version: {self.version}",
            f"Architecture: {self.architecture}",
            "Maintainer: cudatools <cudatools@nvidia.com>",
            *([f"Depends: {self.depends}"] if self.depends else []),
            "Description: stands for NVIDIA's package of this name",
        ]
        (control / "control").write_text("\n".join(lines) + "\n")
        for name, text in self.scripts.items():
            (control / name).write_text(text)
            (control / name).chmod(0o644 if name in ("conffiles", "triggers") else 0o755)
        built = folder / f"{self.name}_{self.version}_{self.architecture}.deb"
        subprocess.run(
            ["dpkg-deb", "-Zgzip", "-z1", "--root-owner-group", "--build", tree, built],
            check=True,
            capture_output=True,
        )
        return built


def packages() -> list[Package]:
    """Those of CUDA 12.6, and a driver that nobody may install."""
    target = "usr/local/cuda-12.6/targets/x86_64-linux"
    linker = "etc/ld.so.conf.d"
    return [
        Package("cuda-toolkit-config-common", "12.6.77-1", "all", files={
            f"{linker}/000_cuda.conf": "/usr/local/cuda/targets/x86_64-linux/lib\n"},
            scripts={"conffiles": f"/{linker}/000_cuda.conf\n"}),
        Package("cuda-toolkit-12-config-common", "12.6.77-1", "all", files={
            f"{linker}/988_cuda-12.conf": "/usr/local/cuda-12/targets/x86_64-linux/lib\n"},
            scripts={"conffiles": f"/{linker}/988_cuda-12.conf\n"}),
        Package("cuda-toolkit-12-6-config-common", "12.6.77-1", "all",
                "cuda-toolkit-12-config-common, cuda-toolkit-config-common",
                scripts={"postinst": _CONFIGURED, "prerm": _REMOVED}),
        Package("cuda-cudart-12-6", "12.6.77-1", depends="cuda-toolkit-12-6-config-common", files={
            f"{target}/lib/libcudart.so.12.6.77": shared_library("libcudart.so.12"),
            f"{target}/lib/libcudart.so.12": "-> libcudart.so.12.6.77"},
            scripts={"triggers": "activate-noawait ldconfig\n"}),
        Package("cuda-nvcc-12-6", "12.6.85-1", depends="cuda-cudart-12-6 (>= 12.6.77)", files={
            "usr/local/cuda-12.6/bin/nvcc": _NVCC,
            "usr/local/cuda-12.6/include": "-> targets/x86_64-linux/include",
            "usr/local/cuda-12.6/lib64": "-> targets/x86_64-linux/lib",
            f"{target}/include/cuda.h": "#define CUDA_VERSION 12060\n"}),
        Package("cuda-toolkit-12-6", "12.6.3-1", depends=(
            "cuda-nvcc-12-6 (>= 12.6.85), cuda-toolkit-12-6-config-common"), files={
            "usr/local/cuda-12.6/version.json": '{"cuda": {"version": "12.6.3"}}\n'}),
        Package("cuda-drivers", "560.35.05-1"),
        Package("cuda-runtime-12-6", "12.6.3-1", depends="cuda-drivers (>= 560.35.05)"),
        Package("cuda-12-6", "12.6.3-1", depends="cuda-runtime-12-6, cuda-toolkit-12-6"),
    ]  # fmt: skip


def make_repository(folder: Path, distribution: str = "debian12", machine: str = "x86_64") -> Path:
    """
    Fill *folder* as NVIDIA's host is filled; served under a URL, this is its root.

    Returns:
        The folder of *distribution* in it.
    """
    place = folder / distribution / machine
    work = folder / ".work"
    for needed in (place, work):
        needed.mkdir(parents=True)
    signer = _Signer.new(work)
    options = f"[signed-by=/{_KEY}]" if signer else "[trusted=yes]"
    list_name = f"etc/apt/sources.list.d/cuda-{distribution}-{machine}.list"
    pin = "etc/apt/preferences.d/cuda-repository-pin-600"
    keyring = Package("cuda-keyring", "1.1-1", "all", files={
        list_name: f"deb {options} {HOST}/{distribution}/{machine}/ /\n",
        pin: _PIN,
        _KEY: signer.public if signer else b"",
    }, scripts={"conffiles": f"/{list_name}\n/{pin}\n"})  # fmt: skip
    built = [package.build(place, work) for package in (keyring, *packages())]
    index = "".join(map(_entry, built)).encode()
    (place / "Packages").write_bytes(index)
    (place / "Packages.gz").write_bytes(gzip.compress(index, mtime=0))
    release = _release(place, ["Packages", "Packages.gz"])
    (place / "Release").write_text(release)
    if signer:
        (place / "InRelease").write_bytes(signer.sign(release))
    shutil.rmtree(work)
    return place


class Served:
    """
    A folder under a URL, as NVIDIA's host serves it.

    Args:
        asked: Paths that were asked for so far.

        instead: Path to the status and body that the next requests for it get.
    """

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.asked: list[str] = []
        self.instead: dict[str, list[tuple[int, bytes]]] = {}


@contextmanager
def served(folder: Path) -> Iterator[Served]:
    """Serve *folder* on this machine alone."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path = self.path.lstrip("/")
            found.asked.append(path)
            file = folder / path
            status, body = 200, b""
            if found.instead.get(path):
                status, body = found.instead[path].pop(0)
            elif file.is_file():
                body = file.read_bytes()
            else:
                status = 404
            self.send_response(status)
            self.send_header("Content-Type", "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    found = Served(folder, f"http://127.0.0.1:{server.server_address[1]}")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        server.shutdown()
        server.server_close()


def _entry(deb: Path) -> str:
    """What an index says of a package: its control file, and where and what the file is."""
    told = subprocess.run(["dpkg-deb", "--field", deb], check=True, capture_output=True, text=True)
    data = deb.read_bytes()
    return (
        f"{told.stdout.strip()}\nFilename: ./{deb.name}\nSize: {len(data)}\n"
        f"SHA256: {hashlib.sha256(data).hexdigest()}\n\n"
    )


def _release(place: Path, names: Iterable[str]) -> str:
    lines = ["Origin: NVIDIA", "Label: NVIDIA CUDA", "Architecture: x86_64",
             "Date: Thu, 21 Nov 2024 00:00:00 UTC", "SHA256:"]  # fmt: skip
    for name in names:
        data = (place / name).read_bytes()
        lines.append(f" {hashlib.sha256(data).hexdigest()} {len(data)} {name}")
    return "\n".join(lines) + "\n"


_KEY = "usr/share/keyrings/cuda-archive-keyring.gpg"


@dataclass(frozen=True)
class _Signer:
    """A key made for one repository."""

    home: Path
    public: bytes

    @classmethod
    def new(cls, work: Path) -> _Signer | None:
        """None where there is no gpg."""
        if shutil.which("gpg") is None:
            return None
        home = work / "gnupg"
        home.mkdir(mode=0o700)
        cls._gpg(
            home, "--quick-generate-key", "cudatools <cudatools@nvidia.com>", "ed25519", "sign"
        )
        public = cls._gpg(home, "--export")
        return cls(home, public)

    def sign(self, text: str) -> bytes:
        return self._gpg(self.home, "--clearsign", text=text)

    @staticmethod
    def _gpg(home: Path, *words: str, text: str = "") -> bytes:
        command = ["gpg", "--batch", "--quiet", "--passphrase", "", "--pinentry-mode", "loopback"]
        done = subprocess.run(
            [*command, "--homedir", home, *words],
            input=text.encode(),
            capture_output=True,
            check=True,
            env={**os.environ, "GNUPGHOME": str(home)},
        )
        return done.stdout
