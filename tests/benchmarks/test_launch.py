"""What a command took is its own, not the benchmark's; whoever is told to stop stops it first."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import measure
from tests.support.cli import ROOT, wait_until

_BUSY = "import time; end = time.process_time() + 0.3\nwhile time.process_time() < end: pass"


def test_time_and_memory_are_those_of_the_command() -> None:
    weight = bytearray(os.urandom(1)) * 200_000_000
    light = measure.run(["true"])
    heavy = measure.run([sys.executable, "-c", "x = b'x' * 100_000_000"])
    busy = measure.run([sys.executable, "-c", _BUSY], watch=True)
    assert light.peak < 50_000_000 < len(weight)
    assert heavy.peak > 100_000_000
    assert busy.cpu >= 0.3
    assert busy.seconds >= 0.3
    assert 0 < busy.resident < 100_000_000


def test_a_command_that_fails_says_so_and_what_it_took() -> None:
    code = "import sys; print('{\"error\": \"e\"}'); sys.exit('the end of it')"
    with pytest.raises(measure.CommandFailed, match="the end of it") as caught:
        measure.run([sys.executable, "-c", code])
    assert caught.value.cost.code == 1
    assert caught.value.cost.report == {"error": "e"}
    assert caught.value.said.strip() == "the end of it"
    assert measure.run(["bash", "-c", "kill -9 $$"], codes=(-9,)).code == -9
    with pytest.raises(OSError, match="no-such-program"):
        measure.run(["no-such-program"])


def test_a_benchmark_that_is_told_to_stop_ends_what_it_measures(tmp_path: Path) -> None:
    noted = tmp_path / "pid"
    program = (
        "import signal, sys\nfrom benchmarks import measure\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        f"measure.run(['bash', '-c', 'echo $$ > {noted}; exec sleep 600'])"
    )
    process = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT)
    try:
        pid = int(wait_until(lambda: noted.exists() and noted.read_text().strip()))
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 143
        wait_until(lambda: not Path(f"/proc/{pid}").exists())
    finally:
        process.kill()
