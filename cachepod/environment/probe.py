"""
What an interpreter says about itself.

Imported for the interpreter that runs cachepod, and run as a script by any other one, which knows
nothing of cachepod: so it imports the standard library alone and keeps to what Python 3.8 has.
"""

from __future__ import annotations

import os
import sys


def _base_executable() -> str:
    """
    The interpreter behind a virtual environment, links resolved; itself where there is none.

    Python 3.10 leaves ``sys._base_executable`` pointing into the environment, and in one made of
    copies the file there is no link, so its ``pyvenv.cfg`` is asked.
    """
    executable = os.path.realpath(sys.executable)
    if sys.prefix == sys.base_prefix:
        return executable
    said = {}
    try:
        with open(os.path.join(sys.prefix, "pyvenv.cfg"), encoding="utf-8") as stream:
            for line in stream:
                name, _, value = line.partition("=")
                said[name.strip().lower()] = value.strip()
    except (OSError, ValueError):
        return executable
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    home = said.get("home", "")
    for candidate in (
        said.get("executable", ""),
        os.path.join(home, "python" + version) if home else "",
        os.path.join(home, os.path.basename(sys.executable)) if home else "",
        os.path.join(home, "python3") if home else "",
    ):
        if candidate and os.access(candidate, os.X_OK):
            return os.path.realpath(candidate)
    return executable


def _libc() -> str:
    """``glibc 2.36``, or ``musl 1.2.4``, or the empty string where neither answers."""
    try:
        said = os.confstr("CS_GNU_LIBC_VERSION")
        if said:
            return said
    except (AttributeError, OSError, ValueError):
        pass
    for name in sorted(os.listdir("/lib")) if os.path.isdir("/lib") else ():
        if name.startswith("ld-musl-"):
            import subprocess

            # musl's loader, run without arguments, introduces itself on stderr
            loader = subprocess.run(
                [os.path.join("/lib", name)], stderr=subprocess.PIPE, check=False, timeout=10
            )
            for line in loader.stderr.decode("ascii", "replace").splitlines():
                if line.startswith("Version "):
                    return "musl " + line[len("Version ") :].strip()
            return "musl"
    return ""


def _full_version(info: sys._version_info) -> str:
    """``3.13.0rc1`` as the environment markers' specification writes it."""
    text = f"{info.major}.{info.minor}.{info.micro}"
    if info.releaselevel != "final":
        text += info.releaselevel[0] + str(info.serial)
    return text


def facts() -> dict[str, str]:
    """Every fact as text; ``marker:*`` are the variables of environment markers."""
    import _imp

    system = os.uname()
    implementation = sys.implementation.name
    digits = f"{sys.version_info[0]}{sys.version_info[1]}"
    suffix = _imp.extension_suffixes()[0]  # ".cpython-310-x86_64-linux-gnu.so"
    short = {"cpython": "cp", "pypy": "pp"}.get(implementation, implementation)
    python_version = _full_version(sys.version_info)
    implementations = {"cpython": "CPython", "pypy": "PyPy"}
    machine = system.machine
    if sys.maxsize <= 2**32:  # a 32-bit interpreter on a 64-bit kernel
        machine = {"x86_64": "i686", "aarch64": "armv7l"}.get(machine, machine)
    return {
        "implementation": implementation,
        "version": python_version,
        "abi": short + digits + getattr(sys, "abiflags", ""),
        "soabi": suffix[1:].rsplit(".", 1)[0] if suffix.count(".") > 1 else "",
        "platform": f"{sys.platform}_{machine}",
        "executable": _base_executable(),
        "prefix": os.path.realpath(sys.base_prefix),
        "libc": _libc(),
        "marker:implementation_name": implementation,
        "marker:implementation_version": _full_version(sys.implementation.version),
        "marker:os_name": os.name,
        "marker:platform_machine": system.machine,
        "marker:platform_python_implementation": implementations.get(
            implementation, implementation
        ),
        "marker:platform_release": system.release,
        "marker:platform_system": system.sysname,
        "marker:platform_version": system.version,
        "marker:python_full_version": python_version,
        "marker:python_version": ".".join(python_version.split(".")[:2]),
        "marker:sys_platform": sys.platform,
    }


if __name__ == "__main__":
    import json

    json.dump(facts(), sys.stdout)
