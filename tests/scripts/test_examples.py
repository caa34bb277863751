"""
The example handlers, started as a container starts them, with jobs by the SDK's local server.

The environment is installed once for all processes of a test run: the first one that asks makes a
cold start and a warm one, and writes down how they went.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import math
import os
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import urllib.error
import urllib.request
import wave
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from tests.support.cli import ROOT, wait_until
from tests.support.s3 import BUCKET, Server, environment
from tests.support.startup import SECRET, Container, lines, snapshots

pytestmark = [pytest.mark.network, pytest.mark.slow]

EXAMPLES = ROOT / "examples"


class Worker:
    """A worker that takes jobs."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process = process
        self._url = f"http://127.0.0.1:{port}"

    def answers(self) -> bool:
        assert self.process.poll() is None, self.process.communicate()
        try:
            urllib.request.urlopen(f"{self._url}/docs", timeout=5).close()
        except (urllib.error.URLError, OSError):
            return False
        return True

    def run(self, **given: Any) -> Any:
        """What a job with this input is answered."""
        request = urllib.request.Request(
            f"{self._url}/runsync",
            json.dumps({"input": given}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    def output(self, **given: Any) -> Any:
        """The output of a job that must succeed."""
        answer = self.run(**given)
        assert answer["status"] == "COMPLETED", answer
        return answer["output"]

    def error(self, **given: Any) -> str:
        """Why a job was refused."""
        answer = self.run(**given)
        assert answer["status"] == "FAILED", answer
        return str(answer["error"])


@contextmanager
def serving(
    container: Container, kind: str, env: Mapping[str, str] | None = None
) -> Iterator[Worker]:
    """A worker of this *kind*, started by the start-up script."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = container.begin(
        *("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", str(port)),
        env={"HANDLER_TYPE": kind, "UV_OFFLINE": "0", **(env or {})},
    )
    try:
        server = Worker(process, port)
        wait_until(server.answers, timeout=200, message="the worker never answered")
        yield server
    finally:
        process.terminate()
        server.out, server.err = process.communicate(timeout=60)
    assert SECRET not in server.out + server.err
    print(server.err)


class Examples(Container):
    """A container with the handlers and the configuration of the examples."""

    def __init__(self, root: Path, *, ready: bool = False) -> None:
        if ready:
            self.root, self.handlers, self.bin = root, root / "handlers", root / "bin"
            self.prefix, self.store, self.wheels = root / "venv", root / "store", root / "wheels"
        else:
            super().__init__(root)
            shutil.rmtree(self.handlers)
            shutil.copytree(EXAMPLES / "handlers", self.handlers)
            self.prefix = root / "venv"
            # One environment for all of them: what each asks for, without apt, which is root's.
            text = (EXAMPLES / "cachepod.toml").read_text()
            packages = re.findall(r"^packages = (\[.*\])$", text, re.M)
            asked = [package for each in packages for package in json.loads(each)]
            (root / "cachepod.toml").write_text(
                f'store = ["store"]\n[handlers.examples]\nbase = "runpod"\n'
                f"packages = {json.dumps(asked)}\n"
            )
        self.env = {
            "CACHEPOD_PREFIX": str(self.prefix),
            "CACHEPOD_HANDLER": "examples",
            **{
                name: value
                for name, value in os.environ.items()
                if name.startswith(("UV_", "PIP_", "SSL_", "REQUESTS_")) or "proxy" in name.lower()
            },
        }


SPEECH = {"text": "good morning", "words_per_minute": 160}


@pytest.fixture(scope="session")
def started(tmp_path_factory: pytest.TempPathFactory) -> tuple[Examples, dict[str, Any]]:
    """The container, and how its cold and its warm start went."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    root = shared / "examples"
    with FileLock(f"{root}.lock"):
        notes = root / "starts.json"
        if notes.exists():
            return Examples(root, ready=True), json.loads(notes.read_text())
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir()
        container = Examples(root)
        found: dict[str, Any] = {}
        for start in ("cold", "warm"):
            with serving(container, "tts") as server:
                found[start] = {"good": server.run(**SPEECH), "bad": server.run(text="")}
            found[start].update(code=server.process.returncode, err=server.err)
            if start == "cold":
                shutil.rmtree(container.prefix)
        notes.write_text(json.dumps(found))
        return container, found


def heard(answer: Any) -> tuple[float, int]:
    """Seconds and loudness of the speech in an answer."""
    with wave.open(io.BytesIO(base64.b64decode(answer["output"]["audio"]))) as sound:
        frames = sound.readframes(sound.getnframes())
        samples = struct.unpack(f"<{len(frames) // 2}h", frames)
        return sound.getnframes() / sound.getframerate(), max(map(abs, samples))


@pytest.mark.parametrize("start", ["cold", "warm"])
def test_a_worker_does_its_jobs_after_a_cold_and_after_a_warm_start(
    started: tuple[Examples, dict[str, Any]], start: str
) -> None:
    container, starts = started
    how = starts[start]
    told = lines(how["err"])
    beginnings = {
        "cold": ["restore: miss ", "install: done ", "publish: done ", "ready after "],
        "warm": ["restore: hit ", "ready after "],
    }[start]
    assert len(told) == len(beginnings), told
    assert all(line.startswith(opening) for line, opening in zip(told, beginnings, strict=True))
    assert len(snapshots(container.store)) == 1
    assert how["bad"] == {
        "id": how["bad"]["id"],
        "status": "FAILED",
        "error": "text is out of bounds",
    }
    if shutil.which("espeak-ng"):
        assert how["good"]["status"] == "COMPLETED"
        seconds, loudness = heard(how["good"])
        assert seconds == pytest.approx(how["good"]["output"]["seconds"], abs=0.001)
        assert 0.4 < seconds < 5
        assert loudness > 1000
    else:
        assert "no espeak-ng" in how["good"]["error"]
    # The SDK's server shuts down in order, and then ends as the signal would have it: 143 outside.
    assert how["code"] == -signal.SIGTERM
    assert "Application shutdown complete" in how["err"]


def test_sounds_are_measured_and_resampled(started: tuple[Examples, dict[str, Any]]) -> None:
    container, _ = started
    rate = 44_100
    file = io.BytesIO()
    with wave.open(file, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        tone = (round(16383.5 * math.sin(2 * math.pi * 1000 * n / rate)) for n in range(rate // 2))
        sound.writeframes(b"".join(struct.pack("<h", sample) for sample in tone))
    with serving(container, "audio") as server:
        audio = base64.b64encode(file.getvalue()).decode()
        answer = server.output(audio=audio, sample_rate=16_000)
        assert answer["seconds"] == 0.5
        assert (answer["channels"], answer["sample_rate"]) == (1, rate)
        assert answer["peak_dbfs"] == pytest.approx(-6.02, abs=0.05)
        assert answer["rms_dbfs"] == pytest.approx(-9.03, abs=0.05)
        again = server.output(audio=answer["audio"])
        assert (again["seconds"], again["sample_rate"]) == (0.5, 16_000)
        assert again["rms_dbfs"] == pytest.approx(-9.03, abs=0.05)
        assert "audio" not in again
        assert server.error(audio="AAAA").startswith("audio is no sound that can be read")
        assert server.error(audio="?") == "audio is not base64: Only base64 data is allowed"
        assert server.error(audio=audio, sample_rate=1) == "sample_rate is out of bounds"
        assert server.error() == "audio is a required input."


MOVIE = """
import base64, io, sys
import av, numpy
file = io.BytesIO()
with av.open(file, "w", format="mp4") as movie:
    stream = movie.add_stream("mpeg4", rate=10)
    stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
    for number in range(30):
        picture = numpy.zeros((48, 64, 3), numpy.uint8)
        picture[..., 0 if number < 15 else 2] = 255
        movie.mux(stream.encode(av.VideoFrame.from_ndarray(picture, "rgb24")))
    movie.mux(stream.encode())
print(base64.b64encode(file.getvalue()).decode())
"""

COLOUR = """
import base64, io, sys
import av
with av.open(io.BytesIO(base64.b64decode(sys.stdin.read()))) as picture:
    pixels = next(picture.decode(video=0)).to_ndarray(format="rgb24")
print(pixels.shape[1], pixels.shape[0], *(int(part) for part in pixels.mean((0, 1))))
"""


def test_videos_are_probed_and_shown(started: tuple[Examples, dict[str, Any]]) -> None:
    container, _ = started

    def python(program: str, given: str = "") -> str:
        done = subprocess.run(
            [str(container.prefix / "bin" / "python"), "-Ic", program],
            input=given,
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout.strip()

    movie = python(MOVIE)
    with serving(container, "video") as server:
        answer = server.output(video=movie, at=0, width=32)
        assert python(COLOUR, answer.pop("thumbnail")) == "32 24 254 0 0"
        assert answer == {
            "seconds": 3.0,
            "width": 64,
            "height": 48,
            "frames_per_second": 10.0,
            "codec": "mpeg4",
        }
        later = server.output(video=movie, at=2.5, width=32)
        assert python(COLOUR, later["thumbnail"]) == "32 24 0 0 254"
        assert server.error(video=movie, at=9) == "at is 9 s, the video ends after 3 s"
        assert server.error(video="AAAA").startswith("video cannot be read: ")
        assert server.error(video=movie, width=1) == "width is out of bounds"


@pytest.mark.parametrize("where", ["folder", "bucket"])
def test_objects_are_kept(
    started: tuple[Examples, dict[str, Any]], where: str, tmp_path: Path, moto: Server
) -> None:
    container, _ = started
    env = {"STORAGE_URL": str(tmp_path / "objects")}
    if where == "bucket":
        env = {
            **environment(),
            "AWS_ENDPOINT_URL": moto.endpoint,
            "STORAGE_URL": f"s3://{BUCKET}/of/mine",
        }
    data = os.urandom(5000)
    sent = base64.b64encode(data).decode()
    described = {"key": "a/b", "size": 5000, "sha256": hashlib.sha256(data).hexdigest()}
    with serving(container, "storage", env) as server:
        assert server.output(action="list") == {"keys": []}
        assert server.output(action="put", key="a/b", data=sent) == described
        assert server.output(action="get", key="a/b") == {**described, "data": sent}
        assert server.output(action="hash", key="a/b") == described
        assert server.output(action="list", key="a/") == {"keys": ["a/b"]}
        assert server.output(action="delete", key="a/b") == described
        assert server.error(action="get", key="a/b") == "there is no object a/b"
        assert server.error(action="get", key="../a") == "key is out of bounds"
        assert server.error(action="burn", key="a") == "action is out of bounds"
        assert server.error(action="put", key="a") == "data is empty"


def test_the_examples_have_a_handler_for_each_profile() -> None:
    from cachepod.environment.profile_tables import BUILT_IN

    files = {path.stem for path in (EXAMPLES / "handlers").glob("[!_]*.py")}
    assert files == set(BUILT_IN)


@pytest.mark.parametrize("kind", ["tts", "audio", "video", "storage"])
def test_the_configuration_of_the_examples_is_understood(kind: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "cachepod", "key", "-q", "--handler", kind],
        cwd=EXAMPLES,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
