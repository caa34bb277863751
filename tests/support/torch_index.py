"""A server with PyTorch's indexes and a usual one, under the names and versions that these have."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote, unquote

from tests.support.wheels import Index

PYTHONS = ("cp310", "cp311", "cp312", "cp313")
PLATFORM = "manylinux_2_28_x86_64"
#: Of the interpreter that runs the tests.
OURS = f"cp{sys.version_info[0]}{sys.version_info[1]}"


class TorchIndex:
    """
    ``/whl/cu126/``, ``/whl/cpu/`` and ``/simple/``.

    PyTorch's pages name wheels as ``torch-2.7.0%2Bcu126-cp311-cp311-manylinux_2_28_x86_64.whl``,
    flat below the backend, with their hash. The build on PyPI is the one for CUDA 12.6; its wheel
    has no local version, and asks for the library of CUDA.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.requests: list[str] = []
        self.url = ""
        for backend in ("cu126", "cu128", "cpu"):
            self._torch(Index(root / "whl" / backend), backend, f"+{backend}")
        usual = Index(root / "simple")
        self._torch(usual, "pypi", "")
        usual.add("nvidia_cuda_runtime_cu12", "12.6.77", {"nvidia/__init__.py": ""})
        usual.add("numpy", "2.2.0", {"numpy.py": "WHERE = 'usual'\n"})
        usual.add("accelerate", "1.6.0", {"accelerate.py": ""}, requires=["numpy", "torch>=2"])

    @staticmethod
    def _torch(index: Index, backend: str, local: str) -> None:
        needs = ["nvidia-cuda-runtime-cu12==12.6.77"] if backend != "cpu" else []
        for python in PYTHONS:
            tag = f"{python}-{python}-{PLATFORM}"
            said = f"BUILD = {backend!r}\nTAG = {python!r}\n"
            index.add(
                "torch", f"2.7.0{local}", {"torch/__init__.py": said}, requires=needs, tag=tag
            )
            index.add(
                "torchvision", f"0.22.0{local}", {"torchvision.py": f"BUILD = {backend!r}\n"},
                requires=["torch==2.7.0"], tag=tag,
            )  # fmt: skip
        if backend != "pypi":
            # copies of others' packages, in old versions
            index.add("numpy", "1.26.3", {"numpy.py": f"WHERE = {backend!r}\n"})
            index.add("nvidia_cuda_runtime_cu12", "12.6.77", {"nvidia/__init__.py": ""})

    def page(self, folder: str, name: str) -> str | None:
        """The page of one project."""
        place = self.root / folder / name.replace("-", "_")
        if not place.is_dir():
            return None
        wheels = sorted(place.glob("*.whl"))
        rows = "".join(
            f'<a href="/{folder}/{quote(each.name)}#{Index.digest(each).replace(":", "=")}">'
            f"{escape(each.name)}</a><br/>\n"
            for each in wheels
        )
        return f"<!DOCTYPE html>\n<html><body><h1>Links for {name}</h1>\n{rows}</body></html>\n"


@contextmanager
def serving(root: Path) -> Iterator[TorchIndex]:
    """Serve one made in *root*."""
    index = TorchIndex(root)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.command == "GET":
                index.requests.append(self.path)
            path = unquote(self.path.partition("?")[0]).strip("/")
            folder, _, name = path.rpartition("/")
            if name.endswith(".whl"):
                found = sorted((root / folder).glob(f"*/{name}"))
                self._answer(found[0].read_bytes() if found else None, "binary/octet-stream")
            else:
                page = index.page(folder, name)
                self._answer(page.encode() if page else None, "text/html")

        def _answer(self, body: bytes | None, kind: str) -> None:
            self.send_response(403 if body is None else 200)  # as PyTorch's does what it lacks
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body or b"")))
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body or b"")

        do_HEAD = do_GET  # noqa: N815 - http.server's name

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        index.url = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield index
        finally:
            server.shutdown()
