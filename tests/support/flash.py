"""
Stand-ins for torch, for flash-attn's wheels and for the place where its authors keep them.

Names, redirects and answers are those of the real ones; what is in the wheels is a few lines.
"""

from __future__ import annotations

import contextlib
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import unquote, urlsplit

from tests.support.wheels import Index

RELEASES = "/Dao-AILab/flash-attention/releases/download/v{version}"

_TORCH = """
__version__ = {version!r}
class version:
    cuda = {cuda!r}
    hip = None
def compiled_with_cxx11_abi():
    return {abi!r}
"""


def add_torch(
    index: Index, version: str = "2.7.0+cu126", *, cuda: str | None = "12.6", abi: bool = True
) -> None:
    """Put a torch into *index* that says what the real one would."""
    text = _TORCH.format(version=version, cuda=cuda, abi=abi)
    index.add("torch", version, {"torch/__init__.py": text})


def python_tag(python: Path | str = sys.executable) -> str:
    """``cp311`` of an interpreter."""
    code = "import sys; print('cp%d%d' % sys.version_info[:2])"
    return subprocess.check_output(
        [python, "-I", "-c", code], text=True, stderr=subprocess.DEVNULL
    ).strip()


def other_pythons() -> list[Path]:
    """Interpreters of other releases, on the PATH or installed beside this one, one of each."""
    here = python_tag()
    beside = sorted(Path(sys.base_prefix).parent.glob("*/bin/python3.[0-9]*"))
    found: dict[str, Path] = {}
    for minor in range(10, 14):
        name = f"python3.{minor}"
        on_path = shutil.which(name)
        near = [path for path in beside if path.name == name]
        for path in [*([Path(on_path)] if on_path else []), *near]:
            # on the PATH may lie a wrapper that only says that there is none
            with contextlib.suppress(subprocess.CalledProcessError, OSError):
                found.setdefault(python_tag(path), path)
    return [path for tag, path in sorted(found.items()) if tag != here]


def wheel_name(
    version: str = "2.8.0", *, build: str = "cu12torch2.7cxx11abiTRUE", tag: str = ""
) -> str:
    """As the release has it."""
    tag = tag or python_tag()
    return f"flash_attn-{version}+{build}-{tag}-{tag}-linux_x86_64.whl"


