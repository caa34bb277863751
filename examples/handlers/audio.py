"""
Measures a sound, and resamples it where that is asked for.

    {"input": {"audio": "<WAV, FLAC, OGG or MP3 in base64>", "sample_rate": 16000}}

The answer has ``seconds``, ``channels``, ``sample_rate``, ``peak_dbfs`` and ``rms_dbfs`` of what
came, and with a ``sample_rate`` also ``audio``: the sound at that rate, as FLAC in base64.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import soundfile
from _job import Refused, Schema, decoded, encoded, serve

MOST = 50_000_000  # bytes
SILENCE = -120.0  # dBFS; JSON has no infinity

SCHEMA: Schema = {
    "audio": {"type": str, "required": True},
    "sample_rate": {
        "type": int,
        "required": False,
        "default": 0,
        "constraints": lambda rate: rate == 0 or 4000 <= rate <= 192_000,
    },
}


def measure(audio: str, sample_rate: int) -> dict[str, Any]:
    """
    Look at *audio*; *sample_rate* 0 leaves it as it is.

    Raises:
        Refused: It is no sound.
    """
    try:
        samples, rate = soundfile.read(io.BytesIO(decoded("audio", audio, MOST)), always_2d=True)
    except soundfile.LibsndfileError as error:
        raise Refused(f"audio is no sound that can be read: {error.error_string}") from None
    if not len(samples):
        raise Refused("audio has no samples")
    answer: dict[str, Any] = {
        "seconds": round(len(samples) / rate, 3),
        "channels": samples.shape[1],
        "sample_rate": rate,
        "peak_dbfs": decibels(float(np.abs(samples).max())),
        "rms_dbfs": decibels(float(np.sqrt(np.mean(samples**2)))),
    }
    if sample_rate:
        file = io.BytesIO()
        soundfile.write(file, resampled(samples, rate, sample_rate), sample_rate, format="FLAC")
        answer["audio"] = encoded(file.getvalue())
    return answer


def decibels(level: float) -> float:
    """*level* (1 is full scale) in dBFS."""
    return round(max(20 * float(np.log10(level)), SILENCE), 2) if level > 0 else SILENCE


def resampled(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """*samples* at another rate: the same spectrum, as far as the new rate can hold it."""
    length = max(1, round(len(samples) * wanted / rate))
    spectrum = np.fft.rfft(samples, axis=0)[: length // 2 + 1]
    made = np.fft.irfft(spectrum, length, axis=0) * (length / len(samples))
    return np.clip(made, -1.0, 1.0)


if __name__ == "__main__":
    serve(measure, SCHEMA)
