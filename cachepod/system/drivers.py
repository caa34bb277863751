"""
Which packages are a driver of the GPU, or are there to bring one.

The host has the driver and lends it to its containers; another one in a container hides it. Names
are those of NVIDIA's repository, of Debian and of Ubuntu.
"""

from __future__ import annotations

import re

_NVIDIA = (
    "alternative|compute-utils|cuda-mps|detect|dkms|driver|egl-(?:common|icd)|fabric-?manager|firmware"
    "|fs|gds|headless|imex|kernel|legacy|libopencl1|modprobe|open|opencl-(?:common|icd)|peermem"
    "|persistenced|settings|smi|suspend|tesla|utils|vdpau-driver|vulkan-(?:common|icd)|xconfig"
)
_DRIVER = (
    # metapackages that bring one; cuda-toolkit-12-6, cuda-compat-12-6, cuda-driver-dev-12-6 do not
    r"cuda(?:-\d+){0,2}|cuda-(?:drivers|runtime|demo-suite)(?:-.*)?"
    rf"|nvidia-(?:{_NVIDIA})(?:-.*)?"
    r"|libcuda1(?:-.*)?|libcudadebugger1|libnvcuvid1|libnvoptix1"
    r"|libnvidia-(?!container|egl-|ml-dev).*"
    r"|(?:firmware-nvidia|xserver-xorg-video-nvidia|linux-(?:modules|objects|signatures)-nvidia).*"
)


def is_driver(package: str) -> bool:
    """
    Whether *package* is a driver of the GPU, a part of one, or a package made to bring one.

    Args:
        package: A name, as it may be followed by ``:ARCHITECTURE``, ``=VERSION`` or ``/RELEASE``.
    """
    name = re.split("[:=/]", package, maxsplit=1)[0]
    return re.fullmatch(_DRIVER, name) is not None