def add_flash(
    folder: Path,
    version: str = "2.8.0",
    *,
    build: str = "cu12torch2.7cxx11abiTRUE",
    tag: str = "",
    code: str = "",
    more: Mapping[str, str | bytes] | None = None,
) -> Path:
    """
    Put a wheel of flash-attn into *folder*.

    As in the real ones, its metadata know only the version before the plus sign.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tag = tag or python_tag()
    made = Index(folder / ".made").add(
        "flash_attn",
        version,
        {
            "flash_attn/__init__.py": f"import torch, einops\n__version__ = {version!r}\n"
            f"BUILD = {build!r}\n{code}\n",
            "flash_attn/ops/__init__.py": "",
            "flash_attn_2_cuda.py": "x = 1\n",
            **(more or {}),
        },
        requires=["torch", "einops"],
        tag=f"{tag}-{tag}-linux_x86_64",
    )
    wheel = folder / wheel_name(version, build=build, tag=tag)
    made.rename(wheel)
    return wheel


@dataclass
class Releases:
    """
    A server that hands out *folder*/VERSION/NAME as GitHub does: by a redirect to another host.

    Args:
        url: For ``flash_attn_sources``.

        asked: Every path that was asked for, as it came.

        headers: Of each request, by its path.

        fault: What to do instead of answering well: see :class:`_Handler`.

        times: How often.
    """

    folder: Path
    url: str = ""
    asked: list[str] = field(default_factory=list)
    headers: dict[str, Mapping[str, str]] = field(default_factory=dict)
    fault: str = ""
    times: int = 1_000_000


@contextlib.contextmanager
def releases(folder: Path) -> Iterator[Releases]:
    """Serve *folder* as long as the context lasts."""
    served = Releases(folder)

    class Handler(_Handler):
        releases = served

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    served.url = f"http://localhost:{server.server_port}{RELEASES}"
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    """
    ``/…/releases/download/vVERSION/NAME`` redirects to ``http://127.0.0.1/objects/…?sig=``.

    Faults: ``403``, ``500`` and other statuses; ``html``, ``truncated``, ``junk``, ``huge`` (by its
    own word), ``chunked`` (no length), ``circle`` (redirects without end), ``stall`` (no answer).
    """

    releases: ClassVar[Releases]
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        served = self.releases
        served.asked.append(self.path)
        served.headers[urlsplit(self.path).path] = dict(self.headers)
        path = unquote(urlsplit(self.path).path)
        parts = path.strip("/").split("/")
        fault = served.fault if served.times > 0 else ""
        if fault and "objects" not in parts[:1]:
            served.times -= 1
            if self._refused(fault):
                return
        if parts[:1] != ["objects"]:
            file = served.folder / parts[-2].removeprefix("v") / parts[-1]
            if parts[:4] != ["Dao-AILab", "flash-attention", "releases", "download"]:
                self._answer(404, b"Not Found", "text/plain")
            elif not file.is_file():
                self._answer(404, b"<html>Not Found</html>", "text/html; charset=utf-8")
            else:
                port = self.server.server_address[1]
                place = f"http://127.0.0.1:{port}/objects/{file.relative_to(served.folder)}"
                self._answer(302, b"", "text/html", location=f"{place}?sig=secret-signature")
            return
        data = (served.folder / Path(*parts[1:])).read_bytes()
        if fault == "junk":
            data = b"junk" * 1000
        if fault == "huge":
            self._answer(200, data, length=10**15)
        elif fault == "truncated":
            self._answer(200, data[: len(data) // 2], length=len(data))
        elif fault == "chunked":
            self.send_response(200)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in (data[:100], data[100:]):
                self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
            self.wfile.write(b"0\r\n\r\n")
        else:
            self._answer(200, data)

    def _refused(self, fault: str) -> bool:
        """Whether *fault* is an answer of its own."""
        if fault.isdigit():
            self._answer(int(fault), b"no", "text/plain")
        elif fault == "html":
            self._answer(200, b"<html>Sign in</html>", "text/html")
        elif fault == "circle":
            self._answer(302, b"", location=self.path)
        elif fault == "stall":
            self.close_connection = True
            self.releases.asked.append("stalled")
            threading.Event().wait(3)
        else:
            return False
        return True

    def _answer(
        self,
        status: int,
        data: bytes,
        kind: str = "application/octet-stream",
        *,
        location: str = "",
        length: int | None = None,
    ) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data) if length is None else length))
        if location:
            self.send_header("Location", location)
        if length is not None:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Nothing: the test looks at what was asked."""


def flash_index(root: Path, *, torch: Sequence[str] = ("2.7.0+cu126",)) -> Index:
    """An index with torch, einops and a package that needs flash-attn, of which it has sources."""
    made = Index(root)
    for version in torch:
        add_torch(made, version)
    made.add("einops", "0.8.1")
    made.add("model", "1.0", requires=["flash-attn>=2.7", "torch"])
    made.add_source("flash-attn", "2.8.3", BACKEND)
    made.add_source("flash-attn", "2.8.0", BACKEND.replace("2.8.3", "2.8.0"))
    for name in ("setuptools", "wheel", "packaging", "ninja", "psutil"):
        made.add(name, "1.0")
    return made


# A build of flash-attn: it imports torch, needs a tool and says how many compilers it may run.
BACKEND = """
import os, sys, zipfile
def build_wheel(folder, config_settings=None, metadata_directory=None):
    import torch, ninja
    jobs = os.environ["MAX_JOBS"]
    cuda = os.environ["CUDA_HOME"]
    info = "flash_attn-2.8.3.dist-info/"
    files = {
        "flash_attn/__init__.py": f"BUILD = 'source {torch.version.cuda} {jobs} {cuda}'\\n",
        info + "METADATA": "Metadata-Version: 2.1\\nName: flash_attn\\nVersion: 2.8.3\\n",
        info + "WHEEL": "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n",
    }
    files[info + "RECORD"] = "".join(f"{name},,\\n" for name in [*files, info + "RECORD"])
    name = "flash_attn-2.8.3-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(folder, name), "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)
    return name
"""
