"""A libnvidia-ml.so.1 that says what the environment tells it to, made by the system's compiler."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

SOURCE = r"""
#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
#include <signal.h>

/* NVML_MODE: empty, hang, ignore (hangs, and so does a child that keeps the pipe), crash, exit,
   shout (never ends to write), mismatch, lost, nocuda, nonsense, thousands, old */
static int mode(const char *name) {
    const char *said = getenv("NVML_MODE");
    return said && !strcmp(said, name);
}
int nvmlInit_v2(void) {
    alarm(30); /* nobody is left behind for longer */
    if (mode("hang")) for (;;) pause();
    if (mode("ignore")) {
        signal(SIGTERM, SIG_IGN);
        if (!fork()) { setsid(); alarm(5); } /* an alarm is not inherited */
        for (;;) pause();
    }
    if (mode("crash")) abort();
    if (mode("exit")) _exit(3);
    if (mode("shout")) for (;;) puts("0123456789012345678901234567890123456789");
    if (mode("mismatch")) return 18;
    return 0;
}
const char *nvmlErrorString(int code) {
    switch (code) {
    case 6: return "Not Found";
    case 15: return "GPU is lost";
    case 18: return "Driver/library version mismatch";
    default: return "Unknown Error";
    }
}
int nvmlSystemGetDriverVersion(char *text, unsigned room) {
    snprintf(text, room, mode("nonsense") ? "\x1b[2J of 5 \xff" : "570.86.15");
    return 0;
}
int nvmlSystemGetCudaDriverVersion_v2(int *version) {
    if (mode("nocuda")) return 13;
    *version = mode("nonsense") ? -1 : 12080;
    return 0;
}
int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = mode("thousands") ? 4000000000u : 2;
    return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    if (mode("lost") && index == 0) return 15;
    *handle = (void *)(size_t)(index + 1);
    return 0;
}
int nvmlDeviceGetName(void *handle, char *text, unsigned room) {
    snprintf(text, room, mode("nonsense") ? "\x1b[31mNVIDIA\n L4\x07" : "NVIDIA L4");
    return 0;
}
int nvmlDeviceGetUUID(void *handle, char *text, unsigned room) {
    snprintf(text, room, "GPU-%08zx-0000-0000-0000-000000000000", (size_t)handle);
    return 0;
}
int nvmlDeviceGetMemoryInfo(void *handle, unsigned long long *memory) {
    memory[0] = mode("nonsense") ? ~0ull : 24152899584ull;
    memory[1] = memory[2] = 0;
    return 0;
}
#ifndef OLD
int nvmlDeviceGetCudaComputeCapability(void *handle, int *major, int *minor) {
    *major = 8; *minor = 9;
    return 0;
}
#endif
"""


def compiler() -> str | None:
    """The system's C compiler; None where there is none."""
    return shutil.which("cc") or shutil.which("gcc")


def build(folder: Path, *options: str) -> Path:
    """Compile it; the directory it is in is for LD_LIBRARY_PATH."""
    program = compiler()
    assert program is not None
    folder.mkdir(parents=True)
    source = folder / "nvml.c"
    source.write_text(SOURCE)
    subprocess.run(
        [program, "-shared", "-fPIC", "-w", *options, "-o", str(folder / "libnvidia-ml.so.1"),
         str(source)],
        check=True, env={**os.environ, "LC_ALL": "C"},
    )  # fmt: skip
    return folder
