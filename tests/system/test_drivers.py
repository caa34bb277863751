"""Which packages no container may install."""

from __future__ import annotations

import pytest

from cachepod.system.drivers import is_driver


@pytest.mark.parametrize(
    "package",
    [
        "cuda",
        "cuda-12",
        "cuda-12-6",
        "cuda-12-6=12.6.3-1",
        "cuda-drivers",
        "cuda-drivers-560",
        "cuda-drivers-fabricmanager-560",
        "cuda-runtime-12-6",
        "cuda-demo-suite-12-6",
        "nvidia-open",
        "nvidia-open-560",
        "nvidia-driver-550-server",
        "nvidia-driver",
        "nvidia-driver-bin:amd64",
        "nvidia-kernel-dkms",
        "nvidia-kernel-open-dkms",
        "nvidia-dkms-550",
        "nvidia-headless-550",
        "nvidia-utils-550",
        "nvidia-compute-utils-550",
        "nvidia-smi",
        "nvidia-modprobe",
        "nvidia-persistenced",
        "nvidia-fabricmanager-550",
        "nvidia-fs-dkms",
        "nvidia-gds-12-6",
        "nvidia-opencl-icd",
        "libcuda1",
        "libnvidia-compute-550",
        "libnvidia-ml1",
        "libnvcuvid1",
        "xserver-xorg-video-nvidia-550",
        "linux-modules-nvidia-550-generic",
        "firmware-nvidia-gsp",
    ],
)
def test_drivers_and_what_brings_them_are_known(package: str) -> None:
    assert is_driver(package)


@pytest.mark.parametrize(
    "package",
    [
        "cuda-toolkit-12-6",
        "cuda-toolkit-12-6=12.6.3-1",
        "cuda-toolkit",
        "cuda-toolkit-config-common",
        "cuda-keyring",
        "cuda-nvcc-12-6",
        "cuda-cudart-dev-12-6",
        "cuda-driver-dev-12-6",
        "cuda-compat-12-6",
        "cuda-libraries-12-6",
        "cuda-minimal-build-12-6",
        "libcublas-12-6",
        "libcudnn9-cuda-12",
        "libcudart11.0",
        "libnccl2",
        "libnvidia-container-tools",
        "libnvidia-egl-wayland1",
        "libnvinfer8",
        "nvidia-container-toolkit",
        "nvidia-cuda-toolkit",
        "nvidia-cuda-dev",
        "nvidia-cudnn",
        "nvidia-profiler",
        "nsight-compute-2024.3.2",
        "gds-tools-12-6",
        "ffmpeg",
    ],
)
def test_what_computes_without_a_driver_is_none(package: str) -> None:
    assert not is_driver(package)
