"""
Text to speech, by espeak-ng.

    {"input": {"text": "good morning", "voice": "en", "words_per_minute": 160}}

The answer has ``audio``, a WAV file in base64, its ``seconds`` and its ``sample_rate``.
"""

from __future__ import annotations

import io
import shutil
import subprocess
import tempfile
import wave
from pathlib import Path
from typing import Any

from _job import Refused, Schema, encoded, serve

SCHEMA: Schema = {
    "text": {
        "type": str,
        "required": True,
        "constraints": lambda text: bool(text.strip()) and len(text) <= 5000,
    },
    "voice": {
        "type": str,
        "required": False,
        "default": "en",
        "constraints": lambda voice: voice.replace("-", "").replace("+", "").isalnum(),
    },
    "words_per_minute": {
        "type": int,
        "required": False,
        "default": 175,
        "constraints": lambda rate: 80 <= rate <= 450,
    },
}


def speak(text: str, voice: str, words_per_minute: int) -> dict[str, Any]:
    """
    What espeak-ng makes of *text*.

    Raises:
        Refused: There is no espeak-ng here, or it does not know the voice.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise Refused("this worker has no espeak-ng: add it to the apt packages of its profile")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "speech.wav")
        done = subprocess.run(
            [program, "-v", voice, "-s", str(words_per_minute), "-w", str(file), "--stdin"],
            input=text.encode(),
            capture_output=True,
            check=False,
        )
        if done.returncode or not file.exists():
            raise Refused(done.stderr.decode(errors="replace").strip() or "espeak-ng failed")
        data = file.read_bytes()
    with wave.open(io.BytesIO(data)) as sound:
        frames, rate = sound.getnframes(), sound.getframerate()
    return {"audio": encoded(data), "seconds": round(frames / rate, 3), "sample_rate": rate}


if __name__ == "__main__":
    serve(speak, SCHEMA)
