"""
Tells what a video is, and takes a picture out of it.

    {"input": {"video": "<MP4, MKV, WebM, ... in base64>", "at": 1.5, "width": 320}}

The answer has ``seconds``, ``width``, ``height``, ``frames_per_second``, ``codec``, and
``thumbnail``: a JPEG in base64.
"""

from __future__ import annotations

import io
from fractions import Fraction
from typing import Any

import av
from _job import Refused, Schema, decoded, encoded, serve

MOST = 200_000_000  # bytes

SCHEMA: Schema = {
    "video": {"type": str, "required": True},
    "at": {
        "type": float,
        "required": False,
        "default": 0.0,
        "constraints": lambda seconds: 0 <= seconds < 1e6,
    },
    "width": {
        "type": int,
        "required": False,
        "default": 320,
        "constraints": lambda width: 16 <= width <= 4096,
    },
}


def look(video: str, at: float, width: int) -> dict[str, Any]:
    """
    Probe *video*, with a thumbnail *width* pixels wide of what it shows *at* so many seconds.

    Raises:
        Refused: It is no video, or shorter than that.
    """
    data = decoded("video", video, MOST)
    try:
        with av.open(io.BytesIO(data)) as container:
            if not container.streams.video:
                raise Refused("video has no pictures in it")
            stream = container.streams.video[0]
            length = container.duration / av.time_base if container.duration else 0.0
            if length and at > length:
                raise Refused(f"at is {at:g} s, the video ends after {length:g} s")
            container.seek(int(at * av.time_base))
            frame = next(
                (f for f in container.decode(stream) if (f.time or 0.0) >= at - 1e-3), None
            )
            if frame is None:
                raise Refused(f"there is no picture at {at:g} s or after it")
            return {
                "seconds": round(length, 3),
                "width": frame.width,
                "height": frame.height,
                "frames_per_second": round(float(stream.average_rate or 0), 3),
                "codec": stream.codec_context.name,
                "thumbnail": encoded(jpeg(frame, width)),
            }
    except av.FFmpegError as error:
        raise Refused(f"video cannot be read: {error.strerror}") from None


def jpeg(frame: av.VideoFrame, width: int) -> bytes:
    """*frame* as a JPEG that is *width* pixels wide; both sides are made even."""
    height = max(2, round(frame.height * width / frame.width / 2) * 2)
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height = width // 2 * 2, height
    encoder.pix_fmt, encoder.time_base = "yuvj420p", Fraction(1, 25)
    picture = frame.reformat(encoder.width, height, "yuvj420p")
    picture.pts = 0
    return b"".join(bytes(packet) for part in (picture, None) for packet in encoder.encode(part))


if __name__ == "__main__":
    serve(look, SCHEMA)
