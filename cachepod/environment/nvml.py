"""
What NVML says of the driver and its GPUs, as JSON on standard output.

A program of its own, run by :mod:`cachepod.environment.gpu_programs`: a driver that hangs, and a
library that crashes, then take a child process with them and nobody else. It imports the standard
library alone, for it runs without any other.

The functions are those of ``libnvidia-ml.so.1`` whose interface is fixed by their names, see
https://docs.nvidia.com/deploy/nvml-api/. NVIDIA's own package of bindings, nvidia-ml-py, would be
a third of a megabyte in every image for the nine of them, and be loaded in this child alone.
"""

from __future__ import annotations

import ctypes
import json
import sys

_LIBRARIES = ("libnvidia-ml.so.1", "/usr/lib/wsl/lib/libnvidia-ml.so.1")
_ROOM = 96  # bytes for a text; NVML's longest is a name, with 96
_MOST = 64


class _Memory(ctypes.Structure):
    """nvmlMemory_t"""

    _fields_ = (
        ("total", ctypes.c_ulonglong),
        ("free", ctypes.c_ulonglong),
        ("used", ctypes.c_ulonglong),
    )


class _Refused(Exception):
    """NVML gave an error in place of an answer."""


class Nvml:
    """The library, initialised."""

    def __init__(self) -> None:
        self._library = self._load()
        self._call("nvmlInit_v2")

    @staticmethod
    def _load() -> ctypes.CDLL:
        for name in _LIBRARIES:
            try:
                return ctypes.CDLL(name)
            except OSError:
                continue
        raise _Refused("")

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:
            raise _Refused(f"NVML has no {name}") from None
        function.restype = ctypes.c_int
        code = function(*arguments)
        if code:
            raise _Refused(self._words(code))

    def _words(self, code: int) -> str:
        try:
            function = self._library.nvmlErrorString
        except AttributeError:
            return f"error {code}"
        function.restype = ctypes.c_char_p
        said = function(ctypes.c_int(code))
        return said.decode("utf-8", "replace") if said else f"error {code}"

    def text(self, name: str, *before: object) -> str:
        """What a function says that fills a buffer."""
        room = ctypes.create_string_buffer(_ROOM)
        self._call(name, *before, room, ctypes.c_uint(_ROOM))
        return room.value.decode("utf-8", "replace")

    def number(self, name: str) -> int:
        """What a function says that fills a number."""
        value = ctypes.c_int(0)
        self._call(name, ctypes.byref(value))
        return value.value

    def gpu(self, index: int) -> dict[str, object]:
        """All about one GPU, as far as it is known."""
        handle = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(handle))
        found: dict[str, object] = {"name": self.text("nvmlDeviceGetName", handle)}
        memory, major, minor = _Memory(), ctypes.c_int(0), ctypes.c_int(0)
        try:
            found["uuid"] = self.text("nvmlDeviceGetUUID", handle)
            self._call("nvmlDeviceGetMemoryInfo", handle, ctypes.byref(memory))
            found["memory"] = memory.total
            self._call(
                "nvmlDeviceGetCudaComputeCapability",
                handle,
                ctypes.byref(major),
                ctypes.byref(minor),
            )
            found["capability"] = f"{major.value}.{minor.value}"
        except _Refused:
            pass
        return found


def facts() -> dict[str, object]:
    """What it says; ``trouble`` is in it where that is an error, and nothing without a library."""
    found: dict[str, object] = {}
    try:
        nvml = Nvml()
        found["driver"] = nvml.text("nvmlSystemGetDriverVersion")
        gpus: list[object] = []
        found["gpus"] = gpus
        for index in range(min(nvml.number("nvmlDeviceGetCount_v2"), _MOST)):
            try:
                gpus.append(nvml.gpu(index))
            except _Refused as error:
                found["trouble"] = str(error)  # this one is lost or not ours; others may be
        # last, for it loads the library of CUDA itself
        release = nvml.number("nvmlSystemGetCudaDriverVersion_v2")
        found["cuda"] = f"{release // 1000}.{release % 1000 // 10}"
    except _Refused as error:
        if str(error):
            found.setdefault("trouble", str(error))
    return found


if __name__ == "__main__":
    json.dump(facts(), sys.stdout)
